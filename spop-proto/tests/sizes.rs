//! Sizes of the types that are made, moved or kept for every request or connection. The bounds are
//! what they are now, those of large types rounded up: growing past one is a decision, not an
//! accident.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "the same first lines in every test of the crate")]
#![cfg(target_pointer_width = "64")]

use std::mem::size_of;

use spop_proto::wire::{Arg, Args, Flags, Frame, FrameHeader, FrameType};
use spop_proto::{
    Ack, Action, AgentConfig, AgentConnection, ArgError, CloseReason, ConnectionInfo,
    ConnectionStats, DecodeError, Event, Exchange, FirstBytes, HandlerError, Interest, Limits,
    Message, Messages, NameError, Notify, OwnedValue, Peer, ProtocolError, Reply, Scope, SetError,
    StaleTicket, Status, Ticket, Value, Var,
};

macro_rules! at_most {
    ($($type:ty: $bytes:literal;)*) => {
        [$((stringify!($type), size_of::<$type>(), $bytes)),*]
    };
}

#[test]
fn hot_types_are_small() {
    let all = at_most! {
        // One for every argument, action and frame.
        Value<'static>: 24;
        Option<Value<'static>>: 24;
        OwnedValue: 40;
        Arg<'static>: 40;
        Args<'static>: 24;
        Message<'static>: 40;
        Messages<'static>: 24;
        Action<'static>: 48;
        Scope: 1;
        Var<'static>: 24;
        FrameType: 1;
        Flags: 4;
        FrameHeader: 24;
        Frame<'static>: 40;
        Status: 4;
        // One for every NOTIFY.
        Notify<'static>: 48;
        Ack<'static>: 96;
        Event<'static>: 136;
        Ticket: 24;
        Exchange: 8;
        Reply<'static>: 8;
        Interest: 24;
        // Errors travel in the results of hot calls.
        DecodeError: 64;
        ProtocolError: 88;
        SetError: 48;
        NameError: 48;
        ArgError: 72;
        StaleTicket: 0;
        HandlerError: 16;
        FirstBytes: 8;
        Result<Option<Event<'static>>, ProtocolError>: 136;
        Result<(), ProtocolError>: 88;
        Result<(), SetError>: 56;
        Result<(), HandlerError>: 16;
        Result<Ack<'static>, StaleTicket>: 96;
        // One for every connection.
        AgentConnection: 416;
        AgentConfig: 8;
        ConnectionInfo: 64;
        ConnectionStats: 128;
        CloseReason: 96;
        Peer: 32;
        Limits: 184;
    };
    let grown: Vec<_> = all.iter().filter(|(_, size, bound)| size > bound).collect();
    assert!(grown.is_empty(), "larger than they were: {grown:?}");
}

fn send<T: Send>() {}
fn sync<T: Sync>() {}

/// What an adapter moves between threads or shares; `Ack` and `Event` travel with their connection.
#[test]
fn what_may_cross_threads() {
    send::<AgentConnection>();
    sync::<AgentConnection>();
    send::<Ack<'static>>();
    sync::<Ack<'static>>();
    send::<Event<'static>>();
    sync::<Event<'static>>();
    send::<Notify<'static>>();
    sync::<Notify<'static>>();
    send::<Exchange>();
    sync::<Exchange>();
    send::<Reply<'static>>();
    sync::<Reply<'static>>();
    send::<Ticket>();
    sync::<Ticket>();
    send::<AgentConfig>();
    sync::<AgentConfig>();
    send::<OwnedValue>();
    sync::<OwnedValue>();
    send::<ProtocolError>();
    sync::<ProtocolError>();
    send::<HandlerError>();
    sync::<HandlerError>();
    send::<CloseReason>();
    sync::<CloseReason>();
}

fn error<T: std::error::Error + Send + Sync + 'static>() {}

/// Each goes through `?` into a `HandlerError`, an `io::Error` or whatever a program uses.
#[test]
fn errors_are_errors() {
    error::<ProtocolError>();
    error::<SetError>();
    error::<NameError>();
    error::<ArgError>();
    error::<StaleTicket>();
    error::<DecodeError>();
    error::<spop_proto::ConfigError>();
    error::<spop_proto::ParseEndpointError>();
}
