//! Packets of a capture, down to the TCP segment.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_parser::Linktype;

/// A TCP segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'a> {
    /// When it was captured, since 1970.
    pub(crate) time: Option<Duration>,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) sequence: u32,
    pub(crate) syn: bool,
    pub(crate) ack: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) payload: &'a [u8],
    /// Bytes of the payload that the capture cut off.
    pub(crate) missing: u32,
}

/// What a packet is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packet<'a> {
    Tcp(Segment<'a>),
    /// A fragment of an IP packet: not put together.
    Fragment,
    /// Anything else.
    Other,
}

/// Whether packets of such a capture can be read.
pub(crate) fn is_known(link: Linktype) -> bool {
    const RAW_OF_BSD: [i32; 2] = [12, 14];
    [
        Linktype::ETHERNET,
        Linktype::NULL,
        Linktype::LOOP,
        Linktype::RAW,
        Linktype::IPV4,
        Linktype::IPV6,
        Linktype::LINUX_SLL,
        Linktype::LINUX_SLL2,
    ]
    .contains(&link)
        || RAW_OF_BSD.contains(&link.0)
}

/// Looks into a packet.
pub(crate) fn packet(link: Linktype, data: &[u8], time: Option<Duration>) -> Packet<'_> {
    // What stands in front of IP: an address family, or a "cooked" header.
    let skip = match link {
        Linktype::ETHERNET => None,
        Linktype::NULL | Linktype::LOOP => Some(4),
        Linktype::LINUX_SLL => Some(16),
        Linktype::LINUX_SLL2 => Some(20),
        _ => Some(0),
    };
    let sliced = match skip {
        None => LaxSlicedPacket::from_ethernet(data).ok(),
        Some(skip) => data.get(skip..).and_then(|ip| LaxSlicedPacket::from_ip(ip).ok()),
    };
    sliced.map_or(Packet::Other, |sliced| look(&sliced, time))
}

fn look<'a>(sliced: &LaxSlicedPacket<'a>, time: Option<Duration>) -> Packet<'a> {
    // In an IP packet without its lengths (sent in one piece to the network card) all of it counts.
    let (from, to, declared, headers): (IpAddr, IpAddr, usize, usize) = match &sliced.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let (from, to) = (header.source_addr().into(), header.destination_addr().into());
            (from, to, header.total_len().into(), header.slice().len())
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (from, to) = (header.source_addr().into(), header.destination_addr().into());
            (from, to, header.payload_length().into(), ip.extensions().slice().len())
        }
        _ => return Packet::Other,
    };
    let ip = sliced.net.as_ref().and_then(LaxNetSlice::ip_payload_ref);
    let Some(ip) = ip else { return Packet::Other };
    if ip.fragmented {
        return Packet::Fragment;
    }
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { return Packet::Other };
    let cut = declared.saturating_sub(headers).saturating_sub(ip.payload.len());
    let missing = if ip.incomplete { u32::try_from(cut).unwrap_or(0) } else { 0 };
    Packet::Tcp(Segment {
        time,
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        syn: tcp.syn(),
        ack: tcp.ack(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        payload: tcp.payload(),
        missing,
    })
}
