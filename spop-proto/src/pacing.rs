//! Answers are held back so that they never fill the receive buffer of HAProxy >= 3.1.
//!
//! That HAProxy reads a connection into a buffer of `tune.bufsize` bytes, and one read that fills it
//! to the last byte stops the connection for good: its streams, and all that are put on it later,
//! wait for their time to be up, and nothing is logged. So the bytes that it has not read must stay
//! below that size. Nothing tells this side what was read: SPOP has no ping, TCP acknowledges what a
//! kernel took. What there is:
//!
//! - A NOTIFY shows that HAProxy was at work after the last time that there was nothing to read here,
//!   so it comes by everything that had been sent before that. A moment later that is read.
//! - HAProxy keeps at most 20 NOTIFYs in flight. If it sends one more while `u` others are waiting
//!   for their answers, at most `19 - u` answers can be unread, if no stream ended in another way: a
//!   client that leaves, a timeout. Here, too, a moment is added.
//! - In an idle spell only time remains: HAProxy does not sleep for long on what it could read.
//!
//! The residual risk: a HAProxy that stops, between asking and reading, for longer than these times,
//! with large answers on their way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Pacing;

/// NOTIFYs that HAProxy >= 3.1 keeps in flight on a connection.
const WINDOW: u64 = 20;
/// A read of less has left nothing: no driver reads into a smaller buffer.
const SHORT_READ: usize = 4_096;

/// What is known of the other side's receive buffer.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Bytes that may be unread: one less than fill the buffer.
    room: usize,
    settle: Duration,
    stall: Duration,
    pipelining: bool,
    /// Frames that the driver was given.
    released: u64,
    /// Bytes that the driver was given.
    released_bytes: u64,
    /// So many of `queue`, from its front, were read if no stream ended but by its answer.
    proven: usize,
    /// Bytes in `queue`.
    unread: usize,
    /// What may be unread, in the order in which it was given to the driver.
    queue: VecDeque<Unread>,
    /// Frames held back.
    held: u64,
    /// When the last input came, and the largest one so far.
    input_at: Option<Instant>,
    input_max: usize,
    /// When there was nothing left to read, as of the input before the last and of the last one.
    drained_before: Option<Instant>,
    drained: Option<Instant>,
}

/// Frames that were released at the same time.
#[derive(Debug)]
struct Unread {
    at: Instant,
    bytes: usize,
    /// When HAProxy asked so much that it must have read them.
    proven: Option<Instant>,
    /// `released` after them.
    frames: u64,
    /// `released_bytes` after them.
    end: u64,
}

/// The output as the pacer sees it: `frames[..exposed]` is the driver's.
pub(crate) struct Frames<'a> {
    pub(crate) out: &'a [u8],
    pub(crate) exposed: &'a mut usize,
    /// Exposed bytes that the driver has not written.
    pub(crate) unwritten: usize,
}

impl Pacer {
    /// The connection's first frame of which 64 fill the buffer is about to be released. Of the
    /// smaller ones before it `small` bytes in `frames` may be unread.
    pub(crate) fn new(
        pacing: &Pacing,
        buffer: usize,
        pipelining: bool,
        (frames, small): (u64, usize),
        now: Instant,
    ) -> Self {
        let mut pacer = Self {
            room: buffer.saturating_sub(1),
            settle: pacing.settle,
            stall: pacing.stall,
            pipelining,
            released: 0,
            released_bytes: 0,
            proven: 0,
            unread: 0,
            queue: VecDeque::new(),
            held: 0,
            input_at: None,
            input_max: 0,
            drained_before: None,
            drained: None,
        };
        if frames > 0 {
            pacer.book(small, frames, now);
        }
        pacer
    }

    pub(crate) const fn held(&self) -> u64 {
        self.held
    }

    /// Something was read; called for each event in it, with what is left of it.
    pub(crate) fn on_input(&mut self, bytes: usize, now: Instant) {
        if self.input_at == Some(now) {
            return;
        }
        self.input_at = Some(now);
        self.drained_before = self.drained;
        if bytes < self.input_max.max(SHORT_READ) {
            self.drained = Some(now);
        }
        self.input_max = self.input_max.max(bytes);
    }

    /// HAProxy asks once more, while `deferred` answers have not been made.
    pub(crate) fn on_notify(&mut self, deferred: u64, now: Instant) {
        let owed = deferred + self.held;
        if self.pipelining {
            let read = match (WINDOW - 1).checked_sub(owed) {
                Some(unread) => self.released.saturating_sub(unread),
                // More than HAProxy has in flight: clients have left, which shows nothing.
                None => 0,
            };
            // Written so long ago that the question is younger: it would have been read before.
            let old = |at| now.saturating_duration_since(at) >= self.settle;
            let older = |at| old(at) || self.drained_before.is_some_and(|before| at < before);
            while let Some(next) = self.queue.get_mut(self.proven)
                && (next.frames <= read || older(next.at))
            {
                next.proven = Some(now);
                self.proven += 1;
            }
        } else if owed == 0 {
            // It had nothing else in flight. (But on a new connection: there it sends up to 20 before
            // it has read that this agent does not pipeline.)
            self.queue.clear();
            self.proven = 0;
            self.unread = 0;
        }
    }

    /// A frame was added to the output.
    pub(crate) fn on_frame(&mut self, frames: Frames<'_>, now: Instant) {
        self.held += 1;
        self.release(frames, now);
    }

    /// Gives the driver what fits.
    pub(crate) fn release(&mut self, frames: Frames<'_>, now: Instant) {
        let Frames { out, exposed, unwritten } = frames;
        self.forget_read(unwritten, now);
        while self.held > 0 {
            let Some(length) = frame_length(out, *exposed) else { break };
            if self.unread > 0 && self.unread.saturating_add(length) > self.room {
                break;
            }
            self.held -= 1;
            *exposed += length;
            self.book(length, 1, now);
        }
    }

    fn book(&mut self, bytes: usize, frames: u64, now: Instant) {
        self.released += frames;
        // No connection lives long enough to overflow it.
        self.released_bytes = self.released_bytes.wrapping_add(u64::try_from(bytes).unwrap_or(0));
        self.unread += bytes;
        let (frames, end) = (self.released, self.released_bytes);
        match self.queue.back_mut() {
            Some(last) if last.at == now && last.proven.is_none() => {
                last.bytes += bytes;
                last.frames = frames;
                last.end = end;
            }
            _ => self.queue.push_back(Unread { at: now, bytes, proven: None, frames, end }),
        }
    }

    /// Drops from the queue what was read by all that can be known.
    fn forget_read(&mut self, unwritten: usize, now: Instant) {
        let unwritten = u64::try_from(unwritten).unwrap_or(u64::MAX);
        let written = self.released_bytes.saturating_sub(unwritten);
        while let Some(first) = self.queue.front_mut() {
            let age = |since| now.saturating_duration_since(since);
            let settled = first.proven.is_some_and(|at| age(at) >= self.settle);
            if !settled && age(first.at) < self.stall {
                break;
            }
            if first.end > written {
                // It has not left this side yet.
                first.at = now;
                first.proven = first.proven.map(|_| now);
                break;
            }
            self.unread -= first.bytes;
            self.proven = self.proven.saturating_sub(1);
            self.queue.pop_front();
        }
    }

    /// Whether as much is held back as HAProxy can wait for. (Beyond that, most of it is for nobody.)
    pub(crate) const fn is_full(&self) -> bool {
        self.held >= WINDOW
    }

    /// When there may be room for what is held back.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.held == 0 {
            return None;
        }
        let first = self.queue.front()?;
        let settled = first.proven.and_then(|at| at.checked_add(self.settle));
        let stalled = first.at.checked_add(self.stall);
        settled.into_iter().chain(stalled).min()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.queue.capacity() * size_of::<Unread>()
    }

    pub(crate) fn trim(&mut self, now: Instant) {
        self.forget_read(0, now);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }
}

/// The length of the whole frame at that place.
fn frame_length(out: &[u8], at: usize) -> Option<usize> {
    let length = out.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*length)).ok()?.checked_add(4)
}
