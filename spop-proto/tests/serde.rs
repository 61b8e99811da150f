//! Typed arguments: what each type takes, what it does not, and in which words it says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;
use spop_proto::wire::NotifyPayload;
use spop_proto::{ArgError, Message, Messages, Router, Value};

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
struct Check<'a> {
    ip: IpAddr,
    src_port: u16,
    path: Option<&'a str>,
    #[serde(borrow)]
    body: Option<&'a [u8]>,
    method: Option<Method>,
    #[serde(default)]
    ssl: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Post,
}

fn with<T>(payload: NotifyPayload, check: impl FnOnce(Message<'_>) -> T) -> T {
    check(Messages::check(payload.as_bytes().unwrap()).unwrap().next().unwrap())
}

fn message() -> NotifyPayload {
    NotifyPayload::new("check")
}

/// One argument `a`, in a struct, as a `T`.
#[track_caller]
fn one<'v, T>(value: impl Into<Value<'v>>) -> Result<T, ArgError>
where
    T: for<'a> Deserialize<'a>,
{
    #[derive(Deserialize)]
    struct One<T> {
        a: T,
    }
    with(message().arg("a", value), |m| m.deserialize::<One<T>>().map(|one| one.a))
}

#[track_caller]
fn error<T: Debug>(result: Result<T, ArgError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_struct_takes_arguments_by_name() {
    let payload = message()
        .arg("path", "/p")
        .arg("", "unnamed")
        .arg("src-port", 443_i64)
        .arg("body", &b"\xff\x00"[..])
        .arg("extra", true)
        .arg("ip", Ipv4Addr::LOCALHOST)
        .arg("method", "POST");
    with(payload, |m| {
        let check: Check<'_> = m.deserialize().unwrap();
        let expected = Check {
            ip: Ipv4Addr::LOCALHOST.into(),
            src_port: 443,
            path: Some("/p"),
            body: Some(b"\xff\x00"),
            method: Some(Method::Post),
            ssl: false,
        };
        assert_eq!(check, expected);
        // Borrowed, not copied.
        let Some(Value::Str(path)) = m.arg("path") else { panic!() };
        assert_eq!(check.path.unwrap().as_ptr(), path.as_ptr());
    });
    let payload = message()
        .arg("ip", Ipv6Addr::LOCALHOST)
        .arg("src-port", 1)
        .arg("path", Value::Null)
        .arg("method", Value::Null)
        .arg("ssl", true);
    with(payload, |m| {
        let check: Check<'_> = m.deserialize().unwrap();
        assert_eq!((check.ip, check.path, check.method), (Ipv6Addr::LOCALHOST.into(), None, None));
        assert!(check.ssl);
    });
}

#[test]
fn other_shapes() {
    let payload = || message().arg("ip", Ipv4Addr::LOCALHOST).arg("", "x").arg("n", 7);
    with(payload(), |m| {
        assert_eq!(m.deserialize::<(IpAddr, &str, u8)>(), Ok((Ipv4Addr::LOCALHOST.into(), "x", 7)));
        // An Option may be absent at the end; what is too much is left.
        let (.., last): (Ipv4Addr, String, i64, Option<bool>) = m.deserialize().unwrap();
        assert_eq!(last, None);
        assert_eq!(m.deserialize::<(IpAddr,)>(), Ok((Ipv4Addr::LOCALHOST.into(),)));
        assert_eq!(
            error(m.deserialize::<(IpAddr, &str, u8, bool)>()),
            "message check: argument number 4 is missing; HAProxy sent ip, (unnamed), n"
        );
        assert_eq!(
            error(m.deserialize::<(IpAddr, bool)>()),
            "message check: argument number 2 is str, expected a boolean (in HAProxy: `bool(true)` \
             or a converter such as `,bool`)"
        );
        #[derive(Deserialize)]
        struct Wrapped(HashMap<String, serde::de::IgnoredAny>);
        let mut names: Vec<_> = m.deserialize::<Wrapped>().unwrap().0.into_keys().collect();
        names.sort();
        assert_eq!(names, ["ip", "n"]);
        assert_eq!(m.deserialize(), Ok(()));
        assert!(m.deserialize::<Option<(IpAddr,)>>().unwrap().is_some());
        assert_eq!(error(m.deserialize::<u8>()), "message check: its arguments make no u8");
    });
    with(message().arg("", 1).arg("", 2), |m| {
        assert_eq!(m.deserialize::<Vec<u8>>(), Ok(vec![1, 2]));
    });
}

#[test]
fn leaf_types() {
    assert_eq!(one::<u8>(255), Ok(255));
    assert_eq!(one::<i128>(u64::MAX), Ok(i128::from(u64::MAX)));
    assert_eq!(one::<i64>(-1_i32), Ok(-1));
    assert_eq!(one::<f64>(3), Ok(3.0));
    assert_eq!(one::<bool>(true), Ok(true));
    assert_eq!(one::<char>("x"), Ok('x'));
    assert_eq!(one::<String>("text"), Ok("text".to_owned()));
    assert_eq!(one::<Vec<u8>>(b"\xff"), Ok(vec![0xff]));
    assert_eq!(one::<()>(Value::Null), Ok(()));
    assert_eq!(one::<Option<u8>>(Value::Null), Ok(None));
    assert_eq!(one::<Method>("GET"), Ok(Method::Get));
    let longest: Ipv6Addr = "1111:2222:3333:4444:5555:6666:7777:8888".parse().unwrap();
    assert_eq!(one::<Ipv6Addr>(longest), Ok(longest));
    assert_eq!(one::<IpAddr>("192.0.2.1"), Ok([192, 0, 2, 1].into()), "in a header it is a string");
}

#[test]
fn errors_are_in_haproxys_words() {
    let cases = [
        (error(one::<u16>(70_000)), "int32 70000, expected an integer that fits u16 (0 to 65535)"),
        (error(one::<u8>("7")), "str, expected an integer that fits u8 (0 to 255)"),
        (
            error(one::<bool>(1)),
            "int32 1, expected a boolean (in HAProxy: `bool(true)` or a converter such as `,bool`)",
        ),
        (
            error(one::<IpAddr>(Value::Null)),
            "NULL (HAProxy's fetch gave nothing), expected an IP address; take an Option if that may \
             happen",
        ),
        (error(one::<IpAddr>(7)), "int32 7, expected an IP address"),
        (error(one::<IpAddr>("10.0.0")), "str: invalid IP address syntax"),
        (error(one::<Ipv4Addr>(Ipv6Addr::LOCALHOST)), "ipv6: invalid IPv4 address syntax"),
        (
            error(one::<String>(Ipv4Addr::LOCALHOST)),
            "ipv4, expected a string of UTF-8 (take `&[u8]` for any bytes)",
        ),
        (
            error(one::<String>(b"x")),
            "bin, expected a string of UTF-8 (take `&[u8]` for any bytes)",
        ),
        (error(one::<Method>("PUT")), "str, expected one of GET, POST"),
        (error(one::<Method>(3)), "int32 3, expected one of GET, POST"),
        (error(one::<(u8, u8)>(3)), "int32 3, expected a tuple of size 2"),
    ];
    for (found, expected) in cases {
        assert_eq!(found, format!("message check: argument a is {expected}"));
    }
    with(message().arg("a", Ipv4Addr::LOCALHOST), |m| {
        #[derive(Debug, Deserialize)]
        struct Borrowed<'a> {
            #[expect(dead_code, reason = "it never gets there")]
            a: &'a str,
        }
        assert_eq!(
            error(m.deserialize::<Borrowed<'_>>()),
            "message check: argument a is ipv4, expected a string"
        );
    });
    with(message().arg("src", Ipv4Addr::LOCALHOST).arg("path", "/"), |m| {
        assert_eq!(
            error(m.deserialize::<Check<'_>>()),
            "message check: argument ip is missing; HAProxy sent src, path. In the spoe-message \
             section: args ip=…"
        );
    });
}

#[test]
fn what_structs_refuse() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "never made")]
    struct Strict {
        ip: IpAddr,
        port: Option<u16>,
    }
    let ip = Ipv4Addr::LOCALHOST;
    with(message().arg("ip", ip).arg("path", "/"), |m| {
        assert_eq!(
            error(m.deserialize::<Strict>()),
            "message check: argument path is not known, only ip, port; remove path=… from args in \
             the spoe-message section"
        );
    });
    with(message().arg("ip", ip).arg("ip", ip), |m| {
        assert_eq!(
            error(m.deserialize::<Strict>()),
            "message check: argument ip is there more than once; in the spoe-message section give \
             it once"
        );
    });
    // Names are bytes; one that is no text is none of a struct's.
    with(message().arg(b"\xff", 1).arg("ip", ip), |m| {
        assert!(m.deserialize::<Strict>().is_err());
        #[derive(Deserialize)]
        struct Loose {
            ip: Ipv4Addr,
        }
        assert_eq!(m.deserialize::<Loose>().unwrap().ip, ip);
    });
}

/// An address that was formatted, strings, bytes, integers, an enum: nothing is allocated for them.
#[test]
fn nothing_is_allocated() {
    let payload = message()
        .arg("ip", Ipv6Addr::LOCALHOST)
        .arg("src-port", 443_i64)
        .arg("path", "/a/rather/long/path/that/would/be/copied")
        .arg("body", &b"\xff\x00"[..])
        .arg("method", "GET");
    with(payload, |m| {
        let count = allocation_counter::measure(|| {
            let check: Check<'_> = m.deserialize().unwrap();
            assert_eq!(check.src_port, 443);
            let (ip, port): (IpAddr, u16) = m.deserialize().unwrap();
            assert!(ip.is_loopback() && port == 443);
        });
        assert_eq!(count.count_total, 0);
    });
}

#[test]
fn a_type_declares_its_arguments() {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only its fields' names and types matter")]
    struct Many<'a> {
        any_ip: IpAddr,
        v4: Option<Ipv4Addr>,
        v6: Ipv6Addr,
        text: &'a str,
        owned: Option<String>,
        #[serde(borrow)]
        body: Option<&'a [u8]>,
        list: Vec<u8>,
        number: i8,
        flag: bool,
        method: Option<Method>,
    }
    let router = Router::new()
        .on("m", |_, _| Ok(()))
        .args::<Many<'_>>()
        .declares(["any-ip=src", "id=unique-id"])
        .on("tuple", |_, _| Ok(()))
        .args::<(u8, u8)>();
    let declared: Vec<_> = router.declared().collect();
    let args: Vec<_> = declared[0].1.iter().map(ToString::to_string).collect();
    assert_eq!(
        args,
        [
            "any-ip=src: an address",
            "v4: an IPv4 address, optional",
            "v6: an IPv6 address",
            "text: a string",
            "owned: a string, optional",
            "body: bytes, optional",
            "list: bytes",
            "number: an integer",
            "flag: a boolean",
            "method: one of GET, POST, optional",
            "id=unique-id",
        ]
    );
    assert_eq!(declared[1], ("tuple", &[][..]));
}
