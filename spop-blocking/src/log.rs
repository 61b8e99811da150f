//! What is told to the operator. Names and sizes, never values of a request.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use spop_proto::driver::Notice;
use spop_proto::handler::TellMismatch;
use spop_proto::server::{Warning, Warnings};
use spop_proto::{ArgError, Event, Failure, Notify, Peer, ProtocolError, RequestId};

/// A tracing event, or nothing without the feature.
macro_rules! event {
    ($level:ident, $($arg:tt)*) => {{
        #[cfg(feature = "tracing")]
        ::tracing::$level!($($arg)*);
    }};
}

pub(crate) use event;

/// A handler gave no answer. An error's text is the user's code, as is its destructor, and no reason for a
/// thread to end.
pub(crate) fn failed(warnings: &Warnings, failure: Failure, request: RequestId<'_>, now: Instant) {
    let tell = AssertUnwindSafe(|| {
        let failure = failure;
        if let Some(suppressed) = warnings.admit(Warning::of(&failure), now) {
            event!(
                warn,
                suppressed,
                request_id = request.found().map(tracing::field::display),
                %failure,
                "no answer: HAProxy got the fallback"
            );
        }
    });
    if let Err(panic) = catch_unwind(tell)
        && let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic)))
    {
        // What it carries panics when dropped.
        core::mem::forget(again);
    }
}

/// An answer was late.
pub(crate) fn late(warnings: &Warnings, peer: Peer, request: RequestId<'_>, now: Instant) {
    if let Some(suppressed) = warnings.admit(Warning::Deadline, now) {
        event!(
            warn,
            suppressed,
            request_id = request.found().map(tracing::field::display),
            %peer,
            "late answer: HAProxy got the fallback"
        );
    }
}

pub(crate) fn broken(warnings: &Warnings, peer: Peer, error: &ProtocolError, now: Instant) {
    if let Some(suppressed) = warnings.admit(Warning::Protocol, now) {
        event!(warn, suppressed, %peer, %error, status = %error.status(), "refused");
    }
}

/// What a turn of a connection came to.
pub(crate) fn noticed(warnings: &Warnings, notice: &Notice<'_>, now: Instant) {
    match notice {
        Notice::Shed { peer, requests } => {
            if let Some(suppressed) = warnings.admit(Warning::Shed, now) {
                event!(warn, suppressed, %peer, requests, "too many requests: HAProxy got the fallback");
            }
        }
        Notice::Held { peer, answers } => {
            if let Some(suppressed) = warnings.admit(Warning::Held, now) {
                event!(warn, suppressed, %peer, answers, "answers held back: they would fill HAProxy's receive buffer");
            }
        }
        Notice::First { peer, kind } => {
            event!(info, %peer, dialect = kind.label(), "first connection of HAProxy");
        }
        Notice::NeverAsked => {
            event!(
                info,
                "health checks for a minute and no request: see spop-lint for what HAProxy accepts and never asks"
            );
        }
        _ => {}
    }
}

/// A NOTIFY came.
#[inline]
pub(crate) fn asked(_notify: &Notify<'_>) {
    event!(
        trace,
        peer = %_notify.peer(),
        stream_id = _notify.stream_id(),
        frame_id = _notify.frame_id(),
        bytes = _notify.payload().len(),
        messages = %_notify.names(),
        "NOTIFY"
    );
}

/// It was answered by the handler.
#[inline]
pub(crate) fn answered(_notify: &Notify<'_>, _bytes: usize) {
    event!(
        trace,
        peer = %_notify.peer(),
        stream_id = _notify.stream_id(),
        frame_id = _notify.frame_id(),
        bytes = _bytes,
        "ACK"
    );
}

pub(crate) fn happened(peer: Peer, event: &Event<'_>) {
    match event {
        Event::Hello(info) => event!(
            debug,
            %peer,
            dialect = info.kind().label(),
            offered = %info.offered(),
            announced = %info.capabilities(),
            max_frame_size = info.max_frame_size(),
            "handshake done"
        ),
        Event::MaybeCut(cut) => event!(
            info,
            spoe_message = %cut.message,
            argument = %cut.argument,
            bytes = cut.bytes,
            bufsize = cut.bufsize,
            "argument may be a body cut at HAProxy's buffer, without an error: add length=req.hdr_val(content-length) to args and compare"
        ),
        Event::Abandoned { stream_id, frame_id, by } => {
            event!(debug, %peer, stream_id, frame_id, ?by, "fragmented payload given up");
        }
        Event::HealthCheck { healthy } => event!(debug, %peer, healthy, "health check"),
        Event::Disconnected { status } => event!(debug, %peer, %status, "HAProxy said goodbye"),
        _ => {}
    }
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
