//! What a handler is asked: a NOTIFY and its messages.

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::inflight::Ids;
use crate::info::{ConnectionInfo, Peer};
use crate::shown::{self, LISTED, list};
use crate::wire::{Message, Messages, OwnedValue, Value};

/// A NOTIFY, borrowed from the bytes it arrived in. It was checked whole, so nothing in it can
/// fail to decode.
#[derive(Clone, Copy, Debug)]
pub struct Notify<'a> {
    messages: Messages<'a>,
    ids: Ids,
    info: &'a Arc<ConnectionInfo>,
}

impl<'a> Notify<'a> {
    pub(crate) const fn new(
        messages: Messages<'a>,
        ids: Ids,
        info: &'a Arc<ConnectionInfo>,
    ) -> Self {
        Self { messages, ids, info }
    }

    /// The messages, in order.
    #[must_use]
    pub const fn messages(&self) -> Messages<'a> {
        self.messages
    }

    /// The first message of that name; `None` where HAProxy did not send it.
    #[inline]
    #[must_use]
    pub fn message(&self, name: &str) -> Option<Message<'a>> {
        self.messages().named(name.as_bytes())
    }

    /// The first message of that name.
    ///
    /// # Errors
    /// When there is none; the error says which messages there are.
    #[inline]
    pub fn require(&self, name: &str) -> Result<Message<'a>, ArgError> {
        self.message(name).ok_or_else(|| ArgError::no_message(name, self.messages()))
    }

    /// What was asked without what it was asked about, for a log: `check-client-ip(ip, path)`, an argument
    /// without a name as `_`, one message after the other. Names are escaped and cut at 128 bytes; of ten
    /// messages, of 32 arguments in each, the names are told, and how many more there are.
    pub fn names(&self) -> impl fmt::Display + use<'a> {
        Names(self.messages())
    }

    /// HAProxy's stream. Unique on this connection only, and new for each event with HAProxy
    /// >= 3.1: to match events of a request, put `unique-id` into the arguments.
    #[must_use]
    pub const fn stream_id(&self) -> u64 {
        self.ids.stream
    }

    /// The frame within the stream; always 1 with HAProxy >= 3.1.
    #[must_use]
    pub const fn frame_id(&self) -> u64 {
        self.ids.frame
    }

    /// Who asks.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.info.peer()
    }

    /// HAProxy's `engine-id`.
    #[must_use]
    pub fn engine_id(&self) -> Option<&'a [u8]> {
        self.info.engine_id()
    }

    /// What the handshake settled.
    #[must_use]
    pub const fn connection(&self) -> &'a Arc<ConnectionInfo> {
        self.info
    }

    /// The encoded messages.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.messages.payload()
    }

    pub(crate) const fn ids(&self) -> Ids {
        self.ids
    }
}

struct Names<'a>(Messages<'a>);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More than a rule for one event has in practice.
        const ARGS: usize = 32;
        let mut messages = self.0;
        for (nth, message) in messages.by_ref().take(LISTED).enumerate() {
            let before = if nth == 0 { "" } else { " " };
            write!(f, "{before}{}(", shown::name(message.name()))?;
            let mut args = message.args();
            for (nth, arg) in args.by_ref().take(ARGS).enumerate() {
                let before = if nth == 0 { "" } else { ", " };
                match arg.name {
                    b"" => write!(f, "{before}_")?,
                    name => write!(f, "{before}{}", shown::name(name))?,
                }
            }
            match args.count() {
                0 => f.write_str(")")?,
                more => write!(f, " … and {more} more)")?,
            }
        }
        match messages.count() {
            0 => Ok(()),
            more => write!(f, " … and {more} more"),
        }
    }
}

impl<'a> Message<'a> {
    /// The argument of that name as a `T`; of several the first.
    ///
    /// Integers are taken from any of the four integer types and must fit `T`. `Option<T>` is
    /// `None` where the argument is absent or NULL.
    ///
    /// # Errors
    /// When the argument is absent, NULL, of another type or out of range. The error names
    /// message and argument, what was expected, what was found, and what HAProxy did send.
    #[inline]
    pub fn get<T: FromValue<'a>>(&self, name: &str) -> Result<T, ArgError> {
        match self.arg(name) {
            Some(value) => T::from_value(value)
                .map_err(|mismatch| ArgError::mismatch(self, name, value, mismatch)),
            None => T::absent().ok_or_else(|| ArgError::missing(self, name)),
        }
    }
}

/// What can be taken from an argument with [`Message::get`].
pub trait FromValue<'a>: Sized {
    /// Converts a value.
    ///
    /// # Errors
    /// When the value is of another type, or out of range.
    fn from_value(value: Value<'a>) -> Result<Self, Mismatch>;

    /// What an absent argument gives; `None` makes it an error.
    #[must_use]
    fn absent() -> Option<Self> {
        None
    }
}

/// What a [`FromValue`] wanted instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by implementors of FromValue")]
pub struct Mismatch {
    /// What would have been right, with its article: `an IP address`.
    pub expected: &'static str,
}

macro_rules! integers {
    ($($type:ty: $expected:literal;)*) => {$(
        impl FromValue<'_> for $type {
            #[inline]
            fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
                let wide = value.as_int().and_then(|wide| Self::try_from(wide).ok());
                wide.ok_or(Mismatch { expected: $expected })
            }
        }
    )*};
}

integers! {
    i8: "an integer that fits i8 (-128 to 127)";
    i16: "an integer that fits i16 (-32768 to 32767)";
    i32: "an integer that fits i32 (-2147483648 to 2147483647)";
    i64: "an integer that fits i64";
    i128: "an integer";
    isize: "an integer that fits isize";
    u8: "an integer that fits u8 (0 to 255)";
    u16: "an integer that fits u16 (0 to 65535)";
    u32: "an integer that fits u32 (0 to 4294967295)";
    u64: "an integer that fits u64 (0 and above)";
    u128: "an integer of 0 and above";
    usize: "an integer that fits usize (0 and above)";
}

macro_rules! leaves {
    ($($type:ty, $expected:literal, $pattern:pat => $value:expr;)*) => {$(
        impl<'a> FromValue<'a> for $type {
            #[inline]
            fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
                match value {
                    $pattern => Ok($value),
                    _ => Err(Mismatch { expected: $expected }),
                }
            }
        }
    )*};
}

leaves! {
    bool, "a boolean (in HAProxy: `bool(true)` or a converter such as `,bool`)", Value::Bool(v) => v;
    Ipv4Addr, "an IPv4 address", Value::Ipv4(v) => v;
    Ipv6Addr, "an IPv6 address", Value::Ipv6(v) => v;
    &'a [u8], "a string or binary value", Value::Str(v) | Value::Bin(v) => v;
    Vec<u8>, "a string or binary value", Value::Str(v) | Value::Bin(v) => v.to_vec();
    Box<[u8]>, "a string or binary value", Value::Str(v) | Value::Bin(v) => v.into();
    Bytes, "a string or binary value", Value::Str(v) | Value::Bin(v) => Bytes::copy_from_slice(v);
}

impl FromValue<'_> for IpAddr {
    #[inline]
    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        value.as_ip().ok_or(Mismatch { expected: "an IP address" })
    }
}

impl<'a> FromValue<'a> for &'a str {
    #[inline]
    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        let text = value.as_str().and_then(Result::ok);
        text.ok_or(Mismatch { expected: "a string of UTF-8 (take `&[u8]` for any bytes)" })
    }
}

impl<'a> FromValue<'a> for String {
    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        <&str>::from_value(value).map(Self::from)
    }
}

impl<'a> FromValue<'a> for Box<str> {
    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        <&str>::from_value(value).map(Self::from)
    }
}

impl<'a> FromValue<'a> for Arc<str> {
    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        <&str>::from_value(value).map(Self::from)
    }
}

impl<'a> FromValue<'a> for Value<'a> {
    fn from_value(value: Self) -> Result<Self, Mismatch> {
        Ok(value)
    }
}

impl FromValue<'_> for OwnedValue {
    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        Ok(value.to_owned())
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    #[inline]
    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        if value.is_null() { Ok(None) } else { T::from_value(value).map(Some) }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// A message or an argument that is not there, or not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ArgError {
    /// HAProxy did not send the message.
    #[error("HAProxy sent no message {message}; it sent {sent}")]
    NoMessage {
        /// The message asked for.
        message: Box<str>,
        /// Names of the messages there are.
        sent: Box<str>,
    },
    /// HAProxy did not send the argument.
    #[error(
        "message {message}: argument {arg} is missing; HAProxy sent {sent}. In the spoe-message \
         section: args {arg}=…"
    )]
    Missing {
        /// The message.
        message: Box<str>,
        /// The argument asked for.
        arg: Box<str>,
        /// Names of the arguments there are.
        sent: Box<str>,
    },
    /// The argument is NULL.
    #[error(
        "message {message}: argument {arg} is NULL (HAProxy's fetch gave nothing), expected \
         {expected}; take an Option if that may happen"
    )]
    Null {
        /// The message.
        message: Box<str>,
        /// The argument.
        arg: Box<str>,
        /// What was asked for.
        expected: Box<str>,
    },
    /// The argument was never anything but NULL
    /// ([`Router::on_mismatch`](crate::Router::on_mismatch)).
    #[error(
        "message {message}: argument {arg} was NULL in each of the first {times} messages: its fetch \
         gives nothing where the message is sent (a variable that only later rules set, `unique-id` \
         without `unique-id-format`, a body that is not waited for); spop-lint finds these"
    )]
    AlwaysNull {
        /// The message.
        message: Box<str>,
        /// The argument.
        arg: Box<str>,
        /// How many messages were looked at.
        times: u32,
    },
    /// The argument is something else.
    #[error("message {message}: argument {arg} is {found}, expected {expected}")]
    Mismatch {
        /// The message.
        message: Box<str>,
        /// The argument.
        arg: Box<str>,
        /// Its type; for integers its value too.
        found: Box<str>,
        /// What was asked for.
        expected: Box<str>,
    },
    /// The argument at that position is missing.
    #[error("message {message}: argument number {number} is missing; HAProxy sent {sent}")]
    MissingAt {
        /// The message.
        message: Box<str>,
        /// Its position, from 1.
        number: usize,
        /// Names of the arguments there are.
        sent: Box<str>,
    },
    /// The argument is of the right type, and what it says is not taken.
    #[error("message {message}: argument {arg} is {found}: {reason}")]
    Invalid {
        /// The message.
        message: Box<str>,
        /// The argument.
        arg: Box<str>,
        /// Its type; for integers its value too.
        found: Box<str>,
        /// What is wrong with it.
        reason: Box<str>,
    },
    /// HAProxy sent an argument that a type with `deny_unknown_fields` does not have.
    #[error(
        "message {message}: argument {arg} is not known, only {known}; remove {arg}=… from args in \
         the spoe-message section"
    )]
    Unknown {
        /// The message.
        message: Box<str>,
        /// The argument.
        arg: Box<str>,
        /// Names of the arguments that are known.
        known: Box<str>,
    },
    /// HAProxy sent the argument twice.
    #[error(
        "message {message}: argument {arg} is there more than once; in the spoe-message section \
         give it once"
    )]
    Repeated {
        /// The message.
        message: Box<str>,
        /// The argument.
        arg: Box<str>,
    },
    /// The message as a whole is not taken.
    #[error("message {message}: {reason}")]
    Refused {
        /// The message.
        message: Box<str>,
        /// What is wrong with it.
        reason: Box<str>,
    },
}

impl ArgError {
    #[cold]
    pub(crate) fn no_message(name: &str, messages: Messages<'_>) -> Self {
        let sent = list(messages.map(|message| message.name()));
        Self::NoMessage { message: name.into(), sent }
    }

    #[cold]
    pub(crate) fn missing(message: &Message<'_>, arg: &str) -> Self {
        let sent = list(message.args().map(|arg| arg.name));
        Self::Missing { message: text(message.name()), arg: arg.into(), sent }
    }

    #[cold]
    fn mismatch(message: &Message<'_>, arg: &str, value: Value<'_>, wanted: Mismatch) -> Self {
        let (message, arg) = (text(message.name()), arg.into());
        let expected = wanted.expected.into();
        if value.is_null() {
            return Self::Null { message, arg, expected };
        }
        Self::Mismatch { message, arg, found: found(value), expected }
    }
}

/// A number helps whoever reads the log; a string may be anything, and long, and private.
pub(crate) fn found(value: Value<'_>) -> Box<str> {
    match value.as_int() {
        Some(number) => format!("{} {number}", value.kind()).into(),
        None => value.kind().into(),
    }
}

pub(crate) fn text(name: &[u8]) -> Box<str> {
    shown::name(name).to_box()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NotifyPayload;

    fn with_message<T>(check: impl FnOnce(Message<'_>) -> T) -> T {
        let payload = NotifyPayload::new("check-client-ip")
            .arg("ip", Ipv4Addr::LOCALHOST)
            .arg("port", 70_000_i64)
            .arg("", "x")
            .arg("path", &b"/\xff"[..])
            .arg("host", "example")
            .arg("none", Value::Null)
            .arg("ssl", true);
        check(Messages::check(payload.as_bytes().unwrap()).unwrap().next().unwrap())
    }

    #[test]
    fn leaf_types() {
        with_message(|m| {
            assert_eq!(m.get::<IpAddr>("ip"), Ok(IpAddr::from([127, 0, 0, 1])));
            assert_eq!(m.get::<Ipv4Addr>("ip"), Ok(Ipv4Addr::LOCALHOST));
            assert_eq!(m.get::<u32>("port"), Ok(70_000));
            assert_eq!(m.get::<i128>("port"), Ok(70_000));
            assert_eq!(m.get::<&[u8]>("path"), Ok(&b"/\xff"[..]));
            assert_eq!(m.get::<&[u8]>("host"), Ok(&b"example"[..]));
            assert_eq!(m.get::<&str>("host"), Ok("example"));
            assert_eq!(m.get::<String>("host"), Ok("example".to_owned()));
            assert_eq!(m.get::<Box<str>>("host"), Ok("example".into()));
            assert_eq!(m.get::<Arc<str>>("host"), Ok("example".into()));
            assert_eq!(m.get::<Vec<u8>>("path"), Ok(b"/\xff".to_vec()));
            assert_eq!(m.get::<Box<[u8]>>("path"), Ok(b"/\xff"[..].into()));
            assert!(m.get::<Box<str>>("path").is_err(), "not UTF-8");
            assert_eq!(m.get::<bool>("ssl"), Ok(true));
            assert_eq!(m.get::<Value<'_>>("none"), Ok(Value::Null));
            assert_eq!(m.get::<Option<u8>>("none"), Ok(None));
            assert_eq!(m.get::<Option<u8>>("absent"), Ok(None));
            assert_eq!(m.get::<Option<u32>>("port"), Ok(Some(70_000)));
        });
    }

    #[test]
    fn errors_say_what_to_change() {
        with_message(|m| {
            let text = |error: ArgError| error.to_string();
            assert_eq!(
                text(m.get::<u16>("port").unwrap_err()),
                "message check-client-ip: argument port is int64 70000, expected an integer that \
                 fits u16 (0 to 65535)"
            );
            assert_eq!(
                text(m.get::<IpAddr>("none").unwrap_err()),
                "message check-client-ip: argument none is NULL (HAProxy's fetch gave nothing), \
                 expected an IP address; take an Option if that may happen"
            );
            assert_eq!(
                text(m.get::<IpAddr>("src").unwrap_err()),
                "message check-client-ip: argument src is missing; HAProxy sent ip, port, \
                 (unnamed), path, host, none, ssl. In the spoe-message section: args src=…"
            );
            assert_eq!(
                text(m.get::<IpAddr>("host").unwrap_err()),
                "message check-client-ip: argument host is str, expected an IP address"
            );
            assert_eq!(
                text(m.get::<bool>("port").unwrap_err()),
                "message check-client-ip: argument port is int64 70000, expected a boolean (in \
                 HAProxy: `bool(true)` or a converter such as `,bool`)"
            );
            assert!(m.get::<Option<u16>>("port").is_err(), "an Option hides no wrong value");
            assert!(m.get::<&str>("path").is_err());
        });
    }

    /// Ten names of 100 kB are a text of ten lines, and those of an error are not read to the end.
    #[test]
    fn names_of_a_peer_make_no_long_texts() {
        let long = "\u{1}".repeat(100_000);
        let mut payload = NotifyPayload::new(&long);
        for _ in 0..60 {
            payload = payload.arg(&long[..10_000], Value::Null);
        }
        for _ in 0..30 {
            payload = payload.message(&long[..1_000]);
        }
        let info = Arc::new(ConnectionInfo::default());
        let messages = Messages::check(payload.as_bytes().unwrap()).unwrap();
        let notify = Notify::new(messages, Ids { stream: 0, frame: 1 }, &info);
        // Each byte is four in the text.
        let name = 128 * 4 + "...".len();

        let error = notify.require("m").unwrap_err().to_string();
        assert!(error.ends_with("... … and 21 more"), "{error}");
        assert!(error.len() < 10 * (name + 2) + 100, "{}", error.len());
        let error = notify.messages().next().unwrap().get::<bool>("a").unwrap_err().to_string();
        assert!(error.contains(" … and 50 more. In the spoe-message section"), "{error}");
        assert!(error.len() < 11 * (name + 2) + 200, "{}", error.len());
        let first = notify.messages().next().unwrap();
        assert!(first.args().next().is_some());
        let names = notify.names().to_string();
        assert!(
            names.contains(" … and 28 more) ") && names.ends_with("() … and 21 more"),
            "{names}"
        );
        assert!(names.len() < 42 * (name + 4) + 100, "{}", names.len());
    }

    #[test]
    fn a_missing_message_is_told_with_those_sent() {
        let payload = NotifyPayload::new("a").message("b");
        let info = Arc::new(ConnectionInfo::default());
        let notify = Notify::new(
            Messages::checked(payload.as_bytes().unwrap()),
            Ids { stream: 0, frame: 1 },
            &info,
        );
        assert_eq!(
            notify.require("c").unwrap_err().to_string(),
            "HAProxy sent no message c; it sent a, b"
        );
        assert_eq!(notify.require("b").unwrap().name(), b"b");
    }
}
