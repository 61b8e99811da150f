//! What is known about a connection.

use core::fmt;
use std::net::SocketAddr;

use crate::stats::ConnectionKind;
use crate::wire::Capabilities;

/// Who is at the other end, as far as the adapter knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket: its client has no name.
    Unix,
    /// Some other stream.
    #[default]
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// What the handshake settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionInfo {
    pub(crate) peer: Peer,
    pub(crate) engine_id: Option<Box<[u8]>>,
    pub(crate) offered: Capabilities,
    pub(crate) offered_max_frame_size: u64,
    pub(crate) capabilities: Capabilities,
    pub(crate) max_frame_size: u32,
}

impl ConnectionInfo {
    /// Who is at the other end.
    #[must_use]
    pub const fn peer(&self) -> Peer {
        self.peer
    }

    /// HAProxy's `engine-id`: one for each thread (<= 3.0) or process (>= 3.1) and agent section,
    /// new at every reload. `None` where HAProxy sent none.
    #[must_use]
    pub fn engine_id(&self) -> Option<&[u8]> {
        self.engine_id.as_deref()
    }

    /// Which generation of HAProxy's engine that is: [`ConnectionKind::Old`] or [`ConnectionKind::New`].
    #[must_use]
    pub const fn kind(&self) -> ConnectionKind {
        ConnectionKind::of(self)
    }

    /// The capabilities HAProxy announced. `async` is announced by HAProxy <= 3.0 only.
    #[must_use]
    pub const fn offered(&self) -> Capabilities {
        self.offered
    }

    /// The max-frame-size HAProxy offered.
    #[must_use]
    pub const fn offered_max_frame_size(&self) -> u64 {
        self.offered_max_frame_size
    }

    /// The capabilities this side announced.
    #[must_use]
    pub const fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// The max-frame-size agreed on, in bytes without the length field.
    #[must_use]
    pub const fn max_frame_size(&self) -> u32 {
        self.max_frame_size
    }
}
