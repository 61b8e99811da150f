//! What one connection adds to the counters of its agent.

use std::time::{Duration, Instant};

use super::Counted;
use super::histogram::Times;
use super::shared::Changes;
use crate::driver::Notice;
use crate::{AgentConnection, CloseReason};

/// What a connection has counted since its agent's [`Stats`](super::Stats) were told.
///
/// An adapter makes one when a connection is woken, tells it each reading of the clock before it does
/// anything with it, and publishes it before the connection waits again. So it lies on the stack, and an
/// idle connection holds none. It may also live as long as the connection.
///
/// ```
/// # use spop_proto::{AgentConfig, AgentConnection, Peer};
/// # use spop_proto::stats::Tally;
/// # use std::time::Instant;
/// # let mut conn = AgentConnection::new(AgentConfig::new(), Peer::Unknown, Instant::now());
/// let mut tally = Tally::new(&conn);
/// // For each read:
/// tally.clock(&conn, Instant::now());
/// tally.received(0); // and `conn.receive(..)`
/// tally.sent(0); // after the write
/// // Nothing more to do:
/// tally.publish(&conn, Instant::now, |notice| eprintln!("{notice:?}"));
/// ```
#[derive(Debug)]
pub struct Tally {
    /// What is published.
    before: Counted,
    greeted: bool,
    received: u64,
    sent: u64,
    /// The clock of this turn.
    turn: Option<Instant>,
    /// As counted when it was read, and those in between whose time is known.
    acks: u64,
    deadlines: u64,
    handled: u64,
    answers: Times,
    handlers: Times,
}

impl Tally {
    /// Begins where the connection is.
    #[must_use]
    #[inline]
    pub fn new(conn: &AgentConnection) -> Self {
        let before = conn.counters().now();
        Self {
            before,
            greeted: conn.is_greeted(),
            received: 0,
            sent: 0,
            turn: None,
            acks: before.acks(),
            deadlines: before.deadlines(),
            handled: before.handled(),
            answers: Times::default(),
            handlers: Times::default(),
        }
    }

    /// The clock was read. What was answered since it was read before has taken until now.
    #[inline]
    pub fn clock(&mut self, conn: &AgentConnection, now: Instant) {
        if conn.counters().acks() != self.acks {
            self.time_answers(conn, now);
        }
        self.turn = Some(now);
    }

    fn time_answers(&mut self, conn: &AgentConnection, now: Instant) {
        let counted = conn.counters().now();
        let turn = self.turn.unwrap_or(now);
        let late = counted.deadlines().saturating_sub(self.deadlines);
        let others = counted.acks().saturating_sub(self.acks).saturating_sub(late);
        let turn = now.saturating_duration_since(turn);
        self.add(late, conn.answer_timeout());
        self.add(others, turn);
        let handled = counted.handled();
        self.handlers.share(handled.saturating_sub(self.handled), turn);
        self.acks = counted.acks();
        self.deadlines = counted.deadlines();
        self.handled = handled;
    }

    /// A deferred answer was given to the connection: it was owed for that long. See
    /// [`AgentConnection::owed_for`].
    pub fn answered(&mut self, after: Duration) {
        self.add(1, after);
        self.handlers.add(1, after);
        self.acks += 1;
        self.handled += 1;
    }

    fn add(&mut self, answers: u64, time: Duration) {
        if answers > 0 {
            self.answers.add(answers, time);
        }
    }

    /// That many bytes were read.
    pub const fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// That many bytes were written.
    pub const fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Adds everything to the agent's counters and begins anew. `clock` is asked only where something was
    /// answered since the last reading; `log` is told what HAProxy's operator should know about the
    /// connection as a whole.
    pub fn publish(
        &mut self,
        conn: &AgentConnection,
        clock: impl FnOnce() -> Instant,
        mut log: impl FnMut(Notice<'_>),
    ) {
        if conn.counters().acks() != self.acks {
            self.time_answers(conn, clock());
        }
        let turn = self.turn.take();
        if self.received == 0 && self.sent == 0 && conn.counters().are(&self.before) {
            return;
        }
        let Published { first, shed, held } = self.share(conn);
        // Not before it is needed: it lies elsewhere.
        let peer = || conn.info().peer();
        if first {
            log(Notice::First { peer: peer(), kind: conn.info().kind() });
        }
        if shed > 0 {
            log(Notice::Shed { peer: peer(), requests: shed });
        }
        if held > 0 {
            log(Notice::Held { peer: peer(), answers: held });
        }
        if conn.close_reason() == Some(&CloseReason::HealthCheck)
            && let (Some(shared), Some(now)) = (conn.shared_stats(), turn)
            && shared.is_checked_and_never_asked(now)
        {
            log(Notice::NeverAsked);
        }
    }

    /// Not generic, and not inlined: it is no part of anybody's hot path.
    #[inline(never)]
    fn share(&mut self, conn: &AgentConnection) -> Published {
        let counted = conn.counters().now();
        let shed = counted.shed() - self.before.shed();
        let held = counted.held() - self.before.held();
        let mut first = false;
        let greeted = !self.greeted && conn.is_greeted();
        if let Some(shared) = conn.shared_stats() {
            if greeted {
                first = shared.greeted(conn.info());
            }
            let changes = Changes {
                before: &self.before,
                now: &counted,
                received: self.received,
                sent: self.sent,
                answers: &mut self.answers,
                handlers: &mut self.handlers,
            };
            shared.add(conn.serial(), changes);
        }
        self.greeted |= greeted;
        self.before = counted;
        self.received = 0;
        self.sent = 0;
        Published { first, shed, held }
    }
}

/// What there is to log of it.
#[derive(Debug)]
struct Published {
    /// The connection is the first of its generation of HAProxy.
    first: bool,
    shed: u64,
    held: u64,
}
