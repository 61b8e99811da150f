//! Frames for people.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use spop_proto::wire::{FrameType, Value};
use spop_proto::{OwnedValue, Status};

use super::printer::Look;
use super::seen::{Action, Content, Excerpt, Fault, Item, Message, ROW, Seen, Side, Within};

const KIND: Style = Style::new().bold();
const WRONG: Style = AnsiColor::Red.on_default().bold();
const NOTE: Style = AnsiColor::Yellow.on_default();

/// A string or binary is cut behind that many bytes, unless all of it is wanted.
pub(super) const SHORT: usize = 64;

/// A frame: its line, and what it holds below.
pub(super) fn frame(seen: &Seen, since: Option<Duration>, look: Look) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    if let Some(since) = since {
        let _ = write!(text, "{:>4}.{:06} ", since.as_secs(), since.subsec_micros());
    }
    let arrow = if seen.side == Side::Haproxy { "->" } else { "<-" };
    let _ = write!(text, "{:>9} {arrow} {}", seen.offset, head(seen));
    if let Some(after) = seen.after {
        let _ = write!(text, " after {}", milliseconds(after));
    }
    text.push('\n');
    if seen.is_doubtful() && look.redact {
        let _ = writeln!(text, "    (not shown: what is wrong may have made names of values)");
    } else {
        content(&mut text, seen, look);
    }
    for note in &seen.notes {
        let _ = writeln!(text, "    {NOTE}note{NOTE:#}: {}", words(note, look));
    }
    for fault in &seen.faults {
        wrong(&mut text, fault, look);
    }
    text
}

fn head(seen: &Seen) -> String {
    let Some(header) = seen.header else {
        if seen.length == 0 {
            return format!("{KIND}?{KIND:#}");
        }
        return format!("{KIND}?{KIND:#} length {}", seen.length);
    };
    let flags: String = flags(header.flags.0).iter().map(|flag| format!(" {flag}")).collect();
    format!(
        "{KIND}{}{KIND:#}{flags} stream-id {} frame-id {} length {}",
        header.kind, header.stream_id, header.frame_id, seen.length
    )
}

/// The names of flags, reserved ones as a number.
pub(super) fn flags(flags: u32) -> Vec<String> {
    let known = [(1, "FIN"), (2, "ABRT")].into_iter().filter(|(bit, _)| flags & bit != 0);
    let mut names: Vec<_> = known.map(|(_, name)| name.to_owned()).collect();
    if flags & !3 != 0 {
        names.push(format!("{:#x}", flags & !3));
    }
    names
}

fn milliseconds(time: Duration) -> String {
    let micros = time.as_micros();
    format!("{}.{:03} ms", micros / 1000, micros % 1000)
}

fn content(text: &mut String, seen: &Seen, look: Look) {
    match &seen.content {
        Content::Unread => {}
        Content::Items(items) => {
            let kind = seen.header.map(|header| header.kind);
            for Item { name: key, value } in items {
                let _ = write!(text, "    {} = {}", name(key), self::value(value, look.full));
                let disconnect = matches!(
                    kind,
                    Some(FrameType::HAPROXY_DISCONNECT | FrameType::AGENT_DISCONNECT)
                );
                if disconnect
                    && key == b"status-code"
                    && let Some(code) = value.as_value().as_int()
                    && let Some(meaning) = u32::try_from(code).ok().and_then(|c| Status(c).text())
                {
                    let _ = write!(text, " ({meaning})");
                }
                text.push('\n');
            }
        }
        Content::Messages(all) => messages(text, all, look),
        Content::Part { bytes, frames } => {
            let _ = writeln!(text, "    part {frames} of a payload, {bytes} bytes so far");
        }
        Content::Joined { messages: all, bytes, frames, from } => {
            let _ = writeln!(
                text,
                "    part {frames}, the last: a payload of {bytes} bytes that began at offset {from}"
            );
            messages(text, all, look);
        }
        Content::Actions(actions) => {
            for action in actions {
                let _ = match action {
                    Action::Set(scope, Item { name: of, value }) => {
                        let value = shown(value, look);
                        writeln!(text, "    set-var {scope} {} = {value}", name(of))
                    }
                    Action::Unset(scope, of) => {
                        writeln!(text, "    unset-var {scope} {}", name(of))
                    }
                };
            }
        }
    }
}

fn messages(text: &mut String, messages: &[Message], look: Look) {
    for message in messages {
        let _ = writeln!(text, "    {}", name(&message.name));
        for arg in &message.args {
            let _ = writeln!(text, "        {} = {}", name(&arg.name), shown(&arg.value, look));
        }
    }
}

fn shown(value: &OwnedValue, look: Look) -> String {
    if !look.redact {
        return self::value(value, look.full);
    }
    let value = value.as_value();
    match value {
        Value::Null => "null".to_owned(),
        Value::Str(bytes) | Value::Bin(bytes) => {
            format!("{} of {} bytes", value.kind(), bytes.len())
        }
        _ => value.kind().to_owned(),
    }
}

fn value(value: &OwnedValue, full: bool) -> String {
    match value.as_value() {
        Value::Null => "null".to_owned(),
        Value::Bool(v) => format!("bool {v}"),
        Value::Int32(v) => format!("int32 {v}"),
        Value::Uint32(v) => format!("uint32 {v}"),
        Value::Int64(v) => format!("int64 {v}"),
        Value::Uint64(v) => format!("uint64 {v}"),
        Value::Ipv4(v) => format!("ipv4 {v}"),
        Value::Ipv6(v) => format!("ipv6 {v}"),
        Value::Str(v) => {
            let (part, rest) = cut(v, full);
            format!("str \"{}\"{rest}", escape(part).replace('"', "\\\""))
        }
        Value::Bin([]) => "bin of 0 bytes".to_owned(),
        Value::Bin(v) => {
            let (part, rest) = cut(v, full);
            format!("bin {}{rest}", hex(part))
        }
    }
}

fn cut(bytes: &[u8], full: bool) -> (&[u8], String) {
    match bytes.get(..SHORT) {
        Some(part) if !full && bytes.len() > SHORT => {
            (part, format!("... ({} bytes)", bytes.len()))
        }
        _ => (bytes, String::new()),
    }
}

/// A name as it stands in a line of its own kind.
fn name(bytes: &[u8]) -> String {
    if bytes.is_empty() { "''".to_owned() } else { escape(bytes) }
}

/// A sentence, without the names in it if these may be values.
pub(super) fn words(text: &str, look: Look) -> String {
    match (text.find('`'), text.rfind('`')) {
        (Some(first), Some(last)) if look.redact => {
            let (begin, end) = (text.get(..first), text.get(last.saturating_add(1)..));
            format!("{}(not shown){}", begin.unwrap_or_default(), end.unwrap_or_default())
        }
        _ => text.to_owned(),
    }
}

/// Text as it is, without anything that a terminal would act upon; other bytes as `\xNN`.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match u8::try_from(char) {
                Ok(quote @ (b'"' | b'\'')) => text.push(char::from(quote)),
                Ok(byte) if byte.is_ascii() => {
                    text.extend(std::ascii::escape_default(byte).map(char::from));
                }
                _ => text.extend(char.escape_debug()),
            }
        }
        text.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    text
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn wrong(text: &mut String, fault: &Fault, look: Look) {
    let place = match fault.within {
        Within::Frame(at) => format!("byte {at} of the frame"),
        Within::Payload(at) => format!("byte {at} of the whole payload"),
    };
    let (what, offset) = (words(&fault.what, look), fault.offset);
    let _ = writeln!(text, "    {WRONG}wrong{WRONG:#}: offset {offset}, {place}: {what}");
    // The bytes are values too.
    if !look.redact && !fault.excerpt.bytes.is_empty() {
        excerpt(text, &fault.excerpt);
    }
}

fn excerpt(text: &mut String, Excerpt { start, bytes, mark }: &Excerpt) {
    let mut rows = bytes.chunks(ROW).map(<[u8]>::to_vec).collect::<Vec<_>>();
    // A mark behind the last byte may need a row of its own.
    if mark.start >= rows.len().saturating_mul(ROW) {
        rows.push(Vec::new());
    }
    for (number, row) in rows.iter().enumerate() {
        let first = number.saturating_mul(ROW);
        let label = start.saturating_add(u64::try_from(first).unwrap_or(u64::MAX));
        let digits: String = row.iter().map(|byte| format!(" {byte:02x}")).collect();
        let plain = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        let ascii: String = row.iter().map(plain).collect();
        let line = format!("{label:>13} {digits:<48}  {ascii}");
        let _ = writeln!(text, "{}", line.trim_end());
        let marks: String = (first..first.saturating_add(ROW))
            .map(|at| {
                let missing = mark.is_empty() && at == mark.start;
                if missing || mark.contains(&at) { " ^^" } else { "   " }
            })
            .collect();
        if !marks.trim().is_empty() {
            let _ = writeln!(text, "{:13} {WRONG}{}{WRONG:#}", "", marks.trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_upon() {
        assert_eq!(escape(b"a b\\\t\x1b[0m"), "a b\\\\\\t\\x1b[0m");
        assert_eq!(escape("M\u{fc}ller \u{202e}".as_bytes()), "M\u{fc}ller \\u{202e}");
        assert_eq!(escape(b"\xff\xc3\xbc\xc3"), "\\xff\u{fc}\\xc3");
        assert_eq!(name(b""), "''");
    }

    #[test]
    fn long_values_are_cut() {
        let long = OwnedValue::from(Value::Str(&[b'x'; 70]));
        assert_eq!(value(&long, false), format!("str \"{}\"... (70 bytes)", "x".repeat(64)));
        assert_eq!(value(&long, true), format!("str \"{}\"", "x".repeat(70)));
        let whole = OwnedValue::from(Value::Str(b"a\"b"));
        assert_eq!(value(&whole, false), "str \"a\\\"b\"");
    }
}
