//! What is encoded decodes to the same, also by the naive decoder.

use std::net::{Ipv4Addr, Ipv6Addr};

use arbitrary::{Arbitrary, Unstructured};
use spop_proto::wire::{
    Actions, AgentHello, Disconnect, Flags, Frame, FrameHeader, FrameType, HaproxyHello, Messages,
    NotifyPayload, Value,
};
use spop_proto::{Action, Scope, Status};

use crate::{compare, naive};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Notify(Head, Vec<Message<'a>>),
    Ack(Head, Vec<Change<'a>>),
    HaproxyHello {
        versions: Option<&'a [u8]>,
        size: Option<u64>,
        capabilities: Option<&'a [u8]>,
        engine: Option<&'a [u8]>,
        check: bool,
        describe: bool,
    },
    AgentHello {
        version: Option<&'a [u8]>,
        size: Option<u64>,
        capabilities: Option<&'a [u8]>,
        description: Option<&'a [u8]>,
    },
    Disconnect(u32, &'a [u8]),
}

#[derive(Arbitrary, Debug)]
struct Head {
    kind: u8,
    flags: u32,
    stream: u64,
    frame: u64,
}

#[derive(Arbitrary, Debug)]
struct Message<'a> {
    name: &'a [u8],
    args: Vec<(&'a [u8], Data<'a>)>,
}

#[derive(Arbitrary, Debug)]
struct Change<'a> {
    scope: u8,
    name: &'a str,
    value: Option<Data<'a>>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Data<'a> {
    Null,
    Bool(bool),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Ipv4([u8; 4]),
    Ipv6([u8; 16]),
    Str(&'a [u8]),
    Bin(&'a [u8]),
}

impl<'a> Data<'a> {
    fn value(self) -> Value<'a> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(v) => Value::Bool(v),
            Self::Int32(v) => Value::Int32(v),
            Self::Uint32(v) => Value::Uint32(v),
            Self::Int64(v) => Value::Int64(v),
            Self::Uint64(v) => Value::Uint64(v),
            Self::Ipv4(v) => Value::Ipv4(Ipv4Addr::from(v)),
            Self::Ipv6(v) => Value::Ipv6(Ipv6Addr::from(v)),
            Self::Str(v) => Value::Str(v),
            Self::Bin(v) => Value::Bin(v),
        }
    }
}

/// One input: whatever can be made of it.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    match input {
        Input::Notify(head, messages) => notify(&head, &messages),
        Input::Ack(head, changes) => ack(&head, &changes),
        Input::HaproxyHello { versions, size, capabilities, engine, check, describe } => {
            let hello = HaproxyHello {
                supported_versions: versions,
                max_frame_size: size,
                capabilities,
                engine_id: engine,
                healthcheck: check,
                describe,
            };
            let mut bytes = Vec::new();
            hello.encode(&mut bytes);
            assert_eq!(HaproxyHello::decode(&bytes), Ok(hello));
            compare::keys(&bytes);
        }
        Input::AgentHello { version, size, capabilities, description } => {
            let hello = AgentHello { version, max_frame_size: size, capabilities, description };
            let mut bytes = Vec::new();
            hello.encode(&mut bytes);
            assert_eq!(AgentHello::decode(&bytes), Ok(hello));
            compare::keys(&bytes);
        }
        Input::Disconnect(status, message) => {
            let mut bytes = Vec::new();
            Disconnect { status: Status(status), message }.encode(&mut bytes);
            // With more it would not fit the smallest frame.
            let message = &message[..message.len().min(220)];
            assert!(bytes.len() + 7 <= 256);
            let again = Disconnect::decode(&bytes);
            assert_eq!(again, Ok(Disconnect { status: Status(status), message }));
            compare::keys(&bytes);
        }
    }
}

fn frame(head: &Head, payload: &[u8]) {
    let header = FrameHeader {
        kind: FrameType(head.kind),
        flags: Flags(head.flags),
        stream_id: head.stream,
        frame_id: head.frame,
    };
    let frame = Frame { header, payload };
    let mut bytes = b"in front".to_vec();
    frame.encode(&mut bytes);
    let bytes = &bytes[8..];
    assert_eq!(Frame::split(bytes), Ok(Some((frame, &[][..]))));
    assert_eq!(Frame::split(&bytes[..bytes.len() - 1]), Ok(None));
    compare::frames(&bytes[4..]);
    let naive = naive::frame(&bytes[4..]).expect("a frame");
    assert_eq!((naive.kind, naive.flags), (head.kind, head.flags));
    assert_eq!((naive.stream, naive.frame), (head.stream, head.frame));
}

fn notify(head: &Head, messages: &[Message<'_>]) {
    let Some((first, rest)) = messages.split_first() else { return };
    let mut payload = NotifyPayload::new(first.name);
    for &(name, data) in &first.args {
        payload = payload.arg(name, data.value());
    }
    for message in rest {
        payload = payload.message(message.name);
        for &(name, data) in &message.args {
            payload = payload.arg(name, data.value());
        }
    }
    let Ok(bytes) = payload.as_bytes() else {
        assert!(messages.iter().any(|message| message.args.len() > 255), "too many arguments");
        return;
    };
    let again = Messages::check(bytes).expect("what was encoded decodes");
    assert_eq!(again.count(), messages.len());
    for (again, message) in again.zip(messages) {
        assert_eq!(again.name(), message.name);
        assert_eq!(again.args().len(), message.args.len());
        for (at, (again, (name, data))) in again.args().zip(&message.args).enumerate() {
            assert_eq!((again.name, again.value), (*name, data.value()));
            let mut alone = Vec::new();
            data.value().encode(&mut alone);
            assert_eq!(alone.len(), data.value().encoded_len());
            assert_eq!(Value::decode(&alone), Ok((data.value(), &[][..])));
            assert_eq!(data.value().to_owned().as_value(), data.value());
            assert!(at < 255);
        }
        assert!(again.arg_at(message.args.len()).is_none());
    }
    compare::notifies(bytes);
    frame(head, bytes);
}

fn ack(head: &Head, changes: &[Change<'_>]) {
    let actions: Vec<_> = changes
        .iter()
        .map(|change| {
            let scope = Scope::ALL[usize::from(change.scope) % Scope::ALL.len()];
            match change.value {
                Some(data) => Action::set(scope, change.name, data.value()),
                None => Action::unset(scope, change.name),
            }
        })
        .collect();
    let mut bytes = Vec::new();
    for action in &actions {
        let before = bytes.len();
        action.encode(&mut bytes);
        assert_eq!(bytes.len() - before, action.encoded_len());
    }
    let again: Result<Vec<_>, _> = Actions::new(&bytes).collect();
    assert_eq!(again, Ok(actions));
    compare::answers(&bytes);
    frame(head, &bytes);
}
