//! What is told to the operator, and how often.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use spop_proto::server::LogLimiter;

/// One limiter for each kind of warning, shared by all connections of an agent: a peer that fails
/// a thousand times a second must not fill a disk.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    handler: Mutex<LogLimiter>,
    protocol: Mutex<LogLimiter>,
    limit: Mutex<LogLimiter>,
    accept: Mutex<LogLimiter>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Handler,
    Protocol,
    Limit,
    Accept,
}

impl Warnings {
    /// Whether to write a line of that kind; if so, how many were held back since the last.
    pub(crate) fn admit(&self, kind: Kind, now: Instant) -> Option<u64> {
        let limiter = match kind {
            Kind::Handler => &self.handler,
            Kind::Protocol => &self.protocol,
            Kind::Limit => &self.limit,
            Kind::Accept => &self.accept,
        };
        limiter.lock().unwrap_or_else(PoisonError::into_inner).admit(now)
    }
}

/// A tracing event, or nothing without the feature.
macro_rules! event {
    ($level:ident, $($arg:tt)*) => {{
        #[cfg(feature = "tracing")]
        ::tracing::$level!($($arg)*);
    }};
}

/// A warning that passes its limiter.
macro_rules! warning {
    ($warnings:expr, $kind:expr, $now:expr, $($arg:tt)*) => {
        if let Some(suppressed) = $warnings.admit($kind, $now) {
            $crate::log::event!(warn, suppressed, $($arg)*);
        }
    };
}

pub(crate) use {event, warning};
