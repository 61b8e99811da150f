//! An agent's side in a test rig: a clock of its own, handlers that follow a script, and all that is
//! claimed of a connection asserted after every step.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use spop_proto::wire::Messages;
use spop_proto::{
    Ack, AgentConnection, Cause, CloseReason, ConnectionStats, Event, Exchange, Notify, Peer,
    Scope, SetError, Ticket,
};

use crate::output::{Output, Writer};
use crate::settings::{Settings, start};
use crate::{compare, naive};

/// Answers are made no larger than that.
const ANSWER_MAX: usize = 3000;
/// More than any frame takes.
const HUGE: &[u8] = &[b'h'; (1 << 20) + 1];
/// Turns at one instant before a connection is said to spin. Each hands out a frame at least.
const TURNS: usize = 10_000;

/// What happened on a connection, without the times and places of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Trace {
    /// Events and errors, in words.
    pub events: Vec<String>,
    /// All output.
    pub output: Vec<u8>,
    /// How it ended.
    pub reason: Option<CloseReason>,
    /// What it counted.
    pub stats: ConnectionStats,
}

/// An answer that is owed, and the number that the question carried.
enum Owed {
    Ticket(Ticket),
    Exchange(Ticket, Exchange),
}

/// An agent's side.
pub struct Rig<'a> {
    /// The connection.
    pub conn: AgentConnection,
    /// The clock.
    pub now: Instant,
    /// All output, judged.
    pub output: Output,
    /// All output, as it is.
    pub written: Vec<u8>,
    /// What handlers do, one byte for each NOTIFY, then again from the start.
    answers: &'a [u8],
    asked: usize,
    events: Vec<String>,
    owed: VecDeque<(Option<u64>, Owed)>,
    /// NOTIFYs handed out, less their ACKs, by ids.
    unanswered: HashMap<(u64, u64), i64>,
    /// ACKs for ids that were not handed out: shed.
    strangers: u64,
    refusals: u64,
    /// A time limit ended the connection before the peer had taken everything.
    lost: bool,
    bound: usize,
}

impl<'a> Rig<'a> {
    /// A connection that was just accepted.
    pub fn new(settings: &Settings, answers: &'a [u8], chunk: usize, over_limit: bool) -> Self {
        // Each for itself: what an agent was told once is news to the next.
        let (config, _) = settings.config.for_server();
        let conn = if over_limit {
            AgentConnection::over_limit(config, Peer::Unknown, start())
        } else {
            AgentConnection::new(config, Peer::Unknown, start())
        };
        Self {
            conn,
            now: start(),
            // What was offered is not known yet, but it is no less than this.
            output: Output::new(Writer::Agent, 256),
            written: Vec::new(),
            answers,
            asked: 0,
            events: Vec::new(),
            owed: VecDeque::new(),
            unanswered: HashMap::new(),
            strangers: 0,
            refusals: 0,
            lost: false,
            bound: settings.memory(chunk, ANSWER_MAX.min(settings.frame)),
        }
    }

    /// What happened.
    pub fn trace(self) -> Trace {
        Trace {
            reason: self.conn.close_reason().cloned(),
            stats: self.conn.stats(),
            events: self.events,
            output: self.written,
        }
    }

    /// The peer sends that.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        loop {
            let mut later = false;
            let mut failed = None;
            match self.conn.receive(&mut input, self.now) {
                Ok(Some(Event::Notify(notify, ack))) => {
                    let action = if self.answers.is_empty() {
                        0
                    } else {
                        self.answers[self.asked % self.answers.len()]
                    };
                    let ids = (notify.stream_id(), notify.frame_id());
                    let number = number(&notify);
                    self.asked += 1;
                    self.events.push(format!("Notify {ids:?}"));
                    *self.unanswered.entry(ids).or_default() += 1;
                    check_notify(&notify);
                    later = action & 0x80 != 0;
                    if let Some(owed) = handle(action, number, notify, ack) {
                        self.owed.push_back((number, owed));
                    }
                }
                Ok(Some(Event::Hello(info))) => {
                    let size = info.max_frame_size() as usize;
                    let offered = info.offered_max_frame_size();
                    self.output.limit = size;
                    self.output.ack_limit =
                        size.min(usize::try_from(offered - 1).unwrap_or(usize::MAX));
                    self.events.push(format!("Hello {info:?}"));
                }
                Ok(Some(event)) => self.events.push(format!("{event:?}")),
                Ok(None) => break,
                Err(error) => failed = Some(error),
            }
            if let Some(error) = failed {
                assert!(self.conn.close_reason().is_some(), "{error} without a reason");
                self.events.push(format!("{error:?}"));
            }
            if later {
                self.answer(0);
            }
        }
        assert!(input.is_empty(), "input is left over");
        self.check();
    }

    /// One of the deferred answers is ready.
    pub fn answer(&mut self, which: usize) {
        let Some(count) = self.owed.len().checked_sub(1) else { return };
        let Some((number, owed)) = self.owed.remove(which.min(count)) else { return };
        let (ticket, exchange) = match owed {
            Owed::Ticket(ticket) => (ticket, None),
            Owed::Exchange(ticket, exchange) => (ticket, Some(exchange)),
        };
        let waits = self.conn.owes(&ticket);
        match self.conn.answer(ticket, self.now) {
            Ok(mut ack) => {
                assert!(waits, "an answer to nothing");
                match exchange {
                    Some(mut exchange) => {
                        let _ = ack.answer_with(&mut exchange);
                    }
                    None => {
                        echo(&mut ack, number);
                    }
                }
            }
            Err(_) => assert!(!waits, "a ticket that is good was refused"),
        }
        self.check();
    }

    /// The deadline, or any other time.
    pub fn timeout(&mut self) {
        let unsent = !self.conn.transmit().is_empty();
        if let Err(error) = self.conn.handle_timeout(self.now) {
            assert!(self.conn.close_reason().is_some(), "{error} without a reason");
            self.events.push(format!("{error:?}"));
        }
        self.lost |= unsent && self.conn.interest().done;
        // Whatever was forgotten is answered now, so the books must balance.
        let stats = self.conn.stats();
        let told = stats.acks() + stats.elsewhere + stats.superseded + stats.abandoned;
        assert_eq!(stats.notifies, told + u64::from(self.conn.in_flight()), "{stats:?}");
        assert!(
            stats.abandoned == 0 || self.conn.close_reason().is_some(),
            "given up for no reason: {stats:?}"
        );
        self.check();
    }

    /// The peer takes that much.
    pub fn take(&mut self, bytes: usize) {
        let taken = bytes.min(self.conn.transmit().len());
        let output = self.conn.transmit()[..taken].to_vec();
        self.conn.transmitted(taken);
        self.taken(&output);
        self.check();
    }

    /// The peer takes everything, the buffer with it.
    pub fn swap(&mut self) {
        let expected = self.conn.transmit().to_vec();
        let mut buffer = b"junk".to_vec();
        self.conn.swap_output(&mut buffer);
        assert_eq!(buffer, expected, "a buffer is what transmit() showed");
        assert!(self.conn.transmit().is_empty());
        self.taken(&buffer);
        self.check();
    }

    fn taken(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
        for frame in self.output.push(bytes).iter().filter(|frame| frame.kind == 103) {
            if frame.flags == 3 {
                self.refusals += 1;
                continue;
            }
            let left = self.unanswered.entry((frame.stream, frame.frame)).or_default();
            *left -= 1;
            if *left < 0 {
                *left = 0;
                self.strangers += 1;
            }
        }
    }

    /// What is due at this instant, until nothing is. The peer takes output, or does not.
    pub fn settle(&mut self, takes: bool) {
        for _ in 0..TURNS {
            let want = self.conn.interest();
            let due = want.deadline.is_some_and(|at| at <= self.now);
            if want.done || !(due || want.ready || (takes && want.write)) {
                return;
            }
            if due {
                self.timeout();
            }
            if self.conn.interest().ready {
                self.feed(&[]);
            }
            if takes && self.conn.interest().write {
                self.take(usize::MAX);
            }
        }
        panic!("it spins: {:?}", self.conn.interest());
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// From here to its end: the peer closes, and takes what is left, or not even that.
    pub fn finish(&mut self, takes: bool) {
        self.timeout();
        self.settle(takes);
        self.conn.peer_closed(self.now);
        for _ in 0..100 {
            self.settle(takes);
            let want = self.conn.interest();
            if want.done {
                return self.check_end(takes);
            }
            self.now = want.deadline.expect("a connection that waits for its end has a deadline");
        }
        panic!("it does not end: {:?}", self.conn);
    }

    fn check_end(&mut self, took_all: bool) {
        self.timeout();
        let stats = self.conn.stats();
        assert!(self.conn.close_reason().is_some(), "no reason");
        assert_eq!(self.conn.in_flight(), 0);
        assert!(self.conn.transmit().is_empty(), "output of a connection that is over");
        let acks = self.output.count(103) as u64;
        assert!(acks <= stats.acks() + stats.refused, "more ACKs than answers: {stats:?}");
        assert!(self.strangers <= stats.shed, "{} ACKs nobody asked for", self.strangers);
        assert!(self.refusals <= stats.refused, "{} ABORTs, {stats:?}", self.refusals);
        if took_all && !self.lost {
            assert!(self.output.is_whole(), "the last frame was cut");
            // Those that are held back may be lost when the time to close is shorter than they are held.
            if stats.held == 0 {
                assert_eq!(acks, stats.acks() + stats.refused, "an answer was lost: {stats:?}");
            }
        }
    }

    /// What is always true.
    fn check(&self) {
        let want = self.conn.interest();
        let waits = want.read || want.write || want.ready || want.deadline.is_some();
        assert!(want.done || waits, "it waits for nothing: {:?}", self.conn);
        assert_eq!(want.write, !self.conn.transmit().is_empty() && !want.done);
        let held = self.conn.buffered();
        assert!(held <= self.bound, "{held} bytes exceed {}: {:?}", self.bound, self.conn);
    }
}

/// Whatever is handed to a handler was checked: the naive decoder must have no other view of it.
fn check_notify(notify: &Notify<'_>) {
    // It is slow, and what makes a payload so large is one long value.
    if notify.payload().len() > 4000 {
        return;
    }
    let naive = naive::messages(notify.payload()).expect("a handler sees good payloads only");
    compare::same_messages(notify.messages(), &naive);
    assert!(Messages::check(notify.payload()).is_ok());
}

/// The number that a question of [`Engine`](crate::engine::Engine) carries.
fn number(notify: &Notify<'_>) -> Option<u64> {
    notify.message("ask")?.get("n").ok()
}

/// Says which question the answer is for.
fn echo(ack: &mut Ack<'_>, number: Option<u64>) {
    if let Some(number) = number {
        let _ = ack.set(Scope::Transaction, "echo", number);
    }
}

/// A handler.
fn handle(action: u8, number: Option<u64>, notify: Notify<'_>, mut ack: Ack<'_>) -> Option<Owed> {
    echo(&mut ack, number);
    match action & 0x0f {
        0 => {}
        1 => drop(ack),
        2 => return Some(Owed::Ticket(ack.defer())),
        3 => ack.fall_back(Cause::Error),
        4 => mem::forget(ack),
        5 => fill(&mut ack, usize::from(action >> 4 & 7) * 400 + 100),
        6 => {
            let (ticket, mut exchange) = ack.detach(notify, None);
            let _ = exchange.set(Scope::Session, "moved", &b"x".repeat(usize::from(action))[..]);
            return Some(Owed::Exchange(ticket, exchange));
        }
        // The ticket is lost.
        7 => drop(ack.defer()),
        8 => {
            let _ = ack.unset(Scope::Request, "gone");
            ack.clear();
            let _ = ack.set(Scope::Process, "", 1);
            let _ = ack.set(Scope::Process, &"n".repeat(usize::from(action)), true);
        }
        9 => {
            let _ = ack.set(Scope::Response, "big", &[b'b'; 2900][..]);
        }
        10 => {
            let _ = ack.set(Scope::Response, "half", 1);
            mem::forget(ack);
        }
        _ => {
            let _ = ack.set(Scope::Transaction, "huge", HUGE);
            ack.commit();
        }
    }
    None
}

/// Sets variables until there are so many bytes, or no more fits.
fn fill(ack: &mut Ack<'_>, bytes: usize) {
    while ack.len() < bytes {
        if let Err(SetError::TooBig { .. }) =
            ack.set(Scope::Transaction, "fill", "fifty bytes of it")
        {
            return;
        }
    }
}
