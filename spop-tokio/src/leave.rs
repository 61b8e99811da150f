//! How connections learn that their server stops.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spop_proto::driver::Seldom;
use tokio::sync::Notify;

/// Tells the connections of a server to leave.
#[derive(Clone, Default)]
pub(crate) struct Leave {
    told: Arc<AtomicBool>,
    notify: Arc<Notify>,
}

impl Leave {
    /// Ready once connections are told. One that was made before hears of it whenever it is polled first.
    pub(crate) fn told(&self) -> impl Future<Output = ()> + Unpin + use<> {
        let told = Arc::clone(&self.told);
        let notified = Box::pin(Arc::clone(&self.notify).notified_owned());
        Seldom::new(notified, move || told.load(Ordering::Acquire))
    }

    pub(crate) fn tell(&self) {
        // In this order: who is woken looks at the flag.
        self.told.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn told_before_and_after_the_first_poll() {
        let leave = Leave::default();
        let (mut one, mut other) = (leave.told(), leave.told());
        let woken = Arc::new(Count::default());
        let waker = Arc::clone(&woken).into();
        let cx = &mut Context::from_waker(&waker);
        for _ in 0..3 {
            assert!(Pin::new(&mut one).poll(cx).is_pending());
        }
        leave.tell();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(Pin::new(&mut one).poll(cx).is_ready());
        assert!(Pin::new(&mut other).poll(cx).is_ready());
        assert!(Pin::new(&mut leave.told()).poll(cx).is_ready());
    }

    /// A future may be polled by one task, and then move to another.
    #[test]
    fn the_task_that_polled_last_is_woken() {
        let leave = Leave::default();
        let mut told = leave.told();
        let tasks = [Arc::new(Count::default()), Arc::new(Count::default())];
        for task in &tasks {
            let waker = Arc::clone(task).into();
            assert!(Pin::new(&mut told).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        leave.tell();
        assert_eq!(tasks.map(|task| task.0.load(Ordering::Relaxed)), [0, 1]);
    }
}
