//! NOTIFYs in flight, and what became of them.

use core::fmt;
use std::collections::VecDeque;
use std::time::Instant;

use crate::Status;
use crate::inflight::Ids;

/// Names a NOTIFY, and the stream it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NotifyId {
    connection: u64,
    number: u64,
    /// Stream-id and frame-id with [`Dialect::Old`](crate::Dialect::Old).
    pub(super) stream: u64,
    pub(super) frame: u64,
}

/// What HAProxy tells a stream when it gets no answer: the value of `option set-on-error`, `st=` in
/// the log. Open: a status N of a DISCONNECT becomes 256 + N.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "an open number: the code HAProxy shows")]
pub struct StreamError(pub u32);

impl StreamError {
    /// No ACK within `timeout processing`.
    pub const TIMEOUT: Self = Self(1);
    /// Out of resources.
    pub const RESOURCE: Self = Self(2);
    /// The payload does not fit a frame.
    pub const TOO_BIG: Self = Self(3);
    /// The agent gave a fragmented payload up.
    pub const FRAGMENT_ABORTED: Self = Self(4);
    /// This side gave the NOTIFY up.
    pub const INTERRUPTED: Self = Self(5);
    /// Any other error.
    pub const UNKNOWN: Self = Self(255);
    /// The connection ended: 256 + [`Status::IO`].
    pub const CONNECTION_LOST: Self = Self(257);

    /// The error for the status of a DISCONNECT, either side's.
    #[must_use]
    pub const fn from_status(status: Status) -> Self {
        Self(status.0.saturating_add(256))
    }

    /// The status of the DISCONNECT where that was the cause.
    #[must_use]
    pub const fn status(self) -> Option<Status> {
        match self.0.checked_sub(256) {
            Some(code) => Some(Status(code)),
            None => None,
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::TIMEOUT => "no answer in time",
            Self::RESOURCE => "out of resources",
            Self::TOO_BIG => "the payload does not fit a frame",
            Self::FRAGMENT_ABORTED => "the agent gave the fragmented payload up",
            Self::INTERRUPTED => "interrupted",
            Self::UNKNOWN => "unknown error",
            Self::CONNECTION_LOST => "the connection was lost",
            _ => match self.status() {
                Some(status) => return write!(f, "{}: disconnected with status {status}", self.0),
                None => return write!(f, "{}", self.0),
            },
        };
        write!(f, "{} ({text})", self.0)
    }
}

impl fmt::Debug for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for StreamError {}

/// How far a NOTIFY got.
#[derive(Debug)]
enum State {
    /// Asked before the handshake was done (HAProxy >= 3.1): the payload, not sent yet.
    Queued(Vec<u8>),
    /// In fragments, the last of which is not in the output yet.
    Fragmented,
    /// Waits for its ACK.
    Sent,
}

#[derive(Debug)]
struct Entry {
    id: NotifyId,
    ids: Ids,
    state: State,
    deadline: Option<Instant>,
}

/// The NOTIFYs in flight, oldest first, and the failures nobody was told of yet. Every NOTIFY has
/// the same time, so the first entry is always the next to be late. Lookups walk the list: HAProxy
/// keeps at most 20 in flight.
#[derive(Debug)]
pub(super) struct Streams {
    connection: u64,
    next_number: u64,
    entries: VecDeque<Entry>,
    failed: VecDeque<(NotifyId, StreamError)>,
}

impl Streams {
    pub(super) const fn new(connection: u64) -> Self {
        Self { connection, next_number: 0, entries: VecDeque::new(), failed: VecDeque::new() }
    }

    /// NOTIFYs in flight.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// NOTIFYs in flight, and those whose failure was not told yet.
    pub(super) fn held(&self) -> usize {
        self.entries.len() + self.failed.len()
    }

    fn push(&mut self, ids: Ids, state: State, deadline: Option<Instant>) -> NotifyId {
        let number = self.next_number;
        self.next_number += 1;
        let id =
            NotifyId { connection: self.connection, number, stream: ids.stream, frame: ids.frame };
        self.entries.push_back(Entry { id, ids, state, deadline });
        id
    }

    pub(super) fn push_sent(&mut self, ids: Ids, deadline: Option<Instant>) -> NotifyId {
        self.push(ids, State::Sent, deadline)
    }

    pub(super) fn push_fragmented(&mut self, ids: Ids, deadline: Option<Instant>) -> NotifyId {
        self.push(ids, State::Fragmented, deadline)
    }

    pub(super) fn push_queued(&mut self, payload: &[u8], deadline: Option<Instant>) -> NotifyId {
        let none = Ids { stream: 0, frame: 0 };
        self.push(none, State::Queued(payload.to_vec()), deadline)
    }

    /// Sends the NOTIFYs that were queued: `send` puts one into the output and returns its ids, or
    /// why it could not.
    pub(super) fn send_queued(&mut self, mut send: impl FnMut(&[u8]) -> Result<Ids, StreamError>) {
        let failed = &mut self.failed;
        self.entries.retain_mut(|entry| {
            let State::Queued(payload) = &entry.state else { return true };
            match send(payload) {
                Ok(ids) => {
                    entry.ids = ids;
                    entry.state = State::Sent;
                    true
                }
                Err(error) => {
                    failed.push_back((entry.id, error));
                    false
                }
            }
        });
    }

    /// The last fragment went out: from now on the ACK counts.
    pub(super) fn fragments_sent(&mut self) {
        for entry in &mut self.entries {
            if matches!(entry.state, State::Fragmented) {
                entry.state = State::Sent;
            }
        }
    }

    fn sent(&self, find: impl Fn(Ids) -> bool) -> Option<usize> {
        self.entries.iter().position(|e| matches!(e.state, State::Sent) && find(e.ids))
    }

    /// Whether a NOTIFY with that stream-id waits for its ACK.
    pub(super) fn has_stream(&self, stream: u64) -> bool {
        self.sent(|ids| ids.stream == stream).is_some()
    }

    /// Whether any NOTIFY waits for its ACK.
    pub(super) fn has_sent(&self) -> bool {
        self.sent(|_| true).is_some()
    }

    /// Whether a NOTIFY with these ids is in flight, its fragments still going out or not.
    pub(super) fn has(&self, wanted: Ids) -> bool {
        self.entries.iter().any(|e| !matches!(e.state, State::Queued(_)) && e.ids == wanted)
    }

    /// Takes the NOTIFY with these ids, which was answered.
    pub(super) fn take_acked(&mut self, wanted: Ids) -> Option<NotifyId> {
        let at = self.sent(|ids| ids == wanted)?;
        self.entries.remove(at).map(|entry| entry.id)
    }

    /// The NOTIFY whose fragments are going out fails.
    pub(super) fn fail_fragmented(&mut self, error: StreamError) {
        self.fail_where(|state| matches!(state, State::Fragmented), error);
    }

    /// Those fail that were sent; queued ones stay.
    pub(super) fn fail_sent(&mut self, error: StreamError) {
        self.fail_where(|state| !matches!(state, State::Queued(_)), error);
    }

    /// All fail.
    pub(super) fn fail_all(&mut self, error: StreamError) {
        self.fail_where(|_| true, error);
    }

    fn fail_where(&mut self, which: impl Fn(&State) -> bool, error: StreamError) {
        let failed = &mut self.failed;
        self.entries.retain(|entry| {
            let fails = which(&entry.state);
            if fails {
                failed.push_back((entry.id, error));
            }
            !fails
        });
    }

    /// Takes that NOTIFY without a word; returns whether fragments of it were still going out.
    pub(super) fn forget(&mut self, id: NotifyId) -> Option<bool> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        let entry = self.entries.remove(at)?;
        Some(matches!(entry.state, State::Fragmented))
    }

    /// Those whose time is up fail; returns whether fragments of one were still going out.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut fragmented = false;
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            let Some(entry) = self.entries.pop_front() else { break };
            fragmented |= matches!(entry.state, State::Fragmented);
            self.failed.push_back((entry.id, StreamError::TIMEOUT));
        }
        fragmented
    }

    /// When the next one is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.entries.front().and_then(|entry| entry.deadline)
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// The next failure to tell of.
    pub(super) fn next_failed(&mut self) -> Option<(NotifyId, StreamError)> {
        self.failed.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_words() {
        assert_eq!(StreamError::TIMEOUT.to_string(), "1 (no answer in time)");
        assert_eq!(StreamError(257).to_string(), "257 (the connection was lost)");
        assert_eq!(
            StreamError::from_status(Status::FRAME_TOO_BIG).to_string(),
            "259: disconnected with status 3 (frame is too big)"
        );
        assert_eq!(StreamError(756).status(), Some(Status(500)));
        assert_eq!(StreamError(255).status(), None);
        assert_eq!(StreamError::from_status(Status(u32::MAX)), StreamError(u32::MAX));
        assert_eq!(StreamError(77).to_string(), "77");
    }
}
