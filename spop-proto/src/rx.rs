//! Framing by hand: whole frames where they lie, and the one that straddles two reads.

use crate::wire::LENGTH_BYTES;

/// [`LENGTH_BYTES`], where lengths of frames are counted in 32 bits.
const LENGTH_FIELD: u32 = 4;

/// Where the frame found last lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Located<'i> {
    /// In the caller's input.
    Input(&'i [u8]),
    /// In [`Rx`]'s own buffer, until the next call.
    Buffer,
}

/// Cuts a stream into frames. Copies only the frame that is not whole in the caller's input, and
/// grows by the bytes that arrived, never by a length that a peer announced.
#[derive(Debug, Default)]
pub(crate) struct Rx {
    /// `kept[at..]` is input that was not handed out yet.
    kept: Vec<u8>,
    at: usize,
    /// Place in the stream where the frame found last, or looked for, begins.
    offset: u64,
    /// Length of the frame handed out last, its length field included; 0 once it is done with.
    current: u32,
    /// Whether that frame lies in `kept`.
    lent: bool,
    /// Whether bytes were kept that nobody has looked for a frame in.
    unseen: bool,
}

impl Rx {
    /// Finds the next frame. `limit` sees the length as soon as its four bytes are there.
    pub(crate) fn locate<'i, E>(
        &mut self,
        input: &mut &'i [u8],
        limit: impl Fn(u32) -> Result<(), E>,
    ) -> Result<Option<Located<'i>>, E> {
        self.release();
        if self.at == self.kept.len() {
            self.kept.clear();
            self.at = 0;
            return self.locate_in(input, limit);
        }
        self.fill(LENGTH_BYTES, input);
        let Some(length) = length_of(self.pending()) else {
            self.unseen = false;
            return Ok(None);
        };
        limit(length)?;
        let whole = whole(length);
        self.fill(whole, input);
        if self.pending().len() < whole {
            self.unseen = false;
            return Ok(None);
        }
        self.lent = true;
        self.current = length.saturating_add(LENGTH_FIELD);
        Ok(Some(Located::Buffer))
    }

    /// The first frame in `input`, and what follows, if nothing is kept and it is all there. Nothing is
    /// taken before [`took`](Self::took).
    #[inline]
    pub(crate) fn whole_frame<'i>(
        &self,
        input: &'i [u8],
        max: u32,
    ) -> Option<(&'i [u8], &'i [u8])> {
        let (length, rest) = input.split_first_chunk::<LENGTH_BYTES>()?;
        let length = u32::from_be_bytes(*length);
        if length > max || !self.kept.is_empty() {
            return None;
        }
        rest.split_at_checked(usize::try_from(length).ok()?)
    }

    /// That frame was taken.
    #[inline]
    pub(crate) fn took(&mut self, frame: &[u8]) {
        self.release();
        self.current = u32::try_from(frame.len()).unwrap_or(u32::MAX).saturating_add(LENGTH_FIELD);
    }

    /// The usual case: nothing is kept, the frame lies in the input.
    fn locate_in<'i, E>(
        &mut self,
        input: &mut &'i [u8],
        limit: impl Fn(u32) -> Result<(), E>,
    ) -> Result<Option<Located<'i>>, E> {
        if let Some(length) = length_of(input) {
            limit(length)?;
            if let Some((frame, rest)) = input.split_at_checked(whole(length)) {
                *input = rest;
                self.current = length.saturating_add(LENGTH_FIELD);
                return Ok(frame.get(LENGTH_BYTES..).map(Located::Input));
            }
        }
        self.kept.extend_from_slice(input);
        *input = &[];
        self.unseen = false;
        Ok(None)
    }

    /// The frame that [`locate`](Self::locate) found, without its length field.
    pub(crate) fn frame<'a, 'i: 'a>(&'a self, located: Located<'i>) -> &'a [u8] {
        match located {
            Located::Input(frame) => frame,
            Located::Buffer => {
                let frame = self.pending().get(LENGTH_BYTES..self.current());
                frame.unwrap_or_default()
            }
        }
    }

    /// Keeps all of `input` for later, unseen.
    pub(crate) fn stash(&mut self, input: &mut &[u8]) {
        self.release();
        self.unseen |= !input.is_empty() || self.has_pending();
        self.kept.extend_from_slice(input);
        *input = &[];
    }

    /// Forgets everything that was kept.
    pub(crate) fn clear(&mut self) {
        self.release();
        self.unseen = false;
        self.kept.clear();
        self.at = 0;
    }

    /// Whether bytes are kept that belong to no frame handed out so far.
    pub(crate) fn has_pending(&self) -> bool {
        self.unread() > 0
    }

    /// Whether nothing is kept, and nobody was told that something is.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty() && !self.unseen
    }

    /// How many these are.
    pub(crate) fn unread(&self) -> usize {
        self.pending().len().saturating_sub(if self.lent { self.current() } else { 0 })
    }

    /// Whether bytes are kept that nobody has looked for a frame in.
    pub(crate) const fn has_unseen(&self) -> bool {
        self.unseen
    }

    /// Where the frame found last, or looked for, begins in the stream.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes at the place where a frame is looked for: kept ones first, then `input`.
    pub(crate) fn peek<const N: usize>(&self, input: &[u8]) -> ([u8; N], usize) {
        let mut bytes = [0; N];
        let mut len = 0;
        for (slot, &byte) in bytes.iter_mut().zip(self.pending().iter().chain(input)) {
            *slot = byte;
            len += 1;
        }
        (bytes, len)
    }

    /// Memory held.
    pub(crate) const fn capacity(&self) -> usize {
        self.kept.capacity()
    }

    /// Gives memory back if nothing is kept.
    pub(crate) fn trim(&mut self) {
        self.release();
        if self.at == self.kept.len() {
            *self = Self { offset: self.offset, ..Self::default() };
        }
    }

    fn current(&self) -> usize {
        usize::try_from(self.current).unwrap_or(usize::MAX)
    }

    fn pending(&self) -> &[u8] {
        self.kept.get(self.at..).unwrap_or_default()
    }

    /// Lets go of the frame handed out last.
    fn release(&mut self) {
        if core::mem::take(&mut self.lent) {
            self.at += self.current();
        }
        self.offset += u64::from(self.current);
        self.current = 0;
    }

    /// Takes from `input` until `target` bytes are pending, or it is empty.
    fn fill(&mut self, target: usize, input: &mut &[u8]) {
        let missing = target.saturating_sub(self.pending().len()).min(input.len());
        if missing == 0 {
            return;
        }
        if self.at > 0 {
            self.kept.drain(..self.at);
            self.at = 0;
        }
        if let Some((taken, rest)) = input.split_at_checked(missing) {
            self.kept.extend_from_slice(taken);
            *input = rest;
        }
    }
}

fn length_of(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<LENGTH_BYTES>().map(|length| u32::from_be_bytes(*length))
}

/// A frame's bytes with its length field; saturates where `usize` has 32 bits, and no input is that
/// long there.
fn whole(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX).saturating_add(LENGTH_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = &[0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 1, 9];

    fn any(_: u32) -> Result<(), ()> {
        Ok(())
    }

    fn frames(chunks: &[&[u8]]) -> Vec<(u64, Vec<u8>)> {
        let mut rx = Rx::default();
        let mut found = Vec::new();
        for chunk in chunks {
            let mut input = *chunk;
            while let Some(located) = rx.locate(&mut input, any).unwrap() {
                found.push((rx.offset(), rx.frame(located).to_vec()));
            }
            assert!(input.is_empty());
        }
        found
    }

    #[test]
    fn any_cut_gives_the_same_frames() {
        let expected = [(0, vec![1, 2, 3]), (7, vec![]), (11, vec![9])];
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let chunks = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                assert_eq!(frames(&chunks), expected, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_whole_frame_is_not_copied() {
        let mut rx = Rx::default();
        let mut input = STREAM;
        let located = rx.locate(&mut input, any).unwrap().unwrap();
        assert!(matches!(located, Located::Input(_)));
        assert_eq!(rx.capacity(), 0);
    }

    #[test]
    fn the_length_is_judged_before_the_body_arrives() {
        let mut rx = Rx::default();
        let refuse = |length| if length > 10 { Err(length) } else { Ok(()) };
        let mut input = &[0xff, 0xff][..];
        assert!(rx.locate(&mut input, refuse).unwrap().is_none());
        let mut input = &[0xff, 0xff][..];
        assert_eq!(rx.locate(&mut input, refuse).unwrap_err(), u32::MAX);
        assert!(rx.capacity() < 64);
    }

    #[test]
    fn stashed_frames_come_back_in_order() {
        let mut rx = Rx::default();
        let mut input = &STREAM[..9];
        rx.stash(&mut input);
        assert!(rx.has_unseen());
        let mut rest = &STREAM[9..];
        rx.stash(&mut rest);
        let mut none = &[][..];
        let mut found = Vec::new();
        while let Some(located) = rx.locate(&mut none, any).unwrap() {
            found.push(rx.frame(located).to_vec());
        }
        assert_eq!(found, [vec![1, 2, 3], vec![], vec![9]]);
        assert!(!rx.has_unseen());
        assert!(!rx.has_pending());
        rx.trim();
        assert_eq!(rx.capacity(), 0);
    }
}
