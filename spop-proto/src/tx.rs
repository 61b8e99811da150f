//! Output, and the answers that are owed: the half of a connection that an [`Ack`](crate::Ack)
//! writes to.

use std::time::Instant;

use crate::inflight::{Ids, InFlight, Key};
use crate::wire::{AgentHello, Disconnect, Flags, FrameHeader, FrameStart, FrameType};
use crate::{AgentConfig, ConnectionStats, Status};

/// Why the fallback answer is sent instead of a handler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The handler returned an error.
    Error,
    /// The handler panicked.
    Panic,
    /// The answer was not ready in time.
    Deadline,
    /// Too many answers were in flight.
    Shed,
    /// The request was dropped without an answer.
    Unanswered,
}

#[derive(Debug)]
pub(crate) struct Tx {
    out: Vec<u8>,
    /// `out[..sent]` was taken by the driver.
    sent: usize,
    /// `out[..committed]` is whole frames; what lies beyond is an ACK being written.
    committed: usize,
    /// A NOTIFY that was handed out and is neither answered nor deferred.
    open: Option<Ids>,
    /// Largest length of an ACK's frame.
    pub(crate) ack_limit: usize,
    pub(crate) in_flight: InFlight,
    pub(crate) stats: ConnectionStats,
    pub(crate) config: AgentConfig,
    /// When the peer is given up for not reading.
    stall: Option<Instant>,
    /// Whether output was taken since `stall` was set.
    progressed: bool,
    /// When either side last said something.
    active: Instant,
    /// How often memory was given back since then, or could not be.
    pub(crate) trims: u32,
}

impl Tx {
    pub(crate) fn new(config: AgentConfig, now: Instant) -> Self {
        Self {
            out: Vec::new(),
            sent: 0,
            committed: 0,
            open: None,
            ack_limit: 0,
            in_flight: InFlight::default(),
            stats: ConnectionStats::default(),
            config,
            stall: None,
            progressed: false,
            active: now,
            trims: 0,
        }
    }

    // What the driver takes.

    pub(crate) fn transmit(&self) -> &[u8] {
        self.out.get(self.sent..self.committed).unwrap_or_default()
    }

    pub(crate) fn unsent(&self) -> usize {
        self.committed - self.sent
    }

    pub(crate) fn transmitted(&mut self, bytes: usize) {
        self.progressed |= bytes > 0;
        self.sent = self.sent.saturating_add(bytes).min(self.committed);
        if self.sent == self.committed {
            self.stall = None;
        }
        // Moved once half of it is gone: a peer that always leaves a little must not make the
        // buffer grow by all that was ever sent, nor each write move all that is left.
        if self.sent >= self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.committed -= self.sent;
            self.sent = 0;
        }
    }

    /// Puts an empty buffer in place of the output, which the caller gets.
    pub(crate) fn swap(&mut self, other: &mut Vec<u8>) {
        other.clear();
        self.out.truncate(self.committed);
        self.out.drain(..self.sent);
        core::mem::swap(&mut self.out, other);
        self.sent = 0;
        self.committed = 0;
        self.stall = None;
    }

    /// Drops output that nobody will take.
    pub(crate) fn discard(&mut self) {
        self.out = Vec::new();
        self.sent = 0;
        self.committed = 0;
        self.stall = None;
    }

    // Frames of the connection.

    pub(crate) fn hello(&mut self, hello: &AgentHello<'_>, now: Instant) {
        let start = self.begin(FrameHeader::connection(FrameType::AGENT_HELLO));
        hello.encode(&mut self.out);
        self.commit(start, now);
    }

    pub(crate) fn disconnect(&mut self, status: Status, message: &str, now: Instant) {
        let start = self.begin(FrameHeader::connection(FrameType::AGENT_DISCONNECT));
        Disconnect { status, message: message.as_bytes() }.encode(&mut self.out);
        self.commit(start, now);
    }

    /// Refuses a fragmented payload.
    pub(crate) fn abort(&mut self, ids: Ids, now: Instant) {
        let header = FrameHeader {
            kind: FrameType::ACK,
            flags: Flags::FIN.with(Flags::ABORT),
            stream_id: ids.stream,
            frame_id: ids.frame,
        };
        let start = self.begin(header);
        self.commit(start, now);
    }

    // Answers.

    /// Notes that a NOTIFY is in somebody's hands.
    pub(crate) const fn lend(&mut self, ids: Ids) {
        self.open = Some(ids);
    }

    /// Answers a NOTIFY whose [`Ack`](crate::Ack) was forgotten instead of dropped: every public
    /// call of the connection begins here, so even that is answered.
    #[inline]
    pub(crate) fn settle(&mut self, now: Instant) {
        if self.open.is_some() || self.out.len() > self.committed {
            self.settle_forgotten(now);
        }
    }

    #[cold]
    fn settle_forgotten(&mut self, now: Instant) {
        self.out.truncate(self.committed);
        if let Some(ids) = self.open.take() {
            self.fall_back(ids, Cause::Unanswered, now);
        }
    }

    #[inline]
    pub(crate) fn begin_ack(&mut self, ids: Ids) -> FrameStart {
        self.begin(FrameHeader {
            kind: FrameType::ACK,
            flags: Flags::FIN,
            stream_id: ids.stream,
            frame_id: ids.frame,
        })
    }

    /// Answers with the fallback. It fits: the configuration bounds it by the smallest frame.
    pub(crate) fn fall_back(&mut self, ids: Ids, cause: Cause, now: Instant) {
        let start = self.begin_ack(ids);
        self.out.extend_from_slice(self.config.encoded_fallback());
        self.commit(start, now);
        let stats = &mut self.stats;
        *match cause {
            Cause::Error => &mut stats.errors,
            Cause::Panic => &mut stats.panics,
            Cause::Deadline => &mut stats.deadlines,
            Cause::Shed => &mut stats.shed,
            Cause::Unanswered => &mut stats.unanswered,
        } += 1;
    }

    /// Takes the NOTIFY out of the books: it was answered, or is owed no more.
    #[inline]
    pub(crate) fn close_entry(&mut self, key: Option<Key>) {
        match key {
            Some(key) => {
                self.in_flight.remove(key);
            }
            None => self.open = None,
        }
    }

    /// Enters the NOTIFY in hand into the books as owed.
    pub(crate) fn defer(&mut self, ids: Ids, now: Instant) -> Key {
        self.open = None;
        let deadline = now.checked_add(self.config.current_limits().answer);
        self.in_flight.insert(ids, deadline)
    }

    pub(crate) fn written(&self) -> &[u8] {
        &self.out
    }

    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    #[inline]
    fn begin(&mut self, header: FrameHeader) -> FrameStart {
        self.out.truncate(self.committed);
        FrameStart::write(header, &mut self.out)
    }

    #[inline]
    pub(crate) fn commit(&mut self, start: FrameStart, now: Instant) {
        start.finish(&mut self.out);
        if self.stall.is_none() {
            self.stall = now.checked_add(self.config.current_limits().write);
            self.progressed = false;
        }
        self.committed = self.out.len();
        self.set_active(now);
    }

    /// Drops an ACK that is being written.
    pub(crate) fn roll_back(&mut self) {
        self.out.truncate(self.committed);
    }

    // Time and memory.

    pub(crate) const fn active(&self) -> Instant {
        self.active
    }

    #[inline]
    pub(crate) const fn set_active(&mut self, now: Instant) {
        self.active = now;
        self.trims = 0;
    }

    pub(crate) const fn stall_deadline(&self) -> Option<Instant> {
        self.stall
    }

    /// Whether the peer took nothing for the whole of the write timeout. A peer that is slow but
    /// takes something gets the time again.
    pub(crate) fn stalled(&mut self, now: Instant) -> bool {
        if self.stall.is_none_or(|stall| now < stall) {
            return false;
        }
        if core::mem::take(&mut self.progressed) {
            self.stall = now.checked_add(self.config.current_limits().write);
            return false;
        }
        true
    }

    pub(crate) fn capacity(&self) -> usize {
        self.out.capacity() + self.in_flight.capacity()
    }

    pub(crate) fn trim(&mut self) {
        if self.out.is_empty() {
            self.out = Vec::new();
        }
        self.in_flight.trim();
    }
}
