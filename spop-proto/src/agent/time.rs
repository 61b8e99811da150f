//! Output, time and memory: what is due when, and what is done then.

use std::time::{Duration, Instant};

use super::core::{Control, Core, Phase};
use super::{CloseReason, Interest};
use crate::Status;
use crate::error::{ProtocolError, Waiting};
use crate::rx::Rx;
use crate::tx::Cause;

/// Buffers of an idle connection are given back after this time, and looked for again each second.
const TRIM_AFTER: Duration = Duration::from_secs(1);

/// The earlier one, if there is any.
#[inline(always)]
fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}

impl Core {
    pub(super) fn transmitted(&mut self, bytes: usize) {
        self.control.was_blocked |= self.blocked();
        self.tx.transmitted(bytes);
        self.finish();
    }

    pub(super) fn swap_output(&mut self, buffer: &mut Vec<u8>) {
        self.control.was_blocked |= self.blocked();
        self.tx.swap(buffer);
        self.finish();
    }

    pub(super) fn interest(&self, rx: &Rx) -> Interest {
        if self.control.phase == Phase::Done {
            return Interest {
                read: false,
                write: false,
                ready: false,
                deadline: None,
                done: true,
            };
        }
        let (ready, read) = self.wants_input(rx);
        Interest {
            read,
            write: self.tx.has_output(),
            ready,
            deadline: self.deadline(rx.capacity()),
            done: false,
        }
    }

    /// Whether there is something to hand out without any, and whether to read.
    #[inline]
    pub(super) fn wants_input(&self, rx: &Rx) -> (bool, bool) {
        let control = &self.control;
        let blocked = self.takes_frames() && self.blocked();
        let waiting = self.takes_frames() && !blocked && rx.has_unseen();
        let ready = waiting || control.tells_of_cut || self.drained(rx.has_pending());
        (ready, !(control.eof || blocked))
    }

    pub(super) fn deadline(&self, held: usize) -> Option<Instant> {
        let Control { phase_ends, frame_ends, drain_ends, .. } = self.control;
        // Not a list and its minimum, which takes twice as long: it is asked for at each wake-up.
        let mut deadline = sooner(self.idle_ends(), self.trim_at(held));
        deadline = sooner(deadline, phase_ends);
        deadline = sooner(deadline, frame_ends);
        deadline = sooner(deadline, drain_ends);
        deadline = sooner(deadline, self.tx.stall_deadline());
        deadline = sooner(deadline, self.tx.release_at());
        deadline = sooner(deadline, self.reassembly.ends());
        sooner(deadline, self.tx.in_flight.next_deadline())
    }

    pub(super) fn idle_ends(&self) -> Option<Instant> {
        let idle = self.tx.config.current_limits().idle?;
        if self.control.phase == Phase::Ready { self.tx.active().checked_add(idle) } else { None }
    }

    /// When buffers are given back, if there are any.
    pub(super) fn trim_at(&self, held: usize) -> Option<Instant> {
        if held + self.capacity() == 0 {
            return None;
        }
        self.tx.active().checked_add(TRIM_AFTER + Duration::from_secs(self.tx.trims.into()))
    }

    /// `pending` tells whether input is kept that was not handed out.
    pub(super) fn handle_timeout(
        &mut self,
        pending: bool,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        self.begin(now);
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let timeout = |waiting| ProtocolError::Timeout { waiting };
        if due(self.control.phase_ends) {
            self.control.phase_ends = None;
            match self.control.phase {
                Phase::Hello => return Err(self.fail(timeout(Waiting::Hello), now)),
                Phase::HelloOverLimit => {
                    self.ending(CloseReason::ConnectionLimit);
                    self.end();
                }
                Phase::Closing | Phase::Flushing => self.end_if_flushed(now),
                Phase::Ready => {
                    self.control.unused = !self.control.draining;
                    self.drain(now);
                }
                Phase::Done => {}
            }
        }
        if self.control.phase == Phase::Done {
            return Ok(());
        }
        if self.tx.stalled(now) {
            let error = timeout(Waiting::Write);
            self.abandon();
            self.ending(CloseReason::Protocol(error.clone()));
            self.end();
            return Err(error);
        }
        self.answer_late_ones(now);
        if due(self.tx.in_flight.look_again()) {
            self.wait_for_agent_or_go_on(now);
        }
        if due(self.control.frame_ends) || due(self.reassembly.ends()) {
            if core::mem::take(&mut self.control.was_blocked) || self.blocked() {
                self.restart_frame_clocks(now);
            } else if due(self.control.frame_ends) {
                return Err(self.fail(timeout(Waiting::Frame), now));
            } else {
                self.refuse_unfinished_payload(now);
            }
        }
        if due(self.control.drain_ends) {
            self.control.drain_ends = None;
            if self.is_closing() {
                self.lose_output();
            } else if !self.control.draining {
                self.leave_when_quiet(pending, now);
            } else {
                self.ending(CloseReason::Cut { owed: self.tx.in_flight.len() });
                self.goodbye(Status::NORMAL, "the agent is stopping", now);
                // The time to drain is over: what is left of the output has that of the close.
                self.control.drain_ends = self.control.phase_ends;
            }
        }
        if due(self.idle_ends()) {
            self.leave_if_idle(now);
        }
        if self.control.aged {
            self.leave_if_drained(pending, now);
        }
        Ok(())
    }

    /// The time in which this side did not read was not the peer's.
    pub(super) fn restart_frame_clocks(&mut self, now: Instant) {
        let next = now.checked_add(self.tx.config.current_limits().frame);
        if self.control.frame_ends.is_some() {
            self.control.frame_ends = next;
        }
        self.reassembly.expect_next_by(next);
    }

    /// The time for the peer's close counts from the last byte it took.
    pub(super) fn end_if_flushed(&mut self, now: Instant) {
        let unsent = self.tx.unsent() > 0;
        if self.control.eof || (!unsent && self.control.phase == Phase::Closing) {
            return self.end();
        }
        self.control.phase = if unsent { Phase::Flushing } else { Phase::Closing };
        self.control.phase_ends = now.checked_add(self.tx.config.current_limits().close);
    }

    pub(super) const fn is_closing(&self) -> bool {
        matches!(self.control.phase, Phase::Closing | Phase::Flushing)
    }

    /// The end of a connection whose peer did not take everything in time.
    pub(super) fn lose_output(&mut self) {
        if self.tx.unsent() > 0 && self.control.reason() == Some(&CloseReason::Drained) {
            self.ending(CloseReason::Cut { owed: 0 });
        }
        self.end();
    }

    /// HAProxy says so when it gives a payload up; one that just stops is held no longer than a
    /// frame would be.
    pub(super) fn refuse_unfinished_payload(&mut self, now: Instant) {
        if let Some(ids) = self.reassembly.refuse() {
            self.tx.stats.others().refused += 1;
            self.tx.abort(ids, now);
            self.expect_end_of_fragments(now);
        }
    }

    pub(super) fn answer_late_ones(&mut self, now: Instant) {
        while let Some((key, ids, Some(deadline))) = self.tx.in_flight.oldest() {
            if deadline > now {
                break;
            }
            self.tx.in_flight.remove(key);
            self.tx.fall_back(ids, Cause::Deadline, now);
        }
    }

    pub(super) fn leave_if_idle(&mut self, now: Instant) {
        let busy = !self.tx.in_flight.is_empty()
            || self.tx.unsent() > 0
            || self.reassembly.open().is_some();
        if busy {
            self.tx.set_active(now);
        } else {
            self.ending(CloseReason::Idle);
            self.goodbye(Status::NORMAL, "idle for too long", now);
        }
    }

    pub(super) fn trim_due(&mut self, held: usize, now: Instant) -> bool {
        let due = self.trim_at(held).is_some_and(|at| at <= now);
        if due {
            let elapsed = now.saturating_duration_since(self.tx.active());
            self.tx.trims = u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX);
        }
        due
    }

    pub(super) fn trim(&mut self, now: Instant) {
        self.tx.trim(now);
        self.reassembly.trim();
    }

    pub(super) fn capacity(&self) -> usize {
        self.tx.capacity() + self.reassembly.capacity()
    }
}
