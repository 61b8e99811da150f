//! What a peer can make this side hold, and how long it may take.

use core::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::config::ConfigError;

/// What to do with a NOTIFY when as many answers are owed as the limit allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overload {
    /// Answer it at once with the fallback.
    #[default]
    Shed,
    /// Stop reading at its border until answers have gone out. A connection that waits for answers of
    /// others looks again every 5 ms, or when one of its own has gone out.
    Wait,
}

/// What a peer can make this side hold, and how long it may take.
///
/// | limit | default | when it is hit |
/// | --- | --- | --- |
/// | [`AgentConfig::max_frame_size`](crate::AgentConfig::max_frame_size) | 1 MiB | a larger frame: status 3, close |
/// | first frame | 4 KiB, fixed | status 3 and a word on what the bytes look like |
/// | length of an ACK | the lower of the negotiated size and HAProxy's offer - 1, fixed | the action is refused ([`SetError::TooBig`](crate::SetError::TooBig)), what was set before stands |
/// | [`in_flight`](Self::in_flight) | 1 024 | [`Overload`]: fallback answer, or no more reading |
/// | [`agent_in_flight`](Self::agent_in_flight) | 65 536 an agent | the same |
/// | [`in_flight_bytes`](Self::in_flight_bytes) | 32 MiB | the same |
/// | [`agent_in_flight_bytes`](Self::agent_in_flight_bytes) | 256 MiB an agent | the same |
/// | [`payload`](Self::payload) | 1 MiB, one at a time | fragments refused with ABORT and the fallback, later ones skipped; where HAProxy stopped on the way: status 0, close |
/// | answers held back ([`Pacing`](crate::Pacing)) | 20, fixed | fallback answer |
/// | [`output`](Self::output) | 1 MiB | no more reading until HAProxy has taken some |
/// | [`ignored_frames`](Self::ignored_frames) | 128 in a row | status 4, close |
/// | [`hello_timeout`](Self::hello_timeout) | 10 s | status 2, close |
/// | [`frame_timeout`](Self::frame_timeout) | 10 s | status 2, close; between two fragments: refused with ABORT |
/// | [`write_timeout`](Self::write_timeout) | 10 s without progress | close |
/// | [`answer_timeout`](Self::answer_timeout) | 10 s | fallback answer (deferred answers only) |
/// | [`drain_timeout`](Self::drain_timeout) | 30 s | past half of it new NOTIFYs get the fallback; at its end what is still owed is dropped and reported |
/// | [`close_timeout`](Self::close_timeout) | 1 s | HAProxy took everything and did not close: close |
/// | [`idle_timeout`](Self::idle_timeout) | none | status 0, close |
/// | [`max_age`](Self::max_age) | none | status 0, close, once nothing is owed or unread |
/// | [`connections`](Self::connections) | 4 096 an agent | accepted, health checks answered, the others closed 100 ms later; with as many again of those (at least 64), dropped at once. Not for connections given to `serve_connection` |
#[derive(Clone, Debug)]
pub struct Limits {
    pub(crate) in_flight: NonZeroU32,
    pub(crate) agent_in_flight: NonZeroU32,
    pub(crate) in_flight_bytes: NonZeroUsize,
    pub(crate) agent_in_flight_bytes: NonZeroUsize,
    pub(crate) overload: Overload,
    pub(crate) payload: NonZeroUsize,
    pub(crate) output: NonZeroUsize,
    pub(crate) ignored_frames: NonZeroU32,
    pub(crate) hello: Duration,
    pub(crate) frame: Duration,
    pub(crate) write: Duration,
    pub(crate) answer: Duration,
    pub(crate) drain: Duration,
    pub(crate) close: Duration,
    pub(crate) idle: Option<Duration>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) connections: NonZeroUsize,
}

const fn some<T: Copy>(value: Option<T>) -> T {
    match value {
        Some(value) => value,
        // Reached only by a literal 0 in the defaults below, and then at compile time.
        #[expect(clippy::panic, reason = "evaluated at compile time only")]
        None => panic!("a default limit is 0"),
    }
}

impl Limits {
    const DEFAULT: Self = Self {
        in_flight: const { some(NonZeroU32::new(1024)) },
        agent_in_flight: const { some(NonZeroU32::new(65_536)) },
        in_flight_bytes: const { some(NonZeroUsize::new(32 << 20)) },
        agent_in_flight_bytes: const { some(NonZeroUsize::new(256 << 20)) },
        overload: Overload::Shed,
        payload: const { some(NonZeroUsize::new(1 << 20)) },
        output: const { some(NonZeroUsize::new(1 << 20)) },
        ignored_frames: const { some(NonZeroU32::new(128)) },
        hello: Duration::from_secs(10),
        frame: Duration::from_secs(10),
        write: Duration::from_secs(10),
        answer: Duration::from_secs(10),
        drain: Duration::from_secs(30),
        close: Duration::from_secs(1),
        idle: None,
        max_age: None,
        connections: const { some(NonZeroUsize::new(4096)) },
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

macro_rules! timeouts {
    ($($(#[$doc:meta])* $name:ident => $field:ident;)*) => {
        /// Time limits. None may be zero.
        impl Limits {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// When the time is zero.
                pub fn $name(mut self, time: Duration) -> Result<Self, ConfigError> {
                    if time.is_zero() {
                        return Err(ConfigError::ZeroTimeout { name: stringify!($name) });
                    }
                    self.$field = time;
                    Ok(self)
                }
            )*
        }
    };
}

timeouts! {
    /// How long a connection may take to say HELLO. Default 10 s.
    hello_timeout => hello;
    /// How long a frame may take from its first byte to its last, and how long the next fragment
    /// of a payload may take to come. Default 10 s.
    frame_timeout => frame;
    /// How long HAProxy may take no output at all while there is some. Default 10 s.
    write_timeout => write;
    /// How long an answer may take; then the fallback is sent. Default 10 s. Keep it below
    /// HAProxy's `timeout processing`, after which nobody waits for the answer. A handler that
    /// answers inline cannot be interrupted and has no such limit.
    answer_timeout => answer;
    /// How long a stop waits for owed answers. Default 30 s.
    drain_timeout => drain;
    /// How long to wait for HAProxy to close after the goodbye. Default 1 s.
    close_timeout => close;
}

impl Limits {
    /// The defaults of the table above.
    #[must_use]
    pub const fn new() -> Self {
        Self::DEFAULT
    }

    /// Answers owed at once on a connection. Default 1 024; HAProxy itself keeps to 20.
    #[must_use]
    pub const fn in_flight(mut self, answers: NonZeroU32) -> Self {
        self.in_flight = answers;
        self
    }

    /// Answers owed at once on all connections of an agent: of a server, or of configurations that are
    /// clones of one another. Default 65 536, more than the 20 each that 3 000 HAProxy connections ask for.
    ///
    /// What is answered inline is never owed, and costs no more than a look at the counter. Threads
    /// that take a NOTIFY at the same moment see the same count: it may be exceeded by one for each.
    #[must_use]
    pub const fn agent_in_flight(mut self, answers: NonZeroU32) -> Self {
        self.agent_in_flight = answers;
        self
    }

    /// Bytes of the requests that answers are owed for on a connection: each is copied for the future, or
    /// the worker, that answers it. Default 32 MiB, more than the 20 that HAProxy has in flight if each
    /// has the largest frame there is by default. It may be exceeded by the last one.
    ///
    /// What is answered inline is not copied, and not counted.
    #[must_use]
    pub const fn in_flight_bytes(mut self, bytes: NonZeroUsize) -> Self {
        self.in_flight_bytes = bytes;
        self
    }

    /// The same on all connections of an agent. Default 256 MiB: 16 000 requests with the largest body
    /// that HAProxy sends with the default `tune.bufsize`.
    #[must_use]
    pub const fn agent_in_flight_bytes(mut self, bytes: NonZeroUsize) -> Self {
        self.agent_in_flight_bytes = bytes;
        self
    }

    /// What to do beyond any of these. Default [`Overload::Shed`].
    #[must_use]
    pub const fn overload(mut self, overload: Overload) -> Self {
        self.overload = overload;
        self
    }

    /// Bytes of a payload that comes in fragments. Default 1 MiB.
    #[must_use]
    pub const fn payload(mut self, bytes: NonZeroUsize) -> Self {
        self.payload = bytes;
        self
    }

    /// Bytes of output that HAProxy has not taken. Default 1 MiB. A soft limit: answers that are
    /// already owed may exceed it, by the size of their ACKs.
    #[must_use]
    pub const fn output(mut self, bytes: NonZeroUsize) -> Self {
        self.output = bytes;
        self
    }

    /// Frames in a row that mean nothing here. Default 128.
    #[must_use]
    pub const fn ignored_frames(mut self, frames: NonZeroU32) -> Self {
        self.ignored_frames = frames;
        self
    }

    /// How long a connection without owed answers may be silent; `None`, the default, for as long
    /// as HAProxy likes. If set, keep it above HAProxy's own `timeout idle`: a NOTIFY that crosses
    /// the goodbye fails.
    #[must_use]
    pub const fn idle_timeout(mut self, time: Option<Duration>) -> Self {
        self.idle = time;
        self
    }

    /// How old a connection may get; `None`, the default, as old as HAProxy likes. Up to a quarter is
    /// added, another for each connection, so that those made at once do not leave at once.
    ///
    /// It then leaves as soon as nothing is owed or unread: together with an answer, or after half a
    /// second in which it was asked nothing. HAProxy opens a new one when it has need of one. On a busy
    /// connection it may already have asked once more: that request fails, with every HAProxy. So choose
    /// hours and not minutes.
    ///
    /// The remedy, too, for whatever may be wrong with a connection and is known to neither side: one
    /// that HAProxy has stopped reading (see [`Pacing`](crate::Pacing)), one that a new agent beside this one should
    /// have its share of, a peer of before some change in the network.
    ///
    /// # Errors
    /// When the time is zero.
    pub fn max_age(mut self, age: Option<Duration>) -> Result<Self, ConfigError> {
        if age.is_some_and(|age| age.is_zero()) {
            return Err(ConfigError::ZeroTimeout { name: "max_age" });
        }
        self.max_age = age;
        Ok(self)
    }

    /// Connections of an agent at once. Default 4 096. Kept by the server of an adapter. A connection that the
    /// program accepted itself (`Agent::serve_connection`, an event loop of its own) is not counted: TLS
    /// wants a limit of the program's own, as in `examples/recipes/tls.rs`.
    #[must_use]
    pub const fn connections(mut self, connections: NonZeroUsize) -> Self {
        self.connections = connections;
        self
    }

    // What the adapters ask for.

    /// The limit set by [`agent_in_flight_bytes`](Self::agent_in_flight_bytes).
    #[must_use]
    pub const fn max_agent_in_flight_bytes(&self) -> usize {
        self.agent_in_flight_bytes.get()
    }

    /// The limit set by [`connections`](Self::connections).
    #[must_use]
    pub const fn max_connections(&self) -> usize {
        self.connections.get()
    }

    /// The longest that a connection takes to leave: its drain, its goodbye, and a second for both.
    #[must_use]
    pub const fn longest_drain(&self) -> Duration {
        self.drain.saturating_add(self.close).saturating_add(Duration::from_secs(1))
    }
}
