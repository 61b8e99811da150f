//! The ways to end, and what time does.

use std::time::{Duration, Instant};

use super::config::Dialect;
use super::core::{Core, Fault, Phase};
use super::streams::{NotifyId, StreamError};
use super::{CheckFailure, EngineCloseReason};
use crate::error::{ProtocolError, Waiting};
use crate::wire::{Capabilities, Flags, FrameType};
use crate::{Interest, Status};

/// How long the agent may take to answer HAPROXY-DISCONNECT where no idle timeout is set.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

impl Core {
    /// The agent broke the protocol.
    pub(super) fn fail(&mut self, fault: Fault, now: Instant) -> ProtocolError {
        let told = matches!(fault, Fault::Hello(_));
        let unreadable = matches!(fault, Fault::Length(_));
        let error = fault.into_error();
        let status = error.status();
        let text = status.text().unwrap_or_default();
        let closing = self.phase == Phase::Closing;
        self.reason.get_or_insert_with(|| EngineCloseReason::Protocol(error.clone()));
        match self.config.dialect {
            // It was looking for AGENT-DISCONNECT: this is as good.
            Dialect::Old if closing => self.exit(StreamError::from_status(status), now),
            Dialect::Old => {
                self.disconnect(status, text, now);
                if unreadable {
                    self.exit(StreamError::from_status(status), now);
                }
            }
            Dialect::New if told => self.disconnect(status, text, now),
            Dialect::New => self.phase = Phase::Dead,
        }
        self.settle(now);
        error
    }

    /// Writes the HAPROXY-DISCONNECT.
    pub(super) fn disconnect(&mut self, status: Status, message: &str, now: Instant) {
        self.out.disconnect(status, message);
        self.wait_for_goodbye(now);
    }

    pub(super) fn wait_for_goodbye(&mut self, now: Instant) {
        let wait = match self.config.dialect {
            Dialect::Old => self.config.idle.unwrap_or(CLOSE_TIMEOUT),
            // By then no stream is left.
            Dialect::New => self.config.processing,
        };
        self.phase = Phase::Closing;
        self.phase_ends = now.checked_add(wait);
        self.idle_ends = None;
        self.fragments = None;
    }

    /// Over, but for what is still to be written; all streams fail.
    fn exit(&mut self, error: StreamError, now: Instant) {
        self.streams.fail_all(error);
        self.fragments = None;
        self.idle_ends = None;
        self.phase = Phase::Flushing;
        self.phase_ends = now.checked_add(self.config.idle.unwrap_or(CLOSE_TIMEOUT));
    }

    /// Moves on where nothing is left to wait for.
    pub(super) fn settle(&mut self, now: Instant) {
        let streams = self.streams.len();
        match self.phase {
            Phase::Dead if streams == 0 => self.phase = Phase::Done,
            Phase::Flushing if self.out.unsent() == 0 => self.phase = Phase::Done,
            Phase::Ready if self.draining && streams == 0 => {
                self.reason = Some(EngineCloseReason::Drained);
                match self.config.dialect {
                    Dialect::Old => self.disconnect(Status::NORMAL, "normal", now),
                    Dialect::New => self.phase = Phase::Done,
                }
            }
            Phase::Hello if self.draining && streams == 0 => {
                self.reason = Some(EngineCloseReason::Drained);
                self.phase = Phase::Done;
            }
            _ => {}
        }
        if matches!(self.phase, Phase::Dead | Phase::Done) {
            self.phase_ends = None;
            self.idle_ends = None;
            self.fragments = None;
            self.out.discard();
        }
    }

    pub(super) fn peer_closed(&mut self, now: Instant) {
        match self.phase {
            // The connection is not looked at any more.
            Phase::Dead | Phase::Done => return,
            Phase::Hello if self.config.health_check => self.check = Some(CheckFailure::Closed),
            Phase::Hello | Phase::Ready | Phase::Closing | Phase::Flushing => {}
        }
        self.reason.get_or_insert(EngineCloseReason::PeerClosed);
        let waits = self.is_old()
            && self.phase == Phase::Ready
            && self.info.capabilities.contains(Capabilities::ASYNC);
        if waits {
            // An ACK may come on another connection, for all HAProxy knows.
            self.streams.fail_fragmented(StreamError::CONNECTION_LOST);
            self.phase = Phase::Dead;
        } else if self.phase == Phase::Closing && !self.is_old() {
            self.streams.fail_sent(StreamError::CONNECTION_LOST);
            self.phase = Phase::Dead;
        } else {
            self.streams.fail_all(StreamError::CONNECTION_LOST);
            self.phase = Phase::Done;
        }
        self.settle(now);
    }

    pub(super) fn shutdown(&mut self, now: Instant) {
        self.draining = true;
        self.settle(now);
    }

    pub(super) fn close(&mut self, status: Status, message: &str, now: Instant) {
        match self.phase {
            Phase::Ready if self.is_old() => {
                self.reason = Some(EngineCloseReason::Closed { status });
                self.disconnect(status, message, now);
            }
            Phase::Hello | Phase::Ready | Phase::Dead => {
                self.reason.get_or_insert(EngineCloseReason::Closed { status });
                self.streams.fail_all(StreamError::INTERRUPTED);
                self.phase = Phase::Done;
            }
            Phase::Closing | Phase::Flushing | Phase::Done => {}
        }
        self.settle(now);
    }

    // Output and time.

    pub(super) fn transmitted(&mut self, bytes: usize) {
        self.out.transmitted(bytes);
        self.continue_fragments();
        self.flushed();
    }

    pub(super) fn swap_output(&mut self, buffer: &mut Vec<u8>) {
        self.out.swap(buffer);
        self.continue_fragments();
        self.flushed();
    }

    fn flushed(&mut self) {
        if self.phase == Phase::Flushing && self.out.unsent() == 0 {
            self.phase = Phase::Done;
            self.phase_ends = None;
        }
    }

    pub(super) fn has_events(&self) -> bool {
        self.streams.has_failed() || self.check.is_some()
    }

    pub(super) fn interest(&self, unseen: bool) -> Interest {
        let over = self.phase == Phase::Done;
        let events = self.has_events();
        let mut deadline = None;
        if !over {
            let all = [self.streams.deadline(), self.phase_ends, self.idle_ends];
            deadline = all.into_iter().flatten().min();
        }
        Interest {
            read: self.takes_frames(),
            write: self.out.unsent() > 0,
            ready: events || (self.takes_frames() && unseen),
            deadline,
            done: over && !events,
        }
    }

    /// HAProxy <= 3.0 counts anew with each frame, either side's.
    pub(super) fn arm_idle(&mut self, now: Instant) {
        self.idle_ends = self.config.idle.and_then(|idle| now.checked_add(idle));
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), ProtocolError> {
        if self.streams.expire(now) {
            self.abort_fragments();
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut result = Ok(());
        if due(self.phase_ends) {
            self.phase_ends = None;
            result = self.end_of_phase(now);
        }
        if due(self.idle_ends) {
            self.leave_if_idle(now);
        }
        self.settle(now);
        result
    }

    pub(super) fn abandon(&mut self, id: NotifyId, now: Instant) -> bool {
        let Some(fragmented) = self.streams.forget(id) else { return false };
        if fragmented {
            self.abort_fragments();
        }
        self.settle(now);
        true
    }

    /// The stream ended before its last fragment was sent.
    fn abort_fragments(&mut self) {
        if let Some(fragments) = self.fragments.take() {
            let ids = (fragments.ids.stream, fragments.ids.frame);
            let flags = Flags::FIN.with(Flags::ABORT);
            self.out.payload(FrameType::UNSET, flags, ids, &[]);
        }
    }

    fn end_of_phase(&mut self, now: Instant) -> Result<(), ProtocolError> {
        match self.phase {
            Phase::Hello => {
                let error = ProtocolError::Timeout { waiting: Waiting::Hello };
                if self.config.health_check {
                    self.check = Some(CheckFailure::Timeout);
                }
                self.reason = Some(EngineCloseReason::Protocol(error.clone()));
                self.phase = Phase::Dead;
                return Err(error);
            }
            Phase::Closing => {
                // Only a goodbye of the agent that could not be read leaves the reason open.
                self.reason.get_or_insert_with(|| EngineCloseReason::Agent {
                    status: Status::UNKNOWN,
                    message: Box::default(),
                });
                self.exit(StreamError::from_status(Status::TIMEOUT), now);
                self.phase = Phase::Done;
            }
            Phase::Flushing => self.phase = Phase::Done,
            Phase::Ready | Phase::Dead | Phase::Done => {}
        }
        Ok(())
    }

    fn leave_if_idle(&mut self, now: Instant) {
        match self.config.dialect {
            Dialect::Old => {
                let status = Status::TIMEOUT;
                self.reason = Some(EngineCloseReason::Idle);
                self.disconnect(status, status.text().unwrap_or_default(), now);
            }
            Dialect::New if self.streams.len() > 0 => self.arm_idle(now),
            Dialect::New => {
                self.reason = Some(EngineCloseReason::Idle);
                self.phase = Phase::Done;
            }
        }
    }
}
