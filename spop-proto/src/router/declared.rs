//! What a route says about its arguments.

use core::fmt;

use crate::wire::Value;

/// An argument that a route takes, as far as it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Declared {
    /// The name.
    pub name: Box<str>,
    /// HAProxy's sample fetch, where one was named: the `src` of `ip=src`.
    pub fetch: Option<Box<str>>,
    /// What kind of value.
    pub kind: Kind,
    /// Whether it may be absent or NULL.
    pub optional: bool,
}

/// What kind of value an argument is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Not said, or any.
    #[default]
    Any,
    /// A boolean.
    Bool,
    /// An integer.
    Integer,
    /// An IPv4 or IPv6 address.
    Address,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A string.
    Text,
    /// A string or binary data.
    Bytes,
    /// One of these strings.
    OneOf(&'static [&'static str]),
}

impl Kind {
    /// One word for it, in HAProxy's terms.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Bool => "bool",
            Self::Integer => "int",
            Self::Address => "ip",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Text | Self::OneOf(_) => "str",
            Self::Bytes => "bytes",
        }
    }

    pub(super) fn of_word(word: &str) -> Option<Self> {
        const ALL: [Kind; 8] = [
            Kind::Any,
            Kind::Bool,
            Kind::Integer,
            Kind::Address,
            Kind::Ipv4,
            Kind::Ipv6,
            Kind::Text,
            Kind::Bytes,
        ];
        ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Whether a value of HAProxy can be taken as that.
    pub(super) fn takes(self, value: &Value<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Bool => matches!(value, Value::Bool(_)),
            Self::Integer => value.as_int().is_some(),
            Self::Address => value.as_ip().is_some(),
            Self::Ipv4 => matches!(value, Value::Ipv4(_)),
            Self::Ipv6 => matches!(value, Value::Ipv6(_)),
            // A type that reads itself from text may take an address that way.
            Self::Text | Self::OneOf(_) => value.as_str().is_some() || value.as_ip().is_some(),
            Self::Bytes => value.as_bytes().is_some(),
        }
    }
}

impl Declared {
    /// `name=fetch`, or `name` alone; `name?` may be missing.
    pub(super) fn parse(arg: &str) -> Self {
        let (name, fetch) = match arg.split_once('=') {
            Some((name, fetch)) => (name, Some(fetch.into())),
            None => (arg, None),
        };
        let (name, optional) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
        Self { name: name.into(), fetch, kind: Kind::Any, optional }
    }
}

/// Adds what is said of an argument to what was said before.
pub(super) fn add(list: &mut Vec<Declared>, arg: Declared) {
    match list.iter_mut().find(|known| known.name == arg.name) {
        None => list.push(arg),
        Some(known) => {
            known.fetch = arg.fetch.or_else(|| known.fetch.take());
            if arg.kind != Kind::Any {
                known.kind = arg.kind;
            }
            known.optional |= arg.optional;
        }
    }
}

/// `ip=src: an address`, for people.
impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(fetch) = &self.fetch {
            write!(f, "={fetch}")?;
        }
        match self.kind {
            Kind::Any => {}
            kind => write!(f, ": {kind}")?,
        }
        f.write_str(if self.optional { ", optional" } else { "" })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "anything",
            Self::Bool => "a boolean",
            Self::Integer => "an integer",
            Self::Address => "an address",
            Self::Ipv4 => "an IPv4 address",
            Self::Ipv6 => "an IPv6 address",
            Self::Text => "a string",
            Self::Bytes => "bytes",
            Self::OneOf(words) => return write!(f, "one of {}", words.join(", ")),
        })
    }
}
