//! What is encoded decodes to itself, no bytes make a decoder panic, and where a stream is cut into
//! reads changes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from; captures are files")]

mod common;

use std::fs;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;

use common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use spop_proto::wire::{
    Actions, AgentHello, Disconnect, Flags, Frame, FrameHeader, FrameType, HaproxyHello,
    NotifyPayload, Version, decode_varint, encode_varint, varint_len,
};
use spop_proto::{
    Ack, Action, AgentConfig, Capabilities, Cause, CloseReason, ConnectionStats, DecodeErrorKind,
    Event, Limits, Messages, Notify, OwnedValue, ProtocolError, Scope, Status, Ticket, Value,
};

// Strategies and naive encoders.

/// Numbers of every length, not only of the longest.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        (any::<u64>(), 0_u32..64).prop_map(|(bits, shift)| bits >> shift),
        // Around each step of the encoding.
        (0_usize..9, 0_u64..5).prop_map(|(step, off)| LARGEST[step] - 2 + off),
        Just(u64::MAX),
    ]
}

/// The largest value of one to nine bytes.
const LARGEST: [u64; 9] = [
    239,
    2287,
    264_431,
    33_818_863,
    4_328_786_159,
    554_084_600_047,
    70_922_828_777_711,
    9_078_122_083_518_703,
    1_161_999_626_690_365_679,
];

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

/// Bytes in which the special ones are frequent.
fn wild_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => any::<u8>(),
        3 => 0_u8..12,
        1 => prop_oneof![Just(0xf0_u8), Just(0xff), Just(0x80), Just(0x7f), Just(239), Just(240)],
    ];
    vec(byte, 0..60)
}

fn value() -> impl Strategy<Value = OwnedValue> {
    prop_oneof![
        Just(OwnedValue::Null),
        any::<bool>().prop_map(OwnedValue::Bool),
        any::<i32>().prop_map(OwnedValue::Int32),
        any::<u32>().prop_map(OwnedValue::Uint32),
        number().prop_map(|bits| OwnedValue::Int64(bits.cast_signed())),
        number().prop_map(OwnedValue::Uint64),
        any::<u32>().prop_map(|bits| OwnedValue::Ipv4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| OwnedValue::Ipv6(Ipv6Addr::from_bits(bits))),
        some_bytes().prop_map(|text| OwnedValue::Str(text.into())),
        vec(any::<u8>(), 0..3000).prop_map(|data| OwnedValue::Bin(data.into())),
    ]
}

/// As the manual draws it.
fn naive_value(value: &OwnedValue) -> Vec<u8> {
    let signed = |kind: u8, wide: i64| [vec![kind], varint(wide.cast_unsigned())].concat();
    match value {
        OwnedValue::Null => vec![0],
        OwnedValue::Bool(false) => vec![1],
        OwnedValue::Bool(true) => vec![0x11],
        OwnedValue::Int32(v) => signed(2, i64::from(*v)),
        OwnedValue::Uint32(v) => [vec![3], varint(u64::from(*v))].concat(),
        OwnedValue::Int64(v) => signed(4, *v),
        OwnedValue::Uint64(v) => [vec![5], varint(*v)].concat(),
        OwnedValue::Ipv4(v) => [&[6][..], &v.octets()].concat(),
        OwnedValue::Ipv6(v) => [&[7][..], &v.octets()].concat(),
        OwnedValue::Str(v) => [vec![8], counted(v)].concat(),
        OwnedValue::Bin(v) => [vec![9], counted(v)].concat(),
    }
}

type OwnedArg = (Vec<u8>, OwnedValue);
type OwnedMessage = (Vec<u8>, Vec<OwnedArg>);

fn messages() -> impl Strategy<Value = Vec<OwnedMessage>> {
    vec((some_bytes(), vec((some_bytes(), value()), 0..6)), 1..4)
}

fn naive_messages(messages: &[OwnedMessage]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, args) in messages {
        out.extend(counted(name));
        out.push(u8::try_from(args.len()).unwrap());
        for (name, value) in args {
            out.extend(counted(name));
            out.extend(naive_value(value));
        }
    }
    out
}

fn scope() -> impl Strategy<Value = Scope> {
    (0_usize..5).prop_map(|number| Scope::ALL[number])
}

/// HAProxy's decoder with the two checks it lacks: at most ten bytes, at most 64 bits.
fn naive_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = u128::from(*bytes.first()?);
    if value < 240 {
        return Some((u64::try_from(value).unwrap(), 1));
    }
    for (at, &byte) in bytes.iter().enumerate().take(10).skip(1) {
        value += u128::from(byte) << (4 + 7 * (at - 1));
        if byte < 128 {
            return Some((u64::try_from(value).ok()?, at + 1));
        }
    }
    None
}

/// Around ten bytes, where 64 bits end.
fn longest_varint() -> impl Strategy<Value = Vec<u8>> {
    (0xf0_u8..=0xff, vec(0x80_u8..=0xff, 7..10), prop_oneof![any::<u8>(), 0x0d_u8..0x12])
        .prop_map(|(first, middle, last)| [vec![first], middle, vec![last]].concat())
}

/// The value at the start of `bytes`, and how many of them it takes.
fn naive_decode(bytes: &[u8]) -> Option<(OwnedValue, usize)> {
    let tag = *bytes.first()?;
    let rest = &bytes[1..];
    let integer = || naive_varint(rest).map(|(bits, len)| (bits, 1 + len));
    let counted = || {
        let (len, at) = naive_varint(rest)?;
        let end = at.checked_add(usize::try_from(len).ok()?)?;
        Some((rest.get(at..end)?.to_vec(), 1 + end))
    };
    Some(match tag & 15 {
        0 => (OwnedValue::Null, 1),
        1 => (OwnedValue::Bool(tag == 0x11), 1),
        2 => {
            let (bits, len) = integer()?;
            let wide = bits.cast_signed();
            (i32::try_from(wide).map_or(OwnedValue::Int64(wide), OwnedValue::Int32), len)
        }
        3 => {
            let (bits, len) = integer()?;
            (u32::try_from(bits).map_or(OwnedValue::Uint64(bits), OwnedValue::Uint32), len)
        }
        4 => integer().map(|(bits, len)| (OwnedValue::Int64(bits.cast_signed()), len))?,
        5 => integer().map(|(bits, len)| (OwnedValue::Uint64(bits), len))?,
        6 => (OwnedValue::Ipv4(rest.first_chunk::<4>().copied()?.into()), 5),
        7 => (OwnedValue::Ipv6(rest.first_chunk::<16>().copied()?.into()), 17),
        // A string with any flag is a binary to HAProxy.
        8 if tag == 8 => counted().map(|(text, len)| (OwnedValue::Str(text.into()), len))?,
        8 | 9 => counted().map(|(data, len)| (OwnedValue::Bin(data.into()), len))?,
        _ => return None,
    })
}

// What is encoded decodes to itself.

proptest! {
    #[test]
    fn varints(value in number()) {
        let mut out = Vec::new();
        encode_varint(value, &mut out);
        prop_assert_eq!(&out, &varint(value));
        prop_assert_eq!(varint_len(value), out.len());
        prop_assert_eq!(naive_varint(&out), Some((value, out.len())));
        out.push(7);
        prop_assert_eq!(decode_varint(&out), Ok((value, &[7][..])));
    }

    #[test]
    fn varints_of_any_bytes(bytes in prop_oneof![wild_bytes(), longest_varint()]) {
        let naive = naive_varint(&bytes);
        match decode_varint(&bytes) {
            Ok((value, rest)) => {
                prop_assert_eq!(naive, Some((value, bytes.len() - rest.len())));
                // Bijective: there is no other form of the same number.
                prop_assert_eq!(varint(value), &bytes[..bytes.len() - rest.len()]);
            }
            Err(error) => {
                prop_assert_eq!(naive, None);
                let cut = error.kind == DecodeErrorKind::Truncated;
                prop_assert!(!cut || bytes.len() < 10);
            }
        }
    }

    #[test]
    fn values(value in value(), rest in some_bytes()) {
        let borrowed = value.as_value();
        let mut out = Vec::new();
        borrowed.encode(&mut out);
        prop_assert_eq!(&out, &naive_value(&value));
        prop_assert_eq!(borrowed.encoded_len(), out.len());
        out.extend(&rest);
        prop_assert_eq!(Value::decode(&out), Ok((borrowed, &rest[..])));
        prop_assert_eq!(borrowed.to_owned(), value.clone());
    }

    #[test]
    fn notifies(messages in messages()) {
        let mut payload = None;
        for (name, args) in &messages {
            let begun = match payload {
                None => NotifyPayload::new(name),
                Some(payload) => NotifyPayload::message(payload, name),
            };
            payload = Some(args.iter().fold(begun, |p, (name, value)| p.arg(name, value)));
        }
        let payload = payload.unwrap();
        prop_assert_eq!(payload.as_bytes().unwrap(), naive_messages(&messages));
        let checked = Messages::check(payload.as_bytes().unwrap()).unwrap();
        let decoded: Vec<OwnedMessage> = checked
            .map(|m| {
                let args = m.args().map(|arg| (arg.name.to_vec(), arg.value.to_owned()));
                (m.name().to_vec(), args.collect())
            })
            .collect();
        prop_assert_eq!(decoded, messages);
    }

    #[test]
    fn actions(list in vec((scope(), some_bytes(), proptest::option::of(value())), 0..6)) {
        let actions: Vec<Action<'_>> = list
            .iter()
            .map(|(scope, name, value)| match value {
                Some(value) => Action::SetVar { scope: *scope, name, value: value.as_value() },
                None => Action::UnsetVar { scope: *scope, name },
            })
            .collect();
        let mut out = Vec::new();
        let mut naive = Vec::new();
        for (action, (scope, name, value)) in actions.iter().zip(&list) {
            let before = out.len();
            action.encode(&mut out);
            prop_assert_eq!(out.len() - before, action.encoded_len());
            let head = if value.is_some() { [1, 3] } else { [2, 2] };
            naive.extend(head);
            naive.push(*scope as u8);
            naive.extend(counted(name));
            naive.extend(value.iter().flat_map(naive_value));
        }
        prop_assert_eq!(&out, &naive);
        let decoded: Result<Vec<_>, _> = Actions::new(&out).collect();
        prop_assert_eq!(decoded, Ok(actions));
    }

    #[test]
    fn haproxy_hellos(
        versions in proptest::option::of(some_bytes()),
        size in proptest::option::of(number()),
        capabilities in proptest::option::of(some_bytes()),
        engine_id in proptest::option::of(some_bytes()),
        healthcheck in any::<bool>(),
    ) {
        let hello = HaproxyHello {
            supported_versions: versions.as_deref(),
            max_frame_size: size,
            capabilities: capabilities.as_deref(),
            engine_id: engine_id.as_deref(),
            healthcheck,
        };
        let mut out = Vec::new();
        hello.encode(&mut out);
        prop_assert_eq!(HaproxyHello::decode(&out), Ok(hello));
    }

    #[test]
    fn agent_hellos(
        version in proptest::option::of(some_bytes()),
        size in proptest::option::of(number()),
        capabilities in proptest::option::of(some_bytes()),
    ) {
        let hello = AgentHello {
            version: version.as_deref(),
            max_frame_size: size,
            capabilities: capabilities.as_deref(),
        };
        let mut out = Vec::new();
        hello.encode(&mut out);
        prop_assert_eq!(AgentHello::decode(&out), Ok(hello));
    }

    #[test]
    fn disconnects(status in any::<u32>(), message in vec(any::<u8>(), 0..300)) {
        let mut out = Vec::new();
        Disconnect { status: Status(status), message: &message }.encode(&mut out);
        let message = &message[..message.len().min(220)];
        prop_assert_eq!(&out, &[
            pair("status-code", &uint32(u64::from(status))),
            pair("message", &string(message)),
        ].concat());
        prop_assert_eq!(
            Disconnect::decode(&out),
            Ok(Disconnect { status: Status(status), message })
        );
    }

    #[test]
    fn frames(
        kind in any::<u8>(),
        flags in any::<u32>(),
        stream_id in number(),
        frame_id in number(),
        payload in some_bytes(),
        rest in some_bytes(),
    ) {
        let header = FrameHeader {
            kind: FrameType(kind),
            flags: Flags(flags),
            stream_id,
            frame_id,
        };
        let whole = Frame { header, payload: &payload };
        let mut out = Vec::new();
        whole.encode(&mut out);
        prop_assert_eq!(&out, &frame(kind, flags, stream_id, frame_id, &payload));
        for cut in 0..out.len() {
            prop_assert_eq!(Frame::split(&out[..cut]), Ok(None));
        }
        out.extend(&rest);
        prop_assert_eq!(Frame::split(&out), Ok(Some((whole, &rest[..]))));
    }

    #[test]
    fn scopes_versions_and_capabilities(scope in scope(), major in 1..9_u32, minor in 0..999_u32) {
        prop_assert_eq!(scope.as_str().parse(), Ok(scope));
        let version = Version { major, minor };
        prop_assert_eq!(Version::parse(version.to_string().as_bytes()), Some(version));
    }
}

// Any bytes: no panic, and what decodes is encoded and decoded to the same.

proptest! {
    #[test]
    fn any_bytes_as_values(tag in any::<u8>(), bytes in prop_oneof![wild_bytes(), longest_varint()]) {
        let bytes = [vec![tag], bytes].concat();
        let decoded = Value::decode(&bytes).ok();
        let decoded = decoded.map(|(value, rest)| (value.to_owned(), bytes.len() - rest.len()));
        prop_assert_eq!(decoded, naive_decode(&bytes));
        if let Ok((value, rest)) = Value::decode(&bytes) {
            prop_assert!(bytes.ends_with(rest));
            let mut out = Vec::new();
            value.encode(&mut out);
            prop_assert_eq!(Value::decode(&out), Ok((value, &b""[..])));
        }
    }

    #[test]
    fn any_bytes_as_messages(bytes in wild_bytes()) {
        match Messages::check(&bytes) {
            Ok(checked) => {
                let decoded: Vec<OwnedMessage> = checked
                    .map(|m| {
                        let args = m.args().map(|a| (a.name.to_vec(), a.value.to_owned()));
                        (m.name().to_vec(), args.collect())
                    })
                    .collect();
                let count: usize = checked.map(|m| m.args().len()).sum();
                prop_assert_eq!(count, decoded.iter().map(|(_, args)| args.len()).sum::<usize>());
                let again = naive_messages(&decoded);
                prop_assert_eq!(Messages::check(&again).unwrap().count(), decoded.len());
            }
            Err(error) => prop_assert!(error.offset <= bytes.len()),
        }
    }

    #[test]
    fn any_bytes_as_actions(bytes in wild_bytes()) {
        let mut good = Vec::new();
        for action in Actions::new(&bytes) {
            match action {
                Ok(action) => good.push(action),
                Err(error) => prop_assert!(error.offset <= bytes.len()),
            }
        }
        let mut out = Vec::new();
        good.iter().for_each(|action| action.encode(&mut out));
        let again: Result<Vec<_>, _> = Actions::new(&out).collect();
        prop_assert_eq!(again, Ok(good));
    }

    #[test]
    fn any_bytes_as_frames(bytes in wild_bytes()) {
        if let Ok(decoded) = Frame::decode(&bytes) {
            let mut out = Vec::new();
            decoded.encode(&mut out);
            prop_assert_eq!(&out[4..], &bytes[..], "a header has one form only");
            prop_assert_eq!(Frame::split(&out), Ok(Some((decoded, &b""[..]))));
        }
        let _ = Frame::split(&bytes);
    }

    #[test]
    fn any_bytes_as_pairs(bytes in pairs_or_wild()) {
        if let Ok(hello) = HaproxyHello::decode(&bytes) {
            let mut out = Vec::new();
            hello.encode(&mut out);
            prop_assert_eq!(HaproxyHello::decode(&out), Ok(hello));
        }
        if let Ok(hello) = AgentHello::decode(&bytes) {
            let mut out = Vec::new();
            hello.encode(&mut out);
            prop_assert_eq!(AgentHello::decode(&out), Ok(hello));
        }
        if let Ok(goodbye) = Disconnect::decode(&bytes) {
            let mut out = Vec::new();
            goodbye.encode(&mut out);
            let message = &goodbye.message[..goodbye.message.len().min(220)];
            prop_assert_eq!(Disconnect::decode(&out), Ok(Disconnect { message, ..goodbye }));
        }
    }

    #[test]
    fn any_bytes_as_words(bytes in wild_bytes()) {
        let known = Capabilities::parse(&bytes);
        prop_assert_eq!(Capabilities::parse(known.as_str().as_bytes()), known);
        if let Some(version) = Version::parse(&bytes) {
            prop_assert_eq!(Version::parse(version.to_string().as_bytes()), Some(version));
        }
        prop_assert!(Version::parse_list(&bytes).count() <= bytes.len());
    }
}

/// Lists of pairs with known keys and any values, now and then with anything.
fn pairs_or_wild() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        Just("supported-versions"),
        Just("version"),
        Just("max-frame-size"),
        Just("capabilities"),
        Just("engine-id"),
        Just("healthcheck"),
        Just("status-code"),
        Just("message"),
        Just("new"),
        Just(""),
    ];
    let one = (key, value()).prop_map(|(key, value)| pair(key, &naive_value(&value)));
    prop_oneof![4 => vec(one, 0..5).prop_map(|pairs| pairs.concat()), 1 => wild_bytes()]
}

// Where a stream is cut changes nothing.

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
    let stats = *rig.conn.stats();
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
