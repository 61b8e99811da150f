//! Write HAProxy SPOP agents (SPOA) on async-std, or on any stream of futures-io.
//!
//! The protocol is [`spop_proto`]'s; this crate gives it async-std's sockets and tasks, and
//! async-io's timers.
//!
//! **async-std is discontinued** (RUSTSEC-2025-0052, August 2025): it gets no fixes any more, and
//! its authors point to smol. Take this crate for a program that is on async-std already. For
//! anything new take `spop-tokio`; or stay with futures-io and have
//! [`Agent::serve_connection`] serve the streams that smol accepts, under smol's executor: that path
//! runs none of async-std's code, only the maintained async-io below it.
//!
//! ```no_run
//! use spop_asyncstd::{Agent, Scope};
//!
//! fn main() -> std::io::Result<()> {
//!     let agent = Agent::inline(|notify, ack| {
//!         if let Some(message) = notify.message("check-client-ip") {
//!             let ip: std::net::IpAddr = message.get("ip")?;
//!             ack.set(Scope::Transaction, "ip_score", if ip.is_loopback() { 0 } else { 20 })?;
//!         }
//!         Ok(())
//!     });
//!     async_std::task::block_on(async { agent.bind("127.0.0.1:12345").await?.run().await })
//! }
//! ```
//!
//! # Which constructor
//! | | for | runs |
//! | --- | --- | --- |
//! | [`Agent::inline`], [`Agent::new`] | answers that are computed | on the task that reads; nothing is copied or allocated, nothing else happens on that connection meanwhile |
//! | [`Agent::concurrent`], [`Agent::with_handler`] | answers that are waited for | as futures beside their connection; they overtake each other |
//! | [`Agent::with`] | both: a [`Router`] with routes that wait | as the [`Dispatch`] decides for each request |
//!
//! # Limits
//! Everything a peer can make the agent hold, or wait for, is bounded: the table is on [`Limits`].
//!
//! # What happens on stop
//! When the future given to [`Server::run_until`] is ready:
//! 1. health checks fail while requests are served on, for [`Agent::lame_duck`];
//! 2. the listener is closed, and the file of a Unix socket removed;
//! 3. connections that owe nothing, and those that have not said HELLO, leave at once; the others
//!    as soon as their answers are sent;
//! 4. what is left after [`Limits::drain_timeout`] is cut.
//!
//! The [`Report`] says how many were drained and how many cut. When the future of a server is
//! dropped instead, the tasks of its connections are cancelled: a task that is just being polled
//! finishes that poll, then its stream is closed without a goodbye and its handlers are dropped.
//!
//! # What happens on panic
//! A handler that panics costs its own request: HAProxy gets the fallback answer
//! ([`AgentConfig::fallback`]), the connection goes on. A panic elsewhere on a connection, such as in
//! the stream of a [`Listener`] of your own, ends that connection and is logged; the server and its
//! other connections go on. All this needs `panic = "unwind"`, which is the default.
//!
//! # Logs
//! The feature `tracing` (default) brings warnings for what is refused and for handlers that fail,
//! one of a kind in ten seconds with the number held back, and debug events for the course of each
//! connection. No value of a request is ever logged, unless [`Agent::request_id`] names one. The page
//! [`spop_proto::logging`] has every line with its fields.
//!
//! # Metrics
//! [`Agent::stats`] and [`Server::stats`] lead to what is counted, and how long answers took, while the
//! agent runs; requests pay nothing for it. `snapshot().prometheus()` is a page for Prometheus. The
//! feature `metrics`, off by default, publishes the same to the `metrics` facade every second.

#![cfg_attr(
    not(feature = "tracing"),
    allow(unused_variables, unused_imports, reason = "what would be logged has no other use")
)]

mod agent;
mod connection;
mod listener;
mod log;
mod server;
mod timer;

pub use agent::Agent;
pub use listener::{Bound, Io, Listener};
pub use server::Server;
pub use spop_proto;
pub use spop_proto::server::Closed;
pub use spop_proto::{
    Ack, Action, AgentConfig, ArgError, CloseReason, ConfigError, ConnectionStats, Description,
    Dispatch, Endpoint, Exchange, FromValue, Handler, HandlerError, Health, HealthState, Limits,
    Message, Notify, Overload, OwnedValue, Pacing, Peer, Reply, Report, Router, Scope, Service,
    SetError, Snapshot, Stats, Value, Var, testing,
};
pub use timer::Timer;

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
