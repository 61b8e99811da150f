//! The counters that all connections of an agent share.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::histogram::{BUCKETS, Histogram, Times};
use super::kinds::{CloseKind, ConnectionKind, STATUSES, status_index};
use super::messages::MessageCounts;
use super::snapshot::Snapshot;
use super::{ConnectionStats, Counted};
use crate::{CloseReason, ConnectionInfo, ProtocolError};

/// What an agent counts while it runs. Clones share it.
///
/// ```
/// use spop_proto::{AgentConfig, Stats};
///
/// // Adapters do that themselves: `agent.stats()`, `server.stats()`.
/// let stats = Stats::new("an event loop of one's own");
/// let config = AgentConfig::new().count_in(stats.clone());
/// # let _ = config;
/// // Elsewhere, at any time:
/// let now = stats.snapshot();
/// println!("{now}");
/// print!("{}", now.prometheus());
/// ```
///
/// # What it costs
/// A NOTIFY costs nothing: its connection counts in its own memory. What has changed is added here once
/// in a turn, which is everything that was read and answered since the connection was woken, and
/// connections are spread over several sets of counters, so that threads rarely meet. Nothing is
/// allocated.
///
/// # How exact it is
/// Counters lag behind by a turn. A snapshot is not taken at one instant: while requests are answered,
/// numbers may be off by those of the moment. They are exact when nothing goes on.
///
/// # What the time of an answer is
/// From the read that brought the NOTIFY (the last part of it) to the moment its answer was handed to
/// the socket; how long HAProxy takes to read it, and how long it is held back for (see
/// [`Pacing`](crate::Pacing)), is not in it. The clock is read once in a turn, not for each request:
/// what is answered inline in a turn has the time of that turn, so that twenty requests which arrive
/// together and take 10 µs each count as twenty of 200 µs. That is what HAProxy waits for, as their
/// answers leave together. For an answer that was deferred the two readings are those of the turn that
/// took the NOTIFY and of the turn that took the answer. An answer that is late counts with
/// [`Limits::answer_timeout`](crate::Limits::answer_timeout).
///
/// The time of a handler is told apart from that: what is answered inline in a turn shares the time of
/// the turn evenly, its read and its write included, so that those twenty requests have 10 µs each; an
/// answer that was deferred has all its time. Only what came from a handler, as an answer, an error or
/// a panic, has a time of its handler. A handler's time far below that of its answer means that
/// requests wait for each other on their connection: HAProxy would do well with more of them, or the
/// agent with [`Handler`](crate::Handler)s.
#[derive(Clone, Debug)]
pub struct Stats(Arc<Shared>);

/// More than the processors that answer at the same moment, usually, and little memory.
const SHARDS: usize = 8;

/// How long an agent may be checked and not asked anything before that is worth a line.
const NEVER_ASKED: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Shared {
    runtime: &'static str,
    opened: AtomicU64,
    kinds: [AtomicU64; ConnectionKind::ALL.len()],
    ended: [AtomicU64; CloseKind::ALL.len()],
    statuses: [AtomicU64; STATUSES],
    /// Of payloads in fragments, in all connections.
    reassembly: AtomicU64,
    messages: OnceLock<MessageCounts>,
    /// When the first health check was answered.
    checked: OnceLock<Instant>,
    /// Whether it is settled if the agent is ever asked anything.
    asked_or_told: AtomicBool,
    /// Connections that were dropped, not ended, take what they owed with them.
    dropped_with: AtomicU64,
    shards: [Shard; SHARDS],
}

/// What changes with every turn. In cache lines of its own, or all threads would write to the same ones.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    counters: [AtomicU64; ConnectionStats::COUNTERS],
    received: AtomicU64,
    sent: AtomicU64,
    answers: SharedTimes,
    handlers: SharedTimes,
}

/// A histogram that is added to.
#[derive(Debug, Default)]
struct SharedTimes {
    nanos: AtomicU64,
    counts: [AtomicU64; BUCKETS],
}

impl SharedTimes {
    fn take(&self, times: &mut Times) {
        if times.sum > 0 {
            add(&self.nanos, times.sum);
        }
        times.take(|bucket, change| {
            if let Some(count) = self.counts.get(bucket) {
                add(count, change);
            }
        });
    }

    fn add_to(&self, times: &mut Histogram) {
        times.sum = times.sum.wrapping_add(load(&self.nanos));
        for (count, shared) in times.counts.iter_mut().zip(&self.counts) {
            *count += load(shared);
        }
    }
}

/// What a turn changed.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    pub(crate) before: &'a Counted,
    pub(crate) now: &'a Counted,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Taken.
    pub(crate) answers: &'a mut Times,
    /// Taken.
    pub(crate) handlers: &'a mut Times,
}

impl Stats {
    /// Counters at 0, for an agent on that runtime: a name for people, and a label of
    /// `spop_agent_info`.
    #[must_use]
    pub fn new(runtime: &'static str) -> Self {
        Self(Arc::new(Shared {
            runtime,
            opened: AtomicU64::default(),
            kinds: Default::default(),
            ended: Default::default(),
            statuses: Default::default(),
            reassembly: AtomicU64::default(),
            messages: OnceLock::new(),
            checked: OnceLock::new(),
            asked_or_told: AtomicBool::default(),
            dropped_with: AtomicU64::default(),
            shards: Default::default(),
        }))
    }

    /// Reads the counts of messages there, for the snapshots. What was said first stays.
    #[must_use]
    pub fn with_messages(self, counts: Option<MessageCounts>) -> Self {
        if let Some(counts) = counts {
            self.0.messages.get_or_init(|| counts);
        }
        self
    }

    /// What was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let shared = &*self.0;
        let mut now = Snapshot { runtime: shared.runtime, ..Snapshot::default() };
        // What ends is read before what begins, so that nothing seems to end before it has begun.
        for (count, shared) in now.ended.iter_mut().zip(&shared.ended) {
            *count = load(shared);
        }
        for (count, shared) in now.kinds.iter_mut().zip(&shared.kinds) {
            *count = load(shared);
        }
        for (count, shared) in now.statuses.iter_mut().zip(&shared.statuses) {
            *count = load(shared);
        }
        let dropped_with = load(&shared.dropped_with);
        let mut counters = [0; ConnectionStats::COUNTERS];
        for shard in &shared.shards {
            // The other way round than they are written, so that nothing seems to be answered that was not
            // asked: that is the second of the counters.
            shard.handlers.add_to(&mut now.handler_time);
            shard.answers.add_to(&mut now.answer_time);
            for (count, shared) in counters.iter_mut().zip(&shard.counters).rev() {
                *count += load(shared);
            }
            now.received_bytes += load(&shard.received);
            now.sent_bytes += load(&shard.sent);
        }
        now.connections = load(&shared.opened);
        now.reassembly_bytes = load(&shared.reassembly);
        now.messages = shared.messages.get().map(MessageCounts::to_vec).unwrap_or_default();
        now.stats = ConnectionStats::from_array(counters);
        now.stats.abandoned += dropped_with;
        now
    }

    /// A connection was accepted and dropped without a look at it: there were too many.
    pub fn turned_away(&self) {
        self.opened();
        self.ended(CloseKind::Limit, Some(ConnectionKind::Silent), None, 0);
    }

    /// A health check was answered. Whether to tell now, and never again, that HAProxy has asked nothing
    /// since the first one.
    pub(crate) fn is_checked_and_never_asked(&self, now: Instant) -> bool {
        let shared = &*self.0;
        let first = *shared.checked.get_or_init(|| now);
        if shared.asked_or_told.load(Ordering::Relaxed)
            || now.saturating_duration_since(first) < NEVER_ASKED
        {
            return false;
        }
        let told = shared.asked_or_told.swap(true, Ordering::Relaxed);
        !told && self.snapshot().stats.notifies == 0
    }

    pub(crate) fn opened(&self) {
        add(&self.0.opened, 1);
    }

    /// HAProxy has said HELLO. Returns whether it is the first of its generation.
    pub(crate) fn greeted(&self, info: &ConnectionInfo) -> bool {
        self.count_kind(info.kind())
    }

    /// A connection is over, `owed` answers with it.
    pub(crate) fn closed(&self, reason: Option<&CloseReason>, info: &ConnectionInfo, owed: u32) {
        let error = match reason {
            Some(CloseReason::Protocol(error)) => Some(error),
            _ => None,
        };
        let ended = CloseKind::of(reason);
        let kind = match ended {
            _ if info.max_frame_size() > 0 => None,
            CloseKind::HealthCheck => Some(ConnectionKind::HealthCheck),
            CloseKind::NotSpop => Some(ConnectionKind::NotSpop),
            _ => Some(ConnectionKind::Silent),
        };
        self.ended(ended, kind, error, owed);
    }

    fn ended(
        &self,
        ended: CloseKind,
        kind: Option<ConnectionKind>,
        error: Option<&ProtocolError>,
        owed: u32,
    ) {
        if owed > 0 {
            add(&self.0.dropped_with, owed.into());
        }
        if let Some(error) = error
            && let Some(count) = self.0.statuses.get(status_index(error.status()))
        {
            add(count, 1);
        }
        if let Some(kind) = kind {
            self.count_kind(kind);
        }
        if let Some(count) = self.0.ended.get(ended as usize) {
            add(count, 1);
        }
    }

    /// Returns whether it is the first of its kind.
    fn count_kind(&self, kind: ConnectionKind) -> bool {
        let count = self.0.kinds.get(kind as usize);
        count.is_some_and(|count| count.fetch_add(1, Ordering::Relaxed) == 0)
    }

    /// Adds what a turn changed. `connection` numbers the connection.
    pub(crate) fn add(&self, connection: u64, changes: Changes<'_>) {
        let at = usize::try_from(connection % SHARDS as u64).unwrap_or(0);
        let Some(shard) = self.0.shards.get(at) else { return };
        changes.now.since(changes.before, |at, change| {
            if let Some(count) = shard.counters.get(at) {
                add(count, change);
            }
        });
        for (count, change) in [(&shard.received, changes.received), (&shard.sent, changes.sent)] {
            if change > 0 {
                add(count, change);
            }
        }
        shard.answers.take(changes.answers);
        shard.handlers.take(changes.handlers);
    }
}

/// Bytes that an agent holds, counted for as long as it does.
#[derive(Debug, Default)]
pub(crate) struct Held {
    stats: Option<Stats>,
    bytes: usize,
}

impl Held {
    pub(crate) const fn new(stats: Option<Stats>) -> Self {
        Self { stats, bytes: 0 }
    }

    /// So many are held now.
    pub(crate) fn set(&mut self, bytes: usize) {
        if let Some(Stats(shared)) = &self.stats
            && bytes != self.bytes
        {
            // What is less wraps around, as the sum does.
            add(&shared.reassembly, (bytes as u64).wrapping_sub(self.bytes as u64));
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Default for Stats {
    /// For an event loop of one's own.
    fn default() -> Self {
        Self::new("custom")
    }
}

/// Counters, and nothing is decided by them: no order is needed.
fn add(count: &AtomicU64, change: u64) {
    count.fetch_add(change, Ordering::Relaxed);
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
