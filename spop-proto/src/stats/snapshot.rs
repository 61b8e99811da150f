//! What an agent had counted at a moment.

use core::fmt;

use super::kinds::{CloseKind, ConnectionKind, STATUSES, status_index};
use super::page::Page;
use super::{ConnectionStats, Histogram};
use crate::Status;

/// What an agent had counted at a moment. See [`Stats`](super::Stats) for how exact it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What the agent runs on.
    pub runtime: &'static str,
    /// Connections accepted since the start, those that were turned away included.
    pub connections: u64,
    /// The counters of all connections, those that are open included.
    pub stats: ConnectionStats,
    /// Bytes read from HAProxy.
    pub received_bytes: u64,
    /// Bytes the sockets have taken.
    pub sent_bytes: u64,
    /// How long answers took, as many as [`ConnectionStats::acks`].
    pub answer_time: Histogram,
    /// How long handlers took: as many as gave an answer, an error or a panic.
    pub handler_time: Histogram,
    /// Bytes of payloads in fragments that are held at the moment.
    pub reassembly_bytes: u64,
    /// How often each message came: those with a route, and all others together as `other`. Empty where
    /// the agent does not count them ([`MessageCounts`](super::MessageCounts)).
    pub messages: Vec<(Box<str>, u64)>,
    pub(super) kinds: [u64; ConnectionKind::ALL.len()],
    pub(super) ended: [u64; CloseKind::ALL.len()],
    pub(super) statuses: [u64; STATUSES],
}

impl Snapshot {
    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.connections.saturating_sub(self.ended.iter().sum())
    }

    /// Answers owed.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.stats.notifies.saturating_sub(self.stats.settled())
    }

    /// Connections of that kind since the start.
    #[must_use]
    pub fn connections_of(&self, kind: ConnectionKind) -> u64 {
        self.kinds.get(kind as usize).copied().unwrap_or(0)
    }

    /// Connections that ended in that way.
    #[must_use]
    pub fn closed(&self, kind: CloseKind) -> u64 {
        self.ended.get(kind as usize).copied().unwrap_or(0)
    }

    /// Connections that were ended with that status because the peer broke the protocol or a time
    /// limit. Numbers that HAProxy does not define are counted together.
    #[must_use]
    pub fn protocol_errors(&self, status: Status) -> u64 {
        self.statuses.get(status_index(status)).copied().unwrap_or(0)
    }

    /// The page that Prometheus reads, in the text format 0.0.4: answer with it to `GET /metrics`, with
    /// `Content-Type: text/plain; version=0.0.4; charset=utf-8`.
    ///
    /// Names, labels and buckets are an interface, changes to them are in the changelog.
    ///
    /// | name | kind | labels |
    /// | --- | --- | --- |
    /// | `spop_agent_info` | gauge, always 1 | `version`, `runtime` |
    /// | `spop_agent_connections`, `spop_agent_in_flight` | gauge | |
    /// | `spop_agent_reassembly_bytes` | gauge | |
    /// | `spop_agent_connections_total` | counter | `dialect`: those of [`ConnectionKind`] |
    /// | `spop_agent_closes_total` | counter | `reason`: those of [`CloseKind`] |
    /// | `spop_agent_protocol_errors_total` | counter | `status`: 0 to 13, and 99 for any other |
    /// | `spop_agent_frames_total`, `spop_agent_ignored_frames_total` | counter | |
    /// | `spop_agent_notifies_total` | counter | |
    /// | `spop_agent_messages_total` | counter | `message`: the names of a [`Router`](crate::Router)'s routes, and `other`; not there without a router |
    /// | `spop_agent_answers_total` | counter | `cause`: `handler`, `error`, `panic`, `deadline`, `shed`, `unanswered`; and without an answer `superseded`, `abandoned` |
    /// | `spop_agent_too_big_total`, `spop_agent_held_total` | counter | |
    /// | `spop_agent_payloads_given_up_total` | counter | `by`: `haproxy`, `agent` |
    /// | `spop_agent_received_bytes_total`, `spop_agent_sent_bytes_total` | counter | |
    /// | `spop_agent_answer_seconds`, `spop_agent_handler_seconds` | histogram | `le`: those of [`Histogram`] |
    ///
    /// What the counters mean is said at [`ConnectionStats`]; `spop_agent_notifies_total` is the sum of
    /// `spop_agent_answers_total` and `spop_agent_in_flight`.
    ///
    /// # What to ask it
    /// ```text
    /// rate(spop_agent_notifies_total[1m])                                           requests a second
    /// sum by (cause) (rate(spop_agent_answers_total{cause!="handler"}[5m]))         what went wrong
    /// histogram_quantile(0.99, rate(spop_agent_answer_seconds_bucket[5m]))          how long 99 % took
    /// spop_agent_connections                                                        open connections
    /// sum by (reason) (increase(spop_agent_closes_total[1h]))                       how they end
    /// rate(spop_agent_held_total[5m])                      answers held back: see `Pacing`
    /// ```
    /// Two alerts are worth having: any `cause` but `handler` for some minutes, as HAProxy gets the
    /// fallback then; and the 99 % line above half of HAProxy's `timeout processing`.
    #[must_use]
    pub const fn prometheus(&self) -> impl fmt::Display + '_ {
        Page(self)
    }
}

impl fmt::Display for Snapshot {
    /// One line for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stats;
        write!(
            f,
            "{} connections open of {}; {} requests: {} answered, {} by the fallback, {} in flight, {} \
             superseded, {} abandoned; {}",
            self.open(),
            self.connections,
            stats.notifies,
            stats.answered,
            stats.fallbacks(),
            self.in_flight(),
            stats.superseded,
            stats.abandoned,
            self.answer_time,
        )
    }
}
