//! `async`: announced only where HAProxy offered it, and answers that go over another connection of
//! the same engine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from")]

mod common;

use common::*;
use spop_proto::{Ack, AgentConfig, AnswerOnError, Scope, Status, Ticket};

fn with_async() -> AgentConfig {
    AgentConfig::new().r#async(true)
}

/// A connection after a HELLO that offers these, and what the agent announced in turn.
fn connected(config: AgentConfig, offered: &str, engine: &[u8]) -> (Rig, Vec<u8>) {
    let mut pairs = hello_pairs(16_380, offered);
    pairs[3] = pair("engine-id", &string(engine));
    let mut rig = Rig::new(config);
    let hello = frame(HAPROXY_HELLO, FIN, 0, 0, &pairs.concat());
    assert_eq!(rig.feed(0, &hello), Ok(vec!["Hello".to_owned()]));
    let said = rig.take();
    (rig, said)
}

fn of_engine(engine: &[u8]) -> Rig {
    connected(with_async(), "pipelining,async", engine).0
}

fn answer_on<'b>(
    owner: &mut Rig,
    other: &'b mut Rig,
    ticket: Ticket,
) -> Result<Ack<'b>, AnswerOnError> {
    let now = owner.at(5);
    owner.conn.answer_on(&mut other.conn, ticket, now)
}

#[test]
fn announced_only_if_wanted_and_offered() {
    let cases = [
        (with_async(), "pipelining,async", "pipelining,async,fragmentation"),
        (with_async(), "async", "async,fragmentation"),
        (with_async(), "pipelining", "pipelining,fragmentation"),
        (with_async(), "", "fragmentation"),
        (AgentConfig::new(), "pipelining,async", "pipelining,fragmentation"),
    ];
    for (config, offered, announced) in cases {
        let (_, said) = connected(config, offered, b"e");
        assert_eq!(said, agent_hello(16_380, announced), "offered: {offered:?}");
    }
}

#[test]
fn an_answer_goes_over_the_other_connection() {
    let (mut one, mut two) = (of_engine(b"e"), of_engine(b"e"));
    let ticket = one.defer(0, &notify(7));
    let mut answer = answer_on(&mut one, &mut two, ticket).unwrap();
    answer.set(Scope::Transaction, "a", true).unwrap();
    answer.commit();
    assert_eq!(two.take(), ack(7, &set_txn("a", b"\x11")));
    assert_eq!(one.take(), b"");
    assert_eq!((one.conn.in_flight(), two.conn.in_flight()), (0, 0));
    // The deadline of the first connection has nothing to say any more.
    one.timeout(60_000).unwrap();
    assert_eq!(one.take(), b"");
    let (first, second) = (one.conn.stats(), two.conn.stats());
    assert_eq!((first.notifies, first.elsewhere, first.answered), (1, 1, 0));
    assert_eq!((second.notifies, second.elsewhere, second.answered), (0, 0, 1));
}

/// The guarantee of an `Ack` is that of the connection it goes over.
#[test]
fn what_becomes_of_it_over_there() {
    let (mut one, mut two) = (of_engine(b"e"), of_engine(b"e"));
    let ticket = one.defer(0, &notify(1));
    drop(answer_on(&mut one, &mut two, ticket).unwrap());
    assert_eq!(two.take(), ack(1, b""));

    let ticket = one.defer(0, &notify(2));
    let later = answer_on(&mut one, &mut two, ticket).unwrap().defer();
    assert_eq!((one.conn.in_flight(), two.conn.in_flight()), (0, 1));
    assert_eq!(two.take(), b"");
    let now = two.at(6);
    two.conn.answer(later, now).unwrap().commit();
    assert_eq!(two.take(), ack(2, b""));

    let ticket = one.defer(0, &notify(3));
    std::mem::forget(answer_on(&mut one, &mut two, ticket).unwrap());
    two.timeout(6).unwrap();
    assert_eq!(two.take(), ack(3, b""));
    assert_eq!(two.conn.stats().unanswered, 1);
}

#[test]
fn the_ticket_comes_back_where_haproxy_would_not_take_the_answer() {
    let others: [fn() -> Rig; 4] = [
        || of_engine(b"another"),
        || connected(with_async(), "pipelining", b"e").0,
        || connected(AgentConfig::new(), "pipelining,async", b"e").0,
        || {
            let mut closed = of_engine(b"e");
            let now = closed.at(0);
            closed.conn.close(Status::NORMAL, "", now);
            closed.take();
            closed
        },
    ];
    for (n, other) in others.into_iter().enumerate() {
        let (mut one, mut other) = (of_engine(b"e"), other());
        let ticket = one.defer(0, &notify(7));
        let Err(AnswerOnError::NotShared { ticket }) = answer_on(&mut one, &mut other, ticket)
        else {
            panic!("case {n}: accepted");
        };
        assert_eq!(other.take(), b"", "case {n}");
        let now = one.at(6);
        one.conn.answer(ticket, now).unwrap().commit();
        assert_eq!(one.take(), ack(7, b""), "case {n}");
    }
}

/// HAProxy counts ids for the engine: what it asks anew with the same ids on the second connection is
/// not answered with the answer to the first.
#[test]
fn an_answer_that_is_not_waited_for_any_more() {
    let (mut one, mut two) = (of_engine(b"e"), of_engine(b"e"));
    let late = one.defer(0, &notify(7));
    one.timeout(10_000).unwrap();
    assert_eq!(answer_on(&mut one, &mut two, late).unwrap_err(), AnswerOnError::Stale);

    let first = one.defer(0, &notify(8));
    let second = two.defer(0, &notify(8));
    assert_eq!(answer_on(&mut one, &mut two, first).unwrap_err(), AnswerOnError::Stale);
    assert_eq!(one.conn.stats().superseded, 1);
    assert_eq!(two.take(), b"");
    let now = two.at(6);
    two.conn.answer(second, now).unwrap().commit();
    assert_eq!(two.take(), ack(8, b""));
}
