//! Where reads end is not to be seen, on either side, and no bytes make one panic.

use std::collections::HashMap;
use std::time::Instant;

use proptest::prelude::*;
use spop_proto::wire::{AgentHello, Frame, FrameHeader, FrameType, NotifyPayload};
use spop_proto::{AgentConnection, EngineConnection, EngineEvent, Event, Overload, Peer, Scope};

use crate::both_sides::Pair;
use crate::setup::{Answer, Setup, config, setups};

/// What became of bytes: events in words, and the output.
type Traces = (Vec<String>, Vec<u8>);

fn chunks<'b>(bytes: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    let ends = cuts.iter().copied().chain([bytes.len()]);
    let begins = [0].into_iter().chain(cuts.iter().copied());
    begins.zip(ends).map(|(begin, end)| &bytes[begin..end]).collect()
}

fn agent_sees(setup: &Setup, now: Instant, parts: &[&[u8]]) -> Traces {
    let mut agent = AgentConnection::new(setup.agent(), Peer::Unknown, now);
    let mut words = Vec::new();
    for part in parts {
        let mut input = *part;
        loop {
            match agent.receive(&mut input, now) {
                Ok(None) => break,
                Ok(Some(Event::Notify(notify, mut ack))) => {
                    words.push(format!("{notify:?}"));
                    ack.set(Scope::Session, "id", notify.stream_id()).unwrap();
                }
                Ok(Some(event)) => words.push(format!("{event:?}")),
                Err(error) => words.push(error.to_string()),
            }
        }
    }
    (words, agent.transmit().to_vec())
}

/// `closes`: the agent closes after its bytes; else it falls silent.
fn haproxy_sees(setup: &Setup, now: Instant, parts: &[&[u8]], closes: bool) -> Traces {
    let mut haproxy = EngineConnection::new(setup.engine(), now);
    let mut hello = Vec::new();
    let mut keys = Vec::new();
    let capabilities = Some(&b"pipelining,fragmentation"[..]);
    let max_frame_size = Some(256);
    let version = Some(&b"2.0"[..]);
    AgentHello { version, max_frame_size, capabilities, description: None }.encode(&mut keys);
    let header = FrameHeader::connection(FrameType::AGENT_HELLO);
    Frame { header, payload: &keys }.encode(&mut hello);
    let mut hello = &hello[..];
    assert!(matches!(haproxy.receive(&mut hello, now), Ok(Some(EngineEvent::Hello(_)))));
    let payload = NotifyPayload::new("m");
    let mut numbers = HashMap::new();
    while haproxy.window_left() > 0 {
        let id = haproxy.notify(payload.as_bytes().unwrap(), now).unwrap();
        numbers.insert(id, numbers.len());
    }
    let mut words = Vec::new();
    let mut see = |haproxy: &mut EngineConnection, mut input: &[u8]| loop {
        words.push(match haproxy.receive(&mut input, now) {
            Ok(None) => break,
            Ok(Some(EngineEvent::Ack { id, stream_id, frame_id, actions })) => {
                let number = numbers[&id];
                format!("ack {number} {stream_id} {frame_id} {:?}", actions.collect::<Vec<_>>())
            }
            Ok(Some(EngineEvent::Failed { id, error })) => {
                format!("failed {} {error}", numbers[&id])
            }
            Ok(Some(event)) => format!("{event:?}"),
            Err(error) => error.to_string(),
        });
    };
    for part in parts {
        see(&mut haproxy, part);
    }
    let output = haproxy.transmit().to_vec();
    if closes {
        haproxy.peer_closed(now);
        see(&mut haproxy, &[]);
    }
    for _ in 0..20 {
        let Some(deadline) = haproxy.interest().deadline else { break };
        if haproxy.handle_timeout(deadline).is_err() {
            break;
        }
        see(&mut haproxy, &[]);
    }
    let ends = words.iter().filter(|w| w.starts_with("ack ") || w.starts_with("failed ")).count();
    assert_eq!((ends, haproxy.in_flight()), (numbers.len(), 0));
    (words, output)
}

/// Frames as an agent may send them, and as it may not.
fn agent_frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![12 => Just(103_u8), 1 => Just(101), 1 => Just(102), 1 => any::<u8>()];
    let flags = prop_oneof![20 => Just(1_u8), 1 => 0..4_u8];
    let payload = prop_oneof![
        6 => Just(b"\x01\x03\x02\x01n\x04\x07".to_vec()),
        1 => Just(Vec::new()),
        1 => Just(b"\x0bstatus-code\x03\x09".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    let stream = prop_oneof![20 => 0..42_u8, 1 => Just(200)];
    let frame_id = prop_oneof![20 => Just(1_u8), 1 => 0..3_u8];
    (kind, flags, stream, frame_id, payload).prop_map(|(kind, flags, stream, frame_id, payload)| {
        let length = u8::try_from(7 + payload.len()).unwrap();
        let head = [0, 0, 0, length, kind, 0, 0, 0, flags, stream, frame_id];
        [&head[..], &payload].concat()
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_agent_does_not_see_where_reads_end(
        setup in setups(),
        sizes in prop::collection::vec(0..900_usize, 0..12),
        garbage in prop::option::weighted(0.3, any::<[u8; 12]>()),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let mut setup = setup;
        setup.pipelining = (true, true);
        setup.fragmentation = true;
        // Whether a read waits for output depends on when the output is taken.
        setup.output = 1 << 20;
        setup.overload = Overload::Shed;
        let mut pair = Pair::new(setup.clone());
        let now = pair.now;
        pair.carry_to_agent(usize::MAX);
        pair.carry_to_haproxy(usize::MAX);
        let mut bytes = pair.to_agent.sent.clone();
        for size in sizes {
            pair.notify(None, size, Answer::Set);
            while pair.haproxy.interest().write {
                let part = pair.haproxy.transmit().to_vec();
                bytes.extend_from_slice(&part);
                pair.haproxy.transmitted(part.len());
            }
        }
        bytes.extend(garbage.iter().flatten());
        let whole = agent_sees(&setup, now, &[&bytes]);
        prop_assert_eq!(&agent_sees(&setup, now, &chunks(&bytes, &cuts)), &whole);
        let single: Vec<_> = bytes.chunks(1).collect();
        prop_assert_eq!(agent_sees(&setup, now, &single), whole);
    }

    #[test]
    fn haproxy_does_not_see_where_reads_end(
        setup in setups(),
        frames in prop::collection::vec(agent_frames(), 0..30),
        closes in any::<bool>(),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes = frames.concat();
        let now = Instant::now();
        let whole = haproxy_sees(&setup, now, &[&bytes], closes);
        prop_assert_eq!(&haproxy_sees(&setup, now, &chunks(&bytes, &cuts), closes), &whole);
        let single: Vec<_> = bytes.chunks(1).collect();
        prop_assert_eq!(haproxy_sees(&setup, now, &single, closes), whole);
    }

    #[test]
    fn haproxy_survives_any_bytes(
        setup in setups(),
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), 0..12_u8, any::<u8>()], 0..200),
        cuts in prop::collection::vec(any::<usize>(), 0..4),
    ) {
        let now = Instant::now();
        for check in [false, true] {
            let config = if check { setup.engine().health_check() } else { setup.engine() };
            let mut haproxy = EngineConnection::new(config, now);
            for part in chunks(&bytes, &cuts) {
                let mut input = part;
                while !matches!(haproxy.receive(&mut input, now), Ok(None)) {}
                prop_assert!(input.is_empty());
            }
        }
    }
}
