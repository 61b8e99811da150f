//! Handlers that wait until a behaviour lets them go on, on threads and in futures alike.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// A handler on a thread ends by itself after this time, when a behaviour failed and nobody opens
/// its gate any more.
const STUCK: Duration = Duration::from_secs(30);

/// Numbered gates, all closed at first, and a count of who came and who left. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeSet<i64>,
    all_open: bool,
    came: usize,
    left: usize,
    waiting: Vec<Waker>,
}

impl State {
    fn lets_pass(&self, number: i64) -> bool {
        self.all_open || self.open.contains(&number)
    }
}

impl Gate {
    /// Lets those through that wait at that number, now and later.
    pub(crate) fn open(&self, number: i64) {
        self.change(|state| {
            state.open.insert(number);
        });
    }

    /// Lets everybody through.
    pub(crate) fn open_all(&self) {
        self.change(|state| state.all_open = true);
    }

    /// Returns when that many handlers in all have come.
    #[track_caller]
    pub(crate) fn wait_until_came(&self, count: usize) {
        self.wait_until("came to the gate", count, |state| state.came);
    }

    /// Returns when that many handlers in all have left, through the gate or because their future
    /// was dropped.
    #[track_caller]
    pub(crate) fn wait_until_left(&self, count: usize) {
        self.wait_until("left the gate", count, |state| state.left);
    }

    /// How many handlers have left so far.
    pub(crate) fn left(&self) -> usize {
        self.lock().left
    }

    /// A handler comes; it leaves when what is returned is dropped.
    pub(crate) fn come(&self) -> Visit {
        self.change(|state| state.came += 1);
        Visit(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let woken = std::mem::take(&mut state.waiting);
        drop(state);
        self.0.changed.notify_all();
        woken.into_iter().for_each(Waker::wake);
    }

    #[track_caller]
    fn wait_until(&self, what: &str, want: usize, count: impl Fn(&State) -> usize) {
        let end = Instant::now() + PATIENCE;
        let mut state = self.lock();
        while count(&state) < want {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} handlers {what} instead of {want}", count(&state));
            state = self.wait(state, left);
        }
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, time: Duration) -> MutexGuard<'s, State> {
        let waited = self.0.changed.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handler at the gate.
#[derive(Debug)]
pub(crate) struct Visit(Gate);

impl Visit {
    /// Waits on this thread.
    pub(crate) fn block(&self, number: i64) {
        let end = Instant::now() + STUCK;
        let mut state = self.0.lock();
        while !state.lets_pass(number) && Instant::now() < end {
            state = self.0.wait(state, end.saturating_duration_since(Instant::now()));
        }
    }

    /// Waits in a future.
    pub(crate) async fn pass(&self, number: i64) {
        poll_fn(|context| {
            let mut state = self.0.lock();
            if state.lets_pass(number) {
                return Poll::Ready(());
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.change(|state| state.left += 1);
    }
}
