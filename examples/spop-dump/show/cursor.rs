//! Items one by one, each with a reason where there is none.

use std::ops::Range;

use spop_proto::Value;
use spop_proto::wire::{DecodeErrorKind, decode_varint};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wrong {
    pub(super) what: String,
    /// Which bytes, from the payload's first.
    pub(super) mark: Range<usize>,
    /// The decoders' word for it; `None` for what they let pass.
    pub(super) kind: Option<DecodeErrorKind>,
}

impl Wrong {
    /// Says in which item it is.
    pub(super) fn within(self, place: &str) -> Self {
        Self { what: format!("{place}: {}", self.what), ..self }
    }
}

/// A payload that is read from its start to its end.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    all: &'a [u8],
    at: usize,
    /// What is wrong and did not stop it.
    pub(super) passed: Vec<Wrong>,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0, passed: Vec::new() }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    fn rest(&self) -> &'a [u8] {
        self.all.get(self.at..).unwrap_or_default()
    }

    fn wrong(&self, mark: Range<usize>, kind: DecodeErrorKind, what: String) -> Wrong {
        let mark = mark.start.min(self.all.len())..mark.end.min(self.all.len());
        Wrong { what, mark, kind: Some(kind) }
    }

    /// One raw byte.
    pub(super) fn byte(&mut self, what: &str) -> Result<u8, Wrong> {
        let Some(&byte) = self.rest().first() else { return Err(self.ended(what)) };
        self.at = self.at.saturating_add(1);
        Ok(byte)
    }

    /// What the byte read last cannot be.
    pub(super) fn refused(&self, kind: DecodeErrorKind, what: String) -> Wrong {
        self.wrong(self.at.saturating_sub(1)..self.at, kind, what)
    }

    fn ended(&self, what: &str) -> Wrong {
        let end = self.all.len();
        let text = format!("{what} is expected, and the payload ends");
        self.wrong(end..end, DecodeErrorKind::Truncated, text)
    }

    /// A length and that many bytes.
    pub(super) fn bytes(&mut self, what: &str) -> Result<&'a [u8], Wrong> {
        let start = self.at;
        let declared = self.number(&format!("the length of {what}"))?;
        let left = self.rest().len();
        let found = usize::try_from(declared).ok().and_then(|n| self.rest().get(..n));
        let Some(found) = found else {
            let text = format!("{what} is {declared} bytes long, and {left} are left");
            let kind = DecodeErrorKind::Length { declared, left };
            return Err(self.wrong(start..self.at, kind, text));
        };
        self.at = self.at.saturating_add(found.len());
        Ok(found)
    }

    /// A varint.
    pub(super) fn number(&mut self, what: &str) -> Result<u64, Wrong> {
        if self.is_empty() {
            return Err(self.ended(what));
        }
        match decode_varint(self.rest()) {
            Ok((number, rest)) => {
                self.at = self.all.len().saturating_sub(rest.len());
                Ok(number)
            }
            Err(error) => {
                // An overflow is noticed at the last byte that can belong to it.
                let end = self.at.saturating_add(error.offset).saturating_add(1);
                let text = match error.kind {
                    DecodeErrorKind::Truncated => format!("{what}: the payload ends inside it"),
                    _ => format!("{what}: a varint above 64 bits"),
                };
                Err(self.wrong(self.at..end, error.kind, text))
            }
        }
    }

    /// A value. `lenient` where HAProxy takes reserved types as NULL: outside of a NOTIFY.
    pub(super) fn value(&mut self, lenient: bool) -> Result<Value<'a>, Wrong> {
        let start = self.at;
        let tag = self.byte("a type of value")?;
        let (kind, flags) = (tag & 0x0f, tag >> 4);
        if flags > u8::from(kind == 1)
            && let Some(what) = odd_flags(kind, flags)
        {
            self.passed.push(Wrong { what, mark: start..self.at, kind: None });
        }
        match kind {
            0 | 1 => {}
            2 => drop(self.number("an int32")?),
            3 => drop(self.number("a uint32")?),
            4 => drop(self.number("an int64")?),
            5 => drop(self.number("a uint64")?),
            6 => self.fixed(4, "an ipv4 address")?,
            7 => self.fixed(16, "an ipv6 address")?,
            8 => drop(self.bytes("a string")?),
            9 => drop(self.bytes("a binary")?),
            reserved => {
                let what = format!("value of type {reserved}, which SPOP does not define");
                let kind = DecodeErrorKind::ReservedType(reserved);
                let wrong = self.wrong(start..self.at, kind, what);
                if !lenient {
                    return Err(wrong);
                }
                self.passed.push(Wrong { kind: None, ..wrong });
                return Ok(Value::Null);
            }
        }
        let encoded = self.all.get(start..self.at).unwrap_or_default();
        // Everything about it was looked at above.
        Value::decode(encoded)
            .map(|(value, _)| value)
            .map_err(|error| self.wrong(start..self.at, error.kind, error.kind.to_string()))
    }

    fn fixed(&mut self, bytes: usize, what: &str) -> Result<(), Wrong> {
        let left = self.rest().len();
        if left < bytes {
            let text = format!("{what} is {bytes} bytes long, and {left} are left");
            let end = self.all.len();
            return Err(self.wrong(self.at..end, DecodeErrorKind::Truncated, text));
        }
        self.at = self.at.saturating_add(bytes);
        Ok(())
    }
}

/// The high half of a type byte says true or false, and nothing else.
fn odd_flags(kind: u8, flags: u8) -> Option<String> {
    match kind {
        1 => Some(format!("bool with flags {flags}: 1 is true, 0 is false; HAProxy reads false")),
        8 => Some(format!("string with flags {flags}: it has none; HAProxy takes it as a binary")),
        0..=9 => Some(format!("type {kind} with flags {flags}: only a bool has one")),
        // What is wrong there is the type.
        _ => None,
    }
}
