//! Handlers on threads of their own: a reader for each connection, and a pool that all share.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use spop_proto::driver::Pad;
use spop_proto::server::{Closed, Warnings};
use spop_proto::stats::Tally;
use spop_proto::{
    AgentConfig, AgentConnection, Cause, Event, Exchange, Notify, RequestId, Service, Ticket,
};

use crate::connection::{Chunk, LOOK, Leaving, Scratch, WRITE, give_up, is_time_limit};
use crate::listener::Socket;
use crate::log;

/// Exchanges a connection keeps, whose memory serves the next NOTIFYs.
const SPARE: usize = 32;

/// A NOTIFY that waits for a worker.
struct Job<T> {
    connection: Arc<Connection<T>>,
    ticket: Ticket,
    exchange: Exchange,
}

/// The way to the workers. They end when the last of these is gone.
pub(crate) struct Pool<T> {
    jobs: SyncSender<Job<T>>,
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone() }
    }
}

impl<T: Socket> Pool<T> {
    /// Starts the workers.
    pub(crate) fn start<S: Service>(
        threads: usize,
        waiting: usize,
        config: &AgentConfig,
        service: &Arc<S>,
        warnings: &Arc<Warnings>,
    ) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(waiting);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let worker = Worker {
                queue: Arc::clone(&queue),
                service: Arc::clone(service),
                warnings: Arc::clone(warnings),
                request_id: config.request_id_argument().cloned(),
                pad: Pad::new(config.clone(), Instant::now()),
            };
            let thread = thread::Builder::new().name(format!("spop-worker-{number}"));
            thread.spawn(move || worker.run())?;
        }
        Ok(Self { jobs })
    }
}

struct Worker<T, S> {
    queue: Arc<Mutex<Receiver<Job<T>>>>,
    service: Arc<S>,
    warnings: Arc<Warnings>,
    pad: Pad,
    /// The argument that names requests in the log.
    request_id: Option<Arc<str>>,
}

impl<T: Socket, S: Service> Worker<T, S> {
    fn run(mut self) {
        let mut id = Vec::new();
        loop {
            // The lock is held while waiting: the others wait for it instead.
            let job = self.queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Job { connection, ticket, exchange }) = job else { return };
            let ids = (exchange.stream_id(), exchange.frame_id());
            let service = &self.service;
            // The handler may keep the request, so this is copied before.
            RequestId::of(exchange.notify(), self.request_id.as_deref()).copy_to(&mut id);
            let mut answered = self.pad.answer(exchange, |notify, ack| {
                service.notify(notify, ack)?;
                log::answered(&notify, ack.len());
                Ok(())
            });
            let now = Instant::now();
            let mut state = connection.lock();
            let owed_for = state.conn.owed_for(&ticket, now);
            if owed_for.is_some() {
                state.names.answered(ids);
            }
            // A stale ticket is no fault: the deadline was first, or the connection has ended.
            let failure = match (state.conn.answer(ticket, now), &mut answered) {
                (Ok(ack), Ok(exchange)) => ack.answer_with(exchange).err(),
                (Ok(ack), Err(failure)) => {
                    ack.fall_back(failure.cause());
                    None
                }
                (Err(_), _) => None,
            };
            if let Some(time) = owed_for {
                state.tally.answered(time);
            }
            if let Some(failure) = failure.as_ref().or_else(|| answered.as_ref().err()) {
                log::failed(&self.warnings, failure, RequestId::copied(&id), now);
            }
            if let Ok(exchange) = answered {
                state.keep(exchange);
            }
            if state.leaving {
                // The goodbye in one write with the last answer.
                state.conn.shutdown(now);
            }
            // So does a connection that is old, which would miss its moment once this is written.
            state.handle_timeout(&self.warnings, now);
            if !state.stuck {
                state.write(&connection.socket, now);
            }
            state.publish(&self.warnings, now);
            drop(state);
            connection.changed.notify_one();
        }
    }
}

/// What the reader and the workers of a connection share: whoever has the lock may write, so
/// frames cannot mix.
struct Connection<T> {
    socket: T,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    conn: AgentConnection,
    /// The last write ran into its time limit: only the reader tries again, or a peer that does
    /// not read would hold up the workers.
    stuck: bool,
    /// Told to leave, as soon as nothing is owed.
    leaving: bool,
    spare: Vec<Exchange>,
    tally: Tally,
    names: Names,
}

/// The ids of the requests that workers have, in the order they came in. Kept where requests have ids:
/// when one is late its worker has it.
#[derive(Default)]
struct Names {
    argument: Option<Arc<str>>,
    waiting: VecDeque<(u64, u64, Vec<u8>)>,
}

impl Names {
    fn add(&mut self, notify: Notify<'_>) {
        if self.argument.is_some() {
            // Asked anew, there is nobody who waits for the first answer.
            self.answered((notify.stream_id(), notify.frame_id()));
            let mut id = Vec::new();
            RequestId::of(notify, self.argument.as_deref()).copy_to(&mut id);
            self.waiting.push_back((notify.stream_id(), notify.frame_id(), id));
        }
    }

    /// Nobody waits any more for the answer with that stream-id and frame-id.
    fn answered(&mut self, ids: (u64, u64)) {
        let at = self.waiting.iter().position(|(stream, frame, _)| (*stream, *frame) == ids);
        self.waiting.remove(at.unwrap_or(usize::MAX));
    }

    fn oldest(&mut self) -> Option<Vec<u8>> {
        self.waiting.pop_front().map(|(_, _, id)| id)
    }
}

impl<T: Socket> Connection<T> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The clock was read.
    fn tick(&mut self, now: Instant) {
        self.tally.clock(&self.conn, now);
    }

    fn keep(&mut self, exchange: Exchange) {
        if self.spare.len() < SPARE {
            self.spare.push(exchange);
        }
    }

    fn handle_timeout(&mut self, warnings: &Warnings, now: Instant) {
        let peer = self.conn.info().peer();
        let before = self.conn.stats().deadlines;
        if let Err(error) = self.conn.handle_timeout(now) {
            log::broken(warnings, peer, &error, now);
        }
        for _ in before..self.conn.stats().deadlines {
            // Each has the same time, so those that are late are the oldest.
            let id = self.names.oldest();
            log::late(warnings, peer, RequestId::copied(id.as_deref().unwrap_or_default()), now);
        }
    }

    fn publish(&mut self, warnings: &Warnings, now: Instant) {
        let Self { tally, conn, .. } = self;
        tally.publish(conn, || now, |notice| log::noticed(warnings, &notice, now));
    }

    fn write(&mut self, socket: &impl Socket, now: Instant) {
        self.stuck = false;
        while !self.conn.transmit().is_empty() && !self.stuck {
            match socket.write(self.conn.transmit()) {
                Ok(written @ 1..) => {
                    self.conn.transmitted(written);
                    self.tally.sent(written);
                }
                Err(error) if is_time_limit(&error) => self.stuck = true,
                Ok(0) | Err(_) => give_up(&mut self.conn, now),
            }
        }
    }

    /// Hands each NOTIFY in `input` to the workers; beyond what they can take it is shed.
    fn receive<T: Socket>(
        &mut self,
        mut input: &[u8],
        shared: &Arc<Connection<T>>,
        pool: &Pool<T>,
        warnings: &Warnings,
        now: Instant,
    ) {
        let peer = self.conn.info().peer();
        self.tally.received(input.len());
        loop {
            let (ticket, exchange) = match self.conn.receive(&mut input, now) {
                Ok(Some(Event::Notify(notify, ack))) => {
                    log::asked(&notify);
                    self.names.add(notify);
                    ack.detach(notify, self.spare.pop())
                }
                Ok(Some(event)) => {
                    log::happened(peer, &event);
                    continue;
                }
                Ok(None) => return,
                Err(error) => {
                    log::broken(warnings, peer, &error, now);
                    continue;
                }
            };
            let job = Job { connection: Arc::clone(shared), ticket, exchange };
            let refused = match pool.jobs.try_send(job) {
                Ok(()) => continue,
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job,
            };
            if let Ok(ack) = self.conn.answer(refused.ticket, now) {
                ack.fall_back(Cause::Shed);
                self.names.answered((refused.exchange.stream_id(), refused.exchange.frame_id()));
            }
            self.keep(refused.exchange);
        }
    }
}

/// Reads a connection to its end; `stopping` says whether the server is.
pub(crate) fn serve<T: Socket>(
    socket: T,
    conn: AgentConnection,
    pool: &Pool<T>,
    warnings: &Warnings,
    stopping: impl Fn() -> bool,
) -> Closed {
    // Where this fails the socket is dead, and the first read will say so.
    let _ = socket.set_write_timeout(WRITE);
    let tally = Tally::new(&conn);
    let argument = conn.config().request_id_argument().cloned();
    let names = Names { argument, ..Names::default() };
    let state = State { conn, stuck: false, leaving: false, spare: Vec::new(), tally, names };
    let state = Mutex::new(state);
    let shared = Arc::new(Connection { socket, state, changed: Condvar::new() });
    let mut scratch = Scratch::new();
    let mut leaving = Leaving::default();
    let mut read_limit = None;
    let mut state = shared.lock();
    loop {
        let now = Instant::now();
        state.tick(now);
        let want = state.conn.interest();
        if want.done {
            break;
        }
        if want.deadline.is_some_and(|at| at <= now) {
            state.handle_timeout(warnings, now);
            continue;
        }
        if want.ready {
            state.receive(&[], &shared, pool, warnings, now);
            continue;
        }
        state.write(&shared.socket, now);
        // Taken output may have made room for input that waits here.
        let want = state.conn.interest();
        if want.ready {
            continue;
        }
        let time = leaving.read_for(stopping(), want.deadline, now);
        state.publish(warnings, now);
        if !want.read {
            // Until a worker has answered, or the peer has taken something.
            let waited = shared.changed.wait_timeout(state, time.min(LOOK));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        // Reading needs no lock: answers go out meanwhile.
        drop(state);
        if read_limit != Some(time) && shared.socket.set_read_timeout(time).is_ok() {
            read_limit = Some(time);
        }
        let read = scratch.read(|buffer| shared.socket.read(buffer));
        state = shared.lock();
        let now = Instant::now();
        state.tick(now);
        if state.conn.interest().ready {
            // A worker has given the last answer owed while this thread was reading: the moment to
            // leave, which would be over once the next request is in hand.
            state.receive(&[], &shared, pool, warnings, now);
        }
        let filled = match read {
            Ok(Chunk { bytes: bytes @ [_, ..], filled }) => {
                state.receive(bytes, &shared, pool, warnings, now);
                Some(filled)
            }
            Err(error) if is_time_limit(&error) => None,
            Ok(_) | Err(_) => {
                state.conn.peer_closed(now);
                None
            }
        };
        if leaving.now(filled, now) {
            state.leaving = true;
            state.conn.shutdown(now);
        }
    }
    // A handler may still run and hold the socket; the peer need not wait for that.
    shared.socket.shutdown();
    state.publish(warnings, Instant::now());
    Closed::new(state.conn.close_reason().cloned(), *state.conn.stats())
}
