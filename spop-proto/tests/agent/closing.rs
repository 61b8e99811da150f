//! The time that a connection has to come to its end: the drain and the close.

use spop_proto::{AgentConfig, CloseReason, Limits, Status};

use crate::common::*;
use crate::support::*;

#[test]
fn the_drain_deadline_cuts_what_is_owed() {
    let limits = Limits::new().drain_timeout(ms(300)).unwrap();
    let mut rig = Rig::ready(with(limits));
    let first = rig.defer(0, &notify(1));
    let _second = rig.defer(0, &notify(3));
    let _third = rig.defer(0, &notify(5));
    rig.conn.shutdown(rig.at(100));
    assert_eq!(rig.deadline(), Some(400));
    rig.answer(200, first).unwrap().commit();
    rig.timeout(399).unwrap();
    assert_eq!(rig.take(), ack(1, b""));
    assert_eq!(rig.conn.close_reason(), None);
    rig.timeout(400).unwrap();
    assert_eq!(rig.take(), agent_disconnect(0, STOPPING));
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Cut { owed: 2 }));
    assert_eq!((rig.conn.in_flight(), rig.conn.stats().abandoned), (0, 2));
}

/// A driver may say it again in every turn: the time to drain is counted from the first.
#[test]
fn shutting_down_again_does_not_put_off_the_drain_deadline() {
    let limits = Limits::new().drain_timeout(ms(300)).unwrap();
    let mut rig = Rig::ready(with(limits));
    let _owed = rig.defer(0, &notify(1));
    for at in [0, 100, 200] {
        rig.conn.shutdown(rig.at(at));
    }
    rig.timeout(300).unwrap();
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Cut { owed: 1 }));
}

/// Past half of the drain nothing new is begun: it gets the fallback, so that the connection comes
/// to a moment at which nothing is owed.
#[test]
fn a_busy_connection_drains_all_the_same() {
    let limits = Limits::new().drain_timeout(ms(10_000)).unwrap();
    let mut rig = Rig::ready(with(limits));
    let mut owed = rig.defer(0, &notify(1));
    rig.conn.shutdown(rig.at(0));
    for second in 1..=4 {
        // Always one that is owed before the last one is answered.
        let next = rig.defer(second * 1000, &notify(2 * second + 1));
        rig.answer(second * 1000, core::mem::replace(&mut owed, next)).unwrap().commit();
    }
    assert_eq!(rig.feed(6000, &notify(99)), Ok(vec![]));
    assert_eq!(rig.conn.stats().shed, 1);
    rig.answer(6000, owed).unwrap().commit();
    rig.feed(6000, b"").unwrap();
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
}

#[test]
fn the_close_timeout_ends_what_haproxy_does_not() {
    let limits = Limits::new().close_timeout(ms(250)).unwrap();
    let mut rig = Rig::ready(with(limits));
    rig.conn.close(Status(500), "so long", rig.at(100));
    assert_eq!(rig.take(), agent_disconnect(500, "so long"));
    assert_eq!(rig.deadline(), Some(350));
    assert_eq!(rig.timeout(349), Ok(()));
    assert!(!rig.conn.interest().done);
    assert_eq!(rig.timeout(350), Ok(()));
    assert!(rig.conn.interest().done);
    assert_eq!(rig.conn.transmit(), b"");
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Closed { status: Status(500) }));
}

/// A connection that closes with answers still to be taken: the peer has the time to take them, as
/// long as it goes on, and then the time to close.
#[test]
fn the_close_timeout_begins_when_everything_was_taken() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &notify(1)).unwrap();
    rig.conn.shutdown(rig.at(0));
    let all = rig.conn.transmit().len();
    for second in 1..=20 {
        rig.timeout(second * 1000).unwrap();
        assert!(!rig.conn.interest().done, "{second} s");
        rig.conn.transmitted(1);
    }
    let rest = rig.take();
    assert_eq!(rest.len(), all - 20);
    rig.timeout(21_000).unwrap();
    assert!(!rig.conn.interest().done, "a second to close");
    run_out(&mut rig, 21_000, 22_000);
    assert!(rig.conn.interest().done);
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
}

/// But not for ever: the drain timeout bounds it, and the report knows.
#[test]
fn a_peer_that_takes_the_last_bytes_too_slowly_is_cut() {
    let limits = Limits::new().drain_timeout(ms(5000)).unwrap();
    let mut rig = Rig::ready(with(limits));
    rig.feed(0, &notify(1)).unwrap();
    rig.conn.shutdown(rig.at(0));
    for second in 1..=4 {
        rig.conn.transmitted(1);
        rig.timeout(second * 1000).unwrap();
    }
    assert!(!rig.conn.interest().done);
    rig.timeout(5000).unwrap();
    assert!(rig.conn.interest().done);
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Cut { owed: 0 }));
}

/// Past the drain deadline nobody is waited for any longer than the close takes.
#[test]
fn a_connection_that_is_cut_does_not_drain_once_more() {
    let limits = Limits::new().drain_timeout(ms(5000)).unwrap();
    let mut rig = Rig::ready(with(limits));
    let _owed = rig.defer(0, &notify(1));
    rig.conn.shutdown(rig.at(0));
    rig.timeout(5000).unwrap();
    rig.conn.transmitted(1);
    rig.timeout(5999).unwrap();
    assert!(!rig.conn.interest().done);
    rig.conn.transmitted(1);
    rig.timeout(6000).unwrap();
    assert!(rig.conn.interest().done);
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Cut { owed: 1 }));
}
