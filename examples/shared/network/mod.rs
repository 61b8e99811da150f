//! The connections of SPOP in a capture of the network.
//!
//! - `capture`: pcap and pcapng files
//! - `packet`: what is in them, down to the TCP segment
//! - `tcp`: segments put together to what each side of a connection wrote

mod capture;
mod packet;
mod tcp;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use self::capture::{is_capture, read};
#[allow(unused_imports, reason = "for those who have packets from elsewhere")]
pub(crate) use self::packet::{Packet, Segment, packet};
pub(crate) use self::tcp::Connections;
use crate::side::Side;

/// Who is told what a capture holds, as it is found. An error ends the reading.
///
/// Bytes of a side come in their order and once, each as soon as those before it are there: so what is told of
/// several connections is in the order of the file.
pub(crate) trait Sink {
    /// A connection of SPOP; they are numbered from 1.
    fn opened(&mut self, connection: u64, ends: Ends) -> io::Result<()>;

    /// What a side wrote next, and when the last of it was captured, since 1970.
    fn bytes(
        &mut self,
        connection: u64,
        side: Side,
        bytes: &[u8],
        time: Option<Duration>,
    ) -> io::Result<()>;

    /// That many bytes of a side were not captured.
    fn missing(&mut self, connection: u64, side: Side, bytes: u64) -> io::Result<()>;

    /// A side has written its last. May be told more than once.
    fn ended(&mut self, connection: u64, side: Side) -> io::Result<()>;

    /// Nothing more comes of a connection.
    fn closed(&mut self, connection: u64) -> io::Result<()>;

    /// Something of the capture that was not looked into.
    fn left_out(&mut self, what: LeftOut) -> io::Result<()>;
}

/// Who talks with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) haproxy: SocketAddr,
    pub(crate) agent: SocketAddr,
    /// Its start was not captured: what comes first need not be the start of a frame.
    pub(crate) late: bool,
}

/// What was not looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// Connections that do not begin with a HELLO.
    Connections {
        all: u64,
        /// Those of them that were there before the capture, and of which the first bytes could be a frame.
        joined_late: u64,
    },
    /// Fragments of IP packets: they are not put together.
    Fragments(u64),
    /// The packet in which the capture ends.
    LastPacket,
}
