//! Payloads that arrive in fragments: HAProxy <= 3.0, one at a time on a connection.

use crate::inflight::Ids;

#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    payload: Vec<u8>,
    open: Option<Ids>,
    /// The payload refused last: HAProxy may have sent any number of further fragments before it
    /// reads the refusal, and ends them without a last one.
    refused: Option<Ids>,
    /// Set while `payload` is whole and lent to an event.
    whole: bool,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragment {
    /// More are to come.
    Kept,
    /// The payload is whole.
    Whole,
    /// The payload exceeds the limit and was dropped: refuse it.
    TooBig,
    /// HAProxy gave the payload up.
    Aborted,
    /// Belongs to the payload refused last.
    Refused,
    /// Belongs to nothing.
    Unknown,
}

impl Reassembly {
    /// The payload whose fragments are arriving.
    pub(crate) const fn open(&self) -> Option<Ids> {
        self.open
    }

    /// A NOTIFY came: nothing of an earlier payload with these ids counts any more.
    pub(crate) fn forget(&mut self, ids: Ids) {
        if self.open == Some(ids) {
            self.open = None;
            self.payload.clear();
        }
        if self.refused == Some(ids) {
            self.refused = None;
        }
    }

    /// The first fragment.
    pub(crate) fn start(&mut self, ids: Ids, data: &[u8], limit: usize) -> Fragment {
        self.payload.clear();
        self.open = Some(ids);
        self.append(ids, data, limit)
    }

    /// A further one.
    pub(crate) fn next(
        &mut self,
        ids: Ids,
        data: &[u8],
        (fin, abort): (bool, bool),
        limit: usize,
    ) -> Fragment {
        if self.open != Some(ids) {
            if self.refused != Some(ids) {
                return Fragment::Unknown;
            }
            if fin {
                self.refused = None;
            }
            return Fragment::Refused;
        }
        if abort {
            self.open = None;
            self.payload.clear();
            return Fragment::Aborted;
        }
        match self.append(ids, data, limit) {
            Fragment::Kept if fin => {
                self.open = None;
                self.whole = true;
                Fragment::Whole
            }
            Fragment::TooBig if fin => {
                // That was the last one: no more will come.
                self.refused = None;
                Fragment::TooBig
            }
            other => other,
        }
    }

    fn append(&mut self, ids: Ids, data: &[u8], limit: usize) -> Fragment {
        if self.payload.len().saturating_add(data.len()) > limit {
            self.open = None;
            self.refused = Some(ids);
            self.payload = Vec::new();
            return Fragment::TooBig;
        }
        self.payload.extend_from_slice(data);
        Fragment::Kept
    }

    /// The whole payload, until [`release`](Self::release).
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Lets go of a whole payload.
    #[inline]
    pub(crate) fn release(&mut self) {
        if self.whole {
            self.whole = false;
            self.payload.clear();
        }
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.payload.capacity()
    }

    pub(crate) fn trim(&mut self) {
        self.release();
        if self.payload.is_empty() {
            self.payload = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ids = Ids { stream: 0, frame: 1 };
    const B: Ids = Ids { stream: 2, frame: 1 };
    const MORE: (bool, bool) = (false, false);
    const FIN: (bool, bool) = (true, false);

    #[test]
    fn concatenates() {
        let mut all = Reassembly::default();
        assert_eq!(all.start(A, b"ab", 10), Fragment::Kept);
        assert_eq!(all.next(B, b"zz", MORE, 10), Fragment::Unknown);
        assert_eq!(all.next(A, b"cd", MORE, 10), Fragment::Kept);
        assert_eq!(all.next(A, b"", FIN, 10), Fragment::Whole);
        assert_eq!(all.payload(), b"abcd");
        assert_eq!(all.open(), None);
        all.release();
        assert_eq!(all.payload(), b"");
    }

    #[test]
    fn a_payload_over_the_limit_is_dropped_and_its_rest_skipped() {
        let mut all = Reassembly::default();
        assert_eq!(all.start(A, b"abcd", 5), Fragment::Kept);
        assert_eq!(all.next(A, b"ef", MORE, 5), Fragment::TooBig);
        assert_eq!(all.capacity(), 0);
        for _ in 0..1000 {
            assert_eq!(all.next(A, b"gh", MORE, 5), Fragment::Refused);
        }
        assert_eq!(all.next(A, b"", FIN, 5), Fragment::Refused);
        assert_eq!(all.next(A, b"", FIN, 5), Fragment::Unknown);
        assert_eq!(all.start(B, b"abcdef", 5), Fragment::TooBig);
    }

    #[test]
    fn given_up_by_haproxy() {
        let mut all = Reassembly::default();
        all.start(A, b"abcd", 5);
        assert_eq!(all.next(A, b"", (true, true), 5), Fragment::Aborted);
        assert_eq!(all.next(A, b"", FIN, 5), Fragment::Unknown);
    }

    #[test]
    fn a_new_notify_of_the_same_ids_starts_afresh() {
        let mut all = Reassembly::default();
        all.start(A, b"abcd", 5);
        all.forget(A);
        assert_eq!(all.open(), None);
        assert_eq!(all.start(A, b"xy", 5), Fragment::Kept);
        assert_eq!(all.next(A, b"", FIN, 5), Fragment::Whole);
        assert_eq!(all.payload(), b"xy");
    }
}
