//! HAProxy's SPOP without I/O: the state machines of both sides of a connection.
//!
//! HAProxy can ask an outside program, the *agent*, about the traffic it handles: it sends NOTIFY
//! frames with messages, and the agent answers each with an ACK whose actions set or unset
//! variables, which HAProxy's rules then use. The protocol between them is SPOP (HAProxy's
//! `doc/SPOE.txt`).
//!
//! ```text
//!                          AgentConnection
//!  peer's bytes ──▶ receive ──▶ Event::Notify(notify, ack) ──▶ your code
//!                                                                │ ack.set(..)
//!  bytes to write ◀── transmit ◀──────── whole ACK frames ◀──────┘
//!        the clock ──▶ handle_timeout          interest ──▶ what to wait for
//! ```
//!
//! This crate has no sockets, no clock, no threads and no runtime. **To write an agent, pick an
//! adapter** (`spop-tokio`, `spop-blocking` for plain threads, `spop-asyncstd`) and implement
//! [`Service`] or [`Handler`], or give it a closure, or a [`Router`] with one for each message;
//! [`testing`] asks them what HAProxy would. Use this crate directly to drive connections
//! from an event loop of your own; the contract and the run loop are on [`AgentConnection`], and
//! what drivers share besides is in [`driver`] and [`server`].
//!
//! # What it does for you
//! - **Every NOTIFY is answered exactly once**, by construction: see [`Ack`]. When a handler gives
//!   no answer, HAProxy gets the fallback ([`AgentConfig::fallback`]).
//! - **Both generations of HAProxy.** Up to 3.0 a connection is an applet of its own, payloads may
//!   come in fragments, and stream-ids count from 0 in the whole process; from 3.1 connections are
//!   multiplexed and ids are unique on one connection only. Answers always go out on the
//!   connection of their NOTIFY.
//! - **Everything is bounded**, and buffers grow with the bytes that arrived, never by a length
//!   that a peer announced: see the table on [`Limits`].
//! - **Nothing is copied or allocated** for a NOTIFY that lies whole in the input and is answered
//!   inline; the counting allocator in the tests says so.
//! - **It says what it takes.** An agent with a [`Router`] tells a tool that asks on its port which messages and
//!   arguments it takes ([`AgentConfig::description`]), so that a configuration of HAProxy can be compared.
//!
//! # What can go wrong
//! | error | whose fault | what happens |
//! | --- | --- | --- |
//! | [`ProtocolError`] | the peer's: it broke the protocol or a time limit | the DISCONNECT with the matching [`Status`] is in the output, the connection closes |
//! | [`HandlerError`], a panic | the handler's | the fallback answer for that one NOTIFY |
//! | [`SetError`] | the handler's: a name HAProxy would drop, or no room in the frame | the action is refused, the rest of the answer stands |
//! | [`ArgError`] | the configuration's: HAProxy sends other arguments | an error that says what HAProxy did send |
//! | [`StaleTicket`] | nobody's: the deadline was first | nothing |
//! | [`ConfigError`] | the operator's | refused before anything runs |
//!
//! # Fragments
//! HAProxy up to 3.0 sends a payload that exceeds a frame in fragments, if the agent announced
//! `fragmentation`: a NOTIFY without FIN, then UNSET frames with the same ids. They are put
//! together here, one payload at a time on a connection, up to [`Limits::payload`]. Beyond that
//! HAProxy is told so with ABORT, and its stream goes on with error 4. HAProxy from 3.1 sends
//! nothing that exceeds a frame: its stream gets error 3 at once. An ACK is never fragmented.
//!
//! # Numbers of the wire
//! No number of the wire is a `usize`: lengths and flags of frames are `u32`, all others `u64`. They are
//! read and written byte by byte or in big-endian order. A length becomes a `usize` only by a checked
//! conversion; where it does not fit one of 32 bits it is longer than any input can be, and is refused or
//! waited for like any other that exceeds its bytes. So neither the word size nor the byte order of the
//! machine matters. Clippy keeps it so: `cast_possible_truncation` (no narrowing `as`),
//! `host_endian_bytes` (no native order), and, for what decodes and encodes, `arithmetic_side_effects` (no
//! unchecked arithmetic). To try it: `cargo +nightly miri test -p spop-proto --lib --target
//! s390x-unknown-linux-gnu -- wire rx tx reassembly` (64 bits, big-endian), and the same for
//! `i686-unknown-linux-gnu` (32 bits).

//!
//! # Features
//! - `serde` (off by default): `Message::deserialize` reads all arguments of a message into a type.
//! - `metrics` (off by default): `stats::Publisher` gives what an agent counts to the `metrics` facade.

mod ack;
mod agent;
mod config;
mod cut;
#[cfg(feature = "serde")]
mod deserialize;
pub mod driver;
mod endpoint;
mod engine;
mod error;
mod exchange;
pub mod handler;
mod inflight;
mod info;
mod limits;
pub mod logging;
mod pacing;
mod reassembly;
mod reply;
mod request;
mod request_id;
mod router;
mod rx;
mod seldom;
pub mod server;
mod shown;
pub mod stats;
mod status;
mod swap;
mod tasks;
pub mod testing;
mod tx;
mod vars;
pub mod wire;

pub use ack::{Ack, AnswerOnError, SetError, StaleTicket, Ticket};
pub use agent::{AbandonedBy, AgentConnection, CloseReason, Event, Interest};
pub use config::{AgentConfig, ConfigError, Pacing};
pub use cut::MaybeCut;
pub use endpoint::{Endpoint, ParseEndpointError};
pub use engine::{
    CheckFailure, Dialect, EngineCloseReason, EngineConfig, EngineConnection, EngineEvent,
    NotifyError, NotifyId, Outcome, StreamError,
};
pub use error::{FirstBytes, Part, ProtocolError, Waiting, When};
pub use handler::{Dispatch, Exchange, Handler, HandlerError, Service, Turn};
pub use info::{ConnectionInfo, Peer};
pub use limits::{Limits, Overload};
pub use reply::Reply;
pub use request::{ArgError, FromValue, Mismatch, Notify};
pub use request_id::RequestId;
pub use router::{Declared, Description, Kind, ParseDescriptionError, Router};
pub use server::{Health, HealthState, Report};
pub use stats::{ConnectionStats, Snapshot, Stats};
pub use status::Status;
pub use tasks::{Failure, answer_inline};
pub use tx::Cause;
pub use vars::{NameError, Var};
pub use wire::{
    Action, Capabilities, DecodeError, DecodeErrorKind, Message, Messages, OwnedValue, Scope, Value,
};
