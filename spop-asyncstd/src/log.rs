//! What the operator is told. Without the feature `tracing`: nothing.

use std::time::Instant;

use spop_proto::Event;
use spop_proto::driver::Notice;
use spop_proto::server::{Warning, Warnings};

#[cfg(feature = "tracing")]
pub(crate) use ::tracing::{debug, error, info, warn};

#[cfg(not(feature = "tracing"))]
macro_rules! silent {
    ($($arguments:tt)*) => {};
}
#[cfg(not(feature = "tracing"))]
pub(crate) use {silent as debug, silent as error, silent as info, silent as warn};

/// Tells what happened on a connection.
pub(crate) fn tell(notice: &Notice<'_>, warnings: &Warnings, now: Instant) {
    match notice {
        Notice::Failure(failure) => {
            if let Some(suppressed) = warnings.admit(Warning::Handler, now) {
                warn!(suppressed, %failure, "no answer: HAProxy got the fallback");
            }
        }
        Notice::Error { peer, error } => {
            // At the usual level of a log the span, which knows the peer, is not in it.
            if let Some(suppressed) = warnings.admit(Warning::Protocol, now) {
                warn!(suppressed, %peer, %error, status = %error.status(), "refused");
            }
        }
        Notice::Event(event) => {
            #[cfg(feature = "tracing")]
            if let Event::Hello(info) = event {
                let id = info.engine_id().unwrap_or_default().escape_ascii();
                tracing::Span::current().record("engine_id", id.to_string());
            }
            // No request is among them, and so no value of one.
            debug!(?event, "connection");
        }
        _ => {}
    }
}
