//! Windows, ids, sizes and fragments.

use core::num::NonZeroU32;

use super::*;
use crate::wire::{Messages, NotifyPayload};

/// One message with a string of that many bytes.
fn payload(bytes: usize) -> Vec<u8> {
    let text = vec![b'x'; bytes];
    NotifyPayload::new("m").arg("a", &text).as_bytes().unwrap().to_vec()
}

/// A payload that is that long as a whole.
fn payload_of(len: usize) -> Vec<u8> {
    let payload = (len.saturating_sub(12)..len).map(payload).find(|p| p.len() == len);
    payload.unwrap()
}

#[test]
fn the_old_engine_asks_when_the_handshake_is_done() {
    let config = || EngineConfig::new(OLD).window(NonZeroU32::new(2).unwrap());
    let mut engine = Engine::new(config());
    assert_eq!(engine.notify(PAYLOAD), Err(NotifyError::NotReady));
    assert_eq!(engine.conn.window_left(), 0);
    let mut engine = Engine::ready(config(), "pipelining");
    let first = engine.notify(PAYLOAD).unwrap();
    let second = engine.notify(PAYLOAD).unwrap();
    assert_ne!(first, second);
    assert_eq!(engine.notify(PAYLOAD), Err(NotifyError::Window));
    assert_eq!((engine.conn.window_left(), engine.conn.in_flight()), (0, 2));
    assert_eq!(engine.frames(), ["NOTIFY 0/1 FIN 8", "NOTIFY 1/1 FIN 8"]);
    engine.feed(&ack(1, 1));
    assert_eq!(engine.seen(), ["ack 1/1 1"]);
    assert_eq!((engine.conn.window_left(), engine.conn.in_flight()), (1, 1));
}

#[test]
fn the_new_engine_asks_before() {
    let mut engine = Engine::new(EngineConfig::new(NEW));
    for _ in 0..20 {
        engine.notify(PAYLOAD).unwrap();
    }
    assert_eq!(engine.notify(PAYLOAD), Err(NotifyError::Window));
    assert_eq!(engine.frames(), ["hello"]);
    engine.feed(&agent_hello(16_380, ""));
    let expected: Vec<_> = (0..20).map(|n| format!("NOTIFY {}/1 FIN 8", 2 * n + 1)).collect();
    assert_eq!(engine.frames(), expected, "20, though the agent takes one at a time");
    for n in 0..20 {
        assert_eq!(engine.notify(PAYLOAD), Err(NotifyError::Window));
        engine.feed(&ack(2 * n + 1, 1));
    }
    engine.notify(PAYLOAD).unwrap();
    assert_eq!(engine.notify(PAYLOAD), Err(NotifyError::Window));
}

#[test]
fn events_of_one_stream() {
    let mut engine = Engine::ready(EngineConfig::new(OLD).first_stream_id(300), "pipelining");
    let first = engine.notify(PAYLOAD).unwrap();
    let again = |engine: &mut Engine, id, outcome| {
        let now = engine.now;
        engine.conn.notify_again(id, outcome, PAYLOAD, now)
    };
    assert_eq!(again(&mut engine, first, Outcome::Failed), Err(NotifyError::InFlight));
    engine.feed(&ack(300, 1));
    let second = again(&mut engine, first, Outcome::Acked).unwrap();
    engine.after_ms(1000);
    assert_eq!(engine.seen(), ["ack 300/1 1", "err 1"]);
    let third = again(&mut engine, second, Outcome::Failed).unwrap();
    assert_ne!(second, third);
    assert_eq!(engine.frames(), ["NOTIFY 300/1 FIN 8", "NOTIFY 300/2 FIN 8", "NOTIFY 300/2 FIN 8"]);
    // A late answer to the second is taken for one to the third.
    let bytes = ack(300, 2);
    let mut input = &bytes[..];
    match engine.conn.receive(&mut input, engine.now).unwrap() {
        Some(EngineEvent::Ack { id, .. }) => assert_eq!(id, third),
        other => panic!("{other:?}"),
    }

    let mut engine = Engine::ready(EngineConfig::new(NEW), "pipelining");
    let first = engine.notify(PAYLOAD).unwrap();
    again(&mut engine, first, Outcome::Failed).unwrap();
    assert_eq!(engine.frames(), ["NOTIFY 1/1 FIN 8", "NOTIFY 3/1 FIN 8"]);
}

#[test]
fn the_largest_payload_in_one_frame() {
    let mut engine = Engine::ready(EngineConfig::new(OLD).send_frag_payload(false), "");
    assert_eq!(
        engine.notify(&payload_of(16_380 - 31)),
        Err(NotifyError::TooBig { error: StreamError(3) })
    );
    engine.notify(&payload_of(16_380 - 32)).unwrap();
    assert_eq!(engine.frames(), ["NOTIFY 0/1 FIN 16348"]);

    let mut engine = Engine::ready(EngineConfig::new(NEW), "");
    assert_eq!(
        engine.notify(&payload_of(16_380 - 32)),
        Err(NotifyError::TooBig { error: StreamError(3) })
    );
    engine.notify(&payload_of(16_380 - 33)).unwrap();
    assert_eq!(engine.frames(), ["NOTIFY 1/1 FIN 16347"], "the refused one used no stream-id");
}

#[test]
fn the_agents_smaller_frame() {
    let mut engine = Engine::new(EngineConfig::new(NEW));
    engine.notify(&payload(600)).unwrap();
    engine.notify(PAYLOAD).unwrap();
    engine.output();
    engine.feed(&agent_hello(256, "pipelining"));
    assert_eq!(engine.seen(), ["hello", "err 259"]);
    assert_eq!(engine.frames(), ["NOTIFY 3/1 FIN 8"]);
    assert_eq!(engine.notify(&payload(600)), Err(NotifyError::TooBig { error: StreamError(259) }));
    engine.notify(&payload_of(256 - 7)).unwrap();
    assert_eq!(engine.frames(), ["NOTIFY 7/1 FIN 249"]);
}

#[test]
fn an_agent_without_fragmentation() {
    let config = EngineConfig::new(OLD).max_frame_size(256).unwrap();
    let mut engine = Engine::ready(config, "pipelining");
    engine.notify(PAYLOAD).unwrap();
    engine.output();
    let error = engine.notify(&payload(300)).unwrap_err();
    assert_eq!(error, NotifyError::NoFragmentation);
    assert_eq!(error.stream_error(), Some(StreamError::TIMEOUT));
    assert_eq!(engine.frames(), ["disconnect 10"]);
    assert_eq!(engine.conn.close_reason(), Some(&EngineCloseReason::Fragmentation));
    engine.feed(&agent_disconnect(0));
    assert_eq!(engine.seen(), ["bye 0", "err 256"], "the others in flight fail with it");
    assert!(engine.done());
}

fn fragmenting() -> Engine {
    let config = EngineConfig::new(OLD).max_frame_size(256).unwrap();
    Engine::ready(config, "pipelining,fragmentation")
}

#[test]
fn fragments_go_out_one_by_one() {
    let mut engine = fragmenting();
    engine.notify(&payload(600)).unwrap();
    assert_eq!(engine.notify(PAYLOAD), Err(NotifyError::Window), "never interlaced");
    let mut wire = Vec::new();
    let mut kinds = Vec::new();
    let mut whole = Vec::new();
    while engine.conn.interest().write {
        engine.conn.swap_output(&mut wire);
        let (frame, rest) = Frame::split(&wire).unwrap().unwrap();
        assert!(rest.is_empty(), "one at a time");
        kinds.push((frame.header.kind, frame.header.flags, frame.payload.len()));
        whole.extend_from_slice(frame.payload);
    }
    let expected = [
        (FrameType::NOTIFY, Flags(0), 224),
        (FrameType::UNSET, Flags(0), 224),
        (FrameType::UNSET, Flags::FIN, 160),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(Messages::check(&whole).unwrap().count(), 1);
    assert_eq!(engine.conn.window_left(), 19);
    engine.feed(&ack(0, 1));
    assert_eq!(engine.seen(), ["ack 0/1 1"]);
}

#[test]
fn the_agent_gives_a_fragmented_payload_up() {
    let mut engine = fragmenting();
    engine.notify(&payload(600)).unwrap();
    engine.feed(&ack(0, 1));
    assert_eq!(engine.seen(), [""; 0], "an ACK before the last fragment counts for nothing");
    engine.feed(&frame(103, 3, (0, 1), b""));
    assert_eq!(engine.seen(), ["err 4"]);
    assert_eq!(engine.frames(), ["NOTIFY 0/1 0x0 224"], "no last fragment");
    assert_eq!(engine.conn.window_left(), 20);
    engine.notify(&payload(300)).unwrap();
    assert_eq!(engine.frames(), ["NOTIFY 1/1 0x0 224", "UNSET 1/1 FIN 84"]);
    engine.feed(&frame(103, 3, (1, 1), ACTIONS));
    assert_eq!(engine.seen(), ["ack 1/1 1"], "after the last fragment ABORT is ignored");
}

#[test]
fn haproxy_gives_a_fragmented_payload_up() {
    let mut engine = fragmenting();
    engine.notify(&payload(600)).unwrap();
    let first = engine.conn.transmit().len();
    engine.conn.transmitted(first);
    engine.after_ms(1000);
    assert_eq!(engine.seen(), ["err 1"]);
    assert_eq!(engine.frames(), ["UNSET 0/1 0x0 224", "UNSET 0/1 FIN|ABORT 0"]);
    assert_eq!(engine.conn.window_left(), 20);
}

#[test]
fn the_connection_ends_between_two_fragments() {
    let mut engine = fragmenting();
    engine.notify(&payload(600)).unwrap();
    engine.feed(&agent_disconnect(3));
    assert_eq!(engine.seen(), ["bye 3", "err 259"]);
    assert!(engine.done());
    let mut engine = fragmenting();
    engine.notify(&payload(600)).unwrap();
    engine.feed(&[0xff; 4]);
    assert_eq!(engine.seen(), ["fault 3", "err 259"]);
    assert_eq!(engine.frames(), ["NOTIFY 0/1 0x0 224", "disconnect 3"]);
    assert!(engine.done());
}

#[test]
fn output_that_the_agent_does_not_take_is_bounded() {
    let window = NonZeroU32::new(1000).unwrap();
    let mut engine = Engine::ready(EngineConfig::new(NEW).window(window), "pipelining");
    let big = payload(16_000);
    let mut accepted = 0;
    while engine.notify(&big).is_ok() {
        accepted += 1;
    }
    assert_eq!(accepted, 66);
    assert_eq!(engine.notify(&big), Err(NotifyError::Window));
    engine.output();
    assert!(engine.notify(&big).is_ok());
}
