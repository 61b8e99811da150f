//! The driver of the asynchronous adapters, over I/O that follows a script: short reads and writes, none at
//! all, errors; futures that are ready at once, later, never, that fail and that panic.

use std::cell::RefCell;
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use spop_proto::driver::Driver;
use spop_proto::{AgentConnection, Exchange, HandlerError, Peer, Scope, Turn};

use crate::hello;
use crate::output::{Output, Writer};
use crate::script::Script;
use crate::settings::{Settings, ms, start};

/// Turns without a reason to wait before it is said to spin.
const TURNS: usize = 10_000;

/// How a future ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answer,
    Fail,
    Panic,
}

#[derive(Debug, Default)]
struct State {
    end: Option<End>,
    waker: Option<Waker>,
    dropped: bool,
}

/// A handler's future.
#[derive(Debug)]
struct Job {
    state: Rc<RefCell<State>>,
    exchange: Option<Exchange>,
}

impl Future for Job {
    type Output = Result<Exchange, HandlerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let end = self.state.borrow().end;
        let Some(end) = end else {
            self.state.borrow_mut().waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let Some(exchange) = self.exchange.take() else { panic!("polled after its end") };
        Poll::Ready(match end {
            End::Answer => Ok(exchange),
            End::Fail => Err(HandlerError::new("no answer")),
            // Past the hook that would end the process.
            End::Panic => resume_unwind(Box::new("a handler panicked")),
        })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.state.borrow_mut().dropped = true;
    }
}

/// Whether the task of the driver is to run.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Task<'a> {
    driver: Driver<Job>,
    woken: Arc<Woken>,
    waker: Waker,
    now: Instant,
    answers: &'a [u8],
    asked: usize,
    jobs: Vec<Rc<RefCell<State>>>,
    wire: &'a [u8],
    output: Output,
    /// Writing failed, or a time limit ended the connection before everything was written.
    lost: bool,
}

/// One input: what the peer sends, and a script for the rest.
pub fn run(data: &[u8]) {
    let (mut script, wire) = Script::split(data);
    let how = script.byte();
    let settings = Settings::read(&mut script);
    let answers = script.byte();
    let answers = script.take(usize::from(answers % 16));
    let mut bytes = match how & 3 {
        1 => hello::haproxy(16_380, "pipelining,async"),
        2 => hello::haproxy(16_380, "pipelining"),
        3 => hello::haproxy(256, ""),
        _ => Vec::new(),
    };
    bytes.extend_from_slice(wire);
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let conn = AgentConnection::new(settings.config.clone(), Peer::Unknown, start());
    let mut task = Task {
        driver: Driver::new(conn),
        woken,
        waker,
        now: start(),
        answers,
        asked: 0,
        jobs: Vec::new(),
        wire: &bytes,
        output: Output::new(Writer::Agent, settings.frame),
        lost: false,
    };
    while !script.spent() {
        let op = script.byte();
        let much = usize::from(op >> 4);
        match op & 0x0f {
            0..=3 => task.run(much * much, usize::from(op & 3) * 40),
            4 | 5 => task.run(4096, usize::MAX),
            6..=8 => task.complete(much, End::Answer),
            9 => task.complete(much, End::Fail),
            10 => task.complete(much, End::Panic),
            11 => task.now += ms(much as u64 * 9),
            12 => {
                if let Some(at) = task.driver.interest().deadline {
                    task.now = task.now.max(at);
                }
            }
            13 if much == 1 => task.driver.leave(),
            14 if much == 1 => task.break_off(true),
            15 if much == 1 => task.break_off(false),
            _ => {}
        }
    }
    task.end();
}

impl Task<'_> {
    /// Turns as long as there is a reason for one: bytes to read, room to write, a waker, a deadline.
    fn run(&mut self, mut readable: usize, mut writable: usize) {
        for _ in 0..TURNS {
            let want = self.driver.interest();
            if want.done {
                return;
            }
            let due = want.deadline.is_some_and(|at| at <= self.now);
            let reads = want.read && readable > 0 && !self.wire.is_empty();
            let writes = want.write && writable > 0;
            let woken = self.woken.0.swap(false, Ordering::SeqCst);
            if !(due || reads || writes || woken || want.ready) {
                assert!(
                    want.read || want.write || want.deadline.is_some(),
                    "it waits for nothing: {:?}",
                    self.driver
                );
                return;
            }
            self.turn(&mut readable, &mut writable);
        }
        panic!("it spins: {:?}", self.driver.interest());
    }

    /// A turn as the adapters take it.
    fn turn(&mut self, readable: &mut usize, writable: &mut usize) {
        let waker = self.waker.clone();
        let context = Context::from_waker(&waker);
        let log = &mut |_: spop_proto::driver::Notice<'_>| {};
        self.driver.poll_answers(&context, self.now, &mut self.driver.tally(), log);
        let want = self.driver.interest();
        let mut read = want.ready;
        if want.ready {
            self.receive(&[], &context);
        } else if want.read {
            let count = (*readable).min(self.wire.len());
            let (chunk, rest) = self.wire.split_at(count);
            self.wire = rest;
            *readable -= count;
            read = count > 0;
            if read {
                self.receive(chunk, &context);
            }
        }
        self.driver.after_read(read, read && !self.wire.is_empty() && *readable > 0, self.now);
        let count = (*writable).min(self.driver.transmit().len());
        let output = self.driver.transmit()[..count].to_vec();
        *writable -= count;
        self.driver.transmitted(count);
        self.output.push(&output);
        if self.driver.interest().deadline.is_some_and(|at| at <= self.now) {
            let unsent = !self.driver.transmit().is_empty();
            self.driver.handle_timeout(self.now, log);
            self.lost |= unsent && self.driver.interest().done;
        }
    }

    fn receive(&mut self, chunk: &[u8], context: &Context<'_>) {
        let Self { driver, answers, asked, jobs, now, .. } = self;
        let serve = |notify: spop_proto::Notify<'_>,
                     ack: &mut spop_proto::Ack<'_>,
                     own: &mut dyn FnMut() -> Exchange| {
            let action = if answers.is_empty() { 0 } else { answers[*asked % answers.len()] };
            *asked += 1;
            assert!(crate::naive::messages(notify.payload()).is_some());
            let _ = ack.set(Scope::Transaction, "before", 1);
            let end = match action & 7 {
                0 => return Turn::Done(Ok(())),
                1 => return Turn::Done(Err(HandlerError::new("no"))),
                2 => resume_unwind(Box::new("a service panicked")),
                3 => Some(End::Answer),
                4 => Some(End::Panic),
                _ => None,
            };
            let mut exchange = own();
            let _ = exchange.set(Scope::Session, "size", &vec![b's'; usize::from(action) * 4][..]);
            let state = Rc::new(RefCell::new(State { end, ..State::default() }));
            jobs.push(Rc::clone(&state));
            Turn::Later(Job { state, exchange: Some(exchange) })
        };
        driver.receive(chunk, context, *now, serve, &mut |_| {});
    }

    /// One of the futures comes to its end.
    fn complete(&mut self, which: usize, end: End) {
        let open: Vec<_> = self
            .jobs
            .iter()
            .filter(|job| job.borrow().end.is_none() && !job.borrow().dropped)
            .collect();
        let Some(job) = open.get(which % open.len().max(1)) else { return };
        job.borrow_mut().end = Some(end);
        let waker = job.borrow_mut().waker.take();
        waker.expect("a future that waits was polled").wake();
        assert!(self.woken.0.load(Ordering::SeqCst), "the wake of a future was lost");
    }

    /// The stream fails.
    fn break_off(&mut self, reading: bool) {
        if reading {
            self.driver.read_ended(self.now);
        } else {
            self.driver.write_failed(self.now);
            self.lost = true;
        }
        self.woken.0.store(true, Ordering::SeqCst);
    }

    /// All futures come to their end, everything is read and written, and the peer closes.
    fn end(mut self) {
        self.run(usize::MAX, usize::MAX);
        while self.jobs.iter().any(|job| job.borrow().end.is_none() && !job.borrow().dropped) {
            self.complete(0, End::Answer);
            self.run(usize::MAX, usize::MAX);
        }
        // A connection that is over drops them with the driver.
        if !self.driver.interest().done {
            assert!(self.jobs.iter().all(|job| job.borrow().dropped), "a future was left behind");
        }
        if !self.driver.interest().done {
            self.driver.read_ended(self.now);
            self.run(usize::MAX, usize::MAX);
        }
        for _ in 0..100 {
            let want = self.driver.interest();
            if want.done {
                break;
            }
            self.now = want.deadline.expect("a connection that waits for its end has a deadline");
            self.run(usize::MAX, usize::MAX);
        }
        assert!(self.driver.interest().done, "it does not end: {:?}", self.driver);
        let whole = self.output.is_whole();
        let acks = self.output.count(103) as u64;
        let stats = self.driver.finish().stats;
        assert!(self.jobs.iter().all(|job| job.borrow().dropped), "a future outlives its driver");
        let told = stats.acks() + stats.elsewhere + stats.superseded + stats.abandoned;
        assert_eq!(stats.notifies, told, "{stats:?}");
        assert!(acks <= stats.acks() + stats.refused, "{acks} ACKs: {stats:?}");
        assert!(whole || self.lost, "a frame was cut");
    }
}
