//! Futures that are asked at each wake-up and hardly ever have something to say.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// A future of which something cheaper tells whether it is ready, polled no more often than it takes for it
/// to know whom to wake.
///
/// A connection hears of its server's stop in this way: it would ask at each wake-up, and what can be
/// waited for by many (a `Notify`, a channel) takes a lock that all of them share.
///
/// `future` has to be one that wakes its task for no other reason than that `is_ready` says so from then
/// on.
#[derive(Debug)]
pub struct Seldom<F, R> {
    future: F,
    is_ready: R,
    /// The one that will be woken.
    task: Option<Waker>,
}

impl<F, R: Fn() -> bool> Seldom<F, R> {
    /// Is ready as soon as `is_ready` says so.
    #[must_use]
    pub const fn new(future: F, is_ready: R) -> Self {
        Self { future, is_ready, task: None }
    }
}

impl<F, R> Future for Seldom<F, R>
where
    F: Future<Output = ()> + Unpin,
    R: Fn() -> bool + Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if (self.is_ready)() {
            return Poll::Ready(());
        }
        // If it is ready by now, the task was woken, and comes again.
        if self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.future).poll(cx);
        self.task = Some(cx.waker().clone());
        polled
    }
}

#[cfg(test)]
mod tests {
    use core::cell::{Cell, RefCell};
    use core::future::poll_fn;
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    fn poll(future: &mut (impl Future<Output = ()> + Unpin), task: &Waker) -> Poll<()> {
        Pin::new(future).poll(&mut Context::from_waker(task))
    }

    #[test]
    fn each_task_is_told_once_to_the_future() {
        let asked = RefCell::new(Vec::new());
        let ready = Cell::new(false);
        let future = poll_fn(|cx| {
            asked.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        });
        let mut seldom = Seldom::new(future, || ready.get());
        let tasks = [Waker::from(Arc::new(Task)), Waker::from(Arc::new(Task))];
        for task in [0, 0, 0, 1, 1, 0] {
            assert!(poll(&mut seldom, &tasks[task]).is_pending());
        }
        let known: Vec<_> =
            asked.borrow().iter().map(|waker| usize::from(waker.will_wake(&tasks[1]))).collect();
        assert_eq!(known, [0, 1, 0]);
        ready.set(true);
        assert!(poll(&mut seldom, &tasks[0]).is_ready());
        assert_eq!(asked.borrow().len(), 3);
    }

    #[test]
    fn what_the_future_says_counts() {
        let mut seldom = Seldom::new(core::future::ready(()), || false);
        assert!(poll(&mut seldom, Waker::noop()).is_ready());
    }
}
