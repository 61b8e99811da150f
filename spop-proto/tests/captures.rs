//! What real HAProxy processes sent and were sent, through the crate.
//!
//! `captures/index.tsv` says what is in each file; it was made without the crate.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the captures are files, and a connection wants the time"
)]

#[path = "captures/replay.rs"]
mod replay;
#[path = "captures/text.rs"]
mod text;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use spop_proto::wire::{
    AgentHello, Arg, Disconnect, Frame, FrameType, HaproxyHello, Messages, NotifyPayload,
};
use spop_proto::{AgentConfig, AgentConnection, Description, Peer, Status, Value};

use replay::{Expected, Replay};

/// A file and its line in the index.
struct Capture {
    file: String,
    from_haproxy: bool,
    frames: String,
}

impl Capture {
    fn parse(line: &str) -> Self {
        let columns: Vec<_> = line.split('\t').collect();
        let [file, _version, _scenario, writer, frames] = columns[..] else {
            panic!("not a line of the index: {line}");
        };
        Self { file: file.to_owned(), from_haproxy: writer == "haproxy", frames: frames.to_owned() }
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(folder().join(&self.file)).unwrap()
    }
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures"))
}

fn captures() -> Vec<Capture> {
    let index = fs::read_to_string(folder().join("index.tsv")).unwrap();
    index.lines().map(Capture::parse).collect()
}

fn from_haproxy() -> impl Iterator<Item = Capture> {
    captures().into_iter().filter(|capture| capture.from_haproxy)
}

#[test]
fn the_index_lists_every_file_once() {
    let listed: Vec<_> = captures().into_iter().map(|capture| capture.file).collect();
    let set: BTreeSet<_> = listed.iter().cloned().collect();
    let there: BTreeSet<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".bin"))
        .collect();
    assert_eq!(set, there);
    assert_eq!(listed.len(), set.len(), "a file is listed twice");
}

#[test]
fn frames_are_what_the_index_says() {
    for capture in captures() {
        assert_eq!(text::capture(&capture.bytes()), capture.frames, "{}", capture.file);
    }
}

#[test]
fn hellos_and_disconnects_hold_what_their_keys_say() {
    let mut checked = 0;
    for capture in captures() {
        let bytes = capture.bytes();
        for frame in text::split(&bytes).0.into_iter().filter_map(|f| Frame::decode(f).ok()) {
            checked += usize::from(keys_agree(&frame, &capture.file));
        }
    }
    let listed = captures().iter().map(|c| count(&c.frames, &["HELLO ", "DISCONNECT "])).sum();
    assert_eq!(checked, listed);
}

/// Compares the decoder of a HELLO or DISCONNECT with the bare list of its keys and values.
fn keys_agree(frame: &Frame<'_>, file: &str) -> bool {
    let pairs = text::pairs(frame.payload);
    match frame.header.kind {
        FrameType::HAPROXY_HELLO => {
            let expected = pairs.and_then(|pairs| haproxy_hello(&pairs));
            assert_eq!(HaproxyHello::decode(frame.payload).ok(), expected, "{file}");
        }
        FrameType::AGENT_HELLO => {
            let expected = pairs.and_then(|pairs| agent_hello(&pairs));
            assert_eq!(AgentHello::decode(frame.payload).ok(), expected, "{file}");
        }
        FrameType::HAPROXY_DISCONNECT | FrameType::AGENT_DISCONNECT => {
            let expected = pairs.and_then(|pairs| disconnect(&pairs));
            assert_eq!(Disconnect::decode(frame.payload).ok(), expected, "{file}");
        }
        _ => return false,
    }
    true
}

fn haproxy_hello<'a>(pairs: &[Arg<'a>]) -> Option<HaproxyHello<'a>> {
    Some(HaproxyHello {
        supported_versions: string(pairs, b"supported-versions")?,
        max_frame_size: integer(pairs, b"max-frame-size")?,
        capabilities: string(pairs, b"capabilities")?,
        engine_id: string(pairs, b"engine-id")?,
        healthcheck: matches!(find(pairs, b"healthcheck"), Some(Value::Bool(true))),
        // HAProxy has never said it.
        describe: false,
    })
}

fn agent_hello<'a>(pairs: &[Arg<'a>]) -> Option<AgentHello<'a>> {
    Some(AgentHello {
        version: string(pairs, b"version")?,
        max_frame_size: integer(pairs, b"max-frame-size")?,
        capabilities: string(pairs, b"capabilities")?,
        description: None,
    })
}

fn disconnect<'a>(pairs: &[Arg<'a>]) -> Option<Disconnect<'a>> {
    let status = u32::try_from(integer(pairs, b"status-code")?.unwrap_or(0)).unwrap();
    let message = string(pairs, b"message")?.unwrap_or_default();
    Some(Disconnect { status: Status(status), message })
}

fn find<'a>(pairs: &[Arg<'a>], name: &[u8]) -> Option<Value<'a>> {
    pairs.iter().find(|pair| pair.name == name).map(|pair| pair.value)
}

/// `None` if the value is no string, `Some(None)` if the key is missing.
fn string<'a>(pairs: &[Arg<'a>], name: &[u8]) -> Option<Option<&'a [u8]>> {
    match find(pairs, name) {
        None => Some(None),
        Some(Value::Str(text)) => Some(Some(text)),
        Some(_) => None,
    }
}

/// `None` if the value is no integer, `Some(None)` if the key is missing.
fn integer(pairs: &[Arg<'_>], name: &[u8]) -> Option<Option<u64>> {
    match find(pairs, name) {
        None => Some(None),
        Some(value) => value.as_int().map(|number| u64::try_from(number).ok()),
    }
}

/// How many frames in a line of the index have one of the words.
fn count(frames: &str, words: &[&str]) -> usize {
    frames.split(" ; ").filter(|frame| words.iter().any(|word| frame.contains(word))).count()
}

#[test]
fn frames_of_haproxy_encode_to_the_same_bytes() {
    for capture in from_haproxy() {
        let bytes = capture.bytes();
        let mut encoded = Vec::new();
        let mut untouched = 0;
        for frame in text::split(&bytes).0 {
            let frame = Frame::decode(frame).unwrap();
            let payload = encode(&frame).unwrap_or_else(|| {
                untouched += 1;
                frame.payload.to_vec()
            });
            Frame { header: frame.header, payload: &payload }.encode(&mut encoded);
        }
        assert_eq!(encoded, bytes, "{}", capture.file);
        let fragments = count(&capture.frames, &["payload="]);
        assert_eq!(untouched, fragments, "{}: payloads not encoded anew", capture.file);
    }
}

/// Decodes a payload and encodes what came out; `None` for fragments and malformed ones.
fn encode(frame: &Frame<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match frame.header.kind {
        FrameType::HAPROXY_HELLO => HaproxyHello::decode(frame.payload).ok()?.encode(&mut out),
        FrameType::HAPROXY_DISCONNECT => Disconnect::decode(frame.payload).ok()?.encode(&mut out),
        FrameType::NOTIFY if frame.header.flags.fin() => {
            out = notify(Messages::check(frame.payload).ok()?);
        }
        _ => return None,
    }
    Some(out)
}

fn notify(mut messages: Messages<'_>) -> Vec<u8> {
    let first = messages.next().unwrap();
    let payload = first.args().fold(NotifyPayload::new(first.name()), with);
    let payload = messages.fold(payload, |payload, message| {
        message.args().fold(payload.message(message.name()), with)
    });
    payload.as_bytes().unwrap().to_vec()
}

fn with(payload: NotifyPayload, argument: Arg<'_>) -> NotifyPayload {
    payload.arg(argument.name, argument.value)
}

#[test]
fn an_agent_sees_and_answers_what_the_index_says() {
    for capture in from_haproxy() {
        let replay = Replay::of([&capture.bytes()[..]]);
        let expected = Expected::of(&capture.frames);
        assert_eq!(replay.events(), expected.events, "{}", capture.file);
        assert_eq!(replay.answers(), expected.answers, "{}", capture.file);
    }
}

/// HAProxy does not ask for it, so an agent that could describe itself says what any other says.
#[test]
fn an_agent_does_not_describe_itself_to_haproxy() {
    let description: Description = "message check-client-ip\n    arg ip ip = src".parse().unwrap();
    let now = Instant::now();
    let mut hellos = 0;
    for capture in from_haproxy() {
        let bytes = capture.bytes();
        let said = |config: AgentConfig| {
            let mut conn = AgentConnection::new(config, Peer::Unknown, now);
            let mut input = &bytes[..];
            while let Ok(Some(_)) = conn.receive(&mut input, now) {}
            conn.transmit().to_vec()
        };
        let expected = said(AgentConfig::new());
        assert_eq!(said(AgentConfig::new().description(Some(&description))), expected);
        // The fifth byte of a stream is the type of its first frame.
        hellos += usize::from(expected.get(4) == Some(&FrameType::AGENT_HELLO.0));
    }
    assert!(hellos > 20, "{hellos} handshakes");
}

#[test]
fn an_agent_does_the_same_byte_by_byte() {
    for capture in from_haproxy() {
        let bytes = capture.bytes();
        assert_eq!(Replay::of(bytes.chunks(1)), Replay::of([&bytes[..]]), "{}", capture.file);
    }
}

#[test]
fn an_agent_does_the_same_wherever_the_stream_is_cut() {
    for capture in from_haproxy() {
        let bytes = capture.bytes();
        let whole = Replay::of([&bytes[..]]);
        for at in cuts(bytes.len()) {
            let (first, second) = bytes.split_at(at);
            assert_eq!(Replay::of([first, second]), whole, "{} cut at {at}", capture.file);
        }
    }
}

/// Every place to cut a stream at; of a large one two hundred.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    let step = if len < 4096 { 1 } else { len / 200 };
    (0..=len).step_by(step)
}
