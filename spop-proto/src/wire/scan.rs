//! Items at the speed of the hot path. Places are counted from the start of the bytes and may lie
//! beyond their end by what the last length said: whoever reads there finds nothing, and whoever is
//! done compares with the end. What is wrong is not told apart; where there is `None` here, the
//! parsers beside know the reason.
//!
//! Each function comes twice. With `LONG` it takes any number; without, `None` stands for numbers of
//! more than three bytes, and for names of 240 bytes and more, as well. Those are rare, and a function
//! that hands them over as a whole to its `LONG` twin calls nothing, so it has no registers to save.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::value::{self, Value};
use super::varint;

/// The varint at that place, and the place behind it.
#[inline(always)]
pub(super) fn varint<const LONG: bool>(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    match short(bytes, at) {
        Some((value, end)) => Some((value.into(), end)),
        None if LONG => long_varint(bytes, at),
        None => None,
    }
}

/// The varint at that place if it has up to three bytes, and the place behind it.
#[inline(always)]
fn short(bytes: &[u8], at: usize) -> Option<(u32, usize)> {
    // `at` lies within the bytes, which are never near the end of the address space; the largest
    // number of three bytes is 264 431.
    let first = u32::from(*bytes.get(at)?);
    if first < 240 {
        return Some((first, at.wrapping_add(1)));
    }
    let second = u32::from(*bytes.get(at.wrapping_add(1))?);
    let value = first.wrapping_add(second << 4);
    if second < 128 {
        return Some((value, at.wrapping_add(2)));
    }
    let third = u32::from(*bytes.get(at.wrapping_add(2))?);
    if third < 128 { Some((value.wrapping_add(third << 11), at.wrapping_add(3))) } else { None }
}

#[inline(never)]
fn long_varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let (mut value, mut at) = (u64::from(*bytes.get(at)?), at.wrapping_add(1));
    let mut shift = 4_u32;
    loop {
        let byte = *bytes.get(at)?;
        at = at.wrapping_add(1);
        if shift == varint::LAST_SHIFT && byte > 0x0f {
            return None;
        }
        value = value.checked_add(u64::from(byte) << shift)?;
        if byte < 128 {
            return Some((value, at));
        }
        // Eight times at most: the last shift ends the number.
        shift = shift.wrapping_add(7);
    }
}

/// Where the bytes behind the length at that place begin and end.
#[inline(always)]
pub(super) fn counted<const LONG: bool>(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    match short(bytes, at) {
        Some((length, begin)) => Some((begin, begin.wrapping_add(usize::try_from(length).ok()?))),
        None if LONG => long_counted(bytes, at),
        None => None,
    }
}

/// The same for a name: without `LONG` only for those below 240 bytes, and hardly any is longer.
#[inline(always)]
pub(super) fn name_at<const LONG: bool>(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    if LONG {
        return counted::<true>(bytes, at);
    }
    let length = *bytes.get(at)?;
    let begin = at.wrapping_add(1);
    (length < 240).then_some((begin, begin.wrapping_add(length.into())))
}

#[inline(never)]
fn long_counted(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let (length, begin) = long_varint(bytes, at)?;
    let end = usize::try_from(length).ok().and_then(|length| begin.checked_add(length))?;
    (end <= bytes.len()).then_some((begin, end))
}

/// The place behind the value at that place.
#[inline(always)]
pub(super) fn after_value<const LONG: bool>(bytes: &[u8], at: usize) -> Option<usize> {
    let tag = *bytes.get(at)? & 0x0f;
    let data = at.wrapping_add(1);
    // The most frequent first; the compiler would make an indirect jump of a `match`.
    if tag >= value::STRING {
        if tag > value::BINARY {
            return None;
        }
        return counted::<LONG>(bytes, data).map(|(_, end)| end);
    }
    if tag >= value::IPV4 {
        return Some(data.wrapping_add(if tag == value::IPV4 { 4 } else { 16 }));
    }
    if tag >= value::INT32 {
        return varint::<LONG>(bytes, data).map(|(_, end)| end);
    }
    Some(data)
}

/// The place behind the argument at that place.
#[inline(always)]
pub(super) fn after_arg<const LONG: bool>(bytes: &[u8], at: usize) -> Option<usize> {
    let (_, value) = name_at::<LONG>(bytes, at)?;
    after_value::<LONG>(bytes, value)
}

/// The place behind that many arguments.
#[inline]
pub(super) fn after_args(bytes: &[u8], count: u8) -> Option<usize> {
    let mut at = 0;
    for _ in 0..count {
        match after_arg::<false>(bytes, at) {
            Some(next) => at = next,
            None => return after_any_args(bytes, count),
        }
    }
    Some(at)
}

#[inline(never)]
fn after_any_args(bytes: &[u8], count: u8) -> Option<usize> {
    (0..count).try_fold(0, |at, _| after_arg::<true>(bytes, at))
}

/// The place behind the message at that place, its arguments included.
#[inline(always)]
pub(super) fn after_message<const LONG: bool>(bytes: &[u8], at: usize) -> Option<usize> {
    let (_, count_at) = name_at::<LONG>(bytes, at)?;
    let count = *bytes.get(count_at)?;
    let mut at = count_at.wrapping_add(1);
    for _ in 0..count {
        at = after_arg::<LONG>(bytes, at)?;
    }
    Some(at)
}

/// The value at that place, and the place behind it.
#[inline(always)]
pub(super) fn value<const LONG: bool>(bytes: &[u8], at: usize) -> Option<(Value<'_>, usize)> {
    let tag = *bytes.get(at)?;
    let data = at.wrapping_add(1);
    match tag {
        value::STRING => {
            let (begin, end) = counted::<LONG>(bytes, data)?;
            Some((Value::Str(bytes.get(begin..end)?), end))
        }
        value::INT64 => {
            let (bits, end) = varint::<LONG>(bytes, data)?;
            Some((Value::Int64(bits.cast_signed()), end))
        }
        value::IPV4 => {
            let octets = bytes.get(data..)?.first_chunk::<4>()?;
            Some((Value::Ipv4(Ipv4Addr::from(*octets)), data.wrapping_add(4)))
        }
        value::IPV6 => {
            let octets = bytes.get(data..)?.first_chunk::<16>()?;
            Some((Value::Ipv6(Ipv6Addr::from(*octets)), data.wrapping_add(16)))
        }
        value::NULL => Some((Value::Null, data)),
        value::BINARY => {
            let (begin, end) = counted::<LONG>(bytes, data)?;
            Some((Value::Bin(bytes.get(begin..end)?), end))
        }
        // HAProxy sends INT64 only.
        value::UINT32 if !LONG => short(bytes, data).map(|(bits, end)| (Value::Uint32(bits), end)),
        value::INT32 if !LONG => {
            short(bytes, data).map(|(bits, end)| (Value::Int32(bits.cast_signed()), end))
        }
        _ if LONG => other_value(bytes, at),
        _ => None,
    }
}

/// The same for any value, when the short twin took none.
#[inline(never)]
pub(super) fn long_value(bytes: &[u8], at: usize) -> Option<(Value<'_>, usize)> {
    value::<true>(bytes, at)
}

#[inline(never)]
fn other_value(bytes: &[u8], at: usize) -> Option<(Value<'_>, usize)> {
    let (rest, value) = value::value(bytes.get(at..)?).ok()?;
    Some((value, bytes.len().wrapping_sub(rest.len())))
}

/// Where the value of the first of `count` arguments lies that has that name. The outer `None` says that
/// there is something that only the `LONG` twin takes.
#[inline(always)]
pub(super) fn named<const LONG: bool>(
    bytes: &[u8],
    count: u8,
    name: &[u8],
) -> Option<Option<usize>> {
    let mut at = 0;
    for _ in 0..count {
        let (begin, end) = name_at::<LONG>(bytes, at)?;
        if end.wrapping_sub(begin) == name.len() && same(bytes.get(begin..end)?, name) {
            return Some(Some(end));
        }
        at = after_value::<LONG>(bytes, end)?;
    }
    Some(None)
}

/// Whether two names are the same. Most have a few bytes, for which a call costs more than it does:
/// their first and their last bytes are compared, which may overlap.
#[inline(always)]
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match one.len() {
        0 => true,
        1 => one.first() == other.first(),
        2..4 => ends_are_same::<2>(one, other),
        4..8 => ends_are_same::<4>(one, other),
        8..=16 => ends_are_same::<8>(one, other),
        _ => one == other,
    }
}

#[inline(always)]
fn ends_are_same<const N: usize>(one: &[u8], other: &[u8]) -> bool {
    one.first_chunk::<N>() == other.first_chunk() && one.last_chunk::<N>() == other.last_chunk()
}
