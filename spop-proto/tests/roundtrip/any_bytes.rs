//! Any bytes: no panic, and what decodes is encoded and decoded to the same.

use proptest::collection::vec;
use proptest::prelude::*;
use spop_proto::wire::{Actions, AgentHello, Disconnect, Frame, HaproxyHello, Version};
use spop_proto::{Capabilities, Messages, Value};

use crate::common::*;
use crate::naive::*;

proptest! {
    #[test]
    fn any_bytes_as_values(tag in any::<u8>(), bytes in prop_oneof![wild_bytes(), longest_varint()]) {
        let bytes = [vec![tag], bytes].concat();
        let decoded = Value::decode(&bytes).ok();
        let decoded = decoded.map(|(value, rest)| (value.to_owned(), bytes.len() - rest.len()));
        prop_assert_eq!(decoded, naive_decode(&bytes));
        if let Ok((value, rest)) = Value::decode(&bytes) {
            prop_assert!(bytes.ends_with(rest));
            let mut out = Vec::new();
            value.encode(&mut out);
            prop_assert_eq!(Value::decode(&out), Ok((value, &b""[..])));
        }
    }

    #[test]
    fn any_bytes_as_messages(bytes in wild_bytes()) {
        match Messages::check(&bytes) {
            Ok(checked) => {
                let decoded: Vec<OwnedMessage> = checked
                    .map(|m| {
                        let args = m.args().map(|a| (a.name.to_vec(), a.value.to_owned()));
                        (m.name().to_vec(), args.collect())
                    })
                    .collect();
                let count: usize = checked.map(|m| m.args().len()).sum();
                prop_assert_eq!(count, decoded.iter().map(|(_, args)| args.len()).sum::<usize>());
                let again = naive_messages(&decoded);
                prop_assert_eq!(Messages::check(&again).unwrap().count(), decoded.len());
            }
            Err(error) => prop_assert!(error.offset <= bytes.len()),
        }
    }

    #[test]
    fn any_bytes_as_actions(bytes in wild_bytes()) {
        let mut good = Vec::new();
        for action in Actions::new(&bytes) {
            match action {
                Ok(action) => good.push(action),
                Err(error) => prop_assert!(error.offset <= bytes.len()),
            }
        }
        let mut out = Vec::new();
        good.iter().for_each(|action| action.encode(&mut out));
        let again: Result<Vec<_>, _> = Actions::new(&out).collect();
        prop_assert_eq!(again, Ok(good));
    }

    #[test]
    fn any_bytes_as_frames(bytes in wild_bytes()) {
        if let Ok(decoded) = Frame::decode(&bytes) {
            let mut out = Vec::new();
            decoded.encode(&mut out);
            prop_assert_eq!(&out[4..], &bytes[..], "a header has one form only");
            prop_assert_eq!(Frame::split(&out), Ok(Some((decoded, &b""[..]))));
        }
        let _ = Frame::split(&bytes);
    }

    #[test]
    fn any_bytes_as_pairs(bytes in pairs_or_wild()) {
        if let Ok(hello) = HaproxyHello::decode(&bytes) {
            let mut out = Vec::new();
            hello.encode(&mut out);
            prop_assert_eq!(HaproxyHello::decode(&out), Ok(hello));
        }
        if let Ok(hello) = AgentHello::decode(&bytes) {
            let mut out = Vec::new();
            hello.encode(&mut out);
            prop_assert_eq!(AgentHello::decode(&out), Ok(hello));
        }
        if let Ok(goodbye) = Disconnect::decode(&bytes) {
            let mut out = Vec::new();
            goodbye.encode(&mut out);
            let message = &goodbye.message[..goodbye.message.len().min(220)];
            prop_assert_eq!(Disconnect::decode(&out), Ok(Disconnect { message, ..goodbye }));
        }
    }

    #[test]
    fn any_bytes_as_words(bytes in wild_bytes()) {
        let known = Capabilities::parse(&bytes);
        prop_assert_eq!(Capabilities::parse(known.as_str().as_bytes()), known);
        if let Some(version) = Version::parse(&bytes) {
            prop_assert_eq!(Version::parse(version.to_string().as_bytes()), Some(version));
        }
        prop_assert!(Version::parse_list(&bytes).count() <= bytes.len());
    }
}

/// Lists of pairs with known keys and any values, now and then with anything.
fn pairs_or_wild() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        Just("supported-versions"),
        Just("version"),
        Just("max-frame-size"),
        Just("capabilities"),
        Just("engine-id"),
        Just("healthcheck"),
        Just("status-code"),
        Just("message"),
        Just("new"),
        Just(""),
    ];
    let one = (key, value()).prop_map(|(key, value)| pair(key, &naive_value(&value)));
    prop_oneof![4 => vec(one, 0..5).prop_map(|pairs| pairs.concat()), 1 => wild_bytes()]
}
