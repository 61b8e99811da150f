//! The one integer encoding of SPOP, lengths included.
//!
//! Values below 240 are one byte. Above, the first byte carries four bits of the value and every
//! further byte seven, least significant part first; the encoding is bijective, so there is no
//! overlong form to refuse. HAProxy's own decoder has no upper bound; this one stops at ten bytes
//! and refuses what does not fit 64 bits.

use super::DecodeError;
use super::fault::{DecodeErrorKind, Parsed, fault, run};

/// The longest encoding: 2^64 - 1 takes ten bytes.
const MAX_BYTES: usize = 10;
/// How far the tenth byte is shifted.
pub(super) const LAST_SHIFT: u32 = 4 + 7 * 8;

/// Decodes the varint at the start of `input`; returns it and what follows.
///
/// # Errors
/// [`DecodeErrorKind::Truncated`] when `input` ends inside it, [`DecodeErrorKind::VarintOverflow`]
/// when it has more than ten bytes or exceeds 64 bits.
pub fn decode_varint(input: &[u8]) -> Result<(u64, &[u8]), DecodeError> {
    run(input, varint)
}

/// Appends `value` to `out`.
#[inline]
pub fn encode_varint(value: u64, out: &mut Vec<u8>) {
    let [low, ..] = value.to_le_bytes();
    match value {
        0..240 => out.push(low),
        240..2_288 => out.extend_from_slice(&two_bytes(value)),
        2_288..264_432 => {
            let rest = value.wrapping_sub(240) >> 4;
            let ([middle, ..], [high, ..]) =
                (rest.to_le_bytes(), (rest.wrapping_sub(128) >> 7).to_le_bytes());
            out.extend_from_slice(&[low | 0xf0, middle | 0x80, high]);
        }
        _ => encode_long(value, out),
    }
}

/// A value from 240 to 2287.
#[inline(always)]
pub(super) const fn two_bytes(value: u64) -> [u8; 2] {
    let [low, ..] = value.to_le_bytes();
    let [high, ..] = (value.wrapping_sub(240) >> 4).to_le_bytes();
    [low | 0xf0, high]
}

/// How many bytes [`encode_varint`] writes for `value`.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    if value < 240 {
        return 1;
    }
    // Neither can wrap: each subtracts what was just found to be there, and ten rounds are the most.
    let mut rest = value.wrapping_sub(240) >> 4;
    let mut len = 2_usize;
    while rest >= 128 {
        rest = rest.wrapping_sub(128) >> 7;
        len = len.wrapping_add(1);
    }
    len
}

fn encode_long(value: u64, out: &mut Vec<u8>) {
    let mut bytes = [0_u8; MAX_BYTES];
    let mut len = 0_usize;
    let mut rest = value;
    let mut shift = 4;
    let mut base = 240;
    for slot in &mut bytes {
        len = len.wrapping_add(1);
        if rest < base {
            *slot = rest.to_le_bytes()[0];
            break;
        }
        *slot = rest.to_le_bytes()[0] | base.to_le_bytes()[0];
        rest = rest.wrapping_sub(base) >> shift;
        shift = 7;
        base = 128;
    }
    out.extend_from_slice(bytes.get(..len).unwrap_or(&bytes));
}

#[inline]
pub(super) fn varint(input: &[u8]) -> Parsed<'_, u64> {
    match input.split_first() {
        Some((&first, rest)) if first < 240 => Ok((rest, u64::from(first))),
        Some((&first, rest)) => varint_tail(u64::from(first), rest),
        None => fault(input, DecodeErrorKind::Truncated),
    }
}

/// The bytes after a first one of 240 or more.
fn varint_tail(first: u64, input: &[u8]) -> Parsed<'_, u64> {
    let mut value = first;
    let mut shift = 4_u32;
    let mut rest = input;
    while let Some((&byte, after)) = rest.split_first() {
        let part = u64::from(byte);
        if shift == LAST_SHIFT && part > 0x0f {
            return fault(rest, DecodeErrorKind::VarintOverflow);
        }
        let Some(sum) = value.checked_add(part << shift) else {
            return fault(rest, DecodeErrorKind::VarintOverflow);
        };
        value = sum;
        rest = after;
        if byte < 128 {
            return Ok((rest, value));
        }
        // Eight times at most: the last shift either ends the number or is refused.
        shift = shift.wrapping_add(7);
    }
    fault(rest, DecodeErrorKind::Truncated)
}

/// A varint length and that many bytes.
#[inline]
pub(super) fn bytes(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (rest, declared) = varint(input)?;
    let taken = usize::try_from(declared).ok().and_then(|len| rest.split_at_checked(len));
    match taken {
        Some((bytes, rest)) => Ok((rest, bytes)),
        None => fault(input, DecodeErrorKind::Length { declared, left: rest.len() }),
    }
}

/// Appends `bytes` with its length in front.
#[inline]
pub(super) fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by HAProxy's own C code (include/haproxy/intops.h).
    const VECTORS: &[(u64, &[u8])] = &[
        (0, &[0x00]),
        (239, &[0xef]),
        (240, &[0xf0, 0x00]),
        (241, &[0xf1, 0x00]),
        (255, &[0xff, 0x00]),
        (256, &[0xf0, 0x01]),
        (2287, &[0xff, 0x7f]),
        (2288, &[0xf0, 0x80, 0x00]),
        (264_431, &[0xff, 0xff, 0x7f]),
        (264_432, &[0xf0, 0x80, 0x80, 0x00]),
        (33_818_863, &[0xff, 0xff, 0xff, 0x7f]),
        (33_818_864, &[0xf0, 0x80, 0x80, 0x80, 0x00]),
        (2_147_483_647, &[0xff, 0xf0, 0xfe, 0xfe, 0x3e]),
        (2_147_483_648, &[0xf0, 0xf1, 0xfe, 0xfe, 0x3e]),
        (4_294_967_295, &[0xff, 0xf0, 0xfe, 0xfe, 0x7e]),
        (4_328_786_159, &[0xff, 0xff, 0xff, 0xff, 0x7f]),
        (4_328_786_160, &[0xf0, 0x80, 0x80, 0x80, 0x80, 0x00]),
        (554_084_600_047, &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        (554_084_600_048, &[0xf0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
        ((1 << 63) - 1, &[0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x06]),
        (1 << 63, &[0xf0, 0xf1, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x06]),
        (u64::MAX, &[0xff, 0xf0, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e]),
    ];

    /// The largest value of one to nine bytes.
    const LARGEST: [u64; 9] = [
        239,
        2287,
        264_431,
        33_818_863,
        4_328_786_159,
        554_084_600_047,
        70_922_828_777_711,
        9_078_122_083_518_703,
        1_161_999_626_690_365_679,
    ];

    #[test]
    fn vectors_of_haproxy() {
        for &(value, expected) in VECTORS {
            let mut out = Vec::new();
            encode_varint(value, &mut out);
            assert_eq!(out, expected, "encoding {value}");
            assert_eq!(varint_len(value), expected.len(), "length of {value}");
            out.push(0x55);
            assert_eq!(decode_varint(&out), Ok((value, &[0x55][..])), "decoding {value}");
        }
    }

    #[test]
    fn length_steps() {
        for (index, &value) in LARGEST.iter().enumerate() {
            assert_eq!(varint_len(value), index + 1);
            assert_eq!(varint_len(value + 1), index + 2);
        }
        assert_eq!(varint_len(u64::MAX), MAX_BYTES);
    }

    #[test]
    fn every_prefix_is_truncated() {
        for &(_, bytes) in VECTORS {
            for cut in 0..bytes.len() {
                let error = decode_varint(&bytes[..cut]).unwrap_err();
                assert_eq!(error.kind, DecodeErrorKind::Truncated);
                assert_eq!(error.offset, cut);
            }
        }
    }

    #[test]
    fn more_than_64_bits() {
        let overflow = |bytes: &[u8]| decode_varint(bytes).unwrap_err();
        // 2^64: one above the largest, in ten bytes.
        let mut bytes = [0xf0, 0xf1, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0x0e];
        assert_eq!(overflow(&bytes).kind, DecodeErrorKind::VarintOverflow);
        // A tenth byte whose bits fall off the top.
        bytes[9] = 0x10;
        assert_eq!(overflow(&bytes).kind, DecodeErrorKind::VarintOverflow);
        // Eleven bytes.
        let long = [0xff; 11];
        assert_eq!(overflow(&long).kind, DecodeErrorKind::VarintOverflow);
        assert_eq!(overflow(&long).offset, 9);
        let zeros = [0xf0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(overflow(&zeros).kind, DecodeErrorKind::VarintOverflow);
    }

    #[test]
    fn a_length_larger_than_the_input() {
        let (rest, found) = bytes(&[2, b'a', b'b', b'c']).unwrap();
        assert_eq!((rest, found), (&b"c"[..], &b"ab"[..]));
        let mut huge = Vec::new();
        encode_varint(u64::MAX, &mut huge);
        huge.push(b'a');
        let error = run(&huge, bytes).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::Length { declared: u64::MAX, left: 1 });
        assert_eq!(error.offset, 0);
    }
}
