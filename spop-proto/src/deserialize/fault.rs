//! What serde has to say, on its way to an [`ArgError`].

use core::fmt;

use serde::de::{Error, Expected, Unexpected, Visitor};

use crate::request::{ArgError, found, text};
use crate::shown::list;
use crate::wire::{Message, Value};

/// Small, because it is in the result of every step; made only when something is wrong.
pub(super) struct Fault(Box<Inner>);

struct Inner {
    kind: Kind,
    /// The argument, and what it is; unless it is the message as a whole.
    at: Option<At>,
}

struct At {
    arg: Box<str>,
    found: Box<str>,
    null: bool,
}

enum Kind {
    Expected(Box<str>),
    Missing(&'static str),
    MissingAt(usize),
    Unknown { arg: Box<str>, known: Box<str> },
    Repeated(&'static str),
    Other(Box<str>),
}

impl Fault {
    #[cold]
    fn new(kind: Kind) -> Self {
        Self(Box::new(Inner { kind, at: None }))
    }

    pub(super) fn expected(what: &str) -> Self {
        Self::new(Kind::Expected(what.into()))
    }

    /// What the visitor wanted instead.
    pub(super) fn of_visitor<'a>(visitor: &impl Visitor<'a>) -> Self {
        let expected: &dyn Expected = visitor;
        Self::new(Kind::Expected(in_our_words(expected.to_string())))
    }

    pub(super) fn one_of(words: &[&str]) -> Self {
        Self::new(Kind::Expected(choice(words)))
    }

    /// It is about that argument.
    pub(super) fn at(mut self, name: &[u8], value: Value<'_>) -> Self {
        self.0.at = Some(At { arg: text(name), found: found(value), null: value.is_null() });
        self
    }

    pub(super) fn at_position(self, number: usize, name: &[u8], value: Value<'_>) -> Self {
        if name.is_empty() {
            self.at(format!("number {number}").as_bytes(), value)
        } else {
            self.at(name, value)
        }
    }

    pub(super) fn missing_at(mut self, number: usize) -> Self {
        self.0.kind = Kind::MissingAt(number);
        self
    }

    #[cold]
    pub(super) fn of(self, message: &Message<'_>) -> ArgError {
        let Inner { kind, at } = *self.0;
        let sent = || list(message.args().map(|arg| arg.name));
        let name = text(message.name());
        match (kind, at) {
            (Kind::Missing(arg), _) => ArgError::missing(message, arg),
            (Kind::MissingAt(number), _) => {
                ArgError::MissingAt { message: name, number, sent: sent() }
            }
            (Kind::Unknown { arg, known }, _) => ArgError::Unknown { message: name, arg, known },
            (Kind::Repeated(arg), _) => ArgError::Repeated { message: name, arg: arg.into() },
            (Kind::Expected(expected), Some(At { arg, null: true, .. })) => {
                ArgError::Null { message: name, arg, expected }
            }
            (Kind::Expected(expected), Some(At { arg, found, .. })) => {
                ArgError::Mismatch { message: name, arg, found, expected }
            }
            (Kind::Other(reason), Some(At { arg, found, .. })) => {
                ArgError::Invalid { message: name, arg, found, reason }
            }
            (Kind::Other(reason), None) => ArgError::Refused { message: name, reason },
            (Kind::Expected(expected), None) => {
                let reason = format!("its arguments make no {expected}").into();
                ArgError::Refused { message: name, reason }
            }
        }
    }
}

/// serde says what kind of text it wanted, a user what kind of value.
fn in_our_words(expected: String) -> Box<str> {
    match expected.as_str() {
        "IP address" => "an IP address".into(),
        "IPv4 address" => "an IPv4 address".into(),
        "IPv6 address" => "an IPv6 address".into(),
        "a borrowed string" => "a string".into(),
        _ => expected.into(),
    }
}

fn choice(words: &[&str]) -> Box<str> {
    format!("one of {}", words.join(", ")).into()
}

impl Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(Kind::Other(text.to_string().into()))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Kind::Expected(in_our_words(expected.to_string())))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Kind::Expected(in_our_words(expected.to_string())))
    }

    fn unknown_variant(_: &str, words: &'static [&'static str]) -> Self {
        Self::one_of(words)
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let arg = text(field.as_bytes());
        Self::new(Kind::Unknown { arg, known: list(known.iter().map(|name| name.as_bytes())) })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Kind::Missing(field))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(Kind::Repeated(field))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            Kind::Expected(what) => write!(f, "expected {what}"),
            Kind::Missing(arg) => write!(f, "argument {arg} is missing"),
            Kind::MissingAt(number) => write!(f, "argument number {number} is missing"),
            Kind::Unknown { arg, .. } => write!(f, "argument {arg} is not known"),
            Kind::Repeated(arg) => write!(f, "argument {arg} is there more than once"),
            Kind::Other(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for Fault {}
