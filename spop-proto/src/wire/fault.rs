//! Errors of the decoders, and the shape nom's parsers have here.

use nom::error::{ErrorKind, ParseError};
use thiserror::Error;

/// Bytes that do not decode: what was wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[error("{kind} at byte {offset}")]
pub struct DecodeError {
    /// What was wrong.
    pub kind: DecodeErrorKind,
    /// Where, counted from the first byte the decoder was given.
    pub offset: usize,
}

/// What can be wrong with encoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end inside an item.
    #[error("the bytes end inside an item")]
    Truncated,
    /// A string or binary value is longer than what is left of the frame.
    #[error("length {declared} with {left} bytes left")]
    Length {
        /// The length that was declared.
        declared: u64,
        /// How many bytes follow.
        left: usize,
    },
    /// A varint of more than ten bytes, or above 2^64 - 1.
    #[error("varint above 64 bits")]
    VarintOverflow,
    /// A data type that SPOP does not define (10 to 15).
    #[error("reserved data type {0}")]
    ReservedType(u8),
    /// A key of length zero in a HELLO or DISCONNECT.
    #[error("empty key")]
    EmptyKey,
    /// A known key with a value of another type than the protocol wants.
    #[error("key `{key}` wants {expected}, got {found}")]
    KeyType {
        /// The key.
        key: &'static str,
        /// The type it wants.
        expected: &'static str,
        /// The type that was found.
        found: &'static str,
    },
    /// An action that is neither set-var (1) nor unset-var (2).
    #[error("unknown action {0}")]
    UnknownAction(u8),
    /// An action with a number of arguments that is not its own (3 for set-var, 2 for unset-var).
    #[error("action with {found} arguments instead of {expected}")]
    ActionArgs {
        /// How many it takes.
        expected: u8,
        /// How many were announced.
        found: u8,
    },
    /// A scope above 4.
    #[error("unknown scope {0}")]
    UnknownScope(u8),
}

/// nom's error for this crate. It keeps the length of what was left instead of the input itself, so
/// it borrows nothing and the offset is one subtraction for whoever has the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    kind: DecodeErrorKind,
    left: usize,
}

pub(super) type Parsed<'a, T> = nom::IResult<&'a [u8], T, Fault>;

impl<'a> ParseError<&'a [u8]> for Fault {
    /// The only nom parsers used are of fixed width, and those fail for one reason.
    fn from_error_kind(input: &'a [u8], _: ErrorKind) -> Self {
        Self { kind: DecodeErrorKind::Truncated, left: input.len() }
    }

    fn append(_: &'a [u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// A failure at `at`, the rest of the input where the fault lies.
#[cold]
pub(super) fn fault<T>(at: &[u8], kind: DecodeErrorKind) -> Parsed<'_, T> {
    Err(nom::Err::Error(Fault { kind, left: at.len() }))
}

/// Turns a parser's error into the public one; `whole` is what the parser was given.
#[cold]
pub(super) fn decode_error(whole: &[u8], error: nom::Err<Fault>) -> DecodeError {
    match error {
        nom::Err::Error(f) | nom::Err::Failure(f) => {
            DecodeError { kind: f.kind, offset: whole.len().saturating_sub(f.left) }
        }
        // Only streaming parsers say this, and none is used.
        nom::Err::Incomplete(_) => {
            DecodeError { kind: DecodeErrorKind::Truncated, offset: whole.len() }
        }
    }
}

/// Runs `parser` over all of `input`; an error becomes the public one.
pub(super) fn run<'a, T>(
    input: &'a [u8],
    parser: impl FnOnce(&'a [u8]) -> Parsed<'a, T>,
) -> Result<(T, &'a [u8]), DecodeError> {
    match parser(input) {
        Ok((rest, value)) => Ok((value, rest)),
        Err(error) => Err(decode_error(input, error)),
    }
}
