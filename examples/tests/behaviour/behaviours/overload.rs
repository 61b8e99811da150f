//! The limit on what all connections of an agent owe together.

use std::time::{Duration, Instant};

use spop_proto::Dialect::{New, Old};
use spop_proto::{Limits, Overload, Var};

use crate::bench::Bench;
use crate::client::{Client, Told};
use crate::script::{Word, echo, fallback, limits};

/// A handler has come a moment before its answer is owed. Returns how often that was seen.
#[track_caller]
fn ask_until_shed(client: &mut Client) -> u64 {
    let end = Instant::now() + crate::PATIENCE;
    for early in 0.. {
        if client.ask(&Word::Echo.number(3)) == fallback() {
            return early;
        }
        assert!(Instant::now() < end, "nothing is shed");
    }
    0
}

fn two() -> Limits {
    limits().agent_in_flight(2.try_into().unwrap())
}

/// Beyond it a request gets the fallback at once, on whichever connection it comes.
pub(super) fn shed(bench: &Bench) {
    let agent = bench.start_with(two());
    let gate = &bench.script.gate;
    let mut first = Client::ready(agent.endpoint(), New);
    let mut second = Client::ready(agent.endpoint(), Old);
    first.send(&Word::Echo.behind(1));
    second.send(&Word::Echo.behind(2));
    gate.wait_until_came(2);
    let early = ask_until_shed(&mut first);
    assert_eq!(second.ask(&Word::Echo.number(3)), fallback());
    gate.open(1);
    assert_eq!(first.ack().1, echo(1));
    assert_eq!(second.ask(&Word::Echo.number(4)), echo(4));
    gate.open(2);
    assert_eq!(second.ack().1, echo(2));
    let stats = agent.stop().stats;
    assert_eq!((stats.shed, stats.answered), (2, 3 + early));
}

/// The same, where it has to wait for its turn: what others answer is seen without a byte from HAProxy.
pub(super) fn wait(bench: &Bench) {
    let agent = bench.start_with(two().overload(Overload::Wait));
    let gate = &bench.script.gate;
    let mut first = Client::ready(agent.endpoint(), New);
    let mut second = Client::ready(agent.endpoint(), Old);
    first.send(&Word::Echo.behind(1));
    first.send(&Word::Echo.behind(2));
    gate.wait_until_came(2);
    // Others are still let in; they wait as well, as soon as they ask. (The second answer is owed only
    // once its handler has given the thread back: a few handshakes later at the latest.)
    for _ in 0..20 {
        Client::ready(agent.endpoint(), New).hang_up();
    }
    let mut idle = Client::ready(agent.endpoint(), New);
    gate.open(3);
    gate.open(4);
    let third = second.send(&Word::Echo.behind(3));
    let fourth = idle.send(&Word::Echo.behind(4));
    for _ in 0..20 {
        Client::ready(agent.endpoint(), New).hang_up();
    }
    assert_eq!(gate.left(), 0, "asked beyond the limit");
    gate.open(1);
    assert_eq!(first.ack().1, echo(1));
    assert_eq!(second.ack(), (third, echo(3)));
    assert_eq!(idle.ack(), (fourth, echo(4)));
    gate.open(2);
    assert_eq!(first.ack().1, echo(2));
    let stats = agent.stop().stats;
    assert_eq!((stats.shed, stats.answered), (0, 4));
}

/// The answers of a connection that has ended are owed no more.
pub(super) fn and_connections_that_end(bench: &Bench) {
    let agent = bench.start_with(two());
    let gate = &bench.script.gate;
    let mut early = 0;
    for round in 0..3 {
        let mut client = Client::ready(agent.endpoint(), New);
        client.send(&Word::Echo.behind(2 * round));
        client.send(&Word::Echo.behind(2 * round + 1));
        gate.wait_until_came(usize::try_from(2 * round + 2).unwrap());
        let mut other = Client::ready(agent.endpoint(), New);
        early += ask_until_shed(&mut other);
        client.hang_up();
        assert_eq!(other.ask(&Word::Echo.number(7)), echo(7));
        // Threads cannot be stopped: what they say now, nobody waits for.
        gate.open(2 * round);
        gate.open(2 * round + 1);
        gate.wait_until_left(usize::try_from(2 * round + 2).unwrap());
    }
    let stats = agent.stop().stats;
    assert_eq!((stats.shed, stats.answered, stats.abandoned), (3, 3 + early, 6));
}

/// The reason for a fallback answer is in it, if that was asked for.
pub(super) fn fallback_says_why(bench: &Bench) {
    let mut setup = bench.setup();
    setup.config = setup.config.fallback_reason(Var::transaction("why")).unwrap();
    let agent = bench.adapter.start(setup).unwrap();
    let mut client = Client::ready(agent.endpoint(), New);
    let because = |reason| {
        let why = format!("set-var txn.why str:{reason}");
        [fallback(), vec![why]].concat()
    };
    assert_eq!(client.ask(&Word::Fail.number(0)), because("error"));
    assert_eq!(client.ask(&Word::Panic.number(0)), because("panic"));
    assert_eq!(client.ask(&Word::FillOrFail.number(20_000)), because("too-big"));
    assert_eq!(client.ask(&Word::Echo.number(1)), echo(1));
    let stats = agent.stop().stats;
    assert_eq!((stats.errors, stats.panics, stats.too_big, stats.answered), (2, 1, 1, 1));
}

/// Connections that are old leave, and not before everything is answered.
pub(super) fn old_connections_leave(bench: &Bench) {
    let age = Duration::from_millis(300);
    let agent = bench.start_with(limits().max_age(Some(age)).unwrap());
    for dialect in [Old, New] {
        let start = Instant::now();
        let mut idle = Client::ready(agent.endpoint(), dialect);
        let mut busy = Client::ready(agent.endpoint(), dialect);
        let mut asked = 0;
        let told = loop {
            // Where it cannot be asked any more, the goodbye has come with the last answer.
            let Ok(id) = busy.try_queue(&Word::Echo.number(asked)) else { break busy.next() };
            match busy.next() {
                Some(Told::Ack(answered, actions)) => {
                    assert_eq!((answered, actions), (id, echo(asked)));
                    asked += 1;
                }
                other => break other,
            }
        };
        assert_eq!(told, Some(Told::Goodbye(0)), "after {asked} answers");
        assert!(asked > 0 && start.elapsed() >= age);
        assert_eq!(idle.next(), Some(Told::Goodbye(0)));
        idle.expect_end();
    }
    let mut again = Client::ready(agent.endpoint(), New);
    assert_eq!(again.ask(&Word::Echo.number(5)), echo(5));
    drop(again);
    let report = agent.stop();
    assert_eq!((report.protocol_errors, report.cut), (0, 0), "{report}");
    assert_eq!((report.stats.abandoned, report.stats.fallbacks()), (0, 0), "{report}");
}
