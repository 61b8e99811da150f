//! The handshake, and health checks.

use super::*;

/// What the agent says, and the HAPROXY-DISCONNECT of each
/// engine. 0 is none: the old engine goes on, the new one is silent and resets.
struct Row {
    agent: &'static str,
    bytes: Vec<u8>,
    old: u32,
    new: Answer,
}

#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Accepted,
    Disconnect(u32),
    Silence,
}
use Answer::{Accepted, Disconnect as Refused, Silence};

fn row(agent: &'static str, bytes: Vec<u8>, old: u32, new: Answer) -> Row {
    Row { agent, bytes, old, new }
}

fn keys(agent: &'static str, payload: &[u8], old: u32, new: Answer) -> Row {
    row(agent, frame(101, 1, (0, 0), payload), old, new)
}

fn rows() -> Vec<Row> {
    let good = hello_keys("2.0", 16_380, "pipelining");
    let with = |extra: &[u8]| [&good[..], extra].concat();
    vec![
        keys("version 1.0", &hello_keys("1.0", 16_380, ""), 8, Refused(8)),
        keys("version 2.1", &hello_keys("2.1", 16_380, ""), 8, Refused(8)),
        keys("version 2", &hello_keys("2", 16_380, ""), 8, Refused(4)),
        keys("no version", b"\x0emax-frame-size\x03\xf0\x01", 5, Refused(5)),
        keys("no max-frame-size", b"\x07version\x08\x032.0", 6, Accepted),
        keys("max-frame-size 255", &hello_keys("2.0", 255, ""), 9, Refused(9)),
        keys("max-frame-size above HAProxy's", &hello_keys("2.0", 16_381, ""), 9, Refused(9)),
        keys("version as binary", b"\x07version\x09\x032.0", 4, Refused(4)),
        keys("max-frame-size as string", b"\x0emax-frame-size\x08\x03256", 4, Refused(4)),
        keys("capabilities as integer", &with(b"\x0ccapabilities\x03\x01"), 4, Refused(4)),
        keys("empty key", &with(b"\0\x03\x01"), 4, Refused(4)),
        keys("key cut short", &with(b"\x0bfoo"), 4, Refused(4)),
        keys("value cut short", &with(b"\x03foo\x06\x01"), 4, Refused(4)),
        keys("no value", &with(b"\x03foo"), 4, Refused(4)),
        row("FIN missing", frame(101, 0, (0, 0), &good), 10, Silence),
        row("stream-id 1", frame(101, 1, (1, 0), &good), 4, Silence),
        row("frame-id 1", frame(101, 1, (0, 1), &good), 4, Silence),
        row("ACK", ack(1, 1), 4, Silence),
        row("unknown type", frame(200, 1, (0, 0), b""), 4, Silence),
        row("header cut short", vec![0, 0, 0, 7, 101, 0, 0, 0, 1, 0xf0, 0xf0], 4, Silence),
        row("length too large", 16_381_u32.to_be_bytes().to_vec(), 3, Silence),
        row("length 6", vec![0, 0, 0, 6, 101, 0, 0, 0, 1, 0], 4, Silence),
    ]
}

#[test]
fn an_agent_hello_haproxy_up_to_3_0_refuses() {
    for Row { agent, bytes, old, .. } in rows() {
        let mut engine = Engine::new(EngineConfig::new(OLD));
        engine.output();
        engine.feed(&bytes);
        assert_eq!(engine.seen(), [format!("fault {old}")], "{agent}");
        assert_eq!(engine.frames(), [format!("disconnect {old}")], "{agent}");
        assert_eq!(engine.notify(PAYLOAD), Err(NotifyError::Closed), "{agent}");
        engine.feed(&agent_disconnect(0));
        engine.eof();
        assert!(engine.done(), "{agent}");
    }
}

#[test]
fn an_agent_hello_haproxy_from_3_1_refuses() {
    for Row { agent, bytes, new, .. } in rows() {
        let mut engine = Engine::new(EngineConfig::new(NEW));
        engine.notify(PAYLOAD).unwrap();
        engine.output();
        engine.feed(&bytes);
        match new {
            Accepted => {
                assert_eq!(engine.seen(), ["hello"], "{agent}");
                assert_eq!(engine.frames(), ["NOTIFY 1/1 FIN 8"], "{agent}");
                assert_eq!(engine.conn.info().max_frame_size(), 16_380);
                continue;
            }
            Refused(status) => {
                assert_eq!(engine.seen(), [format!("fault {status}")], "{agent}");
                assert_eq!(engine.frames(), [format!("disconnect {status}")], "{agent}");
                assert!(engine.conn.interest().read, "{agent}");
                engine.feed(&agent_disconnect(0));
                assert_eq!(engine.seen(), ["bye 0"], "{agent}");
            }
            Silence => {
                assert_eq!(engine.seen().len(), 1, "{agent}");
                assert_eq!(engine.frames(), [""; 0], "{agent}");
                assert!(!engine.conn.interest().read, "{agent}");
            }
        }
        assert!(!engine.done(), "{agent}");
        engine.wait();
        assert_eq!(engine.seen(), ["err 1"], "{agent}: the stream's time is up");
        assert!(engine.done(), "{agent}");
    }
}

#[test]
fn an_agent_hello_that_both_accept() {
    let cases: &[(&str, Vec<u8>)] = &[
        ("as usual", hello_keys("2.0", 1000, "pipelining")),
        ("spaces", hello_keys(" 2.0 ", 1000, " pipelining , x, async")),
        ("zeros", hello_keys("02.000", 1000, "pipelining")),
        ("no capabilities", b"\x07version\x08\x032.0\x0emax-frame-size\x02\xf8\x2f".to_vec()),
        (
            "keys that begin with a known one",
            b"\x08versionX\x08\x032.0\x0fmax-frame-sizeX\x04\xf8\x2f".to_vec(),
        ),
        (
            "unknown keys of every type, a string with flags",
            [
                &b"\x07version\x18\x032.0\x0emax-frame-size\x05\xf8\x2f"[..],
                b"\x01a\x00\x01b\x11\x01c\x02\x01\x01d\x06abcd\x01e\x07abcdefghijklmnop",
                b"\x01f\x08\x01x\x01g\x09\x01x\x01h\x0a\x01i\x0f",
            ]
            .concat(),
        ),
    ];
    for (agent, keys) in cases {
        for dialect in [OLD, NEW] {
            for flags in [1, 0xffff_fffd] {
                let mut engine = Engine::new(EngineConfig::new(dialect));
                engine.feed(&frame(101, flags, (0, 0), keys));
                assert_eq!(engine.seen(), ["hello"], "{agent}");
                assert_eq!(engine.conn.info().max_frame_size(), 1000, "{agent}");
            }
        }
    }
}

#[test]
fn capabilities_in_use() {
    let in_use = |config: EngineConfig, announced: &str| {
        let engine = Engine::ready(config, announced);
        (engine.conn.info().capabilities().as_str(), engine.conn.window_left())
    };
    let all = "pipelining,async,fragmentation";
    assert_eq!(in_use(EngineConfig::new(OLD), all), (all, 20));
    assert_eq!(in_use(EngineConfig::new(OLD), "async"), ("async", 20));
    assert_eq!(in_use(EngineConfig::new(OLD), "fragmentation"), ("fragmentation", 1));
    assert_eq!(in_use(EngineConfig::new(OLD), ""), ("", 1));
    let none = EngineConfig::new(OLD).pipelining(false).r#async(false);
    assert_eq!(in_use(none, all), ("fragmentation", 1));
    assert_eq!(in_use(EngineConfig::new(NEW), all), ("pipelining", 20));
    assert_eq!(in_use(EngineConfig::new(NEW), ""), ("", 1));
    assert_eq!(in_use(EngineConfig::new(NEW).pipelining(false), all), ("", 1));
}

#[test]
fn goodbye_instead_of_hello() {
    let mut old = Engine::new(EngineConfig::new(OLD));
    old.output();
    old.feed(&agent_disconnect(8));
    assert_eq!(old.seen(), ["bye 8"]);
    assert_eq!(old.frames(), [""; 0]);
    assert!(old.done());

    let mut new = Engine::new(EngineConfig::new(NEW));
    new.notify(PAYLOAD).unwrap();
    new.output();
    new.feed(&agent_disconnect(8));
    assert_eq!(new.seen(), ["fault 4"]);
    assert_eq!(new.frames(), [""; 0]);
    new.wait();
    assert_eq!(new.seen(), ["err 1"], "never the agent's code");
    assert!(new.done());
}

#[test]
fn the_stream_ends_instead_of_hello() {
    let mut old = Engine::new(EngineConfig::new(OLD));
    old.eof();
    assert_eq!(old.seen(), [""; 0]);
    assert!(old.done());

    let mut new = Engine::new(EngineConfig::new(NEW));
    new.notify(PAYLOAD).unwrap();
    new.eof();
    assert!(!new.done(), "an event waits");
    assert!(new.conn.interest().ready);
    assert_eq!(new.seen(), ["err 257"]);
    assert!(new.done());
    assert_eq!(new.conn.close_reason(), Some(&EngineCloseReason::PeerClosed));
}

#[test]
fn something_else_than_spop() {
    let mut engine = Engine::new(EngineConfig::new(OLD));
    let mut input = &b"HTTP/1.1 400 Bad request\r\n\r\n"[..];
    let error = engine.conn.receive(&mut input, engine.now).unwrap_err();
    assert_eq!(error.to_string(), "the connection begins with text, not with a SPOP frame");
}

#[test]
fn health_checks() {
    let check = |dialect, answer: &[u8]| {
        let mut engine = Engine::new(EngineConfig::new(dialect).health_check());
        assert_eq!(engine.notify(PAYLOAD), Err(NotifyError::Closed));
        assert_eq!(engine.frames(), ["hello"]);
        engine.feed(answer);
        assert!(engine.done());
        assert_eq!(engine.conn.close_reason(), Some(&EngineCloseReason::HealthCheck));
        assert_eq!(engine.frames(), [""; 0], "no goodbye");
        engine.seen().concat()
    };
    let good = agent_hello(16_380, "pipelining");
    let keys = |payload: &[u8]| frame(101, 1, (0, 0), payload);
    let no_capabilities = keys(b"\x07version\x08\x032.0\x0emax-frame-size\x03\xf0\x01");
    let prefix =
        keys(b"\x08versionX\x08\x032.0\x0emax-frame-size\x03\xf0\x01\x0ccapabilities\x08\0");
    let no_size = keys(b"\x07version\x08\x032.0\x0ccapabilities\x08\0");
    let no_version = keys(b"\x0emax-frame-size\x03\xf0\x01\x0ccapabilities\x08\0");
    let flags = frame(101, 5, (0, 0), &hello_keys("2.0", 16_380, ""));
    let table: &[(&[u8], &str, &str)] = &[
        (&good, "healthy", "healthy"),
        (&no_capabilities, "healthy", "unhealthy: capabilities value not found"),
        (&prefix, "healthy", "unhealthy: version value not found"),
        (
            &no_size,
            "unhealthy: max-frame-size value not found",
            "unhealthy: max-frame-size value not found",
        ),
        (&no_version, "unhealthy: version value not found", "unhealthy: version value not found"),
        (
            &agent_hello(16_381, ""),
            "unhealthy: max-frame-size too big or too small",
            "unhealthy: max-frame-size too big or too small",
        ),
        (&flags, "healthy", "unhealthy: invalid frame received"),
        (
            &agent_disconnect(8),
            "unhealthy: unsupported version",
            "unhealthy: version value not found",
        ),
        (
            &agent_disconnect(98),
            "unhealthy: an unknown error occurred",
            "unhealthy: version value not found",
        ),
        (&ack(0, 0), "unhealthy: invalid frame received", "unhealthy: invalid frame received"),
        (
            &[0, 0, 0, 7, 101, 0, 0, 0, 1, 0xf0, 0xf0],
            "unhealthy: invalid frame received",
            "unhealthy: invalid frame received",
        ),
        (b"HTTP", "unhealthy: frame is too big", "unhealthy: frame is too big"),
        (&[0; 4], "unhealthy: invalid frame received", "unhealthy: invalid frame received"),
    ];
    for (answer, old, new) in table {
        assert_eq!(check(OLD, answer), *old, "{answer:?}");
        assert_eq!(check(NEW, answer), *new, "{answer:?}");
    }
}

#[test]
fn health_checks_without_an_answer() {
    for dialect in [OLD, NEW] {
        let mut engine = Engine::new(EngineConfig::new(dialect).health_check());
        engine.after_ms(1999);
        assert!(!engine.conn.interest().ready);
        engine.after_ms(1);
        assert_eq!(engine.seen(), ["fault 2", "unhealthy: the agent did not answer in time"]);
        assert!(engine.done());

        let mut engine = Engine::new(EngineConfig::new(dialect).health_check());
        engine.eof();
        let failure = CheckFailure::Closed;
        assert_eq!(engine.seen(), [format!("unhealthy: {failure}")]);
        assert!(engine.done());
    }
}
