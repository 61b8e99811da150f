//! Frames that the driver has not taken yet.

use crate::Status;
use crate::wire::{Disconnect, Flags, FrameHeader, FrameStart, FrameType, HaproxyHello};

#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    /// `bytes[..sent]` was taken by the driver.
    sent: usize,
}

impl Output {
    pub(super) fn transmit(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    pub(super) const fn unsent(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(super) fn transmitted(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes).min(self.bytes.len());
        // As on the agent's side: a peer that always leaves a little must not make it grow.
        if self.sent >= self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Puts an empty buffer in place of the output, which the caller gets.
    pub(super) fn swap(&mut self, other: &mut Vec<u8>) {
        other.clear();
        self.bytes.drain(..self.sent);
        core::mem::swap(&mut self.bytes, other);
        self.sent = 0;
    }

    /// Drops output that nobody will take.
    pub(super) fn discard(&mut self) {
        *self = Self::default();
    }

    pub(super) fn hello(&mut self, hello: &HaproxyHello<'_>) {
        let header = FrameHeader::connection(FrameType::HAPROXY_HELLO);
        let start = FrameStart::write(header, &mut self.bytes);
        hello.encode(&mut self.bytes);
        start.finish(&mut self.bytes);
    }

    pub(super) fn disconnect(&mut self, status: Status, message: &str) {
        let header = FrameHeader::connection(FrameType::HAPROXY_DISCONNECT);
        let start = FrameStart::write(header, &mut self.bytes);
        Disconnect { status, message: message.as_bytes() }.encode(&mut self.bytes);
        start.finish(&mut self.bytes);
    }

    /// A NOTIFY, or a fragment of one.
    pub(super) fn payload(
        &mut self,
        kind: FrameType,
        flags: Flags,
        (stream_id, frame_id): (u64, u64),
        payload: &[u8],
    ) {
        let header = FrameHeader { kind, flags, stream_id, frame_id };
        let start = FrameStart::write(header, &mut self.bytes);
        self.bytes.extend_from_slice(payload);
        start.finish(&mut self.bytes);
    }
}
