//! The counters of one connection, small.

use super::ConnectionStats;

/// Most connections never count anything but three of them: the others have their place once one is
/// counted. So a turn of a connection touches little memory, which matters where there are thousands.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) usual: Usual,
    others: Option<Box<ConnectionStats>>,
}

/// What a connection counts that is asked and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usual {
    pub(crate) frames: u64,
    pub(crate) notifies: u64,
    pub(crate) answered: u64,
}

/// The counters at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    usual: Usual,
    others: Option<ConnectionStats>,
}

impl Counters {
    /// The others, to count one. The usual ones are 0 in it.
    #[cold]
    pub(crate) fn others(&mut self) -> &mut ConnectionStats {
        self.others.get_or_insert_default()
    }

    #[inline]
    pub(crate) fn now(&self) -> Counted {
        Counted { usual: self.usual, others: self.others.as_deref().copied() }
    }

    /// Whether nothing was counted since then.
    #[inline]
    pub(crate) fn are(&self, then: &Counted) -> bool {
        self.usual == then.usual && self.others.as_deref() == then.others.as_ref()
    }

    /// See [`ConnectionStats::acks`].
    #[inline]
    pub(crate) fn acks(&self) -> u64 {
        self.usual.answered + self.others.as_deref().map_or(0, ConnectionStats::fallbacks)
    }
}

impl Counted {
    /// See [`ConnectionStats::acks`].
    #[inline]
    pub(crate) fn acks(&self) -> u64 {
        self.usual.answered + self.others.as_ref().map_or(0, ConnectionStats::fallbacks)
    }

    #[inline]
    pub(crate) fn deadlines(&self) -> u64 {
        self.others.as_ref().map_or(0, |others| others.deadlines)
    }

    /// Answers that came from a handler, whatever it said. What was late or shed did not, or not in time.
    #[inline]
    pub(crate) fn handled(&self) -> u64 {
        let others = |stats: &ConnectionStats| stats.errors + stats.panics + stats.unanswered;
        self.usual.answered + self.others.as_ref().map_or(0, others)
    }

    /// Tells what was counted since then, each counter by its place in [`ConnectionStats::to_array`].
    #[inline]
    pub(crate) fn since(&self, then: &Self, mut each: impl FnMut(usize, u64)) {
        let array = |Usual { frames, notifies, answered }| [frames, notifies, answered];
        let mut tell = |at, now: u64, then| {
            if now != then {
                each(at, now.wrapping_sub(then));
            }
        };
        for (at, (now, then)) in array(self.usual).into_iter().zip(array(then.usual)).enumerate() {
            tell(at, now, then);
        }
        if let Some(now) = self.others {
            let then = then.others.unwrap_or_default().to_array();
            for (at, (now, then)) in now.to_array().into_iter().zip(then).enumerate() {
                tell(at, now, then);
            }
        }
    }

    pub(crate) fn shed(&self) -> u64 {
        self.others.as_ref().map_or(0, |others| others.shed)
    }

    pub(crate) fn held(&self) -> u64 {
        self.others.as_ref().map_or(0, |others| others.held)
    }

    /// All counters.
    #[inline]
    pub(crate) fn all(&self) -> ConnectionStats {
        let Usual { frames, notifies, answered } = self.usual;
        ConnectionStats { frames, notifies, answered, ..self.others.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_have_their_place_once_counted() {
        let usual = Usual { frames: 3, notifies: 2, answered: 1 };
        let mut counters = Counters { usual, others: None };
        let few = counters.now();
        let all = few.all();
        assert_eq!((all.frames, all.notifies, all.answered, all.errors), (3, 2, 1, 0));
        assert!(counters.are(&few) && counters.acks() == 1);
        counters.others().errors += 1;
        let more = counters.now();
        assert_eq!(more.all(), ConnectionStats { errors: 1, ..all });
        assert_eq!(counters.acks(), 2);
        assert!(!counters.are(&few) && counters.are(&more));
        counters.usual.answered += 1;
        assert!(!counters.are(&more));

        counters.others().ignored += 7;
        let last = counters.now();
        let mut sum = few.all().to_array();
        let mut changes = 0;
        last.since(&few, |at, change| {
            sum[at] += change;
            changes += 1;
        });
        assert_eq!((sum, changes), (last.all().to_array(), 3));
    }
}
