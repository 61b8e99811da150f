//! What the drivers of all asynchronous runtimes have in common: the turn of a connection, without
//! the I/O in it.

use core::future::Future;
use core::task::Context;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::agent::{AgentConnection, Event, Interest};
use crate::error::ProtocolError;
use crate::handler::{Exchange, HandlerError, Turn};
use crate::inflight::Ids;
use crate::request_id::{Failed, RequestId};
use crate::server::Closed;
use crate::stats::{ConnectionKind, Tally};
use crate::tasks::{Failure, Tasks, panic_text};
use crate::tx::Tx;
use crate::{Ack, AgentConfig, Notify, Peer};

pub use crate::seldom::Seldom;

/// Something for the log.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// An event that asks for nothing.
    Event(&'a Event<'a>),
    /// A handler gave no answer; HAProxy got the fallback.
    Failure {
        /// What it gave instead.
        failure: Failure,
        /// Which request it was.
        request: RequestId<'a>,
    },
    /// A handler has answered a NOTIFY that it could not answer at once.
    Answered {
        /// Of the NOTIFY.
        stream_id: u64,
        /// Of the NOTIFY.
        frame_id: u64,
        /// How many bytes of actions the answer has.
        bytes: usize,
    },
    /// An answer was late; HAProxy got the fallback.
    Late {
        /// Who asked.
        peer: Peer,
        /// Which request it was.
        request: RequestId<'a>,
    },
    /// The peer broke the protocol or a time limit; the connection is closing.
    Error {
        /// Who did.
        peer: Peer,
        /// What it did.
        error: ProtocolError,
    },
    /// Requests that got the fallback at once: more were owed, or held back, than the limits allow, or
    /// the agent is about to leave.
    Shed {
        /// Who asked.
        peer: Peer,
        /// How many in this turn.
        requests: u64,
    },
    /// Answers were held back for a while: see [`Pacing`](crate::Pacing).
    Held {
        /// Who asked.
        peer: Peer,
        /// How many in this turn.
        answers: u64,
    },
    /// The first connection of that generation of HAProxy since the agent began.
    First {
        /// Who it is from.
        peer: Peer,
        /// [`ConnectionKind::Old`] or [`ConnectionKind::New`].
        kind: ConnectionKind,
    },
    /// HAProxy has checked the agent's health for a minute and asked it nothing. Told once, and never of
    /// an agent that was asked something.
    NeverAsked,
}

/// A connection and the futures of its handlers.
///
/// A turn of the driver is: [`poll_answers`](Self::poll_answers), one read and [`receive`](Self::receive)
/// as [`input`](Self::input) says, [`after_read`](Self::after_read), one write. A turn that had nothing to
/// read and nothing to write is the last one: then [`interest`](Self::interest) says what to wait for, and
/// until when. `spop-tokio` is such a driver.
#[derive(Debug)]
pub struct Driver<F> {
    conn: AgentConnection,
    tasks: Tasks<F>,
    leaving: Leaving,
}

/// What a connection takes next. See [`Driver::input`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a driver has to know all of them")]
pub enum Input {
    /// What it has kept: [`receive`](Driver::receive) is to be called with no input. This is
    /// [`Interest::ready`].
    Kept,
    /// What the stream has to read, or its end. This is [`Interest::read`].
    Stream,
    /// Nothing now.
    None,
}

/// How long a connection that is to leave and is asked nothing waits for a question all the same. HAProxy
/// up to 3.0 goes on using its connections to a server that it has taken out, and takes an idle one
/// first: a goodbye on an idle connection crosses the next question, which is lost. One that goes out
/// together with an answer does not. (And a runtime tells of a stop and of input in no order.)
const QUIET: Duration = Duration::from_millis(500);

/// Futures that nobody waits for any more, besides as many as there are that somebody waits for, before they
/// are looked for: each time all are looked at.
const STALE: usize = 16;

#[derive(Clone, Copy, Debug)]
enum Leaving {
    No,
    /// With the next answers.
    Asked,
    /// With the next answers, but no later than then.
    At(Instant),
}

impl<F> Driver<F> {
    /// Drives that connection.
    #[must_use]
    pub fn new(conn: AgentConnection) -> Self {
        Self { conn, tasks: Tasks::default(), leaving: Leaving::No }
    }

    /// What this wake-up counts: to be [published](Self::publish) at its end.
    #[must_use]
    #[inline]
    pub fn tally(&self) -> Tally {
        Tally::new(&self.conn)
    }

    /// Ends a wake-up: see [`Tally::publish`].
    pub fn publish(
        &self,
        tally: &mut Tally,
        clock: impl FnOnce() -> Instant,
        log: impl FnMut(Notice<'_>),
    ) {
        tally.publish(&self.conn, clock, log);
    }

    /// What to [`receive`](Self::receive) in this turn: a part of [`interest`](Self::interest), which has to
    /// look for deadlines, too.
    #[must_use]
    #[inline]
    pub fn input(&self) -> Input {
        self.conn.input()
    }

    /// What to wait for. See [`AgentConnection::interest`].
    #[must_use]
    pub fn interest(&self) -> Interest {
        let mut want = self.conn.interest();
        if let Leaving::At(time) = self.leaving {
            want.deadline = Some(want.deadline.map_or(time, |deadline| deadline.min(time)));
        }
        want
    }

    /// What to write. See [`AgentConnection::transmit`].
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        self.conn.transmit()
    }

    /// That much of it was written.
    pub fn transmitted(&mut self, bytes: usize) {
        self.conn.transmitted(bytes);
    }

    /// The stream ended, or reading failed: a reset is as ordinary an end as any, HAProxy >= 3.1
    /// closes with one.
    pub fn read_ended(&mut self, now: Instant) {
        self.conn.peer_closed(now);
    }

    /// Writing failed: the output is lost, whatever it was.
    pub fn write_failed(&mut self, now: Instant) {
        self.conn.peer_closed(now);
        let lost = self.conn.transmit().len();
        self.conn.transmitted(lost);
    }

    /// Asks the connection to leave: with the answers to what it is asked next, or after half a second
    /// in which it is asked nothing.
    pub const fn leave(&mut self) {
        self.leaving = Leaving::Asked;
    }

    /// To be called after the read of a turn, which found something or not. `more` says that there is
    /// more to read and will be read at once. (Say so no more than a few times in a row: a peer that
    /// always has something to say is not listened to for ever.)
    pub fn after_read(&mut self, read: bool, more: bool, now: Instant) {
        self.leaving = match self.leaving {
            Leaving::No => return,
            Leaving::Asked if !read => now.checked_add(QUIET).map_or(Leaving::Asked, Leaving::At),
            Leaving::At(time) if !read && now < time => return,
            Leaving::Asked | Leaving::At(_) if read && more => Leaving::Asked,
            Leaving::Asked | Leaving::At(_) => {
                self.conn.shutdown(now);
                Leaving::No
            }
        };
    }

    /// Does what is due at the deadline of [`interest`](Self::interest).
    pub fn handle_timeout(&mut self, now: Instant, log: &mut impl FnMut(Notice<'_>)) {
        let peer = self.conn.info().peer();
        let before = self.conn.stats().deadlines;
        if let Err(error) = self.conn.handle_timeout(now) {
            log(Notice::Error { peer, error });
        }
        let mut late = self.conn.stats().deadlines - before;
        self.tasks.cancel_stale(&self.conn, |request| {
            if late > 0 {
                late -= 1;
                log(Notice::Late { peer, request });
            }
        });
        if self.conn.buffered() == 0 {
            self.tasks.trim();
        }
    }

    /// How the connection ended. Futures that are left are dropped.
    #[must_use]
    pub fn finish(self) -> Closed {
        drop(self.tasks);
        Closed::new(self.conn.close_reason().cloned(), self.conn.stats())
    }
}

impl<F: Future<Output = Result<Exchange, HandlerError>>> Driver<F> {
    /// Begins a turn, for which the clock was just read: takes the answers of futures that were woken.
    #[inline]
    pub fn poll_answers(
        &mut self,
        context: &Context<'_>,
        now: Instant,
        tally: &mut Tally,
        log: &mut impl FnMut(Notice<'_>),
    ) {
        tally.clock(&self.conn, now);
        self.tasks.poll(&mut self.conn, context, now, tally, |outcome, request| match outcome {
            Ok((Ids { stream: stream_id, frame: frame_id }, bytes)) => {
                log(Notice::Answered { stream_id, frame_id, bytes });
            }
            Err(failure) => tell(log, failure, request),
        });
    }

    /// Takes what was read, all of it, and has each NOTIFY in it served.
    pub fn receive(
        &mut self,
        mut input: &[u8],
        context: &Context<'_>,
        now: Instant,
        mut serve: impl FnMut(Notify<'_>, &mut Ack<'_>, &mut dyn FnMut() -> Exchange) -> Turn<F>,
        log: &mut impl FnMut(Notice<'_>),
    ) {
        let mut broken = None;
        loop {
            match self.conn.receive(&mut input, now) {
                Ok(Some(Event::Notify(notify, ack))) => {
                    let failed = self.tasks.start(notify, ack, context, &mut serve);
                    if let Err(Failed { failure, argument }) = failed {
                        tell(log, failure, RequestId::of(notify, argument.as_deref()));
                    }
                }
                Ok(Some(event)) => log(Notice::Event(&event)),
                Ok(None) => break,
                Err(error) => broken = Some(error),
            }
            // HAProxy may ask anew with the same ids, in one read as often as there is room for.
            if self.tasks.parked() > STALE {
                self.cancel_many_stale();
            }
        }
        if let Some(error) = broken {
            log(Notice::Error { peer: self.conn.info().peer(), error });
        }
        // HAProxy may have asked anew with the same ids, or said goodbye.
        if self.tasks.parked() > usize::try_from(self.conn.in_flight()).unwrap_or(usize::MAX) {
            self.tasks.cancel_stale(&self.conn, |_| {});
        }
    }
}

impl<F> Driver<F> {
    #[inline(never)]
    fn cancel_many_stale(&mut self) {
        let owed = usize::try_from(self.conn.in_flight()).unwrap_or(usize::MAX);
        if self.tasks.parked() > owed.saturating_mul(2).saturating_add(STALE) {
            self.tasks.cancel_stale(&self.conn, |_| {});
        }
    }
}

/// An error's text is the user's code, and no reason for a connection to end either.
fn tell(log: &mut impl FnMut(Notice<'_>), failure: Failure, request: RequestId<'_>) {
    let notice = Notice::Failure { failure, request };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| log(notice))) {
        let _ = panic_text(panic);
    }
}

/// A place to answer exchanges with a synchronous service, away from their connections: what a
/// thread of a worker pool needs. Its memory is used again for each.
#[derive(Debug)]
pub struct Pad {
    tx: Tx,
}

impl Pad {
    /// A pad for exchanges of connections with that configuration.
    #[must_use]
    pub fn new(config: AgentConfig, now: Instant) -> Self {
        Self { tx: Tx::new(config, 0, now) }
    }

    /// Has `service` answer an exchange, which then holds the answer. The connection is not
    /// touched: hand the exchange to [`Ack::answer_with`].
    ///
    /// # Errors
    /// What the service failed with.
    pub fn answer(
        &mut self,
        mut exchange: Exchange,
        service: impl FnOnce(Notify<'_>, &mut Ack<'_>) -> Result<(), HandlerError>,
    ) -> Result<Exchange, Failure> {
        let bounds = *exchange.bounds();
        self.tx.limit_acks(u32::try_from(bounds.ack_limit).unwrap_or(u32::MAX));
        let (notify, ids, actions, refused) = exchange.parts();
        self.tx.serial = bounds.connection;
        let mut ack = Ack::new(&mut self.tx, ids, None);
        let result = catch_unwind(AssertUnwindSafe(|| service(notify, &mut ack)));
        let stands = ack.stands();
        ack.move_actions(actions, refused);
        match result {
            Ok(Ok(())) => Ok(exchange),
            Ok(Err(error)) if stands => {
                exchange.set_failure(Failure::of(error));
                Ok(exchange)
            }
            Ok(Err(error)) => Err(Failure::of(error)),
            Err(panic) => Err(Failure::Panic(panic_text(panic))),
        }
    }
}

/// When to set a timer: a deadline that moves away, as most do with every frame, costs nothing until
/// the time that was set has passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct LazyTimer {
    set: Option<Instant>,
}

/// What to do about a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a driver has to know all of them")]
pub enum TimerStep {
    /// There is none.
    Off,
    /// It has come.
    Due,
    /// Set the timer to that time and wait for it.
    Set(Instant),
    /// Wait for the timer as it is.
    Wait,
}

impl LazyTimer {
    /// What to do about `deadline`.
    pub fn step(&mut self, deadline: Option<Instant>, now: Instant) -> TimerStep {
        let Some(deadline) = deadline else { return TimerStep::Off };
        if deadline <= now {
            return TimerStep::Due;
        }
        if self.set.is_some_and(|set| set <= deadline) {
            return TimerStep::Wait;
        }
        self.set = Some(deadline);
        TimerStep::Set(deadline)
    }

    /// Whether the timer is set to a later time. It need not be asked then: as long as it goes off neither
    /// early nor in vain, and was asked by the same task before.
    #[must_use]
    pub fn is_set_after(&self, now: Instant) -> bool {
        self.set.is_some_and(|set| set > now)
    }

    /// The timer went off; returns the step to take now.
    pub fn fired(&mut self, deadline: Option<Instant>) -> TimerStep {
        let fired = self.set.take();
        match deadline {
            None => TimerStep::Off,
            // The clock of the timer may be ahead of the `now` of the turn.
            Some(deadline) if fired.is_some_and(|fired| fired >= deadline) => TimerStep::Due,
            Some(deadline) => {
                self.set = Some(deadline);
                TimerStep::Set(deadline)
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a first instant to count from")]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_set_only_when_a_deadline_comes_nearer() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timer = LazyTimer::default();
        assert_eq!(timer.step(None, at(0)), TimerStep::Off);
        assert_eq!(timer.step(Some(at(10)), at(0)), TimerStep::Set(at(10)));
        assert_eq!(timer.step(Some(at(12)), at(1)), TimerStep::Wait);
        assert_eq!(timer.step(Some(at(5)), at(1)), TimerStep::Set(at(5)));
        assert_eq!(timer.step(Some(at(12)), at(2)), TimerStep::Wait);
        // It goes off at 5, and the deadline has moved away meanwhile.
        assert_eq!(timer.fired(Some(at(12))), TimerStep::Set(at(12)));
        assert_eq!(timer.fired(Some(at(12))), TimerStep::Due);
        assert_eq!(timer.step(Some(at(12)), at(12)), TimerStep::Due);
        assert_eq!(timer.step(Some(at(20)), at(12)), TimerStep::Set(at(20)));
        assert_eq!(timer.fired(None), TimerStep::Off);
    }
}
