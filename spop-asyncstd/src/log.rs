//! What the operator is told. Without the feature `tracing`: nothing.

use std::time::Instant;

use spop_proto::driver::Notice;
use spop_proto::handler::TellMismatch;
use spop_proto::server::{Warning, Warnings};
use spop_proto::{Ack, ArgError, Event, Notify, Turn};

#[cfg(feature = "tracing")]
pub(crate) use ::tracing::{debug, error, info, trace, warn};

#[cfg(not(feature = "tracing"))]
macro_rules! silent {
    ($($arguments:tt)*) => {{}};
}
#[cfg(not(feature = "tracing"))]
pub(crate) use {
    silent as debug, silent as error, silent as info, silent as trace, silent as warn,
};

/// Tells what happened on a connection.
pub(crate) fn tell(notice: &Notice<'_>, warnings: &Warnings, now: Instant) {
    match notice {
        Notice::Failure { failure, request } => {
            if let Some(suppressed) = warnings.admit(Warning::of(failure), now) {
                warn!(
                    suppressed,
                    request_id = request.found().map(tracing::field::display),
                    %failure,
                    "no answer: HAProxy got the fallback"
                );
            }
        }
        Notice::Late { peer, request } => {
            if let Some(suppressed) = warnings.admit(Warning::Deadline, now) {
                warn!(
                    suppressed,
                    request_id = request.found().map(tracing::field::display),
                    %peer,
                    "late answer: HAProxy got the fallback"
                );
            }
        }
        Notice::Error { peer, error } => {
            // At the usual level of a log the span, which knows the peer, is not in it.
            if let Some(suppressed) = warnings.admit(Warning::Protocol, now) {
                warn!(suppressed, %peer, %error, status = %error.status(), "refused");
            }
        }
        Notice::Shed { peer, requests } => {
            if let Some(suppressed) = warnings.admit(Warning::Shed, now) {
                warn!(suppressed, %peer, requests, "too many requests: HAProxy got the fallback");
            }
        }
        Notice::Held { peer, answers } => {
            if let Some(suppressed) = warnings.admit(Warning::Held, now) {
                warn!(suppressed, %peer, answers, "answers held back: they would fill HAProxy's receive buffer");
            }
        }
        Notice::First { peer, kind } => {
            info!(%peer, dialect = kind.label(), "first connection of HAProxy");
        }
        Notice::Answered { stream_id, frame_id, bytes } => {
            trace!(stream_id, frame_id, bytes, "ACK");
        }
        Notice::NeverAsked => {
            info!(
                "health checks for a minute and no request: see spop-lint for what HAProxy accepts and never asks"
            );
        }
        Notice::Event(event) => happened(event),
        _ => {}
    }
}

/// No request is among them, and so no value of one.
fn happened(event: &Event<'_>) {
    match event {
        Event::Hello(info) => {
            #[cfg(feature = "tracing")]
            {
                let id = info.engine_id().unwrap_or_default().escape_ascii();
                tracing::Span::current()
                    .record("dialect", info.kind().label())
                    .record("engine_id", id.to_string());
            }
            debug!(
                offered = %info.offered(),
                announced = %info.capabilities(),
                max_frame_size = info.max_frame_size(),
                "handshake done"
            );
        }
        Event::MaybeCut(cut) => {
            info!(
                spoe_message = %cut.message,
                argument = %cut.argument,
                bytes = cut.bytes,
                bufsize = cut.bufsize,
                "argument may be a body cut at HAProxy's buffer, without an error: add length=req.hdr_val(content-length) to args and compare"
            );
        }
        Event::Abandoned { stream_id, frame_id, by } => {
            debug!(stream_id, frame_id, ?by, "fragmented payload given up");
        }
        Event::HealthCheck { healthy } => debug!(healthy, "health check"),
        Event::Disconnected { status } => debug!(%status, "HAProxy said goodbye"),
        _ => {}
    }
}

/// Serves a NOTIFY, and traces it and what is answered at once: names and sizes.
#[inline]
pub(crate) fn traced<F>(
    notify: Notify<'_>,
    ack: &mut Ack<'_>,
    serve: impl FnOnce(Notify<'_>, &mut Ack<'_>) -> Turn<F>,
) -> Turn<F> {
    let (_stream_id, _frame_id) = (notify.stream_id(), notify.frame_id());
    trace!(
        stream_id = _stream_id,
        frame_id = _frame_id,
        bytes = notify.payload().len(),
        messages = %notify.names(),
        "NOTIFY"
    );
    let turn = serve(notify, ack);
    if matches!(turn, Turn::Done(Ok(()))) {
        trace!(stream_id = _stream_id, frame_id = _frame_id, bytes = ack.len(), "ACK");
    }
    turn
}

/// Tells of arguments that HAProxy sends otherwise than a router's routes declare.
pub(crate) fn mismatches() -> TellMismatch {
    Box::new(|_mismatch| match _mismatch {
        // HAProxy may have nothing to send for good reasons.
        ArgError::AlwaysNull { .. } => {
            info!(mismatch = %_mismatch, "HAProxy sends something else than this agent takes");
        }
        _ => {
            warn!(mismatch = %_mismatch, "HAProxy sends something else than this agent takes");
        }
    })
}
