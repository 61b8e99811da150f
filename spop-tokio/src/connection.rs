//! One connection: the state machine on one side, a stream and a timer on the other.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use spop_proto::handler::Dispatch;
use spop_proto::{
    AgentConnection, CloseReason, ConnectionStats, Event, Failure, ProtocolError, Tasks,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use crate::log::{Kind, Warnings, event, warning};

/// Bytes read at once; a turn handles no more before others have theirs.
const READ: usize = 64 * 1024;
/// Turns before a stream that is always ready lets other tasks run. (tokio's own streams yield by
/// themselves.)
const TURNS: usize = 32;

thread_local! {
    /// Input is parsed where it was read, so one buffer serves all connections of a thread.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// How a connection ended, and what it counted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Closed {
    /// Why it ended.
    pub reason: CloseReason,
    /// What it counted.
    pub stats: ConnectionStats,
}

/// The clock, as tokio sees it: tests may stop it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Serves a connection to its end. When `stop` is ready it begins to leave.
///
/// Not an `async fn`: what an async block captures it keeps in one place, while the arguments of an
/// `async fn` that move on to its variables lie in the future twice; and an idle connection is
/// little else than its future.
pub(crate) fn serve<S, D>(
    stream: S,
    conn: AgentConnection,
    dispatch: Arc<D>,
    warnings: Arc<Warnings>,
    mut stop: Option<Pin<Box<impl Future<Output = ()>>>>,
) -> impl Future<Output = Closed>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Dispatch,
{
    let mut driver = Driver { stream, conn, warnings, unflushed: false };
    async move {
        let service: &D = &dispatch;
        let mut tasks = Tasks::default();
        let mut sleep = pin!(sleep_until(tokio::time::Instant::now()));
        let mut sleep_set = None;
        let mut leaving = false;
        poll_fn(|cx| {
            if let Some(signal) = &mut stop
                && signal.as_mut().poll(cx).is_ready()
            {
                stop = None;
                leaving = true;
            }
            for turn in 1..=TURNS {
                let now = now();
                tasks.poll(&mut driver.conn, cx, now, |failure| {
                    driver.warnings.failed(&failure, now)
                });
                let read = driver.read(cx, now, |event, warnings, cx| match event {
                    Event::Notify(notify, ack) => {
                        let started =
                            tasks.start(notify, ack, cx, |n, ack, own| service.serve(n, ack, own));
                        if let Err(failure) = started {
                            warnings.failed(&failure, now);
                        }
                    }
                    other => note(&other),
                });
                // What has arrived before the stop is answered, unless there is no end to it.
                if leaving && (!read || turn == TURNS) {
                    leaving = false;
                    driver.conn.shutdown(now);
                }
                let wrote = driver.write(cx, now);
                let want = driver.conn.interest();
                if want.done {
                    return Poll::Ready(());
                }
                let timeout = poll_due(sleep.as_mut(), &mut sleep_set, cx, want.deadline, now);
                if timeout {
                    if let Err(error) = driver.conn.handle_timeout(now) {
                        driver.warnings.protocol(&error, now);
                    }
                    tasks.cancel_stale(&driver.conn);
                    if driver.conn.buffered() == 0 {
                        tasks.trim();
                    }
                }
                if !(read || wrote || timeout || want.ready) {
                    return Poll::Pending;
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        drop(tasks);
        let reason = driver.conn.close_reason().cloned().unwrap_or(CloseReason::PeerClosed);
        event!(debug, %reason, "connection closed");
        Closed { reason, stats: *driver.conn.stats() }
    }
}

/// Events that are only told.
fn note(happened: &Event<'_>) {
    match happened {
        Event::Hello(info) => event!(
            debug,
            offered = %info.offered(),
            announced = %info.capabilities(),
            max_frame_size = info.max_frame_size(),
            engine_id = %info.engine_id().unwrap_or_default().escape_ascii(),
            "handshake done"
        ),
        Event::Abandoned { stream_id, frame_id, by } => {
            event!(debug, stream_id, frame_id, ?by, "fragmented payload given up");
        }
        other => event!(debug, event = ?other, "connection"),
    }
}

struct Driver<S> {
    stream: S,
    conn: AgentConnection,
    warnings: Arc<Warnings>,
    /// Written to the stream and not yet flushed by it.
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// One read, and all events in it; false when there is nothing to do.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        mut each: impl FnMut(Event<'_>, &Warnings, &mut Context<'_>),
    ) -> bool {
        let want = self.conn.interest();
        if !want.read && !want.ready {
            return false;
        }
        let mut scratch = SCRATCH.take();
        scratch.resize(READ, 0);
        let mut buf = ReadBuf::new(&mut scratch);
        let read = if want.ready {
            true
        } else {
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending => false,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => true,
                // A reset is as ordinary an end as any: HAProxy >= 3.1 closes with one.
                Poll::Ready(Ok(()) | Err(_)) => {
                    self.conn.peer_closed(now);
                    true
                }
            }
        };
        if read {
            let mut input = buf.filled();
            loop {
                match self.conn.receive(&mut input, now) {
                    Ok(Some(event)) => each(event, &self.warnings, cx),
                    Ok(None) => break,
                    Err(error) => self.warnings.protocol(&error, now),
                }
            }
        }
        SCRATCH.set(scratch);
        read
    }

    /// One write; false when there is nothing to write or the stream takes nothing.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let output = self.conn.transmit();
        if output.is_empty() {
            return self.flush(cx, now);
        }
        match Pin::new(&mut self.stream).poll_write(cx, output) {
            Poll::Pending => self.flush(cx, now),
            Poll::Ready(Ok(written)) if written > 0 => {
                self.conn.transmitted(written);
                self.unflushed = true;
                self.flush(cx, now);
                true
            }
            Poll::Ready(Ok(_) | Err(_)) => {
                self.give_up(now);
                true
            }
        }
    }

    /// For streams that keep what was written, such as TLS.
    fn flush(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if !self.unflushed {
            return false;
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                false
            }
            Poll::Ready(Err(_)) => {
                self.unflushed = false;
                self.give_up(now);
                true
            }
        }
    }

    /// The stream takes no more: output is lost, whatever it was.
    fn give_up(&mut self, now: Instant) {
        self.conn.peer_closed(now);
        let lost = self.conn.transmit().len();
        self.conn.transmitted(lost);
    }
}

/// A timer that is set only when a deadline comes nearer: one that moves away, as most do with
/// every frame, costs nothing until the old one has passed.
fn poll_due(
    mut sleep: Pin<&mut Sleep>,
    set: &mut Option<Instant>,
    cx: &mut Context<'_>,
    deadline: Option<Instant>,
    now: Instant,
) -> bool {
    let Some(deadline) = deadline else { return false };
    if deadline <= now {
        return true;
    }
    if set.is_none_or(|at| deadline < at) {
        sleep.as_mut().reset(deadline.into());
        *set = Some(deadline);
    }
    while sleep.as_mut().poll(cx).is_ready() {
        if set.is_some_and(|at| at >= deadline) {
            *set = None;
            return true;
        }
        sleep.as_mut().reset(deadline.into());
        *set = Some(deadline);
    }
    false
}

impl Warnings {
    fn failed(&self, failure: &Failure, now: Instant) {
        warning!(self, Kind::Handler, now, %failure, "a handler gave no answer; HAProxy got the fallback");
    }

    fn protocol(&self, error: &ProtocolError, now: Instant) {
        warning!(self, Kind::Protocol, now, %error, status = %error.status(), "connection refused or ended");
    }
}
