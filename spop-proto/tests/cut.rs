//! A body that HAProxy may have cut is told of: once, and after the NOTIFY it came in.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests: they may panic, and need a first instant to count from"
)]

mod common;

use common::*;
use spop_proto::wire::NotifyPayload;
use spop_proto::{AgentConfig, Event, Pacing, Value};

/// What the smallest headers leave of a body in the default buffer.
const CUT: usize = 15_214;

fn payload(message: &str, arg: &str, bytes: usize) -> Vec<u8> {
    let body = vec![b'x'; bytes];
    let payload = NotifyPayload::new(message).arg("method", "POST").arg(arg, Value::Bin(&body));
    payload.as_bytes().unwrap().to_vec()
}

fn body(bytes: usize) -> Vec<u8> {
    frame(NOTIFY, FIN, 1, 1, &payload("check", "body", bytes))
}

/// The events: `Notify`, and how long what may be cut was.
fn feed(rig: &mut Rig, bytes: &[u8]) -> Vec<String> {
    let now = rig.at(0);
    let mut input = bytes;
    let mut seen = Vec::new();
    while let Some(event) = rig.conn.receive(&mut input, now).unwrap() {
        seen.push(match event {
            Event::Notify(..) => "Notify".to_owned(),
            Event::MaybeCut(cut) => format!("{}.{} {}", cut.message, cut.argument, cut.bytes),
            other => text(&other),
        });
    }
    rig.take();
    seen
}

#[test]
fn a_body_of_that_length_is_told_once() {
    let config = AgentConfig::new();
    let mut rig = Rig::ready(config.clone());
    assert_eq!(feed(&mut rig, &body(2_000)), ["Notify"]);
    // Whole or not, this is what a cut one looks like; the next is given before anything else is.
    let two = [body(CUT), notify(3)].concat();
    assert_eq!(feed(&mut rig, &two), ["Notify", "check.body 15214", "Notify"]);
    assert_eq!(feed(&mut rig, &body(CUT)), ["Notify"]);
    // Of another argument, and of another message, it is news.
    let other = |message, arg| frame(NOTIFY, FIN, 1, 1, &payload(message, arg, 11_054));
    assert_eq!(feed(&mut rig, &other("check", "raw")), ["Notify", "check.raw 11054"]);
    assert_eq!(feed(&mut rig, &other("log", "body")), ["Notify", "log.body 11054"]);
    // The same agent, on another connection.
    assert_eq!(feed(&mut Rig::ready(config.clone()), &body(CUT)), ["Notify"]);
    // Another server of that configuration.
    let mut another = Rig::ready(config.for_server().0);
    assert_eq!(feed(&mut another, &body(CUT)), ["Notify", "check.body 15214"]);
}

#[test]
fn other_lengths_and_other_types_are_not() {
    let mut rig = Rig::ready(AgentConfig::new());
    assert_eq!(feed(&mut rig, &body(10_000)), ["Notify"]);
    // Longer than the buffer: it is another one.
    assert_eq!(feed(&mut rig, &body(40_000)), ["Notify"]);
    // Many small ones.
    let mut many = NotifyPayload::new("check");
    for _ in 0..200 {
        many = many.arg("x", &*"x".repeat(100));
    }
    let many = frame(NOTIFY, FIN, 1, 1, many.as_bytes().unwrap());
    assert_eq!(feed(&mut rig, &many), ["Notify"]);
    // A buffer that the agent is told of.
    let pacing = Pacing::new().bufsize(65_536.try_into().unwrap());
    let mut rig = Rig::ready(AgentConfig::new().pacing(Some(pacing)));
    assert_eq!(feed(&mut rig, &body(CUT)), ["Notify"]);
    assert_eq!(feed(&mut rig, &body(64_365)), ["Notify", "check.body 64365"]);
}

/// However it arrives: in fragments, or byte by byte, and also where its answer comes later.
#[test]
fn in_pieces() {
    let payload = payload("check", "body", CUT);
    let (first, rest) = payload.split_at(4_000);
    let fragments =
        [frame(NOTIFY, 0, 1, 1, first), frame(UNSET, FIN, 1, 1, rest), notify(2)].concat();
    let mut rig = Rig::ready(AgentConfig::new());
    assert_eq!(feed(&mut rig, &fragments), ["Notify", "check.body 15214", "Notify"]);

    let mut rig = Rig::ready(AgentConfig::new());
    let mut seen = Vec::new();
    for byte in body(CUT) {
        seen.extend(feed(&mut rig, &[byte]));
    }
    assert_eq!(seen, ["Notify", "check.body 15214"]);

    // A driver that waits for news after the NOTIFY is told that there are some.
    let mut rig = Rig::ready(AgentConfig::new());
    let ticket = rig.defer(0, &body(CUT));
    assert!(rig.conn.interest().ready);
    let now = rig.at(0);
    assert!(matches!(rig.conn.receive(&mut &[][..], now), Ok(Some(Event::MaybeCut(_)))));
    assert!(!rig.conn.interest().ready);
    drop(rig.conn.answer(ticket, now).unwrap());
    assert_eq!(rig.take(), ack(1, b""));
}

#[test]
fn the_text_says_what_to_write_and_no_value() {
    let mut rig = Rig::ready(AgentConfig::new());
    let _ = rig.defer(0, &frame(NOTIFY, FIN, 1, 1, &payload("che\x1bck", "body", CUT)));
    let now = rig.at(0);
    let Ok(Some(Event::MaybeCut(cut))) = rig.conn.receive(&mut &[][..], now) else { panic!() };
    assert_eq!(
        cut.to_string(),
        r"message che\x1bck: argument body of 15214 bytes may have been cut: HAProxy sends what of a body fits its buffer of 16384, and no error. In the spoe-message section: args length=req.hdr_val(content-length), and compare; spop-lint --explain L07"
    );
    assert_eq!((cut.bytes, cut.bufsize), (CUT, 16_384));
}
