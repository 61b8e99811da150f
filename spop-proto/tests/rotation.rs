//! Connections that leave because they are old.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests: they may panic, and need a first instant to count from"
)]

mod common;

use common::{AGENT_DISCONNECT, MESSAGE, NOTIFY, Rig, UNSET, ack, agent_disconnect, frame, notify};
use spop_proto::{AgentConfig, CloseReason, ConfigError, Limits};
use std::time::Duration;

/// A quarter is added at most.
const AGE: u64 = 8_000;
const OLDEST: u64 = 10_000;

fn limits() -> Limits {
    let limits = Limits::new().max_age(Some(Duration::from_millis(AGE))).unwrap();
    limits.answer_timeout(Duration::from_secs(60)).unwrap()
}

/// A connection whose buffers were given back, so that its deadline is that of its age.
fn ready(limits: Limits) -> Rig {
    let mut rig = Rig::ready(AgentConfig::new().limits(limits));
    rig.timeout(2_000).unwrap();
    rig
}

fn goodbye() -> Vec<u8> {
    agent_disconnect(0, "the connection is old")
}

#[track_caller]
fn expect_aged(rig: &Rig) {
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Aged));
}

#[test]
fn an_idle_connection_leaves_when_it_is_old() {
    let mut rig = ready(limits());
    let end = rig.deadline().unwrap();
    assert!((AGE..OLDEST).contains(&end), "{end}");
    rig.timeout(end - 1).unwrap();
    assert_eq!(rig.take(), b"");
    // The jitter is no whole number of milliseconds.
    rig.timeout(end + 1).unwrap();
    assert_eq!(rig.take(), goodbye());
    expect_aged(&rig);
    rig.timeout(end + 1_001).unwrap();
    assert!(rig.conn.interest().done);
}

#[test]
fn by_default_none_is_too_old() {
    let rig = ready(Limits::new());
    assert_eq!(rig.deadline(), None);
    let zero = Limits::new().max_age(Some(Duration::ZERO)).map(drop);
    assert_eq!(zero, Err(ConfigError::ZeroTimeout { name: "max_age" }));
}

#[test]
fn neighbours_do_not_leave_together() {
    let rigs: Vec<_> = (0..16).map(|_| ready(limits())).collect();
    let mut ends: Vec<_> = rigs.iter().map(|rig| rig.deadline().unwrap()).collect();
    ends.sort_unstable();
    ends.dedup();
    assert!(ends.len() > 12 && ends[ends.len() - 1] - ends[0] > 1_000, "{ends:?}");
}

/// HAProxy up to 3.0 is about to ask on a connection that it has just used.
#[test]
fn one_that_was_just_asked_leaves_with_the_next_answer() {
    let mut rig = ready(limits());
    rig.feed(OLDEST - 100, &notify(1)).unwrap();
    rig.take();
    rig.timeout(OLDEST).unwrap();
    assert_eq!(rig.take(), b"", "not alone");
    rig.feed(OLDEST + 100, &notify(3)).unwrap();
    assert_eq!(rig.take(), [ack(3, b""), goodbye()].concat());
    expect_aged(&rig);
    assert_eq!(rig.conn.stats().abandoned, 0);
}

#[test]
fn one_that_is_asked_no_more_leaves_after_a_while() {
    let mut rig = ready(limits());
    rig.feed(OLDEST - 100, &notify(1)).unwrap();
    rig.take();
    rig.timeout(OLDEST).unwrap();
    assert_eq!(rig.deadline(), Some(OLDEST + 400), "half a second after it was asked");
    rig.timeout(OLDEST + 400).unwrap();
    assert_eq!(rig.take(), goodbye());
}

#[test]
fn what_is_owed_is_answered_first() {
    let mut rig = ready(limits());
    let first = rig.defer(AGE - 1_000, &notify(1));
    rig.timeout(OLDEST).unwrap();
    assert_eq!(rig.deadline(), Some(OLDEST + 500), "goes round no faster");
    let second = rig.defer(OLDEST, &notify(3));
    let now = rig.at(OLDEST);
    rig.conn.answer(second, now).unwrap().commit();
    assert!(!rig.conn.interest().ready, "one is still owed");
    assert_eq!(rig.take(), ack(3, b""));
    rig.conn.answer(first, now).unwrap().commit();
    assert!(rig.conn.interest().ready);
    rig.feed(OLDEST, b"").unwrap();
    assert_eq!(rig.take(), [ack(1, b""), goodbye()].concat());
    assert_eq!((rig.conn.stats().answered, rig.conn.stats().abandoned), (2, 0));
}

/// What a worker does that writes an answer itself: nobody reads in between.
#[test]
fn the_goodbye_goes_with_an_answer_of_another_thread() {
    let mut rig = ready(limits());
    let owed = rig.defer(OLDEST - 100, &notify(1));
    rig.timeout(OLDEST).unwrap();
    let now = rig.at(OLDEST + 1);
    rig.conn.answer(owed, now).unwrap().commit();
    rig.timeout(OLDEST + 1).unwrap();
    assert_eq!(rig.take(), [ack(1, b""), goodbye()].concat());
}

#[test]
fn what_has_begun_to_arrive_is_waited_for() {
    let mut rig = ready(limits());
    let asks = notify(3);
    rig.feed(OLDEST - 1_000, &[&notify(1)[..], &asks[..10]].concat()).unwrap();
    rig.take();
    rig.timeout(OLDEST).unwrap();
    assert_eq!(rig.take(), b"", "half a frame");
    rig.feed(OLDEST + 1, &asks[10..]).unwrap();
    assert_eq!(rig.take(), [ack(3, b""), goodbye()].concat());

    let mut rig = ready(limits());
    rig.feed(OLDEST - 1_000, &frame(NOTIFY, 0, 1, 1, &MESSAGE[..3])).unwrap();
    rig.timeout(OLDEST).unwrap();
    assert_eq!(rig.take(), b"", "half a payload");
    rig.feed(OLDEST + 1, &frame(UNSET, 1, 1, 1, &MESSAGE[3..])).unwrap();
    assert_eq!(rig.take(), [ack(1, b""), goodbye()].concat());
}

/// The remedy for a connection that HAProxy has stopped reading: what it does not take is not waited for.
#[test]
fn one_that_haproxy_does_not_read_leaves_too() {
    let mut rig = ready(limits().write_timeout(Duration::from_secs(60)).unwrap());
    rig.feed(OLDEST - 1_000, &notify(1)).unwrap();
    rig.timeout(OLDEST).unwrap();
    expect_aged(&rig);
    // What is left of it has the time of a drain, and then the connection is closed.
    rig.timeout(OLDEST + 1_000).unwrap();
    assert!(!rig.conn.interest().done);
    for at in 0..40 {
        rig.timeout(OLDEST + 1_000 * at).unwrap();
    }
    assert!(rig.conn.interest().done);
    expect_aged(&rig);
}

/// A stop has the usual time, however old its connections are.
#[test]
fn a_stop_takes_over() {
    for before in [1_000, OLDEST] {
        let mut rig = ready(limits());
        let owed = rig.defer(before - 100, &notify(1));
        rig.timeout(before).unwrap();
        let now = rig.at(before);
        rig.conn.shutdown(now);
        // Past the age, and long before the end of the drain.
        let end = OLDEST + 2_000;
        for at in (before..end).step_by(100) {
            rig.timeout(at).unwrap();
        }
        assert_eq!(rig.conn.close_reason(), None);
        assert!(rig.deadline().is_none_or(|at| at > end - 100), "goes round");
        let now = rig.at(end);
        rig.conn.answer(owed, now).unwrap().commit();
        rig.feed(end, b"").unwrap();
        let sent = rig.take();
        assert_eq!(sent[ack(1, b"").len() + 4], AGENT_DISCONNECT);
        assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
    }
}
