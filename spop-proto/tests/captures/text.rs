//! Frames as text in the notation of `captures/README.md`, made with the crate's decoders.

use std::collections::HashMap;
use std::fmt::Write;

use spop_proto::Value;
use spop_proto::wire::{
    Action, Actions, Arg, Flags, Frame, FrameType, Message, Messages, decode_varint,
};

/// Payloads of NOTIFYs that are not complete yet, by stream-id and frame-id.
type Open = HashMap<(u64, u64), Vec<u8>>;

/// All frames of a capture.
pub(crate) fn capture(data: &[u8]) -> String {
    let mut open = Open::new();
    let (frames, rest) = split(data);
    let mut texts: Vec<_> = frames.into_iter().map(|bytes| frame(bytes, &mut open)).collect();
    if !rest.is_empty() {
        texts.push(format!("CUT({} bytes left)", rest.len()));
    }
    texts.join(" ; ")
}

/// The frames of a capture, each without its length field, and the bytes after the last whole one.
pub(crate) fn split(mut data: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut frames = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
        let Some((frame, rest)) = rest.split_at_checked(length) else {
            break;
        };
        frames.push(frame);
        data = rest;
    }
    (frames, data)
}

fn frame(bytes: &[u8], open: &mut Open) -> String {
    let Ok(frame) = Frame::decode(bytes) else {
        return format!("SHORT len={} payload={}", bytes.len(), digest(bytes));
    };
    let kind = frame.header.kind;
    let name = kind.name().map_or_else(|| format!("TYPE{}", kind.0), str::to_owned);
    let (sid, fid) = (frame.header.stream_id, frame.header.frame_id);
    let flags = flags(frame.header.flags);
    format!("{name} len={} sid={sid} fid={fid} {flags} {}", bytes.len(), payload(&frame, open))
}

fn flags(flags: Flags) -> String {
    let reserved = flags.0 & !3;
    let words = [
        flags.fin().then(|| "FIN".to_owned()),
        flags.abort().then(|| "ABORT".to_owned()),
        (reserved != 0).then(|| format!("{reserved:#x}")),
    ];
    let words: Vec<_> = words.into_iter().flatten().collect();
    if words.is_empty() { "0".to_owned() } else { words.join("|") }
}

fn payload(frame: &Frame<'_>, open: &mut Open) -> String {
    let payload = frame.payload;
    match frame.header.kind {
        FrameType::NOTIFY if frame.header.flags.fin() => messages(payload),
        FrameType::ACK if frame.header.flags.fin() => actions(payload),
        FrameType::NOTIFY | FrameType::UNSET => {
            let whole = reassemble(frame, open).map(|whole| format!(" => {}", messages(&whole)));
            format!("payload={}{}", digest(payload), whole.unwrap_or_default())
        }
        FrameType::HAPROXY_HELLO
        | FrameType::HAPROXY_DISCONNECT
        | FrameType::AGENT_HELLO
        | FrameType::AGENT_DISCONNECT => match pairs(payload) {
            Some(pairs) => format!("{{{}}}", join(", ", pairs.into_iter().map(argument))),
            None => malformed(payload),
        },
        _ => format!("payload={}", digest(payload)),
    }
}

/// Takes a fragment of a NOTIFY; the whole payload if it was the last one.
fn reassemble(frame: &Frame<'_>, open: &mut Open) -> Option<Vec<u8>> {
    let ids = (frame.header.stream_id, frame.header.frame_id);
    if frame.header.kind == FrameType::NOTIFY {
        open.insert(ids, Vec::new());
    }
    open.get_mut(&ids)?.extend_from_slice(frame.payload);
    let Flags(flags) = frame.header.flags;
    let whole = if flags & 3 == 0 { None } else { open.remove(&ids) };
    whole.filter(|_| !frame.header.flags.abort())
}

/// The keys and values of a HELLO or DISCONNECT; `None` if the payload is malformed.
pub(crate) fn pairs(mut payload: &[u8]) -> Option<Vec<Arg<'_>>> {
    let mut pairs = Vec::new();
    while !payload.is_empty() {
        let (length, rest) = decode_varint(payload).ok()?;
        let (name, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let (value, rest) = Value::decode(rest).ok()?;
        if name.is_empty() {
            return None;
        }
        pairs.push(Arg { name, value });
        payload = rest;
    }
    Some(pairs)
}

pub(crate) fn messages(payload: &[u8]) -> String {
    match Messages::check(payload) {
        Ok(messages) => format!("[{}]", join("; ", messages.map(|m| message(&m)))),
        Err(_) => malformed(payload),
    }
}

fn message(message: &Message<'_>) -> String {
    format!("{}({})", name(message.name()), join(", ", message.args().map(argument)))
}

fn argument(argument: Arg<'_>) -> String {
    format!("{}={}", name(argument.name), value(argument.value))
}

fn actions(payload: &[u8]) -> String {
    let mut left = payload.len();
    let texts = Actions::new(payload).map(|item| match item {
        Ok(good) => {
            left -= good.encoded_len();
            action(good)
        }
        Err(_) => format!("!bad@{left}"),
    });
    format!("[{}]", join(", ", texts))
}

fn action(action: Action<'_>) -> String {
    let variable = format!("{}.{}", action.scope(), name(action.name()));
    match action {
        Action::SetVar { value: set, .. } => format!("set-var {variable} {}", value(set)),
        Action::UnsetVar { .. } => format!("unset-var {variable}"),
    }
}

pub(crate) fn value(value: Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(v) => format!("bool:{v}"),
        Value::Int32(v) => format!("i32:{v}"),
        Value::Uint32(v) => format!("u32:{v}"),
        Value::Int64(v) => format!("i64:{v}"),
        Value::Uint64(v) => format!("u64:{v}"),
        Value::Ipv4(v) => format!("ipv4:{v}"),
        Value::Ipv6(v) => format!("ipv6:{v}"),
        Value::Str(v) => shortened("str", v, escape),
        Value::Bin(v) => shortened("bin", v, hex),
    }
}

fn shortened(kind: &str, bytes: &[u8], show: fn(&[u8]) -> String) -> String {
    if bytes.len() <= 40 {
        return format!("{kind}:{}", show(bytes));
    }
    let (start, len, sum) = (show(&bytes[..16]), bytes.len(), crc32(bytes));
    format!("{kind}:{start}..({len} bytes, crc32 {sum:08x})")
}

fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        let plain = (byte == b' ' || byte.is_ascii_graphic()) && !b"\\,()[]{};='".contains(&byte);
        if plain {
            text.push(char::from(byte));
        } else {
            write!(text, "\\x{byte:02x}").unwrap();
        }
        text
    })
}

fn name(bytes: &[u8]) -> String {
    if bytes.is_empty() { "''".to_owned() } else { escape(bytes).replace(' ', "\\x20") }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn malformed(payload: &[u8]) -> String {
    format!("MALFORMED payload={}", digest(payload))
}

fn digest(bytes: &[u8]) -> String {
    format!("{} bytes crc32 {:08x}", bytes.len(), crc32(bytes))
}

/// The checksum of zip, gzip and PNG.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    })
}

fn join(separator: &str, texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(separator)
}
