//! What is told to the operator. Names and sizes, never values of a request.

use std::time::Instant;

use spop_proto::server::{Warning, Warnings};
use spop_proto::{Event, Failure, Peer, ProtocolError};

/// A tracing event, or nothing without the feature.
macro_rules! event {
    ($level:ident, $($arg:tt)*) => {{
        #[cfg(feature = "tracing")]
        ::tracing::$level!($($arg)*);
    }};
}

pub(crate) use event;

pub(crate) fn failed(warnings: &Warnings, failure: &Failure, now: Instant) {
    if let Some(suppressed) = warnings.admit(Warning::Handler, now) {
        event!(warn, suppressed, %failure, "no answer from the handler, fallback sent");
    }
}

pub(crate) fn broken(warnings: &Warnings, peer: Peer, error: &ProtocolError, now: Instant) {
    if let Some(suppressed) = warnings.admit(Warning::Protocol, now) {
        event!(warn, suppressed, %peer, %error, status = %error.status(), "connection ended");
    }
}

pub(crate) fn happened(event: &Event<'_>) {
    if let Event::Hello(info) = event {
        event!(debug, offered = %info.offered(), announced = %info.capabilities(), "handshake done");
    } else {
        event!(debug, ?event, "connection");
    }
}
