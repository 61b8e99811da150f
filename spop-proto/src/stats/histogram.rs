//! How long answers took, in buckets.

use core::fmt;
use std::time::Duration;

/// Upper bounds of the buckets in nanoseconds. An interface: who changes it breaks graphs and alerts.
const BOUNDS: [u64; 15] = [
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
];

/// The buckets, and one for what takes longer.
pub(crate) const BUCKETS: usize = BOUNDS.len() + 1;

/// How long answers took, in buckets up to 25, 50, 100, 250 and 500 µs, 1, 2.5, 5, 10, 25, 50, 100, 250
/// and 500 ms, 1 s, and one for those that took longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket, each on its own.
    pub(crate) counts: [u64; BUCKETS],
    /// Of all, in nanoseconds.
    pub(crate) sum: u64,
}

/// The times of one turn: they are few, and in few buckets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    counts: [u32; BUCKETS],
    /// Which of them are not 0, by bit.
    used: u16,
    /// Of all, in nanoseconds.
    pub(crate) sum: u64,
}

impl Times {
    /// Adds that many, which took `time` each.
    #[inline]
    pub(crate) fn add(&mut self, times: u64, time: Duration) {
        let nanos = nanos(time);
        self.count(times, nanos, nanos.wrapping_mul(times));
    }

    /// Adds that many, which took `time` all together and share it evenly.
    #[inline]
    pub(crate) fn share(&mut self, times: u64, time: Duration) {
        let nanos = nanos(time);
        if let Some(each) = nanos.checked_div(times) {
            self.count(times, each, nanos);
        }
    }

    fn count(&mut self, times: u64, each: u64, sum: u64) {
        let bucket = bucket(each);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(u32::try_from(times).unwrap_or(u32::MAX));
            self.used |= 1 << bucket;
        }
        self.sum = self.sum.wrapping_add(sum);
    }

    /// Hands each bucket that is not empty to `each`, with what is in it, and is empty then.
    #[inline]
    pub(crate) fn take(&mut self, mut each: impl FnMut(usize, u64)) {
        while self.used != 0 {
            let bucket = self.used.trailing_zeros() as usize;
            self.used &= self.used - 1;
            if let Some(count) = self.counts.get_mut(bucket) {
                each(bucket, core::mem::take(count).into());
            }
        }
        self.sum = 0;
    }
}

impl Histogram {
    /// How many answers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The time of all of them together.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// Each bucket's upper bound, `None` for that of the last one, and how many answers took no longer.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let mut below = 0;
        self.counts.iter().enumerate().map(move |(at, count)| {
            below += count;
            (bound(at), below)
        })
    }

    /// The bound that this part of the answers kept, 0.99 for instance: that of the bucket the last of
    /// them is in. `None` where there was none, or where that one took longer than every bound.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a float saturates, and 2^53 answers are enough"
        )]
        let wanted = ((self.count() as f64 * part).ceil() as u64).max(1);
        self.buckets().find(|(_, below)| *below >= wanted)?.0
    }
}

impl fmt::Display for Histogram {
    /// `half within 50µs, 99 % within 1ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count() == 0 {
            return f.write_str("no answers");
        }
        let mut between = "";
        for (part, what) in [(0.5, "half"), (0.99, "99 %")] {
            match self.quantile(part) {
                Some(bound) => write!(f, "{between}{what} within {bound:?}")?,
                None => write!(f, "{between}{what} within more than {:?}", LARGEST)?,
            }
            between = ", ";
        }
        Ok(())
    }
}

/// The last bound.
pub(crate) const LARGEST: Duration = Duration::from_secs(1);

/// The upper bound of a bucket; `None` for the last one.
pub(crate) fn bound(bucket: usize) -> Option<Duration> {
    BOUNDS.get(bucket).copied().map(Duration::from_nanos)
}

/// Which bucket takes that time: bounds belong to the bucket below.
pub(crate) fn bucket(nanos: u64) -> usize {
    // Most answers are in one of the first.
    BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len())
}

/// 584 years are enough.
#[inline]
pub(crate) fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_in_its_own_bucket() {
        for (at, nanos) in BOUNDS.into_iter().enumerate() {
            assert_eq!((bucket(nanos), bucket(nanos + 1)), (at, at + 1), "{nanos}");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
        assert_eq!(BUCKETS, 16, "each has a bit in `Times::used`");
        assert_eq!(bound(BUCKETS - 2), Some(LARGEST));
        assert_eq!(bound(BUCKETS - 1), None);
    }

    #[test]
    fn what_is_shared_is_all_there_is() {
        let mut turn = Times::default();
        turn.share(3, Duration::from_micros(1000));
        turn.share(0, Duration::from_micros(1000));
        assert_eq!(turn.sum, 1_000_000);
        let mut taken = Vec::new();
        turn.take(|bucket, count| taken.push((bound(bucket), count)));
        assert_eq!(taken, [(Some(Duration::from_micros(500)), 3)]);
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut turn = Times::default();
        turn.add(98, Duration::from_micros(20));
        turn.add(1, Duration::from_millis(2));
        turn.add(1, Duration::from_secs(3));
        let mut times = Histogram { sum: turn.sum, ..Histogram::default() };
        turn.take(|bucket, count| times.counts[bucket] += count);
        turn.take(|bucket, _| panic!("{bucket} was taken before"));
        let buckets: Vec<_> = times.buckets().collect();
        assert_eq!(buckets.len(), BUCKETS);
        assert_eq!(buckets[0], (Some(Duration::from_micros(25)), 98));
        assert_eq!(buckets[5], (Some(Duration::from_millis(1)), 98));
        assert_eq!(buckets[6], (Some(Duration::from_micros(2500)), 99));
        assert_eq!(buckets[BUCKETS - 1], (None, 100));
        assert_eq!(times.sum(), Duration::from_micros(98 * 20 + 2000 + 3_000_000));
        assert_eq!(times.to_string(), "half within 25µs, 99 % within 2.5ms");
        assert_eq!(times.quantile(1.0), None, "longer than all bounds");
        assert_eq!(Histogram::default().to_string(), "no answers");
    }
}
