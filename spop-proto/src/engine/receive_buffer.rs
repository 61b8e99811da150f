//! The buffer into which HAProxy >= 3.1 reads a connection, and what becomes of a connection whose
//! agent fills it.

use std::time::Instant;

/// Counts bytes only; they are kept where every connection keeps them.
#[derive(Debug, Default)]
pub(super) struct ReceiveBuffer {
    /// Its size. `None`: it cannot be filled.
    size: Option<usize>,
    /// Bytes that were there after the last look at them.
    seen: usize,
    /// Nothing is read before that time.
    stalled_until: Option<Instant>,
    wedged: bool,
}

/// What to do with the agent's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Look at them.
    Read,
    /// Leave them where they are.
    Wait,
    /// Nobody will ever look at them.
    Lost,
}

impl ReceiveBuffer {
    pub(super) fn new(size: Option<usize>) -> Self {
        Self { size, ..Self::default() }
    }

    pub(super) const fn is_wedged(&self) -> bool {
        self.wedged
    }

    pub(super) const fn stall_until(&mut self, time: Instant) {
        self.stalled_until = Some(time);
    }

    /// When reading goes on, if it does not now.
    pub(super) const fn stalled_until(&self) -> Option<Instant> {
        self.stalled_until
    }

    pub(super) fn end_stall(&mut self, now: Instant) {
        if self.stalled_until.is_some_and(|until| until <= now) {
            self.stalled_until = None;
        }
    }

    /// There are `bytes` that belong to no frame so far. More than after the last look means a read:
    /// all at once, as much as the buffer takes.
    pub(super) fn admit(&mut self, bytes: usize, now: Instant) -> Admission {
        self.end_stall(now);
        if self.wedged {
            return Admission::Lost;
        }
        if self.stalled_until.is_some() {
            return Admission::Wait;
        }
        if bytes > self.seen && self.size.is_some_and(|size| bytes >= size) {
            self.wedged = true;
            return Admission::Lost;
        }
        Admission::Read
    }

    /// That many are left.
    pub(super) const fn left(&mut self, bytes: usize) {
        self.seen = bytes;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a first instant to count from")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_read_that_fills_it_is_the_last() {
        let now = Instant::now();
        let mut buffer = ReceiveBuffer::new(Some(100));
        assert_eq!(buffer.admit(99, now), Admission::Read);
        // A frame of 60 bytes was taken out: 39 are left, which is no new read...
        buffer.left(39);
        assert_eq!(buffer.admit(39, now), Admission::Read);
        // ... and 60 more do not fill it, but 61 do.
        assert_eq!(buffer.admit(99, now), Admission::Read);
        buffer.left(39);
        assert_eq!(buffer.admit(100, now), Admission::Lost);
        assert!(buffer.is_wedged());
        assert_eq!(buffer.admit(0, now), Admission::Lost);
    }

    #[test]
    fn what_comes_during_a_stall_is_read_at_once() {
        let now = Instant::now();
        let mut buffer = ReceiveBuffer::new(Some(100));
        buffer.stall_until(now + Duration::from_millis(5));
        assert_eq!(buffer.admit(60, now), Admission::Wait);
        assert_eq!(buffer.admit(120, now), Admission::Wait);
        assert_eq!(buffer.admit(120, now + Duration::from_millis(5)), Admission::Lost);
    }

    #[test]
    fn without_a_size_it_cannot_be_filled() {
        let mut buffer = ReceiveBuffer::new(None);
        assert_eq!(buffer.admit(usize::MAX, Instant::now()), Admission::Read);
    }
}
