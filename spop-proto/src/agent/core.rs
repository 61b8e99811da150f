//! The state of the agent's side: phases, and what there is to wait for. What frames mean is in `frames`, the
//! ways to end in `ending`, deadlines in `time`.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Instant;

use super::{AbandonedBy, CloseReason};
use crate::cut::{self, MaybeCut, Window};
use crate::error::{FirstBytes, ProtocolError};
use crate::inflight::Ids;
use crate::info::{ConnectionInfo, Peer};
use crate::reassembly::Reassembly;
use crate::tx::Tx;
use crate::wire::MIN_FRAME;
use crate::{AgentConfig, Overload, Status};

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
    pub(super) draining: bool,
    /// The peer sends nothing more.
    pub(super) eof: bool,
    /// Reading had to wait since the clock of a frame was set: that time was not the peer's.
    pub(super) was_blocked: bool,
    /// Frames skipped since the last one that meant something.
    pub(super) ignored: u32,
    /// Boxed, like the reassembly: an idle connection is little else than its state.
    pub(super) rare: Option<Box<Rare>>,
    /// How long a payload is that may hold a body that was cut, and whether one is to be told of.
    pub(super) window: Window,
    pub(super) tells_of_cut: bool,
    /// End of the phase: the HELLO's deadline, or that of the peer's close. While answering: when HAProxy
    /// has stopped in the middle of a refused payload, if no more of it comes.
    pub(super) phase_ends: Option<Instant>,
    pub(super) frame_ends: Option<Instant>,
    /// End of the drain; before that, when the connection is too old, or is to be looked at once more
    /// because it is.
    pub(super) drain_ends: Option<Instant>,
    /// It is too old, and leaves with the next answers.
    pub(super) aged: bool,
    /// HAProxy has stopped in the middle of a refused payload.
    pub(super) unused: bool,
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
    pub(super) max: u32,
    pub(super) first: bool,
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

    pub(super) fn full(&self) -> bool {
        let (owed, limits) = (&self.tx.in_flight, self.tx.config.current_limits());
        owed.len() >= limits.in_flight.get() || owed.bytes() >= limits.in_flight_bytes.get()
    }

    /// Only a connection that has something to read waits for its agent: one that is idle would not be
    /// told when to listen again.
    pub(super) fn waits_for_agent(&self) -> bool {
        self.tx.in_flight.look_again().is_some() && self.tx.config.owes_all_it_may()
    }

    /// There is input: begins or ends to wait for the agent.
    #[inline]
    pub(super) fn look_at_agent(&mut self, now: Instant) {
        if self.tx.config.current_limits().overload == Overload::Wait {
            self.wait_for_agent_or_go_on(now);
        }
    }

    pub(super) fn wait_for_agent_or_go_on(&mut self, now: Instant) {
        let Tx { in_flight, config, .. } = &mut self.tx;
        if self.control.phase == Phase::Ready && config.owes_all_it_may() {
            in_flight.wait_for_agent(config.owed(), now);
        } else if in_flight.look_again().is_some() {
            in_flight.go_on();
            self.control.was_blocked = true;
        }
    }
}
