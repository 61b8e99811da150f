//! A connection as the TCP packets that it would be if HAProxy and the agent had no tap between them.
//!
//! What was read at once is a packet. An acknowledgement goes with the next packet the other way, or
//! alone where that is far; nothing is lost, repeated or late.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{PacketBuilder, TcpOptionElement};

use crate::show::Side;

/// What stands for the port of an agent on a Unix socket.
const AGENT_PORT: u16 = 12345;
/// What stands for those of HAProxy on a Unix socket: another one for each connection, as long as there are.
const HAPROXY_PORTS: std::ops::Range<u16> = 32_768..u16::MAX;

/// Payload of the largest packet: what IPv4 can say, less two headers.
const LARGEST: usize = 65_535 - 40;
/// Both say that they have room for 65 535 times 2 to the power of this, which is never used up:
const SCALE: u8 = 7;
/// so much may be sent before it is acknowledged in a packet of its own.
const UNACKNOWLEDGED: u32 = 1 << 20;
const WINDOW: u16 = u16::MAX;
const HOPS: u8 = 64;

/// A connection, and how far it is.
#[derive(Debug)]
pub(crate) struct Segments {
    haproxy: End,
    agent: End,
    /// After a reset there is nothing more.
    over: bool,
}

/// One side.
#[derive(Debug)]
struct End {
    address: SocketAddr,
    /// Sequence number of what it sends next.
    next: u32,
    /// Up to where the other side has acknowledged.
    acknowledged: u32,
}

/// What a packet is beside its payload. All but the first acknowledge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Syn,
    SynAck,
    Data,
    Fin,
    Reset,
}

impl Segments {
    /// A connection between those two; `None` is a Unix socket. `number` makes it another one than those
    /// of the same addresses.
    pub(crate) fn new(number: u64, haproxy: Option<SocketAddr>, agent: Option<SocketAddr>) -> Self {
        let [haproxy, agent] = addresses(number, haproxy, agent);
        let [_, _, _, _, number @ ..] = number.to_be_bytes();
        // Far apart, and different for each number: so a reader knows connections by them.
        let first = u32::from_be_bytes(number).wrapping_mul(0x9e37_79b1);
        let end = |address, next| End { address, next, acknowledged: next };
        let over = false;
        Self { haproxy: end(haproxy, first), agent: end(agent, !first), over }
    }

    /// Who talks with whom.
    pub(crate) const fn ends(&self) -> [SocketAddr; 2] {
        [self.haproxy.address, self.agent.address]
    }

    /// The packets that open it.
    pub(crate) fn open(&mut self) -> Vec<Vec<u8>> {
        vec![
            self.packet(Side::Haproxy, Kind::Syn, &[]),
            self.packet(Side::Agent, Kind::SynAck, &[]),
            self.packet(Side::Haproxy, Kind::Data, &[]),
        ]
    }

    /// The packets in which these bytes go from `side` to the other.
    pub(crate) fn bytes(&mut self, side: Side, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        if self.over {
            return packets;
        }
        for part in bytes.chunks(LARGEST) {
            packets.push(self.packet(side, Kind::Data, part));
            let (from, _) = self.pair(side);
            if from.next.wrapping_sub(from.acknowledged) >= UNACKNOWLEDGED {
                packets.push(self.packet(other(side), Kind::Data, &[]));
            }
        }
        packets
    }

    /// The packets in which `side` says that it has sent all it has to.
    pub(crate) fn end(&mut self, side: Side) -> Vec<Vec<u8>> {
        if self.over {
            return Vec::new();
        }
        vec![self.packet(side, Kind::Fin, &[]), self.packet(other(side), Kind::Data, &[])]
    }

    /// The packet in which `side` breaks it off.
    pub(crate) fn reset(&mut self, side: Side) -> Vec<Vec<u8>> {
        if self.over {
            return Vec::new();
        }
        let packet = self.packet(side, Kind::Reset, &[]);
        self.over = true;
        vec![packet]
    }

    fn pair(&mut self, side: Side) -> (&mut End, &mut End) {
        match side {
            Side::Haproxy => (&mut self.haproxy, &mut self.agent),
            Side::Agent => (&mut self.agent, &mut self.haproxy),
        }
    }

    fn packet(&mut self, side: Side, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let (from, to) = self.pair(side);
        let ip = match (from.address.ip(), to.address.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                PacketBuilder::ipv4(from.octets(), to.octets(), HOPS)
            }
            (from, to) => PacketBuilder::ipv6(as_v6(from).octets(), as_v6(to).octets(), HOPS),
        };
        let mut tcp = ip.tcp(from.address.port(), to.address.port(), from.next, WINDOW);
        if kind != Kind::Syn {
            tcp = tcp.ack(to.next);
            to.acknowledged = to.next;
        }
        tcp = match kind {
            Kind::Syn | Kind::SynAck => tcp.syn(),
            Kind::Data if payload.is_empty() => tcp,
            Kind::Data => tcp.psh(),
            Kind::Fin => tcp.fin(),
            Kind::Reset => tcp.rst(),
        };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let counts = u32::from(matches!(kind, Kind::Syn | Kind::SynAck | Kind::Fin));
        from.next = from.next.wrapping_add(length).wrapping_add(counts);
        let mut packet = Vec::with_capacity(payload.len().saturating_add(64));
        if matches!(kind, Kind::Syn | Kind::SynAck) {
            let size = u16::try_from(LARGEST).unwrap_or(u16::MAX);
            let options =
                [TcpOptionElement::MaximumSegmentSize(size), TcpOptionElement::WindowScale(SCALE)];
            // They take seven of forty bytes.
            let Ok(with_options) = tcp.options(&options) else { return packet };
            tcp = with_options;
        }
        // It fails where a packet is too long, and `LARGEST` is not.
        let _ = tcp.write_to_vec(&mut packet, payload);
        packet
    }
}

/// The one that is not `side`.
pub(crate) const fn other(side: Side) -> Side {
    match side {
        Side::Haproxy => Side::Agent,
        Side::Agent => Side::Haproxy,
    }
}

/// Of one family; loopback addresses stand for Unix sockets.
fn addresses(
    number: u64,
    haproxy: Option<SocketAddr>,
    agent: Option<SocketAddr>,
) -> [SocketAddr; 2] {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (haproxy, agent) = (haproxy.map(canonical), agent.map(canonical));
    let loopback = |beside: Option<SocketAddr>, port| {
        let v6 = beside.is_some_and(|beside| beside.is_ipv6());
        let ip: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        SocketAddr::new(ip, port)
    };
    let agent_port = agent.map_or(AGENT_PORT, |agent| agent.port());
    let ports = u64::try_from(HAPROXY_PORTS.len()).unwrap_or(1);
    let port = u16::try_from(number % ports).unwrap_or(0).saturating_add(HAPROXY_PORTS.start);
    let port = if port == agent_port { HAPROXY_PORTS.end } else { port };
    [
        haproxy.unwrap_or_else(|| loopback(agent, port)),
        agent.unwrap_or_else(|| loopback(haproxy, AGENT_PORT)),
    ]
}

/// Where one side has IPv4 and the other IPv6, it is told in IPv6.
fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    /// Flags as tcpdump writes them, sequence number, acknowledgement, length of the payload.
    fn read(packet: &[u8]) -> (String, u32, u32, usize) {
        let packet = SlicedPacket::from_ip(packet).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
        match packet.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                let sum = tcp.calc_checksum_ipv4(header.source, header.destination).unwrap();
                assert_eq!(tcp.checksum(), sum);
            }
            etherparse::NetSlice::Ipv6(ip) => {
                assert_eq!(
                    tcp.checksum(),
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                        .unwrap()
                );
            }
            other => panic!("{other:?}"),
        }
        let mut flags = String::new();
        for (set, letter) in [
            (tcp.syn(), 'S'),
            (tcp.fin(), 'F'),
            (tcp.rst(), 'R'),
            (tcp.psh(), 'P'),
            (tcp.ack(), '.'),
        ] {
            if set {
                flags.push(letter);
            }
        }
        (flags, tcp.sequence_number(), tcp.acknowledgment_number(), tcp.payload().len())
    }

    /// What each says, in numbers from the first of its side.
    fn told(packets: &[Vec<u8>], first: [u32; 2]) -> Vec<String> {
        let mut told = Vec::new();
        for packet in packets {
            let agent = SlicedPacket::from_ip(packet).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = agent.transport else { panic!("no TCP") };
            let side = usize::from(tcp.source_port() == 12345);
            let (flags, sequence, acknowledges, length) = read(packet);
            let sequence = sequence.wrapping_sub(first[side]);
            let acknowledges = match flags.contains('.') {
                true => acknowledges.wrapping_sub(first[1 - side]),
                false => acknowledges,
            };
            told.push(format!("{side} {flags} {sequence} {acknowledges} {length}"));
        }
        told
    }

    fn address(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn numbers_of_a_whole_connection() {
        for (haproxy, agent) in [("192.0.2.1:40000", "192.0.2.2:12345"), ("[::1]:9", "[::1]:12345")]
        {
            let mut segments = Segments::new(7, address(haproxy), address(agent));
            let first = [segments.haproxy.next, segments.agent.next];
            let mut packets = segments.open();
            packets.extend(segments.bytes(Side::Haproxy, b"hello"));
            packets.extend(segments.bytes(Side::Agent, b"hi"));
            packets.extend(segments.bytes(Side::Agent, b"there"));
            packets.extend(segments.end(Side::Haproxy));
            packets.extend(segments.bytes(Side::Agent, b"!"));
            packets.extend(segments.end(Side::Agent));
            let expected = [
                "0 S 0 0 0",
                "1 S. 0 1 0",
                "0 . 1 1 0",
                "0 P. 1 1 5",
                "1 P. 1 6 2",
                "1 P. 3 6 5",
                "0 F. 6 8 0",
                "1 . 8 7 0",
                "1 P. 8 7 1",
                "1 F. 9 7 0",
                "0 . 7 10 0",
            ];
            assert_eq!(told(&packets, first), expected, "{haproxy}");
        }
    }

    #[test]
    fn after_a_reset_there_is_nothing() {
        let mut segments = Segments::new(1, None, None);
        let first = [segments.haproxy.next, segments.agent.next];
        segments.open();
        assert_eq!(told(&segments.reset(Side::Agent), first), ["1 R. 1 1 0"]);
        assert!(segments.bytes(Side::Haproxy, b"x").is_empty());
        assert!(segments.end(Side::Haproxy).is_empty() && segments.reset(Side::Haproxy).is_empty());
    }

    /// No packet is too large, and none is far from its acknowledgement, also past the last number.
    #[test]
    fn much_at_once() {
        let mut segments = Segments::new(1, None, None);
        segments.haproxy.next = u32::MAX - 100_000;
        let first = [segments.haproxy.next, segments.agent.next];
        segments.open();
        let packets = segments.bytes(Side::Haproxy, &vec![7; 3 << 20]);
        let told = told(&packets, first);
        assert_eq!(told[..2], ["0 P. 1 1 65495", "0 P. 65496 1 65495"]);
        assert!(packets.iter().all(|packet| packet.len() <= 65_535));
        let alone: Vec<_> = told.iter().filter(|packet| packet.starts_with("1 .")).collect();
        assert_eq!(alone, ["1 . 1 1113416 0", "1 . 1 2226831 0"]);
        assert_eq!(read(packets.last().unwrap()).3, (3 << 20) % LARGEST);
    }

    #[test]
    fn what_stands_for_unix_sockets() {
        let two = |number, haproxy, agent| {
            addresses(number, haproxy, agent).map(|address| address.to_string())
        };
        assert_eq!(two(1, None, None), ["127.0.0.1:32769", "127.0.0.1:12345"]);
        let tcp = address("[2001:db8::1]:99");
        assert_eq!(two(2, None, tcp), ["[::1]:32770", "[2001:db8::1]:99"]);
        assert_eq!(two(2, tcp, None), ["[2001:db8::1]:99", "[::1]:12345"]);
        // Another port than the agent's.
        let agent = address("127.0.0.1:32769");
        assert_eq!(two(1, None, agent), ["127.0.0.1:65535", "127.0.0.1:32769"]);
        assert_ne!(two(0, None, agent), two(1, None, agent));
        // A listener on :: shows IPv4 clients so.
        let mapped = address("[::ffff:192.0.2.1]:5");
        assert_eq!(two(1, mapped, agent)[0], "192.0.2.1:5");
        let mut mixed = Segments::new(1, tcp, agent);
        assert_eq!(read(&mixed.open()[0]).0, "S");
    }
}
