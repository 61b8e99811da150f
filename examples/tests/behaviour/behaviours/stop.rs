//! The end of an agent.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use spop_proto::Dialect::{New, Old};
use spop_proto::{Endpoint, EngineConfig};

use super::sockets::Socket;
use crate::PATIENCE;
use crate::adapter::Running;
use crate::bench::Bench;
use crate::client::{Client, Told};
use crate::script::{Word, echo, limits};
use crate::stream;
use crate::wire::{FIN, NOTIFY, SAYS_7, Wire, frame, notify};

/// Connections that wait for nothing leave at once, those before HELLO without a word.
pub(super) fn with_idle_connections(bench: &Bench) {
    let mut agent = bench.start();
    let endpoint = agent.endpoint().clone();
    // Connections are accepted in the order they were made.
    let mut fresh = Wire::connect(&endpoint);
    let mut old = Client::ready(&endpoint, Old);
    let mut new = Client::ready(&endpoint, New);
    assert_eq!(new.ask(&Word::Echo.number(1)), echo(1));
    agent.ask_to_stop();
    for idle in [&mut old, &mut new] {
        assert_eq!(idle.next(), Some(Told::Goodbye(0)));
        idle.expect_end();
    }
    fresh.expect_end();
    let report = agent.report();
    assert_eq!((report.connections, report.drained, report.cut), (3, 3, 0), "{report}");
    assert_eq!((report.stats.answered, report.protocol_errors), (1, 0), "{report}");
    expect_refused(&endpoint);
}

/// A peer that does not close after the goodbye holds nothing up either.
pub(super) fn with_answers_owed(bench: &Bench) {
    let mut agent = bench.start();
    let endpoint = agent.endpoint().clone();
    let gate = &bench.script.gate;
    let mut deaf = Wire::ready(&endpoint);
    let mut busy = Client::ready(&endpoint, New);
    let mut idle = Client::ready(&endpoint, Old);
    let first = busy.send(&Word::Echo.behind(1));
    let second = busy.send(&Word::Echo.behind(2));
    gate.wait_until_came(2);
    agent.ask_to_stop();
    assert_eq!(idle.next(), Some(Told::Goodbye(0)));
    idle.expect_end();
    // By now the agent is leaving: it takes no more connections, but what arrives on those it has
    // before everything is answered is answered too.
    expect_refused(&endpoint);
    let third = busy.send(&Word::Echo.number(3));
    assert_eq!(busy.ack(), (third, echo(3)));
    gate.open(2);
    assert_eq!(busy.ack(), (second, echo(2)));
    gate.open(1);
    assert_eq!(busy.ack(), (first, echo(1)));
    assert_eq!(busy.next(), Some(Told::Goodbye(0)));
    busy.expect_end();
    let report = agent.report();
    assert_eq!(deaf.heard().kind, 102);
    deaf.expect_end();
    assert_eq!((report.connections, report.drained, report.cut), (3, 3, 0), "{report}");
    assert_eq!((report.stats.answered, report.stats.abandoned), (3, 0), "{report}");
}

/// What had arrived before the stop is answered, read or not.
pub(super) fn with_requests_unread(bench: &Bench) {
    for round in 0..3 {
        answers_unread(bench, bench.start(), 2 * round, 3);
        // More than an adapter reads at once: what is written to a Unix socket has arrived.
        let socket = Socket::new();
        answers_unread(bench, socket.bind(bench).unwrap(), 2 * round + 1, 2500);
    }
}

fn answers_unread(bench: &Bench, mut agent: Running, number: i64, unread: usize) {
    let endpoint = agent.endpoint().clone();
    let gate = &bench.script.gate;
    let mut wire = Wire::ready(&endpoint);
    let came = gate.left() + 1;
    let slow = Word::Echo.behind(number);
    wire.write(&frame(NOTIFY, FIN, 1, 1, slow.as_bytes().unwrap()));
    // While the handler holds up the connection, nobody reads.
    gate.wait_until_came(came);
    // A read ends where a frame does: what it leaves behind is not seen to be missing.
    let request =
        frame(NOTIFY, FIN, 2, 1, Word::Echo.number(7).arg("pad", &[0; 32][..]).as_bytes().unwrap());
    assert_eq!(request.len(), 64);
    wire.write(&request.repeat(unread));
    agent.ask_to_stop();
    let end = Instant::now() + PATIENCE;
    while stream::connect(&endpoint).is_ok() {
        assert!(Instant::now() < end, "the agent listens on");
        thread::yield_now();
    }
    gate.open(number);
    assert_eq!(wire.heard().stream, 1);
    for answered in 1..=unread {
        assert_eq!(wire.heard().payload, SAYS_7, "after {answered} answers of {unread}");
    }
    assert_eq!(wire.goodbye(), 0);
    let report = agent.report();
    assert_eq!((report.cut, report.stats.answered), (0, unread as u64 + 1), "{report}");
}

/// A request that has begun to arrive is waited for.
pub(super) fn within_a_frame(bench: &Bench) {
    let mut agent = bench.start();
    let mut wire = Wire::ready(agent.endpoint());
    let mut idle = Client::ready(agent.endpoint(), New);
    let (begin, rest) = (&notify(2)[..10], &notify(2)[10..]);
    wire.write(&[&notify(1)[..], begin].concat());
    assert_eq!(wire.heard().payload, SAYS_7);
    agent.ask_to_stop();
    assert_eq!(idle.next(), Some(Told::Goodbye(0)));
    idle.expect_end();
    wire.write(rest);
    let heard = wire.heard();
    assert_eq!((heard.stream, &heard.payload[..]), (2, SAYS_7));
    assert_eq!(wire.goodbye(), 0);
    let report = agent.report();
    assert_eq!((report.drained, report.cut, report.stats.answered), (2, 0, 2), "{report}");
}

/// A peer that never finishes its frame is left with a goodbye.
pub(super) fn past_the_drain_deadline(bench: &Bench) {
    let drain = Duration::from_millis(300);
    let mut agent = bench.start_with(limits().drain_timeout(drain).unwrap());
    let mut wire = Wire::ready(agent.endpoint());
    wire.write(&[&notify(1)[..], &notify(2)[..10]].concat());
    assert_eq!(wire.heard().payload, SAYS_7);
    let before = Instant::now();
    agent.ask_to_stop();
    assert_eq!(wire.goodbye(), 0);
    assert!(before.elapsed() >= drain, "{:?}", before.elapsed());
    let report = agent.report();
    assert_eq!((report.drained, report.cut), (0, 1), "{report}");
}

pub(super) fn past_it_with_answers_owed(bench: &Bench) {
    let drain = Duration::from_millis(300);
    let mut agent = bench.start_with(limits().drain_timeout(drain).unwrap());
    let gate = &bench.script.gate;
    let mut client = Client::ready(agent.endpoint(), Old);
    let id = client.send(&Word::Echo.behind(1));
    gate.wait_until_came(1);
    let before = Instant::now();
    agent.ask_to_stop();
    assert_eq!(client.next(), Some(Told::Goodbye(0)));
    assert!(before.elapsed() >= drain, "{:?}", before.elapsed());
    assert!(matches!(client.next(), Some(Told::Failed(failed, _)) if failed == id));
    client.expect_end();
    // A thread in a handler cannot be ended from outside, and is not waited for.
    let report = agent.report();
    assert_eq!((report.drained, report.cut, report.stats.abandoned), (0, 1, 1), "{report}");
}

/// Health checks fail, requests do not; then everything ends as usual.
pub(super) fn as_a_lame_duck(bench: &Bench) {
    let lame_duck = Duration::from_millis(1500);
    let mut setup = bench.setup();
    setup.lame_duck = lame_duck;
    let mut agent = bench.adapter.start(setup).unwrap();
    let endpoint = agent.endpoint().clone();
    let mut before = Client::ready(&endpoint, Old);
    let asked = Instant::now();
    agent.ask_to_stop();
    loop {
        let check = EngineConfig::new(New).health_check();
        match Client::connect(&endpoint, check).unwrap().next() {
            // It has not heard yet.
            Some(Told::Check(Ok(()))) => thread::yield_now(),
            Some(Told::Check(Err(_))) => break,
            other => panic!("{other:?} instead of the result of a health check"),
        }
    }
    let mut late = Client::ready(&endpoint, New);
    for client in [&mut before, &mut late] {
        assert_eq!(client.ask(&Word::Echo.number(1)), echo(1));
    }
    for client in [&mut before, &mut late] {
        assert_eq!(client.next(), Some(Told::Goodbye(0)));
        client.expect_end();
    }
    assert!(asked.elapsed() >= lame_duck, "{:?}", asked.elapsed());
    let report = agent.report();
    assert_eq!((report.drained, report.stats.answered), (2, 2), "{report}");
}

#[track_caller]
fn expect_refused(endpoint: &Endpoint) {
    let error = stream::connect(endpoint).map(drop).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
