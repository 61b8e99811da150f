//! The ways to end.

use std::time::{Duration, Instant};

use super::CloseReason;
use super::core::{Core, Phase};
use crate::Status;
use crate::error::ProtocolError;
use crate::reassembly::Reassembly;

/// How long a connection that is too old is asked nothing before it leaves without an answer to go with.
const QUIET: Duration = Duration::from_millis(500);

impl Core {
    pub(super) fn ending(&mut self, reason: CloseReason) {
        self.control.rare.get_or_insert_default().reason = Some(reason);
    }

    /// The peer broke the protocol: tells it, and closes.
    pub(super) fn fail(&mut self, error: ProtocolError, now: Instant) -> ProtocolError {
        let message = error.to_string();
        self.ending(CloseReason::Protocol(error.clone()));
        self.goodbye(error.status(), &message, now);
        error
    }

    pub(super) fn close(&mut self, status: Status, message: &str, now: Instant) {
        self.begin(now);
        if self.takes_frames() {
            self.ending(CloseReason::Closed { status });
            self.goodbye(status, message, now);
        }
    }

    pub(super) fn peer_closed(&mut self, now: Instant) {
        self.begin(now);
        self.control.eof = true;
        self.tx.stop_pacing();
        if self.control.phase == Phase::Done {
            return;
        }
        if self.control.reason().is_none() {
            self.ending(CloseReason::PeerClosed);
        }
        self.abandon();
        self.enter_closing(now, self.tx.config.current_limits().close);
        self.finish();
    }

    pub(super) fn shutdown(&mut self, pending: bool, now: Instant) {
        self.begin(now);
        match self.control.phase {
            // Nothing is owed to a peer that has not said HELLO.
            Phase::Hello | Phase::HelloOverLimit => {
                self.ending(CloseReason::Drained);
                self.control.phase = Phase::Done;
            }
            Phase::Ready => {
                self.drain(now);
                self.leave_if_drained(pending, now);
            }
            Phase::Closing | Phase::Flushing | Phase::Done => {}
        }
    }

    pub(super) fn drain(&mut self, now: Instant) {
        if !self.control.draining {
            let drain = self.tx.config.current_limits().drain;
            self.control.draining = true;
            self.control.drain_ends = now.checked_add(drain);
        }
    }

    /// Past half of the time to drain nothing new is begun, or a busy connection would never come
    /// to a moment at which nothing is owed.
    pub(super) fn has_drained_long(&self, now: Instant) -> bool {
        if !self.control.draining {
            return false;
        }
        let half = self.tx.config.current_limits().drain / 2;
        self.control.drain_ends.is_some_and(|ends| ends.saturating_duration_since(now) < half)
    }

    pub(super) fn drained(&self, pending: bool) -> bool {
        let leaving = self.control.draining || (self.control.aged && self.tx.unsent() > 0);
        leaving && self.owes_nothing(pending)
    }

    pub(super) fn owes_nothing(&self, pending: bool) -> bool {
        self.control.phase == Phase::Ready
            && !pending
            && self.tx.in_flight.is_empty()
            && self.reassembly.open().is_none()
    }

    /// Too old: leaves with the next answers, or when it is asked nothing for a while. HAProxy goes on
    /// asking on a connection until it has read the goodbye; right after an answer it is the least
    /// likely to have done so.
    pub(super) fn leave_when_quiet(&mut self, pending: bool, now: Instant) {
        self.control.aged = true;
        let quiet = self.tx.active().checked_add(QUIET);
        let is_quiet = quiet.is_none_or(|quiet| quiet <= now);
        if is_quiet && self.owes_nothing(pending) && self.tx.unsent() == 0 {
            self.say_goodbye(now);
        } else {
            self.control.drain_ends = if is_quiet { now.checked_add(QUIET) } else { quiet };
        }
    }

    pub(super) fn leave_if_drained(&mut self, pending: bool, now: Instant) {
        if self.drained(pending) {
            self.say_goodbye(now);
        }
    }

    pub(super) fn say_goodbye(&mut self, now: Instant) {
        let (reason, message) = match (self.control.unused, self.control.draining) {
            (true, _) => (CloseReason::Unused, "a payload was refused"),
            (false, true) => (CloseReason::Drained, "the agent is stopping"),
            (false, false) => (CloseReason::Aged, "the connection is old"),
        };
        self.ending(reason);
        self.goodbye(Status::NORMAL, message, now);
    }

    /// Writes the AGENT-DISCONNECT.
    pub(super) fn goodbye(&mut self, status: Status, message: &str, now: Instant) {
        self.abandon();
        self.tx.disconnect(status, message, now);
        self.enter_closing(now, self.tx.config.current_limits().close);
    }

    pub(super) fn abandon(&mut self) {
        let owed = self.tx.in_flight.clear();
        if owed > 0 {
            self.tx.stats.others().abandoned += u64::from(owed);
        }
    }

    pub(super) fn enter_closing(&mut self, now: Instant, wait: Duration) {
        if self.control.phase == Phase::Ready && !self.control.draining {
            // Until now it was the end of something else.
            self.control.drain_ends = None;
        }
        self.reassembly = Reassembly::default();
        self.control.phase = Phase::Closing;
        self.control.phase_ends = now.checked_add(wait);
        self.control.frame_ends = None;
        // However slowly the peer takes what is left, this is the end of it.
        if self.control.drain_ends.is_none() {
            self.control.drain_ends = now.checked_add(self.tx.config.current_limits().drain);
        }
    }

    /// Over when the peer has closed and everything is written.
    pub(super) fn finish(&mut self) {
        if self.is_closing() && self.control.eof && self.tx.unsent() == 0 {
            self.end();
        }
    }

    pub(super) fn end(&mut self) {
        self.control.phase = Phase::Done;
        self.tx.discard();
    }
}
