//! The ten types of value: as HAProxy sends them, as it takes them, and there and back.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use spop_tokio::{AgentConfig, Scope, Value as Sent};

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{Client, Request};
use crate::site::{header, start_own};
use crate::spy::{Seen, Spy, Value};

use super::Case;

const ROW: &str = "all ten types, both ways";

pub(super) const CASES: &[Case] = &[
    Case::new("types_from_haproxy", types_from_haproxy).shown(ROW),
    Case::new("types_from_the_agent", types_from_the_agent).shown(ROW),
    Case::new("types_there_and_back", types_there_and_back).shown(ROW),
];

/// Arguments and the samples they are made of.
const ARGS: [(&str, &str); 18] = [
    ("yes", "bool(true)"),
    ("no", "bool(false)"),
    ("zero", "int(0)"),
    ("one", "int(1)"),
    ("minus", "int(-1)"),
    // The first number that takes two bytes, the first beyond 32 bits with a sign, and the ends.
    ("two_bytes", "int(240)"),
    ("beyond32", "int(2147483648)"),
    ("most", "int(9223372036854775807)"),
    ("least", "int(-9223372036854775808)"),
    ("v4", "ipv4(192.0.2.7)"),
    ("v6", "ipv6(2001:db8::7)"),
    ("text", "str(some text)"),
    ("empty", r#"str("")"#),
    ("bytes", "bin(00ff00fe)"),
    // HAProxy refuses `bin("")`; nothing, decoded, is an empty binary.
    ("no_bytes", r#"str(""),b64dec"#),
    ("header", "req.hdr(x-raw)"),
    ("method", "method"),
    ("absent", "req.hdr(x-absent)"),
];

/// Not UTF-8, and no NUL because it travels as a header.
const RAW: &[u8] = b"\xfe\x80\xc3";

/// What [`ARGS`] are at the agent.
fn received() -> Result<Seen, Failure> {
    let args = [
        ("yes", Value::Bool(true)),
        ("no", Value::Bool(false)),
        ("zero", Value::Int64(0)),
        ("one", Value::Int64(1)),
        ("minus", Value::Int64(-1)),
        ("two_bytes", Value::Int64(240)),
        ("beyond32", Value::Int64(2_147_483_648)),
        ("most", Value::Int64(9_223_372_036_854_775_807)),
        ("least", Value::Int64(-9_223_372_036_854_775_808)),
        ("v4", Value::Ipv4("192.0.2.7".parse()?)),
        ("v6", Value::Ipv6("2001:db8::7".parse()?)),
        ("text", Value::Str("some text".into())),
        ("empty", Value::Str("".into())),
        ("bytes", Value::Bin(b"\x00\xff\x00\xfe".as_slice().into())),
        ("no_bytes", Value::Bin("".into())),
        ("header", Value::Str(RAW.into())),
        ("method", Value::Str("GET".into())),
        ("absent", Value::Null),
    ];
    let args = args.map(|(name, value)| (name.to_owned(), value)).to_vec();
    Ok(Seen { message: "ask".to_owned(), args })
}

fn message_with_args() -> String {
    let mut spoe = "    messages ask\n\nspoe-message ask\n".to_owned();
    for (name, sample) in ARGS {
        let sample = sample.replace(' ', "\\ ");
        let _ = writeln!(spoe, "    args {name}={sample}");
    }
    spoe + "    event on-frontend-http-request\n"
}

/// Samples of every type reach the agent as the type the protocol has for it; one that is absent as
/// NULL, and a method, which is a type of its own to HAProxy, as a string.
fn types_from_haproxy(bench: &Bench) -> Result<(), Failure> {
    const PROXIES: &str = r#"
frontend web
    bind "${WEB}"
    filter spoe engine e2e config spoe.conf
    http-request return status 200 hdr error "%[var(txn.e2e.error)]" hdr done "%[var(txn.e2e.done)]"
"#;
    let address = port()?;
    let spy = Spy::start(address, |_| vec![("done", Value::Uint32(1))])?;
    let site = start_own(bench, address, PROXIES, &message_with_args())?;
    let response = Client::connect(site.web)?.send(&Request::get("/").header("x-raw", RAW))?;
    equal("the agent's variable", header(&response, "done").as_deref(), Some("1"))?;
    equal("the error", header(&response, "error"), None)?;
    equal("what the agent received", spy.take(), [received()?])
}

/// A value an agent sets, and what HAProxy makes of it.
struct Row {
    name: &'static str,
    value: Sent<'static>,
    /// Type and text, by `get var`: dots stand for what is not ASCII, and a binary ends at a NUL.
    described: &'static str,
    /// Its bytes; numbers have eight.
    hex: &'static str,
    /// A condition in which `V` stands for the variable.
    condition: &'static str,
}

const fn row(
    name: &'static str,
    value: Sent<'static>,
    described: &'static str,
    hex: &'static str,
    condition: &'static str,
) -> Row {
    Row { name, value, described, hex, condition }
}

const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

#[rustfmt::skip]
const ROWS: [Row; 22] = [
    row("yes", Sent::Bool(true), "type=bool value=<1>", "0000000000000001", "{ V -m bool }"),
    row("no", Sent::Bool(false), "type=bool value=<0>", "0000000000000000", "!{ V -m bool }"),
    row("i32", Sent::Int32(-1), "type=sint value=<-1>", "FFFFFFFFFFFFFFFF", "{ V,add(1) -m int 0 }"),
    row("i32_least", Sent::Int32(i32::MIN), "type=sint value=<-2147483648>", "FFFFFFFF80000000", "{ V -m int lt 0 }"),
    row("i32_most", Sent::Int32(i32::MAX), "type=sint value=<2147483647>", "000000007FFFFFFF", "{ V -m int gt 0 }"),
    row("u32", Sent::Uint32(0), "type=sint value=<0>", "0000000000000000", "{ V,add(1) -m int 1 }"),
    row("u32_most", Sent::Uint32(u32::MAX), "type=sint value=<4294967295>", "00000000FFFFFFFF", "{ V,add(1) -m int 4294967296 }"),
    row("i64", Sent::Int64(240), "type=sint value=<240>", "00000000000000F0", "{ V,add(1) -m int 241 }"),
    row("i64_least", Sent::Int64(i64::MIN), "type=sint value=<-9223372036854775808>", "8000000000000000", "{ V -m int lt 0 }"),
    row("i64_most", Sent::Int64(i64::MAX), "type=sint value=<9223372036854775807>", "7FFFFFFFFFFFFFFF", "{ V -m int gt 0 }"),
    row("u64", Sent::Uint64(0x7fff_ffff_ffff_ffff), "type=sint value=<9223372036854775807>", "7FFFFFFFFFFFFFFF", "{ V -m int gt 0 }"),
    // HAProxy has no unsigned numbers.
    row("u64_beyond", Sent::Uint64(0x8000_0000_0000_0000), "type=sint value=<-9223372036854775808>", "8000000000000000", "{ V -m int lt 0 }"),
    row("u64_most", Sent::Uint64(u64::MAX), "type=sint value=<-1>", "FFFFFFFFFFFFFFFF", "{ V,add(1) -m int 0 }"),
    row("v4", Sent::Ipv4(Ipv4Addr::new(192, 0, 2, 7)), "type=ipv4 value=<192.0.2.7>", "C0000207", "{ V -m ip 192.0.2.0/24 }"),
    row("v6", Sent::Ipv6(V6), "type=ipv6 value=<2001:db8::7>", "20010DB8000000000000000000000007", "{ V -m ip 2001:db8::/32 }"),
    row("text", Sent::Str(b"some text"), "type=str value=<some text>", "736F6D652074657874", "{ V -m beg some }"),
    row("digits", Sent::Str(b"1"), "type=str value=<1>", "31", "{ V -m str 1 }"),
    row("utf8", Sent::Str("Grüße".as_bytes()), "type=str value=<Gr....e>", "4772C3BCC39F65", "{ V -m end ße }"),
    row("raw", Sent::Str(b"\x00\xff\x80"), "type=str value=<...>", "00FF80", "{ V -m len 3 }"),
    row("empty", Sent::Str(b""), "type=str value=<>", "", "{ V -m len 0 }"),
    row("bytes", Sent::Bin(b"\x00\xff\x00\xfe"), "type=bin value=<>", "00FF00FE", "{ V -m bin 00ff00fe }"),
    row("no_bytes", Sent::Bin(b""), "type=bin value=<>", "", "{ V -m len 0 }"),
];

/// Every type an agent can set is that type in HAProxy, with that value; NULL removes what was there.
fn types_from_the_agent(bench: &Bench) -> Result<(), Failure> {
    const SPOE: &str = "    messages ask
    groups   take-back
    option   force-set-var

spoe-message ask
    event on-frontend-http-request

spoe-message null

spoe-group take-back
    messages null
";
    let mut proxies = r#"
frontend web
    bind "${WEB}"
    filter spoe engine e2e config spoe.conf
    http-request set-var(txn.before) var(txn.e2e.gone)
    http-request send-spoe-group e2e take-back
    http-request return status 200 hdr error "%[var(txn.e2e.error)]" hdr before "%[var(txn.before)]"
    http-after-response set-header gone no if { var(txn.e2e.gone) -m found }
"#
    .to_owned();
    for Row { name, condition, .. } in &ROWS {
        let variable = format!("var(txn.e2e.{name})");
        let condition = condition.replace('V', &variable);
        let set = "    http-after-response set-header";
        writeln!(proxies, "{set} {name} \"0x%[{variable},hex]\" if {{ {variable} -m found }}")?;
        writeln!(proxies, "{set} {name}-match yes if {condition}")?;
    }

    let address = port()?;
    let _spy = Spy::serve(address, AgentConfig::new(), |notify, ack| {
        for scope in [Scope::Transaction, Scope::Process] {
            if notify.message("null").is_some() {
                ack.set(scope, "gone", Sent::Null)?;
                continue;
            }
            for Row { name, value, .. } in &ROWS {
                ack.set(scope, name, *value)?;
            }
            ack.set(scope, "gone", "still there")?;
        }
        Ok(())
    })?;
    let site = start_own(bench, address, &proxies, SPOE)?;
    let response = Client::connect(site.web)?.send(&Request::get("/"))?;
    equal("the error", header(&response, "error"), None)?;
    for Row { name, described, hex, .. } in &ROWS {
        let is = site.process_variable(&format!("e2e.{name}"))?;
        equal(&format!("{name} in HAProxy"), is.as_deref(), Some(*described))?;
        let bytes = header(&response, name);
        equal(&format!("bytes of {name}"), bytes, Some(format!("0x{hex}")))?;
        let matches = header(&response, &format!("{name}-match"));
        equal(&format!("match of {name}"), matches.as_deref(), Some("yes"))?;
    }
    equal("before NULL", header(&response, "before").as_deref(), Some("still there"))?;
    equal("after NULL", header(&response, "gone"), None)?;
    equal("after NULL, in the process", site.process_variable("e2e.gone")?, None)
}

/// An agent that sets what it was sent leaves HAProxy with a copy of its own samples.
fn types_there_and_back(bench: &Bench) -> Result<(), Failure> {
    let mut proxies = r#"
frontend web
    bind "${WEB}"
    filter spoe engine e2e config spoe.conf
"#
    .to_owned();
    for (name, sample) in ARGS {
        let sample = sample.replace(' ', "\\ ");
        let (own, back) = (format!("var(proc.own.{name})"), format!("var(proc.e2e.{name})"));
        writeln!(proxies, "    http-request set-var(proc.own.{name}) {sample}")?;
        let bytes = format!("\"%[{own},hex]=%[{back},hex]\"");
        writeln!(proxies, "    http-after-response set-header {name} {bytes}")?;
    }
    proxies += "    http-request return status 200\n";

    let address = port()?;
    let _spy = Spy::serve(address, AgentConfig::new(), |notify, ack| {
        for arg in notify.messages().flat_map(|message| message.args()) {
            ack.set(Scope::Process, std::str::from_utf8(arg.name)?, arg.value)?;
        }
        Ok(())
    })?;
    let site = start_own(bench, address, &proxies, &message_with_args())?;
    let response = Client::connect(site.web)?.send(&Request::get("/").header("x-raw", RAW))?;
    for (name, _) in ARGS {
        let bytes = header(&response, name).unwrap_or_default();
        let same = bytes.split_once('=').is_some_and(|(own, back)| own == back);
        ensure(same, || format!("bytes of {name}, HAProxy's own and those returned: {bytes:?}"))?;
        let own = site.process_variable(&format!("own.{name}"))?;
        // A method has no type of its own in the protocol.
        let want = own.map(|own| own.replace("type=meth", "type=str"));
        let back = site.process_variable(&format!("e2e.{name}"))?;
        equal(&format!("{name} is set"), back.is_some(), name != "absent")?;
        equal(&format!("{name}, returned"), back, want)?;
    }
    Ok(())
}
