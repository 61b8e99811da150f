//! Everything of the agent's side but the framing: phases, deadlines, what each frame means.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{AbandonedBy, CloseReason, Interest};
use crate::cut::{self, MaybeCut, Window};
use crate::error::{FirstBytes, Part, ProtocolError, Waiting, When};
use crate::inflight::Ids;
use crate::info::{ConnectionInfo, Peer};
use crate::reassembly::{Fragment, Reassembly};
use crate::rx::Rx;
use crate::tx::{Cause, Tx};
use crate::wire::{Capabilities, Disconnect, Frame, FrameHeader, FrameType, MIN_FRAME, Messages};
use crate::{AgentConfig, Overload, Status};

/// A HELLO of HAProxy is 78 to 140 bytes.
const FIRST_FRAME_MAX: u32 = 4096;
/// Buffers of an idle connection are given back after this time.
const TRIM_AFTER: Duration = Duration::from_secs(1);

/// How long a connection that is too old is asked nothing before it leaves without an answer to go with.
const QUIET: Duration = Duration::from_millis(500);

/// A refused payload whose last fragment did not come: HAProxy has stopped sending it when none came for
/// this time.
const FRAGMENTS_END_AFTER: Duration = Duration::from_millis(100);

/// Tells connections apart, so that no ticket answers on another one.
static SERIAL: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for HAPROXY-HELLO.
    Hello,
    /// The same beyond the limit of connections: only a health check is answered.
    HelloOverLimit,
    /// Answering.
    Ready,
    /// The last frame is in the output: waiting for the peer to close.
    Closing,
    /// The same, and the time for that was up before the peer had taken everything.
    Flushing,
    /// Over.
    Done,
}

#[derive(Debug)]
pub(super) struct Control {
    pub(super) phase: Phase,
    draining: bool,
    /// The peer sends nothing more.
    eof: bool,
    /// Reading had to wait since the clock of a frame was set: that time was not the peer's.
    was_blocked: bool,
    /// Frames skipped since the last one that meant something.
    ignored: u32,
    /// Boxed, like the reassembly: an idle connection is little else than its state.
    pub(super) rare: Option<Box<Rare>>,
    /// How long a payload is that may hold a body that was cut, and whether one is to be told of.
    pub(super) window: Window,
    pub(super) tells_of_cut: bool,
    /// End of the phase: the HELLO's deadline, or that of the peer's close. While answering: when HAProxy
    /// has stopped in the middle of a refused payload, if no more of it comes.
    pub(super) phase_ends: Option<Instant>,
    frame_ends: Option<Instant>,
    /// End of the drain; before that, when the connection is too old, or is to be looked at once more
    /// because it is.
    pub(super) drain_ends: Option<Instant>,
    /// It is too old, and leaves with the next answers.
    aged: bool,
    /// HAProxy has stopped in the middle of a refused payload.
    unused: bool,
}

/// What most connections never have, or have at their end.
#[derive(Debug, Default)]
pub(super) struct Rare {
    pub(super) reason: Option<CloseReason>,
    pub(super) cut: Option<MaybeCut>,
}

impl Control {
    pub(super) fn reason(&self) -> Option<&CloseReason> {
        self.rare.as_ref()?.reason.as_ref()
    }

    /// What there is to tell of the last NOTIFY.
    pub(super) fn take_cut(&mut self) -> Option<&MaybeCut> {
        self.tells_of_cut = false;
        self.rare.as_ref()?.cut.as_ref()
    }

    /// Looks whether a payload of that size holds a body that may have been cut.
    #[cold]
    #[inline(never)]
    pub(super) fn look_for_cut(&mut self, payload: &[u8], tx: &Tx, info: &ConnectionInfo) {
        let config = &tx.config;
        let bufsize = cut::bufsize(config.current_pacing(), info.offered_max_frame_size);
        if let Some(cut) = self.window.look(bufsize, payload, config.told_of_cuts()) {
            self.rare.get_or_insert_default().cut = Some(cut);
            self.tells_of_cut = true;
        }
    }
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) reassembly: Reassembly,
    pub(super) tx: Tx,
    pub(super) info: Arc<ConnectionInfo>,
    pub(super) control: Control,
}

/// What a frame amounted to.
#[derive(Debug)]
pub(super) enum Step {
    Skip,
    Hello,
    HealthCheck { healthy: bool },
    Notify(Ids, Payload),
    Abandoned(Ids, AbandonedBy),
    Disconnected { status: Status },
}

/// Where a whole payload lies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload {
    /// That many bytes at the end of the frame.
    Frame(usize),
    /// In the reassembly buffer.
    Reassembled,
}

/// The lengths a frame may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameLimit {
    max: u32,
    first: bool,
}

impl FrameLimit {
    pub(super) const fn check(self, length: u32) -> Result<(), u32> {
        if length < MIN_FRAME || length > self.max { Err(length) } else { Ok(()) }
    }

    /// The error for a length that [`check`](Self::check) refused.
    pub(super) fn error(self, length: u32, first: &[u8], offset: u64) -> ProtocolError {
        if length < MIN_FRAME {
            ProtocolError::FrameTooShort { length, offset }
        } else if self.first {
            ProtocolError::NotSpop { found: FirstBytes::of(first) }
        } else {
            ProtocolError::FrameTooBig { length, limit: self.max, offset }
        }
    }
}

impl Core {
    pub(super) fn new(
        config: AgentConfig,
        peer: Peer,
        phase: Phase,
        phase_ends: Option<Instant>,
        now: Instant,
    ) -> Self {
        Self {
            reassembly: Reassembly::default(),
            tx: Tx::new(config, SERIAL.fetch_add(1, Ordering::Relaxed), now),
            info: Arc::new(ConnectionInfo { peer, ..ConnectionInfo::default() }),
            control: Control {
                phase,
                draining: false,
                eof: false,
                was_blocked: false,
                ignored: 0,
                rare: None,
                window: Window::NONE,
                tells_of_cut: false,
                phase_ends,
                frame_ends: None,
                drain_ends: None,
                aged: false,
                unused: false,
            },
        }
    }

    /// Every call begins here: what the last event left open is settled.
    #[inline]
    pub(super) fn begin(&mut self, now: Instant) {
        self.tx.settle(now);
        self.reassembly.release();
    }

    pub(super) const fn takes_frames(&self) -> bool {
        matches!(self.control.phase, Phase::Hello | Phase::HelloOverLimit | Phase::Ready)
    }

    /// Whether reading has to wait: for the peer to take output, or for answers.
    #[inline]
    pub(super) fn blocked(&self) -> bool {
        let limits = self.tx.config.current_limits();
        self.tx.unsent() >= limits.output.get()
            || (limits.overload == Overload::Wait && (self.full() || self.waits_for_agent()))
    }

    fn full(&self) -> bool {
        let (owed, limits) = (&self.tx.in_flight, self.tx.config.current_limits());
        owed.len() >= limits.in_flight.get() || owed.bytes() >= limits.in_flight_bytes.get()
    }

    /// Only a connection that has something to read waits for its agent: one that is idle would not be
    /// told when to listen again.
    fn waits_for_agent(&self) -> bool {
        self.tx.in_flight.look_again().is_some() && self.tx.config.owes_all_it_may()
    }

    /// There is input: begins or ends to wait for the agent.
    #[inline]
    pub(super) fn look_at_agent(&mut self, now: Instant) {
        if self.tx.config.current_limits().overload == Overload::Wait {
            self.wait_for_agent_or_go_on(now);
        }
    }

    fn wait_for_agent_or_go_on(&mut self, now: Instant) {
        let Tx { in_flight, config, .. } = &mut self.tx;
        if self.control.phase == Phase::Ready && config.owes_all_it_may() {
            in_flight.wait_for_agent(config.owed(), now);
        } else if in_flight.look_again().is_some() {
            in_flight.go_on();
            self.control.was_blocked = true;
        }
    }

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
        self.tx.stats.frames += 1;
        self.tx.stats.notifies += 1;
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
        self.tx.stats.frames += 1;
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
                    message: goodbye.message.escape_ascii().to_string().into_boxed_str(),
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

    fn on_notify(
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

    fn on_unset(
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

    fn on_fragment(
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
                self.tx.stats.refused += 1;
                self.tx.abort(ids, now);
                Step::Abandoned(ids, AbandonedBy::Limit)
            }
            Fragment::Aborted => {
                self.tx.stats.aborted += 1;
                Step::Abandoned(ids, AbandonedBy::Haproxy)
            }
            Fragment::Kept | Fragment::Refused | Fragment::Unknown => Step::Skip,
        })
    }

    /// A payload is refused: HAProxy either sends its last fragment, because it had sent everything, or
    /// stops on the way. Then it never asks anything on this connection again.
    fn expect_end_of_fragments(&mut self, now: Instant) {
        let refusing = self.reassembly.is_refusing();
        self.control.phase_ends = now.checked_add(FRAGMENTS_END_AFTER).filter(|_| refusing);
    }

    /// A whole NOTIFY is checked to its last byte before anybody sees it, and shed if there are
    /// too many; other steps pass.
    #[inline]
    fn check_notify(
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
        self.tx.stats.notifies += 1;
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
    fn agent_sheds(&self) -> bool {
        let config = &self.tx.config;
        config.current_limits().overload == Overload::Shed && config.owes_all_it_may()
    }

    /// HAProxy <= 3.0 asks with the same ids again after its timeout: an answer to the first
    /// question would be taken for one to the second.
    fn supersede(&mut self, ids: Ids) {
        if self.tx.in_flight.is_empty() {
            return;
        }
        if let Some(key) = self.tx.in_flight.find(ids) {
            self.tx.in_flight.remove(key);
            self.tx.stats.superseded += 1;
        }
    }

    fn ignore(&mut self) -> Result<Step, ProtocolError> {
        self.tx.stats.ignored += 1;
        self.control.ignored += 1;
        let limit = self.tx.config.current_limits().ignored_frames.get();
        if self.control.ignored > limit {
            return Err(ProtocolError::TooManyIgnored { limit });
        }
        Ok(Step::Skip)
    }

    // The ways to end.

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

    fn drain(&mut self, now: Instant) {
        if !self.control.draining {
            let drain = self.tx.config.current_limits().drain;
            self.control.draining = true;
            self.control.drain_ends = now.checked_add(drain);
        }
    }

    /// Past half of the time to drain nothing new is begun, or a busy connection would never come
    /// to a moment at which nothing is owed.
    fn has_drained_long(&self, now: Instant) -> bool {
        if !self.control.draining {
            return false;
        }
        let half = self.tx.config.current_limits().drain / 2;
        self.control.drain_ends.is_some_and(|ends| ends.saturating_duration_since(now) < half)
    }

    fn drained(&self, pending: bool) -> bool {
        let leaving = self.control.draining || (self.control.aged && self.tx.unsent() > 0);
        leaving && self.owes_nothing(pending)
    }

    fn owes_nothing(&self, pending: bool) -> bool {
        self.control.phase == Phase::Ready
            && !pending
            && self.tx.in_flight.is_empty()
            && self.reassembly.open().is_none()
    }

    /// Too old: leaves with the next answers, or when it is asked nothing for a while. HAProxy goes on
    /// asking on a connection until it has read the goodbye; right after an answer it is the least
    /// likely to have done so.
    fn leave_when_quiet(&mut self, pending: bool, now: Instant) {
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

    fn say_goodbye(&mut self, now: Instant) {
        let (reason, message) = match (self.control.unused, self.control.draining) {
            (true, _) => (CloseReason::Unused, "a payload was refused"),
            (false, true) => (CloseReason::Drained, "the agent is stopping"),
            (false, false) => (CloseReason::Aged, "the connection is old"),
        };
        self.ending(reason);
        self.goodbye(Status::NORMAL, message, now);
    }

    /// Writes the AGENT-DISCONNECT.
    fn goodbye(&mut self, status: Status, message: &str, now: Instant) {
        self.abandon();
        self.tx.disconnect(status, message, now);
        self.enter_closing(now, self.tx.config.current_limits().close);
    }

    fn abandon(&mut self) {
        self.tx.stats.abandoned += u64::from(self.tx.in_flight.clear());
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
    fn finish(&mut self) {
        if self.is_closing() && self.control.eof && self.tx.unsent() == 0 {
            self.end();
        }
    }

    fn end(&mut self) {
        self.control.phase = Phase::Done;
        self.tx.discard();
    }

    // Output, time and memory.

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
        let control = &self.control;
        if control.phase == Phase::Done {
            return Interest {
                read: false,
                write: false,
                ready: false,
                deadline: None,
                done: true,
            };
        }
        let blocked = self.blocked();
        let waiting = self.takes_frames() && !blocked && rx.has_unseen();
        Interest {
            read: !(control.eof || (blocked && self.takes_frames())),
            write: self.tx.has_output(),
            ready: waiting || control.tells_of_cut || self.drained(rx.has_pending()),
            deadline: self.deadline(rx.capacity()),
            done: false,
        }
    }

    fn deadline(&self, held: usize) -> Option<Instant> {
        let control = &self.control;
        let late = self.tx.in_flight.oldest().and_then(|(_, _, deadline)| deadline);
        let stall = self.tx.stall_deadline();
        let all = [
            control.phase_ends,
            control.frame_ends,
            self.reassembly.ends(),
            control.drain_ends,
            self.idle_ends(),
            self.trim_at(held),
            late,
            stall,
            self.tx.release_at(),
            self.tx.in_flight.look_again(),
        ];
        all.into_iter().flatten().min()
    }

    fn idle_ends(&self) -> Option<Instant> {
        let idle = self.tx.config.current_limits().idle?;
        if self.control.phase == Phase::Ready { self.tx.active().checked_add(idle) } else { None }
    }

    /// When buffers are given back, if there are any.
    fn trim_at(&self, held: usize) -> Option<Instant> {
        if held + self.capacity() == 0 {
            return None;
        }
        let tries = self.tx.trims.saturating_add(1);
        self.tx.active().checked_add(TRIM_AFTER.saturating_mul(tries))
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
    fn restart_frame_clocks(&mut self, now: Instant) {
        let next = now.checked_add(self.tx.config.current_limits().frame);
        if self.control.frame_ends.is_some() {
            self.control.frame_ends = next;
        }
        self.reassembly.expect_next_by(next);
    }

    /// The time for the peer's close counts from the last byte it took.
    fn end_if_flushed(&mut self, now: Instant) {
        let unsent = self.tx.unsent() > 0;
        if self.control.eof || (!unsent && self.control.phase == Phase::Closing) {
            return self.end();
        }
        self.control.phase = if unsent { Phase::Flushing } else { Phase::Closing };
        self.control.phase_ends = now.checked_add(self.tx.config.current_limits().close);
    }

    const fn is_closing(&self) -> bool {
        matches!(self.control.phase, Phase::Closing | Phase::Flushing)
    }

    /// The end of a connection whose peer did not take everything in time.
    fn lose_output(&mut self) {
        if self.tx.unsent() > 0 && self.control.reason() == Some(&CloseReason::Drained) {
            self.ending(CloseReason::Cut { owed: 0 });
        }
        self.end();
    }

    /// HAProxy says so when it gives a payload up; one that just stops is held no longer than a
    /// frame would be.
    fn refuse_unfinished_payload(&mut self, now: Instant) {
        if let Some(ids) = self.reassembly.refuse() {
            self.tx.stats.refused += 1;
            self.tx.abort(ids, now);
            self.expect_end_of_fragments(now);
        }
    }

    fn answer_late_ones(&mut self, now: Instant) {
        while let Some((key, ids, Some(deadline))) = self.tx.in_flight.oldest() {
            if deadline > now {
                break;
            }
            self.tx.in_flight.remove(key);
            self.tx.fall_back(ids, Cause::Deadline, now);
        }
    }

    fn leave_if_idle(&mut self, now: Instant) {
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
            let times = elapsed.as_millis() / TRIM_AFTER.as_millis();
            self.tx.trims = u32::try_from(times).unwrap_or(u32::MAX);
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
