//! How often each message was asked for.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// More than the processors that answer at the same moment, usually, and little memory.
const STRIPES: usize = 8;

/// Where a service counts messages by their names; read by [`Stats::snapshot`](super::Stats::snapshot).
/// A [`Router`](crate::Router) has one. For a service with a routing of its own, see
/// [`Service::message_counts`](crate::Service::message_counts).
#[derive(Clone)]
pub struct MessageCounts(Arc<Visit>);

type Visit = dyn Fn(&mut dyn FnMut(&str, u64)) + Send + Sync;

impl MessageCounts {
    /// `visit` is called for each snapshot; it calls its argument with each name and how often that
    /// message was asked for since the start. Names are values of a label in a monitoring system: a
    /// closed list, never what a peer sent. The same name twice is added up.
    pub fn new(visit: impl Fn(&mut dyn FnMut(&str, u64)) + Send + Sync + 'static) -> Self {
        Self(Arc::new(visit))
    }

    /// Tells each name and its count.
    pub fn visit(&self, each: &mut dyn FnMut(&str, u64)) {
        (self.0)(each);
    }

    /// As a list without repetitions.
    pub(super) fn to_vec(&self) -> Vec<(Box<str>, u64)> {
        let mut all: Vec<(Box<str>, u64)> = Vec::new();
        self.visit(&mut |name, count| match all.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) => *known += count,
            None => all.push((name.into(), count)),
        });
        all
    }
}

impl fmt::Debug for MessageCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.to_vec()).finish()
    }
}

/// A counter that connections on several threads add to without meeting.
#[derive(Debug, Default)]
pub(crate) struct Striped([Stripe; STRIPES]);

/// In a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

impl Striped {
    /// One more, on that connection.
    #[inline]
    pub(crate) fn count(&self, connection: u64) {
        let at = usize::try_from(connection % STRIPES as u64).unwrap_or(0);
        if let Some(Stripe(count)) = self.0.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|Stripe(count)| count.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_told_twice_is_one() {
        let counts = MessageCounts::new(|tell| {
            tell("a", 1);
            tell("b", 2);
            tell("a", 3);
        });
        assert_eq!(counts.to_vec(), [("a".into(), 4), ("b".into(), 2)]);
        assert_eq!(format!("{counts:?}"), r#"{"a": 4, "b": 2}"#);
    }

    #[test]
    fn connections_add_up() {
        let count = Striped::default();
        (0..100).for_each(|connection| count.count(connection));
        count.count(u64::MAX);
        assert_eq!(count.get(), 101);
    }
}
