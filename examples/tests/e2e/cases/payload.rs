//! What arrives at an agent: an agent in this process looks at it.

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::Request;
use crate::site::{Site, Verdict};
use crate::spy::{Seen, Spy, Value};

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case::new("unnamed_and_repeated_arguments", unnamed_and_repeated_arguments)
        .shown("arguments without a name, and repeated ones"),
    Case::new("header_that_is_not_utf8", header_that_is_not_utf8)
        .shown("strings that are not UTF-8, both ways"),
    Case::new("body_larger_than_the_frame", body_larger_than_the_frame)
        .shown("payload larger than a frame"),
];

const CLIENT: &str = "192.0.2.7";

/// The message of the site with these arguments.
fn seen<const N: usize>(args: [(&str, Value); N]) -> Seen {
    let args = args.map(|(name, value)| (name.to_owned(), value));
    Seen { message: "e2e".to_owned(), args: args.to_vec() }
}

/// Order, names (empty ones too) and duplicates are those of the `args` line.
fn unnamed_and_repeated_arguments(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let spy = Spy::start(address, |_| vec![("length", Value::Uint32(1))])?;
    let args = "ip=src str(first) n=int(1) bool(true) n=int(-2) str(last) none=req.hdr(x-absent)";
    let site = Site::new(address).args(args).start(bench)?;

    let answer = site.ask(CLIENT.parse()?, &Request::get("/"))?;
    equal("the agent's variable", answer.number("length"), Some(1))?;
    let want = [
        ("ip", Value::Ipv4(CLIENT.parse()?)),
        ("", Value::Str("first".into())),
        ("n", Value::Int64(1)),
        ("", Value::Bool(true)),
        ("n", Value::Int64(-2)),
        ("", Value::Str("last".into())),
        ("none", Value::Null),
    ];
    equal("what the agent received", spy.take(), [seen(want)])
}

/// Strings are bytes: all that is not ASCII arrives as it was sent, and comes back so.
fn header_that_is_not_utf8(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let spy = Spy::start(address, |seen| match seen.arg("header") {
        Some(Value::Str(bytes)) => vec![("echo", Value::Str(bytes.clone()))],
        _ => vec![],
    })?;
    let args = "ip=src header=req.hdr(x-raw)";
    let site = Site::new(address).args(args).start(bench)?;

    let raw: Vec<u8> = (0x80..=0xff).collect();
    let answer = site.ask(CLIENT.parse()?, &Request::get("/").header("x-raw", &raw))?;
    let received = spy.take();
    let header = received.first().and_then(|seen| seen.arg("header"));
    equal("the header at the agent", header, Some(&Value::Str(raw.clone().into())))?;
    let hex: String = raw.iter().map(|byte| format!("{byte:02X}")).collect();
    equal("the header as the agent's answer", answer.get("echo"), Some(hex.as_str()))?;
    equal("the error variable", answer.get("error"), None)
}

/// `max-frame-size 256` and bodies of several sizes. HAProxy up to 3.0 sends a large one in
/// fragments. Later ones cannot: the request goes on with error 3, and the agent never hears of it.
fn body_larger_than_the_frame(bench: &Bench) -> Result<(), Failure> {
    const TOO_BIG: Verdict = Verdict::Error(3);
    let address = port()?;
    let spy = Spy::start(address, |seen| match seen.arg("body") {
        Some(Value::Bin(body)) => vec![("length", Value::Uint64(body.len() as u64))],
        _ => vec![],
    })?;
    let args = "first=int(1) body=req.body last=str(end)";
    let site = Site::new(address).args(args).option("max-frame-size 256").start(bench)?;

    for size in [100, 1_000, 10_000, 101] {
        // No two fragments alike, so that a lost, doubled or swapped one shows.
        let body: Vec<u8> =
            (0..size).flat_map(|n: u16| n.to_be_bytes()).take(size.into()).collect();
        let answer = site.ask(CLIENT.parse()?, &Request::post("/", body.clone()))?;
        let received = spy.take();
        if bench.new_engine() && size > 256 {
            equal(&format!("{size} bytes"), answer.verdict(), TOO_BIG)?;
            equal(&format!("{size} bytes: at the agent"), received, [])?;
            bench.not_supported("error 3, and the agent is not asked");
            continue;
        }
        let length = answer.number("length");
        equal(&format!("{size} bytes: length told by the agent"), length, Some(size.into()))?;
        equal(&format!("{size} bytes: error"), answer.get("error"), None)?;
        let want = [
            ("first", Value::Int64(1)),
            ("body", Value::Bin(body.into())),
            ("last", Value::Str("end".into())),
        ];
        // Not `equal`: its message would be the whole body.
        ensure(received == [seen(want)], || format!("{size} bytes did not arrive as they were"))?;
    }
    Ok(())
}
