//! Strategies and naive encoders.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use spop_proto::{OwnedValue, Scope};

use crate::common::*;

/// Numbers of every length, not only of the longest.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        (any::<u64>(), 0_u32..64).prop_map(|(bits, shift)| bits >> shift),
        // Around each step of the encoding.
        (0_usize..9, 0_u64..5).prop_map(|(step, off)| LARGEST[step] - 2 + off),
        Just(u64::MAX),
    ]
}

/// The largest value of one to nine bytes.
pub(crate) const LARGEST: [u64; 9] = [
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

pub(crate) fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

/// Bytes in which the special ones are frequent.
pub(crate) fn wild_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => any::<u8>(),
        3 => 0_u8..12,
        1 => prop_oneof![Just(0xf0_u8), Just(0xff), Just(0x80), Just(0x7f), Just(239), Just(240)],
    ];
    vec(byte, 0..60)
}

pub(crate) fn value() -> impl Strategy<Value = OwnedValue> {
    prop_oneof![
        Just(OwnedValue::Null),
        any::<bool>().prop_map(OwnedValue::Bool),
        any::<i32>().prop_map(OwnedValue::Int32),
        any::<u32>().prop_map(OwnedValue::Uint32),
        number().prop_map(|bits| OwnedValue::Int64(bits.cast_signed())),
        number().prop_map(OwnedValue::Uint64),
        any::<u32>().prop_map(|bits| OwnedValue::Ipv4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| OwnedValue::Ipv6(Ipv6Addr::from_bits(bits))),
        some_bytes().prop_map(|text| OwnedValue::Str(text.into())),
        vec(any::<u8>(), 0..3000).prop_map(|data| OwnedValue::Bin(data.into())),
    ]
}

/// As the manual draws it.
pub(crate) fn naive_value(value: &OwnedValue) -> Vec<u8> {
    let signed = |kind: u8, wide: i64| [vec![kind], varint(wide.cast_unsigned())].concat();
    match value {
        OwnedValue::Null => vec![0],
        OwnedValue::Bool(false) => vec![1],
        OwnedValue::Bool(true) => vec![0x11],
        OwnedValue::Int32(v) => signed(2, i64::from(*v)),
        OwnedValue::Uint32(v) => [vec![3], varint(u64::from(*v))].concat(),
        OwnedValue::Int64(v) => signed(4, *v),
        OwnedValue::Uint64(v) => [vec![5], varint(*v)].concat(),
        OwnedValue::Ipv4(v) => [&[6][..], &v.octets()].concat(),
        OwnedValue::Ipv6(v) => [&[7][..], &v.octets()].concat(),
        OwnedValue::Str(v) => [vec![8], counted(v)].concat(),
        OwnedValue::Bin(v) => [vec![9], counted(v)].concat(),
    }
}

pub(crate) type OwnedArg = (Vec<u8>, OwnedValue);
pub(crate) type OwnedMessage = (Vec<u8>, Vec<OwnedArg>);

pub(crate) fn messages() -> impl Strategy<Value = Vec<OwnedMessage>> {
    vec((some_bytes(), vec((some_bytes(), value()), 0..6)), 1..4)
}

pub(crate) fn naive_messages(messages: &[OwnedMessage]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, args) in messages {
        out.extend(counted(name));
        out.push(u8::try_from(args.len()).unwrap());
        for (name, value) in args {
            out.extend(counted(name));
            out.extend(naive_value(value));
        }
    }
    out
}

pub(crate) fn scope() -> impl Strategy<Value = Scope> {
    (0_usize..5).prop_map(|number| Scope::ALL[number])
}

/// HAProxy's decoder with the two checks it lacks: at most ten bytes, at most 64 bits.
pub(crate) fn naive_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = u128::from(*bytes.first()?);
    if value < 240 {
        return Some((u64::try_from(value).unwrap(), 1));
    }
    for (at, &byte) in bytes.iter().enumerate().take(10).skip(1) {
        value += u128::from(byte) << (4 + 7 * (at - 1));
        if byte < 128 {
            return Some((u64::try_from(value).ok()?, at + 1));
        }
    }
    None
}

/// Around ten bytes, where 64 bits end.
pub(crate) fn longest_varint() -> impl Strategy<Value = Vec<u8>> {
    (0xf0_u8..=0xff, vec(0x80_u8..=0xff, 7..10), prop_oneof![any::<u8>(), 0x0d_u8..0x12])
        .prop_map(|(first, middle, last)| [vec![first], middle, vec![last]].concat())
}

/// The value at the start of `bytes`, and how many of them it takes.
pub(crate) fn naive_decode(bytes: &[u8]) -> Option<(OwnedValue, usize)> {
    let tag = *bytes.first()?;
    let rest = &bytes[1..];
    let integer = || naive_varint(rest).map(|(bits, len)| (bits, 1 + len));
    let counted = || {
        let (len, at) = naive_varint(rest)?;
        let end = at.checked_add(usize::try_from(len).ok()?)?;
        Some((rest.get(at..end)?.to_vec(), 1 + end))
    };
    Some(match tag & 15 {
        0 => (OwnedValue::Null, 1),
        1 => (OwnedValue::Bool(tag == 0x11), 1),
        2 => {
            let (bits, len) = integer()?;
            let wide = bits.cast_signed();
            (i32::try_from(wide).map_or(OwnedValue::Int64(wide), OwnedValue::Int32), len)
        }
        3 => {
            let (bits, len) = integer()?;
            (u32::try_from(bits).map_or(OwnedValue::Uint64(bits), OwnedValue::Uint32), len)
        }
        4 => integer().map(|(bits, len)| (OwnedValue::Int64(bits.cast_signed()), len))?,
        5 => integer().map(|(bits, len)| (OwnedValue::Uint64(bits), len))?,
        6 => (OwnedValue::Ipv4(rest.first_chunk::<4>().copied()?.into()), 5),
        7 => (OwnedValue::Ipv6(rest.first_chunk::<16>().copied()?.into()), 17),
        // A string with any flag is a binary to HAProxy.
        8 if tag == 8 => counted().map(|(text, len)| (OwnedValue::Str(text.into()), len))?,
        8 | 9 => counted().map(|(data, len)| (OwnedValue::Bin(data.into()), len))?,
        _ => return None,
    })
}
