//! Frames for machines: an object for each.

use serde_json::{Map, Value as Json, json};
use spop_proto::OwnedValue;
use spop_proto::wire::{FrameHeader, Value};

use super::printer::Look;
use super::seen::{Action, Content, Fault, Item, Message, Seen, Within};
use super::text::{SHORT, flags, hex, words};

/// A frame.
pub(super) fn frame(seen: &Seen, connection: Option<u64>, look: Look) -> Json {
    let mut all = Map::new();
    let mut put = |key: &str, value: Json| drop(all.insert(key.to_owned(), value));
    if let Some(connection) = connection {
        put("connection", json!(connection));
    }
    put("offset", json!(seen.offset));
    if let Some(time) = seen.time {
        put("time", json!(time.as_secs_f64()));
    }
    put("from", json!(seen.side.name()));
    put("length", json!(seen.length));
    if let Some(FrameHeader { kind, flags: bits, stream_id, frame_id }) = seen.header {
        put("type", kind.name().map_or_else(|| json!(kind.0), |name| json!(name)));
        put("flags", json!(flags(bits.0)));
        put("stream_id", json!(stream_id));
        put("frame_id", json!(frame_id));
    }
    if let Some(after) = seen.after {
        put("after_seconds", json!(after.as_secs_f64()));
    }
    match &seen.content {
        // What is wrong may have made names of values.
        _ if look.redact && seen.is_doubtful() => put("not_shown", json!(true)),
        Content::Unread => {}
        Content::Items(items) => {
            let open = Look { redact: false, ..look };
            put("items", items.iter().map(|one| item(one, open)).collect());
        }
        Content::Messages(all) => put("messages", messages(all, look)),
        Content::Part { bytes, frames } => put("part", json!({"bytes": bytes, "frames": frames})),
        Content::Joined { messages: all, bytes, frames, from } => {
            put("joined", json!({"bytes": bytes, "frames": frames, "from_offset": from}));
            put("messages", messages(all, look));
        }
        Content::Actions(actions) => {
            put("actions", actions.iter().map(|one| action(one, look)).collect());
        }
    }
    if !seen.notes.is_empty() {
        put("notes", seen.notes.iter().map(|note| words(note, look)).collect());
    }
    if !seen.faults.is_empty() {
        put("wrong", seen.faults.iter().map(|fault| wrong(fault, look)).collect());
    }
    Json::Object(all)
}

fn messages(messages: &[Message], look: Look) -> Json {
    let one = |message: &Message| {
        let args: Vec<_> = message.args.iter().map(|arg| item(arg, look)).collect();
        json!({"name": text(&message.name), "args": args})
    };
    messages.iter().map(one).collect()
}

fn action(action: &Action, look: Look) -> Json {
    match action {
        Action::Set(scope, of) => {
            let mut all = item(of, look);
            if let Some(all) = all.as_object_mut() {
                all.insert("action".to_owned(), json!("set-var"));
                all.insert("scope".to_owned(), json!(scope.as_str()));
            }
            all
        }
        Action::Unset(scope, name) => {
            json!({"action": "unset-var", "scope": scope.as_str(), "name": text(name)})
        }
    }
}

/// Names are text in all but broken streams.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn item(Item { name, value }: &Item, look: Look) -> Json {
    let mut all = Map::new();
    let kind = value.as_value().kind();
    all.insert("name".to_owned(), json!(text(name)));
    all.insert("type".to_owned(), json!(kind));
    all.extend(self::value(value, look));
    Json::Object(all)
}

/// A value, with its length if it is a string or binary. What is not text is in hex.
fn value(value: &OwnedValue, look: Look) -> Map<String, Json> {
    let mut all = Map::new();
    let value = value.as_value();
    if let Some(bytes) = value.as_bytes() {
        all.insert("length".to_owned(), json!(bytes.len()));
    }
    if look.redact {
        return all;
    }
    let plain = match value {
        Value::Null => Json::Null,
        Value::Bool(v) => json!(v),
        Value::Int32(v) => json!(v),
        Value::Uint32(v) => json!(v),
        Value::Int64(v) => json!(v),
        Value::Uint64(v) => json!(v),
        Value::Ipv4(v) => json!(v),
        Value::Ipv6(v) => json!(v),
        Value::Str(bytes) | Value::Bin(bytes) => {
            let cut = !look.full && bytes.len() > SHORT;
            let part = if cut { bytes.get(..SHORT).unwrap_or(bytes) } else { bytes };
            if cut {
                all.insert("cut".to_owned(), json!(true));
            }
            match (value, std::str::from_utf8(part)) {
                (Value::Str(_), Ok(text)) => json!(text),
                _ => {
                    all.insert("hex".to_owned(), json!(hex(part)));
                    return all;
                }
            }
        }
    };
    all.insert("value".to_owned(), plain);
    all
}

fn wrong(fault: &Fault, look: Look) -> Json {
    let (unit, at) = match fault.within {
        Within::Frame(at) => ("frame_byte", at),
        Within::Payload(at) => ("payload_byte", at),
    };
    let mut all = json!({"offset": fault.offset, unit: at, "what": words(&fault.what, look)});
    if !look.redact
        && let Some(all) = all.as_object_mut()
    {
        let marked = fault.excerpt.bytes.get(fault.excerpt.mark.clone()).unwrap_or_default();
        all.insert("bytes".to_owned(), json!(hex(marked)));
    }
    all
}
