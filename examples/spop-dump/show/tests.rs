//! Against the captures and what an independent decoder wrote of them, and against any bytes.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use spop_proto::Value;
use spop_proto::wire::{Actions, AgentHello, Disconnect, FrameType, HaproxyHello, Messages};

use super::cursor::Wrong;
use super::payload;
use super::printer::{Look, Printer};
use super::seen::{Action, Content, Item, Message, Seen, Side};
use super::stream::{Limits, Stream};

fn captures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../spop-proto/tests/captures")
}

fn all_captures() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(captures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "bin"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    all.sort();
    assert!(all.len() > 300, "{} captures", all.len());
    all
}

fn see(side: Option<Side>, pieces: &[&[u8]]) -> Vec<Seen> {
    let (mut stream, mut limits, mut all) = (Stream::new(side), Limits::default(), Vec::new());
    for piece in pieces {
        stream.receive(piece, None, &mut limits, &mut |seen| all.push(seen));
    }
    stream.end(&mut |seen| all.push(seen));
    all
}

/// In the notation of `captures/README.md`, as far as there is something to compare: long strings by
/// their length, and what does not decode by the fact.
fn notation(seen: &Seen) -> String {
    let Some(header) = seen.header else { return format!("SHORT len={}", seen.length) };
    let kind = header.kind.name().map_or_else(|| format!("TYPE{}", header.kind.0), str::to_owned);
    let flags = super::text::flags(header.flags.0).join("|").replace("ABRT", "ABORT");
    let flags = if flags.is_empty() { "0".to_owned() } else { flags };
    let mut text = format!(
        "{kind} len={} sid={} fid={} {flags}",
        seen.length, header.stream_id, header.frame_id
    );
    match &seen.content {
        Content::Items(items) => write!(text, " {{{}}}", pairs(items)).unwrap(),
        Content::Messages(all) | Content::Joined { messages: all, .. } => {
            write!(text, " {}", messages(all)).unwrap();
        }
        // ACKs that cannot count for their lack of FIN are told there by their size alone.
        Content::Actions(actions) if header.flags.fin() => {
            let all: Vec<_> = actions.iter().map(action).collect();
            write!(text, " [{}]", all.join(", ")).unwrap();
        }
        _ => {}
    }
    text
}

fn messages(messages: &[Message]) -> String {
    let one = |m: &Message| format!("{}({})", name(&m.name), pairs(&m.args));
    format!("[{}]", messages.iter().map(one).collect::<Vec<_>>().join("; "))
}

fn pairs(items: &[Item]) -> String {
    let one = |item: &Item| format!("{}={}", name(&item.name), value(&item.value.as_value()));
    items.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn action(action: &Action) -> String {
    match action {
        Action::Set(scope, Item { name: of, value: v }) => {
            format!("set-var {scope}.{} {}", name(of), value(&v.as_value()))
        }
        Action::Unset(scope, of) => format!("unset-var {scope}.{}", name(of)),
    }
}

fn value(value: &Value<'_>) -> String {
    match value {
        Value::Int32(v) => format!("i32:{v}"),
        Value::Uint32(v) => format!("u32:{v}"),
        Value::Int64(v) => format!("i64:{v}"),
        Value::Uint64(v) => format!("u64:{v}"),
        Value::Str(v) | Value::Bin(v) if v.len() > 40 => format!("({} bytes)", v.len()),
        Value::Str(v) => format!("str:{}", escape(v)),
        Value::Bin(v) => format!("bin:{}", super::text::hex(v)),
        other => other.to_string(),
    }
}

fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        let plain = (byte == b' ' || byte.is_ascii_graphic()) && !b"\\,()[]{};='".contains(&byte);
        if plain {
            text.push(char::from(byte))
        } else {
            write!(text, "\\x{byte:02x}").unwrap()
        }
        text
    })
}

fn name(bytes: &[u8]) -> String {
    if bytes.is_empty() { "''".to_owned() } else { escape(bytes).replace(' ', "\\x20") }
}

/// The line of the index, brought to the same: sizes and checksums of what is not shown are left out.
fn expected(frame: &str) -> (String, bool) {
    let broken = frame.contains("MALFORMED") || frame.contains("!bad@");
    let mut text = frame.to_owned();
    // Fragments and what is malformed: the whole payload, if there is one.
    if let Some((head, rest)) =
        frame.split_once(" MALFORMED ").or_else(|| frame.split_once(" payload="))
    {
        let whole = rest.split_once(" => ").map(|(_, whole)| format!(" {whole}"));
        text = head.to_owned() + &whole.unwrap_or_default();
    }
    // `!bad@17`, the first of the actions that are lost.
    if let Some((kept, _)) = text.clone().split_once("!bad@") {
        text = kept.trim_end_matches(", ").to_owned() + "]";
    }
    // Long values: `str:abc..(1000 bytes, crc32 ..)`.
    while let Some((before, after)) = text.split_once("..(") {
        let kinds = ["=str:", "=bin:", " str:", " bin:"];
        let start = kinds.iter().filter_map(|kind| before.rfind(kind)).max().unwrap() + 1;
        let (size, rest) = after.split_once(", crc32 ").unwrap();
        let rest = rest.split_once(')').unwrap().1;
        text = format!("{}({size}){rest}", &before[..start]);
    }
    (text, broken)
}

#[test]
fn all_captures_read_as_the_index_says() {
    let index = fs::read_to_string(captures().join("index.tsv")).unwrap();
    let mut broken_frames = 0;
    for line in index.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [file, _, _, writer, frames] = fields[..] else { panic!("{line}") };
        let bytes = fs::read(captures().join(file)).unwrap();
        let seen = see(None, &[&bytes]);
        let mut seen = seen.iter();
        for frame in frames.split(" ; ").filter(|frame| !frame.is_empty()) {
            let found = seen.next().unwrap_or_else(|| panic!("{file}: {frame}"));
            if frame.starts_with("CUT") {
                let why = &found.faults[0].what;
                assert!(why.contains("ends within") || why.contains("above"), "{file}: {why}");
                continue;
            }
            // Some agents write what an agent must not.
            if found.faults.is_empty() {
                assert_eq!(found.side.name(), writer, "{file}");
            }
            let (text, broken) = expected(frame);
            let mine = notation(found);
            if frame.contains("MALFORMED") {
                assert!(mine.starts_with(&text), "{file}:\n{mine}\n{text}");
            } else if frame.starts_with("SHORT") {
                assert!(text.starts_with(&mine), "{file}:\n{mine}\n{text}");
            } else {
                assert_eq!(mine, text, "{file}");
            }
            if broken {
                broken_frames += 1;
                assert!(!found.faults.is_empty(), "{file}: {frame}");
            }
        }
        assert!(seen.next().is_none(), "{file}");
    }
    assert!(broken_frames > 5, "{broken_frames}");
}

#[test]
fn cuts_change_nothing() {
    for (file, bytes) in all_captures() {
        let whole = see(None, &[&bytes]);
        for size in [1, 7, 1000] {
            let pieces: Vec<_> = bytes.chunks(size).collect();
            let in_pieces = see(None, &pieces);
            assert_eq!(format!("{whole:?}"), format!("{in_pieces:?}"), "{file} by {size}");
        }
    }
}

/// The decoders of the library find the same, at the same place.
fn assert_same_verdict(kind: FrameType, bytes: &[u8]) {
    let (wrong, library) = match kind {
        FrameType::NOTIFY => (payload::messages(bytes).wrong, Messages::check(bytes).err()),
        FrameType::ACK => {
            (payload::actions(bytes).wrong, Actions::new(bytes).find_map(Result::err))
        }
        FrameType::HAPROXY_HELLO => {
            (payload::items(bytes, kind).wrong, HaproxyHello::decode(bytes).err())
        }
        FrameType::AGENT_HELLO => {
            (payload::items(bytes, kind).wrong, AgentHello::decode(bytes).err())
        }
        _ => (payload::items(bytes, kind).wrong, Disconnect::decode(bytes).err()),
    };
    let hard: Vec<&Wrong> = wrong.iter().filter(|wrong| wrong.kind.is_some()).collect();
    match library {
        // A key with a value of the wrong type does not end the dump.
        Some(error) if error.to_string().contains(" wants ") => assert!(!wrong.is_empty()),
        Some(error) => {
            let [wrong] = hard[..] else { panic!("{error}: {wrong:?}") };
            assert_eq!(wrong.kind, Some(error.kind), "{wrong:?}");
            let mark = wrong.mark.start..=wrong.mark.end;
            assert!(mark.contains(&error.offset), "{error}: {wrong:?}");
        }
        None => assert!(hard.is_empty(), "{hard:?}"),
    }
    for Wrong { mark, .. } in &wrong {
        assert!(mark.start <= mark.end && mark.end <= bytes.len(), "{wrong:?}");
    }
}

const KINDS: [FrameType; 5] = [
    FrameType::NOTIFY,
    FrameType::ACK,
    FrameType::HAPROXY_HELLO,
    FrameType::AGENT_HELLO,
    FrameType::AGENT_DISCONNECT,
];

/// Frames of all captures that can be mutated in little time.
fn small_captures() -> Vec<Vec<u8>> {
    all_captures().into_iter().map(|(_, bytes)| bytes).filter(|b| b.len() < 400).collect()
}

/// Prints it in every way, which must not fail either.
fn print_all(seen: &[Seen]) {
    for json in [false, true] {
        for (full, redact) in [(false, false), (true, true)] {
            let mut printer = Printer::new(Vec::new(), Look { json, full, redact });
            for one in seen {
                printer.frame(Some(1), one).unwrap();
            }
            printer.summary().unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn captures_with_a_few_bytes_changed(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        gap in 0_u64..50,
    ) {
        use std::sync::LazyLock;
        static SMALL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(small_captures);
        let mut bytes = which.get(&SMALL).clone();
        if bytes.is_empty() { return Ok(()); }
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        let seen = see(None, &[&bytes]);
        print_all(&seen);
        // Bytes that are missing, wherever they are.
        let (a, b) = bytes.split_at(cut.index(bytes.len()));
        let (mut stream, mut limits, mut all) =
            (Stream::new(Some(Side::Agent)), Limits::default(), Vec::new());
        stream.receive(a, None, &mut limits, &mut |seen| all.push(seen));
        stream.missing(gap, &mut |seen| all.push(seen));
        stream.receive(b, None, &mut limits, &mut |seen| all.push(seen));
        stream.end(&mut |seen| all.push(seen));
        print_all(&all);
        // What follows the head of the first frames.
        let mut rest = bytes.as_slice();
        while let Ok(Some((frame, after))) = spop_proto::wire::Frame::split(rest) {
            for kind in KINDS {
                assert_same_verdict(kind, frame.payload);
            }
            rest = after;
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        print_all(&see(None, &[&bytes]));
        for kind in KINDS {
            assert_same_verdict(kind, &bytes);
        }
    }
}

/// With --redact nothing of a value is printed, whatever is wrong.
#[test]
fn secrets_stay_hidden() {
    let secret = b"\x10swordfish-secret";
    let mut frame = b"\0\0\0\0\x03\0\0\0\x01\x01\x01\x01m\x01\x06cookie\x08".to_vec();
    frame.extend_from_slice(secret);
    let length = u32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&length.to_be_bytes());
    for at in 4..frame.len() - secret.len() + 1 {
        for byte in 0..=u8::MAX {
            let mut changed = frame.clone();
            changed[at] = byte;
            // Behind it, for what a wrong length takes in.
            changed.extend_from_slice(&frame);
            let seen = see(Some(Side::Haproxy), &[&changed]);
            // Without a fault the lengths are others, and what they make a name is one.
            if byte != frame[at] && seen.iter().all(|one| one.faults.is_empty()) {
                continue;
            }
            for json in [false, true] {
                let look = Look { json, full: true, redact: true };
                let mut text = Vec::new();
                let mut printer = Printer::new(&mut text, look);
                for one in &seen {
                    printer.frame(None, one).unwrap();
                }
                let text = String::from_utf8(text).unwrap();
                assert!(!text.contains("fish"), "{at} {byte}: {text}");
            }
        }
    }
}
