//! Payloads larger than a frame: HAProxy up to 3.0 sends them in fragments, later ones not at all.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use spop_tokio::{Ack, Agent, AgentConfig, HandlerError, Limits, Notify, Peer, Scope};

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{DEADLINE, Request};
use crate::raw::{self, Hello, RawAgent};
use crate::site::{Running, Site, Verdict};
use crate::spy::{FirstOnly, Serving};

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case::new("bodies_in_frames_of_256", |bench| bodies(bench, &FRAMES_OF_256)).shown(LARGER),
    Case::new("bodies_in_frames_of_1024", |bench| bodies(bench, &FRAMES_OF_1024)).shown(LARGER),
    Case::new("bodies_in_the_largest_frames", |bench| bodies(bench, &LARGEST)).shown(LARGER),
    Case::new("haproxy_gives_a_payload_up", haproxy_gives_up).shown(LARGER),
    Case::new("haproxy_gives_a_payload_up_at_the_library", haproxy_gives_up_at_the_library)
        .shown(LARGER),
    Case::new("agent_gives_a_payload_up", agent_gives_up).shown(LARGER),
    Case::new("agent_gives_a_payload_up_and_leaves", agent_gives_up_and_leaves).shown(LARGER),
    Case::new("agent_without_fragmentation", without_fragmentation).shown(WITHOUT),
    Case::new("agent_without_fragmentation_storm", without_fragmentation_storm).shown(WITHOUT),
];

/// The rows of the table.
const LARGER: &str = "payload larger than a frame";
const WITHOUT: &str = "agent without fragmentation";

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
/// HAProxy's own limit was met.
const TOO_BIG: Verdict = Verdict::Error(3);
/// `timeout processing`, where it is the subject: long enough for the fragments to begin before.
const SHORT: Duration = Duration::from_secs(1);

/// HAProxy later than 3.0, in the words of all cases about this.
fn not_fragmented(bench: &Bench) {
    bench.not_supported("error 3, and the agent is not asked");
}

/// A body in which no two pieces are alike, so that a lost, doubled or swapped one shows.
fn body(size: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_be_bytes).take(size).collect()
}

fn post(size: usize) -> Request {
    Request::post("/", body(size))
}

// ------------------------------------------------------------------------------ the library's agent

/// What arrived, in the order of `args`.
type Received = (Peer, i64, Vec<u8>, Option<Vec<u8>>, String);

/// Tells in `length` how long the body was.
fn answer_length(notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<Received, HandlerError> {
    let message = notify.require("e2e")?;
    let body: Vec<u8> = message.get::<&[u8]>("body")?.to_vec();
    let again = message.get::<Option<&[u8]>>("again")?.map(<[u8]>::to_vec);
    let last: &str = message.get("last")?;
    ack.set(Scope::Transaction, "length", body.len() as u64)?;
    Ok((notify.peer(), message.get("first")?, body, again, last.to_owned()))
}

fn agent(
    address: SocketAddr,
    config: AgentConfig,
) -> Result<(Serving, mpsc::Receiver<Received>), Failure> {
    let (tell, told) = mpsc::channel();
    let agent = Agent::inline(move |notify, ack| {
        let _ = tell.send(answer_length(notify, ack)?);
        Ok(())
    });
    Ok((Serving::start(address, agent.config(config))?, told))
}

fn payload_limit(bytes: usize) -> Result<Limits, Failure> {
    let bytes = NonZeroUsize::new(bytes).ok_or_else(|| Failure::new("a limit of 0"))?;
    Ok(Limits::new().payload(bytes))
}

const ARGS: &str = "first=int(1) body=req.body last=str(end)";

/// A small request is answered, by the agent and not by an error.
#[track_caller]
fn small_one_works(site: &Running) -> Result<(), Failure> {
    let answer = site.ask(CLIENT, &post(100))?;
    equal("error of a small request", answer.get("error"), None)?;
    equal("length of a small body", answer.number("length"), Some(100))
}

// ------------------------------------------------------------------------------------------ sizes

struct Bodies {
    option: &'static str,
    args: &'static str,
    /// How many of the bodies fit a frame, from the smallest on.
    whole: usize,
}

const FRAMES_OF_256: Bodies = Bodies { option: "max-frame-size 256", args: ARGS, whole: 0 };
const FRAMES_OF_1024: Bodies = Bodies { option: "max-frame-size 1024", args: ARGS, whole: 0 };
/// A frame is as large as a buffer here, so it takes the body twice to exceed it.
const LARGEST: Bodies = Bodies {
    option: "",
    args: "first=int(1) body=req.body again=req.body last=str(end)",
    whole: 4,
};

/// Bodies up to one that just fits the library's default limit arrive byte by byte, between the
/// arguments they were sent between, and get their variable.
fn bodies(bench: &Bench, case: &Bodies) -> Result<(), Failure> {
    const KIB: usize = 1024;
    let address = port()?;
    // Only for the body that comes twice; the others stay within the default.
    let limits = if case.whole > 0 { payload_limit(2048 * KIB)? } else { Limits::new() };
    let config = AgentConfig::new().max_frame_size(2 << 20)?.limits(limits);
    let (_agent, received) = agent(address, config)?;
    let site = Site::new(address).args(case.args).option(case.option).unchecked();
    let site = site.global("tune.bufsize 1200000").start(bench)?;

    for (n, size) in [KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1023 * KIB].into_iter().enumerate() {
        let answer = site.ask(CLIENT, &post(size))?;
        if bench.new_engine() && n >= case.whole {
            equal(&format!("{size} bytes"), answer.verdict(), TOO_BIG)?;
            ensure(received.try_recv().is_err(), || format!("{size} bytes: the agent was asked"))?;
            not_fragmented(bench);
            small_one_works(&site)?;
            received.recv_timeout(DEADLINE)?;
            continue;
        }
        equal(&format!("{size} bytes: error"), answer.get("error"), None)?;
        let length = answer.number("length").and_then(|length| usize::try_from(length).ok());
        equal(&format!("{size} bytes: length told by the agent"), length, Some(size))?;
        let (_, first, got, again, last) = received.recv_timeout(DEADLINE)?;
        equal("the arguments around it", (first, last.as_str()), (1, "end"))?;
        // Not `equal`: its message would be the whole body.
        let same = got == body(size) && again.is_none_or(|again| again == got);
        ensure(same, || format!("{size} bytes did not arrive as they were"))?;
    }
    Ok(())
}

// -------------------------------------------------------------------------------- who gives it up

/// Little room between HAProxy and the agent: a buffer, and two of small sockets. One thread, so that
/// all requests share connections.
pub(super) const NARROW: &str = "nbthread 1\n    tune.bufsize 50000\n    tune.sndbuf.server 8192";
/// A body for [`SIX_TIMES`], which makes far more than that.
pub(super) const STALLS: usize = 45_000;
pub(super) const SIX_TIMES: &str = "first=int(1) body=req.body a=req.body b=req.body c=req.body d=req.body e=req.body last=str(end)";

/// A listener whose connections hold little that is not read.
pub(super) fn narrow_listener(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = raw::listen(address)?;
    // Connections have what their listener has.
    SockRef::from(&listener).set_recv_buffer_size(8192)?;
    Ok(listener)
}

/// An agent does not read until `timeout processing` has ended: the payload ends with an UNSET that
/// has FIN and ABORT, and the connection goes on.
fn haproxy_gives_up(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let agent = RawAgent::start_on(
        narrow_listener(address)?,
        Hello::new("pipelining,fragmentation"),
        move |frame, wire| {
            match (frame.is_notify(), frame.flags) {
                (true, raw::FIN) => {
                    wire.send(
                        frame.connection,
                        &raw::ack(frame.ids, &raw::set_number("length", 100)),
                    )?;
                }
                (true, _) => drop(released.lock().map(|told| told.recv_timeout(DEADLINE))),
                _ => {}
            }
            Ok(())
        },
    )?;
    let site = Site::new(address).args(SIX_TIMES).option("max-frame-size 1024").global(NARROW);
    let site = site.unchecked().processing(SHORT).start(bench)?;

    let verdict = site.ask(CLIENT, &post(STALLS))?.verdict();
    if bench.new_engine() {
        equal("verdict", verdict, TOO_BIG)?;
        ensure(agent.wire().seen(|seen| seen.frames.is_empty()), || "it was asked".to_owned())?;
        not_fragmented(bench);
        return small_one_works(&site);
    }
    equal("verdict", verdict, Verdict::Error(1))?;
    release.send(())?;
    let (first, end) = agent.wire().wait_for("the end of the payload", |seen| {
        Some((seen.frames.first()?.clone(), seen.frames.iter().find(|f| f.is_abort())?.clone()))
    })?;
    equal("flags of the first fragment", first.flags, 0)?;
    equal("connection and ids", (end.connection, end.ids), (first.connection, first.ids))?;
    small_one_works(&site)?;
    let goodbyes = agent.wire().seen(|seen| seen.goodbyes.clone());
    equal("statuses HAProxy disconnected with", goodbyes, [])
}

/// The same with the library, which stops reading because a handler is busy: it forgets the payload,
/// and the next request is answered on the same connection.
fn haproxy_gives_up_at_the_library(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let (tell, told) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let busy = Agent::inline(move |notify, ack| {
        let received = answer_length(notify, ack)?;
        let size = received.2.len();
        let _ = tell.send((received.0, size));
        if size == 1 {
            // On the thread that reads: nothing else happens to this agent meanwhile.
            let _ = released.lock().map(|told| told.recv_timeout(DEADLINE));
        }
        Ok(())
    });
    let agent = Serving::start_on(FirstOnly::listen(narrow_listener(address)?), busy)?;
    let site = Site::new(address).args(SIX_TIMES).option("max-frame-size 1024").global(NARROW);
    let site = site.unchecked().processing(SHORT).start(bench)?;

    small_one_works(&site)?;
    let (peer, _) = told.recv_timeout(DEADLINE)?;
    thread::scope(|scope| {
        let first = scope.spawn(|| site.ask(CLIENT, &post(1)));
        equal("the request that keeps it busy", told.recv_timeout(DEADLINE)?, (peer, 1))?;
        let verdict = site.ask(CLIENT, &post(STALLS))?.verdict();
        let given_up = if bench.new_engine() { TOO_BIG } else { Verdict::Error(1) };
        equal("verdict of the large request", verdict, given_up)?;
        let first = first.join().map_err(|_| Failure::new("a client panicked"))??;
        equal("verdict of the request that kept it busy", first.verdict(), Verdict::Error(1))?;
        release.send(())?;
        small_one_works(&site)
    })?;
    equal("the next request", told.recv_timeout(DEADLINE)?, (peer, 100))?;
    drop(site);

    let report = agent.stop()?;
    equal("broken connections", report.protocol_errors, 0)?;
    if bench.new_engine() {
        not_fragmented(bench);
        return equal("payloads given up", report.stats.aborted, 0);
    }
    equal("payloads given up", report.stats.aborted, 1)
}

/// More than the agent's own limit: it gives the payload up, the request goes on at once, and so do the
/// next ones. (HAProxy asks nothing more where it was stopped on the way, so the agent leaves there.)
fn agent_gives_up(bench: &Bench) -> Result<(), Failure> {
    const LIMIT: usize = 10_000;
    let address = port()?;
    let (tell, received) = mpsc::channel();
    let agent = Agent::inline(move |notify, ack| {
        let _ = tell.send(answer_length(notify, ack)?.2.len());
        Ok(())
    });
    let listener = narrow_listener(address)?;
    listener.set_nonblocking(true)?;
    let listen = async move || tokio::net::TcpListener::from_std(listener);
    let agent = Serving::start_on(listen, agent.limits(payload_limit(LIMIT)?))?;
    let site = Site::new(address).args(SIX_TIMES).option("max-frame-size 1024").global(NARROW);
    let site = site.unchecked().start(bench)?;

    // What comes beside the bodies is less than 100 bytes.
    let sizes =
        [(STALLS, false), (STALLS, false), (100, true), (LIMIT / 6 - 20, true), (100, true)];
    for (size, fits) in sizes {
        let (answer, what) = (site.ask(CLIENT, &post(size))?, format!("{size} bytes six times"));
        if bench.new_engine() && size * 6 > 1_000 {
            equal(&what, answer.verdict(), TOO_BIG)?;
            not_fragmented(bench);
        } else if fits {
            equal(&what, answer.get("error"), None)?;
            equal(&what, received.recv_timeout(DEADLINE)?, size)?;
            equal(&what, answer.get("length"), Some(size.to_string().as_str()))?;
        } else {
            // Not 1, which would be HAProxy's own patience. A HAProxy that has sent everything when
            // it reads the ABORT takes it for an empty answer; this much it cannot have sent.
            equal(&what, answer.verdict(), Verdict::Error(4))?;
        }
    }
    ensure(received.try_recv().is_err(), || "the agent was asked too often".to_owned())?;

    let report = agent.stop()?;
    equal("broken connections", report.protocol_errors, 0)?;
    // HAProxy 2.6 opens one for nearly every fragment that has to wait. A storm goes on for seconds.
    let few = if bench.program().version.minor == 6 { 300 } else { FEW as u64 };
    ensure(report.connections <= few, || format!("{} connections", report.connections))?;
    equal("payloads refused", report.stats.refused, if bench.new_engine() { 0 } else { 2 })
}

/// HAProxy up to 3.0 never asks again on a connection on which it was stopped in the middle of a
/// payload. An agent that says goodbye there loses nothing: each next request is answered.
fn agent_gives_up_and_leaves(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let hello = Hello::new("pipelining,fragmentation");
    let agent = RawAgent::start_on(narrow_listener(address)?, hello, |frame, wire| {
        match (frame.is_notify(), frame.flags) {
            (true, raw::FIN) => {
                wire.send(frame.connection, &raw::ack(frame.ids, &raw::set_number("length", 100)))
            }
            (true, _) => {
                let abort = raw::ack_with_flags(frame.ids, raw::FIN | raw::ABORT, &[]);
                wire.send(frame.connection, &[abort, raw::disconnect(0)].concat())
            }
            _ => Ok(()),
        }
    })?;
    let site = Site::new(address).args(SIX_TIMES).option("max-frame-size 1024").global(NARROW);
    let site = site.unchecked().start(bench)?;
    for _ in 0..3 {
        let verdict = site.ask(CLIENT, &post(STALLS))?.verdict();
        small_one_works(&site)?;
        if bench.new_engine() {
            equal("verdict", verdict, TOO_BIG)?;
            not_fragmented(bench);
            continue;
        }
        equal("verdict", verdict, Verdict::Error(4))?;
        let notifies = agent.wire().seen(|seen| {
            let notifies = seen.frames.iter().filter(|frame| frame.is_notify());
            notifies.map(|frame| (frame.flags, frame.connection)).collect::<Vec<_>>()
        });
        let left: Vec<_> = notifies.iter().filter(|n| n.0 != raw::FIN).map(|n| n.1).collect();
        let last = notifies.last().map(|n| n.1);
        let anew = last.is_some_and(|last| !left.contains(&last));
        ensure(anew, || format!("asked on {last:?}, left {left:?}"))?;
    }
    Ok(())
}

// ------------------------------------------------------------------------- without fragmentation

/// More connections than a HAProxy needs that does not come back again and again.
const FEW: usize = 20;

/// With `no option send-frag-payload` every HAProxy keeps what is too large to itself.
fn without_fragmentation(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let (agent, received) = agent(address, AgentConfig::new().fragmentation(false))?;
    let option = "max-frame-size 1024\n    no option send-frag-payload";
    let site = Site::new(address).args(ARGS).option(option).unchecked().start(bench)?;
    for _ in 0..3 {
        small_one_works(&site)?;
        received.recv_timeout(DEADLINE)?;
        equal("a large request", site.ask(CLIENT, &post(5_000))?.verdict(), TOO_BIG)?;
        ensure(received.try_recv().is_err(), || "the agent was asked".to_owned())?;
    }
    drop(site);
    let report = agent.stop()?;
    equal("broken connections", report.protocol_errors, 0)?;
    ensure(report.connections <= FEW as u64, || format!("{} connections", report.connections))
}

/// Without that line HAProxy up to 3.0 disconnects and comes back, again and again, until the agent
/// learns to take fragments or `timeout processing` ends.
fn without_fragmentation_storm(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let agent = RawAgent::start(address, Hello::new("pipelining"), |frame, wire| {
        if frame.flags != raw::FIN {
            return Ok(());
        }
        wire.send(frame.connection, &raw::ack(frame.ids, &raw::set_number("length", 100)))
    })?;
    let site = Site::new(address).args(ARGS).option("max-frame-size 1024").unchecked();
    let site = site.start(bench)?;

    small_one_works(&site)?;
    if bench.new_engine() {
        equal("a large request", site.ask(CLIENT, &post(5_000))?.verdict(), TOO_BIG)?;
        let connections = agent.wire().seen(|seen| seen.connections);
        return ensure(connections <= FEW, || format!("{connections} connections"));
    }
    let answer = thread::scope(|scope| {
        let client = scope.spawn(|| site.ask(CLIENT, &post(5_000)));
        let goodbyes = agent.wire().wait_for("HAProxy to come back and back", |seen| {
            (seen.hellos > FEW && seen.goodbyes.len() > FEW).then(|| seen.goodbyes.clone())
        })?;
        // Fragmentation is not supported.
        ensure(goodbyes.iter().all(|status| *status == Some(10)), || format!("{goodbyes:?}"))?;
        agent.wire().announce("pipelining,fragmentation");
        client.join().map_err(|_| Failure::new("a client panicked"))?
    })?;
    equal("error of the large request", answer.get("error"), None)?;
    equal("answer to it", answer.number("length"), Some(100))?;
    bench.note("with no option send-frag-payload");
    Ok(())
}
