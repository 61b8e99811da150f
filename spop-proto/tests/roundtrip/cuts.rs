//! Where a stream is cut changes nothing.

use std::fs;
use std::mem;
use std::num::NonZeroUsize;

use proptest::collection::vec;
use proptest::prelude::*;
use spop_proto::{
    Ack, Action, AgentConfig, Cause, CloseReason, ConnectionStats, Event, Limits, Notify,
    ProtocolError, Scope, Ticket,
};

use crate::common::*;
use crate::naive::*;

/// All that can be seen of a connection.
#[derive(Debug, PartialEq)]
struct Seen {
    events: Vec<String>,
    output: Vec<u8>,
    error: Option<ProtocolError>,
    stats: ConnectionStats,
    reason: Option<CloseReason>,
    in_flight: u32,
}

/// Feeds the chunks, takes the output after each, and answers each NOTIFY in one of five ways,
/// which its stream-id decides. What was deferred is answered at the end, last first.
fn run<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Seen {
    run_with(Limits::new(), chunks)
}

fn run_with<'a>(limits: Limits, chunks: impl Iterator<Item = &'a [u8]>) -> Seen {
    let config = AgentConfig::new().limits(limits);
    let config = config.fallback([Action::set(Scope::Session, "f", 1)]).unwrap();
    let mut rig = Rig::new(config);
    let now = rig.at(0);
    let (mut events, mut output, mut error, mut tickets) = (vec![], vec![], None, vec![]);
    for mut input in chunks {
        // Again until nothing comes of it: reading may have waited for the output to be taken.
        loop {
            let before = events.len();
            while error.is_none() {
                match rig.conn.receive(&mut input, now) {
                    Ok(None) => break,
                    Ok(Some(Event::Notify(notify, ack))) => {
                        let ids = (notify.stream_id(), notify.frame_id());
                        events.push(format!("Notify {ids:?} {:?}", notify.payload()));
                        tickets.extend(answer(&notify, ack));
                    }
                    Ok(Some(event)) => events.push(text(&event)),
                    Err(first) => error = Some(first),
                }
            }
            assert!(error.is_none() || matches!(rig.conn.receive(&mut input, now), Ok(None)));
            assert_eq!(input, b"", "input is left over");
            let sent = rig.take();
            if sent.is_empty() && events.len() == before {
                break;
            }
            output.extend(sent);
        }
    }
    for ticket in tickets.into_iter().rev() {
        events.push(format!("answer: {}", rig.conn.answer(ticket, now).is_ok()));
    }
    output.extend(rig.take());
    let stats = rig.conn.stats();
    let in_flight = rig.conn.in_flight();
    let settled = stats.acks() + stats.superseded + stats.abandoned + u64::from(in_flight);
    assert_eq!(stats.notifies, settled, "{stats:?}");
    let reason = rig.conn.close_reason().cloned();
    Seen { events, output, error, stats, reason, in_flight }
}

fn answer(notify: &Notify<'_>, mut ack: Ack<'_>) -> Option<Ticket> {
    match notify.stream_id() % 5 {
        0 => ack.set(Scope::Transaction, "a", notify.payload()).unwrap_or_default(),
        1 => return Some(ack.defer()),
        2 => ack.fall_back(Cause::Error),
        3 => mem::forget(ack),
        _ => ack.commit(),
    }
    None
}

fn in_pieces(bytes: &[u8], size: usize) -> Seen {
    run(bytes.chunks(size))
}

/// Cuts `bytes` into chunks of these sizes, again and again; a size of 0 is a read of nothing.
fn cut<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    for &size in sizes.iter().cycle().take(10_000) {
        let (chunk, rest) = bytes.split_at(size.min(bytes.len()));
        chunks.push(chunk);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    chunks.push(bytes);
    chunks
}

/// A frame that may come after the handshake.
fn later_frame() -> impl Strategy<Value = Vec<u8>> {
    // Few ids, so that they meet again while in flight.
    let ids = || (0_u64..8, 1_u64..3);
    let notify = (ids(), messages()).prop_map(|((stream, id), messages)| {
        frame(NOTIFY, FIN, stream, id, &naive_messages(&messages))
    });
    let fragments = (ids(), messages(), 1_usize..4).prop_map(|((stream, id), messages, parts)| {
        let payload = naive_messages(&messages);
        let chunks: Vec<_> = payload.chunks(payload.len().div_ceil(parts)).collect();
        let last = chunks.len() - 1;
        let frames = chunks.iter().enumerate().map(|(at, chunk)| {
            let kind = if at == 0 { NOTIFY } else { UNSET };
            let fin = if at == last && at > 0 { FIN } else { 0 };
            frame(kind, fin, stream, id, chunk)
        });
        let mut all: Vec<u8> = frames.flatten().collect();
        if last == 0 {
            all.extend(frame(UNSET, FIN, stream, id, b""));
        }
        all
    });
    let odd = (any::<u8>(), 0_u32..8, ids(), some_bytes())
        .prop_map(|(kind, flags, (stream, id), payload)| frame(kind, flags, stream, id, &payload));
    let given_up = ids().prop_map(|(stream, id)| {
        let first = frame(NOTIFY, 0, stream, id, b"x");
        [first, frame(UNSET, FIN | ABORT, stream, id, b"")].concat()
    });
    prop_oneof![
        12 => notify,
        4 => fragments,
        1 => given_up,
        1 => odd,
        1 => Just(frame(200, FIN, 1, 1, b"unknown")),
    ]
}

/// A connection's bytes, and a few places where they are damaged.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let goodbye = prop_oneof![Just(vec![]), Just(haproxy_disconnect(0, "normal"))];
    let whole = (vec(later_frame(), 0..12), goodbye)
        .prop_map(|(frames, goodbye)| [hello(), frames.concat(), goodbye].concat());
    let damage = prop_oneof![
        3 => Just(vec![]),
        1 => vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..3),
    ];
    (whole, damage).prop_map(|(mut bytes, damage)| {
        for (at, byte, way) in damage {
            let at = at.index(bytes.len());
            match way {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn where_a_stream_is_cut_changes_nothing(
        bytes in stream(),
        sizes in vec(0_usize..40, 1..20),
    ) {
        let whole = in_pieces(&bytes, bytes.len());
        prop_assert_eq!(&in_pieces(&bytes, 1), &whole, "byte by byte");
        let any = sizes.iter().any(|size| *size > 0);
        if any {
            prop_assert_eq!(&run(cut(&bytes, &sizes).into_iter()), &whole);
        }
        // Reading that waits for the output before every frame changes nothing either.
        let wait = || Limits::new().output(NonZeroUsize::MIN);
        prop_assert_eq!(&run_with(wait(), [&bytes[..]].into_iter()), &whole);
        prop_assert_eq!(&run_with(wait(), bytes.chunks(11)), &whole);
        // The first ones all, for the HELLO; then here and there.
        for border in (0..10).chain((10..bytes.len()).step_by(1 + bytes.len() / 40)) {
            let (head, tail) = bytes.split_at(border);
            prop_assert_eq!(&run([head, tail].into_iter()), &whole, "cut at {}", border);
        }
    }

    #[test]
    fn garbage_ends_a_connection_in_order(bytes in wild_bytes(), ready in any::<bool>()) {
        let bytes = if ready { [hello(), bytes].concat() } else { bytes };
        let whole = in_pieces(&bytes, bytes.len().max(1));
        prop_assert_eq!(&in_pieces(&bytes, 1), &whole);
        if let Some(error) = &whole.error {
            prop_assert_eq!(&whole.reason, &Some(CloseReason::Protocol(error.clone())));
            let goodbye = agent_disconnect(u64::from(error.status().0), &error.to_string());
            prop_assert!(whole.output.ends_with(&goodbye));
        }
    }
}

/// What real HAProxy processes sent, in pieces of every kind.
#[test]
fn where_a_capture_is_cut_changes_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures");
    let mut notifies = 0;
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".from-haproxy.bin") {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        files += 1;
        let whole = in_pieces(&bytes, bytes.len());
        notifies += whole.stats.notifies;
        for size in [1, 2, 3, 7, 64, 1000] {
            assert_eq!(in_pieces(&bytes, size), whole, "{name} in pieces of {size}");
        }
        for border in (0..bytes.len()).step_by(1 + bytes.len() / 40) {
            let (head, tail) = bytes.split_at(border);
            assert_eq!(run([head, tail].into_iter()), whole, "{name} cut at {border}");
        }
    }
    assert!(files > 100 && notifies > 200, "{files} files, {notifies} NOTIFYs");
}
