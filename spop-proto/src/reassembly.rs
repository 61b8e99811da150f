//! Payloads that arrive in fragments: HAProxy <= 3.0, one at a time on a connection.

use std::time::Instant;

use crate::inflight::Ids;
use crate::stats::{Held, Stats};

/// Boxed at the first fragment: most connections never see one.
#[derive(Debug, Default)]
pub(crate) struct Reassembly(Option<Box<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    payload: Vec<u8>,
    open: Option<Ids>,
    /// The payload refused last: HAProxy may have sent any number of further fragments before it
    /// reads the refusal, and ends them without a last one.
    refused: Option<Ids>,
    /// Set while `payload` is whole and lent to an event.
    whole: bool,
    /// When the next fragment of the open payload has to be there.
    next_by: Option<Instant>,
    /// Tells the agent's counters how much of `payload` there is.
    held: Held,
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
    /// Whether there was no fragment so far.
    #[inline]
    pub(crate) const fn is_unused(&self) -> bool {
        self.0.is_none()
    }

    /// The payload whose fragments are arriving.
    pub(crate) fn open(&self) -> Option<Ids> {
        self.0.as_deref().and_then(|parts| parts.open)
    }

    /// A NOTIFY came: nothing of an earlier payload with these ids counts any more.
    #[inline]
    pub(crate) fn forget(&mut self, ids: Ids) {
        if let Some(parts) = &mut self.0 {
            parts.forget(ids);
            parts.count();
        }
    }

    /// The first fragment.
    pub(crate) fn start(
        &mut self,
        ids: Ids,
        data: &[u8],
        limit: usize,
        stats: Option<&Stats>,
    ) -> Fragment {
        let parts = self.0.get_or_insert_with(|| Box::new(Parts::counted_in(stats)));
        parts.payload.clear();
        parts.whole = false;
        parts.open = Some(ids);
        let fragment = parts.append(ids, data, limit);
        parts.count();
        fragment
    }

    /// A further one.
    pub(crate) fn next(
        &mut self,
        ids: Ids,
        data: &[u8],
        (fin, abort): (bool, bool),
        limit: usize,
    ) -> Fragment {
        match &mut self.0 {
            Some(parts) => {
                let fragment = parts.next(ids, data, (fin, abort), limit);
                parts.count();
                fragment
            }
            None => Fragment::Unknown,
        }
    }

    /// Sets the time of the next fragment.
    pub(crate) fn expect_next_by(&mut self, time: Option<Instant>) {
        if let Some(parts) = &mut self.0 {
            parts.next_by = time;
        }
    }

    /// When the next fragment has to be there, if one is waited for.
    pub(crate) fn ends(&self) -> Option<Instant> {
        self.0.as_deref().filter(|parts| parts.open.is_some()).and_then(|parts| parts.next_by)
    }

    /// Gives the open payload up; what still comes of it is skipped.
    pub(crate) fn refuse(&mut self) -> Option<Ids> {
        let parts = self.0.as_deref_mut()?;
        let ids = parts.open.take()?;
        parts.refuse(ids);
        parts.count();
        Some(ids)
    }

    /// Whether further fragments of the payload refused last may come.
    pub(crate) fn is_refusing(&self) -> bool {
        self.0.as_deref().is_some_and(|parts| parts.refused.is_some())
    }

    /// The whole payload, until [`release`](Self::release).
    pub(crate) fn payload(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |parts| &parts.payload)
    }

    /// Lets go of a whole payload.
    #[inline]
    pub(crate) fn release(&mut self) {
        if let Some(parts) = &mut self.0
            && parts.whole
        {
            parts.whole = false;
            parts.payload.clear();
            parts.count();
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.0.as_deref().map_or(0, |parts| parts.payload.capacity())
    }

    /// Gives memory back if nothing is open; the payload refused last is remembered.
    pub(crate) fn trim(&mut self) {
        self.release();
        if let Some(parts) = &mut self.0
            && parts.open.is_none()
        {
            parts.payload = Vec::new();
            if parts.refused.is_none() {
                self.0 = None;
            }
        }
    }
}

impl Parts {
    fn counted_in(stats: Option<&Stats>) -> Self {
        Self { held: Held::new(stats.cloned()), ..Self::default() }
    }

    /// To be called when `payload` has changed.
    fn count(&mut self) {
        self.held.set(self.payload.len());
    }

    fn forget(&mut self, ids: Ids) {
        if self.open == Some(ids) {
            self.open = None;
            self.payload.clear();
        }
        if self.refused == Some(ids) {
            self.refused = None;
        }
    }

    fn next(
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

    fn refuse(&mut self, ids: Ids) {
        self.open = None;
        self.refused = Some(ids);
        self.payload = Vec::new();
    }

    fn append(&mut self, ids: Ids, data: &[u8], limit: usize) -> Fragment {
        if self.payload.len().saturating_add(data.len()) > limit {
            self.refuse(ids);
            return Fragment::TooBig;
        }
        self.payload.extend_from_slice(data);
        Fragment::Kept
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
        assert_eq!(all.start(A, b"ab", 10, None), Fragment::Kept);
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
        assert_eq!(all.start(A, b"abcd", 5, None), Fragment::Kept);
        assert_eq!(all.next(A, b"ef", MORE, 5), Fragment::TooBig);
        assert_eq!(all.capacity(), 0);
        for _ in 0..1000 {
            assert_eq!(all.next(A, b"gh", MORE, 5), Fragment::Refused);
        }
        assert_eq!(all.next(A, b"", FIN, 5), Fragment::Refused);
        assert_eq!(all.next(A, b"", FIN, 5), Fragment::Unknown);
        assert_eq!(all.start(B, b"abcdef", 5, None), Fragment::TooBig);
    }

    #[test]
    fn given_up_by_haproxy() {
        let mut all = Reassembly::default();
        all.start(A, b"abcd", 5, None);
        all.trim();
        assert_eq!(all.next(A, b"", (true, true), 5), Fragment::Aborted);
        all.trim();
        assert_eq!(all.capacity(), 0);
        assert_eq!(all.next(A, b"", FIN, 5), Fragment::Unknown);
    }

    #[test]
    fn a_new_notify_of_the_same_ids_starts_afresh() {
        let mut all = Reassembly::default();
        all.start(A, b"abcd", 5, None);
        all.forget(A);
        assert_eq!(all.open(), None);
        assert_eq!(all.start(A, b"xy", 5, None), Fragment::Kept);
        assert_eq!(all.next(A, b"", FIN, 5), Fragment::Whole);
        assert_eq!(all.payload(), b"xy");
    }

    #[test]
    fn what_is_held_is_counted_as_long_as_it_is() {
        let stats = Stats::default();
        let held = || stats.snapshot().reassembly_bytes;
        let mut all = Reassembly::default();
        let mut other = Reassembly::default();
        all.start(A, b"abcd", 10, Some(&stats));
        other.start(A, b"ab", 10, Some(&stats));
        assert_eq!(held(), 6);
        all.next(A, b"ef", FIN, 10);
        assert_eq!(held(), 8, "whole, and lent to an event");
        all.release();
        assert_eq!(held(), 2);
        all.start(B, b"abcd", 10, Some(&stats));
        all.next(B, b"efghijk", MORE, 10);
        assert_eq!(held(), 2, "refused");
        all.start(A, b"abcd", 10, Some(&stats));
        all.next(A, b"", (true, true), 10);
        assert_eq!(held(), 2, "given up by HAProxy");
        all.start(A, b"abcd", 10, Some(&stats));
        all.refuse();
        assert_eq!(held(), 2, "its next fragment was late");
        all.start(B, b"abcd", 10, Some(&stats));
        all.forget(B);
        assert_eq!(held(), 2, "asked anew");
        drop(other);
        assert_eq!(held(), 0, "the connection is gone");
    }
}
