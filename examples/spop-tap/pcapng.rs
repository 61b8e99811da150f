//! A pcapng file with one interface, whose packets begin with the header of IP.
//!
//! Each block goes to the system whole and at once: however the program ends, what is there can be read.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

// Types of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
// Options: any block's, the section's, the interface's.
const COMMENT: u16 = 1;
const PROGRAM: u16 = 4;
const DESCRIPTION: u16 = 3;
const RESOLUTION: u16 = 9;

/// Says by its bytes in which order those of all numbers stand.
const ORDER: u32 = 0x1a2b_3c4d;
/// `LINKTYPE_RAW`: IPv4 or IPv6, which its first byte tells.
const RAW: u16 = 101;
/// Times count in 10 to the power of minus this.
const NANOSECONDS: u8 = 9;

/// Adds packets to a file.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    /// How long the file is as far as its blocks are whole.
    whole: u64,
}

impl Writer {
    /// Begins a file, over one that is there.
    pub(crate) fn create(path: &Path, description: &str) -> io::Result<Self> {
        let mut writer = Self { file: File::create(path)?, whole: 0 };
        let mut section = ORDER.to_le_bytes().to_vec();
        // Version 1.0, and a length that is not known yet.
        section.extend([1, 0, 0, 0]);
        section.extend([0xff; 8]);
        option(PROGRAM, concat!("spop-tap ", env!("CARGO_PKG_VERSION")).as_bytes(), &mut section);
        writer.append(SECTION, section)?;
        // Then two bytes for nothing, and 0: packets are never cut.
        let mut interface = RAW.to_le_bytes().to_vec();
        interface.extend([0; 6]);
        option(DESCRIPTION, description.as_bytes(), &mut interface);
        option(RESOLUTION, &[NANOSECONDS], &mut interface);
        writer.append(INTERFACE, interface)?;
        Ok(writer)
    }

    /// Adds a packet that was seen then, since 1970.
    pub(crate) fn packet(
        &mut self,
        time: Duration,
        data: &[u8],
        comment: Option<&str>,
    ) -> io::Result<()> {
        let length = u32::try_from(data.len()).map_err(io::Error::other)?.to_le_bytes();
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let [low @ .., _, _, _, _] = nanoseconds.to_le_bytes();
        let [_, _, _, _, high @ ..] = nanoseconds.to_le_bytes();
        let mut packet = Vec::with_capacity(data.len().saturating_add(64));
        // Of the only interface; as long as it is here it was.
        for number in [[0; 4], high, low, length, length] {
            packet.extend(number);
        }
        packet.extend_from_slice(data);
        pad(&mut packet);
        if let Some(comment) = comment {
            option(COMMENT, comment.as_bytes(), &mut packet);
        }
        self.append(PACKET, packet)
    }

    /// With the end of its options, if it has some; all that is in it is a multiple of four bytes.
    fn append(&mut self, kind: u32, body: Vec<u8>) -> io::Result<()> {
        let length = u32::try_from(body.len()).ok().and_then(|length| length.checked_add(12));
        let length = length.ok_or(io::ErrorKind::FileTooLarge)?.to_le_bytes();
        let block = [&kind.to_le_bytes()[..], &length, &body, &length].concat();
        if let Err(error) = self.file.write_all(&block) {
            // The half of a block that may be there would only be in the way of readers.
            let _ = self.file.set_len(self.whole);
            return Err(error);
        }
        self.whole = self.whole.saturating_add(u64::try_from(block.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

/// The list of options ends where its block does.
fn option(code: u16, value: &[u8], block: &mut Vec<u8>) {
    let (length, value) = match u16::try_from(value.len()) {
        Ok(length) => (length, value),
        Err(_) => (0, &[][..]),
    };
    block.extend(code.to_le_bytes());
    block.extend(length.to_le_bytes());
    block.extend_from_slice(value);
    pad(block);
}

fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use pcap_parser::traits::PcapReaderIterator;
    use pcap_parser::{Block, PcapBlockOwned, PcapError, PcapNGReader};

    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("{name}-{}.pcapng", std::process::id()))
    }

    #[test]
    fn readers_find_what_was_written() {
        let path = path("spop-tap-blocks");
        let time = Duration::new(1_700_000_000, 123_456_789);
        let mut writer = Writer::create(&path, "a description").unwrap();
        for (length, comment) in [(20, None), (21, Some("why")), (65_535, Some(""))] {
            writer.packet(time, &vec![0x45; length], comment).unwrap();
        }
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(writer.whole, bytes.len() as u64);

        let mut reader = PcapNGReader::new(1 << 20, bytes.as_slice()).unwrap();
        let mut seen = Vec::new();
        loop {
            let (taken, block) = match reader.next() {
                Ok(next) => next,
                Err(PcapError::Eof) => break,
                Err(PcapError::Incomplete(_)) => {
                    reader.refill().unwrap();
                    continue;
                }
                Err(error) => panic!("{error:?}"),
            };
            let PcapBlockOwned::NG(block) = block else { panic!("no pcapng") };
            match block {
                Block::SectionHeader(section) => {
                    assert_eq!((section.major_version, section.section_len), (1, -1));
                }
                Block::InterfaceDescription(interface) => {
                    assert_eq!(interface.linktype.0, 101);
                    assert_eq!(interface.ts_resolution(), Some(1_000_000_000));
                    assert_eq!(interface.if_description().unwrap().unwrap(), "a description");
                }
                Block::EnhancedPacket(packet) => {
                    let ticks = (u64::from(packet.ts_high) << 32) | u64::from(packet.ts_low);
                    assert_eq!(u128::from(ticks), time.as_nanos());
                    let comment = packet.options.first().map(|option| option.value.to_vec());
                    seen.push((packet.caplen, packet.origlen, comment));
                }
                other => panic!("{other:?}"),
            }
            reader.consume(taken);
        }
        // The length of a value counts, not its padding.
        assert_eq!(seen[0], (20, 20, None));
        assert_eq!((seen[1].0, &seen[1].2.as_ref().unwrap()[..3]), (21, &b"why"[..]));
        assert_eq!(seen[2].1, 65_535);
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn a_disk_that_is_full_is_an_error() {
        let full = Path::new("/dev/full");
        let error = Writer::create(full, "").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
