//! What fuzzing found, each as it was found: the smallest form of the input, and what must come of it.
//! How to add one: `fuzz/README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from")]

mod common;

use std::time::{Duration, Instant};

use common::*;
use spop_proto::{
    AgentConfig, Dialect, EngineCloseReason, EngineConfig, EngineConnection, EngineEvent, Status,
};

/// The smallest max-frame-size that may be negotiated.
const SMALLEST: usize = 256;

/// Found by `hello`: a list of versions that made the message of the refusal so long that the frame
/// exceeded what HAProxy takes.
#[test]
fn a_refusal_fits_the_smallest_frame() {
    let mut pairs = hello_pairs(256, "");
    pairs[0] = pair("supported-versions", &string(&[0x7f; 200]));
    let mut rig = Rig::new(AgentConfig::new());
    let error = rig.feed(0, &frame(HAPROXY_HELLO, FIN, 0, 0, &pairs.concat())).unwrap_err();
    assert_eq!(error.status(), Status::UNSUPPORTED_VERSION);
    let output = rig.take();
    assert!(output.len() - 4 <= SMALLEST, "{} bytes", output.len() - 4);
}

/// Found by `agent`: the same with the message of a caller.
#[test]
fn a_goodbye_fits_the_smallest_frame() {
    let mut rig = Rig::new(AgentConfig::new());
    rig.feed(0, &hello_of(256)).unwrap();
    rig.take();
    rig.conn.close(Status(u32::MAX), &"x".repeat(300), rig.at(0));
    let output = rig.take();
    assert!(output.len() - 4 <= SMALLEST, "{} bytes", output.len() - 4);
    assert!(output.len() - 4 >= SMALLEST - 2, "no more is cut than has to be");
}

/// Found by `engine`: the same on HAProxy's side.
#[test]
fn haproxys_goodbye_fits_the_smallest_frame() {
    let now = Instant::now();
    let config = EngineConfig::new(Dialect::Old).max_frame_size(256).unwrap();
    let mut engine = ready_engine(config, now);
    engine.close(Status(u32::MAX), &"x".repeat(300), now);
    assert!(engine.transmit().len() - 4 <= SMALLEST, "{} bytes", engine.transmit().len() - 4);
}

/// Found by `engine`: HAProxy <= 3.0 waits for an AGENT-DISCONNECT it can read when one has come that it
/// cannot. When none came, the connection ended without a reason.
#[test]
fn a_goodbye_that_cannot_be_read_is_a_reason() {
    let now = Instant::now();
    let mut engine = ready_engine(EngineConfig::new(Dialect::Old), now);
    let unreadable = frame(AGENT_DISCONNECT, FIN, 0, 1, &goodbye_pairs(0, "ids are wrong"));
    assert!(engine.receive(&mut &unreadable[..], now).unwrap().is_none());
    assert_eq!(engine.close_reason(), None);
    let end = engine.interest().deadline.unwrap();
    engine.handle_timeout(end).unwrap();
    assert!(engine.interest().done);
    let reason = EngineCloseReason::Agent { status: Status::UNKNOWN, message: "".into() };
    assert_eq!(engine.close_reason(), Some(&reason));
}

/// HAProxy's side after the handshake, its HELLO taken.
fn ready_engine(config: EngineConfig, now: Instant) -> EngineConnection {
    let config = config.idle_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut engine = EngineConnection::new(config, now);
    engine.transmitted(usize::MAX);
    let hello = agent_hello(256, "pipelining");
    assert!(matches!(engine.receive(&mut &hello[..], now), Ok(Some(EngineEvent::Hello(_)))));
    engine
}
