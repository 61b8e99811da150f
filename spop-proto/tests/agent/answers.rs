//! Each NOTIFY gets exactly one ACK, whatever becomes of its `Ack`.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use spop_proto::{Ack, Cause, ConnectionStats, Scope, Status, Ticket};

use crate::common::*;
use crate::support::*;

/// A way to deal with an `Ack`, what is written for it, and the counter that notes it.
type Way = (&'static str, fn(Ack<'_>), Vec<u8>, fn(&ConnectionStats) -> u64);

#[test]
fn one_ack_whatever_becomes_of_it() {
    fn set(mut ack: Ack<'_>) -> Ack<'_> {
        ack.set(Scope::Transaction, "a", "x").unwrap();
        ack
    }
    let ways: [Way; 10] = [
        ("committed", |ack| set(ack).commit(), ack(1, &set_a(b"x")), |s| s.answered),
        ("dropped", |ack| drop(set(ack)), ack(1, &set_a(b"x")), |s| s.answered),
        ("dropped, nothing set", |ack| drop(ack), ack(1, b""), |s| s.answered),
        ("error", |ack| set(ack).fall_back(Cause::Error), fallen(1), |s| s.errors),
        ("panic", |ack| set(ack).fall_back(Cause::Panic), fallen(1), |s| s.panics),
        ("late", |ack| set(ack).fall_back(Cause::Deadline), fallen(1), |s| s.deadlines),
        ("shed", |ack| set(ack).fall_back(Cause::Shed), fallen(1), |s| s.shed),
        ("unanswered", |ack| set(ack).fall_back(Cause::Unanswered), fallen(1), |s| s.unanswered),
        ("forgotten", |ack| mem::forget(set(ack)), fallen(1), |s| s.unanswered),
        (
            "dropped while panicking",
            |ack| {
                let unwound = catch_unwind(AssertUnwindSafe(|| {
                    let _held = set(ack);
                    resume_unwind(Box::new("a handler's panic"));
                }));
                assert!(unwound.is_err());
            },
            fallen(1),
            |s| s.panics,
        ),
    ];
    for (way, handler, expected, counter) in ways {
        let mut rig = Rig::ready(with_fallback());
        rig.ask(&notify(1), handler);
        assert_eq!(rig.feed(0, b""), Ok(vec![]), "{way}");
        assert_eq!(rig.take(), expected, "{way}");
        let stats = rig.conn.stats();
        assert_eq!((stats.notifies, stats.acks(), counter(&stats)), (1, 1, 1), "{way}");
        rig.balanced();
        // Nothing comes after it.
        rig.timeout(100_000).unwrap();
        assert_eq!(rig.take(), b"", "{way}");
        assert_eq!(rig.feed(100_000, &notify(1)), asked(1), "{way}");
        assert_eq!(rig.take(), ack(1, b""), "{way}");
        rig.balanced();
    }
}

#[test]
fn a_forgotten_ack_is_answered_by_whatever_is_called_next() {
    type Call = fn(&mut Rig, Ticket);
    let bye = agent_disconnect(0, "");
    let calls: [(&str, Call, Vec<u8>); 6] = [
        ("receive", |rig, _| drop(rig.feed(0, b"")), vec![]),
        ("handle_timeout", |rig, _| rig.timeout(0).unwrap(), vec![]),
        ("answer", |rig, ticket| rig.answer(0, ticket).unwrap().commit(), ack(9, b"")),
        ("peer_closed", |rig, _| rig.conn.peer_closed(rig.at(0)), vec![]),
        ("close", |rig, _| rig.conn.close(Status::NORMAL, "", rig.at(0)), bye),
        ("shutdown", |rig, _| rig.conn.shutdown(rig.at(0)), vec![]),
    ];
    for (name, call, then) in calls {
        let (mut rig, ticket) = owing(with_fallback());
        rig.ask(&notify(1), |mut ack| {
            ack.set(Scope::Transaction, "a", "x").unwrap();
            mem::forget(ack);
        });
        assert_eq!(rig.conn.transmit(), b"", "{name}: half an answer");
        call(&mut rig, ticket);
        assert_eq!(rig.take(), [fallen(1), then].concat(), "{name}");
        assert_eq!(rig.conn.stats().unanswered, 1, "{name}");
        rig.balanced();
    }
}

#[test]
fn half_an_answer_is_never_seen() {
    let mut rig = Rig::ready(with_fallback());
    rig.feed(0, &notify(1)).unwrap();
    rig.ask(&notify(3), |mut ack| {
        ack.set(Scope::Transaction, "a", "x").unwrap();
        mem::forget(ack);
    });
    assert_eq!(rig.conn.transmit(), ack(1, b""));
    rig.conn.transmitted(5);
    let mut buffer = b"of an earlier use".to_vec();
    rig.conn.swap_output(&mut buffer);
    assert_eq!(buffer, ack(1, b"")[5..]);
    rig.timeout(0).unwrap();
    assert_eq!(rig.take(), fallen(3));
}
