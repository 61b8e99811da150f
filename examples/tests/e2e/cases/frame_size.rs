//! The size that HAProxy and agent agree on, and what just fits it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;

use spop_tokio::{Ack, Agent, AgentConfig, HandlerError, Notify, Scope, SetError};

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{DEADLINE, Request};
use crate::raw;
use crate::site::{Site, Verdict};
use crate::spy::{FirstOnly, Serving};

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case::new("frame_size_with_buffers_of_32768", |bench| agreed(bench, 32_768, BUFSIZE_32768))
        .shown(ROW),
    Case::new("frame_size_with_buffers_of_65536", |bench| agreed(bench, 65_536, BUFSIZE_65536))
        .shown(ROW),
    Case::new("agent_lowers_the_frame_size", lowered)
        .shown("agent with smaller frames than HAProxy's"),
];

const ROW: &str = "large tune.bufsize: frames of that size";
/// One thread, so that all requests share a connection.
const BUFSIZE_32768: &str = "nbthread 1\n    tune.bufsize 32768";
const BUFSIZE_65536: &str = "nbthread 1\n    tune.bufsize 65536";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// The agent's own size below HAProxy's, the same, and above it.
fn agreed(bench: &Bench, bufsize: usize, global: &'static str) -> Result<(), Failure> {
    // HAProxy's own: the buffer without the four bytes of the length.
    let offered = bufsize - 4;
    for own in [20_000, offered, 1 << 20] {
        frames(bench, global, offered, own)
            .map_err(|failure| Failure::new(format!("agent with {own}: {failure}")))?;
    }
    Ok(())
}

/// What the agent saw of a request.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    agreed: usize,
    payload: usize,
    /// The bytes that it could set.
    big: usize,
}

fn frames(bench: &Bench, global: &'static str, offered: usize, own: usize) -> Result<(), Failure> {
    let address = port()?;
    let (tell, told) = mpsc::channel();
    // The longest ACK: a buffer's size exactly stalls HAProxy 3.1 and later.
    let limit = own.min(offered - 1);
    let agent = Agent::inline(move |notify, ack| {
        let _ = tell.send(fill(notify, ack, limit)?);
        Ok(())
    });
    let config = AgentConfig::new().max_frame_size(u32::try_from(own)?)?;
    let listener = FirstOnly::listen(raw::listen(address)?);
    let agent = Serving::start_on(listener, agent.config(config))?;
    let site = Site::new(address).args("body=req.body more=req.body pad=req.hdr(x-pad)");
    let site = site.more("big=%[var(txn.e2e.big),length]").global(global).unchecked();
    let site = site.start(bench)?;

    let agreed = own.min(offered);
    // What HAProxy leaves free for a header, whatever that takes; or, where it finds the agent's size
    // to be the lower one only when it writes the frame, the header.
    let largest = agreed
        - match (bench.new_engine(), own < offered) {
            (false, _) => 32,
            (true, false) => 33,
            (true, true) => 7,
        };
    // A small one first: HAProxy learns the agent's size by the first handshake.
    for payload in [300, largest, largest + 1] {
        let request = post(payload)?;
        let answer = site.ask(CLIENT, &request)?;
        let what = format!("payload of {payload} bytes");
        if payload > largest && bench.new_engine() {
            // Its own limit, or the agent's.
            let error = if own < offered { 256 + 3 } else { 3 };
            equal(&what, answer.verdict(), Verdict::Error(error))?;
            ensure(told.try_recv().is_err(), || format!("{what}: the agent was asked"))?;
            continue;
        }
        equal(&what, answer.get("error"), None)?;
        let seen = told.recv_timeout(DEADLINE)?;
        equal(&what, (seen.agreed, seen.payload), (agreed, payload))?;
        let number = |name| answer.number(name).and_then(|number| usize::try_from(number).ok());
        equal(&format!("{what}: set before"), number("length"), Some(agreed))?;
        equal(&format!("{what}: the large variable"), number("big"), Some(seen.big))?;
        equal(&format!("{what}: set after that"), answer.get("echo"), None)?;
    }

    drop(site);
    // Each in one frame, but for the last: HAProxy up to 3.0 needs two for that.
    let report = agent.stop()?;
    let (hello, one, two) = (1, 1, 2);
    let want = if bench.new_engine() { hello + one + one } else { hello + one + one + two };
    equal("frames of HAProxy", report.stats.frames, want)?;
    equal("answers that did not fit as they were", report.stats.too_big, report.stats.notifies)
}

/// A request that makes a payload of that size: name of the message, number of arguments, and each of
/// these with name, type, length and bytes.
fn post(payload: usize) -> Result<Request, Failure> {
    let string = |bytes: &[u8]| raw::string(bytes).len();
    let of = |body: &[u8], pad: &[u8]| {
        let args = [("body", body), ("more", body), ("pad", pad)];
        let args = args.iter().map(|(name, value)| string(name.as_bytes()) + 1 + string(value));
        string(b"e2e") + 1 + args.sum::<usize>()
    };
    // All but about 100 bytes of it in the two bodies.
    let body = vec![b'b'; payload.saturating_sub(100) / 2];
    let missing = payload.saturating_sub(of(&body, b""));
    let pad = vec![b'p'; missing];
    equal("size of the payload", of(&body, &pad), payload)?;
    Ok(Request::post("/", body).header("x-pad", pad))
}

/// Sets `length` to the size agreed on, and `big` to as many bytes as fit beside it: one more is
/// refused, and so is a variable after that.
fn fill(notify: Notify<'_>, ack: &mut Ack<'_>, limit: usize) -> Result<Seen, HandlerError> {
    let agreed = notify.connection().max_frame_size();
    ack.set(Scope::Transaction, "length", agreed)?;
    let before = raw::ack(
        (notify.stream_id(), notify.frame_id()),
        &raw::set_number("length", agreed.into()),
    );
    // Beside the value: what comes before it, its own action, and three bytes for its length. The
    // length of the frame is not part of it.
    let around = before.len() - 4 + raw::set_string("big", b"").len() - 1 + 3;
    let fits = vec![b'x'; limit - around];
    let more = [fits.as_slice(), b"x"].concat();
    let refused = Err(SetError::TooBig { limit });
    if ack.set(Scope::Transaction, "big", more.as_slice()) != refused {
        return Err(HandlerError::new("one byte more than fits was taken"));
    }
    ack.set(Scope::Transaction, "big", fits.as_slice())?;
    if ack.set(Scope::Transaction, "echo", "") != refused {
        return Err(HandlerError::new("an action beyond the limit was taken"));
    }
    let (agreed, payload) = (agreed.try_into()?, notify.payload().len());
    Ok(Seen { agreed, payload, big: fits.len() })
}

/// An agent with frames of 1024 at a HAProxy with its default. What HAProxy made before it knew that
/// fails with the agent's status; later HAProxy up to 3.0 sends fragments, and later ones refuse what
/// does not fit. Nobody comes back again and again.
fn lowered(bench: &Bench) -> Result<(), Failure> {
    const REFUSED: Verdict = Verdict::Error(256 + 3);
    let address = port()?;
    let agent = Agent::inline(|notify, ack| {
        let body: &[u8] = notify.require("e2e")?.get("body")?;
        Ok(ack.set(Scope::Transaction, "ip_score", body.len() as u64)?)
    });
    let agent = agent.config(AgentConfig::new().max_frame_size(1024)?);
    let agent = Serving::start(address, agent)?;
    let site = Site::new(address).args("body=req.body").global("nbthread 1").unchecked();
    let site = site.start(bench)?;
    let ask = |size: usize| -> Result<Verdict, Failure> {
        Ok(site.ask(CLIENT, &Request::post("/", vec![b'b'; size]))?.verdict())
    };

    equal("the first request, too large", ask(5_000)?, REFUSED)?;
    equal("a small one", ask(500)?, Verdict::Score(500))?;
    if bench.new_engine() {
        equal("a large one again", ask(5_000)?, REFUSED)?;
        bench.note("error 259 for what does not fit");
    } else {
        equal("a large one again", ask(5_000)?, Verdict::Score(5_000))?;
        bench.note("error 259 once, then fragments");
    }
    equal("a small one", ask(500)?, Verdict::Score(500))?;

    // Stopped before HAProxy: every connection there ever was is still open.
    let report = agent.stop()?;
    equal("connections that had not ended", report.drained, report.connections)
}
