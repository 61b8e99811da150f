//! Arguments as they are written on the command line.

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use spop_proto::wire::NotifyPayload;
use spop_proto::{OwnedValue, Value};

use crate::args::Messages;

/// The payload of a NOTIFY with these messages.
pub(crate) fn payload(messages: &Messages) -> Result<NotifyPayload, String> {
    let mut payload: Option<NotifyPayload> = None;
    for (name, arguments) in &messages.0 {
        let mut with = match payload {
            None => NotifyPayload::new(name),
            Some(payload) => payload.message(name),
        };
        for text in arguments {
            let (argument, value) = argument(text)?;
            with = with.arg(argument, &value);
        }
        payload = Some(with);
    }
    payload.ok_or_else(|| "no message to send".to_owned())
}

/// Name and value.
fn argument(text: &str) -> Result<(&str, OwnedValue), String> {
    let split = text.strip_prefix(':').map(|value| ("", value)).or_else(|| text.split_once('='));
    let Some((name, value)) = split else {
        return Err(format!(
            "`{text}` is no argument: write NAME=VALUE, or =VALUE for one without a name; the \
             endpoint stands before -m"
        ));
    };
    let value = parse(value).map_err(|reason| format!("argument `{text}`: {reason}"))?;
    Ok((name, value))
}

fn parse(text: &str) -> Result<OwnedValue, String> {
    if let Some(path) = text.strip_prefix('@') {
        let bytes = read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        return Ok(Value::Bin(&bytes).to_owned());
    }
    let typed = text.split_once(':').map(|(kind, text)| forced(kind, text));
    typed.flatten().unwrap_or_else(|| Ok(guessed(text)))
}

/// With a type in front; `None` where that is no type.
fn forced(kind: &str, text: &str) -> Option<Result<OwnedValue, String>> {
    let value = match kind {
        "null" if text.is_empty() => Ok(OwnedValue::Null),
        "null" => Err("null has no value: write null:".to_owned()),
        "bool" => number(text, "true or false").map(OwnedValue::Bool),
        "int32" => number(text, "an integer of 32 bits").map(OwnedValue::Int32),
        "uint32" => number(text, "an unsigned integer of 32 bits").map(OwnedValue::Uint32),
        "int64" => number(text, "an integer of 64 bits").map(OwnedValue::Int64),
        "uint64" => number(text, "an unsigned integer of 64 bits").map(OwnedValue::Uint64),
        "ipv4" => number::<Ipv4Addr>(text, "an IPv4 address").map(OwnedValue::Ipv4),
        "ipv6" => number::<Ipv6Addr>(text, "an IPv6 address").map(OwnedValue::Ipv6),
        "str" => Ok(Value::from(text).to_owned()),
        "bin" => hexadecimal(text).map(|bytes| Value::Bin(&bytes).to_owned()),
        _ => return None,
    };
    Some(value)
}

/// The type that HAProxy would send such a value with, most likely.
fn guessed(text: &str) -> OwnedValue {
    if let Ok(address) = text.parse::<IpAddr>() {
        Value::from(address).to_owned()
    } else if let Ok(integer) = text.parse() {
        OwnedValue::Int64(integer)
    } else if let Ok(truth) = text.parse() {
        OwnedValue::Bool(truth)
    } else {
        Value::from(text).to_owned()
    }
}

fn number<T: FromStr>(text: &str, expected: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not {expected}"))
}

fn hexadecimal(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("`{text}` is not hexadecimal: two digits for each byte");
    let digits: Vec<_> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let bytes = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(high << 4 | low),
        _ => None,
    });
    bytes.collect::<Option<_>>().ok_or_else(wrong)
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    if path != "-" {
        return fs::read(path);
    }
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        match argument(text) {
            Ok((name, value)) => format!("{name} {value}"),
            Err(error) => error,
        }
    }

    #[test]
    fn types_are_guessed() {
        for (text, expected) in [
            ("ip=192.0.2.1", "ip ipv4:192.0.2.1"),
            ("ip=2001:db8::1", "ip ipv6:2001:db8::1"),
            ("n=-5", "n int64:-5"),
            ("n=9223372036854775808", "n str:9223372036854775808"),
            ("b=true", "b bool:true"),
            ("b=True", "b str:True"),
            ("t=12:30", "t str:12:30"),
            ("q=a=b", "q str:a=b"),
            ("e=", "e str:"),
            ("=7", " int64:7"),
            (":7", " int64:7"),
            (":a=b", " str:a=b"),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn types_are_forced() {
        for (text, expected) in [
            ("n=null:", "n null"),
            ("n=str:7", "n str:7"),
            ("n=str:@f", "n str:@f"),
            ("n=bin:00Ff", "n bin:\\x00\\xff"),
            ("n=bin:", "n bin:"),
            ("n=int32:-1", "n int32:-1"),
            ("n=uint32:4294967295", "n uint32:4294967295"),
            ("n=int64:1", "n int64:1"),
            ("n=uint64:18446744073709551615", "n uint64:18446744073709551615"),
            ("n=bool:false", "n bool:false"),
            ("n=ipv4:1.2.3.4", "n ipv4:1.2.3.4"),
            ("=ipv6:::1", " ipv6:::1"),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("n=uint32:-1", "argument `n=uint32:-1`: `-1` is not an unsigned integer of 32 bits"),
            (
                "n=bin:abc",
                "argument `n=bin:abc`: `abc` is not hexadecimal: two digits for each byte",
            ),
            ("n=null:x", "argument `n=null:x`: null has no value: write null:"),
            ("n=ipv4:::1", "argument `n=ipv4:::1`: `::1` is not an IPv4 address"),
        ] {
            assert_eq!(words(text), expected);
        }
        assert!(words("127.0.0.1:80").contains("the endpoint stands before -m"));
        assert!(words("b=@/nowhere").starts_with("argument `b=@/nowhere`: cannot read /nowhere: "));
    }
}
