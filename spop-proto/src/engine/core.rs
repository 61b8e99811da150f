//! Everything of HAProxy's side but the framing: phases, deadlines, what each frame means.

use core::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::asking::{Fragments, send_new};
use super::config::{Dialect, EngineConfig};
use super::output::Output;
use super::streams::{NotifyId, StreamError, Streams};
use super::{CheckFailure, EngineCloseReason};
use crate::Status;
use crate::error::{FirstBytes, Part, ProtocolError, When};
use crate::inflight::Ids;
use crate::info::ConnectionInfo;
use crate::wire::{Capabilities, Frame, FrameHeader, FrameType, HaproxyHello, MIN_FRAME};

/// Tells connections apart, so that no id is taken for one of another.
static SERIAL: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for AGENT-HELLO.
    Hello,
    /// Asking.
    Ready,
    /// HAPROXY-DISCONNECT is in the output: waiting for AGENT-DISCONNECT or the end of the stream.
    Closing,
    /// HAPROXY-DISCONNECT is in the output, and nothing is waited for.
    Flushing,
    /// Nothing is sent and nothing read; the streams wait for their time to be up.
    Dead,
    /// Over.
    Done,
}

/// The agent's fault, by where it lies: that decides who is told.
#[derive(Debug)]
pub(super) enum Fault {
    /// In the payload of an AGENT-HELLO.
    Hello(ProtocolError),
    /// In another part of a frame.
    Frame(ProtocolError),
    /// In its length: nothing that follows can be read.
    Length(ProtocolError),
}

impl Fault {
    pub(super) fn into_error(self) -> ProtocolError {
        match self {
            Self::Hello(error) | Self::Frame(error) | Self::Length(error) => error,
        }
    }
}

/// What a frame amounted to.
#[derive(Debug)]
pub(super) enum Step {
    Skip,
    Hello,
    HealthCheck(Result<(), CheckFailure>),
    /// The actions are that many bytes at the end of the frame.
    Ack {
        id: NotifyId,
        ids: Ids,
        actions: usize,
    },
    Disconnected {
        status: Status,
    },
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: EngineConfig,
    pub(super) phase: Phase,
    pub(super) info: ConnectionInfo,
    /// What the agent says of itself.
    pub(super) description: Option<Box<[u8]>>,
    pub(super) out: Output,
    pub(super) streams: Streams,
    pub(super) reason: Option<EngineCloseReason>,
    /// NOTIFYs that may be in flight.
    pub(super) limit: u32,
    pub(super) next_stream: u64,
    pub(super) fragments: Option<Fragments>,
    /// The verdict of a health check that got no answer.
    pub(super) check: Option<CheckFailure>,
    pub(super) draining: bool,
    /// End of the phase.
    pub(super) phase_ends: Option<Instant>,
    pub(super) idle_ends: Option<Instant>,
}

impl Core {
    pub(super) fn new(config: EngineConfig, now: Instant) -> Self {
        let max_frame_size = config.offered_max_frame_size();
        let offered = config.offered_capabilities();
        let info = ConnectionInfo {
            engine_id: (!config.health_check).then(|| config.engine_id.clone()),
            offered,
            offered_max_frame_size: u64::from(max_frame_size),
            max_frame_size,
            ..ConnectionInfo::default()
        };
        let mut out = Output::default();
        out.hello(&HaproxyHello {
            supported_versions: Some(b"2.0"),
            max_frame_size: Some(u64::from(max_frame_size)),
            capabilities: Some(offered.as_str().as_bytes()),
            engine_id: info.engine_id.as_deref(),
            healthcheck: config.health_check,
            describe: config.describe,
        });
        Self {
            phase: Phase::Hello,
            info,
            description: None,
            out,
            streams: Streams::new(SERIAL.fetch_add(1, Ordering::Relaxed)),
            reason: None,
            limit: config.window.get(),
            next_stream: match config.dialect {
                Dialect::Old => config.first_stream_id,
                Dialect::New => 1,
            },
            fragments: None,
            check: None,
            draining: false,
            phase_ends: config.hello.and_then(|hello| now.checked_add(hello)),
            idle_ends: None,
            config,
        }
    }

    pub(super) const fn is_old(&self) -> bool {
        matches!(self.config.dialect, Dialect::Old)
    }

    pub(super) const fn takes_frames(&self) -> bool {
        matches!(self.phase, Phase::Hello | Phase::Ready | Phase::Closing)
    }

    // The agent's frames.

    pub(super) fn check_length(&self, length: u32) -> Result<(), u32> {
        let fits = (MIN_FRAME..=self.info.max_frame_size).contains(&length);
        if fits { Ok(()) } else { Err(length) }
    }

    /// A length that [`check_length`](Self::check_length) refused; `first` is what the frame
    /// begins with.
    pub(super) fn on_bad_length(
        &mut self,
        length: u32,
        first: &[u8],
        offset: u64,
        now: Instant,
    ) -> Result<Step, ProtocolError> {
        if self.config.health_check {
            let short = length < MIN_FRAME;
            let status = if short { Status::INVALID_FRAME } else { Status::FRAME_TOO_BIG };
            return Ok(self.end_check(Err(status)));
        }
        let found = FirstBytes::of(first);
        let foreign = self.phase == Phase::Hello && !matches!(found, FirstBytes::Length(_));
        let error = if length < MIN_FRAME {
            ProtocolError::FrameTooShort { length, offset }
        } else if foreign {
            ProtocolError::NotSpop { found }
        } else {
            ProtocolError::FrameTooBig { length, limit: self.info.max_frame_size, offset }
        };
        Err(self.fail(Fault::Length(error), now))
    }

    pub(super) fn on_frame(
        &mut self,
        bytes: &[u8],
        offset: u64,
        now: Instant,
    ) -> Result<Step, ProtocolError> {
        let step = match (Frame::decode(bytes), self.config.dialect, self.phase) {
            (Ok(frame), _, _) if self.config.health_check => Ok(self.on_check(&frame, offset)),
            (Ok(frame), Dialect::Old, Phase::Hello)
                if frame.header.kind == FrameType::AGENT_DISCONNECT =>
            {
                self.wait_for_goodbye(now);
                self.on_goodbye_old(&frame)
            }
            (Ok(frame), _, Phase::Hello) => self.on_hello(&frame, offset),
            (Ok(frame), Dialect::Old, Phase::Closing) => match frame.header.kind {
                FrameType::AGENT_DISCONNECT => self.on_goodbye_old(&frame),
                _ => Ok(Step::Skip),
            },
            (Ok(frame), Dialect::New, Phase::Closing) => match frame.header.kind {
                FrameType::AGENT_DISCONNECT => {
                    Ok(self.on_goodbye_new(&frame).unwrap_or(Step::Skip))
                }
                _ => Ok(Step::Skip),
            },
            (Ok(frame), Dialect::Old, _) => self.on_frame_old(&frame, now),
            (Ok(frame), Dialect::New, _) => self.on_frame_new(&frame, offset),
            (Err(_), ..) if self.config.health_check => {
                Ok(self.end_check(Err(Status::INVALID_FRAME)))
            }
            // It skips what it cannot read.
            (Err(_), Dialect::Old, Phase::Ready | Phase::Closing) => Ok(Step::Skip),
            (Err(error), ..) => {
                let part = Part::Header;
                Err(Fault::Frame(ProtocolError::Malformed { part, error, offset }))
            }
        };
        match step {
            Ok(step) => {
                self.after_frame(&step, now);
                Ok(step)
            }
            Err(fault) => Err(self.fail(fault, now)),
        }
    }

    fn after_frame(&mut self, step: &Step, now: Instant) {
        if self.phase == Phase::Hello && matches!(step, Step::Hello) {
            self.phase = Phase::Ready;
            self.phase_ends = None;
            let Self { out, next_stream, info, streams, .. } = self;
            streams.send_queued(|payload| send_new(out, next_stream, info.max_frame_size, payload));
        }
        if self.phase == Phase::Ready {
            self.arm_idle(now);
        }
        self.settle(now);
    }

    fn on_frame_old(&mut self, frame: &Frame<'_>, now: Instant) -> Result<Step, Fault> {
        let FrameHeader { kind, flags, stream_id, frame_id } = frame.header;
        match kind {
            FrameType::AGENT_DISCONNECT => {
                self.wait_for_goodbye(now);
                return self.on_goodbye_old(frame);
            }
            FrameType::ACK => {}
            _ => return Ok(Step::Skip),
        }
        if !flags.fin() {
            return Err(Fault::Frame(ProtocolError::FragmentationUnsupported {
                stream_id,
                frame_id,
            }));
        }
        let ids = Ids { stream: stream_id, frame: frame_id };
        if let Some(id) = self.streams.take_acked(ids) {
            return Ok(Step::Ack { id, ids, actions: frame.payload.len() });
        }
        if self.fragments.as_ref().is_some_and(|open| open.ids == ids) {
            if flags.abort() {
                // It stops without a last fragment.
                self.fragments = None;
                self.streams.fail_fragmented(StreamError::FRAGMENT_ABORTED);
            }
            return Ok(Step::Skip);
        }
        if !self.pipelines() && self.streams.has_sent() {
            return Err(Fault::Frame(ProtocolError::UnknownAck { stream_id, frame_id }));
        }
        Ok(Step::Skip)
    }

    fn on_frame_new(&mut self, frame: &Frame<'_>, offset: u64) -> Result<Step, Fault> {
        let FrameHeader { kind, flags, stream_id, frame_id } = frame.header;
        let unexpected = ProtocolError::Unexpected { frame: kind, when: When::AfterHello };
        let unknown = ProtocolError::UnknownAck { stream_id, frame_id };
        if !flags.fin() {
            let error = ProtocolError::FragmentationUnsupported { stream_id, frame_id };
            return Err(Fault::Frame(error));
        }
        if stream_id == 0 {
            return match kind {
                FrameType::AGENT_HELLO if frame_id == 0 => {
                    self.negotiate(frame.payload, offset).map_err(Fault::Hello)?;
                    Ok(Step::Hello)
                }
                FrameType::AGENT_DISCONNECT => {
                    self.on_goodbye_new(frame).ok_or(Fault::Frame(unexpected))
                }
                FrameType::ACK => Err(Fault::Frame(unknown)),
                _ => Err(Fault::Frame(unexpected)),
            };
        }
        // The last id in use is two below the next one.
        if frame_id == 0 || stream_id >= self.next_stream.saturating_sub(1) {
            return Err(Fault::Frame(unknown));
        }
        if !self.streams.has_stream(stream_id) {
            return Ok(Step::Skip);
        }
        match kind {
            _ if frame_id > 1 => Err(Fault::Frame(unknown)),
            FrameType::ACK => {
                let ids = Ids { stream: stream_id, frame: frame_id };
                let Some(id) = self.streams.take_acked(ids) else { return Ok(Step::Skip) };
                Ok(Step::Ack { id, ids, actions: frame.payload.len() })
            }
            FrameType::AGENT_HELLO | FrameType::AGENT_DISCONNECT => Err(Fault::Frame(unexpected)),
            _ => Ok(Step::Skip),
        }
    }

    const fn pipelines(&self) -> bool {
        let agreed = self.info.capabilities;
        agreed.contains(Capabilities::PIPELINING) || agreed.contains(Capabilities::ASYNC)
    }
}
