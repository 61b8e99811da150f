//! What an agent counts, and the page that says it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests: they may panic, and need a first instant to count from"
)]

mod common;
#[path = "common/exposition.rs"]
mod exposition;

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{frame, haproxy_disconnect, health_check, hello, hello_pairs, notify};
use exposition::Exposition;
use spop_proto::driver::{Driver, Notice};
use spop_proto::handler::Swap;
use spop_proto::stats::{CloseKind, ConnectionKind, Histogram, Tally};
use spop_proto::{
    AgentConfig, AgentConnection, Exchange, HandlerError, Limits, Peer, Router, Service, Snapshot,
    Stats, Status, Turn, testing,
};

type Answer = Pin<Box<dyn Future<Output = Result<Exchange, HandlerError>>>>;

/// What the handler does.
#[derive(Clone, Copy)]
enum Handler<'a> {
    Answers,
    Fails,
    Panics,
    Waits(&'a Arc<AtomicBool>),
}

/// A connection that is driven as adapters do it, with a clock that moves when told.
struct Rig {
    driver: Driver<Answer>,
    start: Instant,
    notices: Vec<String>,
    /// The generation of HAProxy, where this connection is its first.
    first: Option<ConnectionKind>,
    answered: Vec<(u64, usize)>,
}

impl Rig {
    fn new(config: &AgentConfig) -> Self {
        Self::accepted(config, Instant::now())
    }

    fn accepted(config: &AgentConfig, start: Instant) -> Self {
        let conn = AgentConnection::new(config.clone(), Peer::Unknown, start);
        Self {
            driver: Driver::new(conn),
            start,
            notices: Vec::new(),
            first: None,
            answered: Vec::new(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// A wake-up in two turns: one that reads, and one that finds nothing more, at another time.
    fn wake(&mut self, (from, to): (u64, u64), input: &[u8], handler: Handler<'_>) {
        let (from, to) = (self.at(from), self.at(to));
        let Self { driver, notices, first, answered, .. } = self;
        let context = Context::from_waker(Waker::noop());
        let mut tally = driver.tally();
        let log = &mut |notice: Notice<'_>| match notice {
            Notice::Event(_) | Notice::Failure { .. } => {}
            Notice::First { kind, .. } => assert_eq!(first.replace(kind), None),
            Notice::Answered { stream_id, bytes, .. } => answered.push((stream_id, bytes)),
            other => notices.push(format!("{other:?}")),
        };
        driver.poll_answers(&context, from, &mut tally, log);
        tally.received(input.len());
        driver.receive(
            input,
            &context,
            from,
            |_, _, own| match handler {
                Handler::Answers => Turn::Done(Ok(())),
                Handler::Fails => Turn::Done(Err(HandlerError::new("no"))),
                Handler::Panics => panic!("a handler that panics"),
                Handler::Waits(gate) => Turn::Later(answer_after(gate, own())),
            },
            log,
        );
        write(driver, &mut tally);
        driver.poll_answers(&context, to, &mut tally, log);
        if driver.interest().deadline.is_some_and(|deadline| deadline <= to) {
            driver.handle_timeout(to, log);
        }
        write(driver, &mut tally);
        driver.publish(&mut tally, || to, log);
    }

    fn end(self) {
        let _ = self.driver.finish();
    }
}

fn write(driver: &mut Driver<Answer>, tally: &mut Tally) {
    let written = driver.transmit().len();
    driver.transmitted(written);
    tally.sent(written);
}

fn answer_after(gate: &Arc<AtomicBool>, exchange: Exchange) -> Answer {
    let (gate, mut exchange) = (Arc::clone(gate), Some(exchange));
    Box::pin(std::future::poll_fn(move |cx| {
        if gate.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(exchange.take().unwrap()));
        }
        // Polled whenever its connection is.
        cx.waker().wake_by_ref();
        Poll::Pending
    }))
}

fn counted() -> AgentConfig {
    AgentConfig::new().count_in(Stats::new("test"))
}

fn notifies(count: u64) -> Vec<u8> {
    (1..=count).flat_map(notify).collect()
}

/// The buckets that have something in them: upper bound in µs, and how many.
fn times(times: &Histogram) -> Vec<(Option<u128>, u64)> {
    let mut below = 0;
    let each = times.buckets().map(|(bound, upto)| {
        (bound.map(|bound| bound.as_micros()), upto - std::mem::replace(&mut below, upto))
    });
    each.filter(|(_, count)| *count > 0).collect()
}

/// What is asked is answered, given up, or owed; and as many answers were timed.
fn check(snapshot: &Snapshot) {
    let stats = &snapshot.stats;
    assert_eq!(stats.notifies, stats.settled() + snapshot.in_flight(), "{snapshot:?}");
    assert_eq!(snapshot.answer_time.count(), stats.acks(), "{snapshot:?}");
    let handled = stats.answered + stats.errors + stats.panics + stats.unanswered;
    assert_eq!(snapshot.handler_time.count(), handled, "{snapshot:?}");
    let closed: u64 = CloseKind::ALL.iter().map(|kind| snapshot.closed(*kind)).sum();
    assert_eq!(snapshot.connections, snapshot.open() + closed, "{snapshot:?}");
}

#[test]
fn inline_answers_have_the_time_of_their_turn() {
    let config = counted();
    let mut rig = Rig::new(&config);
    rig.wake((0, 0), &hello(), Handler::Answers);
    rig.wake((5, 7), &notifies(20), Handler::Answers);
    rig.wake((10, 10), &notifies(1), Handler::Fails);
    let now = config.stats().unwrap().snapshot();
    check(&now);
    assert_eq!((now.stats.answered, now.stats.errors), (20, 1));
    assert_eq!(times(&now.answer_time), [(Some(25), 1), (Some(2500), 20)]);
    assert_eq!(now.answer_time.sum(), Duration::from_millis(40));
    // They share the 2 ms.
    assert_eq!(times(&now.handler_time), [(Some(25), 1), (Some(100), 20)]);
    assert_eq!(now.handler_time.sum(), Duration::from_millis(2));
    assert_eq!(now.received_bytes, (hello().len() + notifies(20).len() + notifies(1).len()) as u64);
    assert!(now.sent_bytes > 0);
    assert_eq!((now.open(), now.connections_of(ConnectionKind::Old)), (1, 1));
}

/// Two wake-ups: what was deferred in one and answered in the other has been owed in between.
#[test]
fn deferred_answers_have_the_time_they_were_owed() {
    let config = counted();
    let mut rig = Rig::new(&config);
    rig.wake((0, 0), &hello(), Handler::Answers);
    let gate = Arc::new(AtomicBool::new(false));
    rig.wake((100, 100), &notify(1), Handler::Waits(&gate));
    rig.wake((130, 130), &notify(2), Handler::Waits(&gate));
    let now = config.stats().unwrap().snapshot();
    check(&now);
    assert_eq!((now.in_flight(), now.stats.acks()), (2, 0));
    assert_eq!(rig.answered, []);
    gate.store(true, Ordering::SeqCst);
    // A third is answered inline in the same wake-up.
    rig.wake((140, 141), &notify(3), Handler::Answers);
    let now = config.stats().unwrap().snapshot();
    check(&now);
    assert_eq!((now.in_flight(), now.stats.answered), (0, 3));
    assert_eq!(times(&now.answer_time), [(Some(1000), 1), (Some(10_000), 1), (Some(50_000), 1)]);
    assert_eq!(now.answer_time.sum(), Duration::from_millis(40 + 10 + 1));
    assert_eq!(now.handler_time, now.answer_time, "those that were deferred have all of it");
    assert_eq!(rig.answered, [(1, 0), (2, 0)], "inline answers are no news");
}

#[test]
fn a_late_answer_counts_with_the_time_it_had() {
    let limits = Limits::new().answer_timeout(Duration::from_millis(80)).unwrap();
    let config = counted().limits(limits);
    let mut rig = Rig::new(&config);
    rig.wake((0, 0), &hello(), Handler::Answers);
    let gate = Arc::new(AtomicBool::new(false));
    rig.wake((0, 0), &notify(1), Handler::Waits(&gate));
    rig.wake((200, 200), &[], Handler::Answers);
    let now = config.stats().unwrap().snapshot();
    check(&now);
    assert_eq!((now.stats.deadlines, now.in_flight()), (1, 0));
    assert_eq!(now.handler_time.count(), 0, "it may take for ever");
    assert_eq!(times(&now.answer_time), [(Some(100_000), 1)]);
}

#[test]
fn what_a_dropped_connection_owed_is_abandoned() {
    let config = counted();
    let mut rig = Rig::new(&config);
    rig.wake((0, 0), &hello(), Handler::Answers);
    let gate = Arc::new(AtomicBool::new(false));
    rig.wake((0, 0), &notifies(3), Handler::Waits(&gate));
    assert_eq!(config.stats().unwrap().snapshot().in_flight(), 3);
    drop(rig);
    let now = config.stats().unwrap().snapshot();
    check(&now);
    assert_eq!((now.in_flight(), now.stats.abandoned, now.open()), (0, 3, 0));
    assert_eq!(now.closed(CloseKind::Dropped), 1);
}

#[test]
fn connections_are_counted_by_who_they_are_and_how_they_end() {
    let stats = Stats::new("test");
    let config = AgentConfig::new().count_in(stats.clone());
    let new = frame(common::HAPROXY_HELLO, 1, 0, 0, &hello_pairs(16380, "pipelining").concat());
    let cases: [(&[&[u8]], ConnectionKind, CloseKind); 5] = [
        (&[&hello(), &haproxy_disconnect(0, "normal")], ConnectionKind::Old, CloseKind::Haproxy),
        (&[&new], ConnectionKind::New, CloseKind::PeerClosed),
        (&[&health_check()], ConnectionKind::HealthCheck, CloseKind::HealthCheck),
        (&[b"GET / HTTP/1.1\r\n\r\n"], ConnectionKind::NotSpop, CloseKind::NotSpop),
        (&[], ConnectionKind::Silent, CloseKind::PeerClosed),
    ];
    for (inputs, kind, end) in cases {
        let before = stats.snapshot();
        let mut rig = Rig::new(&config);
        for input in inputs {
            rig.wake((0, 0), input, Handler::Answers);
        }
        let is_haproxy = matches!(kind, ConnectionKind::Old | ConnectionKind::New);
        assert_eq!(rig.first, is_haproxy.then_some(kind));
        let open = stats.snapshot();
        assert_eq!((open.open(), open.connections), (1, before.connections + 1));
        let now = rig.at(0);
        rig.driver.read_ended(now);
        rig.end();
        let after = stats.snapshot();
        check(&after);
        assert_eq!(after.open(), 0);
        assert_eq!(after.connections_of(kind), before.connections_of(kind) + 1, "{kind:?}");
        assert_eq!(after.closed(end), before.closed(end) + 1, "{end:?}: {after:?}");
    }
    let rig = Rig::new(&config);
    let mut timeout = rig;
    timeout.wake((60_000, 60_000), &[], Handler::Answers);
    timeout.wake((120_000, 120_000), &[], Handler::Answers);
    timeout.end();
    stats.turned_away();
    let after = stats.snapshot();
    check(&after);
    assert_eq!((after.closed(CloseKind::HelloTimeout), after.closed(CloseKind::Limit)), (1, 1));
    assert_eq!(after.protocol_errors(Status::TIMEOUT), 1);
    assert_eq!(after.protocol_errors(Status::FRAME_TOO_BIG), 1);
    let kinds: u64 = ConnectionKind::ALL.iter().map(|kind| after.connections_of(*kind)).sum();
    assert_eq!(kinds, after.connections, "each has one kind");
}

/// Two agents, one configuration: each counts for itself.
#[test]
fn counters_are_those_of_the_configuration_they_were_given_to() {
    let (one, other) = (Stats::new("one"), Stats::new("other"));
    let config = counted();
    let mut rig = Rig::new(&config.clone().count_in(one.clone()));
    rig.wake((0, 0), &hello(), Handler::Answers);
    drop(Rig::new(&config.count_in(other.clone())));
    assert_eq!((one.snapshot().open(), other.snapshot().open()), (1, 0));
    assert_eq!((one.snapshot().connections, other.snapshot().connections), (1, 1));
    assert_eq!(other.snapshot().runtime, "other");
}

#[test]
fn the_first_connection_of_each_generation_is_told() {
    let config = counted();
    let new = frame(common::HAPROXY_HELLO, 1, 0, 0, &hello_pairs(16380, "pipelining").concat());
    let firsts = [&hello(), &hello(), &new, &new, &hello()].map(|hello| {
        let mut rig = Rig::new(&config);
        rig.wake((0, 0), hello, Handler::Answers);
        rig.wake((1, 1), &notify(1), Handler::Answers);
        rig.first
    });
    assert_eq!(firsts, [Some(ConnectionKind::Old), None, Some(ConnectionKind::New), None, None]);
}

/// A payload that comes in fragments is memory as long as it is held.
#[test]
fn fragments_are_a_gauge() {
    let config = counted();
    let held = || config.stats().unwrap().snapshot().reassembly_bytes;
    let mut rig = Rig::new(&config);
    let mut other = Rig::new(&config);
    rig.wake((0, 0), &hello(), Handler::Answers);
    other.wake((0, 0), &hello(), Handler::Answers);
    let whole = notify(1);
    let payload = &whole[7 + 4..];
    let (one, two) = payload.split_at(3);
    rig.wake((1, 1), &frame(3, 0, 1, 1, one), Handler::Answers);
    other.wake((1, 1), &frame(3, 0, 7, 1, one), Handler::Answers);
    assert_eq!(held(), 6);
    rig.wake((2, 2), &frame(0, 1, 1, 1, two), Handler::Answers);
    assert_eq!((held(), config.stats().unwrap().snapshot().stats.answered), (3, 1));
    drop(other);
    assert_eq!(held(), 0);
}

#[test]
fn messages_are_counted_by_their_routes() {
    let router = |names: [&str; 2]| {
        let router = Router::new().on(names[0], |_, _| Ok(()));
        router.on(names[1], |_, _| Err(HandlerError::new("no"))).otherwise(|_, _| Ok(()))
    };
    let ask = |service: &Swap<Router>, messages: &[&str]| {
        let (first, rest) = messages.split_first().unwrap();
        let asked = testing::message(first);
        rest.iter().fold(asked, |asked, name| asked.message(name)).ask(service);
    };
    let service = Swap::new(router(["a", "other"]));
    let stats = Stats::default().with_messages(service.message_counts());
    let counts = || {
        let all = stats.snapshot().messages;
        all.into_iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(counts(), "a 0, other 0");
    ask(&service, &["a", "a", "b"]);
    ask(&service, &["c", "other", "a"]);
    // The second NOTIFY ended at the message that failed; a route named `other` is in the rest.
    assert_eq!(counts(), "a 2, other 3");
    let page = stats.snapshot().prometheus().to_string();
    let page = Exposition::read(&page).unwrap();
    assert_eq!(page.value("spop_agent_messages_total", &[("message", "a")]), Some("2"));
    assert_eq!(page.value("spop_agent_messages_total", &[("message", "other")]), Some("3"));
    service.replace(router(["a", "b"]));
    ask(&service, &["b"]);
    assert_eq!(counts(), "a 0, b 1, other 0");
    assert_eq!(Stats::default().with_messages(None).snapshot().messages, []);
}

#[test]
fn shed_requests_are_noticed() {
    let limits = Limits::new().in_flight(2.try_into().unwrap());
    let config = counted().limits(limits);
    let mut rig = Rig::new(&config);
    rig.wake((0, 0), &hello(), Handler::Answers);
    let gate = Arc::new(AtomicBool::new(false));
    rig.wake((0, 0), &notifies(5), Handler::Waits(&gate));
    let now = config.stats().unwrap().snapshot();
    check(&now);
    assert_eq!((now.stats.shed, now.in_flight()), (3, 2));
    assert_eq!(rig.notices, ["Shed { peer: Unknown, requests: 3 }"]);
}

/// Every name, label and bucket: the interface.
/// Connections that come at these seconds; what is told on each.
fn told(config: &AgentConfig, connections: &[(u64, &[u8])]) -> Vec<Vec<String>> {
    let start = Instant::now();
    let told = connections.iter().map(|(seconds, input)| {
        let mut rig = Rig::accepted(config, start + Duration::from_secs(*seconds));
        rig.wake((0, 1), input, Handler::Answers);
        rig.notices
    });
    told.collect()
}

#[test]
fn an_agent_that_is_checked_and_never_asked_is_told_of_once() {
    let (check, none) = (health_check(), Vec::<String>::new());
    let asked = [hello(), notifies(1)].concat();
    let never = vec!["NeverAsked".to_owned()];

    let checks: Vec<(u64, &[u8])> = [0, 59, 60, 61, 200].map(|at| (at, check.as_slice())).into();
    assert_eq!(told(&counted(), &checks), [&none, &none, &never, &none, &none].map(Clone::clone));
    // Asked once, at whatever time, it never is.
    let once: [(u64, &[u8]); 4] = [(0, &check), (1, &asked), (60, &check), (200, &check)];
    assert_eq!(told(&counted(), &once), [&none, &none, &none, &none].map(Clone::clone));
    // Requests alone say nothing, nor does an agent that counts nothing.
    let late: [(u64, &[u8]); 2] = [(0, &asked), (100, &check)];
    assert_eq!(told(&counted(), &late), [&none, &none].map(Clone::clone));
    assert_eq!(told(&AgentConfig::new(), &checks).concat(), none);
}

#[test]
fn the_page_is_what_prometheus_reads() {
    let stats = Stats::new("a \"runtime\" \\ of\nits own");
    let config = AgentConfig::new().count_in(stats.clone());
    let mut rig = Rig::new(&config);
    rig.wake((0, 0), &hello(), Handler::Answers);
    rig.wake((5, 7), &notifies(3), Handler::Answers);
    rig.wake((8, 8), &notify(9), Handler::Panics);
    let text = stats.snapshot().prometheus().to_string();
    let page = Exposition::read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let names: Vec<_> = page.families().collect();
    assert_eq!(
        names,
        [
            ("spop_agent_info", "gauge"),
            ("spop_agent_connections", "gauge"),
            ("spop_agent_in_flight", "gauge"),
            ("spop_agent_reassembly_bytes", "gauge"),
            ("spop_agent_connections_total", "counter"),
            ("spop_agent_closes_total", "counter"),
            ("spop_agent_protocol_errors_total", "counter"),
            ("spop_agent_frames_total", "counter"),
            ("spop_agent_ignored_frames_total", "counter"),
            ("spop_agent_notifies_total", "counter"),
            ("spop_agent_answers_total", "counter"),
            ("spop_agent_payloads_given_up_total", "counter"),
            ("spop_agent_too_big_total", "counter"),
            ("spop_agent_held_total", "counter"),
            ("spop_agent_received_bytes_total", "counter"),
            ("spop_agent_sent_bytes_total", "counter"),
            ("spop_agent_answer_seconds", "histogram"),
            ("spop_agent_handler_seconds", "histogram"),
        ]
    );
    let value = |name: &str, labels: &[(&str, &str)]| page.value(name, labels).unwrap();
    let version = ("version", env!("CARGO_PKG_VERSION"));
    let runtime = ("runtime", "a \"runtime\" \\ of\nits own");
    assert_eq!(value("spop_agent_info", &[version, runtime]), "1");
    assert_eq!(value("spop_agent_connections", &[]), "1");
    assert_eq!(value("spop_agent_connections_total", &[("dialect", "old")]), "1");
    assert_eq!(value("spop_agent_notifies_total", &[]), "4");
    assert_eq!(value("spop_agent_answers_total", &[("cause", "handler")]), "3");
    assert_eq!(value("spop_agent_answers_total", &[("cause", "panic")]), "1");
    assert_eq!(value("spop_agent_answer_seconds_bucket", &[("le", "0.000025")]), "1");
    assert_eq!(value("spop_agent_answer_seconds_bucket", &[("le", "0.0025")]), "4");
    assert_eq!(value("spop_agent_answer_seconds_bucket", &[("le", "+Inf")]), "4");
    assert_eq!(value("spop_agent_answer_seconds_sum", &[]), "0.006000000");
    assert_eq!(value("spop_agent_handler_seconds_sum", &[]), "0.002000000");
    assert_eq!(value("spop_agent_handler_seconds_count", &[]), "4");
    let bounds: Vec<_> = page.bounds("spop_agent_answer_seconds").collect();
    let expected = "0.000025 0.00005 0.0001 0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 \
                    0.25 0.5 1 +Inf";
    assert_eq!(bounds.join(" "), expected);
    let reasons: Vec<_> = page.labels("spop_agent_closes_total", "reason").collect();
    let kinds = CloseKind::ALL.map(CloseKind::label);
    assert_eq!(reasons, kinds);
    assert!(
        stats.snapshot().to_string().starts_with("1 connections open of 1; 4 requests: 3 answered")
    );
}

/// The checker is worth something: pages with one thing wrong are refused.
#[test]
fn the_checker_finds_faults() {
    let good = Stats::default().snapshot().prometheus().to_string();
    Exposition::read(&good).unwrap();
    let faults: [(&str, &str); 10] = [
        ("# TYPE spop_agent_info gauge\n", ""),
        ("# HELP spop_agent_info Always 1.\n", ""),
        ("runtime=\"custom\"", "runtime=\"cus\"tom\""),
        ("runtime=\"custom\"", "runtime=\"cus\\tom\""),
        ("le=\"+Inf\"", "le=\"inf\""),
        ("le=\"0.5\"", "le=\"0.05\""),
        ("spop_agent_answer_seconds_count 0", "spop_agent_answer_seconds_count 1"),
        ("spop_agent_notifies_total 0", "spop_agent_notifies_total zero"),
        ("cause=\"panic\"", "cause=\"error\""),
        ("# TYPE spop_agent_held_total counter", "# TYPE spop_agent_held_total counters"),
    ];
    for (from, to) in faults {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        assert!(Exposition::read(&bad).is_err(), "{from} -> {to}");
    }
    assert!(Exposition::read(good.trim_end()).is_err(), "the last line has an end");
}
