//! The same numbers for the `metrics` facade.

use core::convert::Infallible;
use core::time::Duration;

use super::histogram::LARGEST;
use super::visit::{Family, Label, Visitor};
use super::{Histogram, Stats};

/// Gives what an agent counts to the recorder of the `metrics` facade: under the names of
/// [`Snapshot::prometheus`](super::Snapshot::prometheus), each time what has changed, so that the numbers
/// of several agents in a process add up. Adapters with the feature `metrics` do this once a second.
///
/// The facade knows single values, not buckets: each time is recorded as the upper bound of its bucket,
/// those above one second as two. Give the recorder the same buckets (see [`Histogram`]) and its counts
/// are exact; its sum is too large, by half of a bucket's width on average.
///
/// Dropped, it publishes for the last time.
#[derive(Debug)]
pub struct Publisher {
    stats: Stats,
    /// In the order of the visit.
    published: Vec<u64>,
    messages: Vec<(Box<str>, u64)>,
    /// By the names of their families.
    times: Vec<(&'static str, Histogram)>,
}

impl Publisher {
    /// How often is often enough.
    pub const EVERY: Duration = Duration::from_secs(1);

    /// Publishes those counters.
    #[must_use]
    pub const fn new(stats: Stats) -> Self {
        Self { stats, published: Vec::new(), messages: Vec::new(), times: Vec::new() }
    }

    /// Publishes what has changed.
    pub fn publish(&mut self) {
        let first = self.published.is_empty();
        let Self { stats, published, messages, times } = self;
        let mut changes = Changes { published, at: 0, messages, times, first };
        let Ok(()) = stats.snapshot().visit(&mut changes);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.publish();
    }
}

struct Changes<'a> {
    published: &'a mut Vec<u64>,
    at: usize,
    messages: &'a mut Vec<(Box<str>, u64)>,
    times: &'a mut Vec<(&'static str, Histogram)>,
    first: bool,
}

impl Changes<'_> {
    /// What was published where the visit is now; `value` is in its place.
    fn replace(&mut self, value: u64) -> u64 {
        if self.published.len() == self.at {
            self.published.push(0);
        }
        let known = self.published.get_mut(self.at);
        self.at += 1;
        known.map_or(0, |known| core::mem::replace(known, value))
    }
}

impl Visitor for Changes<'_> {
    type Error = Infallible;

    fn gauges(
        &mut self,
        Family { name, help }: Family,
        samples: &[(&[Label], u64)],
    ) -> Result<(), Infallible> {
        if self.first {
            metrics::describe_gauge!(name, help);
        }
        for (labels, value) in samples {
            let before = self.replace(*value);
            let gauge = metrics::gauge!(name, *labels);
            #[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 connections")]
            if *value >= before {
                gauge.increment((value - before) as f64);
            } else {
                gauge.decrement((before - value) as f64);
            }
        }
        Ok(())
    }

    fn counters(
        &mut self,
        Family { name, help }: Family,
        samples: &mut dyn Iterator<Item = (Option<Label>, u64)>,
    ) -> Result<(), Infallible> {
        if self.first {
            metrics::describe_counter!(name, help);
        }
        for (label, value) in samples {
            // A snapshot is not of one instant: what seems less is published when it is more again.
            let before = self.replace(value);
            metrics::counter!(name, label.as_slice()).increment(value.saturating_sub(before));
        }
        Ok(())
    }

    fn messages(
        &mut self,
        Family { name, help }: Family,
        samples: &[(Box<str>, u64)],
    ) -> Result<(), Infallible> {
        if self.first {
            metrics::describe_counter!(name, help);
        }
        for (message, value) in samples {
            let known = self.messages.iter_mut().find(|(known, _)| known == message);
            // One that is less belongs to a router that has just replaced another: it began at 0.
            let before = match known {
                Some((_, known)) => core::mem::replace(known, *value),
                None => {
                    self.messages.push((message.clone(), *value));
                    0
                }
            };
            let change = value.checked_sub(before).unwrap_or(*value);
            metrics::counter!(name, "message" => message.to_string()).increment(change);
        }
        Ok(())
    }

    fn histogram(
        &mut self,
        Family { name, help }: Family,
        times: &Histogram,
    ) -> Result<(), Infallible> {
        if self.first {
            metrics::describe_histogram!(name, metrics::Unit::Seconds, help);
        }
        let histogram = metrics::histogram!(name);
        let at = self.times.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.times.push((name, Histogram::default()));
            self.times.len() - 1
        });
        let Some((_, known)) = self.times.get_mut(at) else { return Ok(()) };
        let both = times.counts.iter().zip(known.counts);
        for ((bound, _), (now, before)) in times.buckets().zip(both) {
            let answers = usize::try_from(now.saturating_sub(before)).unwrap_or(usize::MAX);
            if answers > 0 {
                histogram.record_many(bound.unwrap_or(LARGEST * 2).as_secs_f64(), answers);
            }
        }
        *known = *times;
        Ok(())
    }
}
