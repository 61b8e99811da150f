//! Connections that are closed because nothing happens on them.

use spop_proto::{AgentConfig, CloseReason, Limits};

use crate::common::*;
use crate::support::*;

fn idle(time: u64) -> AgentConfig {
    with(Limits::new().idle_timeout(Some(ms(time))))
}

#[test]
fn an_idle_connection_is_closed_only_if_that_was_asked_for() {
    let mut rig = Rig::ready(idle(5000));
    rig.feed(1000, &notify(1)).unwrap();
    rig.take();
    assert_eq!(rig.timeout(5999), Ok(()));
    assert_eq!(rig.conn.close_reason(), None);
    assert_eq!(rig.deadline(), Some(6000));
    assert_eq!(rig.timeout(6000), Ok(()));
    assert_eq!(rig.take(), agent_disconnect(0, "idle for too long"));
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Idle));
}

#[test]
fn a_connection_that_owes_something_is_not_idle() {
    for open_payload in [false, true] {
        let mut rig = Rig::ready(idle(5000));
        if open_payload {
            rig.feed(0, &frame(NOTIFY, 0, 5, 1, b"")).unwrap();
        } else {
            let _ticket = rig.defer(0, &notify(1));
            rig.feed(0, b"").unwrap();
        }
        rig.timeout(5000).unwrap();
        assert_eq!(rig.conn.close_reason(), None);
    }
    // Nor is one whose answer nobody has taken yet.
    let mut rig = Rig::ready(idle(5000));
    rig.feed(0, &notify(1)).unwrap();
    rig.timeout(5000).unwrap();
    assert_eq!(rig.conn.close_reason(), None);
}

/// A NOTIFY that crosses the goodbye fails, so the silence begins with the last word of either
/// side, not with the last of HAProxy's.
#[test]
fn a_connection_is_idle_from_its_last_answer_on() {
    let mut rig = Rig::ready(idle(5000));
    let ticket = rig.defer(0, &notify(1));
    rig.feed(0, b"").unwrap();
    rig.answer(4900, ticket).unwrap().commit();
    rig.take();
    rig.timeout(5000).unwrap();
    assert_eq!(rig.conn.close_reason(), None, "silent for 100 ms only");
}

/// The run loop calls `receive` whatever woke it: without input that is no sign of life.
#[test]
fn receiving_nothing_does_not_put_off_the_idle_timeout() {
    let mut rig = Rig::ready(idle(5000));
    rig.feed(0, &notify(1)).unwrap();
    rig.take();
    rig.feed(4000, b"").unwrap();
    assert_eq!(rig.deadline(), Some(5000).min(rig.deadline()));
    rig.timeout(5000).unwrap();
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Idle));
}
