//! Handlers on threads of their own: a reader for each connection, and a pool that all share.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use spop_proto::driver::Pad;
use spop_proto::server::{Closed, Warnings};
use spop_proto::stats::Tally;
use spop_proto::{
    AgentConfig, AgentConnection, Cause, Event, Exchange, Notify, RequestId, Service, Ticket,
};

use crate::connection::{Chunk, LOOK, Leaving, Scratch, WRITE, give_up, is_time_limit};
use crate::listener::Socket;
use crate::log;

/// Exchanges a connection keeps, whose memory serves the next NOTIFYs, and the largest request of one that
/// is kept.
const SPARE: usize = 32;
const SPARE_BYTES: usize = 16 * 1024;

/// How long a write that was stuck is tried again at most.
const WRITE_AGAIN: Duration = Duration::from_millis(1);

/// A NOTIFY that waits for a worker.
struct Job<T> {
    connection: Arc<Connection<T>>,
    ticket: Ticket,
    exchange: Exchange,
}

/// The way to the workers. They end when the last of these is gone.
pub(crate) struct Pool<T> {
    jobs: SyncSender<Job<T>>,
    /// Bytes of requests in the queue: also of those that are owed no more, as their time was up.
    queued: Arc<AtomicUsize>,
    most: usize,
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), queued: Arc::clone(&self.queued), most: self.most }
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
        let queued = Arc::<AtomicUsize>::default();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..threads {
            let worker = Worker {
                queue: Arc::clone(&queue),
                queued: Arc::clone(&queued),
                service: Arc::clone(service),
                warnings: Arc::clone(warnings),
                request_id: config.request_id_argument().cloned(),
                pad: Pad::new(config.clone(), Instant::now()),
            };
            let thread = thread::Builder::new().name(format!("spop-worker-{number}"));
            thread.spawn(move || worker.run())?;
        }
        Ok(Self { jobs, queued, most: config.current_limits().max_agent_in_flight_bytes() })
    }

    /// Gives the job back where there is no room for it, or nobody to do it.
    fn send(&self, job: Job<T>) -> Result<(), Job<T>> {
        let bytes = job.bytes();
        if self.queued.load(Ordering::Relaxed) >= self.most {
            return Err(job);
        }
        self.queued.fetch_add(bytes, Ordering::Relaxed);
        self.jobs.try_send(job).map_err(|error| {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            let (TrySendError::Full(job) | TrySendError::Disconnected(job)) = error;
            job
        })
    }
}

impl<T> Job<T> {
    fn bytes(&self) -> usize {
        self.exchange.notify().payload().len()
    }
}

struct Worker<T, S> {
    queue: Arc<Mutex<Receiver<Job<T>>>>,
    queued: Arc<AtomicUsize>,
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
            let Ok(job) = job else { return };
            self.queued.fetch_sub(job.bytes(), Ordering::Relaxed);
            let Job { connection, ticket, exchange } = job;
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
            let answered = match answered {
                Ok(exchange) => {
                    state.keep(exchange);
                    failure
                }
                Err(failure) => Some(failure),
            };
            if let Some(failure) = answered {
                log::failed(&self.warnings, failure, RequestId::copied(&id), now);
            }
            if state.leaving {
                // The goodbye in one write with the last answer.
                state.conn.shutdown(now);
            }
            // So does a connection that is old, which would miss its moment once this is written.
            state.handle_timeout(&self.warnings, now);
            if state.stuck.is_none() {
                state.write(&connection.socket, WRITE, now);
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
    /// When the last write ran into its time limit: only the reader tries again, or a peer that does
    /// not read would hold up the workers.
    stuck: Option<Instant>,
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
        let small = exchange.notify().payload().len() <= SPARE_BYTES;
        if small && self.spare.len() < SPARE {
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
        if self.conn.buffered() == 0 {
            // Idle: it gives back what it has.
            self.spare = Vec::new();
        }
    }

    fn publish(&mut self, warnings: &Warnings, now: Instant) {
        let Self { tally, conn, .. } = self;
        tally.publish(conn, || now, |notice| log::noticed(warnings, &notice, now));
    }

    /// Writes what there is, for `limit` at most: nobody else has the connection meanwhile.
    fn write(&mut self, socket: &impl Socket, limit: Duration, now: Instant) {
        let mut began = None;
        self.stuck = None;
        while !self.conn.transmit().is_empty() && self.stuck.is_none() {
            let limited = match socket.write(self.conn.transmit()) {
                Ok(written @ 1..) => {
                    self.conn.transmitted(written);
                    self.tally.sent(written);
                    !self.conn.transmit().is_empty()
                        && began.get_or_insert_with(Instant::now).elapsed() >= limit
                }
                Err(error) if is_time_limit(&error) => true,
                Ok(0) | Err(_) => {
                    give_up(&mut self.conn, now);
                    false
                }
            };
            if limited {
                self.stuck = Some(Instant::now());
            }
        }
    }

    /// Tries again what was stuck, now and then and not for long: workers wait for the lock.
    fn write_again(&mut self, socket: &impl Socket, since: Instant, now: Instant) {
        if now.saturating_duration_since(since) >= WRITE {
            let _ = socket.set_write_timeout(WRITE_AGAIN);
            self.write(socket, WRITE_AGAIN, now);
            let _ = socket.set_write_timeout(WRITE);
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
            let Err(refused) = pool.send(job) else { continue };
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
    let state = State { conn, stuck: None, leaving: false, spare: Vec::new(), tally, names };
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
        match state.stuck {
            None => state.write(&shared.socket, WRITE, now),
            Some(since) => state.write_again(&shared.socket, since, now),
        }
        // Taken output may have made room for input that waits here.
        let want = state.conn.interest();
        if want.ready {
            continue;
        }
        let time = leaving.read_for(stopping(), want.deadline, now);
        let time = if state.stuck.is_some() { time.min(WRITE) } else { time };
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
    Closed::new(state.conn.close_reason().cloned(), state.conn.stats())
}

#[cfg(test)]
#[expect(clippy::unreachable, reason = "a test: a panic is its way to fail")]
mod tests {
    use spop_proto::wire::NotifyPayload;
    use spop_proto::{Dialect, EngineConfig, EngineConnection, Peer};

    use super::*;

    /// A connection that was asked once, with an argument of that many bytes, and the request.
    fn asked(bytes: usize, now: Instant) -> (State, Exchange) {
        let config = EngineConfig::new(Dialect::New).max_frame_size(1 << 20).unwrap();
        let mut engine = EngineConnection::new(config, now);
        let conn = AgentConnection::new(AgentConfig::new(), Peer::Unknown, now);
        let tally = Tally::new(&conn);
        let names = Names::default();
        let mut state =
            State { conn, stuck: None, leaving: false, spare: Vec::new(), tally, names };
        let payload = NotifyPayload::new("m").arg("a", &vec![0; bytes]);
        for _ in 0..2 {
            let mut input = engine.transmit();
            let detached = match state.conn.receive(&mut input, now).unwrap() {
                Some(Event::Notify(notify, ack)) => Some(ack.detach(notify, None)),
                _ => None,
            };
            if let Some((ticket, exchange)) = detached {
                state.conn.answer(ticket, now).unwrap().commit();
                return (state, exchange);
            }
            let sent = engine.transmit().len();
            engine.transmitted(sent);
            let hello = state.conn.transmit().to_vec();
            state.conn.transmitted(hello.len());
            let _ = engine.receive(&mut &hello[..], now).unwrap();
            engine.notify(payload.as_bytes().unwrap(), now).unwrap();
        }
        unreachable!("asked in the second round");
    }

    /// A socket that nobody reads from: what was done to it.
    #[derive(Default)]
    struct Full(Mutex<Vec<String>>);

    impl Full {
        fn note(&self, what: String) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        }
    }

    impl Socket for Full {
        fn read(&self, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }

        fn write(&self, _: &[u8]) -> io::Result<usize> {
            self.note("write".to_owned());
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn shutdown(&self) {}

        fn set_read_timeout(&self, _: Duration) -> io::Result<()> {
            Ok(())
        }

        fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
            self.note(format!("{time:?}"));
            Ok(())
        }
    }

    #[test]
    fn what_is_stuck_is_tried_again_now_and_then_and_not_for_long() {
        let now = Instant::now();
        let (mut state, _) = asked(100, now);
        let socket = Full::default();
        state.write(&socket, WRITE, now);
        let since = state.stuck.unwrap();
        state.write_again(&socket, since, since);
        state.write_again(&socket, since, since + WRITE / 2);
        state.write_again(&socket, since, since + WRITE);
        assert!(state.stuck.is_some());
        let done = socket.0.into_inner().unwrap();
        assert_eq!(done, ["write", "1ms", "write", "50ms"]);
    }

    #[test]
    fn memory_of_requests_is_kept_if_it_is_little_and_until_nothing_happens() {
        let now = Instant::now();
        let (mut state, exchange) = asked(SPARE_BYTES + 1, now);
        state.keep(exchange);
        assert!(state.spare.is_empty(), "too large");
        let (mut state, exchange) = asked(100, now);
        state.keep(exchange);
        assert_eq!(state.spare.len(), 1);
        let sent = state.conn.transmit().len();
        state.conn.transmitted(sent);
        let idle = state.conn.interest().deadline.unwrap();
        state.handle_timeout(&Warnings::default(), idle);
        assert!(state.spare.is_empty(), "idle");
    }
}
