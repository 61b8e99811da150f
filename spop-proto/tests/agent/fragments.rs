//! Payloads in fragments, and their limit.

use spop_proto::{AgentConfig, CloseReason, Limits};

use crate::common::*;
use crate::support::*;

#[test]
fn a_payload_over_the_limit_is_refused_and_its_rest_skipped() {
    let mut rig = Rig::ready(with(Limits::new().payload(bytes(100))));
    assert_eq!(rig.feed(0, &fragment(NOTIFY, 0, 60)), Ok(vec![]));
    assert_eq!(rig.feed(0, &fragment(UNSET, 0, 40)), Ok(vec![]), "exactly the limit");
    assert_eq!(rig.take(), b"");
    assert_eq!(rig.feed(0, &fragment(UNSET, 0, 1)), Ok(vec!["Abandoned 5/1 Limit".to_owned()]));
    assert_eq!(rig.take(), frame(ACK, FIN | ABORT, 5, 1, b""));
    assert!(rig.conn.buffered() < 1000, "the payload is gone");
    // HAProxy may have sent any number more by then. They are no reason to lose patience.
    for _ in 0..1000 {
        assert_eq!(rig.feed(0, &fragment(UNSET, 0, 200)), Ok(vec![]));
    }
    // The connection lives, also for a fragmented payload.
    assert_eq!(rig.feed(0, &notify(7)), asked(7));
    let again = [frame(NOTIFY, 0, 9, 1, &MESSAGE[..3]), frame(UNSET, FIN, 9, 1, &MESSAGE[3..])];
    assert_eq!(rig.feed(0, &again.concat()), asked(9));
    assert_eq!(rig.take(), [ack(7, b""), ack(9, b"")].concat());
    let stats = rig.conn.stats();
    assert_eq!((stats.refused, stats.ignored, stats.notifies), (1, 0, 2));
}

/// HAProxy that reads the refusal while it is still sending stops for good: it asks nothing on that
/// connection any more, but counts it among those it has.
#[test]
fn a_connection_on_which_haproxy_stopped_in_the_middle_leaves() {
    let mut rig = Rig::ready(with(Limits::new().payload(bytes(100))));
    let ticket = rig.defer(0, &notify(7));
    rig.feed(0, &fragment(NOTIFY, 0, 101)).unwrap();
    assert_eq!(rig.take(), frame(ACK, FIN | ABORT, 5, 1, b""));
    assert_eq!(rig.deadline(), Some(100));
    // More comes, which HAProxy had sent before.
    rig.feed(80, &fragment(UNSET, 0, 50)).unwrap();
    rig.timeout(100).unwrap();
    rig.timeout(179).unwrap();
    assert_eq!(rig.conn.close_reason(), None);
    rig.timeout(180).unwrap();
    assert_eq!(rig.take(), b"", "an answer is still owed");
    rig.answer(200, ticket).unwrap().commit();
    assert!(rig.conn.interest().ready);
    rig.feed(200, b"").unwrap();
    let goodbye = agent_disconnect(0, "a payload was refused");
    assert_eq!(rig.take(), [ack(7, b""), goodbye].concat());
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Unused));
}

/// If its last fragment comes, or it asks something else, it goes on as ever.
#[test]
fn a_connection_on_which_haproxy_had_sent_everything_stays() {
    for sign in [fragment(UNSET, FIN, 50), notify(7)] {
        let mut rig = Rig::ready(with(Limits::new().payload(bytes(100))));
        rig.feed(0, &fragment(NOTIFY, 0, 101)).unwrap();
        rig.feed(50, &sign).unwrap();
        rig.take();
        rig.timeout(5_000).unwrap();
        assert_eq!((rig.conn.close_reason(), rig.conn.interest().ready), (None, false));
    }
}

/// HAProxy that had sent everything takes the refusal for the answer: that is the fallback.
#[test]
fn a_refusal_carries_the_fallback() {
    let mut rig = Rig::ready(with_fallback().limits(Limits::new().payload(bytes(100))));
    rig.feed(0, &fragment(NOTIFY, 0, 101)).unwrap();
    assert_eq!(rig.take(), frame(ACK, FIN | ABORT, 5, 1, &set_txn("f", b"\x11")));
}

#[test]
fn a_payload_refused_at_its_first_or_last_fragment() {
    for (first, last) in [(101, None), (60, Some(41))] {
        let mut rig = Rig::ready(with(Limits::new().payload(bytes(100))));
        let mut seen = rig.feed(0, &fragment(NOTIFY, 0, first)).unwrap();
        if let Some(last) = last {
            seen = rig.feed(0, &fragment(UNSET, FIN, last)).unwrap();
        }
        assert_eq!(seen, ["Abandoned 5/1 Limit"]);
        assert_eq!(rig.take(), frame(ACK, FIN | ABORT, 5, 1, b""));
        // The ids are free again.
        assert_eq!(rig.feed(0, &notify(5)), asked(5));
        assert_eq!(rig.take(), ack(5, b""));
    }
}

#[test]
fn a_whole_notify_has_no_payload_limit() {
    let mut rig = Rig::ready(with(Limits::new().payload(bytes(100))));
    assert_eq!(rig.feed(0, &notify_of_length(3000)), asked(1));
}

/// HAProxy says so when it gives a payload up. Where the fragments just stop, what came is not held
/// for ever: each has the time of a frame, and beyond it the payload is refused, not the connection.
#[test]
fn a_payload_whose_fragments_stop_coming_is_refused() {
    let mut rig = Rig::ready(AgentConfig::new());
    rig.feed(0, &fragment(NOTIFY, 0, 60)).unwrap();
    rig.timeout(9000).unwrap();
    rig.feed(9000, &fragment(UNSET, 0, 60)).unwrap();
    rig.timeout(18_999).unwrap();
    assert_eq!(rig.take(), b"", "each fragment has its own ten seconds");
    rig.timeout(19_000).unwrap();
    assert_eq!(rig.take(), frame(ACK, FIN | ABORT, 5, 1, b""));
    assert_eq!(rig.conn.stats().refused, 1);
    assert_eq!(rig.feed(19_001, &fragment(UNSET, FIN, 60)), Ok(vec![]), "too late: skipped");
    assert_eq!(rig.conn.stats().ignored, 0);
    assert_eq!(rig.feed(19_002, &notify(7)), asked(7));
    rig.take();
    run_out(&mut rig, 19_002, 60_000);
}
