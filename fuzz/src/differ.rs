//! The decoders, against one that was written from the manual alone.

use spop_proto::wire::{Value, decode_varint, encode_varint, varint_len};

use crate::{compare, naive};

/// One input: a byte that says what the rest is to be read as, and the rest.
pub fn run(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    match kind % 6 {
        0 => stream(bytes),
        1 => compare::notifies(bytes),
        2 => compare::answers(bytes),
        3 => compare::keys(bytes),
        4 => compare::frames(bytes),
        _ => numbers(bytes),
    }
}

/// A stream of frames, each read by its type.
fn stream(bytes: &[u8]) {
    let mut rest = bytes.to_vec();
    while let Some((frame, after)) = naive::cut(&rest) {
        compare::frames(&frame);
        if let Some(frame) = naive::frame(&frame) {
            match frame.kind {
                0 | 3 => compare::notifies(&frame.payload),
                103 => compare::answers(&frame.payload),
                _ => compare::keys(&frame.payload),
            }
        }
        rest = after;
    }
}

/// A varint and a value at the start of `bytes`.
fn numbers(bytes: &[u8]) {
    let ours = decode_varint(bytes).ok().map(|(value, rest)| (value, rest.len()));
    let mut reader = naive::Reader::new(bytes);
    let naive = reader.varint().map(|value| (value, reader.left()));
    assert_eq!(ours, naive, "a varint");
    if let Some((value, left)) = ours {
        let used = bytes.len() - left;
        let mut again = Vec::new();
        encode_varint(value, &mut again);
        assert_eq!(again, bytes[..used], "each number has one form");
        assert_eq!(varint_len(value), used);
    }
    let mut reader = naive::Reader::new(bytes);
    match (Value::decode(bytes), reader.data(naive::Reserved::Refused)) {
        (Ok((value, rest)), Some(data)) => {
            assert_eq!(rest.len(), reader.left());
            compare::same_value(&value, &data);
        }
        (Err(_), None) => {}
        other => panic!("a value: {other:?}"),
    }
}
