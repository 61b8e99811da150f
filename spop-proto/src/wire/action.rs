//! Actions: what an ACK makes HAProxy do.

use core::fmt;
use core::str::FromStr;

use nom::number::complete::be_u8;
use thiserror::Error;

use super::DecodeError;
use super::fault::{DecodeErrorKind, Parsed, decode_error, fault};
use super::value::{Value, lenient_value};
use super::varint::{bytes, encode_bytes, varint_len};

const SET_VAR: u8 = 1;
const SET_VAR_ARGS: u8 = 3;
const UNSET_VAR: u8 = 2;
const UNSET_VAR_ARGS: u8 = 2;

/// HAProxy drops a variable whose whole name, `scope.prefix.name`, is longer.
pub(crate) const NAME_BYTES_MAX: usize = 63;

/// How long a variable lives in HAProxy.
///
/// A verdict about a request belongs in [`Transaction`](Self::Transaction): a session outlives its
/// requests on a keep-alive connection, and a verdict left in it would stand for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "the protocol defines these five")]
pub enum Scope {
    /// `proc`: the process. HAProxy takes these only for names its configuration knows, unless
    /// `option force-set-var` is set.
    Process = 0,
    /// `sess`: the client's connection.
    Session = 1,
    /// `txn`: a request and its response.
    Transaction = 2,
    /// `req`: the request; dropped by HAProxy when set from a response event.
    Request = 3,
    /// `res`: the response; dropped by HAProxy when set from a request event.
    Response = 4,
}

impl Scope {
    /// All five, in the order of the wire.
    pub const ALL: [Self; 5] =
        [Self::Process, Self::Session, Self::Transaction, Self::Request, Self::Response];

    /// HAProxy's word: `proc`, `sess`, `txn`, `req`, `res`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "proc",
            Self::Session => "sess",
            Self::Transaction => "txn",
            Self::Request => "req",
            Self::Response => "res",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no scope.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[error("`{0}` is no scope: write proc, sess, txn, req or res")]
pub struct ParseScopeError(String);

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(word: &str) -> Result<Self, ParseScopeError> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == word)
            .ok_or_else(|| ParseScopeError(word.to_owned()))
    }
}

/// One thing an ACK asks of HAProxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the protocol defines these two")]
pub enum Action<'a> {
    /// Sets a variable.
    SetVar {
        /// Where it lives.
        scope: Scope,
        /// Its name, without scope and prefix: HAProxy puts both in front.
        name: &'a [u8],
        /// Its value; NULL unsets it.
        value: Value<'a>,
    },
    /// Removes a variable.
    UnsetVar {
        /// Where it lives.
        scope: Scope,
        /// Its name, without scope and prefix.
        name: &'a [u8],
    },
}

impl<'a> Action<'a> {
    /// A `set-var`.
    pub fn set(scope: Scope, name: &'a str, value: impl Into<Value<'a>>) -> Self {
        Self::SetVar { scope, name: name.as_bytes(), value: value.into() }
    }

    /// An `unset-var`.
    #[must_use]
    pub const fn unset(scope: Scope, name: &'a str) -> Self {
        Self::UnsetVar { scope, name: name.as_bytes() }
    }

    /// The scope it names.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        match self {
            Self::SetVar { scope, .. } | Self::UnsetVar { scope, .. } => *scope,
        }
    }

    /// The variable's name, without scope and prefix.
    #[must_use]
    pub const fn name(&self) -> &'a [u8] {
        match self {
            Self::SetVar { name, .. } | Self::UnsetVar { name, .. } => name,
        }
    }

    /// Appends the action to `out`. The name is written as it is.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::SetVar { scope, name, value } => encode_set_var(scope, name, &value, out),
            Self::UnsetVar { scope, name } => encode_unset_var(scope, name, out),
        }
    }

    /// How many bytes [`encode`](Self::encode) writes.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        match self {
            Self::SetVar { name, value, .. } => name_len(name).saturating_add(value.encoded_len()),
            Self::UnsetVar { name, .. } => name_len(name),
        }
    }
}

/// The three bytes in front of a name, its length and itself.
const fn name_len(name: &[u8]) -> usize {
    varint_len(name.len() as u64).saturating_add(name.len()).saturating_add(3)
}

impl fmt::Display for Action<'_> {
    /// In HAProxy's words: `set-var txn.score int32:20`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetVar { scope, name, value } => {
                write!(f, "set-var {scope}.{} {value}", name.escape_ascii())
            }
            Self::UnsetVar { scope, name } => {
                write!(f, "unset-var {scope}.{}", name.escape_ascii())
            }
        }
    }
}

#[inline(always)]
pub(crate) fn encode_set_var(scope: Scope, name: &[u8], value: &Value<'_>, out: &mut Vec<u8>) {
    if let Ok(length @ 0..240) = u8::try_from(name.len()) {
        out.extend_from_slice(&[SET_VAR, SET_VAR_ARGS, scope as u8, length]);
        out.extend_from_slice(name);
    } else {
        out.extend_from_slice(&[SET_VAR, SET_VAR_ARGS, scope as u8]);
        encode_bytes(name, out);
    }
    value.encode(out);
}

#[inline]
pub(crate) fn encode_unset_var(scope: Scope, name: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[UNSET_VAR, UNSET_VAR_ARGS, scope as u8]);
    encode_bytes(name, out);
}

/// The actions of an ACK, decoded as HAProxy does: the first bad one ends the list with an error,
/// and what stood before it counts.
#[derive(Clone, Copy, Debug)]
pub struct Actions<'a> {
    payload: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Actions<'a> {
    /// The actions in the payload of an ACK.
    #[must_use]
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { payload, rest: payload }
    }
}

impl<'a> Iterator for Actions<'a> {
    type Item = Result<Action<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match action(self.rest) {
            Ok((rest, action)) => {
                self.rest = rest;
                Some(Ok(action))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(decode_error(self.payload, error)))
            }
        }
    }
}

fn action(input: &[u8]) -> Parsed<'_, Action<'_>> {
    let (rest, kind) = be_u8(input)?;
    match kind {
        SET_VAR => {
            let (rest, (scope, name)) = variable(rest, SET_VAR_ARGS)?;
            let (rest, value) = lenient_value(rest)?;
            Ok((rest, Action::SetVar { scope, name, value }))
        }
        UNSET_VAR => {
            let (rest, (scope, name)) = variable(rest, UNSET_VAR_ARGS)?;
            Ok((rest, Action::UnsetVar { scope, name }))
        }
        unknown => fault(input, DecodeErrorKind::UnknownAction(unknown)),
    }
}

/// The number of arguments, the scope and the name.
fn variable(input: &[u8], expected: u8) -> Parsed<'_, (Scope, &[u8])> {
    let (at_scope, found) = be_u8(input)?;
    if found != expected {
        return fault(input, DecodeErrorKind::ActionArgs { expected, found });
    }
    let (rest, number) = be_u8(at_scope)?;
    let Some(&scope) = Scope::ALL.get(usize::from(number)) else {
        return fault(at_scope, DecodeErrorKind::UnknownScope(number));
    };
    let (rest, name) = bytes(rest)?;
    Ok((rest, (scope, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn both_ways(action: Action<'_>, encoded: &[u8]) {
        let mut out = Vec::new();
        action.encode(&mut out);
        assert_eq!(out, encoded, "encoding {action}");
        assert_eq!(action.encoded_len(), encoded.len());
        assert_eq!(Actions::new(&out).collect::<Vec<_>>(), [Ok(action)]);
    }

    #[test]
    fn by_hand_in_the_five_scopes() {
        for (number, scope) in Scope::ALL.into_iter().enumerate() {
            let byte = u8::try_from(number).unwrap();
            both_ways(Action::set(scope, "a", "hi"), &[1, 3, byte, 1, b'a', 8, 2, b'h', b'i']);
            both_ways(Action::unset(scope, "a"), &[2, 2, byte, 1, b'a']);
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert_eq!(
            "session".parse::<Scope>().unwrap_err().to_string(),
            "`session` is no scope: write proc, sess, txn, req or res"
        );
    }

    /// Each list sets `a`, then has something bad, then sets `b`: HAProxy sets `a` and no more.
    #[test]
    fn the_first_bad_action_ends_the_list() {
        let good = [1, 3, 2, 1, b'a', 8, 2, b'h', b'i'];
        let last = [1, 3, 2, 1, b'b', 8, 1, b'B'];
        let cases: [(&[u8], DecodeErrorKind, usize); 5] = [
            (&[9], DecodeErrorKind::UnknownAction(9), 0),
            (&[1, 4], DecodeErrorKind::ActionArgs { expected: 3, found: 4 }, 1),
            (&[2, 3], DecodeErrorKind::ActionArgs { expected: 2, found: 3 }, 1),
            (&[1, 3, 5], DecodeErrorKind::UnknownScope(5), 2),
            (&[1, 3, 2, 50], DecodeErrorKind::Length { declared: 50, left: 8 }, 3),
        ];
        for (bad, kind, offset) in cases {
            let payload = [&good[..], bad, &last].concat();
            let found: Vec<_> = Actions::new(&payload).collect();
            assert_eq!(
                found,
                [
                    Ok(Action::set(Scope::Transaction, "a", "hi")),
                    Err(DecodeError { kind, offset: good.len() + offset }),
                ]
            );
        }
    }

    #[test]
    fn a_reserved_type_unsets_and_the_list_goes_on() {
        let payload = [1, 3, 2, 1, b'a', 10, 2, 2, 2, 1, b'b'];
        let found: Vec<_> = Actions::new(&payload).map(Result::unwrap).collect();
        assert_eq!(
            found,
            [
                Action::set(Scope::Transaction, "a", Value::Null),
                Action::unset(Scope::Transaction, "b"),
            ]
        );
    }

    #[test]
    fn in_words() {
        let action = Action::set(Scope::Transaction, "score", -3);
        assert_eq!(action.to_string(), "set-var txn.score int32:-3");
        assert_eq!(Action::unset(Scope::Session, "x").to_string(), "unset-var sess.x");
    }
}
