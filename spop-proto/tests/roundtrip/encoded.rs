//! What is encoded decodes to itself.

use proptest::collection::vec;
use proptest::prelude::*;
use spop_proto::wire::{
    Actions, AgentHello, Disconnect, Flags, Frame, FrameHeader, FrameType, HaproxyHello,
    NotifyPayload, Version, decode_varint, encode_varint, varint_len,
};
use spop_proto::{Action, DecodeErrorKind, Messages, Status, Value};

use crate::common::*;
use crate::naive::*;

proptest! {
    #[test]
    fn varints(value in number()) {
        let mut out = Vec::new();
        encode_varint(value, &mut out);
        prop_assert_eq!(&out, &varint(value));
        prop_assert_eq!(varint_len(value), out.len());
        prop_assert_eq!(naive_varint(&out), Some((value, out.len())));
        out.push(7);
        prop_assert_eq!(decode_varint(&out), Ok((value, &[7][..])));
    }

    #[test]
    fn varints_of_any_bytes(bytes in prop_oneof![wild_bytes(), longest_varint()]) {
        let naive = naive_varint(&bytes);
        match decode_varint(&bytes) {
            Ok((value, rest)) => {
                prop_assert_eq!(naive, Some((value, bytes.len() - rest.len())));
                // Bijective: there is no other form of the same number.
                prop_assert_eq!(varint(value), &bytes[..bytes.len() - rest.len()]);
            }
            Err(error) => {
                prop_assert_eq!(naive, None);
                let cut = error.kind == DecodeErrorKind::Truncated;
                prop_assert!(!cut || bytes.len() < 10);
            }
        }
    }

    #[test]
    fn values(value in value(), rest in some_bytes()) {
        let borrowed = value.as_value();
        let mut out = Vec::new();
        borrowed.encode(&mut out);
        prop_assert_eq!(&out, &naive_value(&value));
        prop_assert_eq!(borrowed.encoded_len(), out.len());
        out.extend(&rest);
        prop_assert_eq!(Value::decode(&out), Ok((borrowed, &rest[..])));
        prop_assert_eq!(borrowed.to_owned(), value.clone());
    }

    #[test]
    fn notifies(messages in messages()) {
        let mut payload = None;
        for (name, args) in &messages {
            let begun = match payload {
                None => NotifyPayload::new(name),
                Some(payload) => NotifyPayload::message(payload, name),
            };
            payload = Some(args.iter().fold(begun, |p, (name, value)| p.arg(name, value)));
        }
        let payload = payload.unwrap();
        prop_assert_eq!(payload.as_bytes().unwrap(), naive_messages(&messages));
        let checked = Messages::check(payload.as_bytes().unwrap()).unwrap();
        let decoded: Vec<OwnedMessage> = checked
            .map(|m| {
                let args = m.args().map(|arg| (arg.name.to_vec(), arg.value.to_owned()));
                (m.name().to_vec(), args.collect())
            })
            .collect();
        prop_assert_eq!(decoded, messages);
    }

    #[test]
    fn actions(list in vec((scope(), some_bytes(), proptest::option::of(value())), 0..6)) {
        let actions: Vec<Action<'_>> = list
            .iter()
            .map(|(scope, name, value)| match value {
                Some(value) => Action::SetVar { scope: *scope, name, value: value.as_value() },
                None => Action::UnsetVar { scope: *scope, name },
            })
            .collect();
        let mut out = Vec::new();
        let mut naive = Vec::new();
        for (action, (scope, name, value)) in actions.iter().zip(&list) {
            let before = out.len();
            action.encode(&mut out);
            prop_assert_eq!(out.len() - before, action.encoded_len());
            let head = if value.is_some() { [1, 3] } else { [2, 2] };
            naive.extend(head);
            naive.push(*scope as u8);
            naive.extend(counted(name));
            naive.extend(value.iter().flat_map(naive_value));
        }
        prop_assert_eq!(&out, &naive);
        let decoded: Result<Vec<_>, _> = Actions::new(&out).collect();
        prop_assert_eq!(decoded, Ok(actions));
    }

    #[test]
    fn haproxy_hellos(
        versions in proptest::option::of(some_bytes()),
        size in proptest::option::of(number()),
        capabilities in proptest::option::of(some_bytes()),
        engine_id in proptest::option::of(some_bytes()),
        healthcheck in any::<bool>(),
        describe in any::<bool>(),
    ) {
        let hello = HaproxyHello {
            supported_versions: versions.as_deref(),
            max_frame_size: size,
            capabilities: capabilities.as_deref(),
            engine_id: engine_id.as_deref(),
            healthcheck,
            describe,
        };
        let mut out = Vec::new();
        hello.encode(&mut out);
        prop_assert_eq!(HaproxyHello::decode(&out), Ok(hello));
    }

    #[test]
    fn agent_hellos(
        version in proptest::option::of(some_bytes()),
        size in proptest::option::of(number()),
        capabilities in proptest::option::of(some_bytes()),
        description in proptest::option::of(some_bytes()),
    ) {
        let hello = AgentHello {
            version: version.as_deref(),
            max_frame_size: size,
            capabilities: capabilities.as_deref(),
            description: description.as_deref(),
        };
        let mut out = Vec::new();
        hello.encode(&mut out);
        prop_assert_eq!(AgentHello::decode(&out), Ok(hello));
    }

    #[test]
    fn disconnects(status in any::<u32>(), message in vec(any::<u8>(), 0..300)) {
        let mut out = Vec::new();
        Disconnect { status: Status(status), message: &message }.encode(&mut out);
        let message = &message[..message.len().min(220)];
        prop_assert_eq!(&out, &[
            pair("status-code", &uint32(u64::from(status))),
            pair("message", &string(message)),
        ].concat());
        prop_assert_eq!(
            Disconnect::decode(&out),
            Ok(Disconnect { status: Status(status), message })
        );
    }

    #[test]
    fn frames(
        kind in any::<u8>(),
        flags in any::<u32>(),
        stream_id in number(),
        frame_id in number(),
        payload in some_bytes(),
        rest in some_bytes(),
    ) {
        let header = FrameHeader {
            kind: FrameType(kind),
            flags: Flags(flags),
            stream_id,
            frame_id,
        };
        let whole = Frame { header, payload: &payload };
        let mut out = Vec::new();
        whole.encode(&mut out);
        prop_assert_eq!(&out, &frame(kind, flags, stream_id, frame_id, &payload));
        for cut in 0..out.len() {
            prop_assert_eq!(Frame::split(&out[..cut]), Ok(None));
        }
        out.extend(&rest);
        prop_assert_eq!(Frame::split(&out), Ok(Some((whole, &rest[..]))));
    }

    #[test]
    fn scopes_versions_and_capabilities(scope in scope(), major in 1..9_u32, minor in 0..999_u32) {
        prop_assert_eq!(scope.as_str().parse(), Ok(scope));
        let version = Version { major, minor };
        prop_assert_eq!(Version::parse(version.to_string().as_bytes()), Some(version));
    }
}
