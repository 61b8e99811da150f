//! What is told to the operator.

use std::time::Instant;

use spop_proto::driver::Notice;
use spop_proto::handler::TellMismatch;
use spop_proto::server::{Warning, Warnings};
use spop_proto::{Ack, ArgError, Event, Notify, Turn};

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

/// Tells what a connection has to say. Names and sizes, never values of a request.
pub(crate) fn tell(notice: &Notice<'_>, warnings: &Warnings, now: Instant) {
    match notice {
        Notice::Failure { failure, request } => {
            warning!(
                warnings, Warning::of(failure), now,
                request_id = request.found().map(tracing::field::display), %failure,
                "no answer: HAProxy got the fallback"
            );
        }
        Notice::Late { peer, request } => {
            warning!(
                warnings, Warning::Deadline, now,
                request_id = request.found().map(tracing::field::display), %peer,
                "late answer: HAProxy got the fallback"
            );
        }
        Notice::Error { peer, error } => {
            // The span, which knows the peer, may be too detailed for the log's level.
            warning!(warnings, Warning::Protocol, now, %peer, %error, status = %error.status(), "refused");
        }
        Notice::Shed { peer, requests } => {
            warning!(warnings, Warning::Shed, now, %peer, requests, "too many requests: HAProxy got the fallback");
        }
        Notice::Held { peer, answers } => {
            warning!(warnings, Warning::Held, now, %peer, answers, "answers held back: they would fill HAProxy's receive buffer");
        }
        Notice::First { peer, kind } => {
            event!(info, %peer, dialect = kind.label(), "first connection of HAProxy");
        }
        Notice::Answered { stream_id, frame_id, bytes } => {
            event!(trace, stream_id, frame_id, bytes, "ACK");
        }
        Notice::NeverAsked => {
            event!(
                info,
                "health checks for a minute and no request: see spop-lint for what HAProxy accepts and never asks"
            );
        }
        Notice::Event(Event::Hello(info)) => {
            #[cfg(feature = "tracing")]
            tracing::Span::current().record("dialect", info.kind().label());
            #[cfg(feature = "tracing")]
            if let Some(id) = info.engine_id() {
                tracing::Span::current()
                    .record("engine_id", tracing::field::display(id.escape_ascii()));
            }
            event!(
                debug,
                offered = %info.offered(),
                announced = %info.capabilities(),
                max_frame_size = info.max_frame_size(),
                "handshake done"
            );
        }
        Notice::Event(Event::MaybeCut(cut)) => {
            event!(
                info,
                spoe_message = %cut.message, argument = %cut.argument, bytes = cut.bytes, bufsize = cut.bufsize,
                "argument may be a body cut at HAProxy's buffer, without an error: add length=req.hdr_val(content-length) to args and compare"
            );
        }
        Notice::Event(Event::Abandoned { stream_id, frame_id, by }) => {
            event!(debug, stream_id, frame_id, ?by, "fragmented payload given up");
        }
        Notice::Event(Event::HealthCheck { healthy }) => event!(debug, healthy, "health check"),
        Notice::Event(Event::Disconnected { status }) => {
            event!(debug, %status, "HAProxy said goodbye");
        }
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
    event!(
        trace,
        stream_id = _stream_id,
        frame_id = _frame_id,
        bytes = notify.payload().len(),
        messages = %notify.names(),
        "NOTIFY"
    );
    let turn = serve(notify, ack);
    if matches!(turn, Turn::Done(Ok(()))) {
        event!(trace, stream_id = _stream_id, frame_id = _frame_id, bytes = ack.len(), "ACK");
    }
    turn
}

/// Tells of arguments that HAProxy sends otherwise than a router's routes declare.
pub(crate) fn mismatches() -> TellMismatch {
    Box::new(|_mismatch| match _mismatch {
        // HAProxy may have nothing to send for good reasons.
        ArgError::AlwaysNull { .. } => {
            event!(info, mismatch = %_mismatch, "HAProxy sends something else than this agent takes");
        }
        _ => {
            event!(warn, mismatch = %_mismatch, "HAProxy sends something else than this agent takes");
        }
    })
}
