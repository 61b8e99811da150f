//! What an agent may not do after the handshake, and what each generation makes of it.

use super::*;
use crate::ProtocolError;

/// What is in flight when the agent's bytes come: the first NOTIFY. `old` and `new` are all that
/// happens, until every stream has ended and the agent has said goodbye.
struct Row {
    agent: &'static str,
    bytes: Vec<u8>,
    old: &'static [&'static str],
    new: &'static [&'static str],
}

const IGNORED_OLD: &[&str] = &["ack 0/1 1"];
const IGNORED_NEW: &[&str] = &["ack 1/1 1"];
const DEAD_4: &[&str] = &["fault 4", "err 1"];
const DEAD_12: &[&str] = &["fault 12", "err 1"];
const DEAD_10: &[&str] = &["fault 10", "err 1"];
/// Told by the agent's goodbye, whose status is 0.
const TOLD_10: &[&str] = &["fault 10", "bye 0", "err 256"];

fn rows(first: u64) -> Vec<Row> {
    let row = |agent, bytes, old, new| Row { agent, bytes, old, new };
    let too_big = 16_381_u32.to_be_bytes().to_vec();
    vec![
        row("ACK, stream-id too high", ack(first + 1000, 1), IGNORED_OLD, DEAD_12),
        row("ACK, the next stream-id", ack(first + 2, 1), IGNORED_OLD, DEAD_12),
        row("ACK, stream-id never used", ack(first + 1, 1), IGNORED_OLD, DEAD_12),
        row("ACK, frame-id too high", ack(first, 2), IGNORED_OLD, DEAD_12),
        row("ACK, frame-id 0", ack(first, 0), IGNORED_OLD, DEAD_12),
        row("ACK without FIN", frame(103, 0, (first, 1), ACTIONS), TOLD_10, DEAD_10),
        row("unknown type, live ids", frame(200, 1, (first, 1), b"x"), IGNORED_OLD, IGNORED_NEW),
        row("NOTIFY, live ids", frame(3, 1, (first, 1), b"x"), IGNORED_OLD, IGNORED_NEW),
        row("UNSET, live ids", frame(0, 1, (first, 1), b"x"), IGNORED_OLD, IGNORED_NEW),
        row("unknown type without FIN", frame(200, 0, (first, 1), b"x"), IGNORED_OLD, DEAD_10),
        row("unknown type, stream-id 0", frame(200, 1, (0, 0), b"x"), IGNORED_OLD, DEAD_4),
        row("AGENT-HELLO, live ids", frame(101, 1, (first, 1), b""), IGNORED_OLD, DEAD_4),
        row("header cut short", vec![0, 0, 0, 7, 103, 0, 0, 0, 1, 0xf0, 0xf0], IGNORED_OLD, DEAD_4),
        row("length too large", too_big, &["fault 3", "err 259"], &["fault 3", "err 1"]),
        row("length 0", vec![0; 4], &["fault 4", "err 260"], DEAD_4),
        row("length 6", vec![0, 0, 0, 6], &["fault 4", "err 260"], DEAD_4),
        row("ACK with ABORT", frame(103, 3, (first, 1), ACTIONS), IGNORED_OLD, IGNORED_NEW),
        row(
            "ACK with reserved flags",
            frame(103, !2, (first, 1), ACTIONS),
            IGNORED_OLD,
            IGNORED_NEW,
        ),
        row(
            "AGENT-DISCONNECT 99",
            agent_disconnect(99),
            &["bye 99", "err 355"],
            &["bye 99", "err 355"],
        ),
        row(
            "AGENT-DISCONNECT 0",
            agent_disconnect(0),
            &["bye 0", "err 256"],
            &["bye 0", "err 257"],
        ),
        row(
            "AGENT-DISCONNECT without FIN",
            frame(102, 0, (0, 0), b""),
            &["fault 10", "err 266"],
            DEAD_10,
        ),
        row(
            "AGENT-DISCONNECT that does not decode",
            frame(102, 1, (0, 0), b"\0"),
            &["bye 0", "err 256"],
            DEAD_4,
        ),
    ]
}

fn happens(dialect: Dialect, row: &Row) -> Vec<String> {
    let mut engine = Engine::ready(EngineConfig::new(dialect), "pipelining");
    engine.notify(PAYLOAD).unwrap();
    engine.output();
    engine.feed(&row.bytes);
    let first = if dialect == OLD { 0 } else { 1 };
    engine.feed(&ack(first, 1));
    if engine.conn.interest().read && engine.conn.in_flight() > 0 {
        engine.feed(&agent_disconnect(0));
    }
    engine.wait();
    engine.seen()
}

#[test]
fn what_each_fault_leads_to() {
    for row in rows(0) {
        assert_eq!(happens(OLD, &row), row.old, "old: {}", row.agent);
    }
    for row in rows(1) {
        assert_eq!(happens(NEW, &row), row.new, "new: {}", row.agent);
    }
    let zero = Row { agent: "", bytes: ack(0, 1), old: &[], new: DEAD_12 };
    assert_eq!(happens(NEW, &zero), zero.new, "new: ACK for stream-id 0");
}

#[test]
fn faults_of_the_old_engine_are_told_to_the_agent() {
    for (bytes, status) in
        [(frame(103, 0, (0, 1), ACTIONS), 10), (vec![0xff; 4], 3), (vec![0, 0, 0, 1], 4)]
    {
        let mut engine = Engine::ready(EngineConfig::new(OLD), "pipelining");
        engine.notify(PAYLOAD).unwrap();
        engine.output();
        engine.feed(&bytes);
        assert_eq!(engine.frames(), [format!("disconnect {status}")]);
        // What cannot be read any further is not waited for.
        assert_eq!(engine.conn.interest().read, status == 10);
        engine.wait();
        assert!(engine.done());
    }
}

#[test]
fn faults_of_the_new_engine_are_not_told_to_anybody() {
    let mut engine = Engine::ready(EngineConfig::new(NEW), "pipelining");
    engine.notify(PAYLOAD).unwrap();
    engine.after_ms(300);
    engine.notify(PAYLOAD).unwrap();
    engine.output();
    engine.feed(&[ack(1001, 1), ack(1, 1), ack(3, 1)].concat());
    assert_eq!(engine.seen(), ["fault 12"]);
    assert_eq!(engine.frames(), [""; 0]);
    assert_eq!(engine.notify(PAYLOAD), Err(NotifyError::Closed));
    engine.feed(&ack(1, 1));
    engine.eof();
    engine.after_ms(700);
    assert_eq!(engine.seen(), ["err 1"]);
    assert!(!engine.done(), "another stream waits");
    engine.after_ms(300);
    assert_eq!(engine.seen(), ["err 1"]);
    assert!(engine.done());
    let Some(EngineCloseReason::Protocol(ProtocolError::UnknownAck { stream_id: 1001, .. })) =
        engine.conn.close_reason()
    else {
        panic!("{:?}", engine.conn.close_reason());
    };
}

#[test]
fn streams_that_are_gone_may_be_answered() {
    for (dialect, first) in [(OLD, 0), (NEW, 1)] {
        let mut engine = Engine::ready(EngineConfig::new(dialect), "pipelining");
        engine.notify(PAYLOAD).unwrap();
        engine.feed(&ack(first, 1));
        engine.notify(PAYLOAD).unwrap();
        engine.feed(&ack(first, 1));
        engine.feed(&ack(first, 2));
        engine.after_ms(1000);
        assert_eq!(engine.seen(), [format!("ack {first}/1 1"), "err 1".to_owned()]);
        let second = if dialect == OLD { 1 } else { 3 };
        engine.feed(&ack(second, 1));
        assert_eq!(engine.seen(), [""; 0]);
        assert!(engine.notify(PAYLOAD).is_ok());
    }
}

#[test]
fn an_unknown_ack_without_pipelining() {
    let mut engine = Engine::ready(EngineConfig::new(OLD), "");
    engine.feed(&ack(7, 1));
    assert_eq!(engine.seen(), [""; 0], "nothing waits");
    engine.notify(PAYLOAD).unwrap();
    engine.output();
    engine.feed(&ack(7, 1));
    assert_eq!(engine.seen(), ["fault 12"]);
    assert_eq!(engine.frames(), ["disconnect 12"]);
    engine.feed(&[ack(0, 1), agent_disconnect(0)].concat());
    assert_eq!(engine.seen(), ["bye 0", "err 256"]);
    assert!(engine.done());
}

#[test]
fn the_end_of_the_stream() {
    for (dialect, capabilities, expected) in [
        (OLD, "pipelining", "err 257"),
        (NEW, "pipelining,async", "err 257"),
        (OLD, "pipelining,async", "err 1"),
    ] {
        let mut engine = Engine::ready(EngineConfig::new(dialect), capabilities);
        engine.notify(PAYLOAD).unwrap();
        engine.output();
        engine.feed(&ack(if dialect == OLD { 0 } else { 1 }, 1));
        engine.notify(PAYLOAD).unwrap();
        engine.seen();
        engine.eof();
        if expected == "err 1" {
            assert_eq!(engine.seen(), [""; 0]);
            engine.after_ms(1000);
        }
        assert_eq!(engine.seen(), [expected]);
        assert!(engine.done());
    }
}

#[test]
fn the_goodbye_may_come_in_any_read_after_a_fault() {
    let bytes = [frame(103, 0, (0, 1), ACTIONS), ack(0, 1), agent_disconnect(5)].concat();
    for cut in 0..=bytes.len() {
        let mut engine = Engine::ready(EngineConfig::new(OLD), "pipelining");
        engine.notify(PAYLOAD).unwrap();
        engine.feed(&bytes[..cut]);
        engine.feed(&bytes[cut..]);
        assert_eq!(engine.seen(), ["fault 10", "bye 5", "err 261"], "cut at {cut}");
        assert!(engine.done());
    }
}

#[test]
fn a_driver_that_stops_at_an_error_is_told_to_go_on() {
    let bytes = [frame(103, 0, (0, 1), ACTIONS), agent_disconnect(5)].concat();
    let mut engine = Engine::ready(EngineConfig::new(OLD), "pipelining");
    let mut input = &bytes[..];
    assert!(engine.conn.receive(&mut input, engine.now).is_err());
    assert!(input.is_empty());
    assert!(engine.conn.interest().ready);
    assert_eq!(engine.seen(), ["bye 5"]);
}

#[test]
fn a_goodbye_with_a_long_message_is_ignored_by_the_old_engine() {
    let long = [&b"\x0bstatus-code\x03\x04\x07message\x08\xf0\x01"[..], &[b'x'; 256]].concat();
    let bytes = frame(102, 1, (0, 0), &long);
    let mut old = Engine::ready(EngineConfig::new(OLD), "pipelining");
    old.notify(PAYLOAD).unwrap();
    old.feed(&bytes);
    old.feed(&ack(0, 1));
    assert_eq!(old.seen(), [""; 0], "and nothing but a goodbye is looked for");
    old.after_ms(1000);
    assert_eq!(old.seen(), ["err 1"]);
    let mut new = Engine::ready(EngineConfig::new(NEW), "pipelining");
    new.notify(PAYLOAD).unwrap();
    new.feed(&bytes);
    assert_eq!(new.seen(), ["bye 4", "err 260"]);
}

#[test]
fn hello_again() {
    let again = agent_hello(1000, "");
    let mut old = Engine::ready(EngineConfig::new(OLD), "pipelining");
    old.feed(&again);
    assert_eq!(old.seen(), [""; 0]);
    assert_eq!(old.conn.info().max_frame_size(), 16_380);
    let mut new = Engine::ready(EngineConfig::new(NEW), "pipelining");
    new.feed(&again);
    assert_eq!(new.seen(), ["hello"]);
    assert_eq!(new.conn.info().max_frame_size(), 1000);
    assert_eq!(new.conn.window_left(), 1);
    // What was given up once is not taken back.
    new.feed(&agent_hello(1000, "pipelining"));
    assert_eq!(new.conn.window_left(), 1);
    new.notify(PAYLOAD).unwrap();
    new.output();
    new.feed(&agent_hello(1001, "pipelining"));
    assert_eq!(new.seen(), ["hello", "fault 9"]);
    assert_eq!(new.frames(), ["disconnect 9"]);
    new.feed(&agent_disconnect(0));
    assert_eq!(new.seen(), ["bye 0", "err 257"]);
    assert!(new.done());
}
