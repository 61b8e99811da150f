//! What each frame means.

use std::time::{Duration, Instant};

use super::core::{Core, FrameLimit, Payload, Phase, Step};
use super::{AbandonedBy, CloseReason};
use crate::error::{Part, ProtocolError, When};
use crate::inflight::Ids;
use crate::reassembly::Fragment;
use crate::rx::Rx;
use crate::shown;
use crate::tx::Cause;
use crate::wire::{Capabilities, Disconnect, Frame, FrameHeader, FrameType, Messages};
use crate::{Overload, Status};

/// A HELLO of HAProxy is 78 to 140 bytes.
const FIRST_FRAME_MAX: u32 = 4096;

/// A refused payload whose last fragment did not come: HAProxy has stopped sending it when none came for
/// this time.
const FRAGMENTS_END_AFTER: Duration = Duration::from_millis(100);

impl Core {
    pub(super) fn frame_limit(&self) -> FrameLimit {
        let own = self.tx.config.own_max_frame_size();
        match self.control.phase {
            Phase::Hello | Phase::HelloOverLimit => {
                FrameLimit { max: own.min(FIRST_FRAME_MAX), first: true }
            }
            // Not the negotiated size: early 3.1 exceeds it by a little.
            _ => FrameLimit { max: own, first: false },
        }
    }

    /// Whether a connection that has no input may wait.
    #[inline]
    pub(super) fn has_nothing_to_do(&self) -> bool {
        self.control.phase == Phase::Ready
            && !self.control.draining
            && !self.control.aged
            && !self.control.tells_of_cut
    }

    /// All input was looked at; `pending` tells whether a part of a frame is kept.
    pub(super) fn drained_input(&mut self, pending: bool, now: Instant) {
        let limits = self.tx.config.current_limits();
        let control = &mut self.control;
        if !pending {
            control.frame_ends = None;
        } else if control.frame_ends.is_none() {
            control.frame_ends = now.checked_add(limits.frame);
        }
        self.leave_if_drained(pending, now);
    }

    /// The usual case before all others: a NOTIFY that lies whole in the input, while nothing is kept,
    /// open or in the way. Whatever is not that is left where it is.
    #[inline(always)]
    pub(super) fn take_whole_notify<'i>(
        &mut self,
        rx: &mut Rx,
        input: &mut &'i [u8],
        now: Instant,
    ) -> Option<(Ids, Messages<'i>)> {
        let may = self.has_nothing_to_do()
            && rx.is_empty()
            && self.reassembly.is_unused()
            && self.tx.in_flight.is_empty()
            && !self.tx.config.owes_all_it_may()
            && self.tx.unsent() < self.tx.config.current_limits().output.get();
        if !may {
            return None;
        }
        let (frame, rest) = rx.whole_frame(input, self.tx.config.own_max_frame_size())?;
        let Frame { header, payload } = Frame::scan(frame)?;
        let FrameHeader { kind, flags, stream_id, frame_id } = header;
        let whole = flags.fin() && !flags.abort();
        // One that is large enough to hold a body that was cut has more to be looked at.
        if self.control.window.may_lie_in(payload.len()) || kind != FrameType::NOTIFY || !whole {
            return None;
        }
        let messages = Messages::well_formed(payload)?;
        rx.took(frame);
        *input = rest;
        self.control.frame_ends = None;
        self.control.ignored = 0;
        self.tx.stats.usual.frames += 1;
        self.tx.stats.usual.notifies += 1;
        self.tx.pace_notify(now);
        Some((Ids { stream: stream_id, frame: frame_id }, messages))
    }

    pub(super) fn on_frame(
        &mut self,
        bytes: &[u8],
        offset: u64,
        now: Instant,
    ) -> Result<Step, ProtocolError> {
        // The clock of a straddling frame stops here; the next one has its own.
        self.control.frame_ends = None;
        self.tx.stats.usual.frames += 1;
        let malformed = |part, error| ProtocolError::Malformed { part, error, offset };
        let frame = Frame::decode(bytes).map_err(|error| malformed(Part::Header, error))?;
        if self.control.phase != Phase::Ready {
            return self.on_hello(&frame, offset, now);
        }
        let Frame { header, payload } = frame;
        let part = Part::Payload(header.kind);
        match header.kind {
            FrameType::NOTIFY => {
                let step = self.on_notify(header, payload, now)?;
                self.check_notify(step, payload, now).map_err(|error| malformed(part, error))
            }
            FrameType::UNSET => {
                let step = self.on_unset(header, payload, now)?;
                self.check_notify(step, payload, now).map_err(|error| malformed(part, error))
            }
            FrameType::HAPROXY_DISCONNECT => {
                let goodbye = Disconnect::decode(payload).map_err(|e| malformed(part, e))?;
                self.ending(CloseReason::Haproxy {
                    status: goodbye.status,
                    message: shown::goodbye(goodbye.message),
                });
                self.goodbye(Status::NORMAL, "normal", now);
                Ok(Step::Disconnected { status: goodbye.status })
            }
            FrameType::HAPROXY_HELLO
            | FrameType::AGENT_HELLO
            | FrameType::AGENT_DISCONNECT
            | FrameType::ACK => {
                Err(ProtocolError::Unexpected { frame: header.kind, when: When::AfterHello })
            }
            _ => self.ignore(),
        }
    }

    pub(super) fn on_notify(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<Step, ProtocolError> {
        let ids = Ids { stream: header.stream_id, frame: header.frame_id };
        if header.flags.abort() && self.reassembly.open() == Some(ids) {
            // No HAProxy does that. What it can mean is that the payload is given up.
            return self.on_unset(header, payload, now);
        }
        self.control.phase_ends = None;
        self.reassembly.forget(ids);
        if let Some(open) = self.reassembly.open() {
            return Err(ProtocolError::Interlaced {
                stream_id: ids.stream,
                frame_id: ids.frame,
                open_stream_id: open.stream,
                open_frame_id: open.frame,
            });
        }
        if header.flags.abort() {
            return self.ignore();
        }
        self.supersede(ids);
        if header.flags.fin() {
            return Ok(Step::Notify(ids, Payload::Frame(payload.len())));
        }
        if !self.info.capabilities.contains(Capabilities::FRAGMENTATION) {
            return Err(ProtocolError::FragmentationUnsupported {
                stream_id: ids.stream,
                frame_id: ids.frame,
            });
        }
        let limit = self.tx.config.current_limits().payload.get();
        let stats = self.tx.config.stats();
        let fragment = self.reassembly.start(ids, payload, limit, stats);
        self.on_fragment(fragment, ids, now)
    }

    pub(super) fn on_unset(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<Step, ProtocolError> {
        let ids = Ids { stream: header.stream_id, frame: header.frame_id };
        let limit = self.tx.config.current_limits().payload.get();
        let flags = (header.flags.fin(), header.flags.abort());
        let fragment = self.reassembly.next(ids, payload, flags, limit);
        self.on_fragment(fragment, ids, now)
    }

    pub(super) fn on_fragment(
        &mut self,
        fragment: Fragment,
        ids: Ids,
        now: Instant,
    ) -> Result<Step, ProtocolError> {
        if fragment == Fragment::Unknown {
            return self.ignore();
        }
        self.control.ignored = 0;
        if fragment == Fragment::Kept {
            let next = now.checked_add(self.tx.config.current_limits().frame);
            self.reassembly.expect_next_by(next);
        }
        if matches!(fragment, Fragment::TooBig | Fragment::Refused) {
            self.expect_end_of_fragments(now);
        }
        Ok(match fragment {
            Fragment::Whole => Step::Notify(ids, Payload::Reassembled),
            Fragment::TooBig => {
                self.tx.stats.others().refused += 1;
                self.tx.abort(ids, now);
                Step::Abandoned(ids, AbandonedBy::Limit)
            }
            Fragment::Aborted => {
                self.tx.stats.others().aborted += 1;
                Step::Abandoned(ids, AbandonedBy::Haproxy)
            }
            Fragment::Kept | Fragment::Refused | Fragment::Unknown => Step::Skip,
        })
    }

    /// A payload is refused: HAProxy either sends its last fragment, because it had sent everything, or
    /// stops on the way. Then it never asks anything on this connection again.
    pub(super) fn expect_end_of_fragments(&mut self, now: Instant) {
        let refusing = self.reassembly.is_refusing();
        self.control.phase_ends = now.checked_add(FRAGMENTS_END_AFTER).filter(|_| refusing);
    }

    /// A whole NOTIFY is checked to its last byte before anybody sees it, and shed if there are
    /// too many; other steps pass.
    #[inline]
    pub(super) fn check_notify(
        &mut self,
        step: Step,
        frame_payload: &[u8],
        now: Instant,
    ) -> Result<Step, crate::DecodeError> {
        let Step::Notify(ids, payload) = step else { return Ok(step) };
        Messages::check(match payload {
            Payload::Frame(_) => frame_payload,
            Payload::Reassembled => self.reassembly.payload(),
        })?;
        self.control.ignored = 0;
        self.tx.stats.usual.notifies += 1;
        self.tx.pace_notify(now);
        if self.full() || self.agent_sheds() || self.has_drained_long(now) {
            self.tx.fall_back(ids, Cause::Shed, now);
            self.reassembly.release();
            return Ok(Step::Skip);
        }
        Ok(step)
    }

    /// Where requests wait for the agent, this one was let in; if another thread has taken the last
    /// place since then, the agent owes one too many, and nobody gets the fallback.
    pub(super) fn agent_sheds(&self) -> bool {
        let config = &self.tx.config;
        config.current_limits().overload == Overload::Shed && config.owes_all_it_may()
    }

    /// HAProxy <= 3.0 asks with the same ids again after its timeout: an answer to the first
    /// question would be taken for one to the second.
    pub(super) fn supersede(&mut self, ids: Ids) {
        if self.tx.in_flight.is_empty() {
            return;
        }
        if let Some(key) = self.tx.in_flight.find(ids) {
            self.tx.in_flight.remove(key);
            self.tx.stats.others().superseded += 1;
        }
    }

    pub(super) fn ignore(&mut self) -> Result<Step, ProtocolError> {
        self.tx.stats.others().ignored += 1;
        self.control.ignored += 1;
        let limit = self.tx.config.current_limits().ignored_frames.get();
        if self.control.ignored > limit {
            return Err(ProtocolError::TooManyIgnored { limit });
        }
        Ok(Step::Skip)
    }
}
