//! Handlers that do not answer as they should: HAProxy gets the fallback, and nothing else suffers.

use std::time::{Duration, Instant};

use spop_proto::Dialect::{New, Old};

use super::expect_about;
use crate::adapter::Mode;
use crate::bench::Bench;
use crate::client::{Client, patient};
use crate::script::{Word, echo, fallback, limits};

pub(super) fn that_fail_or_panic(bench: &Bench) {
    let agent = bench.start();
    for dialect in [Old, New] {
        let mut client = Client::ready(agent.endpoint(), dialect);
        // More often than there are workers.
        for number in 0..6 {
            assert_eq!(client.ask(&Word::Fail.number(0)), fallback());
            assert_eq!(client.ask(&Word::Panic.number(0)), fallback());
            assert_eq!(client.ask(&Word::Echo.number(number)), echo(number));
        }
    }
    let stats = agent.stop().stats;
    assert_eq!((stats.errors, stats.panics, stats.answered), (12, 12, 12));
}

/// As above, after others have been served meanwhile.
pub(super) fn that_fail_or_panic_later(bench: &Bench) {
    let agent = bench.start();
    let gate = &bench.script.gate;
    let mut client = Client::ready(agent.endpoint(), New);
    client.send(&Word::Fail.behind(1));
    client.send(&Word::Panic.behind(2));
    gate.wait_until_came(2);
    for number in [1, 2] {
        assert_eq!(client.ask(&Word::Echo.number(number)), echo(number));
        gate.open(number);
        assert_eq!(client.ack().1, fallback());
    }
    assert_eq!(client.ask(&Word::Echo.number(3)), echo(3));
    let stats = agent.stop().stats;
    assert_eq!((stats.errors, stats.panics, stats.answered), (1, 1, 3));
}

pub(super) fn that_are_late(bench: &Bench) {
    let limit = Duration::from_millis(150);
    let agent = bench.start_with(limits().answer_timeout(limit).unwrap());
    let gate = &bench.script.gate;
    let mut client = Client::ready(agent.endpoint(), New);
    let mut waits = Vec::new();
    for number in 1..=3 {
        let before = Instant::now();
        assert_eq!(client.ask(&Word::Echo.behind(number)), fallback());
        waits.push(before.elapsed());
        if bench.mode == Mode::Workers {
            // A thread cannot be stopped: what it says now, nobody waits for.
            gate.open(number);
        }
        gate.wait_until_left(waits.len());
        assert_eq!(client.ask(&Word::Echo.number(number)), echo(number));
    }
    expect_about(limit, &waits);
    let stats = agent.stop().stats;
    assert_eq!((stats.deadlines, stats.answered), (3, 3));
}

/// An answer is one frame. An action that does not fit is refused, and the handler decides.
pub(super) fn that_answer_too_much(bench: &Bench) {
    let agent = bench.start();
    for dialect in [Old, New] {
        let config = patient(dialect).max_frame_size(1024).unwrap();
        let mut client = Client::connect(agent.endpoint(), config).unwrap();
        client.hello();
        let told = client.ask(&Word::FillOrTell.number(2000));
        let [before, limit] = &told[..] else { panic!("{told:?}") };
        assert_eq!(before, "set-var txn.before bool:true", "what was set earlier stands");
        let limit = limit.strip_prefix("set-var txn.limit uint32:").map(str::parse::<u32>);
        assert!(matches!(limit, Some(Ok(900..=1023))), "{told:?}");
        assert_eq!(client.ask(&Word::FillOrFail.number(2000)), fallback());
        // Most of what is allowed does fit.
        assert_eq!(client.ask(&Word::FillOrFail.number(900)).len(), 2);
        assert_eq!(client.ask(&Word::Echo.number(1)), echo(1));
    }
    let stats = agent.stop().stats;
    assert_eq!((stats.errors, stats.answered), (2, 6));
}

/// Futures are dropped; what threads say later goes nowhere, and nothing breaks.
pub(super) fn whose_connection_closes(bench: &Bench) {
    let agent = bench.start();
    let gate = &bench.script.gate;
    for (round, ended_in_order) in [(0, true), (1, false)] {
        let mut client = Client::ready(agent.endpoint(), New);
        let numbers = 3 * round..3 * round + 3;
        for number in numbers.clone() {
            client.send(&Word::Echo.behind(number as i64));
        }
        gate.wait_until_came(numbers.end);
        if ended_in_order {
            client.hang_up()
        } else {
            drop(client)
        }
        if bench.mode == Mode::Workers {
            assert_eq!(gate.left(), numbers.start, "nobody let them go");
            numbers.clone().for_each(|number| gate.open(number as i64));
        }
        gate.wait_until_left(numbers.end);
    }
    let mut client = Client::ready(agent.endpoint(), Old);
    for number in 0..10 {
        assert_eq!(client.ask(&Word::Echo.number(number)), echo(number));
    }
    client.hang_up();
    let stats = agent.stop().stats;
    assert_eq!((stats.notifies, stats.fallbacks()), (16, 0));
    // A thread that was let go may answer before its connection is known to be gone.
    let early = if bench.mode == Mode::Workers { 3 } else { 0 };
    assert!((10..=10 + early).contains(&stats.answered), "{stats:?}");
    assert_eq!(stats.answered + stats.abandoned, 16);
}
