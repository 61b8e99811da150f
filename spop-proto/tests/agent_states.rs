//! The agent's side as a table: state x frame x flags -> what happens, and with which status.
//!
//! What is expected stands here as literals, the AGENT-DISCONNECT included; `common` builds frames
//! by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from")]

mod common;

use std::collections::BTreeSet;

use common::*;
use spop_proto::{
    AgentConfig, Capabilities, CloseReason, HealthState, Peer, ProtocolError, Status,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    BeforeHello,
    Ready,
    /// Ready, and fragmentation was not announced.
    NoFragments,
    /// The first fragment of 5/1 is there.
    FragmentOpen,
    /// Shutting down, the answer to 9/1 owed.
    Draining,
    Closing,
    Done,
}

const ALL_STATES: [State; 7] = [
    State::BeforeHello,
    State::Ready,
    State::NoFragments,
    State::FragmentOpen,
    State::Draining,
    State::Closing,
    State::Done,
];

#[derive(Clone, Copy, Debug)]
enum Out {
    /// The handshake is done.
    Hello,
    /// The NOTIFY 5/1 is asked and answered.
    Notify,
    /// HAProxy gave 5/1 up.
    GivenUp,
    /// A fragment was kept: nothing to be seen.
    Kept,
    /// Counted as meaning nothing here.
    Skipped,
    /// HAProxy's goodbye is answered.
    Goodbye,
    /// Not even looked at.
    Discarded,
    /// Variant, status and text; the text is the message of the AGENT-DISCONNECT too.
    Fails(&'static str, u32, &'static str),
}

use Out::*;

#[derive(Clone, Copy)]
enum Row {
    /// Whatever the flags.
    Any(Out),
    /// One for each of [`FLAGS`].
    Each([Out; 6]),
}

use Row::*;

const FLAGS: [u32; 6] = [0, FIN, ABORT, FIN | ABORT, 0x8000_0010 | FIN, 0x8000_0010];

/// Type, stream-id and what stands behind it.
const UNSET_5: (u8, u64) = (UNSET, 5);
const UNSET_7: (u8, u64) = (UNSET, 7);
const HELLO: (u8, u64) = (HAPROXY_HELLO, 0);
const DISCONNECT: (u8, u64) = (HAPROXY_DISCONNECT, 0);
const NOTIFY_5: (u8, u64) = (NOTIFY, 5);
const NOTIFY_7: (u8, u64) = (NOTIFY, 7);
const OWN_HELLO: (u8, u64) = (AGENT_HELLO, 0);
const OWN_DISCONNECT: (u8, u64) = (AGENT_DISCONNECT, 0);
const OWN_ACK: (u8, u64) = (ACK, 5);
const TYPE_4: (u8, u64) = (4, 5);
const TYPE_100: (u8, u64) = (100, 0);
const TYPE_255: (u8, u64) = (255, 5);

const ALL_FRAMES: [(u8, u64); 12] = [
    UNSET_5,
    UNSET_7,
    HELLO,
    DISCONNECT,
    NOTIFY_5,
    NOTIFY_7,
    OWN_HELLO,
    OWN_DISCONNECT,
    OWN_ACK,
    TYPE_4,
    TYPE_100,
    TYPE_255,
];

const fn unexpected(text: &'static str) -> Row {
    Any(Fails("Unexpected", 4, text))
}

const NO_FIN: Out = Fails(
    "HelloFragmented",
    10,
    "HAPROXY-HELLO without FIN: a handshake frame cannot be fragmented",
);
const NO_FRAGMENTS: Out = Fails(
    "FragmentationUnsupported",
    10,
    "fragment of stream 5, frame 1: fragmentation was not announced",
);
const INTERLACED: Out = Fails(
    "Interlaced",
    11,
    "NOTIFY of stream 7, frame 1 while the payload of stream 5, frame 1 is incomplete",
);

/// What each frame does in one state.
type Rows = &'static [((u8, u64), Row)];

/// Columns: FLAGS. 7/1 is told apart from 5/1 only where 5/1 is open.
const TABLE: &[(State, Rows)] = &[
    (
        State::BeforeHello,
        &[
            (HELLO, Each([NO_FIN, Hello, NO_FIN, Hello, Hello, NO_FIN])),
            (UNSET_5, unexpected("UNSET before the handshake")),
            (UNSET_7, unexpected("UNSET before the handshake")),
            (DISCONNECT, unexpected("HAPROXY-DISCONNECT before the handshake")),
            (NOTIFY_5, unexpected("NOTIFY before the handshake")),
            (NOTIFY_7, unexpected("NOTIFY before the handshake")),
            (OWN_HELLO, unexpected("AGENT-HELLO before the handshake")),
            (OWN_DISCONNECT, unexpected("AGENT-DISCONNECT before the handshake")),
            (OWN_ACK, unexpected("ACK before the handshake")),
            (TYPE_4, unexpected("frame type 4 before the handshake")),
            (TYPE_100, unexpected("frame type 100 before the handshake")),
            (TYPE_255, unexpected("frame type 255 before the handshake")),
        ],
    ),
    (
        State::Ready,
        &[
            (UNSET_5, Any(Skipped)),
            (UNSET_7, Any(Skipped)),
            (HELLO, unexpected("HAPROXY-HELLO after the handshake")),
            (DISCONNECT, Any(Goodbye)),
            (NOTIFY_5, Each([Kept, Notify, Skipped, Skipped, Notify, Kept])),
            (NOTIFY_7, Each([Kept, Notify, Skipped, Skipped, Notify, Kept])),
            (OWN_HELLO, unexpected("AGENT-HELLO after the handshake")),
            (OWN_DISCONNECT, unexpected("AGENT-DISCONNECT after the handshake")),
            (OWN_ACK, unexpected("ACK after the handshake")),
            (TYPE_4, Any(Skipped)),
            (TYPE_100, Any(Skipped)),
            (TYPE_255, Any(Skipped)),
        ],
    ),
    (
        State::NoFragments,
        &[
            (UNSET_5, Any(Skipped)),
            (UNSET_7, Any(Skipped)),
            (HELLO, unexpected("HAPROXY-HELLO after the handshake")),
            (DISCONNECT, Any(Goodbye)),
            (NOTIFY_5, Each([NO_FRAGMENTS, Notify, Skipped, Skipped, Notify, NO_FRAGMENTS])),
            (OWN_HELLO, unexpected("AGENT-HELLO after the handshake")),
            (OWN_DISCONNECT, unexpected("AGENT-DISCONNECT after the handshake")),
            (OWN_ACK, unexpected("ACK after the handshake")),
            (TYPE_4, Any(Skipped)),
            (TYPE_100, Any(Skipped)),
            (TYPE_255, Any(Skipped)),
        ],
    ),
    (
        State::FragmentOpen,
        &[
            (UNSET_5, Each([Kept, Notify, GivenUp, GivenUp, Notify, Kept])),
            (UNSET_7, Any(Skipped)),
            (HELLO, unexpected("HAPROXY-HELLO after the handshake")),
            (DISCONNECT, Any(Goodbye)),
            (NOTIFY_5, Each([Kept, Notify, GivenUp, GivenUp, Notify, Kept])),
            (NOTIFY_7, Any(INTERLACED)),
            (OWN_HELLO, unexpected("AGENT-HELLO after the handshake")),
            (OWN_DISCONNECT, unexpected("AGENT-DISCONNECT after the handshake")),
            (OWN_ACK, unexpected("ACK after the handshake")),
            (TYPE_4, Any(Skipped)),
            (TYPE_100, Any(Skipped)),
            (TYPE_255, Any(Skipped)),
        ],
    ),
    (
        State::Draining,
        &[
            (UNSET_5, Any(Skipped)),
            (UNSET_7, Any(Skipped)),
            (HELLO, unexpected("HAPROXY-HELLO after the handshake")),
            (DISCONNECT, Any(Goodbye)),
            (NOTIFY_5, Each([Kept, Notify, Skipped, Skipped, Notify, Kept])),
            (NOTIFY_7, Each([Kept, Notify, Skipped, Skipped, Notify, Kept])),
            (OWN_HELLO, unexpected("AGENT-HELLO after the handshake")),
            (OWN_DISCONNECT, unexpected("AGENT-DISCONNECT after the handshake")),
            (OWN_ACK, unexpected("ACK after the handshake")),
            (TYPE_4, Any(Skipped)),
            (TYPE_100, Any(Skipped)),
            (TYPE_255, Any(Skipped)),
        ],
    ),
    (
        State::Closing,
        &[
            (UNSET_5, Any(Discarded)),
            (UNSET_7, Any(Discarded)),
            (HELLO, Any(Discarded)),
            (DISCONNECT, Any(Discarded)),
            (NOTIFY_5, Any(Discarded)),
            (NOTIFY_7, Any(Discarded)),
            (OWN_HELLO, Any(Discarded)),
            (OWN_DISCONNECT, Any(Discarded)),
            (OWN_ACK, Any(Discarded)),
            (TYPE_4, Any(Discarded)),
            (TYPE_100, Any(Discarded)),
            (TYPE_255, Any(Discarded)),
        ],
    ),
    (
        State::Done,
        &[
            (UNSET_5, Any(Discarded)),
            (UNSET_7, Any(Discarded)),
            (HELLO, Any(Discarded)),
            (DISCONNECT, Any(Discarded)),
            (NOTIFY_5, Any(Discarded)),
            (NOTIFY_7, Any(Discarded)),
            (OWN_HELLO, Any(Discarded)),
            (OWN_DISCONNECT, Any(Discarded)),
            (OWN_ACK, Any(Discarded)),
            (TYPE_4, Any(Discarded)),
            (TYPE_100, Any(Discarded)),
            (TYPE_255, Any(Discarded)),
        ],
    ),
];

/// A connection in that state, its output taken.
fn rig(state: State) -> Rig {
    if state == State::BeforeHello {
        return Rig::new(AgentConfig::new());
    }
    let mut rig = Rig::ready(AgentConfig::new().fragmentation(state != State::NoFragments));
    let now = rig.at(0);
    match state {
        State::FragmentOpen => {
            rig.feed(0, &frame(NOTIFY, 0, 5, 1, &MESSAGE[..4])).unwrap();
        }
        State::Draining => {
            let _ticket = rig.defer(0, &notify(9));
            rig.conn.shutdown(now);
        }
        State::Closing => rig.conn.close(Status::NORMAL, "", now),
        State::Done => {
            rig.conn.close(Status::NORMAL, "", now);
            rig.take();
            rig.conn.peer_closed(now);
        }
        State::BeforeHello | State::Ready | State::NoFragments => {}
    }
    rig.take();
    rig
}

fn bytes((kind, stream): (u8, u64), flags: u32) -> Vec<u8> {
    let payload = match kind {
        HAPROXY_HELLO => hello_pairs(16380, "pipelining").concat(),
        HAPROXY_DISCONNECT => goodbye_pairs(2, "a timeout occurred"),
        NOTIFY => MESSAGE.to_vec(),
        // What makes the first fragment a whole payload.
        UNSET => MESSAGE[4..].to_vec(),
        AGENT_HELLO => hello_pairs(16380, "pipelining").concat(),
        AGENT_DISCONNECT => goodbye_pairs(0, ""),
        _ => Vec::new(),
    };
    frame(kind, flags, stream, u64::from(stream > 0), &payload)
}

#[test]
fn the_table_has_a_row_for_every_state_and_frame() {
    let states: Vec<_> = TABLE.iter().map(|(state, _)| *state).collect();
    assert_eq!(states, ALL_STATES);
    for (state, rows) in TABLE {
        for frame in ALL_FRAMES {
            // Without a payload open 5/1 and 7/1 cannot differ.
            let optional = *state == State::NoFragments && frame == NOTIFY_7;
            let count = rows.iter().filter(|(of, _)| *of == frame).count();
            assert_eq!(count, usize::from(!optional), "{state:?} {frame:?}");
        }
    }
}

#[test]
fn what_each_frame_does_in_each_state() {
    for &(state, rows) in TABLE {
        for &(frame, row) in rows {
            for (column, flags) in FLAGS.into_iter().enumerate() {
                let out = match row {
                    Any(out) => out,
                    Each(outs) => outs[column],
                };
                check(state, frame, flags, out);
            }
        }
    }
}

fn check(state: State, (kind, stream): (u8, u64), flags: u32, out: Out) {
    let case = format!("{state:?}, type {kind}, stream {stream}, flags {flags:#x}");
    let mut rig = rig(state);
    let before = *rig.conn.stats();
    let reason = rig.conn.close_reason().cloned();
    let result = rig.feed(0, &bytes((kind, stream), flags));
    let output = rig.take();
    let (events, expected) = match out {
        Hello => (vec!["Hello".to_owned()], agent_hello(16380, "pipelining,fragmentation")),
        Notify => (vec![format!("Notify {stream}/1")], ack(stream, b"")),
        GivenUp => (vec![format!("Abandoned {stream}/1 Haproxy")], vec![]),
        Goodbye => (vec!["Disconnected 2".to_owned()], agent_disconnect(0, "normal")),
        Kept | Skipped | Discarded => (vec![], vec![]),
        Fails(name, status, text) => {
            let error = result.expect_err(&case);
            assert_eq!(variant(&error), name, "{case}");
            assert_eq!(error.to_string(), text, "{case}");
            assert_eq!(error.status(), Status(status), "{case}");
            assert_eq!(output, agent_disconnect(u64::from(status), text), "{case}");
            assert_eq!(rig.conn.close_reason(), Some(&CloseReason::Protocol(error)), "{case}");
            ends(rig, &case);
            return;
        }
    };
    assert_eq!(result, Ok(events), "{case}");
    assert_eq!(output, expected, "{case}");
    let after = *rig.conn.stats();
    let counted = |matches: bool| u64::from(matches);
    assert_eq!(after.ignored - before.ignored, counted(matches!(out, Skipped)), "{case}");
    assert_eq!(after.frames - before.frames, counted(!matches!(out, Discarded)), "{case}");
    assert_eq!(after.answered - before.answered, counted(matches!(out, Notify)), "{case}");
    assert_eq!(after.aborted - before.aborted, counted(matches!(out, GivenUp)), "{case}");
    if matches!(out, Goodbye) {
        let message = "a timeout occurred".into();
        let expected = CloseReason::Haproxy { status: Status::TIMEOUT, message };
        assert_eq!(rig.conn.close_reason(), Some(&expected), "{case}");
        ends(rig, &case);
    } else {
        assert_eq!(rig.conn.close_reason(), reason.as_ref(), "{case}");
    }
}

/// The last frame is out: more input is discarded, and the peer's close is the end.
fn ends(mut rig: Rig, case: &str) {
    let want = rig.conn.interest();
    assert!(want.read && !want.write && !want.ready && !want.done, "{case}: {want:?}");
    assert_eq!(rig.feed(0, &notify(1)), Ok(vec![]), "{case}");
    assert_eq!(rig.take(), b"", "{case}");
    rig.conn.peer_closed(rig.at(0));
    assert!(rig.conn.interest().done, "{case}");
}

// Faults that are not a matter of type and flags.

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

fn hello_with(pairs: &[Vec<u8>]) -> Vec<u8> {
    frame(HAPROXY_HELLO, FIN, 0, 0, &pairs.concat())
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
    let source = include_str!("../src/error.rs");
    let (_, body) = source.split_once("pub enum ProtocolError {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let named = |line: &str| {
        let item = line.strip_prefix("    ")?;
        let upper = item.starts_with(|c: char| c.is_ascii_uppercase());
        upper.then(|| item.split([' ', ',', '{', '(']).next().unwrap().to_owned())
    };
    let all: BTreeSet<String> = body.lines().filter_map(named).collect();
    assert!(all.len() >= 15, "the source is read wrongly: {all:?}");

    let in_table = TABLE.iter().flat_map(|(_, rows)| *rows).flat_map(|(_, row)| match row {
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

// The handshake.

#[test]
fn the_agent_hello_byte_by_byte() {
    let mut rig = Rig::new(AgentConfig::new());
    rig.feed(0, &hello()).unwrap();
    assert_eq!(
        rig.take(),
        b"\x00\x00\x00\x4e\x65\x00\x00\x00\x01\x00\x00\
          \x07version\x08\x032.0\
          \x0emax-frame-size\x03\xfc\xf0\x06\
          \x0ccapabilities\x08\x18pipelining,fragmentation"
    );
}

#[test]
fn what_a_hello_may_look_like() {
    let version = pair("supported-versions", &string(b"2.0"));
    let size = pair("max-frame-size", &uint32(16380));
    let capabilities = pair("capabilities", &string(b"pipelining"));
    let with_version = |text: &[u8]| {
        [pair("supported-versions", &string(text)), size.clone(), capabilities.clone()].concat()
    };
    let with_size = |value: &[u8]| {
        [version.clone(), pair("max-frame-size", value), capabilities.clone()].concat()
    };
    let with = |more: &[u8]| [&version[..], &size, &capabilities, more].concat();
    let cases: &[(&str, Vec<u8>)] = &[
        ("no engine-id", with(b"")),
        ("any order", [&capabilities[..], &size, &version].concat()),
        ("spaces around the version", with_version(b"  2.0 ")),
        ("several versions", with_version(b"1.0,2.0,3.1")),
        ("several versions with spaces", with_version(b"3.1 , 2.0")),
        ("zeros", with_version(b"02.000")),
        ("junk among the versions", with_version(b"x,,2.0,2")),
        ("INT32", with_size(b"\x02\xfc\xf0\x06")),
        ("INT64", with_size(b"\x04\xfc\xf0\x06")),
        ("UINT64", with_size(b"\x05\xfc\xf0\x06")),
        ("no health check", with(b"\x0bhealthcheck\x01")),
        ("a boolean only HAProxy reads as false", with(b"\x0bhealthcheck\x21")),
        ("an unknown key", with(b"\x03new\x08\x01x")),
        ("an unknown key with a reserved type", with(b"\x03new\x0f\x04more\x00")),
        ("a key that begins as a known one", with(b"\x0dcapabilitiesX\x00")),
        ("a key twice", with(&version)),
        ("an empty engine-id", with(b"\x09engine-id\x08\x00")),
    ];
    for (name, payload) in cases {
        let mut rig = Rig::new(AgentConfig::new());
        let seen = rig.feed(0, &frame(HAPROXY_HELLO, FIN, 0, 0, payload));
        assert_eq!(seen, Ok(vec!["Hello".to_owned()]), "{name}");
        assert_eq!(rig.take(), agent_hello(16380, "pipelining,fragmentation"), "{name}");
    }
}

#[test]
fn the_lower_size_counts() {
    let default = AgentConfig::new();
    let small = AgentConfig::new().max_frame_size(256).unwrap();
    let cases = [
        (&default, 256, 256),
        (&default, 16380, 16380),
        (&default, 65535, 65535),
        (&default, 1 << 20, 1 << 20),
        (&default, (1 << 20) + 1, 1 << 20),
        (&default, u64::from(u32::MAX), 1 << 20),
        (&default, u64::from(u32::MAX) + 1, 1 << 20),
        (&default, u64::MAX, 1 << 20),
        (&small, 16380, 256),
    ];
    for (config, offered, expected) in cases {
        let mut rig = Rig::new(config.clone());
        assert_eq!(rig.feed(0, &hello_of(offered)), Ok(vec!["Hello".to_owned()]), "{offered}");
        assert_eq!(rig.take(), agent_hello(expected, "pipelining,fragmentation"), "{offered}");
        assert_eq!(u64::from(rig.conn.info().max_frame_size()), expected);
        assert_eq!(rig.conn.info().offered_max_frame_size(), offered);
    }
}

#[test]
fn capabilities_announced() {
    let all = AgentConfig::new();
    let none = AgentConfig::new().pipelining(false).fragmentation(false);
    let cases = [
        (&all, "pipelining,async", "pipelining,fragmentation"),
        (&all, "pipelining", "pipelining,fragmentation"),
        (&all, " async , pipelining ", "pipelining,fragmentation"),
        (&all, "async", "fragmentation"),
        (&all, "", "fragmentation"),
        (&all, "pipelining,teleport,fragmentation", "pipelining,fragmentation"),
        (&all, "Pipelining,pipeliningx", "fragmentation"),
        // An empty list is written all the same: health checks of HAProxy >= 3.1 insist on it.
        (&none, "pipelining,async", ""),
    ];
    for (config, offered, expected) in cases {
        let mut rig = Rig::new(config.clone());
        rig.feed(0, &hello_with(&hello_pairs(16380, offered))).unwrap();
        assert_eq!(rig.take(), agent_hello(16380, expected), "{offered}");
        let info = rig.conn.info();
        assert_eq!(info.capabilities().as_str(), expected, "{offered}");
        assert_eq!(
            info.offered().contains(Capabilities::ASYNC),
            offered.contains("async"),
            "{offered}"
        );
    }
}

#[test]
fn what_is_known_of_a_connection() {
    let peer = Peer::Tcp("192.0.2.1:4000".parse().unwrap());
    let mut rig = Rig::new(AgentConfig::new());
    assert_eq!(rig.conn.info().engine_id(), None);
    assert_eq!(rig.conn.info().peer(), Peer::Unknown);
    rig.feed(0, &hello()).unwrap();
    let id = b"6b1b9c6d-9b8e-4b0a-8f0f-0d6a5d1f9c11";
    assert_eq!(rig.conn.info().engine_id(), Some(&id[..]));
    let now = rig.at(0);
    let conn = spop_proto::AgentConnection::new(AgentConfig::new(), peer, now);
    assert_eq!(conn.info().peer(), peer);
}

#[test]
fn health_checks_are_told_how_the_agent_is() {
    const SICK: &str = "the agent takes no new requests";
    let well = || agent_hello(16380, "pipelining,fragmentation");
    let cases = [
        (HealthState::Ready, true, well()),
        (HealthState::NotReady, false, agent_disconnect(99, SICK)),
        (HealthState::LameDuck, false, agent_disconnect(99, SICK)),
    ];
    for (state, healthy, expected) in cases {
        for over in [false, true] {
            let config = AgentConfig::new();
            config.health().set(state);
            let mut rig = if over { Rig::over_limit(config) } else { Rig::new(config) };
            let seen = rig.feed(0, &health_check());
            assert_eq!(seen, Ok(vec![format!("HealthCheck {healthy}")]), "{state:?} {over}");
            assert_eq!(rig.take(), expected, "{state:?} {over}");
            assert_eq!(rig.conn.close_reason(), Some(&CloseReason::HealthCheck));
            // HAProxy closes, or else the close timeout does.
            assert_eq!(rig.deadline(), Some(1000));
            assert_eq!(rig.timeout(999), Ok(()));
            assert!(!rig.conn.interest().done);
            assert_eq!(rig.timeout(1000), Ok(()));
            assert!(rig.conn.interest().done);
        }
    }
}

#[test]
fn a_bad_health_check_is_refused_like_any_hello() {
    let payload = b"\x0bhealthcheck\x11";
    let mut rig = Rig::new(AgentConfig::new());
    let error = rig.feed(0, &frame(HAPROXY_HELLO, FIN, 0, 0, payload)).unwrap_err();
    assert_eq!(error, ProtocolError::NoVersion);
    assert_eq!(rig.take(), agent_disconnect(5, "the HELLO names no version"));
}

#[test]
fn not_being_well_keeps_no_request_out() {
    let config = AgentConfig::new();
    config.health().set(HealthState::LameDuck);
    let mut rig = Rig::ready(config);
    assert_eq!(rig.feed(0, &notify(1)), Ok(vec!["Notify 1/1".to_owned()]));
}

#[test]
fn beyond_the_connection_limit_nothing_is_said() {
    let mut rig = Rig::over_limit(AgentConfig::new());
    let bytes = [hello(), notify(1)].concat();
    assert_eq!(rig.feed(5, &bytes), Ok(vec![]));
    assert_eq!(rig.take(), b"");
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::ConnectionLimit));
    assert_eq!(rig.deadline(), Some(100));
    assert_eq!(rig.timeout(99), Ok(()));
    assert!(!rig.conn.interest().done);
    assert_eq!(rig.timeout(100), Ok(()));
    assert!(rig.conn.interest().done);
    assert_eq!(rig.take(), b"");
}

#[test]
fn beyond_the_connection_limit_silence_is_no_fault() {
    let mut rig = Rig::over_limit(AgentConfig::new());
    assert_eq!(rig.timeout(100), Ok(()));
    assert_eq!(rig.conn.close_reason(), Some(&CloseReason::ConnectionLimit));
    assert!(rig.conn.interest().done);
}

/// HAProxy may say goodbye right behind its HELLO (`maxconn` reached), in one read.
#[test]
fn a_goodbye_right_behind_the_hello() {
    let mut rig = Rig::new(AgentConfig::new());
    let bytes = [hello(), haproxy_disconnect(0, "normal"), notify(1)].concat();
    let expected = ["Hello", "Disconnected 0"].map(str::to_owned).to_vec();
    assert_eq!(rig.feed(0, &bytes), Ok(expected));
    let output = [agent_hello(16380, "pipelining,fragmentation"), agent_disconnect(0, "normal")];
    assert_eq!(rig.take(), output.concat());
    ends(rig, "goodbye");
}

#[test]
fn goodbyes_without_a_status_or_with_an_odd_one() {
    let cases: [(&[u8], u32); 5] = [
        (b"", 0),
        (b"\x07message\x08\x02hi", 0),
        (b"\x0bstatus-code\x02\x02", 2),
        (b"\x0bstatus-code\x05\xf4\x10", 500),
        // Above 32 bits: no status anybody defined.
        (b"\x0bstatus-code\x05\xff\xf0\xfe\xfe\xfe\xfe\xfe\xfe\xfe\x0e", 99),
    ];
    for (payload, status) in cases {
        let mut rig = Rig::ready(AgentConfig::new());
        let seen = rig.feed(0, &frame(HAPROXY_DISCONNECT, 0, 3, 4, payload));
        assert_eq!(seen, Ok(vec![format!("Disconnected {status}")]), "{payload:?}");
        assert_eq!(rig.take(), agent_disconnect(0, "normal"));
    }
}
