//! What the drivers of asynchronous runtimes share: futures of handlers beside their connection.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests: they may panic, and need a first instant to count from"
)]

mod common;

use core::future::{Future, pending};
use core::pin::Pin;
use core::task::{Context, Waker};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{FIN, ack, frame, hello_pairs, set_txn};
use spop_proto::driver::{Driver, Notice, Pad};
use spop_proto::{
    Action, AgentConfig, AgentConnection, Exchange, Failure, HandlerError, Limits, Peer, Scope,
    SetError, Turn,
};

type Answer = Pin<Box<dyn Future<Output = Result<Exchange, HandlerError>> + Send>>;

/// A driver whose NOTIFYs are served as `serve` says, with a virtual clock.
struct Rig {
    driver: Driver<Answer>,
    start: Instant,
    failures: Vec<String>,
}

impl Rig {
    fn new(config: AgentConfig) -> Self {
        let start = Instant::now();
        let conn = AgentConnection::new(config, Peer::Unknown, start);
        let mut rig = Self { driver: Driver::new(conn), start, failures: Vec::new() };
        let hello = frame(1, FIN, 0, 0, &hello_pairs(16380, "pipelining").concat());
        rig.feed(0, &hello, |_| panic!("no NOTIFY"));
        rig.take();
        rig
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn feed(&mut self, ms: u64, bytes: &[u8], mut serve: impl FnMut(Exchange) -> Answer) {
        let (now, failures) = (self.at(ms), &mut self.failures);
        let context = Context::from_waker(Waker::noop());
        self.driver.receive(
            bytes,
            &context,
            now,
            |_, _, own| Turn::Later(serve(own())),
            &mut |notice: Notice<'_>| {
                if let Notice::Failure { failure, .. } = notice {
                    failures.push(failure.to_string());
                }
            },
        );
    }

    fn take(&mut self) -> Vec<u8> {
        let taken = self.driver.transmit().to_vec();
        self.driver.transmitted(taken.len());
        taken
    }
}

fn notify(stream: u64) -> Vec<u8> {
    frame(3, FIN, stream, 1, b"\x01m\x00")
}

/// Counts what was dropped; panics on the way if asked to.
struct Dropped(Arc<AtomicUsize>, bool);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        assert!(!self.1, "a destructor that panics");
    }
}

fn never(dropped: &Arc<AtomicUsize>, panics: bool) -> Answer {
    let guard = Dropped(Arc::clone(dropped), panics);
    Box::pin(async move {
        pending::<()>().await;
        drop(guard);
        Err(HandlerError::new("never"))
    })
}

/// HAProxy <= 3.0 asks anew with the same ids after its timeout; nobody waits for the first answer.
#[test]
fn a_superseded_future_is_dropped() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut rig = Rig::new(AgentConfig::new());
    for round in 0..1000 {
        rig.feed(round * 5, &notify(7), |_| never(&dropped, false));
        assert_eq!(dropped.load(Ordering::SeqCst), usize::try_from(round).unwrap());
    }
}

/// In one read there is room for thousands of them, and each has a future of its own.
#[test]
fn asked_anew_in_one_read_few_superseded_futures_are_kept() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let limits = Limits::new().in_flight(4.try_into().unwrap());
    let mut rig = Rig::new(AgentConfig::new().limits(limits));
    let (mut begun, mut most) = (0, 0);
    rig.feed(0, &notify(7).repeat(5000), |_| {
        begun += 1;
        most = most.max(begun - dropped.load(Ordering::SeqCst));
        never(&dropped, false)
    });
    assert_eq!((begun, dropped.load(Ordering::SeqCst)), (5000, 4999));
    assert!(most <= 32, "{most} at once, and 4 may be in flight");
}

#[test]
fn a_future_whose_answer_is_late_is_dropped() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let limits = Limits::new().answer_timeout(Duration::from_millis(80)).unwrap();
    let mut rig = Rig::new(AgentConfig::new().limits(limits));
    rig.feed(0, &notify(7), |_| never(&dropped, false));
    let now = rig.at(80);
    rig.driver.handle_timeout(now, &mut |_: Notice<'_>| {});
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert_eq!(rig.take(), ack(7, b""));
}

/// Two destructors that panic, one after the other: unguarded, the second would end the process.
#[test]
fn destructors_that_panic_end_nothing() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut rig = Rig::new(AgentConfig::new());
    for stream in [1, 3, 5] {
        rig.feed(0, &notify(stream), |_| never(&dropped, true));
    }
    let now = rig.at(1);
    rig.driver.read_ended(now);
    let closed = rig.driver.finish();
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
    assert_eq!(closed.stats.abandoned, 3);
}

/// A panic can carry a value whose destructor panics as well.
#[test]
fn a_panic_that_panics_when_dropped_costs_one_request() {
    let fallback = [Action::set(Scope::Transaction, "f", true)];
    let mut rig = Rig::new(AgentConfig::new().fallback(fallback).unwrap());
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    rig.feed(0, &notify(1), move |_| {
        std::panic::panic_any(Dropped(Arc::clone(&counter), true));
    });
    assert_eq!(rig.take(), ack(1, &set_txn("f", b"\x11")));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert_eq!(rig.failures, ["panicked: (no text)"]);
}

/// The text of an error is the user's code too.
#[test]
fn an_error_whose_text_panics_costs_one_request() {
    #[derive(Debug)]
    struct Nasty;
    impl core::fmt::Display for Nasty {
        fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            panic!("no text today")
        }
    }
    impl core::error::Error for Nasty {}
    let mut rig = Rig::new(AgentConfig::new());
    rig.feed(0, &notify(1), |_| Box::pin(async { Err(Nasty.into()) }));
    rig.feed(0, &notify(3), |x| Box::pin(async { Ok(x) }));
    assert_eq!(rig.take(), [ack(1, b""), ack(3, b"")].concat());
    assert_eq!(rig.failures, Vec::<String>::new());
}

/// The exchange is the answer, whether its future was ready at once or had to wait.
#[test]
fn what_was_set_before_later_does_not_count() {
    let mut rig = Rig::new(AgentConfig::new());
    let now = rig.at(0);
    let context = Context::from_waker(Waker::noop());
    rig.driver.receive(
        &notify(1),
        &context,
        now,
        |_, ack, own| {
            ack.set(Scope::Transaction, "a", true).unwrap();
            let exchange = own();
            Turn::Later(Box::pin(async { Ok(exchange) }))
        },
        &mut |_: Notice<'_>| {},
    );
    assert_eq!(rig.take(), ack(1, b""));
}

#[test]
fn an_exchange_answers_its_own_notify_only() {
    let mut rig = Rig::new(AgentConfig::new());
    let mut kept = None;
    rig.feed(0, &notify(1), |x| {
        kept = Some(x);
        Box::pin(async { Err(HandlerError::new("kept")) })
    });
    rig.feed(0, &notify(3), |_| {
        let other = kept.take().unwrap();
        Box::pin(async { Ok(other) })
    });
    assert_eq!(rig.take(), [ack(1, b""), ack(3, b"")].concat());
    assert_eq!(rig.failures, ["kept", "returned the exchange of another request"]);
}

#[test]
fn a_connection_told_to_leave_goes_with_an_answer() {
    let mut rig = Rig::new(AgentConfig::new());
    rig.driver.leave();
    let now = rig.at(0);
    rig.driver.after_read(false, false, now);
    assert_eq!(rig.take(), b"");
    // More is there to be read: this was not the last answer.
    rig.feed(100, &notify(1), |x| Box::pin(async { Ok(x) }));
    rig.driver.after_read(true, true, rig.at(100));
    assert_eq!(rig.take(), ack(1, b""));
    rig.feed(100, &notify(3), |x| Box::pin(async { Ok(x) }));
    rig.driver.after_read(true, false, rig.at(100));
    let last = rig.take();
    let (answer, goodbye) = last.split_at(ack(3, b"").len());
    assert_eq!((answer, goodbye[4]), (&ack(3, b"")[..], 102), "both in one piece");
}

#[test]
fn a_connection_told_to_leave_that_is_asked_nothing_goes_after_a_while() {
    let mut rig = Rig::new(AgentConfig::new());
    rig.driver.leave();
    rig.driver.after_read(false, false, rig.at(0));
    assert_eq!(rig.driver.interest().deadline, Some(rig.at(500)));
    rig.driver.after_read(false, false, rig.at(499));
    assert_eq!(rig.take(), b"");
    rig.driver.after_read(false, false, rig.at(500));
    assert_eq!(rig.take()[4], 102, "the goodbye");
}

#[test]
fn a_connection_told_to_leave_does_not_listen_for_ever() {
    let mut rig = Rig::new(AgentConfig::new());
    rig.driver.leave();
    let now = rig.at(0);
    for _ in 0..31 {
        rig.driver.after_read(true, true, now);
    }
    assert_eq!(rig.take(), b"");
    rig.driver.after_read(true, false, now);
    assert_eq!(rig.take()[4], 102, "the goodbye");
}

/// A refused action is counted wherever it was refused: in an exchange, as a whole or split.
#[test]
fn answers_that_do_not_fit_are_counted() {
    let large = vec![0_u8; 20_000];
    let mut rig = Rig::new(AgentConfig::new());
    let stats = |rig: Rig| rig.driver.finish().stats;
    let text = large.clone();
    rig.feed(0, &notify(1), move |mut x| {
        let refused = x.set(Scope::Transaction, "a", &text);
        assert_eq!(refused, Err(SetError::TooBig { limit: 16379 }));
        Box::pin(async { Ok(x) })
    });
    let text = large.clone();
    rig.feed(0, &notify(5), move |mut x| {
        let refused = x.split().1.set(Scope::Transaction, "a", &text);
        assert_eq!(refused, Err(SetError::TooBig { limit: 16379 }));
        Box::pin(async { Ok(x) })
    });
    let text = large;
    rig.feed(0, &notify(3), move |mut x| {
        let text = text.clone();
        Box::pin(async move {
            x.set(Scope::Transaction, "a", &text)?;
            Ok(x)
        })
    });
    let stats = stats(rig);
    assert_eq!((stats.answered, stats.errors, stats.too_big), (2, 1, 3));
}

/// What a thread of a worker pool does.
#[test]
fn a_pad_answers_away_from_the_connection() {
    let start = Instant::now();
    let config = AgentConfig::new().var_prefix("iprep").unwrap();
    let mut conn = AgentConnection::new(config.clone(), Peer::Unknown, start);
    let hello = frame(1, FIN, 0, 0, &hello_pairs(16380, "pipelining").concat());
    let all = [hello, notify(1), notify(3), notify(5)].concat();
    let mut input = &all[..];
    let mut owed = Vec::new();
    while let Some(event) = conn.receive(&mut input, start).unwrap() {
        if let spop_proto::Event::Notify(notify, ack) = event {
            owed.push(ack.detach(notify, None));
        }
    }
    let greeting = conn.transmit().len();
    conn.transmitted(greeting);
    let mut pad = Pad::new(config, start);
    // The last first: answers overtake each other.
    let (ticket, exchange) = owed.pop().unwrap();
    let answered = pad.answer(exchange, |notify, ack| {
        assert_eq!(notify.stream_id(), 5);
        ack.set(Scope::Transaction, "n", true)?;
        assert!(ack.set(Scope::Transaction, &"n".repeat(54), true).is_err(), "knows the prefix");
        Ok(())
    });
    conn.answer(ticket, start).unwrap().answer_with(&mut answered.unwrap()).unwrap();
    for (panics, (ticket, exchange)) in [true, false].into_iter().zip(owed) {
        let failed = pad.answer(exchange, |_, ack| {
            ack.set(Scope::Transaction, "half", true)?;
            assert!(!panics, "on purpose");
            Err(HandlerError::new("on purpose"))
        });
        let failure: Failure = failed.unwrap_err();
        conn.answer(ticket, start).unwrap().fail(&failure);
    }
    let expected = [ack(5, &set_txn("n", b"\x11")), ack(1, b""), ack(3, b"")].concat();
    assert_eq!(conn.transmit(), expected);
    assert_eq!((conn.stats().answered, conn.stats().panics, conn.stats().errors), (1, 1, 1));
}
