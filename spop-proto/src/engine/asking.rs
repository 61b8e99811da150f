//! NOTIFYs on their way out.

use std::time::Instant;

use super::config::Dialect;
use super::core::{Core, Phase};
use super::fragment::Cutter;
use super::output::Output;
use super::streams::{NotifyId, StreamError};
use super::{EngineCloseReason, NotifyError, Outcome};
use crate::Status;
use crate::inflight::Ids;
use crate::wire::{Capabilities, Flags, FrameType, varint_len};

/// What HAProxy keeps free in a frame for the header, whatever it takes.
const RESERVED_OLD: u32 = 32;
const RESERVED_NEW: u32 = 33;
/// Output that the agent has not taken: no more NOTIFYs beyond that.
const OUTPUT_MAX: usize = 1 << 20;

/// A payload whose fragments are going out. The next one is made when the last was taken, so that
/// the agent can stop them.
#[derive(Debug)]
pub(super) struct Fragments {
    pub(super) ids: Ids,
    payload: Vec<u8>,
    cutter: Cutter,
}

impl Core {
    fn accepts(&self) -> Result<(), NotifyError> {
        match self.phase {
            Phase::Hello | Phase::Ready if self.draining || self.config.health_check => {
                Err(NotifyError::Closed)
            }
            Phase::Hello if self.is_old() => Err(NotifyError::NotReady),
            Phase::Hello | Phase::Ready => Ok(()),
            Phase::Closing | Phase::Flushing | Phase::Dead | Phase::Done => {
                Err(NotifyError::Closed)
            }
        }
    }

    pub(super) fn window_left(&self) -> u32 {
        let stuck = self.fragments.is_some() || self.out.unsent() >= OUTPUT_MAX;
        if stuck || self.accepts().is_err() {
            return 0;
        }
        let held = u32::try_from(self.streams.held()).unwrap_or(u32::MAX);
        self.limit.saturating_sub(held)
    }

    pub(super) fn notify(
        &mut self,
        previous: Option<(NotifyId, Outcome)>,
        payload: &[u8],
        now: Instant,
    ) -> Result<NotifyId, NotifyError> {
        self.accepts()?;
        let deadline = now.checked_add(self.config.processing);
        match self.config.dialect {
            Dialect::Old => self.notify_old(previous, payload, deadline, now),
            Dialect::New => self.notify_new(payload, deadline, now),
        }
    }

    fn notify_old(
        &mut self,
        previous: Option<(NotifyId, Outcome)>,
        payload: &[u8],
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<NotifyId, NotifyError> {
        let room = usize::try_from(self.info.max_frame_size - RESERVED_OLD).unwrap_or(usize::MAX);
        let whole = Cutter::fits(payload, room);
        if !whole && !self.config.send_frag_payload {
            return Err(NotifyError::TooBig { error: StreamError::TOO_BIG });
        }
        if self.window_left() == 0 {
            return Err(NotifyError::Window);
        }
        let ids = match previous {
            None => Ids { stream: self.next_stream, frame: 1 },
            Some((id, outcome)) => {
                let step = u64::from(outcome == Outcome::Acked);
                Ids { stream: id.stream, frame: id.frame.wrapping_add(step) }
            }
        };
        if self.streams.has(ids) {
            return Err(NotifyError::InFlight);
        }
        if !whole && !self.info.capabilities.contains(Capabilities::FRAGMENTATION) {
            let status = Status::FRAGMENTATION_UNSUPPORTED;
            self.reason = Some(EngineCloseReason::Fragmentation);
            self.disconnect(status, status.text().unwrap_or_default(), now);
            return Err(NotifyError::NoFragmentation);
        }
        if previous.is_none() {
            self.next_stream = self.next_stream.wrapping_add(1);
        }
        self.arm_idle(now);
        if whole {
            self.out.payload(FrameType::NOTIFY, Flags::FIN, (ids.stream, ids.frame), payload);
            return Ok(self.streams.push_sent(ids, deadline));
        }
        let mut cutter = Cutter::new();
        let end = cutter.cut(payload, room);
        let first = payload.get(..end).unwrap_or_default();
        self.out.payload(FrameType::NOTIFY, Flags(0), (ids.stream, ids.frame), first);
        self.fragments = Some(Fragments { ids, payload: payload.to_vec(), cutter });
        Ok(self.streams.push_fragmented(ids, deadline))
    }

    fn notify_new(
        &mut self,
        payload: &[u8],
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<NotifyId, NotifyError> {
        let own = self.config.offered_max_frame_size() - RESERVED_NEW;
        if payload.len() > usize::try_from(own).unwrap_or(usize::MAX) {
            return Err(NotifyError::TooBig { error: StreamError::TOO_BIG });
        }
        if self.window_left() == 0 {
            return Err(NotifyError::Window);
        }
        if self.phase == Phase::Hello {
            return Ok(self.streams.push_queued(payload, deadline));
        }
        self.arm_idle(now);
        let max = self.info.max_frame_size;
        match send_new(&mut self.out, &mut self.next_stream, max, payload) {
            Ok(ids) => Ok(self.streams.push_sent(ids, deadline)),
            Err(error) => Err(NotifyError::TooBig { error }),
        }
    }

    /// The next fragment, if the last one was taken.
    pub(super) fn continue_fragments(&mut self) {
        let Some(fragments) = &mut self.fragments else { return };
        if self.out.unsent() > 0 {
            return;
        }
        let room = usize::try_from(self.info.max_frame_size - RESERVED_OLD).unwrap_or(usize::MAX);
        let Fragments { ids, payload, cutter } = fragments;
        let begin = cutter.at();
        let end = cutter.cut(payload, room);
        let last = end == payload.len();
        let flags = if last { Flags::FIN } else { Flags(0) };
        let part = payload.get(begin..end).unwrap_or_default();
        self.out.payload(FrameType::UNSET, flags, (ids.stream, ids.frame), part);
        if last {
            self.fragments = None;
            self.streams.fragments_sent();
        }
    }
}

/// Sends a NOTIFY of HAProxy >= 3.1. The stream-id is used up even if the agent's max-frame-size is
/// too small for it.
pub(super) fn send_new(
    out: &mut Output,
    next_stream: &mut u64,
    max_frame_size: u32,
    payload: &[u8],
) -> Result<Ids, StreamError> {
    let ids = Ids { stream: *next_stream, frame: 1 };
    *next_stream = next_stream.wrapping_add(2);
    let length = 5 + varint_len(ids.stream) + varint_len(ids.frame) + payload.len();
    if length > usize::try_from(max_frame_size).unwrap_or(usize::MAX) {
        return Err(StreamError::from_status(Status::FRAME_TOO_BIG));
    }
    out.payload(FrameType::NOTIFY, Flags::FIN, (ids.stream, ids.frame), payload);
    Ok(ids)
}
