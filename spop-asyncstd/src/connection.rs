//! A stream and a timer, driven for one connection.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_io::{AsyncRead, AsyncWrite};
use futures_util::future::select;
use spop_proto::driver::{Driver, Input, LazyTimer, Notice, TimerStep};
use spop_proto::handler::Dispatch;
use spop_proto::server::Closed;
use spop_proto::{AgentConnection, Peer};

use crate::agent::Agent;
use crate::log;
use crate::timer::Timer;

/// What one read may bring. Of requests of 8 KiB, 16 in flight, 64 KiB take a read more (3 % more of the
/// processor).
const READ: usize = 96 * 1024;
/// Reads before a stream that always has more lets other tasks have the thread: nothing else in
/// async-std makes it.
const TURNS: usize = 32;
/// Time after which it lets them in any case: one read can bring thousands of requests.
const BUDGET: Duration = Duration::from_millis(1);
/// What closing a stream may take.
const CLOSE: Duration = Duration::from_secs(1);

thread_local! {
    /// Input is not kept between turns, so that connections share what it is read into.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Serves a stream to its end; `stop` asks it to leave.
///
/// The arguments of an `async fn` that it moves into its variables take their place in the future
/// twice, hence a function that returns a block and a state machine that is made within it.
pub(crate) fn serve<D, S, Begin, Stop, T>(
    agent: &Agent<D>,
    (mut stream, peer): (S, Peer),
    begin: Begin,
    mut stop: Option<Stop>,
    timer: T,
) -> impl Future<Output = Closed> + use<D, S, Begin, Stop, T>
where
    D: Dispatch,
    S: AsyncRead + AsyncWrite + Unpin,
    Begin: FnOnce(Instant) -> AgentConnection,
    Stop: Future<Output = ()> + Unpin,
    T: Timer,
{
    let (dispatch, warnings) = (Arc::clone(&agent.dispatch), Arc::clone(&agent.warnings));
    let serving = async move {
        let service: &D = &dispatch;
        let mut driver = Driver::new(begin(timer.now()));
        let mut unflushed = false;
        let mut lazy = LazyTimer::default();
        let mut wait = pin!(None);
        poll_fn(|cx| {
            if stop.as_mut().is_some_and(|stop| Pin::new(stop).poll(cx).is_ready()) {
                stop = None;
                driver.leave();
            }
            let mut tally = driver.tally();
            let mut end = None;
            let mut began = None;
            for left in (0..TURNS).rev() {
                let now = timer.now();
                if now.saturating_duration_since(*began.get_or_insert(now)) >= BUDGET {
                    break;
                }
                let log = &mut |notice: Notice<'_>| log::tell(&notice, &warnings, now);
                driver.poll_answers(cx, now, &mut tally, log);

                let mut scratch = SCRATCH.take();
                let input = poll_input(&driver, &mut stream, &mut scratch, cx);
                let idle = input.is_pending();
                let full = matches!(&input, Poll::Ready(Some(input)) if input.len() == READ);
                match input {
                    Poll::Ready(Some(input)) => {
                        tally.received(input.len());
                        driver.receive(
                            input,
                            cx,
                            now,
                            |notify, ack, own| {
                                log::traced(notify, ack, |notify, ack| {
                                    service.serve(notify, ack, own)
                                })
                            },
                            log,
                        );
                    }
                    Poll::Ready(None) => driver.read_ended(now),
                    Poll::Pending => {}
                }
                SCRATCH.set(scratch);
                driver.after_read(!idle, full && left > 0, now);

                let written = write(&mut stream, driver.transmit(), &mut unflushed, cx);
                match written {
                    Ok(bytes) => {
                        driver.transmitted(bytes);
                        tally.sent(bytes);
                    }
                    Err(_) => driver.write_failed(now),
                }

                // There may be more, and the deadlines have time until there is not.
                if !(idle && matches!(written, Ok(0))) {
                    continue;
                }
                let want = driver.interest();
                if want.done {
                    end = Some(Poll::Ready(()));
                    break;
                }
                let set = |at| timer.wait_until(at);
                let due = is_due(lazy.step(want.deadline, now), set, wait.as_mut(), cx, || {
                    lazy.fired(want.deadline)
                });
                if due {
                    driver.handle_timeout(now, log);
                }
                if !(due || want.ready) {
                    end = Some(Poll::Pending);
                    break;
                }
            }
            if end.is_none() {
                let now = timer.now();
                if driver.interest().deadline.is_some_and(|deadline| deadline <= now) {
                    let log = &mut |notice: Notice<'_>| log::tell(&notice, &warnings, now);
                    driver.handle_timeout(now, log);
                }
            }
            let log = |notice: Notice<'_>| log::tell(&notice, &warnings, timer.now());
            driver.publish(&mut tally, || timer.now(), log);
            end.unwrap_or_else(|| {
                cx.waker().wake_by_ref();
                Poll::Pending
            })
        })
        .await;
        let closed = driver.finish();
        // A stream such as TLS has a goodbye of its own to send; the peer may not want to take it.
        let closing = poll_fn(|cx| Pin::new(&mut stream).poll_close(cx));
        let patience = pin!(timer.wait_until(timer.now() + CLOSE));
        select(closing, patience).await;
        log::debug!(reason = %closed.reason, "connection closed");
        closed
    };
    #[cfg(feature = "tracing")]
    let serving = {
        let span = tracing::debug_span!(
            "connection",
            %peer,
            dialect = tracing::field::Empty,
            engine_id = tracing::field::Empty
        );
        tracing::Instrument::instrument(serving, span)
    };
    serving
}

/// What to hand to the connection: nothing yet, the next bytes (none, if it asks to go on without),
/// or `None` at the end.
fn poll_input<'s, F, S: AsyncRead + Unpin>(
    driver: &Driver<F>,
    stream: &mut S,
    scratch: &'s mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<Option<&'s [u8]>> {
    match driver.input() {
        Input::Stream => {}
        Input::Kept => return Poll::Ready(Some(&[])),
        Input::None => return Poll::Pending,
    }
    scratch.resize(READ, 0);
    // An error and an end are the same to a connection.
    let read = Pin::new(stream).poll_read(cx, scratch).map(|read| read.unwrap_or(0));
    read.map(|bytes| scratch.get(..bytes).filter(|input| !input.is_empty()))
}

/// Writes once, and flushes for streams that keep what was written, such as TLS. Zero bytes: the
/// stream takes nothing now, or there is nothing.
fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    output: &[u8],
    unflushed: &mut bool,
    cx: &mut Context<'_>,
) -> io::Result<usize> {
    let mut bytes = 0;
    if !output.is_empty()
        && let Poll::Ready(written) = Pin::new(&mut *stream).poll_write(cx, output)
    {
        // What fails is not asked to flush either, in this turn or the next.
        *unflushed = false;
        bytes = written?;
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        *unflushed = true;
    }
    if *unflushed && let Poll::Ready(flushed) = Pin::new(stream).poll_flush(cx) {
        *unflushed = false;
        flushed?;
    }
    Ok(bytes)
}

/// Follows the steps of a [`LazyTimer`] to the answer whether the deadline has come.
fn is_due<W: Future>(
    mut step: TimerStep,
    set: impl Fn(Instant) -> W,
    mut wait: Pin<&mut Option<W>>,
    cx: &mut Context<'_>,
    mut fired: impl FnMut() -> TimerStep,
) -> bool {
    loop {
        match step {
            TimerStep::Off => return false,
            TimerStep::Due => return true,
            TimerStep::Set(at) => wait.set(Some(set(at))),
            TimerStep::Wait => {}
        }
        match wait.as_mut().as_pin_mut().map(|wait| wait.poll(cx)) {
            Some(Poll::Ready(_)) => step = fired(),
            Some(Poll::Pending) | None => return false,
        }
    }
}
