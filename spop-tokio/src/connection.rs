//! One connection: the state machine on one side, a stream and a timer on the other.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use spop_proto::driver::{Driver, LazyTimer, Notice, TimerStep};
use spop_proto::handler::Dispatch;
use spop_proto::server::Closed;
use spop_proto::stats::Tally;
use spop_proto::{AgentConnection, Peer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep_until};

use crate::agent::Shared;
use crate::log::{event, tell, traced};

/// Bytes read at once; a turn handles no more before others have theirs.
const READ: usize = 64 * 1024;
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
    mut stop: Option<Pin<Box<impl Future<Output = ()>>>>,
) -> impl Future<Output = Closed>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dispatch,
{
    let mut socket = Socket { stream, unflushed: false };
    async move {
        let mut driver = Driver::new(begin(now()));
        let mut sleep = pin!(sleep_until(tokio::time::Instant::now()));
        let mut timer = LazyTimer::default();
        poll_fn(|cx| {
            if stop.as_mut().is_some_and(|stop| stop.as_mut().poll(cx).is_ready()) {
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
                let want = driver.interest();
                if want.done {
                    state = Some(Poll::Ready(()));
                    break;
                }
                let due = poll_due(sleep.as_mut(), &mut timer, cx, want.deadline, now);
                if due {
                    driver.handle_timeout(now, log);
                }
                if !(read || wrote || due || want.ready) {
                    state = Some(Poll::Pending);
                    break;
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
        let want = driver.interest();
        if want.ready {
            each(driver, cx, &[]);
            return true;
        }
        if !want.read {
            return false;
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

/// Whether the deadline has come; if not, the timer wakes the task when it does.
fn poll_due(
    mut sleep: Pin<&mut Sleep>,
    timer: &mut LazyTimer,
    cx: &mut Context<'_>,
    deadline: Option<Instant>,
    now: Instant,
) -> bool {
    let mut step = timer.step(deadline, now);
    loop {
        match step {
            TimerStep::Off => return false,
            TimerStep::Due => return true,
            TimerStep::Set(at) => sleep.as_mut().reset(at.into()),
            TimerStep::Wait => {}
        }
        if sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        step = timer.fired(deadline);
    }
}
