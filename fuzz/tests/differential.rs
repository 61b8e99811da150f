//! Well-formed frames of HAProxy decode to the same values as with the crate `spop`, but for these
//! differences, each of which HAProxy decides (see `spop-proto`'s documentation of `Value`):
//!
//! | what | `spop` 0.13 | here, as in HAProxy |
//! | --- | --- | --- |
//! | strings that are not UTF-8 | altered | bytes |
//! | a string whose type byte carries a flag | a string | binary |
//! | a boolean | true if the lowest flag is set | true if that flag alone is set |
//! | INT32 and UINT32 beyond 32 bits | cut off | the number, as a wider type |
//! | a varint beyond 64 bits | partly accepted, wrong | refused |
//! | NOTIFY without FIN, UNSET, ABORT, reserved flags | refused | fragments; reserved flags ignored |
//! | keys of a HELLO: repeated, of a reserved type, or empty | refused, refused, taken | last one, skipped, refused |

use spop::frame::FramePayload;
use spop::parser::parse_frame;
use spop::types::TypedData;
use spop_fuzz::naive;
use spop_fuzz::seeds::captures;
use spop_proto::Value;
use spop_proto::wire::{Disconnect, Frame, FrameType, HaproxyHello, Messages};

const FIN: u32 = 1;

/// What was compared.
#[derive(Debug, Default)]
struct Compared {
    accepted: usize,
    refused: usize,
    values: usize,
    differences: usize,
}

#[test]
fn captured_frames() {
    let mut compared = Compared::default();
    let mut fragments = 0;
    for (name, from_haproxy, bytes) in captures().expect("the captures are there") {
        let mut rest = bytes;
        while from_haproxy && let Some((frame, after)) = naive::cut(&rest) {
            let whole = &rest[..frame.len() + 4];
            let Ok(ours) = Frame::decode(&frame) else { panic!("{name}: a bad header") };
            let known =
                [FrameType::HAPROXY_HELLO, FrameType::HAPROXY_DISCONNECT, FrameType::NOTIFY];
            if ours.header.flags.0 == FIN && known.contains(&ours.header.kind) {
                compare(&ours, whole, &mut compared);
            } else {
                assert!(parse_frame(whole).is_err(), "{name}: not a difference any more");
                fragments += 1;
            }
            rest = after;
        }
    }
    println!("{compared:?}, {fragments} frames that only HAProxy <= 3.0 sends");
    assert!(compared.accepted > 800 && fragments > 50, "{compared:?}");
}

/// Payloads of which most are good, and some not quite.
#[test]
fn generated_notifies() {
    let mut compared = Compared::default();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..100_000 {
        let payload = random.payload();
        let bytes = spop_fuzz::hello::frame(3, FIN, (1, 1), &payload);
        let ours = Frame::decode(&bytes[4..]).expect("a good header");
        compare(&ours, &bytes, &mut compared);
    }
    println!("{compared:?}");
    assert!(compared.accepted > 30_000, "{compared:?}");
    assert!(compared.refused > 10_000 && compared.differences > 1_000, "{compared:?}");
}

fn compare(ours: &Frame<'_>, whole: &[u8], compared: &mut Compared) {
    let theirs = parse_frame(whole);
    match ours.header.kind {
        FrameType::NOTIFY => {
            let (Ok(messages), Ok((_, theirs))) = (Messages::check(ours.payload), &theirs) else {
                // A number too long for 64 bits is read by the other; nothing else is refused here only.
                assert!(Messages::check(ours.payload).is_err(), "{whole:02x?}");
                assert_eq!(naive::messages(ours.payload), None, "{whole:02x?}");
                compared.refused += 1;
                return;
            };
            let ids = theirs.metadata();
            assert_eq!(
                (ids.stream_id, ids.frame_id),
                (ours.header.stream_id, ours.header.frame_id)
            );
            let FramePayload::ListOfMessages(list) = theirs.payload() else { panic!("messages") };
            assert_eq!(messages.count(), list.len());
            for (ours, theirs) in messages.zip(list) {
                assert_eq!(String::from_utf8_lossy(ours.name()), theirs.name);
                assert_eq!(ours.args().len(), theirs.args.len());
                for (ours, (name, value)) in ours.args().zip(&theirs.args) {
                    assert_eq!(String::from_utf8_lossy(ours.name), *name);
                    compared.values += 1;
                    compared.differences += usize::from(!same(&ours.value, value));
                }
            }
        }
        FrameType::HAPROXY_HELLO => {
            let ours = HaproxyHello::decode(ours.payload).expect("a good HELLO");
            let (_, theirs) = theirs.expect("a good HELLO");
            let FramePayload::KVList(map) = theirs.payload() else { panic!("keys") };
            let size = ours.max_frame_size.map(|size| u32::try_from(size).expect("32 bits"));
            assert_eq!(map.get("max-frame-size"), size.map(TypedData::UInt32).as_ref());
            let id = ours.engine_id.map(|id| String::from_utf8_lossy(id).into_owned());
            assert_eq!(map.get("engine-id"), id.map(TypedData::String).as_ref());
            let check = ours.healthcheck.then_some(TypedData::Bool(true));
            assert_eq!(map.get("healthcheck"), check.as_ref());
        }
        _ => {
            let ours = Disconnect::decode(ours.payload).expect("a good DISCONNECT");
            let (_, theirs) = theirs.expect("a good DISCONNECT");
            let FramePayload::KVList(map) = theirs.payload() else { panic!("keys") };
            assert_eq!(map.get("status-code"), Some(&TypedData::UInt32(ours.status.0)));
            let message = String::from_utf8_lossy(ours.message).into_owned();
            assert_eq!(map.get("message"), Some(&TypedData::String(message)));
        }
    }
    compared.accepted += 1;
}

/// Whether the values are the same; panics where they differ in another way than is listed above.
fn same(ours: &Value<'_>, theirs: &TypedData) -> bool {
    match (*ours, theirs) {
        (Value::Null, TypedData::Null) => true,
        // The other flags are not seen here: a true one with more of them is false to HAProxy.
        (Value::Bool(a), TypedData::Bool(b)) => {
            assert!(*b || !a);
            a == *b
        }
        (Value::Int32(a), TypedData::Int32(b)) => a == *b,
        (Value::Uint32(a), TypedData::UInt32(b)) => a == *b,
        (Value::Int64(a), TypedData::Int64(b)) => {
            assert_eq!(a, *b);
            true
        }
        (Value::Uint64(a), TypedData::UInt64(b)) => {
            assert_eq!(a, *b);
            true
        }
        (Value::Int64(a), TypedData::Int32(_)) => {
            assert!(i32::try_from(a).is_err(), "{a} fits");
            false
        }
        (Value::Uint64(a), TypedData::UInt32(_)) => {
            assert!(u32::try_from(a).is_err(), "{a} fits");
            false
        }
        (Value::Ipv4(a), TypedData::IPv4(b)) => {
            assert_eq!(a, *b);
            true
        }
        (Value::Ipv6(a), TypedData::IPv6(b)) => {
            assert_eq!(a, *b);
            true
        }
        (Value::Str(a), TypedData::String(b)) => {
            assert_eq!(String::from_utf8_lossy(a), *b);
            a == b.as_bytes()
        }
        (Value::Bin(a), TypedData::Binary(b)) => {
            assert_eq!(a, b);
            true
        }
        (Value::Bin(a), TypedData::String(b)) => {
            assert_eq!(String::from_utf8_lossy(a), *b);
            false
        }
        (ours, theirs) => panic!("{ours:?} is not {theirs:?}"),
    }
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }

    fn payload(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..self.below(3) {
            self.string(&mut out);
            let count = self.below(4).to_le_bytes()[0];
            out.push(count);
            for _ in 0..count {
                self.string(&mut out);
                self.value(&mut out);
            }
        }
        match self.below(8) {
            0 if !out.is_empty() => drop(out.pop()),
            1 => out.push(self.byte()),
            2 if !out.is_empty() => {
                let at = usize::try_from(self.below(out.len() as u64)).expect("small");
                out[at] = self.byte();
            }
            _ => {}
        }
        out
    }

    fn string(&mut self, out: &mut Vec<u8>) {
        let length = self.below(6).to_le_bytes()[0];
        out.push(length);
        for _ in 0..length {
            let byte = self.byte();
            out.push(if self.0.is_multiple_of(4) { byte } else { byte % 128 });
        }
    }

    fn value(&mut self, out: &mut Vec<u8>) {
        let kind = self.below(10).to_le_bytes()[0];
        let flags = if self.below(4) == 0 { self.byte() & 0xf0 } else { 0 };
        out.push(kind | flags);
        match kind {
            2..=5 => {
                let width = self.below(64);
                let value = self.below(u64::MAX) >> width;
                spop_proto::wire::encode_varint(value, out);
            }
            6 => (0..4).for_each(|_| out.push(self.byte())),
            7 => (0..16).for_each(|_| out.push(self.byte())),
            8 | 9 => self.string(out),
            _ => {}
        }
    }
}
