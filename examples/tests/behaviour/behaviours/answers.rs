//! Answers: whole, in time, in whatever order.

use spop_proto::Dialect::{New, Old};

use crate::bench::Bench;
use crate::client::{Client, Told};
use crate::script::{Word, echo};
use crate::wire::{self, Wire};

pub(super) fn to_both_generations(bench: &Bench) {
    let agent = bench.start();
    for dialect in [Old, New] {
        let mut client = Client::ready(agent.endpoint(), dialect);
        for number in 0..100 {
            assert_eq!(client.ask(&Word::Echo.number(number)), echo(number));
        }
        client.shutdown();
        if dialect == Old {
            assert_eq!(client.next(), Some(Told::Goodbye(0)), "a goodbye is answered");
        }
        client.expect_end();
    }
    let report = agent.stop();
    assert_eq!((report.connections, report.stats.answered), (2, 200));
    assert_eq!((report.protocol_errors, report.stats.abandoned), (0, 0));
}

/// However the stream is cut, the answers are the same.
pub(super) fn to_frames_split_and_coalesced(bench: &Bench) {
    const COUNT: u8 = 20;
    let agent = bench.start();
    let mut bytes = wire::hello();
    for stream in 1..=COUNT {
        bytes.extend(wire::notify(stream));
    }
    for piece in [bytes.len(), 1, 2, 3, 5, 7, 11, 64] {
        let mut wire = Wire::connect(agent.endpoint());
        for piece in bytes.chunks(piece) {
            wire.write(piece);
        }
        assert_eq!(wire.heard().bytes, wire::agent_hello());
        let mut streams = Vec::new();
        for _ in 0..COUNT {
            let heard = wire.heard();
            assert_eq!((heard.kind, heard.flags), (wire::ACK, wire::FIN), "in pieces of {piece}");
            assert_eq!(heard.payload, wire::SAYS_7, "in pieces of {piece}");
            streams.push(heard.stream);
        }
        if bench.mode.overtakes() {
            streams.sort_unstable();
        }
        assert!(streams.into_iter().eq(1..=u64::from(COUNT)), "in pieces of {piece}");
        wire.hang_up();
    }
    let report = agent.stop();
    assert_eq!((report.stats.answered, report.protocol_errors), (8 * u64::from(COUNT), 0));
}

/// All twenty that HAProxy asks at once are in their handlers at once.
pub(super) fn in_reverse(bench: &Bench) {
    let mut setup = bench.setup();
    setup.workers = 20;
    let agent = bench.adapter.start(setup).unwrap();
    let gate = &bench.script.gate;
    let mut client = Client::ready(agent.endpoint(), New);
    let ids: Vec<_> = (0..20).map(|number| client.queue(&Word::Echo.behind(number))).collect();
    client.flush();
    gate.wait_until_came(20);
    for (number, id) in (0..20).rev().zip(ids.into_iter().rev()) {
        gate.open(number);
        assert_eq!(client.next(), Some(Told::Ack(id, echo(number))));
    }
    assert_eq!(agent.stop().stats.answered, 20);
}

pub(super) fn quick_beside_slow(bench: &Bench) {
    let agent = bench.start();
    let gate = &bench.script.gate;
    for dialect in [Old, New] {
        let mut client = Client::ready(agent.endpoint(), dialect);
        let slow = client.send(&Word::Echo.behind(-1));
        gate.wait_until_came(if dialect == Old { 1 } else { 2 });
        for number in 0..50 {
            assert_eq!(client.ask(&Word::Echo.number(number)), echo(number));
        }
        if dialect == New {
            gate.open(-1);
            assert_eq!(client.next(), Some(Told::Ack(slow, echo(-1))));
        } else {
            // Waits at the gate while the next connection is served, too.
            client.hang_up();
        }
    }
    let report = agent.stop();
    assert_eq!((report.stats.answered, report.stats.abandoned), (101, 1));
}
