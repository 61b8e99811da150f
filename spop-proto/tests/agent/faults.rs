//! Faults that are not a matter of type and flags.

use std::collections::BTreeSet;

use spop_proto::{CloseReason, Limits, ProtocolError, Status};

use crate::common::*;
use crate::states::Out::Fails;
use crate::states::Row::{Any, Each};
use crate::states::{State, TABLE, rig};
use crate::support::*;

enum Input {
    Bytes(Vec<u8>),
    /// These bytes, then nothing for so many ms.
    Wait(Vec<u8>, u64),
}

struct Fault {
    name: &'static str,
    state: State,
    input: Input,
    variant: &'static str,
    status: u32,
    text: String,
}

fn fault(
    name: &'static str,
    state: State,
    bytes: &[u8],
    variant: &'static str,
    status: u32,
    text: &str,
) -> Fault {
    let input = Input::Bytes(bytes.to_vec());
    Fault { name, state, input, variant, status, text: text.to_owned() }
}

/// A good HELLO without the pair at that place.
fn hello_without(at: usize) -> Vec<u8> {
    let mut pairs = hello_pairs(16380, "pipelining");
    pairs.remove(at);
    hello_with(&pairs)
}

fn hello_versions(versions: &str) -> Vec<u8> {
    let mut pairs = hello_pairs(16380, "pipelining");
    pairs[0] = pair("supported-versions", &string(versions.as_bytes()));
    hello_with(&pairs)
}

fn refusals() -> Vec<Fault> {
    let before = |name, bytes: &[u8], variant, status, text: &str| {
        fault(name, State::BeforeHello, bytes, variant, status, text)
    };
    let version = |name, versions: &str| {
        let text = format!("version `{versions}` is not supported: this side speaks 2.0");
        before(name, &hello_versions(versions), "UnsupportedVersion", 8, &text)
    };
    let size = |name, size: u64| {
        let text = format!("max-frame-size {size} is not within 256 to 4294967295");
        before(name, &hello_of(size), "BadMaxFrameSize", 9, &text)
    };
    let ids = |name, stream: u64, of: u64| {
        let pairs = hello_pairs(16380, "pipelining").concat();
        let text =
            format!("HAPROXY-HELLO with stream-id {stream} and frame-id {of}: both must be 0");
        before(name, &frame(HAPROXY_HELLO, FIN, stream, of, &pairs), "HelloIds", 4, &text)
    };
    let payload = |name, payload: &[u8], what: &str| {
        let text = format!("HAPROXY-HELLO payload of the frame at byte 0 of the stream: {what}");
        before(name, &frame(HAPROXY_HELLO, FIN, 0, 0, payload), "Malformed", 4, &text)
    };
    vec![
        before("no version", &hello_without(0), "NoVersion", 5, "the HELLO names no version"),
        before(
            "no size",
            &hello_without(1),
            "NoMaxFrameSize",
            6,
            "the HELLO has no max-frame-size",
        ),
        before(
            "no capabilities",
            &hello_without(2),
            "NoCapabilities",
            7,
            "the HELLO has no capabilities",
        ),
        before("no key at all", &hello_with(&[]), "NoVersion", 5, "the HELLO names no version"),
        version("older", "1.0"),
        version("newer", "2.1"),
        version("without a minor number", "2"),
        version("without digits behind the dot", "2."),
        version("empty", ""),
        version("a prefix is no match", "2.01"),
        version("several, none of them ours", "1.0,2.1,3.0"),
        size("one below the smallest", 255),
        size("zero", 0),
        ids("a stream-id", 1, 0),
        ids("a frame-id", 0, 1),
        payload("empty key", b"\x00\x08\x01x", "empty key at byte 0"),
        payload(
            "version as a binary",
            b"\x12supported-versions\x09\x032.0",
            "key `supported-versions` wants a string, got bin at byte 19",
        ),
        payload(
            "version as a string with a flag",
            b"\x12supported-versions\x18\x032.0",
            "key `supported-versions` wants a string, got bin at byte 19",
        ),
        payload(
            "size as a string",
            b"\x0emax-frame-size\x08\x0516380",
            "key `max-frame-size` wants an integer, got str at byte 15",
        ),
        payload(
            "capabilities as a boolean",
            b"\x0ccapabilities\x11",
            "key `capabilities` wants a string, got bool at byte 13",
        ),
        payload(
            "engine-id as NULL",
            b"\x09engine-id\x00",
            "key `engine-id` wants a string, got null at byte 10",
        ),
        payload(
            "healthcheck as an integer",
            b"\x0bhealthcheck\x03\x01",
            "key `healthcheck` wants a boolean, got uint32 at byte 12",
        ),
        payload("cut behind a key", b"\x0bhealthcheck", "the bytes end inside an item at byte 12"),
        payload("cut inside a key", b"\x0bhealth", "length 11 with 6 bytes left at byte 0"),
        payload(
            "a varint without an end",
            b"\x0emax-frame-size\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            "varint above 64 bits at byte 25",
        ),
        before(
            "a length of 0",
            &[0, 0, 0, 0],
            "FrameTooShort",
            4,
            "frame of 0 bytes at byte 0 of the stream, less than the 7 of a header",
        ),
        before(
            "a length of 6",
            &[0, 0, 0, 6],
            "FrameTooShort",
            4,
            "frame of 6 bytes at byte 0 of the stream, less than the 7 of a header",
        ),
        before(
            "a header that is cut",
            &[0, 0, 0, 7, 1, 0, 0, 0, 1, 0xf0, 0x80],
            "Malformed",
            4,
            "header of the frame at byte 0 of the stream: the bytes end inside an item at byte 7",
        ),
        before(
            "a length no HELLO has",
            &[0, 0, 0x10, 0x01],
            "NotSpop",
            3,
            "the connection begins with a length of 4097 bytes, not with a SPOP frame",
        ),
        Fault {
            name: "no HELLO",
            state: State::BeforeHello,
            input: Input::Wait(vec![0, 0, 0], 10_000),
            variant: "Timeout",
            status: 2,
            text: "timeout: no HELLO arrived".to_owned(),
        },
    ]
}

/// Where the second frame of a connection begins.
fn second() -> usize {
    hello().len()
}

fn later_faults() -> Vec<Fault> {
    let ready = |name, bytes: &[u8], variant, status, text: &str| {
        fault(name, State::Ready, bytes, variant, status, text)
    };
    let malformed = |name, bytes: &[u8], part: &str, what: &str| {
        let text = format!("{part} of the frame at byte {} of the stream: {what}", second());
        ready(name, bytes, "Malformed", 4, &text)
    };
    let unknown = frame(200, FIN, 1, 1, b"");
    // 5/1 is open with the first four bytes of MESSAGE; what follows is no value.
    let reassembled = frame(UNSET, FIN, 5, 1, b"a\x0f");
    let open_at = second() + frame(NOTIFY, 0, 5, 1, &MESSAGE[..4]).len();
    vec![
        ready(
            "one byte more than the own limit",
            &[0, 0x10, 0, 1],
            "FrameTooBig",
            3,
            &format!(
                "frame of 1048577 bytes at byte {} of the stream, more than the 1048576 allowed \
                 here",
                second()
            ),
        ),
        ready(
            "a length of 6",
            &[0, 0, 0, 6],
            "FrameTooShort",
            4,
            &format!(
                "frame of 6 bytes at byte {} of the stream, less than the 7 of a header",
                second()
            ),
        ),
        malformed(
            "a header that is cut",
            &[0, 0, 0, 7, 3, 0, 0, 0, 1, 1, 0xf0],
            "header",
            "the bytes end inside an item at byte 7",
        ),
        malformed(
            "an id above 64 bits",
            &[
                0, 0, 0, 17, 3, 0, 0, 0, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                0xff, 0xff, 0xff,
            ],
            "header",
            "varint above 64 bits at byte 15",
        ),
        malformed(
            "a message without its count",
            &frame(NOTIFY, FIN, 1, 1, b"\x01m"),
            "NOTIFY payload",
            "the bytes end inside an item at byte 2",
        ),
        malformed(
            "fewer arguments than announced",
            &frame(NOTIFY, FIN, 1, 1, b"\x01m\x02\x01a\x00"),
            "NOTIFY payload",
            "the bytes end inside an item at byte 6",
        ),
        malformed(
            "a reserved data type",
            &frame(NOTIFY, FIN, 1, 1, b"\x01m\x01\x01a\x0a"),
            "NOTIFY payload",
            "reserved data type 10 at byte 5",
        ),
        malformed(
            "a string beyond the frame",
            &frame(NOTIFY, FIN, 1, 1, b"\x01m\x01\x01a\x08\x05abc"),
            "NOTIFY payload",
            "length 5 with 3 bytes left at byte 6",
        ),
        malformed(
            "a status that is a string",
            &frame(HAPROXY_DISCONNECT, FIN, 0, 0, b"\x0bstatus-code\x08\x010"),
            "HAPROXY-DISCONNECT payload",
            "key `status-code` wants an integer, got str at byte 12",
        ),
        fault(
            "fragments that are no payload together",
            State::FragmentOpen,
            &reassembled,
            "Malformed",
            4,
            &format!(
                "UNSET payload of the frame at byte {open_at} of the stream: reserved data type \
                 15 at byte 5"
            ),
        ),
        ready(
            "frames that mean nothing",
            &unknown.repeat(129),
            "TooManyIgnored",
            4,
            "128 frames in a row that mean nothing here",
        ),
        Fault {
            name: "half a frame",
            state: State::Ready,
            input: Input::Wait(notify(1)[..5].to_vec(), 10_000),
            variant: "Timeout",
            status: 2,
            text: "timeout: a frame was begun and not finished".to_owned(),
        },
    ]
}

#[test]
fn faults_and_their_status() {
    for Fault { name, state, input, variant: kind, status, text } in
        refusals().into_iter().chain(later_faults())
    {
        let mut rig = rig(state);
        let result = match input {
            Input::Bytes(bytes) => rig.feed(0, &bytes).map(drop),
            Input::Wait(bytes, ms) => {
                assert_eq!(rig.feed(0, &bytes), Ok(vec![]), "{name}");
                assert_eq!(rig.timeout(ms - 1), Ok(()), "{name}: too early");
                rig.timeout(ms)
            }
        };
        let error = result.expect_err(name);
        assert_eq!(error.to_string(), text, "{name}");
        assert_eq!(variant(&error), kind, "{name}");
        assert_eq!(error.status(), Status(status), "{name}");
        assert_eq!(rig.take(), agent_disconnect(u64::from(status), &text), "{name}");
        assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Protocol(error)), "{name}");
        ends(rig, name);
    }
}

/// A variant without a row above is a fault whose status nobody looked at. The list is read from
/// the source, so that a new variant is noticed.
#[test]
fn every_error_has_a_row() {
    let source = include_str!("../../src/error.rs");
    let (_, body) = source.split_once("pub enum ProtocolError {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let named = |line: &str| {
        let item = line.strip_prefix("    ")?;
        let upper = item.starts_with(|c: char| c.is_ascii_uppercase());
        upper.then(|| item.split([' ', ',', '{', '(']).next().unwrap().to_owned())
    };
    let all: BTreeSet<String> = body.lines().filter_map(named).collect();
    assert!(all.len() >= 15, "the source is read wrongly: {all:?}");

    let rows = TABLE.iter().flat_map(|(_, rows)| rows.iter().copied().flatten());
    let in_table = rows.flat_map(|(_, row)| match row {
        Any(out) => vec![*out],
        Each(outs) => outs.to_vec(),
    });
    let mut covered: BTreeSet<String> = in_table
        .filter_map(|out| if let Fails(name, ..) = out { Some(name.to_owned()) } else { None })
        .chain(refusals().into_iter().chain(later_faults()).map(|fault| fault.variant.to_owned()))
        .collect();
    // An agent gets no ACK: this one is HAProxy's to find.
    covered.insert("UnknownAck".to_owned());
    assert_eq!(covered, all);
}

// Frames that mean nothing.

#[test]
fn frames_that_mean_nothing_are_counted_in_a_row() {
    let mut rig = Rig::ready(with(Limits::new().ignored_frames(count(3))));
    let unknown = frame(200, FIN, 1, 1, b"anything");
    for _ in 0..5 {
        assert_eq!(rig.feed(0, &unknown.repeat(3)), Ok(vec![]));
        // One that means something starts the count anew.
        rig.feed(0, &notify(1)).unwrap();
    }
    assert_eq!(rig.conn.stats().ignored, 15);
    rig.feed(0, &unknown.repeat(2)).unwrap();
    // Of whatever kind they are.
    rig.feed(0, &frame(UNSET, FIN, 8, 1, b"")).unwrap();
    let error = rig.feed(0, &frame(NOTIFY, FIN | ABORT, 8, 1, b"")).unwrap_err();
    assert_eq!(error, ProtocolError::TooManyIgnored { limit: 3 });
}

#[test]
fn a_fragment_starts_the_count_anew() {
    let mut rig = Rig::ready(with(Limits::new().ignored_frames(count(1))));
    let unknown = frame(200, FIN, 1, 1, b"");
    for more in [frame(NOTIFY, 0, 5, 1, b""), frame(UNSET, 0, 5, 1, b"")] {
        rig.feed(0, &unknown).unwrap();
        assert_eq!(rig.feed(0, &more), Ok(vec![]));
    }
    assert_eq!(rig.feed(0, &unknown), Ok(vec![]));
}
