//! The agent's side as a table: state x frame x flags -> what happens, and with which status.
//!
//! What is expected stands here as literals, the AGENT-DISCONNECT included; `common` builds frames
//! by hand.

use spop_proto::{AgentConfig, CloseReason, Status};

use crate::common::*;
use crate::support::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
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
pub(crate) enum Out {
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
pub(crate) enum Row {
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

/// What frames do in a state, or in several.
type Rows = &'static [((u8, u64), Row)];

/// Columns: FLAGS. 7/1 is told apart from 5/1 only where 5/1 is open.
pub(crate) const TABLE: &[(State, &[Rows])] = &[
    (State::BeforeHello, &[BEFORE_HELLO]),
    (State::Ready, &[AFTER_HELLO, ASKED]),
    (State::NoFragments, &[AFTER_HELLO, ASKED_WITHOUT_FRAGMENTS]),
    (State::FragmentOpen, &[AFTER_HELLO, ASKED_IN_FRAGMENTS]),
    (State::Draining, &[AFTER_HELLO, ASKED]),
    (State::Closing, &[AT_THE_END]),
    (State::Done, &[AT_THE_END]),
];

const BEFORE_HELLO: Rows = &[
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
];

/// All but NOTIFY and its fragments.
const AFTER_HELLO: Rows = &[
    (HELLO, unexpected("HAPROXY-HELLO after the handshake")),
    (DISCONNECT, Any(Goodbye)),
    (OWN_HELLO, unexpected("AGENT-HELLO after the handshake")),
    (OWN_DISCONNECT, unexpected("AGENT-DISCONNECT after the handshake")),
    (OWN_ACK, unexpected("ACK after the handshake")),
    (TYPE_4, Any(Skipped)),
    (TYPE_100, Any(Skipped)),
    (TYPE_255, Any(Skipped)),
];

const ASKED: Rows = &[
    (UNSET_5, Any(Skipped)),
    (UNSET_7, Any(Skipped)),
    (NOTIFY_5, Each([Kept, Notify, Skipped, Skipped, Notify, Kept])),
    (NOTIFY_7, Each([Kept, Notify, Skipped, Skipped, Notify, Kept])),
];

const ASKED_WITHOUT_FRAGMENTS: Rows = &[
    (UNSET_5, Any(Skipped)),
    (UNSET_7, Any(Skipped)),
    (NOTIFY_5, Each([NO_FRAGMENTS, Notify, Skipped, Skipped, Notify, NO_FRAGMENTS])),
];

const ASKED_IN_FRAGMENTS: Rows = &[
    (UNSET_5, Each([Kept, Notify, GivenUp, GivenUp, Notify, Kept])),
    (UNSET_7, Any(Skipped)),
    (NOTIFY_5, Each([Kept, Notify, GivenUp, GivenUp, Notify, Kept])),
    (NOTIFY_7, Any(INTERLACED)),
];

const AT_THE_END: Rows = &[
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
];

/// A connection in that state, its output taken.
pub(crate) fn rig(state: State) -> Rig {
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
            let all = rows.iter().copied().flatten();
            let count = all.filter(|(of, _)| *of == frame).count();
            assert_eq!(count, usize::from(!optional), "{state:?} {frame:?}");
        }
    }
}

#[test]
fn what_each_frame_does_in_each_state() {
    for &(state, rows) in TABLE {
        for &(frame, row) in rows.iter().copied().flatten() {
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
    let before = rig.conn.stats();
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
    let after = rig.conn.stats();
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
