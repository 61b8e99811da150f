//! One connection: the state machine on one side, a stream and a timer on the other.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use spop_proto::driver::{Driver, Input, LazyTimer, Notice, TimerStep};
use spop_proto::handler::Dispatch;
use spop_proto::server::Closed;
use spop_proto::stats::Tally;
use spop_proto::{AgentConnection, Peer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Sleep, sleep_until};

use crate::agent::Shared;
use crate::log::{event, tell, traced};

/// Bytes read at once; a turn handles no more before others have theirs. Of requests of 8 KiB, 16 in flight,
/// 64 KiB take a read more (7 % more of the processor); 128 KiB gain next to nothing over 64.
const READ: usize = 96 * 1024;
/// Turns before a stream that is always ready lets other tasks run. (tokio's own streams yield by
/// themselves.)
const TURNS: usize = 32;

/// Time after which others have theirs, too: requests can be small, and many in one read.
const BUDGET: Duration = Duration::from_millis(1);

/// How long a stream may take to shut down.
const SHUTDOWN: Duration = Duration::from_secs(1);

thread_local! {
    /// Input is parsed where it was read, so one buffer serves all connections of a thread.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The clock, as tokio sees it: tests may stop it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Serves a connection to its end. When `stop` is ready it begins to leave.
///
/// Not an `async fn`: what an async block captures it keeps in one place, while the arguments of an
/// `async fn` that move on to its variables lie in the future twice; and an idle connection is
/// little else than its future. For the same reason `begin` makes the state machine inside.
pub(crate) fn serve<S, D>(
    stream: S,
    begin: impl FnOnce(Instant) -> AgentConnection,
    shared: Arc<Shared<D>>,
    mut stop: Option<impl Future<Output = ()> + Unpin>,
) -> impl Future<Output = Closed>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dispatch,
{
    let mut socket = Socket { stream, unflushed: false };
    async move {
        let mut driver = Driver::new(begin(now()));
        let mut sleep = pin!(sleep_until(tokio::time::Instant::now()));
        let mut alarm = Alarm::default();
        poll_fn(|cx| {
            if stop.as_mut().is_some_and(|stop| Pin::new(stop).poll(cx).is_ready()) {
                stop = None;
                driver.leave();
            }
            // On the stack: an idle connection has none.
            let tally = &mut driver.tally();
            let mut state = None;
            let mut began = None;
            for turn in 1..=TURNS {
                let now = now();
                if now.saturating_duration_since(*began.get_or_insert(now)) >= BUDGET {
                    break;
                }
                let log = &mut |notice: Notice<'_>| tell(&notice, &shared.warnings, now);
                driver.poll_answers(cx, now, tally, log);
                let mut full = false;
                let read = socket.read(&mut driver, cx, now, |driver, cx, input| {
                    full = input.len() == READ;
                    tally.received(input.len());
                    driver.receive(
                        input,
                        cx,
                        now,
                        |n, ack, own| traced(n, ack, |n, ack| shared.dispatch.serve(n, ack, own)),
                        log,
                    );
                });
                driver.after_read(read, full && turn < TURNS, now);
                let wrote = socket.write(&mut driver, tally, cx, now);
                // There may be more, and the deadlines have time until there is not.
                if read || wrote {
                    continue;
                }
                let want = driver.interest();
                if want.done {
                    state = Some(Poll::Ready(()));
                    break;
                }
                let due = alarm.is_due(sleep.as_mut(), cx, want.deadline, now);
                if due {
                    driver.handle_timeout(now, log);
                }
                if !(due || want.ready) {
                    state = Some(Poll::Pending);
                    break;
                }
            }
            if state.is_none() {
                let now = now();
                if driver.interest().deadline.is_some_and(|deadline| deadline <= now) {
                    driver.handle_timeout(now, &mut |notice| tell(&notice, &shared.warnings, now));
                }
            }
            driver.publish(tally, now, |notice| tell(&notice, &shared.warnings, now()));
            // Not woken at once: the runtime would not look for what others have to read before it has run
            // its tasks some sixty times.
            state.unwrap_or_else(|| pin!(yield_now()).poll(cx))
        })
        .await;
        // For streams that say goodbye themselves, such as TLS; not for ever.
        sleep.as_mut().reset(tokio::time::Instant::now() + SHUTDOWN);
        poll_fn(|cx| match Pin::new(&mut socket.stream).poll_shutdown(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => sleep.as_mut().poll(cx),
        })
        .await;
        let closed = driver.finish();
        event!(debug, reason = %closed.reason, "connection closed");
        closed
    }
}

/// The span of a connection: what is logged in it is known to be of that peer.
pub(crate) fn in_span<F: Future>(serving: F, peer: Peer) -> impl Future<Output = F::Output> {
    #[cfg(feature = "tracing")]
    let serving = tracing::Instrument::instrument(
        serving,
        tracing::debug_span!(
            "connection",
            %peer,
            dialect = tracing::field::Empty,
            engine_id = tracing::field::Empty
        ),
    );
    serving
}

struct Socket<S> {
    stream: S,
    /// Written to the stream and not yet flushed by it.
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// One read, handed to `each`; false when there is nothing to do.
    fn read<F>(
        &mut self,
        driver: &mut Driver<F>,
        cx: &mut Context<'_>,
        now: Instant,
        each: impl FnOnce(&mut Driver<F>, &Context<'_>, &[u8]),
    ) -> bool {
        match driver.input() {
            Input::Stream => {}
            Input::Kept => {
                each(driver, cx, &[]);
                return true;
            }
            Input::None => return false,
        }
        let mut scratch = SCRATCH.take();
        scratch.resize(READ, 0);
        let mut buf = ReadBuf::new(&mut scratch);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut buf);
        match polled {
            Poll::Pending => {}
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => each(driver, cx, buf.filled()),
            Poll::Ready(Ok(()) | Err(_)) => driver.read_ended(now),
        }
        SCRATCH.set(scratch);
        polled.is_ready()
    }

    /// One write; false when there is nothing to write or the stream takes nothing.
    fn write<F>(
        &mut self,
        driver: &mut Driver<F>,
        tally: &mut Tally,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> bool {
        let output = driver.transmit();
        let mut wrote = false;
        if !output.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, output) {
                Poll::Pending => {}
                Poll::Ready(Ok(written)) if written > 0 => {
                    driver.transmitted(written);
                    tally.sent(written);
                    self.unflushed = true;
                    wrote = true;
                }
                Poll::Ready(Ok(_) | Err(_)) => {
                    // What fails is not asked to flush either, in this turn or the next.
                    self.unflushed = false;
                    driver.write_failed(now);
                    return true;
                }
            }
        }
        // For streams that keep what was written, such as TLS.
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            self.unflushed = false;
            if flushed.is_err() {
                driver.write_failed(now);
                return true;
            }
        }
        wrote
    }
}

/// When the timer of a connection goes off, and whom it wakes.
#[derive(Default)]
struct Alarm {
    timer: LazyTimer,
    task: Option<Waker>,
}

impl Alarm {
    /// Whether the deadline has come. Where it has not, `sleep` wakes the task once it may have.
    fn is_due(
        &mut self,
        mut sleep: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
        deadline: Option<Instant>,
        now: Instant,
    ) -> bool {
        let mut step = self.timer.step(deadline, now);
        loop {
            match step {
                TimerStep::Off => return false,
                TimerStep::Due => return true,
                TimerStep::Set(at) => sleep.as_mut().reset(at.into()),
                // Asking costs more than all else that is done for a wake-up besides reading and writing,
                // and tokio's timers go off neither early nor in vain.
                TimerStep::Wait if self.timer.is_set_after(now) && self.wakes(cx) => return false,
                TimerStep::Wait => {}
            }
            if !self.wakes(cx) {
                self.task = Some(cx.waker().clone());
            }
            // Whatever the task has done before: where its time is up, tokio answers for the timer and has not
            // asked it.
            if pin!(unconstrained(sleep.as_mut())).poll(cx).is_pending() {
                return false;
            }
            step = self.timer.fired(deadline);
        }
    }

    fn wakes(&self, cx: &Context<'_>) -> bool {
        self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::coop::{consume_budget, has_budget_remaining};

    use super::*;

    /// Asks until the deadline has come; how often it was asked.
    async fn asked(spent: bool) -> u32 {
        let deadline = now() + Duration::from_secs(1);
        let mut sleep = pin!(sleep_until(tokio::time::Instant::now()));
        let mut alarm = Alarm::default();
        let mut asked = 0;
        poll_fn(|cx| {
            while spent && asked == 0 && has_budget_remaining() {
                let _ = pin!(consume_budget()).poll(cx);
            }
            asked += 1;
            if alarm.is_due(sleep.as_mut(), cx, Some(deadline), now()) {
                return Poll::Ready(());
            }
            if asked < 3 {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
        assert!(now() >= deadline);
        asked
    }

    /// The time stands still until all tasks wait, and moves on to the next timer that is set.
    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_not_asked_again_wakes_the_task_all_the_same() {
        for spent in [false, true] {
            // A task: a waker of `block_on` is not always known again.
            let asking = tokio::spawn(asked(spent));
            let asked = tokio::time::timeout(Duration::from_secs(60), asking).await;
            assert_eq!(asked.ok().and_then(Result::ok), Some(4), "spent: {spent}");
        }
    }

    /// It may begin in one task and go on in another.
    #[tokio::test(start_paused = true)]
    async fn the_task_that_asked_last_is_woken() {
        let deadline = now() + Duration::from_secs(1);
        let mut sleep = Box::pin(sleep_until(tokio::time::Instant::now()));
        let mut alarm = Alarm::default();
        let nobody = &mut Context::from_waker(Waker::noop());
        assert!(!alarm.is_due(sleep.as_mut(), nobody, Some(deadline), now()));
        let waiting = poll_fn(|cx| {
            let due = alarm.is_due(sleep.as_mut(), cx, Some(deadline), now());
            if due { Poll::Ready(()) } else { Poll::Pending }
        });
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(waited.is_ok() && now() < deadline + Duration::from_secs(1));
    }
}
