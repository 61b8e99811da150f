//! NOTIFY: messages and their arguments.

use nom::Parser;
use nom::number::complete::be_u8;
use thiserror::Error;

use super::DecodeError;
use super::fault::{Parsed, decode_error};
use super::scan;
use super::value::{Value, value};
use super::varint::{bytes, encode_bytes};

/// The messages of a NOTIFY, in the order of the `messages` line of HAProxy's configuration.
///
/// The payload was checked whole when this was made, so iterating cannot fail. Names need not be
/// unique, neither those of messages nor those of arguments.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
    /// Whether it is known that there is one message. Whoever checks the payload learns it, and most
    /// have no more.
    is_one: bool,
    /// Whether that one was handed out.
    done: bool,
    /// Arguments of the message handed out last; they lie in front of the next one.
    skip: u8,
}

impl<'a> Messages<'a> {
    /// Checks a payload from its first to its last byte.
    ///
    /// # Errors
    /// When anything in it does not decode.
    pub fn check(payload: &'a [u8]) -> Result<Self, DecodeError> {
        match Self::well_formed(payload) {
            Some(messages) => Ok(messages),
            None => diagnose(payload).map(|()| Self::checked(payload)),
        }
    }

    /// The same without a reason.
    #[inline(always)]
    pub(crate) fn well_formed(payload: &'a [u8]) -> Option<Self> {
        Some(Self { rest: payload, is_one: is_one(payload)?, done: false, skip: 0 })
    }

    /// For a payload that [`check`](Self::check) accepted before.
    pub(crate) const fn checked(payload: &'a [u8]) -> Self {
        Self { rest: payload, is_one: false, done: false, skip: 0 }
    }

    /// The payload, where no message was handed out yet.
    pub(crate) const fn payload(self) -> &'a [u8] {
        self.rest
    }

    /// The first message of that name.
    #[inline]
    #[must_use]
    pub fn named(self, name: &[u8]) -> Option<Message<'a>> {
        // The usual case: the first message, at the start.
        if let Some((begin, end)) = scan::name_at::<false>(self.rest, 0)
            && self.skip == 0
            && scan::same(self.rest.get(begin..end)?, name)
        {
            let (&left, rest) = self.rest.get(end..)?.split_first()?;
            return Some(Message { name: self.rest.get(begin..end)?, args: Args { rest, left } });
        }
        self.any_named(name)
    }

    #[inline(never)]
    fn any_named(mut self, name: &[u8]) -> Option<Message<'a>> {
        self.find(|message| message.name == name)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Message<'a>> {
        if self.done || self.rest.is_empty() {
            return None;
        }
        let skip = core::mem::take(&mut self.skip);
        if skip != 0 {
            self.rest = self.rest.get(scan::after_args(self.rest, skip)?..)?;
        }
        let (begin, end) = match scan::name_at::<false>(self.rest, 0) {
            Some(found) => found,
            None => scan::name_at::<true>(self.rest, 0)?,
        };
        let (&count, rest) = self.rest.get(end..)?.split_first()?;
        let name = self.rest.get(begin..end)?;
        (self.rest, self.skip, self.done) = (rest, count, self.is_one);
        Some(Message { name, args: Args { rest, left: count } })
    }
}

impl core::iter::FusedIterator for Messages<'_> {}

/// A message: a name and its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    name: &'a [u8],
    args: Args<'a>,
}

impl<'a> Message<'a> {
    /// The name of the `spoe-message` section.
    #[must_use]
    pub const fn name(&self) -> &'a [u8] {
        self.name
    }

    /// The arguments in the order of the `args` line, repeated and unnamed ones included.
    #[must_use]
    pub const fn args(&self) -> Args<'a> {
        self.args
    }

    /// The value of the first argument of that name; `None` where there is none.
    #[inline]
    #[must_use]
    pub fn arg(&self, name: &str) -> Option<Value<'a>> {
        let Args { rest, left } = self.args;
        let Some(found) = scan::named::<false>(rest, left, name.as_bytes()) else {
            return any_named(rest, left, name.as_bytes());
        };
        let at = found?;
        match scan::value::<false>(rest, at) {
            Some((value, _)) => Some(value),
            None => scan::long_value(rest, at).map(|(value, _)| value),
        }
    }

    /// The value of the argument at that position, from 0.
    #[must_use]
    pub fn arg_at(&self, index: usize) -> Option<Value<'a>> {
        self.args.clone().nth(index).map(|arg| arg.value)
    }
}

/// The arguments of a message, in order.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    rest: &'a [u8],
    left: u8,
}

impl<'a> Iterator for Args<'a> {
    type Item = Arg<'a>;

    #[inline]
    fn next(&mut self) -> Option<Arg<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (arg, end) = match scan_arg::<false>(self.rest) {
            Some(found) => found,
            None => long_arg(self.rest)?,
        };
        self.rest = self.rest.get(end..)?;
        Some(arg)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

/// The argument at the start, and the place behind it. Without `LONG`, `None` as well where only
/// [`long_arg`] can tell.
#[inline(always)]
fn scan_arg<const LONG: bool>(bytes: &[u8]) -> Option<(Arg<'_>, usize)> {
    let (begin, end) = scan::name_at::<LONG>(bytes, 0)?;
    // The type stands behind the name: whoever finds it need not ask whether the name is whole.
    let (value, behind) = scan::value::<LONG>(bytes, end)?;
    Some((Arg { name: bytes.get(begin..end)?, value }, behind))
}

#[inline(never)]
fn long_arg(bytes: &[u8]) -> Option<(Arg<'_>, usize)> {
    scan_arg::<true>(bytes)
}

impl ExactSizeIterator for Args<'_> {}

impl core::iter::FusedIterator for Args<'_> {}

/// An argument: a name, which may be empty, and a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a name and a value, nothing else")]
pub struct Arg<'a> {
    /// The name; empty where the `args` line gives none.
    pub name: &'a [u8],
    /// The value.
    pub value: Value<'a>,
}

/// Whether there is one message; `None` where something is wrong. Not a whole [`Messages`], which would
/// have to be returned in memory.
#[inline(never)]
fn is_one(payload: &[u8]) -> Option<bool> {
    well_formed(payload).or_else(|| any_well_formed(payload))
}

/// The same, and `None` as well where only [`any_well_formed`] can tell.
#[inline(always)]
fn well_formed(payload: &[u8]) -> Option<bool> {
    let end = scan::after_message::<false>(payload, 0)?;
    if end == payload.len() { Some(true) } else { rest_well_formed(payload, end) }
}

#[inline(never)]
fn any_well_formed(payload: &[u8]) -> Option<bool> {
    let first = scan::after_message::<true>(payload, 0);
    match first {
        Some(end) if end == payload.len() => Some(true),
        Some(end) => rest_well_formed(payload, end),
        None => payload.is_empty().then_some(false),
    }
}

/// The messages behind the first.
#[inline(never)]
fn rest_well_formed(payload: &[u8], mut at: usize) -> Option<bool> {
    while at < payload.len() {
        at = scan::after_message::<true>(payload, at)?;
    }
    (at == payload.len()).then_some(false)
}

#[inline(never)]
fn any_named<'a>(args: &'a [u8], count: u8, name: &[u8]) -> Option<Value<'a>> {
    let at = scan::named::<true>(args, count, name)??;
    scan::long_value(args, at).map(|(value, _)| value)
}

/// Where a payload that is not well formed is not, and why.
#[cold]
fn diagnose(payload: &[u8]) -> Result<(), DecodeError> {
    parse(payload).map_err(|error| decode_error(payload, error))
}

fn parse(payload: &[u8]) -> Result<(), nom::Err<super::fault::Fault>> {
    let mut rest = payload;
    while !rest.is_empty() {
        let (mut args, (_, count)) = message(rest)?;
        for _ in 0..count {
            args = arg(args)?.0;
        }
        rest = args;
    }
    Ok(())
}

/// A message's name and the number of its arguments: one raw byte, not a varint.
fn message(input: &[u8]) -> Parsed<'_, (&[u8], u8)> {
    (bytes, be_u8).parse_complete(input)
}

fn arg(input: &[u8]) -> Parsed<'_, Arg<'_>> {
    let (rest, name) = bytes(input)?;
    let (rest, value) = value(rest)?;
    Ok((rest, Arg { name, value }))
}

/// A message with more than 255 arguments: their number is one byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[error("a message has more than 255 arguments, the most that its one-byte count can say")]
pub struct TooManyArgs;

/// The payload of a NOTIFY being built: HAProxy's side of the work.
///
/// ```
/// use spop_proto::wire::NotifyPayload;
///
/// let payload = NotifyPayload::new("check-client-ip")
///     .arg("ip", std::net::Ipv4Addr::LOCALHOST)
///     .arg("", "an argument without a name");
/// assert_eq!(payload.as_bytes()?.len(), 54);
/// # Ok::<(), spop_proto::wire::TooManyArgs>(())
/// ```
#[derive(Clone, Debug)]
pub struct NotifyPayload {
    bytes: Vec<u8>,
    /// Where the number of arguments of the last message stands.
    count_at: usize,
    too_many: bool,
}

impl NotifyPayload {
    /// A payload whose first message has that name.
    #[must_use]
    pub fn new(message: impl AsRef<[u8]>) -> Self {
        Self { bytes: Vec::new(), count_at: 0, too_many: false }.message(message)
    }

    /// Begins a further message.
    #[must_use]
    pub fn message(mut self, name: impl AsRef<[u8]>) -> Self {
        encode_bytes(name.as_ref(), &mut self.bytes);
        self.count_at = self.bytes.len();
        self.bytes.push(0);
        self
    }

    /// Adds an argument to the message begun last.
    #[must_use]
    pub fn arg<'v>(mut self, name: impl AsRef<[u8]>, value: impl Into<Value<'v>>) -> Self {
        match self.bytes.get_mut(self.count_at) {
            Some(count) if *count < u8::MAX => {
                *count = count.saturating_add(1);
                encode_bytes(name.as_ref(), &mut self.bytes);
                value.into().encode(&mut self.bytes);
            }
            _ => self.too_many = true,
        }
        self
    }

    /// The encoded messages.
    ///
    /// # Errors
    /// When a message was given more than 255 arguments.
    pub fn as_bytes(&self) -> Result<&[u8], TooManyArgs> {
        if self.too_many { Err(TooManyArgs) } else { Ok(&self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::DecodeErrorKind;

    /// Two messages: `m1` with an argument, one without a name and a repeated one; `m2` with none.
    const PAYLOAD: &[u8] =
        b"\x02m1\x03\x01a\x04\x07\x00\x06\x7f\x00\x00\x01\x01a\x08\x01x\x02m2\x00";

    #[test]
    fn order_duplicates_and_unnamed_arguments() {
        let messages = Messages::check(PAYLOAD).unwrap();
        let names: Vec<_> = messages.map(|m| m.name()).collect();
        assert_eq!(names, [b"m1", b"m2"]);
        let first = messages.named(b"m1").unwrap();
        let args: Vec<_> = first.args().map(|arg| (arg.name, arg.value)).collect();
        assert_eq!(
            args,
            [
                (&b"a"[..], Value::Int64(7)),
                (b"", Value::Ipv4([127, 0, 0, 1].into())),
                (b"a", Value::Str(b"x")),
            ]
        );
        assert_eq!(first.arg("a"), Some(Value::Int64(7)));
        assert_eq!(first.arg("b"), None);
        assert_eq!(first.arg_at(2), Some(Value::Str(b"x")));
        assert_eq!(first.arg_at(3), None);
        assert_eq!(messages.named(b"m2").unwrap().args().len(), 0);
        assert!(messages.named(b"m3").is_none());
    }

    /// Whether or not it is known how many there are, and whatever lies behind the last one's name.
    #[test]
    fn there_are_no_more_messages_after_the_last() {
        for payload in
            [PAYLOAD, b"\x01a\x00\x01b\x01\x01x\x08\x01y", b"\x01b\x01\x01x\x08\x01y", b"\x01a\x00"]
        {
            for mut messages in [Messages::check(payload).unwrap(), Messages::checked(payload)] {
                while messages.next().is_some() {}
                assert!(messages.next().is_none() && messages.next().is_none(), "{payload:?}");
                assert!(messages.named(b"").is_none() && messages.named(b"x").is_none());
            }
        }
    }

    #[test]
    fn built_as_haproxy_builds_it() {
        let payload = NotifyPayload::new("m1")
            .arg("a", 7_i64)
            .arg("", std::net::Ipv4Addr::LOCALHOST)
            .arg("a", "x")
            .message("m2");
        assert_eq!(payload.as_bytes(), Ok(PAYLOAD));
    }

    #[test]
    fn every_cut_is_found_and_located() {
        for cut in 1..PAYLOAD.len() {
            // Cut between the messages the payload is whole.
            let result = Messages::check(&PAYLOAD[..cut]);
            assert_eq!(result.is_ok(), cut == PAYLOAD.len() - 4, "cut at {cut}");
        }
        let error = Messages::check(b"\x01m\x01\x01a\x08\x05xy").unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::Length { declared: 5, left: 2 });
        assert_eq!(error.offset, 6);
    }

    #[test]
    fn the_argument_count_is_a_raw_byte() {
        let mut payload = NotifyPayload::new("m");
        for _ in 0..255 {
            payload = payload.arg("a", 1);
        }
        let bytes = payload.as_bytes().unwrap();
        assert_eq!(bytes[2], 255);
        assert_eq!(Messages::check(bytes).unwrap().next().unwrap().args().len(), 255);
        assert_eq!(payload.arg("a", 1).as_bytes(), Err(TooManyArgs));
    }

    #[test]
    fn an_empty_payload_has_no_messages() {
        assert_eq!(Messages::check(b"").unwrap().count(), 0);
    }

    use proptest::prelude::*;

    /// Bytes that mostly are a payload: names, counts and values at their places, some of them wrong.
    fn payloads() -> impl Strategy<Value = Vec<u8>> {
        let counted = (0_usize..300).prop_map(|length| {
            let mut out = Vec::new();
            encode_bytes(&vec![b'n'; length], &mut out);
            out
        });
        let piece = prop_oneof![
            4 => counted,
            4 => (0_u8..4).prop_map(|count| vec![count]),
            2 => prop::collection::vec(any::<u8>(), 0..20),
            4 => (0_u8..16, any::<u64>()).prop_map(|(tag, bits)| {
                let mut out = vec![tag];
                crate::wire::varint::encode_varint(bits >> (bits % 64), &mut out);
                out
            }),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// Built by the encoder, then perhaps cut or with a byte changed.
    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let args = prop::collection::vec((".{0,3}", 0_usize..300, any::<i64>(), 0..7_u8), 0..5);
        (args, any::<u16>(), any::<u8>(), 0..3_u8).prop_map(|(args, at, byte, damage)| {
            let mut payload = NotifyPayload::new("message");
            for (name, length, number, kind) in args {
                let text = "x".repeat(length);
                payload = match kind {
                    0 => payload.arg(name, text.as_str()),
                    1 => payload.arg(name, text.as_bytes()),
                    2 => payload.arg(name, number),
                    3 => payload.arg(name, std::net::Ipv4Addr::LOCALHOST),
                    4 => payload.arg(name, std::net::Ipv6Addr::LOCALHOST),
                    5 => payload.arg(name, Value::Null),
                    _ => payload.arg(name, true).message("another"),
                };
            }
            let mut bytes = payload.as_bytes().unwrap().to_vec();
            let at = usize::from(at) % bytes.len();
            match damage {
                0 => {}
                1 => bytes.truncate(at),
                _ => bytes[at] = byte,
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// The fast look at a payload and the parsers, which know the reasons, are of one opinion.
        #[test]
        fn fast_and_slow_agree(payload in prop_oneof![payloads(), damaged()]) {
            let parsed = parse(&payload).is_ok();
            prop_assert_eq!(any_well_formed(&payload).is_some(), parsed);
            prop_assert!(parsed || well_formed(&payload).is_none());
            prop_assert_eq!(Messages::well_formed(&payload).is_some(), parsed);
            if parsed {
                // Whether or not it is known where the first one ends.
                let listed = |messages: Messages<'_>| -> Vec<_> {
                    messages.map(|m| (m.name().to_vec(), m.args().len(), m.arg_at(0).map(|v| v.to_owned()))).collect()
                };
                let known = listed(Messages::check(&payload).unwrap());
                prop_assert_eq!(known, listed(Messages::checked(&payload)));
                for found in Messages::checked(&payload) {
                    let (mut rest, all) = (found.args.rest, found.args);
                    for arg_found in all {
                        let (after, parsed) = arg(rest).unwrap();
                        prop_assert_eq!(arg_found, parsed);
                        rest = after;
                    }
                    for wanted in all {
                        let Ok(name) = core::str::from_utf8(wanted.name) else { continue };
                        let first = all.clone().find(|arg| arg.name == wanted.name).unwrap();
                        prop_assert_eq!(found.arg(name), Some(first.value));
                    }
                    prop_assert_eq!(found.arg("no such name"), None);
                }
                let second = Messages::checked(&payload).find(|m| m.name() == b"another");
                let named = Messages::checked(&payload).named(b"another");
                prop_assert_eq!(named.map(|m| m.args().len()), second.map(|m| m.args().len()));
            }
        }
    }
}
