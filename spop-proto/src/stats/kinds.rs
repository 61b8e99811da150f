//! What connections are told apart by: closed lists, or a label could have any value.

use crate::error::{ProtocolError, Waiting};
use crate::wire::Capabilities;
use crate::{CloseReason, ConnectionInfo, Status};

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$variant),*];

            /// As a label in a monitoring system.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }
    };
}

labels! {
    /// Who a connection is from.
    ConnectionKind {
        /// HAProxy up to 3.0.
        Old = "old",
        /// HAProxy from 3.1 on. (And an older one that was told `no option async`.)
        New = "new",
        /// A health check; counted when it closes.
        HealthCheck = "health_check",
        /// Something that does not speak SPOP; counted when it closes.
        NotSpop = "not_spop",
        /// Nobody knows: it ended before a HELLO, or was turned away; counted when it closes.
        Silent = "silent",
    }
}

labels! {
    /// How a connection ended: a [`CloseReason`] without its details.
    CloseKind {
        /// [`CloseReason::Haproxy`].
        Haproxy = "haproxy",
        /// [`CloseReason::PeerClosed`].
        PeerClosed = "peer_closed",
        /// [`CloseReason::HealthCheck`].
        HealthCheck = "health_check",
        /// [`CloseReason::Drained`].
        Drained = "drained",
        /// [`CloseReason::Cut`].
        Cut = "cut",
        /// [`CloseReason::Closed`].
        Closed = "closed",
        /// [`CloseReason::Idle`].
        Idle = "idle",
        /// [`CloseReason::Aged`].
        Aged = "aged",
        /// [`CloseReason::Unused`].
        Unused = "unused",
        /// [`CloseReason::ConnectionLimit`], or dropped at once for the same reason.
        Limit = "limit",
        /// [`CloseReason::Protocol`]: no HELLO in time.
        HelloTimeout = "hello_timeout",
        /// [`CloseReason::Protocol`]: it did not speak SPOP.
        NotSpop = "not_spop",
        /// [`CloseReason::Protocol`]: any other.
        Protocol = "protocol",
        /// Dropped in the middle: a task was cancelled, or the process left without a drain.
        Dropped = "dropped",
    }
}

impl ConnectionKind {
    /// Of a connection that has had its HELLO. Only HAProxy up to 3.0 offers `async`.
    pub(crate) const fn of(info: &ConnectionInfo) -> Self {
        if info.offered().contains(Capabilities::ASYNC) { Self::Old } else { Self::New }
    }
}

impl CloseKind {
    /// Without a reason it never came to an end.
    pub(super) const fn of(reason: Option<&CloseReason>) -> Self {
        let Some(reason) = reason else { return Self::Dropped };
        match reason {
            CloseReason::Haproxy { .. } => Self::Haproxy,
            CloseReason::PeerClosed => Self::PeerClosed,
            CloseReason::HealthCheck => Self::HealthCheck,
            CloseReason::Drained => Self::Drained,
            CloseReason::Cut { .. } => Self::Cut,
            CloseReason::Closed { .. } => Self::Closed,
            CloseReason::Idle => Self::Idle,
            CloseReason::Aged => Self::Aged,
            CloseReason::Unused => Self::Unused,
            CloseReason::ConnectionLimit => Self::Limit,
            CloseReason::Protocol(ProtocolError::Timeout { waiting: Waiting::Hello }) => {
                Self::HelloTimeout
            }
            CloseReason::Protocol(ProtocolError::NotSpop { .. }) => Self::NotSpop,
            CloseReason::Protocol(_) => Self::Protocol,
        }
    }
}

/// The statuses that errors are counted by: those HAProxy defines, 0 to 13, and any other.
pub(super) const STATUSES: usize = 15;

pub(super) fn status_index(status: Status) -> usize {
    usize::try_from(status.0).unwrap_or(usize::MAX).min(STATUSES - 1)
}

/// The other way round, as a label.
pub(super) const STATUS_LABELS: [&str; STATUSES] =
    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "99"];
