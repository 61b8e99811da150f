//! Typed data: the ten kinds of value, borrowed and owned.

use core::fmt;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use nom::Parser;
use nom::combinator::map;
use nom::number::complete::{be_u32, be_u128};

use super::DecodeError;
use super::fault::{DecodeErrorKind, Parsed, fault, run};
use super::varint::{bytes, encode_bytes, encode_varint, two_bytes, varint, varint_len};

pub(super) const NULL: u8 = 0;
pub(super) const BOOL: u8 = 1;
pub(super) const INT32: u8 = 2;
pub(super) const UINT32: u8 = 3;
pub(super) const INT64: u8 = 4;
pub(super) const UINT64: u8 = 5;
pub(super) const IPV4: u8 = 6;
pub(super) const IPV6: u8 = 7;
pub(super) const STRING: u8 = 8;
pub(super) const BINARY: u8 = 9;

/// The high nibble of a true boolean; any other nibble reads as false, as in HAProxy.
const TRUE: u8 = 0x10;

/// A value, borrowed from the frame it arrived in.
///
/// HAProxy itself sends NULL (an absent sample), booleans, INT64, addresses, strings and binaries.
/// In an answer it takes all ten; the four integer types mean the same 64 bits to it.
///
/// # Strings are bytes
/// Nothing promises UTF-8: a header or a path is what the client sent.
/// [`as_str`](Self::as_str) says whether it is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the protocol defines these ten and no other")]
pub enum Value<'a> {
    /// No value: the sample was absent. In an answer it unsets the variable.
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed integer of 32 bits.
    Int32(i32),
    /// An unsigned integer of 32 bits.
    Uint32(u32),
    /// A signed integer of 64 bits: what HAProxy sends for every integer.
    Int64(i64),
    /// An unsigned integer of 64 bits. HAProxy reads it as signed: above 2^63 - 1 it is negative there.
    Uint64(u64),
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// A string: bytes, not necessarily UTF-8.
    Str(&'a [u8]),
    /// Binary data.
    Bin(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Decodes the value at the start of `input`; returns it and what follows.
    ///
    /// An INT32 or UINT32 that does not fit its type comes as [`Int64`](Self::Int64) or
    /// [`Uint64`](Self::Uint64): HAProxy checks no range, and the number stays what it was. A
    /// string whose type byte carries a flag is binary, as in HAProxy.
    ///
    /// # Errors
    /// When the bytes end inside the value, a varint exceeds 64 bits, or the type is reserved.
    pub fn decode(input: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        run(input, value)
    }

    /// Appends the value to `out`: type byte, then data.
    // Where the type is known, as it is in most answers, next to nothing is left of it.
    #[inline(always)]
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Null => out.push(NULL),
            Self::Bool(false) => out.push(BOOL),
            Self::Bool(true) => out.push(BOOL | TRUE),
            // Sign-extended: HAProxy reads the varint as 64 bits whatever the type says.
            Self::Int32(v) => encode_integer(INT32, i64::from(v).cast_unsigned(), out),
            Self::Uint32(v) => encode_integer(UINT32, u64::from(v), out),
            Self::Int64(v) => encode_integer(INT64, v.cast_unsigned(), out),
            Self::Uint64(v) => encode_integer(UINT64, v, out),
            Self::Ipv4(v) => {
                out.push(IPV4);
                out.extend_from_slice(&v.octets());
            }
            Self::Ipv6(v) => {
                out.push(IPV6);
                out.extend_from_slice(&v.octets());
            }
            Self::Str(v) => {
                out.push(STRING);
                encode_bytes(v, out);
            }
            Self::Bin(v) => {
                out.push(BINARY);
                encode_bytes(v, out);
            }
        }
    }

    /// How many bytes [`encode`](Self::encode) writes.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        let data = match *self {
            Self::Null | Self::Bool(_) => 0,
            Self::Int32(v) => varint_len((v as i64).cast_unsigned()),
            Self::Uint32(v) => varint_len(v as u64),
            Self::Int64(v) => varint_len(v.cast_unsigned()),
            Self::Uint64(v) => varint_len(v),
            Self::Ipv4(_) => 4,
            Self::Ipv6(_) => 16,
            Self::Str(v) | Self::Bin(v) => varint_len(v.len() as u64).saturating_add(v.len()),
        };
        data.saturating_add(1)
    }

    /// The type in HAProxy's words: `null`, `bool`, `int32`, `uint32`, `int64`, `uint64`, `ipv4`,
    /// `ipv6`, `str`, `bin`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int32(_) => "int32",
            Self::Uint32(_) => "uint32",
            Self::Int64(_) => "int64",
            Self::Uint64(_) => "uint64",
            Self::Ipv4(_) => "ipv4",
            Self::Ipv6(_) => "ipv6",
            Self::Str(_) => "str",
            Self::Bin(_) => "bin",
        }
    }

    /// Whether this is NULL: HAProxy's fetch gave nothing.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The integer of any of the four integer types, whatever its width and sign; `None` for other types.
    #[must_use]
    pub const fn as_int(&self) -> Option<i128> {
        match *self {
            Self::Int32(v) => Some(v as i128),
            Self::Uint32(v) => Some(v as i128),
            Self::Int64(v) => Some(v as i128),
            Self::Uint64(v) => Some(v as i128),
            _ => None,
        }
    }

    /// The address of an IPv4 or IPv6 value.
    #[must_use]
    pub const fn as_ip(&self) -> Option<IpAddr> {
        match *self {
            Self::Ipv4(v) => Some(IpAddr::V4(v)),
            Self::Ipv6(v) => Some(IpAddr::V6(v)),
            _ => None,
        }
    }

    /// The bytes of a string or binary value.
    #[must_use]
    pub const fn as_bytes(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Str(v) | Self::Bin(v) => Some(v),
            _ => None,
        }
    }

    /// The text of a string value: `None` where it is none, an error where it is not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<Result<&'a str, core::str::Utf8Error>> {
        match *self {
            Self::Str(v) => Some(core::str::from_utf8(v)),
            _ => None,
        }
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn to_owned(&self) -> OwnedValue {
        OwnedValue::from(*self)
    }
}

#[inline(always)]
fn encode_integer(kind: u8, bits: u64, out: &mut Vec<u8>) {
    let [low, ..] = bits.to_le_bytes();
    match bits {
        0..240 => out.extend_from_slice(&[kind, low]),
        240..2_288 => {
            let [first, second] = two_bytes(bits);
            out.extend_from_slice(&[kind, first, second]);
        }
        _ => {
            out.push(kind);
            encode_varint(bits, out);
        }
    }
}

#[inline]
pub(super) fn value(input: &[u8]) -> Parsed<'_, Value<'_>> {
    let Some((&tag, rest)) = input.split_first() else {
        return fault(input, DecodeErrorKind::Truncated);
    };
    match tag & 0x0f {
        NULL => Ok((rest, Value::Null)),
        BOOL => Ok((rest, Value::Bool(tag & 0xf0 == TRUE))),
        INT32 => varint(rest).map(|(rest, bits)| (rest, int32(bits))),
        UINT32 => varint(rest).map(|(rest, bits)| (rest, uint32(bits))),
        INT64 => varint(rest).map(|(rest, bits)| (rest, Value::Int64(bits.cast_signed()))),
        UINT64 => varint(rest).map(|(rest, bits)| (rest, Value::Uint64(bits))),
        IPV4 => map(be_u32, |bits| Value::Ipv4(Ipv4Addr::from_bits(bits))).parse_complete(rest),
        IPV6 => map(be_u128, |bits| Value::Ipv6(Ipv6Addr::from_bits(bits))).parse_complete(rest),
        STRING if tag == STRING => bytes(rest).map(|(rest, v)| (rest, Value::Str(v))),
        STRING | BINARY => bytes(rest).map(|(rest, v)| (rest, Value::Bin(v))),
        reserved => fault(input, DecodeErrorKind::ReservedType(reserved)),
    }
}

/// As HAProxy decodes where it must only get past a value: reserved types have no data and read as
/// NULL.
pub(super) fn lenient_value(input: &[u8]) -> Parsed<'_, Value<'_>> {
    match input.split_first() {
        Some((tag, rest)) if tag & 0x0f > BINARY => Ok((rest, Value::Null)),
        _ => value(input),
    }
}

fn int32<'a>(bits: u64) -> Value<'a> {
    let wide = bits.cast_signed();
    i32::try_from(wide).map_or(Value::Int64(wide), Value::Int32)
}

fn uint32<'a>(bits: u64) -> Value<'a> {
    u32::try_from(bits).map_or(Value::Uint64(bits), Value::Uint32)
}

/// `type:value`, strings and binaries with escapes; for people, logs and tools.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Null => f.write_str("null"),
            Self::Bool(v) => write!(f, "bool:{v}"),
            Self::Int32(v) => write!(f, "int32:{v}"),
            Self::Uint32(v) => write!(f, "uint32:{v}"),
            Self::Int64(v) => write!(f, "int64:{v}"),
            Self::Uint64(v) => write!(f, "uint64:{v}"),
            Self::Ipv4(v) => write!(f, "ipv4:{v}"),
            Self::Ipv6(v) => write!(f, "ipv6:{v}"),
            Self::Str(v) => write!(f, "str:{}", v.escape_ascii()),
            Self::Bin(v) => write!(f, "bin:{}", v.escape_ascii()),
        }
    }
}

/// The owned twin of [`Value`]; strings and binaries are shared, so a clone is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the protocol defines these ten and no other")]
pub enum OwnedValue {
    /// No value.
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed integer of 32 bits.
    Int32(i32),
    /// An unsigned integer of 32 bits.
    Uint32(u32),
    /// A signed integer of 64 bits.
    Int64(i64),
    /// An unsigned integer of 64 bits.
    Uint64(u64),
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// A string: bytes, not necessarily UTF-8.
    Str(Bytes),
    /// Binary data.
    Bin(Bytes),
}

impl OwnedValue {
    /// The borrowed form.
    #[must_use]
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(v) => Value::Bool(*v),
            Self::Int32(v) => Value::Int32(*v),
            Self::Uint32(v) => Value::Uint32(*v),
            Self::Int64(v) => Value::Int64(*v),
            Self::Uint64(v) => Value::Uint64(*v),
            Self::Ipv4(v) => Value::Ipv4(*v),
            Self::Ipv6(v) => Value::Ipv6(*v),
            Self::Str(v) => Value::Str(v),
            Self::Bin(v) => Value::Bin(v),
        }
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(v) => Self::Bool(v),
            Value::Int32(v) => Self::Int32(v),
            Value::Uint32(v) => Self::Uint32(v),
            Value::Int64(v) => Self::Int64(v),
            Value::Uint64(v) => Self::Uint64(v),
            Value::Ipv4(v) => Self::Ipv4(v),
            Value::Ipv6(v) => Self::Ipv6(v),
            Value::Str(v) => Self::Str(Bytes::copy_from_slice(v)),
            Value::Bin(v) => Self::Bin(Bytes::copy_from_slice(v)),
        }
    }
}

impl fmt::Display for OwnedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_value().fmt(f)
    }
}

macro_rules! from {
    ($($type:ty => $build:expr;)*) => {$(
        impl<'a> From<$type> for Value<'a> {
            #[inline]
            fn from(value: $type) -> Self {
                $build(value)
            }
        }
    )*};
}

from! {
    bool => Value::Bool;
    i8 => |v| Value::Int32(i32::from(v));
    i16 => |v| Value::Int32(i32::from(v));
    i32 => Value::Int32;
    i64 => Value::Int64;
    u8 => |v| Value::Uint32(u32::from(v));
    u16 => |v| Value::Uint32(u32::from(v));
    u32 => Value::Uint32;
    u64 => Value::Uint64;
    // No machine has more than 64 bits.
    isize => |v| Value::Int64(v as i64);
    usize => |v| Value::Uint64(v as u64);
    Ipv4Addr => Value::Ipv4;
    Ipv6Addr => Value::Ipv6;
    &'a str => |v: &'a str| Value::Str(v.as_bytes());
    &'a String => |v: &'a String| Value::Str(v.as_bytes());
    &'a Box<str> => |v| Value::Str(<Box<str> as AsRef<str>>::as_ref(v).as_bytes());
    &'a Arc<str> => |v: &'a Arc<str>| Value::Str(v.as_bytes());
    &'a Cow<'_, str> => |v: &'a Cow<'_, str>| Value::Str(v.as_bytes());
    &'a [u8] => Value::Bin;
    &'a Vec<u8> => |v: &'a Vec<u8>| Value::Bin(v);
    &'a Bytes => |v: &'a Bytes| Value::Bin(v);
    &'a OwnedValue => OwnedValue::as_value;
}

impl<const N: usize> From<&'_ [u8; N]> for OwnedValue {
    fn from(value: &[u8; N]) -> Self {
        Self::Bin(Bytes::copy_from_slice(value))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(value: &'a [u8; N]) -> Self {
        Self::Bin(value)
    }
}

impl From<IpAddr> for Value<'_> {
    fn from(value: IpAddr) -> Self {
        match value {
            IpAddr::V4(v) => Self::Ipv4(v),
            IpAddr::V6(v) => Self::Ipv6(v),
        }
    }
}

macro_rules! from_borrowed {
    ($($type:ty),*) => {$(
        /// As a collection gives it: `scores.get(&ip)`.
        impl From<&$type> for Value<'_> {
            #[inline]
            fn from(value: &$type) -> Self {
                Self::from(*value)
            }
        }
    )*};
}

from_borrowed!(
    bool, i8, i16, i32, i64, isize, u8, u16, u32, u64, usize, IpAddr, Ipv4Addr, Ipv6Addr
);

/// `None` is NULL: HAProxy unsets the variable.
impl<'a, T: Into<Self>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn both_ways(value: Value<'_>, encoded: &[u8]) {
        let mut out = Vec::new();
        value.encode(&mut out);
        assert_eq!(out, encoded, "encoding {value}");
        assert_eq!(value.encoded_len(), encoded.len(), "length of {value}");
        out.push(0xaa);
        assert_eq!(Value::decode(&out), Ok((value, &[0xaa][..])), "decoding {value}");
        assert_eq!(value.to_owned().as_value(), value);
    }

    #[test]
    fn the_ten_types() {
        both_ways(Value::Null, &[0x00]);
        both_ways(Value::Bool(false), &[0x01]);
        both_ways(Value::Bool(true), &[0x11]);
        both_ways(Value::Int32(7), &[0x02, 0x07]);
        both_ways(Value::Uint32(16380), &[0x03, 0xfc, 0xf0, 0x06]);
        both_ways(Value::Int64(240), &[0x04, 0xf0, 0x00]);
        both_ways(Value::Uint64(255), &[0x05, 0xff, 0x00]);
        both_ways(Value::Ipv4(Ipv4Addr::new(192, 0, 2, 1)), &[0x06, 192, 0, 2, 1]);
        both_ways(
            Value::Ipv6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
            &[0x07, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        );
        both_ways(Value::Str(b"hi"), &[0x08, 2, b'h', b'i']);
        both_ways(Value::Str(b""), &[0x08, 0]);
        both_ways(Value::Str(b"a\0\xff"), &[0x08, 3, b'a', 0, 0xff]);
        both_ways(Value::Bin(&[0]), &[0x09, 1, 0]);
    }

    #[test]
    fn negative_numbers_are_sixty_four_bits_wide() {
        let minus_one = [0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e];
        let with = |kind: u8| [&[kind][..], &minus_one].concat();
        both_ways(Value::Int32(-1), &with(2));
        both_ways(Value::Int64(-1), &with(4));
        both_ways(Value::Uint64(u64::MAX), &with(5));
        both_ways(
            Value::Int64(i64::MIN),
            &[0x04, 0xf0, 0xf1, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x06],
        );
        both_ways(
            Value::Int32(i32::MIN),
            &[0x02, 0xf0, 0xf1, 0xfe, 0xfe, 0xbe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e],
        );
    }

    #[test]
    fn integers_wider_than_their_type_keep_their_value() {
        // 4294967291 under INT32: not -5, whoever meant it.
        let mut out = vec![INT32];
        encode_varint(0xffff_fffb, &mut out);
        assert_eq!(Value::decode(&out).unwrap().0, Value::Int64(4_294_967_291));
        let mut out = vec![UINT32];
        encode_varint(1 << 32, &mut out);
        assert_eq!(Value::decode(&out).unwrap().0, Value::Uint64(1 << 32));
    }

    #[test]
    fn flag_bits() {
        let decode = |bytes: &'static [u8]| Value::decode(bytes).unwrap().0;
        assert_eq!(decode(&[0x21]), Value::Bool(false));
        assert_eq!(decode(&[0x31]), Value::Bool(false));
        assert_eq!(decode(&[0xf1]), Value::Bool(false));
        assert_eq!(decode(&[0x18, 1, b'x']), Value::Bin(b"x"));
        assert_eq!(decode(&[0x88, 1, b'x']), Value::Bin(b"x"));
        assert_eq!(decode(&[0x19, 1, b'x']), Value::Bin(b"x"));
        assert_eq!(decode(&[0x14, 5]), Value::Int64(5));
        assert_eq!(decode(&[0x10]), Value::Null);
    }

    #[test]
    fn what_is_refused() {
        for reserved in 10..=15 {
            let bytes = [reserved];
            let error = Value::decode(&bytes).unwrap_err();
            assert_eq!(error.kind, DecodeErrorKind::ReservedType(reserved));
            assert_eq!(error.offset, 0);
        }
        let cut = |bytes: &[u8], offset| {
            let error = Value::decode(bytes).unwrap_err();
            assert_eq!((error.kind, error.offset), (DecodeErrorKind::Truncated, offset));
        };
        cut(&[], 0);
        cut(&[INT64], 1);
        cut(&[INT64, 0xf0], 2);
        cut(&[IPV4, 1, 2, 3], 1);
        cut(&[IPV6, 1, 2, 3], 1);
        let error = Value::decode(&[STRING, 5, b'a', b'b']).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::Length { declared: 5, left: 2 });
    }

    #[test]
    fn conversions() {
        assert_eq!(Value::from(1_u8), Value::Uint32(1));
        assert_eq!(Value::from(usize::MAX).as_int(), i128::try_from(usize::MAX).ok());
        assert_eq!(Value::from(3_usize), Value::Uint64(3));
        assert_eq!(Value::from(isize::MIN).as_int(), i128::try_from(isize::MIN).ok());
        assert_eq!(Value::from("a"), Value::Str(b"a"));
        assert_eq!(Value::from(&String::from("a")), Value::Str(b"a"));
        assert_eq!(Value::from(&Box::<str>::from("a")), Value::Str(b"a"));
        assert_eq!(Value::from(&Arc::<str>::from("a")), Value::Str(b"a"));
        assert_eq!(Value::from(&String::from_utf8_lossy(b"a")), Value::Str(b"a"));
        assert_eq!(Value::from(&Bytes::from_static(b"a")), Value::Bin(b"a"));
        assert_eq!(Value::from(&IpAddr::from([1, 2, 3, 4])), Value::Ipv4([1, 2, 3, 4].into()));
        // What a map says: the value, or NULL.
        let scores = std::collections::HashMap::from([("a", 3_u32)]);
        assert_eq!(Value::from(scores.get("a")), Value::Uint32(3));
        assert_eq!(Value::from(scores.get("b")), Value::Null);
        assert_eq!(Value::from(b"a"), Value::Bin(b"a"));
        assert_eq!(Value::from(None::<i32>), Value::Null);
        assert_eq!(Value::from(Some(3)), Value::Int32(3));
        assert_eq!(Value::from(IpAddr::from([1, 2, 3, 4])), Value::Ipv4([1, 2, 3, 4].into()));
        assert_eq!(Value::Uint64(u64::MAX).as_int(), Some(i128::from(u64::MAX)));
        assert_eq!(Value::Int32(-3).as_int(), Some(-3));
        assert_eq!(Value::Str(b"3").as_int(), None);
        assert!(Value::Str(b"\xff").as_str().unwrap().is_err());
        assert_eq!(Value::Bin(b"x").as_str(), None);
        assert_eq!(Value::Str(b"a\x01").to_string(), "str:a\\x01");
    }
}
