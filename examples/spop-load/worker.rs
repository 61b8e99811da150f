//! A thread of the load: some connections, and one loop that waits for them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};

use crate::Shared;
use crate::args::Args;
use crate::connection::Connection;
use crate::payload::Template;

/// The longest wait of the loop: limits of time and the stop are looked at that often.
const TICK: Duration = Duration::from_millis(20);
/// What epoll cannot wait for exactly: shorter waits are spent polling.
const GRAIN: Duration = Duration::from_millis(1);
/// Bytes read at once.
const READ: usize = 256 * 1024;
/// How long to wait for the last answers besides their own time limit.
const GRACE: Duration = Duration::from_secs(1);
/// Stream-ids that a connection with the old dialect has to itself.
const STREAMS: u64 = 1 << 32;
/// The longest latency that is told from longer ones: a minute, in ns.
const LONGEST: u64 = 60_000_000_000;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What became of all NOTIFYs.
#[derive(Debug)]
pub(crate) struct Tally {
    /// From when on answers count.
    from: Instant,
    /// When the last one came.
    last: Instant,
    /// Latencies in ns.
    pub(crate) latencies: Histogram<u64>,
    /// All right answers, those of the warm-up too.
    pub(crate) answers: u64,
    /// Answers that did not say what they should, or that nobody asked for.
    pub(crate) wrong: u64,
    /// NOTIFYs that ended with an error of HAProxy's side, by its code.
    pub(crate) failed: BTreeMap<u32, u64>,
    /// NOTIFYs without any end when the patience was over.
    pub(crate) lost: u64,
    /// Open loop: due, but never asked.
    pub(crate) unasked: u64,
    /// Breaches of the protocol.
    pub(crate) broken: u64,
    /// Connections made.
    pub(crate) connections: u64,
    /// What went wrong first.
    pub(crate) first_error: Option<String>,
}

impl Tally {
    /// Counts from then on.
    pub(crate) fn new(from: Instant) -> Result<Self, Fault> {
        Ok(Self {
            from,
            last: from,
            latencies: Histogram::new_with_bounds(1, LONGEST, 3)?,
            answers: 0,
            wrong: 0,
            failed: BTreeMap::new(),
            lost: 0,
            unasked: 0,
            broken: 0,
            connections: 0,
            first_error: None,
        })
    }

    /// Counts an answer to what was to be asked at `due`.
    pub(crate) fn answered(&mut self, due: Instant, now: Instant) {
        self.answers += 1;
        if due >= self.from {
            self.last = now;
            let nanos = u64::try_from(now.duration_since(due).as_nanos()).unwrap_or(u64::MAX);
            self.latencies.saturating_record(nanos);
        }
    }

    /// The time in which the answers with a latency came.
    pub(crate) fn time(&self) -> Duration {
        self.last.duration_since(self.from)
    }

    /// Adds what another thread counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.last = self.last.max(other.last);
        // Both have the same range.
        let _ = self.latencies.add(&other.latencies);
        self.answers += other.answers;
        self.wrong += other.wrong;
        for (code, count) in &other.failed {
            *self.failed.entry(*code).or_default() += count;
        }
        self.lost += other.lost;
        self.unasked += other.unasked;
        self.broken += other.broken;
        self.connections += other.connections;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
    }

    /// Every NOTIFY got its answer, and there was one.
    pub(crate) fn is_flawless(&self) -> bool {
        self.answers > 0
            && self.failed.is_empty()
            && self.first_error.is_none()
            && (self.wrong, self.lost, self.unasked, self.broken) == (0, 0, 0, 0)
    }
}

/// A thread's connections.
#[derive(Debug)]
pub(crate) struct Worker {
    args: Arc<Args>,
    shared: Arc<Shared>,
    template: Template,
    poll: Poll,
    connections: Vec<Option<Connection>>,
    /// Connections with something to write.
    dirty: Vec<usize>,
    tally: Tally,
    /// Which thread, and how many connections were made on it: for ids of their own.
    index: u64,
    /// When what is due was due; empty in a closed loop.
    backlog: VecDeque<Instant>,
    /// NOTIFYs that have come due.
    due: u64,
    /// Where the search for a connection with room goes on.
    cursor: usize,
}

impl Worker {
    /// Makes its share of the connections.
    pub(crate) fn new(
        index: usize,
        args: Arc<Args>,
        template: Template,
        shared: Arc<Shared>,
        start: Instant,
    ) -> Result<Self, Fault> {
        let (all, threads) = (args.connections.get(), args.threads.get());
        let share = all / threads + usize::from(index < all % threads);
        let mut worker = Self {
            tally: Tally::new(start + args.warm_up)?,
            args,
            shared,
            template,
            poll: Poll::new()?,
            connections: Vec::new(),
            dirty: Vec::new(),
            index: u64::try_from(index)?,
            backlog: VecDeque::new(),
            due: 0,
            cursor: 0,
        };
        for token in 0..share {
            let connection = worker.open(token)?;
            worker.connections.push(Some(connection));
        }
        Ok(worker)
    }

    /// Asks and checks until told to stop, or until everything was asked.
    pub(crate) fn run(mut self, start: Instant) -> Tally {
        if let Err(error) = self.turns(start) {
            self.tally.first_error.get_or_insert_with(|| error.to_string());
        }
        self.tally.lost += self.connections.iter().flatten().map(in_flight).sum::<u64>();
        self.tally.unasked = u64::try_from(self.backlog.len()).unwrap_or(u64::MAX);
        self.shared.running.fetch_sub(1, Ordering::Relaxed);
        self.tally
    }

    fn turns(&mut self, start: Instant) -> Result<(), Fault> {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; READ];
        let mut swept = start;
        let (mut patience, mut leaving) = (None, false);
        let mut told = 0;
        for index in 0..self.connections.len() {
            self.tend(index)?;
        }
        loop {
            let now = Instant::now();
            if patience.is_none() && (self.shared.stop.load(Ordering::Relaxed) || self.is_done()) {
                patience = Some(now + self.args.timeout + GRACE);
            }
            // What was due before the stop is asked yet.
            if patience.is_some() && !leaving && self.backlog.is_empty() {
                leaving = true;
                self.connections.iter_mut().flatten().for_each(|connection| connection.leave(now));
                (0..self.connections.len()).try_for_each(|index| self.tend(index))?;
            }
            let wait = if leaving { TICK } else { self.come_due(start, now)? };
            self.flush(now);
            if patience.is_some_and(|patience| now >= patience)
                || self.connections.iter().all(Option::is_none)
            {
                return Ok(());
            }
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(error.into());
                }
                _ => {}
            }
            for event in &events {
                let Token(index) = event.token();
                if let Some(Some(connection)) = self.connections.get_mut(index) {
                    connection.read(&mut scratch, &self.args, &mut self.tally);
                    self.tend(index)?;
                }
            }
            let now = Instant::now();
            if now.duration_since(swept) >= TICK {
                swept = now;
                let more = self.tally.answers - mem::replace(&mut told, self.tally.answers);
                self.shared.answered.fetch_add(more, Ordering::Relaxed);
                for index in 0..self.connections.len() {
                    if let Some(Some(connection)) = self.connections.get_mut(index) {
                        connection.look_at_clock(now, &self.args, &mut self.tally);
                        self.tend(index)?;
                    }
                }
            }
        }
    }

    /// What a connection is to do next: ask more, write, or make room for another one.
    fn tend(&mut self, index: usize) -> Result<(), Fault> {
        let now = Instant::now();
        if self.args.rate.is_none() {
            while self.has_room(index) && self.claim() {
                if !self.ask(index, now, now)? {
                    self.shared.asked.fetch_sub(1, Ordering::Relaxed);
                    break;
                }
            }
        }
        let Some(slot) = self.connections.get_mut(index) else { return Ok(()) };
        let Some(connection) = slot else { return Ok(()) };
        connection.write(now, &self.args, &mut self.tally);
        if connection.is_over() {
            if let Some(over) = slot.take() {
                self.tally.lost += in_flight(&over);
                over.close(self.poll.registry());
            }
            if !self.shared.stop.load(Ordering::Relaxed) && !self.is_done() {
                let connection = self.open(index)?;
                if let Some(slot) = self.connections.get_mut(index) {
                    *slot = Some(connection);
                }
            }
        }
        Ok(())
    }

    /// Open loop: asks what has come due, where there is room; returns how long to wait for more.
    fn come_due(&mut self, start: Instant, now: Instant) -> Result<Duration, Fault> {
        let Some(rate) = self.args.rate else { return Ok(TICK) };
        let threads = u128::from(u64::try_from(self.args.threads.get())?);
        let at = |n: u64| {
            let nanos = u128::from(n) * 1_000_000_000 * threads / u128::from(rate.get());
            start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        while at(self.due) <= now && self.claim() {
            self.backlog.push_back(at(self.due));
            self.due += 1;
        }
        let mut full = 0;
        while full < self.connections.len()
            && let Some(due) = self.backlog.front().copied()
        {
            let index = self.cursor;
            self.cursor = (self.cursor + 1) % self.connections.len();
            if self.has_room(index) && self.ask(index, due, now)? {
                self.backlog.pop_front();
                self.dirty.push(index);
                full = 0;
            } else {
                full += 1;
            }
        }
        let wait = at(self.due).saturating_duration_since(now);
        Ok(if wait < GRAIN { Duration::ZERO } else { wait.min(TICK) })
    }

    fn flush(&mut self, now: Instant) {
        let mut dirty = mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            if let Some(Some(connection)) = self.connections.get_mut(index) {
                connection.write(now, &self.args, &mut self.tally);
            }
        }
        self.dirty = dirty;
    }

    fn open(&mut self, index: usize) -> Result<Connection, Fault> {
        let streams = (self.index << 56) + self.tally.connections * STREAMS;
        self.tally.connections += 1;
        Connection::open(&self.args, streams, self.poll.registry(), Token(index))
    }

    fn has_room(&self, index: usize) -> bool {
        matches!(self.connections.get(index), Some(Some(connection)) if connection.has_room())
    }

    fn ask(&mut self, index: usize, due: Instant, now: Instant) -> Result<bool, Fault> {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return Ok(false) };
        Ok(connection.ask(&mut self.template, due, now)?)
    }

    /// Whether one more may be asked, which then has to be.
    fn claim(&self) -> bool {
        if self.shared.stop.load(Ordering::Relaxed) {
            return false;
        }
        let Some(count) = self.args.count else { return true };
        if self.shared.asked.fetch_add(1, Ordering::Relaxed) < count {
            return true;
        }
        self.shared.asked.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// With --count: everything was asked and answered.
    fn is_done(&self) -> bool {
        let count = self.args.count.unwrap_or(u64::MAX);
        self.shared.asked.load(Ordering::Relaxed) >= count
            && self.backlog.is_empty()
            && self.connections.iter().flatten().all(|connection| connection.in_flight() == 0)
    }
}

fn in_flight(connection: &Connection) -> u64 {
    u64::try_from(connection.in_flight()).unwrap_or(u64::MAX)
}
