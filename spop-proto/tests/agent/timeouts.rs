//! Time is an argument, so none of these takes any.

use spop_proto::{AgentConfig, Limits, Waiting};

use crate::common::*;
use crate::support::*;

#[test]
fn hello_timeout() {
    let mut rig = Rig::new(with(Limits::new().hello_timeout(ms(300)).unwrap()));
    assert_eq!(rig.deadline(), Some(300));
    // Bytes of a HELLO do not prolong it.
    let hello = hello();
    for (at, byte) in hello[..20].iter().enumerate() {
        rig.feed(10 * at as u64, &[*byte]).unwrap();
    }
    assert_eq!(rig.deadline(), Some(300));
    assert_eq!(rig.timeout(299), Ok(()));
    assert_eq!(rig.timeout(300), Err(timeout(Waiting::Hello)));
    assert_eq!(rig.take(), agent_disconnect(2, "timeout: no HELLO arrived"));
    // Then HAProxy has the close timeout to go.
    assert_eq!(rig.timeout(1299), Ok(()));
    assert!(!rig.conn.interest().done);
    assert_eq!(rig.timeout(1300), Ok(()));
    assert!(rig.conn.interest().done);
}

#[test]
fn the_hello_timeout_ends_with_the_hello() {
    let mut rig = Rig::ready(AgentConfig::new());
    assert_eq!(rig.timeout(1_000_000), Ok(()));
    assert_eq!(rig.deadline(), None, "an idle connection wakes nobody");
    assert_eq!(rig.feed(2_000_000, &notify(1)), asked(1));
}

#[test]
fn the_frame_timeout_is_not_put_off_byte_by_byte() {
    let limits = Limits::new().frame_timeout(ms(500)).unwrap();
    let mut rig = Rig::ready(with(limits));
    let notify = notify(1);
    for (at, byte) in notify[..10].iter().enumerate() {
        assert_eq!(rig.feed(100 + 40 * at as u64, &[*byte]), Ok(vec![]));
    }
    assert_eq!(rig.timeout(599), Ok(()));
    assert_eq!(rig.timeout(600), Err(timeout(Waiting::Frame)));
    assert_eq!(rig.take(), agent_disconnect(2, "timeout: a frame was begun and not finished"));
}

#[test]
fn each_frame_has_its_own_time() {
    let limits = Limits::new().frame_timeout(ms(500)).unwrap();
    let mut rig = Rig::ready(with(limits));
    rig.feed(0, &notify(1)[..5]).unwrap();
    // The rest of it and the beginning of the next.
    rig.feed(400, &[&notify(1)[5..], &notify(3)[..5]].concat()).unwrap();
    assert_eq!(rig.timeout(899), Ok(()));
    rig.feed(899, &notify(3)[5..]).unwrap();
    rig.take();
    assert_eq!(rig.timeout(100_000), Ok(()), "nothing is begun");
}

#[test]
fn the_write_timeout_wants_progress() {
    let limits = Limits::new().write_timeout(ms(500)).unwrap();
    let mut rig = Rig::ready(with(limits.clone()));
    rig.feed(100, &notify(1)).unwrap();
    assert_eq!(rig.deadline(), Some(600));
    // A byte taken now and then is progress.
    for turn in 1..8 {
        rig.conn.transmitted(1);
        rig.timeout(100 + 500 * turn).unwrap();
        assert_eq!(rig.deadline(), Some(600 + 500 * turn));
    }
    // None taken is not, and more output is none either.
    rig.conn.transmitted(0);
    rig.feed(3700, &notify(3)).unwrap();
    assert_eq!(rig.timeout(4099), Ok(()));
    assert_eq!(rig.timeout(4100), Err(timeout(Waiting::Write)));
    let want = rig.conn.interest();
    assert!(want.done && !want.write, "nobody would read a goodbye: {want:?}");
    assert_eq!(rig.conn.transmit(), b"");

    // All of it taken in time, the next answer has the whole time.
    let mut rig = Rig::ready(with(limits));
    rig.feed(0, &notify(1)).unwrap();
    rig.take();
    rig.feed(499, &notify(3)).unwrap();
    assert_eq!(rig.timeout(998), Ok(()));
    assert_eq!(rig.timeout(999), Err(timeout(Waiting::Write)));
}

#[test]
fn late_answers_fall_back_in_the_order_of_their_deadlines() {
    let limits = Limits::new().answer_timeout(ms(80)).unwrap();
    let mut rig = Rig::ready(with_fallback().limits(limits));
    let _a = rig.defer(0, &notify(1));
    let b = rig.defer(10, &notify(3));
    let _c = rig.defer(20, &notify(5));
    let _d = rig.defer(30, &notify(7));
    assert_eq!(rig.deadline(), Some(80));
    assert_eq!(rig.timeout(79), Ok(()));
    assert_eq!(rig.take(), b"");
    rig.answer(79, b).unwrap().commit();
    assert_eq!(rig.take(), ack(3, b""));
    rig.timeout(105).unwrap();
    assert_eq!(rig.take(), [fallen(1), fallen(5)].concat());
    assert_eq!(rig.deadline(), Some(110));
    rig.timeout(110).unwrap();
    assert_eq!(rig.take(), fallen(7));
    let stats = rig.conn.stats();
    assert_eq!((stats.deadlines, stats.answered, rig.conn.in_flight()), (3, 1, 0));
}

#[test]
fn an_answer_given_before_the_deadline_was_handled_counts() {
    let mut rig = Rig::ready(AgentConfig::new());
    let ticket = rig.defer(0, &notify(1));
    assert!(rig.conn.owes(&ticket));
    rig.answer(10_001, ticket).unwrap().commit();
    assert_eq!(rig.conn.stats().answered, 1);
}

/// HAProxy waits for the answer that is late, whatever else it did wrong by then.
#[test]
fn a_late_answer_goes_out_before_the_goodbye_of_the_same_moment() {
    let mut rig = Rig::ready(with_fallback());
    let _owed = rig.defer(0, &notify(1));
    rig.feed(0, &notify(3)[..6]).unwrap();
    assert_eq!(rig.timeout(10_000), Err(timeout(Waiting::Frame)));
    let goodbye = agent_disconnect(2, "timeout: a frame was begun and not finished");
    assert_eq!(rig.take(), [fallen(1), goodbye].concat());
}

/// The time in which this side did not read is not the peer's.
#[test]
fn a_frame_is_not_timed_while_reading_has_to_wait() {
    let limits = Limits::new().output(bytes(1));
    let mut rig = Rig::ready(with(limits));
    let ticket = rig.defer(0, &notify(1));
    // Half a frame, and then output that keeps this side from reading the rest.
    rig.feed(0, &notify(3)[..6]).unwrap();
    rig.answer(1000, ticket).unwrap().commit();
    assert!(!rig.conn.interest().read);
    for second in 2..=9 {
        rig.conn.transmitted(1);
        rig.timeout(second * 1000).unwrap();
    }
    rig.timeout(10_000).unwrap();
    assert_eq!(rig.conn.close_reason(), None, "nobody read");
    rig.take();
    // It has the whole time again, from when that was seen.
    rig.timeout(20_000).unwrap();
    assert_eq!(rig.timeout(30_000), Err(timeout(Waiting::Frame)), "now it is the peer's turn");
}

/// A driver that comes late, after a day of suspension for instance, does not catch up on trims.
#[test]
fn a_late_driver_does_not_go_round() {
    let mut rig = Rig::ready(AgentConfig::new());
    let limits_are_far = rig.defer(0, &notify(1));
    let mut turns = 0;
    let day = 24 * 3600 * 1000;
    rig.take();
    rig.timeout(day).unwrap();
    while rig.deadline().is_some_and(|at| at <= day) {
        rig.timeout(day).unwrap();
        rig.take();
        turns += 1;
        assert!(turns < 5, "round and round");
    }
    drop(limits_are_far);
}
