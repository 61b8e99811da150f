//! Output, and the answers that are owed: the half of a connection that an [`Ack`](crate::Ack)
//! writes to.

use std::time::Instant;

use crate::inflight::{Ids, InFlight, Key};
use crate::pacing::{Frames, Pacer};
use crate::stats::Counters;
use crate::wire::{
    AgentHello, Disconnect, Flags, Frame, FrameHeader, FrameStart, FrameType, LENGTH_BYTES,
};
use crate::{AgentConfig, Status};

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
    /// The handler returned the error that an action did not fit the ACK.
    TooBig,
}

/// Why a fallback answer was sent, as HAProxy is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reason(pub(crate) &'static str);

impl Reason {
    /// A payload in fragments was refused.
    const REFUSED: Self = Self("refused");
    /// There is no longer one.
    pub(crate) const LONGEST: Self = Self("unanswered");
}

impl From<Cause> for Reason {
    fn from(cause: Cause) -> Self {
        Self(match cause {
            Cause::Error => "error",
            Cause::Panic => "panic",
            Cause::Deadline => "deadline",
            Cause::Shed => "shed",
            Cause::Unanswered => "unanswered",
            Cause::TooBig => "too-big",
        })
    }
}

#[derive(Debug)]
pub(crate) struct Tx {
    /// Tells connections apart.
    pub(crate) serial: u64,
    out: Vec<u8>,
    /// `out[..sent]` was taken by the driver.
    sent: usize,
    /// `out[..exposed]` is what the driver may take. All whole frames, unless some are held back.
    exposed: usize,
    /// `out[..committed]` is whole frames; what lies beyond is an ACK being written.
    committed: usize,
    /// So many bytes of the ACK being written are out of the reach of [`Ack::clear`](crate::Ack::clear): 0,
    /// but while a router has one message after the other answered. An ACK is smaller than a frame may be.
    spared: u32,
    /// Size of the other side's receive buffer; `NO_BUFFER` where it cannot be filled.
    buffer: u32,
    /// Whether requests are pipelined.
    pipelining: bool,
    pacer: Option<Box<Pacer>>,
    /// A NOTIFY was handed out and is neither answered nor deferred. Its ids are in the header of the
    /// ACK that is being written.
    lent: bool,
    /// How many bytes that NOTIFY has: fewer than a frame may have.
    lent_bytes: u32,
    ack_limit: u32,
    pub(crate) in_flight: InFlight,
    pub(crate) stats: Counters,
    pub(crate) config: AgentConfig,
    /// Since when there is output that the peer has not taken, or since it last took some.
    stall: Option<Instant>,
    /// Whether output was taken since `stall` was set.
    progressed: bool,
    /// When either side last said something.
    active: Instant,
    /// How often memory was given back since then, or could not be.
    pub(crate) trims: u32,
}

impl Tx {
    pub(crate) fn new(config: AgentConfig, serial: u64, now: Instant) -> Self {
        Self {
            serial,
            out: Vec::new(),
            sent: 0,
            exposed: 0,
            committed: 0,
            spared: 0,
            buffer: NO_BUFFER,
            pipelining: false,
            pacer: None,
            lent: false,
            lent_bytes: 0,
            ack_limit: 0,
            in_flight: InFlight::default(),
            stats: Counters::default(),
            config,
            stall: None,
            progressed: false,
            active: now,
            trims: 0,
        }
    }

    // What the driver takes.

    pub(crate) fn transmit(&self) -> &[u8] {
        self.out.get(self.sent..self.exposed).unwrap_or_default()
    }

    /// Whether there is something to write now.
    pub(crate) const fn has_output(&self) -> bool {
        self.sent < self.exposed
    }

    /// Output that was not written, what is held back included.
    pub(crate) fn unsent(&self) -> usize {
        self.committed - self.sent
    }

    pub(crate) fn transmitted(&mut self, bytes: usize) {
        self.progressed |= bytes > 0;
        self.sent = self.sent.saturating_add(bytes).min(self.exposed);
        if self.sent == self.exposed {
            self.stall = None;
        }
        // Moved once half of it is gone: a peer that always leaves a little must not make the
        // buffer grow by all that was ever sent, nor each write move all that is left.
        if self.sent == self.out.len() {
            self.out.clear();
            self.committed = 0;
            self.exposed = 0;
            self.sent = 0;
        } else if self.sent >= self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.committed -= self.sent;
            self.exposed -= self.sent;
            self.sent = 0;
        }
    }

    /// Puts an empty buffer in place of the output, which the caller gets.
    pub(crate) fn swap(&mut self, other: &mut Vec<u8>) {
        other.clear();
        self.out.drain(..self.sent);
        core::mem::swap(&mut self.out, other);
        // What is held back stays, and an ACK that was begun.
        let taken = self.exposed - self.sent;
        self.out.extend_from_slice(other.get(taken..).unwrap_or_default());
        other.truncate(taken);
        self.committed -= self.exposed;
        self.exposed = 0;
        self.sent = 0;
        self.stall = None;
    }

    /// Drops output that nobody will take.
    pub(crate) fn discard(&mut self) {
        self.out = Vec::new();
        self.sent = 0;
        self.exposed = 0;
        self.committed = 0;
        self.stall = None;
    }

    // Frames of the connection.

    /// AGENT-HELLO, without the description where that makes it larger than `max_frame_size`.
    pub(crate) fn hello(&mut self, mut hello: AgentHello<'_>, max_frame_size: u32, now: Instant) {
        let max = usize::try_from(max_frame_size).unwrap_or(usize::MAX);
        // Not even written where it cannot fit.
        hello.description = hello.description.filter(|text| text.len() < max);
        self.begin(FrameHeader::connection(FrameType::AGENT_HELLO));
        hello.encode(&mut self.out);
        if hello.description.take().is_some() && self.frame_length() > max {
            self.begin(FrameHeader::connection(FrameType::AGENT_HELLO));
            hello.encode(&mut self.out);
        }
        self.commit(now);
    }

    pub(crate) fn disconnect(&mut self, status: Status, message: &str, now: Instant) {
        self.begin(FrameHeader::connection(FrameType::AGENT_DISCONNECT));
        Disconnect { status, message: message.as_bytes() }.encode(&mut self.out);
        self.commit(now);
    }

    /// Refuses a fragmented payload. HAProxy that is still sending it gives it up; one that has sent
    /// everything takes this for an answer like any other, so it carries the fallback.
    pub(crate) fn abort(&mut self, ids: Ids, now: Instant) {
        let header = FrameHeader {
            kind: FrameType::ACK,
            flags: Flags::FIN.with(Flags::ABORT),
            stream_id: ids.stream,
            frame_id: ids.frame,
        };
        self.begin(header);
        self.config.encode_fallback(Reason::REFUSED, &mut self.out);
        self.commit(now);
    }

    // Answers.

    /// Notes how large the NOTIFY is that is handed out next.
    #[inline]
    pub(crate) fn lends(&mut self, bytes: usize) {
        self.lent_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Notes that a NOTIFY is in somebody's hands.
    pub(crate) const fn lend(&mut self) {
        self.lent = true;
    }

    /// Largest length of an ACK's frame.
    #[inline]
    pub(crate) fn ack_limit(&self) -> usize {
        to_usize(self.ack_limit)
    }

    pub(crate) const fn limit_acks(&mut self, bytes: u32) {
        self.ack_limit = bytes;
    }

    /// Answers a NOTIFY whose [`Ack`](crate::Ack) was forgotten instead of dropped: every public
    /// call of the connection begins here, so even that is answered.
    #[inline]
    pub(crate) fn settle(&mut self, now: Instant) {
        if self.out.len() > self.exposed {
            self.settle_forgotten(now);
        }
    }

    #[cold]
    fn settle_forgotten(&mut self, now: Instant) {
        let forgotten = self.out.get(self.committed + LENGTH_BYTES..);
        let forgotten = forgotten.and_then(|frame| Frame::decode(frame).ok()).map(|f| f.header);
        self.out.truncate(self.committed);
        if core::mem::take(&mut self.lent)
            && let Some(header) = forgotten
        {
            let ids = Ids { stream: header.stream_id, frame: header.frame_id };
            self.fall_back(ids, Cause::Unanswered, now);
        }
        self.release(now);
    }

    #[inline(always)]
    pub(crate) fn begin_ack(&mut self, ids: Ids) {
        self.begin(FrameHeader::ack(ids.stream, ids.frame));
    }

    /// Answers with the fallback. It fits: the configuration bounds it by the smallest frame.
    pub(crate) fn fall_back(&mut self, ids: Ids, cause: Cause, now: Instant) {
        self.begin_ack(ids);
        self.config.encode_fallback(cause.into(), &mut self.out);
        self.commit(now);
        self.count_fallback(cause);
    }

    /// Counts an answer that is a fallback, or has that of a route in it.
    pub(crate) fn count_fallback(&mut self, cause: Cause) {
        let stats = self.stats.others();
        *match cause {
            Cause::Error | Cause::TooBig => &mut stats.errors,
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
            None => self.lent = false,
        }
    }

    /// Enters the NOTIFY in hand into the books as owed.
    pub(crate) fn defer(&mut self, ids: Ids, now: Instant) -> Key {
        self.lent = false;
        let deadline = now.checked_add(self.config.current_limits().answer);
        self.in_flight.insert(ids, to_usize(self.lent_bytes), deadline, self.config.owed())
    }

    /// Puts what was written so far out of the reach of `clear`.
    pub(crate) fn spare_written(&mut self) {
        self.spared = u32::try_from(self.out.len() - self.committed).unwrap_or(u32::MAX);
    }

    /// Nothing is out of its reach any more.
    pub(crate) const fn spare_nothing(&mut self) {
        self.spared = 0;
    }

    /// How far it reaches: to that place in what was written.
    pub(crate) fn spared(&self) -> usize {
        self.committed + to_usize(self.spared)
    }

    pub(crate) fn written(&self) -> &[u8] {
        &self.out
    }

    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    #[inline(always)]
    fn begin(&mut self, header: FrameHeader) {
        self.out.truncate(self.committed);
        FrameStart::write(header, &mut self.out);
    }

    /// The frame being written: it begins where the whole ones end.
    const fn frame(&self) -> FrameStart {
        FrameStart::at(self.committed)
    }

    /// What the length field of the frame being written would say if it ended here.
    #[inline]
    pub(crate) fn frame_length(&self) -> usize {
        self.frame().length(&self.out)
    }

    /// Where the actions of the ACK being written begin.
    pub(crate) const fn actions_at(&self, ids: Ids) -> usize {
        self.committed + LENGTH_BYTES + FrameHeader::ack(ids.stream, ids.frame).encoded_len()
    }

    #[inline]
    pub(crate) fn commit(&mut self, now: Instant) {
        self.frame().finish(&mut self.out);
        let length = self.frame_length();
        self.committed = self.out.len();
        if self.is_paced(length) {
            self.pace(now);
        } else {
            self.exposed = self.committed;
        }
        self.watch(now);
        self.set_active(now);
    }

    /// The peer has something to take from now on.
    #[inline]
    fn watch(&mut self, now: Instant) {
        if self.stall.is_none() && self.has_output() {
            self.stall = Some(now);
            self.progressed = false;
        }
    }

    /// Drops an ACK that is being written.
    pub(crate) fn roll_back(&mut self) {
        self.out.truncate(self.committed);
    }

    // Pacing.

    /// From now on frames may be held back: the peer is a HAProxy that reads into a buffer of that
    /// many bytes, and must not fill it.
    pub(crate) const fn pace_for(&mut self, buffer: u32, pipelining: bool) {
        self.buffer = buffer;
        self.pipelining = pipelining;
    }

    /// The length from which on frames are the pacer's business: 64 of those that are shorter do not
    /// fill the buffer, and that is more than there ever are.
    fn pace_from(&self) -> usize {
        to_usize(self.buffer / 64)
    }

    /// Whether a frame with that much behind its length field must not just go out. None may, once
    /// one was too long for that.
    #[inline]
    fn is_paced(&self, length: usize) -> bool {
        length + LENGTH_BYTES >= self.pace_from() && self.buffer != NO_BUFFER
            || self.pacer.is_some()
    }

    /// What is held back goes out at once: there is nobody whose buffer it could fill.
    pub(crate) fn stop_pacing(&mut self) {
        self.pacer = None;
        self.buffer = NO_BUFFER;
        self.exposed = self.committed;
    }

    /// Something was read.
    #[inline]
    pub(crate) fn pace_input(&mut self, bytes: usize, now: Instant) {
        if let Some(pacer) = &mut self.pacer {
            pacer.on_input(bytes, now);
        }
    }

    /// HAProxy asks once more.
    #[inline]
    pub(crate) fn pace_notify(&mut self, now: Instant) {
        if let Some(pacer) = &mut self.pacer {
            pacer.on_notify(self.in_flight.len().into(), now);
        }
    }

    /// Whether the answer being written cannot be sent in time any more: as many are held back as
    /// HAProxy can wait for.
    #[inline]
    pub(crate) fn is_choked(&self) -> bool {
        self.pacer.is_some() && self.pacer_is_full()
    }

    #[cold]
    fn pacer_is_full(&self) -> bool {
        // The fallback is no larger, and an answer of its size not worth the bother.
        let small = self.config.fallback_len().saturating_add(64);
        self.frame_length() > small && self.pacer.as_deref().is_some_and(Pacer::is_full)
    }

    /// A frame was committed that must not just go out.
    #[cold]
    fn pace(&mut self, now: Instant) {
        if self.pacer.is_none()
            && let Some(pacing) = self.config.current_pacing()
        {
            // Of the frames before this one at most as many are unread as HAProxy has in flight.
            let before = self.stats.acks().min(20);
            let small = usize::try_from(before).unwrap_or(0) * self.pace_from();
            let buffer = to_usize(self.buffer);
            let pacer = Pacer::new(pacing, buffer, self.pipelining, (before, small), now);
            self.pacer = Some(Box::new(pacer));
        }
        let before = self.held();
        self.with_pacer(|pacer, frames| pacer.on_frame(frames, now));
        let held = self.held().saturating_sub(before);
        if held > 0 {
            self.stats.others().held += held;
        }
        if self.pacer.is_none() {
            self.exposed = self.committed;
        }
    }

    fn held(&self) -> u64 {
        self.pacer.as_deref().map_or(0, Pacer::held)
    }

    fn release(&mut self, now: Instant) {
        self.with_pacer(|pacer, frames| pacer.release(frames, now));
        self.watch(now);
    }

    fn with_pacer(&mut self, change: impl FnOnce(&mut Pacer, Frames<'_>)) {
        let Some(pacer) = &mut self.pacer else { return };
        let unwritten = self.exposed - self.sent;
        let out = self.out.get(..self.committed).unwrap_or_default();
        change(pacer, Frames { out, exposed: &mut self.exposed, unwritten });
    }

    /// When there may be room for what is held back.
    pub(crate) fn release_at(&self) -> Option<Instant> {
        self.pacer.as_deref()?.deadline()
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

    pub(crate) fn stall_deadline(&self) -> Option<Instant> {
        self.stall?.checked_add(self.config.current_limits().write)
    }

    /// Whether the peer took nothing for the whole of the write timeout. A peer that is slow but
    /// takes something gets the time again.
    pub(crate) fn stalled(&mut self, now: Instant) -> bool {
        if self.stall_deadline().is_none_or(|deadline| now < deadline) {
            return false;
        }
        if core::mem::take(&mut self.progressed) {
            self.stall = Some(now);
            return false;
        }
        true
    }

    pub(crate) fn capacity(&self) -> usize {
        let pacer = self.pacer.as_deref().map_or(0, Pacer::capacity);
        self.out.capacity() + self.in_flight.capacity() + pacer
    }

    pub(crate) fn trim(&mut self, now: Instant) {
        if self.out.is_empty() {
            self.out = Vec::new();
        }
        self.in_flight.trim();
        if let Some(pacer) = &mut self.pacer
            && self.out.is_empty()
        {
            pacer.trim(now);
        }
    }
}

/// As a size: so much never fits a memory of 32 bits, and no frame is so long.
const NO_BUFFER: u32 = u32::MAX;

fn to_usize(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
