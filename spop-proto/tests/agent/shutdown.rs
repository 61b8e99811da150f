//! Told to leave: at once, or only after the bytes, answers and calls of a case.

use std::mem;
use std::num::NonZeroUsize;

use spop_proto::{AgentConfig, CloseReason, Limits};

use crate::common::*;
use crate::support::*;

fn leaves_at_once(rig: &mut Rig) {
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.take(), agent_disconnect(0, STOPPING));
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
    assert!(!rig.conn.interest().done, "HAProxy closes first");
    rig.conn.peer_closed(rig.at(0));
    assert!(rig.conn.interest().done);
}

/// Takes the frame that says goodbye; a driver calls `receive` when `ready` says so.
fn leaves_now(rig: &mut Rig, before: &[u8]) {
    assert!(rig.conn.interest().ready);
    assert_eq!(rig.feed(0, b""), Ok(vec![]));
    assert_eq!(rig.take(), [before.to_vec(), agent_disconnect(0, STOPPING)].concat());
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
    rig.balanced();
}

#[test]
fn shutdown_before_the_hello() {
    for bytes in [&b""[..], &hello()[..10]] {
        let mut rig = Rig::new(AgentConfig::new());
        rig.feed(0, bytes).unwrap();
        rig.conn.shutdown(rig.at(0));
        assert!(rig.conn.interest().done);
        assert_eq!(rig.take(), b"");
        assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
    }
}

#[test]
fn shutdown_while_idle() {
    leaves_at_once(&mut Rig::ready(AgentConfig::new()));
}

#[test]
fn shutdown_with_answers_written_but_not_taken() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &notify(1)).unwrap();
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.take(), [ack(1, b""), agent_disconnect(0, STOPPING)].concat());
}

#[test]
fn shutdown_with_a_forgotten_ack() {
    let mut rig = Rig::ready(with_fallback());
    rig.ask(&notify(1), |ack| mem::forget(ack));
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.take(), [fallen(1), agent_disconnect(0, STOPPING)].concat());
    rig.balanced();
}

#[test]
fn shutdown_with_half_a_frame_waits_for_the_rest() {
    let mut rig = Rig::ready(AgentConfig::new());
    let notify = notify(1);
    rig.feed(0, &notify[..6]).unwrap();
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.conn.close_reason(), None);
    assert_eq!(rig.feed(0, &notify[6..]), asked(1));
    // The event that answers it was the last one in the input, so the goodbye is out already.
    assert_eq!(rig.take(), [ack(1, b""), agent_disconnect(0, STOPPING)].concat());
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Drained));
}

#[test]
fn shutdown_with_half_a_frame_that_never_ends() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &notify(1)[..6]).unwrap();
    rig.conn.shutdown(rig.at(0));
    let error = rig.timeout(10_000).unwrap_err();
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Protocol(error)));
}

#[test]
fn shutdown_with_an_answer_owed() {
    let (mut rig, ticket) = owing(AgentConfig::new());
    rig.conn.shutdown(rig.at(0));
    let want = rig.conn.interest();
    assert!(want.read && !want.ready, "{want:?}");
    // Requests that come before the goodbye are answered like any other.
    assert_eq!(rig.feed(0, &notify(1)), asked(1));
    assert_eq!(rig.take(), ack(1, b""));
    assert_eq!(rig.conn.close_reason(), None);
    rig.answer(0, ticket).unwrap().commit();
    leaves_now(&mut rig, &ack(9, b""));
}

#[test]
fn shutdown_with_an_answer_owed_that_its_deadline_gives() {
    let (mut rig, _ticket) = owing(with_fallback());
    rig.conn.shutdown(rig.at(0));
    rig.timeout(10_000).unwrap();
    leaves_now(&mut rig, &fallen(9));
}

#[test]
fn shutdown_with_an_answer_owed_that_haproxy_gives_up() {
    let (mut rig, _ticket) = owing(AgentConfig::new());
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.feed(0, &haproxy_disconnect(0, "")), Ok(vec!["Disconnected 0".to_owned()]));
    assert_eq!(rig.take(), agent_disconnect(0, "normal"));
    rig.balanced();
}

#[test]
fn shutdown_with_fragments_waits_for_the_last() {
    let fragments = |flags, payload: &[u8]| frame(UNSET, flags, 5, 1, payload);
    let first = frame(NOTIFY, 0, 5, 1, &MESSAGE[..2]);
    let ends: [(Vec<u8>, &str, Vec<u8>); 2] = [
        (fragments(FIN, &MESSAGE[2..]), "Notify 5/1", ack(5, b"")),
        (fragments(FIN | ABORT, b""), "Abandoned 5/1 Haproxy", vec![]),
    ];
    for (last, event, answer) in ends {
        let mut rig = Rig::ready(AgentConfig::new());
        rig.feed(0, &first).unwrap();
        rig.conn.shutdown(rig.at(0));
        assert_eq!(rig.conn.close_reason(), None);
        assert_eq!(rig.feed(0, &last), Ok(vec![event.to_owned()]));
        assert_eq!(rig.take(), [answer, agent_disconnect(0, STOPPING)].concat());
    }
    // Or for the drain deadline.
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &first).unwrap();
    rig.conn.shutdown(rig.at(0));
    rig.timeout(29_999).unwrap();
    assert_eq!(rig.conn.close_reason(), None);
    rig.timeout(30_000).unwrap();
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Cut { owed: 0 }));
}

#[test]
fn shutdown_with_frames_kept_because_output_is_not_taken() {
    let output = NonZeroUsize::new(1).unwrap();
    let mut rig = Rig::ready(AgentConfig::new().limits(Limits::new().output(output)));
    let input = [notify(1), notify(3)].concat();
    assert_eq!(rig.feed(0, &input), asked(1));
    rig.conn.shutdown(rig.at(0));
    assert_eq!(rig.take(), ack(1, b""), "3/1 was received, so it is answered");
    assert!(rig.conn.interest().ready);
    assert_eq!(rig.feed(0, b""), asked(3));
    let mut sent = rig.take();
    rig.feed(0, b"").unwrap();
    sent.extend(rig.take());
    assert_eq!(sent, [ack(3, b""), agent_disconnect(0, STOPPING)].concat());
}
