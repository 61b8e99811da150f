//! The limit on what all connections of an agent owe together.

use std::num::NonZeroUsize;
use std::time::Duration;

use spop_proto::{AgentConfig, Limits, Overload};

use crate::common::*;
use crate::support::*;

fn shedding(answers: u32) -> AgentConfig {
    AgentConfig::new().limits(Limits::new().agent_in_flight(count(answers)))
}

/// The same by what they are owed for.
fn shedding_bytes(answers: usize) -> AgentConfig {
    let each = MESSAGE.len();
    let bytes = NonZeroUsize::new(answers * each).unwrap();
    AgentConfig::new().limits(Limits::new().agent_in_flight_bytes(bytes))
}

fn waiting(answers: u32) -> AgentConfig {
    let limits = Limits::new().agent_in_flight(count(answers)).overload(Overload::Wait);
    AgentConfig::new().limits(limits)
}

#[test]
fn beyond_it_a_request_is_shed_on_any_connection() {
    for config in [shedding(2), shedding_bytes(2)] {
        let [mut one, mut other] = [0; 2].map(|_| Rig::ready(config.clone()));
        let first = one.defer(0, &notify(1));
        let _second = other.defer(0, &notify(1));
        for rig in [&mut one, &mut other] {
            assert_eq!(rig.feed(0, &notify(3)), Ok(vec![]), "the third is not even asked");
            assert_eq!(rig.take(), ack(3, b""));
            assert_eq!(rig.conn.stats().shed, 1);
        }
        // One answered, one may come again, anywhere.
        one.answer(0, first).unwrap().commit();
        assert_eq!(other.feed(0, &notify(5)), asked(5));
        assert_eq!(other.conn.stats().shed, 1);
    }
}

/// Whatever ends an answer, it is counted off once.
#[test]
fn every_end_of_an_answer_makes_room() {
    type End = (&'static str, fn(&mut Rig));
    let ends: [End; 6] = [
        ("its deadline", |rig| rig.timeout(10_000).unwrap()),
        ("the end of the stream", |rig| rig.conn.peer_closed(rig.at(0))),
        ("HAProxy's goodbye", |rig| drop(rig.feed(0, &haproxy_disconnect(0, "normal")))),
        ("a close", |rig| rig.conn.close(spop_proto::Status::NORMAL, "x", rig.at(0))),
        ("broken protocol", |rig| drop(rig.feed(0, &[0; 8]))),
        ("the same question again, answered inline", |rig| drop(rig.feed(0, &notify(1)))),
    ];
    let both = [shedding(1), shedding_bytes(1)];
    for ((end, make), config) in ends.into_iter().flat_map(|end| both.clone().map(|by| (end, by))) {
        let [mut one, mut other] = [0; 2].map(|_| Rig::ready(config.clone()));
        let _owed = one.defer(0, &notify(1));
        other.feed(0, &notify(1)).unwrap();
        assert_eq!(other.conn.stats().shed, 1);
        make(&mut one);
        assert_eq!(other.feed(0, &notify(3)), asked(3), "{end}");
        let _owed = other.defer(0, &notify(5));
        drop(one);
        other.feed(0, &notify(7)).unwrap();
        assert_eq!(other.conn.stats().shed, 2, "{end}: counted off twice");
    }
    // A connection that is just dropped.
    let config = shedding(1);
    let mut one = Rig::ready(config.clone());
    let _owed = one.defer(0, &notify(1));
    drop(one);
    assert_eq!(Rig::ready(config).feed(0, &notify(1)), asked(1));
}

#[test]
fn what_is_answered_inline_is_never_owed() {
    let mut rig = Rig::ready(shedding(1));
    for stream in 0..1000 {
        assert_eq!(rig.feed(0, &notify(stream)), asked(stream));
    }
    assert_eq!(rig.conn.stats().shed, 0);
}

#[test]
fn servers_count_for_themselves() {
    let config = shedding(1);
    let [mut one, mut other] = [0; 2].map(|_| Rig::ready(config.for_server().0));
    let _owed = one.defer(0, &notify(1));
    assert_eq!(other.feed(0, &notify(1)), asked(1));
    one.feed(0, &notify(3)).unwrap();
    assert_eq!((one.conn.stats().shed, other.conn.stats().shed), (1, 0));
}

#[test]
fn a_connection_waits_for_the_answers_of_others() {
    let config = waiting(1);
    let [mut one, mut other, idle] = [0; 3].map(|_| Rig::ready(config.clone()));
    let owed = one.defer(0, &notify(1));
    assert!(idle.conn.interest().read, "one that was asked nothing waits for nothing");
    assert_eq!(other.feed(0, &[notify(1), notify(3)].concat()), Ok(vec![]));
    let want = other.conn.interest();
    assert!(!want.read && !want.ready && !want.done);
    // Looks again every 5 ms, and goes round no faster.
    for look in 1..=3 {
        assert_eq!(other.deadline(), Some(5 * look));
        other.timeout(5 * look).unwrap();
        assert!(!other.conn.interest().ready);
    }
    one.answer(17, owed).unwrap().commit();
    // Seen by whoever asks, at the latest when the connection looks again.
    other.timeout(20).unwrap();
    let want = other.conn.interest();
    assert!(want.ready && want.read);
    let _owed = other.defer(20, b"");
    assert_eq!(other.feed(20, b""), Ok(vec![]), "the second waits for the first");
    assert_eq!(other.deadline(), Some(25));
    assert_eq!(other.conn.stats().shed, 0);
    other.timeout(10_020).unwrap();
    assert!(other.conn.interest().ready, "the deadline has answered the first");
    assert_eq!(other.feed(10_020, b""), asked(3));
    assert!(other.conn.interest().read);
    assert_eq!(other.take(), [ack(1, b""), ack(3, b"")].concat());
}

/// It costs a connection nothing once that is over.
#[test]
fn a_connection_that_has_waited_holds_no_memory() {
    let config = waiting(1);
    let [mut one, mut other] = [0; 2].map(|_| Rig::ready(config.clone()));
    let owed = one.defer(0, &notify(1));
    other.feed(0, &notify(1)).unwrap();
    one.answer(1, owed).unwrap().commit();
    assert_eq!(other.feed(1, b""), asked(1));
    other.take();
    other.timeout(2_000).unwrap();
    assert_eq!((other.conn.buffered(), other.deadline()), (0, None));
}

/// Neither HELLO nor a health check has anything to wait for.
#[test]
fn handshakes_do_not_wait() {
    let config = waiting(1);
    let mut one = Rig::ready(config.clone());
    let _owed = one.defer(0, &notify(1));
    let mut check = Rig::new(config.clone());
    assert_eq!(check.feed(0, &health_check()), Ok(vec!["HealthCheck true".to_owned()]));
    Rig::ready(config);
}

/// The time in which it did not read was not HAProxy's.
#[test]
fn a_frame_is_not_timed_while_its_connection_waits() {
    let limits = Limits::new().agent_in_flight(count(1)).overload(Overload::Wait);
    let frame_time = limits.frame_timeout(Duration::from_secs(1)).unwrap();
    let config = AgentConfig::new().limits(frame_time);
    let [mut one, mut other] = [0; 2].map(|_| Rig::ready(config.clone()));
    let asks = notify(1);
    let (begin, rest) = asks.split_at(10);
    assert_eq!(other.feed(0, begin), Ok(vec![]));
    let owed = one.defer(1, &notify(1));
    assert_eq!(other.feed(2, &rest[..1]), Ok(vec![]));
    for at in (5..1_500).step_by(5) {
        assert_eq!(other.timeout(at), Ok(()));
    }
    one.answer(1_500, owed).unwrap().commit();
    assert_eq!(other.timeout(1_500), Ok(()));
    assert_eq!(other.feed(1_501, &rest[1..]), asked(1));
}
