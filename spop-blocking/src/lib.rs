//! Write HAProxy SPOP agents (SPOA) on plain threads.
//!
//! HAProxy asks an agent about the traffic it handles and acts on the variables the agent sets.
//! This crate brings the sockets and threads of `std` to [`spop_proto`], where the protocol lives;
//! there is no async runtime in it, hidden or otherwise.
//!
//! ```no_run
//! use spop_blocking::{Agent, Scope};
//!
//! fn main() -> std::io::Result<()> {
//!     let agent = Agent::inline(|notify, ack| {
//!         if let Some(message) = notify.message("check-client-ip") {
//!             let ip: std::net::IpAddr = message.get("ip")?;
//!             ack.set(Scope::Transaction, "ip_score", if ip.is_loopback() { 0 } else { 20 })?;
//!         }
//!         Ok(())
//!     });
//!     agent.bind("127.0.0.1:12345")?.run()?;
//!     Ok(())
//! }
//! ```
//!
//! A [`Router`] has a handler for each message, and [`testing`] asks it what HAProxy would ask.
//!
//! # Inline or workers
//! A connection has a thread. Without workers the handler runs on it: one NOTIFY of a connection
//! after the other. HAProxy keeps up to 20 requests on a connection, so a handler that waits holds
//! up those behind it. [`Agent::workers`] gives a pool of threads to handlers: they run beside each
//! other, answers overtake each other, and one that is late is replaced by the fallback. Handlers
//! are synchronous either way; for futures take `spop-tokio`.
//!
//! # Deadlines
//! TCP and Unix sockets have every deadline of [`Limits`], although reads block. A handler that
//! runs inline cannot be interrupted, so [`Limits::answer_timeout`] needs workers. Any other
//! `Read + Write` is served by [`Agent::serve_connection`], inline, and its deadlines are checked
//! whenever a read returns.
//!
//! # What happens on stop
//! [`StopHandle::stop`], from any thread, makes [`Server::run`] end in phases: health checks fail
//! while requests are still served ([`Agent::lame_duck`]); then nothing is accepted any more, idle
//! connections leave (within a quarter of a second, when their thread next looks), the others as
//! soon as their answers are sent; after [`Limits::drain_timeout`] the rest is cut. The [`Report`]
//! counts both kinds. A handler that does not return cannot be stopped: its thread is left behind
//! and counted as cut.
//!
//! # What happens on a panic
//! A handler that panics costs its own request, which gets the fallback answer
//! ([`AgentConfig::fallback`]); its connection and its thread go on.
//!
//! # Logs
//! With the feature `tracing` (on by default): the lines of [`spop_proto::logging`], no value of a
//! request in any of them, but for the one that [`Agent::request_id`] names.
//!
//! # Metrics
//! [`Agent::stats`] and [`Server::stats`] give a handle to what the agent counts while it runs:
//! [`Stats::snapshot`], and its page for Prometheus. With the feature `metrics` (off by default) a thread
//! hands it to the `metrics` facade once a second, until the server has stopped.

#![cfg_attr(
    not(feature = "tracing"),
    allow(unused_variables, reason = "what would be logged has no other use")
)]

mod agent;
mod connection;
mod listener;
mod log;
#[cfg(feature = "metrics")]
mod publishing;
mod server;
mod workers;

pub use self::agent::Agent;
pub use self::listener::{Bound, Io, Listener, Socket};
pub use self::server::{Server, StopHandle};
pub use spop_proto;
pub use spop_proto::server::Closed;
pub use spop_proto::{
    Ack, Action, AgentConfig, ArgError, CloseReason, ConfigError, ConnectionStats, Description,
    Endpoint, FromValue, HandlerError, Health, HealthState, Limits, Message, Notify, Overload,
    OwnedValue, Pacing, Peer, Report, Router, Scope, Service, SetError, Snapshot, Stats, Value,
    Var, testing,
};
