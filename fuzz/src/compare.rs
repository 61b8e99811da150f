//! What the crate decoded, against what the naive decoder read.

use spop_proto::wire::{Actions, AgentHello, Disconnect, Frame, HaproxyHello, Messages};
use spop_proto::{Action, Status, Value};

use crate::naive::{self, Data};

/// Asserts that a frame's header is read alike, or refused alike.
pub fn frames(bytes: &[u8]) {
    let naive = naive::frame(bytes);
    let ours = Frame::decode(bytes).ok().map(|frame| naive::Frame {
        kind: frame.header.kind.0,
        flags: frame.header.flags.0,
        stream: frame.header.stream_id,
        frame: frame.header.frame_id,
        payload: frame.payload.to_vec(),
    });
    assert_eq!(ours, naive, "a frame");
}

/// The same of the payload of a NOTIFY.
pub fn notifies(payload: &[u8]) {
    let naive = naive::messages(payload);
    let Ok(ours) = Messages::check(payload) else {
        assert_eq!(naive, None, "messages were refused");
        return;
    };
    same_messages(ours, &naive.expect("messages were accepted"));
}

/// The same of messages that were accepted.
pub fn same_messages(ours: Messages<'_>, naive: &[naive::Message]) {
    let ours: Vec<_> = ours.collect();
    assert_eq!(ours.len(), naive.len(), "messages");
    for (ours, naive) in ours.into_iter().zip(naive) {
        assert_eq!(ours.name(), naive.name);
        assert_eq!(ours.args().len(), naive.args.len(), "arguments");
        for (ours, (name, data)) in ours.args().zip(&naive.args) {
            assert_eq!(ours.name, name);
            same_value(&ours.value, data);
        }
    }
}

/// The same of the payload of an ACK: what counts before the first bad action.
pub fn answers(payload: &[u8]) {
    let (naive, bad) = naive::actions(payload);
    let mut ours = Vec::new();
    let mut failed = false;
    for action in Actions::new(payload) {
        assert!(!failed, "an action after a bad one");
        match action {
            Ok(action) => ours.push(action),
            Err(_) => failed = true,
        }
    }
    assert_eq!((ours.len(), failed), (naive.len(), bad), "actions");
    for (ours, naive) in ours.iter().zip(&naive) {
        assert_eq!((ours.scope() as u8, ours.name()), (naive.scope, &naive.name[..]));
        match (ours, &naive.value) {
            (Action::SetVar { value, .. }, Some(data)) => same_value(value, data),
            (Action::UnsetVar { .. }, None) => {}
            _ => panic!("{ours:?} is not {naive:?}"),
        }
    }
}

/// The same of the three payloads that are lists of keys.
pub fn keys(payload: &[u8]) {
    let pairs = naive::pairs(payload);
    let pairs = pairs.as_deref();
    let ours = HaproxyHello::decode(payload).ok();
    let naive = pairs.and_then(|pairs| {
        Some(HaproxyHello {
            supported_versions: string(pairs, "supported-versions")?,
            max_frame_size: integer(pairs, "max-frame-size")?,
            capabilities: string(pairs, "capabilities")?,
            engine_id: string(pairs, "engine-id")?,
            healthcheck: boolean(pairs, "healthcheck")?.unwrap_or(false),
            describe: boolean(pairs, "describe")?.unwrap_or(false),
        })
    });
    assert_eq!(ours, naive, "HAPROXY-HELLO");
    let ours = AgentHello::decode(payload).ok();
    let naive = pairs.and_then(|pairs| {
        Some(AgentHello {
            version: string(pairs, "version")?,
            max_frame_size: integer(pairs, "max-frame-size")?,
            capabilities: string(pairs, "capabilities")?,
            description: string(pairs, "description")?,
        })
    });
    assert_eq!(ours, naive, "AGENT-HELLO");
    let ours = Disconnect::decode(payload).ok();
    let naive = pairs.and_then(|pairs| {
        let code = integer(pairs, "status-code")?.unwrap_or(0);
        Some(Disconnect {
            // 99 is the manual's "unknown error".
            status: Status(u32::try_from(code).unwrap_or(99)),
            message: string(pairs, "message")?.unwrap_or_default(),
        })
    });
    assert_eq!(ours, naive, "DISCONNECT");
}

type Pairs = [(Vec<u8>, Data)];

/// The last value of a key; `None` where any value of it has the wrong type.
fn last<'a, T>(
    pairs: &'a Pairs,
    name: &str,
    read: impl Fn(&'a Data) -> Option<T>,
) -> Option<Option<T>> {
    let mut found = None;
    for (_, data) in pairs.iter().filter(|(key, _)| key == name.as_bytes()) {
        found = Some(read(data)?);
    }
    Some(found)
}

/// A string; as for HAProxy, one with flags is none.
pub fn string<'a>(pairs: &'a Pairs, name: &str) -> Option<Option<&'a [u8]>> {
    last(pairs, name, |data| ((data.kind, data.flags) == (8, 0)).then_some(&data.bytes[..]))
}

/// An integer of any type.
pub fn integer(pairs: &Pairs, name: &str) -> Option<Option<u64>> {
    last(pairs, name, |data| matches!(data.kind, 2..=5).then_some(data.integer))
}

/// A boolean.
pub fn boolean(pairs: &Pairs, name: &str) -> Option<Option<bool>> {
    last(pairs, name, |data| (data.kind == 1).then_some(data.flags == 1))
}

/// Asserts that a value is what the naive decoder read.
pub fn same_value(ours: &Value<'_>, data: &Data) {
    let plain = data.flags == 0;
    let same = match *ours {
        Value::Null => data.kind == 0 || data.kind > 9,
        // As in HAProxy, only this one flag makes it true.
        Value::Bool(on) => data.kind == 1 && on == (data.flags == 1),
        Value::Int32(v) => data.kind == 2 && i64::from(v).cast_unsigned() == data.integer,
        Value::Uint32(v) => data.kind == 3 && u64::from(v) == data.integer,
        // What does not fit 32 bits keeps its 64.
        Value::Int64(v) => {
            let wide = data.kind == 2 && i32::try_from(v).is_err();
            (data.kind == 4 || wide) && v.cast_unsigned() == data.integer
        }
        Value::Uint64(v) => {
            let wide = data.kind == 3 && u32::try_from(v).is_err();
            (data.kind == 5 || wide) && v == data.integer
        }
        Value::Ipv4(v) => data.kind == 6 && v.octets()[..] == data.bytes,
        Value::Ipv6(v) => data.kind == 7 && v.octets()[..] == data.bytes,
        Value::Str(v) => data.kind == 8 && plain && v == data.bytes,
        // As in HAProxy, a string with flags is a binary.
        Value::Bin(v) => (data.kind == 9 || (data.kind == 8 && !plain)) && v == data.bytes,
    };
    assert!(same, "{ours:?} is not {data:?}");
}
