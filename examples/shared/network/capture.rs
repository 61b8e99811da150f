//! pcap and pcapng files.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use super::packet::{self, Packet};
use super::{Connections, LeftOut, Sink};

/// For a packet to fit, and no more than is read at once.
const BUFFER: usize = 256 * 1024;
/// No packet is larger: a block that says so is broken.
const BUFFER_MAX: usize = 64 << 20;

/// Whether a file that begins with these four bytes is a capture.
pub(crate) const fn is_capture(first: &[u8]) -> bool {
    matches!(
        first,
        [0x0a, 0x0d, 0x0d, 0x0a]
            | [0xa1, 0xb2, 0xc3, 0xd4]
            | [0xd4, 0xc3, 0xb2, 0xa1]
            | [0xa1, 0xb2, 0x3c, 0x4d]
            | [0x4d, 0x3c, 0xb2, 0xa1]
    )
}

/// Reads all packets of a capture.
pub(crate) fn read<S: Sink>(
    source: impl Read + Send,
    connections: &mut Connections,
    sink: &mut S,
) -> io::Result<()> {
    let source = whole_header(source)?;
    let mut reader = create_reader(BUFFER, source).map_err(|error| invalid(&error))?;
    let mut links = Links::default();
    let mut size = BUFFER;
    loop {
        let taken = match reader.next() {
            Ok((taken, block)) => {
                if let Some((link, time, data)) = links.packet(&block)? {
                    match packet::packet(link, data, time) {
                        Packet::Tcp(segment) => connections.segment(&segment, sink)?,
                        Packet::Fragment => connections.fragment(),
                        Packet::Other => {}
                    }
                }
                Some(taken)
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => None,
            Err(PcapError::BufferTooSmall) => {
                size = size.saturating_mul(2);
                if size > BUFFER_MAX || !reader.grow(size) {
                    let what = "a block of the capture is larger than 64 MiB";
                    return Err(io::Error::new(ErrorKind::InvalidData, what));
                }
                None
            }
            // A capture that was stopped in the middle of a packet is as good as its packets.
            Err(PcapError::UnexpectedEof) => {
                sink.left_out(LeftOut::LastPacket)?;
                break;
            }
            Err(error) => return Err(invalid(&error)),
        };
        match taken {
            Some(taken) => reader.consume(taken),
            None => reader.refill().map_err(|error| invalid(&error))?,
        }
    }
    connections.end(sink)
}

/// The reader wants all of the file's header at once, and pipes give what they have.
fn whole_header<R: Read + Send>(mut source: R) -> io::Result<impl Read + Send> {
    // All of a pcap's; of a pcapng's first block the length, in the order that its magic tells.
    let mut head = Vec::new();
    source.by_ref().take(24).read_to_end(&mut head)?;
    if let [0x0a, 0x0d, 0x0d, 0x0a, length @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
        head.as_slice()
        && let Ok(length) = <[u8; 4]>::try_from(length)
    {
        let big = head.get(8..12) == Some(&[0x1a, 0x2b, 0x3c, 0x4d]);
        let length = if big { u32::from_be_bytes(length) } else { u32::from_le_bytes(length) };
        let rest = u64::from(length).min(64 * 1024).saturating_sub(24);
        source.by_ref().take(rest).read_to_end(&mut head)?;
    }
    Ok(io::Cursor::new(head).chain(source))
}

fn invalid(error: &PcapError<&[u8]>) -> io::Error {
    let what = match error {
        PcapError::ReadError => "the capture cannot be read",
        PcapError::HeaderNotRecognized => "no pcap and no pcapng file",
        PcapError::Eof | PcapError::UnexpectedEof | PcapError::Incomplete(_) => {
            "the capture ends within its header"
        }
        _ => "the capture is broken",
    };
    io::Error::new(ErrorKind::InvalidData, what)
}

/// What packets of each interface are, and how its time counts.
#[derive(Debug, Default)]
struct Links {
    all: Vec<(Linktype, u64, i64)>,
    nanoseconds: bool,
}

impl Links {
    #[expect(clippy::type_complexity, reason = "three parts of a packet, used at one place")]
    fn packet<'a>(
        &mut self,
        block: &'a PcapBlockOwned<'_>,
    ) -> io::Result<Option<(Linktype, Option<Duration>, &'a [u8])>> {
        Ok(match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.nanoseconds = header.is_nanosecond_precision();
                // The upper half says how long a checksum is.
                self.add(Linktype(header.network.0 & 0xffff), 1, 0)?;
                None
            }
            PcapBlockOwned::Legacy(packet) => {
                let unit = if self.nanoseconds { 1 } else { 1000 };
                let part = Duration::from_nanos(u64::from(packet.ts_usec).saturating_mul(unit));
                let time = Duration::from_secs(packet.ts_sec.into()).saturating_add(part);
                self.all.first().map(|(link, ..)| (*link, Some(time), packet.data))
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.all.clear();
                None
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                let ticks = interface.ts_resolution().unwrap_or(1_000_000);
                self.add(interface.linktype, ticks, interface.ts_offset())?;
                None
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let index = usize::try_from(packet.if_id).unwrap_or(usize::MAX);
                let length = usize::try_from(packet.caplen).unwrap_or(usize::MAX);
                let data = packet.data.get(..length).unwrap_or(packet.data);
                self.all.get(index).map(|(link, ticks, offset)| {
                    let time = (u64::from(packet.ts_high) << 32) | u64::from(packet.ts_low);
                    (*link, Some(since(time, *ticks, *offset)), data)
                })
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                self.all.first().map(|(link, ..)| (*link, None, packet.data))
            }
            PcapBlockOwned::NG(_) => None,
        })
    }

    fn add(&mut self, link: Linktype, ticks: u64, offset: i64) -> io::Result<()> {
        if !packet::is_known(link) {
            let what = format!(
                "link type {}: only Ethernet, Linux cooked, loopback and raw IP are read",
                link.0
            );
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        self.all.push((link, ticks.max(1), offset));
        Ok(())
    }
}

fn since(time: u64, ticks: u64, offset: i64) -> Duration {
    let seconds = (time / ticks).saturating_add_signed(offset);
    let part = u128::from(time % ticks).saturating_mul(1_000_000_000) / u128::from(ticks);
    Duration::from_secs(seconds)
        .saturating_add(Duration::from_nanos(u64::try_from(part).unwrap_or(0)))
}
