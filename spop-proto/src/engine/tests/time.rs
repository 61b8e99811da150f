//! Deadlines, and the ways to leave.

use super::*;
use crate::Status;

#[test]
fn nobody_answers_hello() {
    let mut old = Engine::new(EngineConfig::new(OLD));
    old.output();
    old.after_ms(1999);
    assert!(!old.done());
    old.after_ms(1);
    assert_eq!(old.seen(), ["fault 2"]);
    assert_eq!(old.frames(), [""; 0], "closed without a frame");
    assert!(old.done());

    let mut new = Engine::new(EngineConfig::new(NEW));
    assert_eq!(new.conn.interest().deadline, None);
    new.notify(PAYLOAD).unwrap();
    new.after_ms(1000);
    assert_eq!(new.seen(), ["err 1"]);
    new.after(Duration::from_secs(3600));
    new.notify(PAYLOAD).unwrap();
    assert!(new.conn.interest().read, "it waits for ever and goes on being asked");
    new.feed(&agent_hello(16_380, ""));
    assert_eq!(new.frames(), ["hello", "NOTIFY 1/1 FIN 8"]);
}

#[test]
fn each_stream_has_its_own_time() {
    for dialect in [OLD, NEW] {
        let config = EngineConfig::new(dialect).processing_timeout(Duration::from_millis(500));
        let mut engine = Engine::ready(config.unwrap(), "pipelining");
        engine.notify(PAYLOAD).unwrap();
        engine.after_ms(200);
        engine.notify(PAYLOAD).unwrap();
        engine.output();
        engine.after_ms(299);
        assert_eq!(engine.seen(), [""; 0]);
        engine.after_ms(1);
        assert_eq!(engine.seen(), ["err 1"]);
        assert_eq!(engine.conn.in_flight(), 1);
        assert_eq!(engine.frames(), [""; 0], "the agent is not told");
        engine.after_ms(200);
        assert_eq!(engine.seen(), ["err 1"]);
        assert!(engine.notify(PAYLOAD).is_ok());
    }
}

#[test]
fn a_late_ack_is_ignored() {
    for (dialect, first, second) in [(OLD, 0, 1), (NEW, 1, 3)] {
        let mut engine = Engine::ready(EngineConfig::new(dialect), "pipelining");
        engine.notify(PAYLOAD).unwrap();
        engine.after_ms(1000);
        engine.notify(PAYLOAD).unwrap();
        engine.feed(&[ack(first, 1), ack(second, 1)].concat());
        assert_eq!(engine.seen(), ["err 1".to_owned(), format!("ack {second}/1 1")]);
    }
}

#[test]
fn half_an_ack() {
    let half = &ack(0, 1)[..12];
    let mut old = Engine::ready(EngineConfig::new(OLD), "pipelining");
    old.notify(PAYLOAD).unwrap();
    old.feed(half);
    old.after_ms(1000);
    old.notify(PAYLOAD).unwrap();
    old.feed(&ack(1, 1));
    assert_eq!(old.seen(), ["err 1", "fault 3", "err 259"], "the rest is read as a length");

    let half = &ack(1, 1)[..12];
    let mut new = Engine::ready(EngineConfig::new(NEW), "pipelining");
    new.notify(PAYLOAD).unwrap();
    new.feed(half);
    new.after_ms(1000);
    new.notify(PAYLOAD).unwrap();
    new.feed(&ack(3, 1));
    new.wait();
    assert_eq!(new.seen(), ["err 1", "fault 3", "err 1"]);
    assert!(new.done());
}

#[test]
fn idle_with_haproxy_up_to_3_0() {
    let idle = Duration::from_millis(500);
    let config = || {
        let config = EngineConfig::new(OLD).idle_timeout(Some(idle)).unwrap();
        config.processing_timeout(Duration::from_secs(3)).unwrap()
    };
    let mut engine = Engine::ready(config(), "pipelining");
    engine.after_ms(400);
    engine.notify(PAYLOAD).unwrap();
    engine.after_ms(400);
    engine.feed(&ack(0, 1));
    engine.notify(PAYLOAD).unwrap();
    engine.output();
    engine.after_ms(499);
    assert_eq!(engine.frames(), [""; 0]);
    engine.after_ms(1);
    assert_eq!(engine.frames(), ["disconnect 2"], "though an ACK is awaited");
    assert_eq!(engine.conn.close_reason(), Some(&EngineCloseReason::Idle));
    engine.feed(&ack(1, 1));
    assert_eq!(engine.seen(), ["ack 0/1 1"]);
    engine.after_ms(500);
    assert_eq!(engine.seen(), ["err 258"], "the agent never answered");
    assert!(engine.done());

    let mut engine = Engine::ready(config(), "pipelining");
    engine.notify(PAYLOAD).unwrap();
    engine.after_ms(500);
    engine.eof();
    assert_eq!(engine.seen(), ["err 257"]);
    assert!(engine.done());
}

#[test]
fn idle_with_haproxy_from_3_1() {
    let mut engine = Engine::ready(EngineConfig::new(NEW), "pipelining");
    assert_eq!(engine.conn.interest().deadline, None);
    engine.after(Duration::from_secs(3600));
    assert!(engine.notify(PAYLOAD).is_ok());

    let config = EngineConfig::new(NEW).idle_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut engine = Engine::ready(config, "pipelining");
    engine.notify(PAYLOAD).unwrap();
    engine.after_ms(500);
    assert!(!engine.done());
    engine.feed(&ack(1, 1));
    engine.output();
    engine.after_ms(500);
    assert_eq!(engine.frames(), [""; 0], "no goodbye");
    assert!(engine.done());
}

#[test]
fn a_refused_agent_that_does_not_answer() {
    let mut old = Engine::new(EngineConfig::new(OLD));
    old.feed(&agent_hello(255, ""));
    assert_eq!(old.frames(), ["hello", "disconnect 9"]);
    old.after(Duration::from_secs(119));
    assert!(!old.done());
    old.after(Duration::from_secs(1));
    assert!(old.done());

    let mut new = Engine::new(EngineConfig::new(NEW));
    new.notify(PAYLOAD).unwrap();
    new.feed(&agent_hello(255, ""));
    assert_eq!(new.frames(), ["hello", "disconnect 9"]);
    new.after_ms(1000);
    assert_eq!(new.seen(), ["fault 9", "err 1"]);
    assert!(new.done());
}

#[test]
fn shutdown_waits_for_what_is_in_flight() {
    for (dialect, first) in [(OLD, 0), (NEW, 1)] {
        let mut engine = Engine::ready(EngineConfig::new(dialect), "pipelining");
        engine.notify(PAYLOAD).unwrap();
        engine.output();
        let now = engine.now;
        engine.conn.shutdown(now);
        assert_eq!(engine.notify(PAYLOAD), Err(NotifyError::Closed));
        assert_eq!(engine.frames(), [""; 0]);
        engine.feed(&ack(first, 1));
        assert_eq!(engine.conn.close_reason(), Some(&EngineCloseReason::Drained));
        if dialect == OLD {
            assert_eq!(engine.frames(), ["disconnect 0"]);
            assert!(!engine.done());
            engine.feed(&agent_disconnect(0));
        }
        assert_eq!(engine.frames(), [""; 0]);
        assert!(engine.done());
    }
}

#[test]
fn shutdown_before_the_handshake() {
    for dialect in [OLD, NEW] {
        let mut engine = Engine::new(EngineConfig::new(dialect));
        let now = engine.now;
        engine.conn.shutdown(now);
        assert!(engine.done());
    }
    let mut engine = Engine::new(EngineConfig::new(NEW));
    engine.notify(PAYLOAD).unwrap();
    let now = engine.now;
    engine.conn.shutdown(now);
    engine.feed(&agent_hello(16_380, ""));
    engine.feed(&ack(1, 1));
    assert_eq!(engine.seen(), ["hello", "ack 1/1 1"]);
    assert!(engine.done());
}

#[test]
fn close_at_once() {
    let mut old = Engine::ready(EngineConfig::new(OLD), "pipelining");
    old.notify(PAYLOAD).unwrap();
    old.output();
    let now = old.now;
    old.conn.close(Status::IO, "maintenance", now);
    assert_eq!(old.frames(), ["disconnect 1"]);
    old.feed(&[ack(0, 1), agent_disconnect(0)].concat());
    assert_eq!(old.seen(), ["bye 0", "err 256"]);
    assert!(old.done());
    let mut new = Engine::ready(EngineConfig::new(NEW), "pipelining");
    new.notify(PAYLOAD).unwrap();
    let now = new.now;
    new.conn.close(Status::IO, "maintenance", now);
    assert_eq!(new.seen(), ["err 5"]);
    assert_eq!(new.frames(), [""; 0]);
    assert!(new.done());
}
