//! Write HAProxy SPOP agents (SPOA) on tokio.
//!
//! HAProxy asks an agent about the traffic it handles and acts on the variables the agent sets.
//! This crate brings the sockets, timers and tasks of tokio to [`spop_proto`], where the protocol
//! lives.
//!
//! With `cargo add tokio -F rt-multi-thread,macros`, the two features of tokio that `#[tokio::main]` needs:
//!
//! ```no_run
//! use spop_tokio::{Agent, Scope};
//!
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     let agent = Agent::inline(|notify, ack| {
//!         if let Some(message) = notify.message("check-client-ip") {
//!             let ip: std::net::IpAddr = message.get("ip")?;
//!             ack.set(Scope::Transaction, "ip_score", if ip.is_loopback() { 0 } else { 20 })?;
//!         }
//!         Ok(())
//!     });
//!     agent.bind("127.0.0.1:12345").await?.run().await
//! }
//! ```
//!
//! # Inline or concurrent
//! [`Agent::inline`] answers on the task that reads: nothing is copied, allocated or scheduled for
//! a NOTIFY, and nothing else happens on that connection meanwhile. Use it for everything that
//! does not wait. [`Agent::concurrent`] takes a closure that returns a future: look-ups that wait
//! run beside each other, and answers overtake each other. [`Exchange::split`] lets an argument go into
//! the answer without a copy of its own.
//!
//! A [`Router`] has a handler for each message: [`Agent::new`] takes it when all of them answer at
//! once, [`Agent::with`] when some wait. [`testing`] asks either what HAProxy would ask, and with the
//! feature `serde` `message.deserialize()` reads all arguments into a type.
//!
//! # What is guaranteed
//! Every NOTIFY is answered once: as the handler says, or with the fallback answer
//! ([`AgentConfig::fallback`]) when it fails, panics, is late or is shed under overload. A handler
//! that panics costs its own request, nothing else. Everything a peer can make the agent hold is
//! bounded; see [`Limits`].
//!
//! # What happens on stop
//! [`Server::run_until`] ends in phases: health checks fail while requests are still served
//! ([`Agent::lame_duck`]); then nothing is accepted any more, idle connections and those that have
//! not said HELLO leave at once, the others as soon as their answers are sent; after
//! [`Limits::drain_timeout`] the rest is cut. The [`Report`] counts both kinds.
//!
//! # Logs
//! With the feature `tracing` (on by default): warnings for refused handshakes, broken protocol
//! and failing handlers, each kind at most once in ten seconds with the number held back; debug
//! for connections and why they ended. Ordinary ends, resets among them, are never more than
//! debug. Values from requests are never logged, but for one that you may choose:
//! [`Agent::request_id`]. All lines and fields are listed in [`spop_proto::logging`].
//!
//! # Metrics
//! [`Agent::stats`], or [`Server::stats`], is a handle to counters and to the times answers took, at any
//! time and without a cost for requests: [`Stats::snapshot`], and [`Snapshot::prometheus`] for the page
//! that Prometheus reads. With the feature `metrics` (off by default) they go to the recorder of the
//! `metrics` facade too, once a second while the agent runs.

#![cfg_attr(
    not(feature = "tracing"),
    allow(unused_variables, reason = "what would be logged has no other use")
)]

mod agent;
mod connection;
mod leave;
mod listener;
mod log;
mod server;

pub use self::agent::Agent;
pub use self::listener::{Bound, Io, Listener};
pub use self::server::Server;
pub use spop_proto;
pub use spop_proto::server::Closed;
pub use spop_proto::{
    Ack, Action, AgentConfig, ArgError, CloseReason, ConfigError, ConnectionStats, Description,
    Endpoint, Exchange, FromValue, Handler, HandlerError, Health, HealthState, Limits, Message,
    Notify, Overload, OwnedValue, Pacing, Peer, Reply, Report, Router, Scope, Service, SetError,
    Snapshot, Stats, Value, Var, testing,
};

/// The README's agent compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The code of the guide compiles.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../examples/guide/haproxy-for-rust-people.md")]
    struct HaproxyForRustPeople;

    #[doc = include_str!("../../examples/guide/rust-for-haproxy-people.md")]
    struct RustForHaproxyPeople;

    #[doc = include_str!("../../examples/guide/porting.md")]
    struct Porting;

    #[doc = include_str!("../../examples/guide/understand.md")]
    struct Understand;
}
