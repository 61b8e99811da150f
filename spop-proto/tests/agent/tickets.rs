//! Answers that are given later, with a ticket.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use spop_proto::{Ack, AgentConfig, AgentConnection, Cause, Scope, Status, Ticket};

use crate::common::*;
use crate::support::*;

#[test]
fn deferred_answers_go_out_in_any_order() {
    let mut rig = Rig::ready(AgentConfig::new());
    let tickets: Vec<_> = [1, 3, 5].map(|id| (id, rig.defer(0, &notify(id)))).into();
    assert_eq!(rig.conn.in_flight(), 3);
    assert_eq!(rig.feed(0, &notify(7)), asked(7));
    let mut expected = ack(7, b"");
    for (id, ticket) in tickets.into_iter().rev() {
        assert!(rig.conn.owes(&ticket));
        let mut answer = rig.answer(5, ticket).unwrap();
        answer.set(Scope::Transaction, "a", id.to_string().as_str()).unwrap();
        drop(answer);
        expected.extend(ack(id, &set_a(id.to_string().as_bytes())));
        rig.balanced();
    }
    assert_eq!(rig.take(), expected);
    assert_eq!((rig.conn.in_flight(), rig.conn.stats().answered), (0, 4));
}

#[test]
fn what_was_set_before_deferring_is_forgotten() {
    let mut rig = Rig::ready(AgentConfig::new());
    let ticket = rig.ask(&notify(1), |mut ack| {
        ack.set(Scope::Transaction, "a", "x").unwrap();
        ack.defer()
    });
    assert_eq!(rig.take(), b"");
    assert!(rig.answer(0, ticket).unwrap().is_empty());
    assert_eq!(rig.take(), ack(1, b""));
}

#[test]
fn both_ids_come_back() {
    let mut rig = Rig::ready(AgentConfig::new());
    for (stream, id) in [(0, 1), (0, 0), (u64::MAX, u64::MAX), (240, 2288)] {
        let seen = rig.feed(0, &frame(NOTIFY, FIN, stream, id, MESSAGE));
        assert_eq!(seen, Ok(vec![format!("Notify {stream}/{id}")]));
        assert_eq!(rig.take(), frame(ACK, FIN, stream, id, b""));
        let ticket = rig.defer(0, &frame(NOTIFY, FIN, stream, id, MESSAGE));
        rig.answer(0, ticket).unwrap().commit();
        assert_eq!(rig.take(), frame(ACK, FIN, stream, id, b""));
    }
}

#[test]
fn a_ticket_is_stale_once_nobody_waits() {
    type Event = fn(&mut Rig);
    let cases: [(&str, Event, Vec<u8>); 9] = [
        ("deadline", |rig| rig.timeout(10_000).unwrap(), fallen(9)),
        ("asked anew", |rig| drop(rig.feed(0, &notify(9))), ack(9, b"")),
        ("asked anew in fragments", |rig| drop(rig.feed(0, &frame(NOTIFY, 0, 9, 1, b""))), vec![]),
        ("closed", |rig| rig.conn.close(Status::NORMAL, "", rig.at(0)), agent_disconnect(0, "")),
        ("end of the stream", |rig| rig.conn.peer_closed(rig.at(0)), vec![]),
        (
            "haproxy's goodbye",
            |rig| drop(rig.feed(0, &haproxy_disconnect(0, ""))),
            agent_disconnect(0, "normal"),
        ),
        (
            "broken protocol",
            |rig| drop(rig.feed(0, &frame(ACK, FIN, 9, 1, b""))),
            agent_disconnect(4, "ACK after the handshake"),
        ),
        (
            "drained",
            |rig| {
                rig.conn.shutdown(rig.at(0));
                rig.conn.close(Status::NORMAL, "", rig.at(0));
            },
            agent_disconnect(0, ""),
        ),
        (
            "the slot was used again",
            |rig| {
                rig.timeout(10_000).unwrap();
                let _other = rig.defer(10_000, &notify(11));
            },
            fallen(9),
        ),
    ];
    for (name, event, expected) in cases {
        let (mut rig, ticket) = owing(with_fallback());
        event(&mut rig);
        assert!(!rig.conn.owes(&ticket), "{name}");
        assert!(rig.answer(20_000, ticket).is_err(), "{name}");
        assert_eq!(rig.take(), expected, "{name}");
        rig.balanced();
    }
}

#[test]
fn a_ticket_is_of_its_connection() {
    let (mut one, ticket) = owing(AgentConfig::new());
    let (mut other, theirs) = owing(AgentConfig::new());
    assert!(!other.conn.owes(&ticket));
    assert!(other.answer(0, ticket).is_err());
    assert_eq!(other.take(), b"");
    assert_eq!(other.conn.in_flight(), 1);
    assert!(one.answer(0, theirs).is_err());
    assert_eq!(one.conn.in_flight(), 1, "the deadline is left to answer it");
}

#[test]
fn a_ticket_from_before_memory_was_given_back_is_stale() {
    let (mut rig, ticket) = owing(AgentConfig::new());
    rig.feed(0, b"").unwrap();
    rig.timeout(10_000).unwrap();
    rig.feed(10_000, b"").unwrap();
    rig.take();
    rig.timeout(11_000).unwrap();
    assert_eq!(rig.conn.buffered(), 0);
    let fresh = rig.defer(11_000, &notify(11));
    assert!(rig.answer(11_000, ticket).is_err());
    assert!(rig.conn.owes(&fresh));
}

#[test]
fn an_answer_that_is_put_off_again_keeps_its_first_deadline() {
    type Way = fn(Ack<'_>);
    let ways: [(&str, Way); 2] = [
        ("deferred", |ack| {
            let _ticket = ack.defer();
        }),
        ("forgotten", |mut ack| {
            ack.set(Scope::Transaction, "a", "x").unwrap();
            mem::forget(ack);
        }),
    ];
    for (name, way) in ways {
        let (mut rig, ticket) = owing(with_fallback());
        way(rig.answer(9_000, ticket).unwrap());
        assert_eq!(rig.feed(9_000, b""), Ok(vec![]));
        assert_eq!(rig.conn.in_flight(), 1, "{name}");
        rig.timeout(9_999).unwrap();
        assert_eq!(rig.take(), b"", "{name}");
        rig.timeout(10_000).unwrap();
        assert_eq!(rig.take(), fallen(9), "{name}");
        assert_eq!(rig.conn.stats().deadlines, 1, "{name}");
        rig.balanced();
    }
}

#[test]
fn a_late_answer_falls_back_like_an_early_one() {
    let (mut rig, ticket) = owing(with_fallback());
    let answer = rig.answer(0, ticket).unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _held = answer;
        resume_unwind(Box::new("a handler's panic"));
    }));
    assert!(unwound.is_err());
    assert_eq!(rig.take(), fallen(9));
    assert_eq!((rig.conn.stats().panics, rig.conn.in_flight()), (1, 0));
    let (mut rig, ticket) = owing(with_fallback());
    rig.answer(0, ticket).unwrap().fall_back(Cause::Error);
    assert_eq!(rig.take(), fallen(9));
    assert_eq!((rig.conn.stats().errors, rig.conn.in_flight()), (1, 0));
    rig.timeout(100_000).unwrap();
    assert_eq!(rig.take(), b"");
    rig.balanced();
}

#[test]
fn the_second_question_with_the_same_ids_is_the_one_answered() {
    let mut rig = Rig::ready(with_fallback());
    let first = rig.defer(0, &notify(1));
    let second = rig.defer(4_000, &notify(1));
    assert!(!rig.conn.owes(&first) && rig.conn.owes(&second));
    assert_eq!(rig.conn.stats().superseded, 1);
    // Another frame of the stream, or another stream, is another question.
    let frame_2 = rig.defer(5_000, &frame(NOTIFY, FIN, 1, 2, MESSAGE));
    let stream_2 = rig.defer(5_000, &notify(2));
    assert_eq!(rig.conn.in_flight(), 3);
    assert!(rig.answer(5_000, first).is_err());
    rig.timeout(10_000).unwrap();
    assert_eq!(rig.take(), b"", "the first deadline went with the first question");
    rig.answer(10_001, second).unwrap().commit();
    rig.answer(10_001, stream_2).unwrap().commit();
    rig.answer(10_001, frame_2).unwrap().commit();
    let expected = [ack(1, b""), ack(2, b""), frame(ACK, FIN, 1, 2, b"")];
    assert_eq!(rig.take(), expected.concat());
    rig.balanced();
}

/// The shape of a driver: the connection survives being moved between calls, and tickets of many
/// connections can be kept in one place.
#[test]
fn connections_and_tickets_can_be_moved() {
    let start = Instant::now();
    let mut all: Vec<(AgentConnection, Option<Ticket>)> = Vec::new();
    for _ in 0..3 {
        let mut rig = Rig::ready(AgentConfig::new());
        let ticket = rig.defer(0, &notify(1));
        all.push((rig.conn, Some(ticket)));
    }
    all.reverse();
    for (conn, ticket) in &mut all {
        let now = start + Duration::from_secs(1);
        conn.answer(ticket.take().unwrap(), now).unwrap().commit();
        assert_eq!(conn.transmit(), ack(1, b""));
    }
}
