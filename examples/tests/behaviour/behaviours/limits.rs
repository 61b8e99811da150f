//! Peers that stop, and peers that are too many.

use std::time::{Duration, Instant};

use spop_proto::Dialect::{New, Old};
use spop_proto::{EngineConfig, Overload};

use super::expect_about;
use crate::bench::Bench;
use crate::client::{Client, Told, patient};
use crate::script::{Word, echo, fallback, limits};
use crate::wire::{self, SAYS_7, Wire, notify};

const SHORT: Duration = Duration::from_millis(150);

/// The agent stops reading once nobody takes what it says, and in the end gives the peer up. What
/// it holds is bounded by limits, not by what it was asked.
pub(super) fn peer_never_reads(bench: &Bench) {
    const ASKED: u32 = 20_000;
    const ANSWER: i64 = 16_000;
    let limits = limits()
        .output((64 * 1024).try_into().unwrap())
        .in_flight(16.try_into().unwrap())
        .overload(Overload::Wait)
        .write_timeout(Duration::from_millis(500))
        .unwrap();
    let agent = bench.start_with(limits);
    // Up to 3.0: a later HAProxy is sent no more than its buffer takes, whether it reads or not.
    let config = patient(Old).window(ASKED.try_into().unwrap());
    let mut client = Client::connect(agent.endpoint(), config).unwrap();
    client.hello();
    // The requests fit the buffers of the kernel; their answers, 320 MB, fit nowhere.
    for _ in 0..ASKED {
        client.queue(&Word::Fill.number(ANSWER));
    }
    client.flush();
    client.wait_until_given_up();
    let mut other = Client::ready(agent.endpoint(), New);
    assert_eq!(other.ask(&Word::Echo.number(1)), echo(1));
    drop((client, other));
    let report = agent.stop();
    // What the kernel took of it, 64 KiB, and what was being handled.
    assert!(report.stats.notifies < 2000, "{report}");
    assert_eq!(report.protocol_errors, 1, "{report}");
}

/// Nothing else of the agent waits for the rest.
pub(super) fn peer_stops_within_a_frame(bench: &Bench) {
    let agent = bench.start_with(limits().frame_timeout(SHORT).unwrap());
    let mut waits = Vec::new();
    for cut in [1, 4, 10, notify(1).len() - 1] {
        let mut wire = Wire::ready(agent.endpoint());
        let before = Instant::now();
        wire.write(&[notify(1), notify(2)[..cut].to_vec()].concat());
        assert_eq!(wire.heard().payload, SAYS_7);
        let mut other = Client::ready(agent.endpoint(), Old);
        assert_eq!(other.ask(&Word::Echo.number(1)), echo(1));
        assert_eq!(wire.goodbye(), 2, "{cut} bytes of a frame");
        waits.push(before.elapsed());
        // The other one has waited longer than that, but not within a frame.
        assert_eq!(other.ask(&Word::Echo.number(2)), echo(2));
    }
    expect_about(SHORT, &waits);
    assert_eq!(agent.stop().protocol_errors, 4);
}

pub(super) fn peer_says_no_hello(bench: &Bench) {
    let agent = bench.start_with(limits().hello_timeout(SHORT).unwrap());
    let mut ready = Client::ready(agent.endpoint(), New);
    let mut waits = Vec::new();
    for said in [0, 1, 50] {
        let before = Instant::now();
        let mut wire = Wire::connect(agent.endpoint());
        wire.write(&wire::hello()[..said]);
        assert_eq!(wire.goodbye(), 2, "{said} bytes of a HELLO");
        waits.push(before.elapsed());
    }
    expect_about(SHORT, &waits);
    assert_eq!(ready.ask(&Word::Echo.number(1)), echo(1));
    assert_eq!(agent.stop().protocol_errors, 3);
}

/// Beyond the limit a request gets the fallback at once.
pub(super) fn in_flight_shed(bench: &Bench) {
    let agent = bench.start_with(limits().in_flight(2.try_into().unwrap()));
    let gate = &bench.script.gate;
    let mut client = Client::ready(agent.endpoint(), New);
    let ids = [1, 2, 3].map(|number| client.queue(&Word::Echo.behind(number)));
    client.flush();
    assert_eq!(client.ack(), (ids[2], fallback()));
    gate.wait_until_came(2);
    for (number, id) in [(2, ids[1]), (1, ids[0])] {
        gate.open(number);
        assert_eq!(client.ack(), (id, echo(number)));
    }
    assert_eq!(client.ask(&Word::Echo.number(4)), echo(4));
    let stats = agent.stop().stats;
    assert_eq!((stats.shed, stats.answered), (1, 3));
}

/// The same, where it has to wait for its turn.
pub(super) fn in_flight_wait(bench: &Bench) {
    let limits = limits().in_flight(2.try_into().unwrap()).overload(Overload::Wait);
    let agent = bench.start_with(limits);
    let gate = &bench.script.gate;
    let mut client = Client::ready(agent.endpoint(), New);
    let ids = [1, 2, 3, 4].map(|number| client.queue(&Word::Echo.behind(number)));
    client.flush();
    gate.wait_until_came(2);
    // Not asked before the first is answered, and then without a further byte from HAProxy.
    gate.open(3);
    gate.open(1);
    assert_eq!(client.ack(), (ids[0], echo(1)));
    assert_eq!(client.ack(), (ids[2], echo(3)));
    gate.wait_until_came(4);
    for (number, id) in [(4, ids[3]), (2, ids[1])] {
        gate.open(number);
        assert_eq!(client.ack(), (id, echo(number)));
    }
    let stats = agent.stop().stats;
    assert_eq!((stats.shed, stats.answered), (0, 4));
}

/// Beyond the limit connections are accepted, health checks answered and the others closed, after
/// a while and without a word.
pub(super) fn connections(bench: &Bench) {
    let agent = bench.start_with(limits().connections(2.try_into().unwrap()));
    let endpoint = agent.endpoint();
    let mut first = Client::ready(endpoint, New);
    let second = Client::ready(endpoint, Old);
    for dialect in [Old, New] {
        let check = EngineConfig::new(dialect).health_check();
        let mut check = Client::connect(endpoint, check).unwrap();
        assert_eq!(check.next(), Some(Told::Check(Ok(()))));
        check.expect_end();
        let before = Instant::now();
        Client::connect(endpoint, patient(dialect)).unwrap().expect_end();
        let silent = Wire::connect(endpoint);
        silent.hang_up();
        assert!(before.elapsed() >= Duration::from_millis(100), "{:?}", before.elapsed());
    }
    assert_eq!(first.ask(&Word::Echo.number(1)), echo(1));
    // There is room again once the agent has seen the end of one.
    second.hang_up();
    let end = Instant::now() + crate::PATIENCE;
    let mut turned_away = 0;
    let mut third = loop {
        let mut client = Client::connect(endpoint, patient(New)).unwrap();
        match client.next() {
            Some(Told::Hello(..)) => break client,
            None if Instant::now() < end => turned_away += 1,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(third.ask(&Word::Echo.number(3)), echo(3));
    drop((first, third));
    let report = agent.stop();
    assert_eq!((report.health_checks, report.protocol_errors), (2, 0), "{report}");
    assert_eq!(report.connections, 9 + turned_away);
    // The silent ones had left before they could be turned away.
    assert!((2 + turned_away..=4 + turned_away).contains(&report.refused), "{report:?}");
}
