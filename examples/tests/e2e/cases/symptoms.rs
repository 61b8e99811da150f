//! `examples/when-things-go-wrong.md`: every line of a log that it shows is provoked here and compared
//! with what HAProxy or the agent really wrote.
//!
//! A block of the page is for one symptom and some versions: "log NAME VERSIONS". In its lines `…`
//! stands for anything.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use spop_tokio::{Agent, AgentConfig, HealthState, Scope};

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{DEADLINE, Log, Request, wait_until};
use crate::raw::{self, Hello, RawAgent};
use crate::site::{Running, Site, Verdict};
use crate::spy::{Serving, Spy};

use super::Case;
use super::fragments::{NARROW, SIX_TIMES, STALLS, narrow_listener};

pub(super) const CASES: &[Case] = &[
    Case::new("symptom_of_an_answer_that_does_not_come", no_answer),
    Case::new("symptom_of_an_agent_that_is_not_there", not_there),
    Case::new("symptom_of_a_lost_connection", lost),
    Case::new("symptom_of_a_goodbye_while_an_answer_is_owed", idle),
    Case::new("symptom_of_a_status_of_the_agents_own", own_status),
    Case::new("symptom_of_an_agent_with_small_frames", small_frames),
    Case::new("symptom_of_a_message_that_is_too_large", too_large),
    Case::new("symptom_of_fragments_that_are_refused", fragments_refused),
    Case::new("symptom_of_a_storm", storm),
    Case::new("symptom_of_a_full_receive_buffer", wedged),
    Case::new("symptom_of_an_agent_that_is_not_ready", not_ready),
    Case::new("symptom_of_a_port_that_is_another_ones", another_port),
    Case::new("symptom_of_a_message_without_an_event", never_asked),
    Case::new("symptom_of_a_variable_of_another_name", another_name),
    Case::new("symptom_of_a_handler_that_fails", handler_fails),
    Case::new("symptom_of_a_scanner", scanner),
    Case::new("symptom_of_a_cut_body", cut),
    Case::new("symptoms_are_all_checked", all_checked),
];

/// The names of the page's blocks.
const NAMES: &[&str] = &[
    "no-answer",
    "not-there",
    "lost",
    "idle",
    "own-status",
    "small-frames",
    "too-large",
    "fragments-refused",
    "storm",
    "wedged",
    "not-ready",
    "another-port",
    "another-name",
    "handler-fails",
    "scanner",
    "cut",
];

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
/// `timeout processing` where it is met.
const SHORT: Duration = Duration::from_millis(300);
/// Two arguments of 9 000 bytes: more than a frame.
const TWO_LARGE: &str = "a=req.hdr(x-large) b=req.hdr(x-large)";

fn no_answer(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let _agent = RawAgent::start(address, Hello::new("pipelining"), |_, _| Ok(()))?;
    let site = Site::new(address).unchecked().processing(SHORT).start(bench)?;
    error(&site, 1)?;
    shown(bench, "no-answer", site.haproxy.log())
}

fn not_there(bench: &Bench) -> Result<(), Failure> {
    let site = Site::new(port()?).start(bench)?;
    site.wait_for_agent("DOWN")?;
    error(&site, if bench.new_engine() { 257 } else { 2 })?;
    shown(bench, "not-there", site.haproxy.log())
}

fn lost(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let _agent = RawAgent::start(address, Hello::new("pipelining"), |frame, wire| {
        wire.close(frame.connection);
        Ok(())
    })?;
    let site = Site::new(address).unchecked().start(bench)?;
    error(&site, 257)?;
    shown(bench, "lost", site.haproxy.log())
}

fn idle(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let _agent = RawAgent::start(address, Hello::new("pipelining"), |_, _| Ok(()))?;
    let site = Site::new(address).unchecked().option("timeout idle 200ms");
    // From 3.1 on `timeout idle` means nothing.
    let site = site.processing(Duration::from_millis(1_000)).start(bench)?;
    error(&site, if bench.new_engine() { 1 } else { 256 })?;
    shown(bench, "idle", site.haproxy.log())
}

fn own_status(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let _agent = RawAgent::start(address, Hello::new("pipelining"), |frame, wire| {
        wire.send(frame.connection, &raw::disconnect(99))
    })?;
    let site = Site::new(address).unchecked().processing(SHORT).start(bench)?;
    let answer = site.ask(CLIENT, &large())?;
    // From 3.1 on the close may be noticed before the goodbye is.
    if !bench.new_engine() || answer.verdict() == Verdict::Error(355) {
        equal("verdict", answer.verdict(), Verdict::Error(355))?;
        shown(bench, "own-status", site.haproxy.log())?;
    }
    Ok(())
}

fn small_frames(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let hello = Hello { capabilities: "pipelining,fragmentation", max_frame_size: 1_000 };
    let _agent = RawAgent::start(address, hello, |_, _| Ok(()))?;
    let site = Site::new(address).args("a=req.hdr(x-large)").unchecked().start(bench)?;
    error(&site, 259)?;
    shown(bench, "small-frames", site.haproxy.log())
}

fn too_large(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let _agent = Spy::start(address, |_| Vec::new())?;
    let site = Site::new(address).args(TWO_LARGE).global(LARGE_HEADERS);
    let site = site.option("no option send-frag-payload").start(bench)?;
    error(&site, 3)?;
    shown(bench, "too-large", site.haproxy.log())
}

/// As an agent of this library does beyond `Limits::payload`. So much that HAProxy has not sent it all
/// when it reads the refusal.
fn fragments_refused(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let hello = Hello::new("pipelining,fragmentation");
    let _agent = RawAgent::start_on(narrow_listener(address)?, hello, |frame, wire| {
        let refusal = raw::ack_with_flags(frame.ids, raw::FIN | raw::ABORT, &[]);
        if frame.is_notify() {
            wire.send(frame.connection, &refusal)?;
        }
        Ok(())
    })?;
    let site = Site::new(address).args(SIX_TIMES).option("max-frame-size 1024").global(NARROW);
    let site = site.unchecked().start(bench)?;
    let body = Request::post("/", vec![b'x'; STALLS]);
    let want = Verdict::Error(if bench.new_engine() { 3 } else { 4 });
    equal("verdict", site.ask(CLIENT, &body)?.verdict(), want)?;
    shown(bench, "fragments-refused", site.haproxy.log())
}

fn storm(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let agent = RawAgent::start(address, Hello::new("pipelining"), |_, _| Ok(()))?;
    let site = Site::new(address).args(TWO_LARGE).global(LARGE_HEADERS).unchecked();
    let site = site.processing(SHORT).start(bench)?;
    error(&site, if bench.new_engine() { 3 } else { 1 })?;
    let connections = agent.wire().seen(|seen| seen.connections);
    let many = connections > 20;
    equal(&format!("a storm ({connections} connections)"), many, !bench.new_engine())?;
    shown(bench, "storm", site.haproxy.log())
}

/// One answer of a whole frame; the next request on the connection is not answered either, though its
/// answer is small. (Up to 3.0 both are.)
fn wedged(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let _agent = RawAgent::start(address, Hello::new("pipelining"), |frame, wire| {
        let score = raw::set_number("ip_score", 7);
        let more = if wire.seen(|seen| seen.frames.len()) == 1 { 16_380 } else { 0 };
        let around = raw::ack(frame.ids, &[&score[..], &raw::set_string("x", &[])].concat()).len();
        // The string's length is two bytes longer for the large one.
        let fill = vec![b'x'; usize::saturating_sub(more + 4, around + 2)];
        let action = [score, raw::set_string("x", &fill)].concat();
        wire.send(frame.connection, &raw::ack(frame.ids, &action))
    })?;
    let site = Site::new(address).global("nbthread 1").unchecked().processing(SHORT);
    let site = site.start(bench)?;
    let want = if bench.new_engine() { Verdict::Error(1) } else { Verdict::Score(7) };
    for _ in 0..2 {
        equal("verdict", site.ask(CLIENT, &Request::get("/"))?.verdict(), want)?;
    }
    shown(bench, "wedged", site.haproxy.log())
}

fn not_ready(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let agent = Agent::inline(|_, ack| Ok(ack.set(Scope::Transaction, "ip_score", 7)?));
    agent.health().set(HealthState::NotReady);
    let _agent = Serving::start(address, agent)?;
    let site = Site::new(address).start(bench)?;
    site.wait_for_agent("DOWN")?;
    shown(bench, "not-ready", site.haproxy.log())
}

fn another_port(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let listener = raw::listen(address)?;
    thread::spawn(move || web_server(&listener));
    let site = Site::new(address).start(bench)?;
    site.wait_for_agent("DOWN")?;
    shown(bench, "another-port", site.haproxy.log())
}

/// Ends with the process.
fn web_server(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        let _ = stream.read(&mut [0; 1_000]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    }
}

/// The agent is UP, and nothing is asked, said or set.
fn never_asked(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let agent = Spy::start(address, |_| Vec::new())?;
    let args = "ip=src\n\nspoe-message another\n    args  ip=src";
    let site = Site::new(address).args(args).start(bench)?;
    site.wait_for_agent("UP")?;
    let answer = site.ask(CLIENT, &Request::get("/"))?;
    equal("score and error", (answer.get("score"), answer.get("error")), (None, None))?;
    equal("asked", agent.take().len(), 0)?;
    let log = site.haproxy.log();
    log.wait_for(0, "GET / HTTP/1.1")?;
    let said = log.lines(0).into_iter().find(|line| line.starts_with("SPOE: "));
    equal("what the filter said", said, None)
}

fn another_name(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let _agent = Spy::serve(address, AgentConfig::new(), |_, ack| {
        Ok(ack.set(Scope::Transaction, "e2e.ip_score", 7)?)
    })?;
    let site = Site::new(address).start(bench)?;
    let answer = site.ask(CLIENT, &Request::get("/"))?;
    equal("score and error", (answer.get("score"), answer.get("error")), (None, None))?;
    shown(bench, "another-name", site.haproxy.log())
}

fn handler_fails(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let agent = bench.agent(address, &bench.write("list", "10.0.0.0/8 30\n")?)?;
    let site = Site::new(address).args("ip=str(localhost)").start(bench)?;
    let answer = site.ask(CLIENT, &Request::get("/"))?;
    equal("score and error", (answer.get("score"), answer.get("error")), (None, None))?;
    shown(bench, "handler-fails", agent.log())
}

fn scanner(bench: &Bench) -> Result<(), Failure> {
    let address: SocketAddr = port()?;
    let agent = bench.agent(address, &bench.write("list", "10.0.0.0/8 30\n")?)?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")?;
    shown(bench, "scanner", agent.log())
}

fn cut(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let agent = bench.agent(address, &bench.write("list", "10.0.0.0/8 30\n")?)?;
    let site = Site::new(address).args("ip=src body=req.body").start(bench)?;
    let answer = site.ask(CLIENT, &Request::post("/", vec![b'x'; 40_000]))?;
    equal("error", answer.get("error"), None)?;
    shown(bench, "cut", agent.log())
}

// ----------------------------------------------------------------------------------- the page

/// HAProxy takes headers of half a buffer's size; `TWO_LARGE` needs one of 9 000 bytes.
const LARGE_HEADERS: &str = "tune.maxrewrite 1024";

fn large() -> Request {
    Request::get("/").header("x-large", "x".repeat(9_000))
}

#[track_caller]
fn error(site: &Running, want: i64) -> Result<(), Failure> {
    equal("verdict", site.ask(CLIENT, &large())?.verdict(), Verdict::Error(want))
}

/// The lines that the page shows of a symptom, for the version under test, must be in that log.
#[track_caller]
fn shown(bench: &Bench, name: &str, log: &Log) -> Result<(), Failure> {
    ensure(NAMES.contains(&name), || format!("{name} is not among the names"))?;
    for line in lines(name, bench.new_engine())? {
        let parts: Vec<_> = line.split('…').collect();
        // It may still be on its way.
        let fits = || log.lines(0).iter().any(|said| matches(said, &parts)).then_some(());
        let missing = |_| Failure::new(format!("{name}: {line}\n{}", log.tail("the log")));
        wait_until("a line that the page shows", || Ok(fits())).map_err(missing)?;
    }
    Ok(())
}

/// Whether `parts` make up the whole text, with anything between them.
fn matches(text: &str, parts: &[&str]) -> bool {
    let [first, middle @ ..] = parts else { return false };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some((last, middle)) = middle.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

/// Blocks of the page: name, versions, lines.
fn blocks() -> Result<Vec<(String, String, Vec<String>)>, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("when-things-go-wrong.md");
    let page = fs::read_to_string(path)?;
    let mut found = Vec::new();
    for fence in page.split("\n```").skip(1).step_by(2) {
        let odd = || Failure::new(format!("a block that nobody checks: ```{fence}"));
        let (info, lines) = fence.split_once('\n').ok_or_else(odd)?;
        let mut words = info.split(' ');
        let (Some("log"), Some(name), Some(versions), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(odd());
        };
        // The agent of the site is called otherwise than the page's.
        let lines = lines.lines().map(|line| line.replace("[iprep]", "[e2e]")).collect();
        found.push((name.to_owned(), versions.to_owned(), lines));
    }
    Ok(found)
}

fn lines(name: &str, new_engine: bool) -> Result<Vec<String>, Failure> {
    let here = if new_engine { "3.1+" } else { "2.6-3.0" };
    let blocks = blocks()?
        .into_iter()
        .filter(|(block, versions, _)| block == name && (versions == here || versions == "all"));
    Ok(blocks.flat_map(|(_, _, lines)| lines).collect())
}

/// No block of the page is of a symptom that no case provokes, and none of them is missing.
fn all_checked(_: &Bench) -> Result<(), Failure> {
    let blocks = blocks()?;
    for (name, versions, lines) in &blocks {
        ensure(NAMES.contains(&name.as_str()), || format!("nobody checks {name}"))?;
        let known = ["all", "2.6-3.0", "3.1+"].contains(&versions.as_str());
        ensure(known && !lines.is_empty(), || format!("{name}: {versions}: {lines:?}"))?;
    }
    for name in NAMES {
        let there = blocks.iter().any(|(block, ..)| block == name);
        ensure(there, || format!("the page does not show {name}"))?;
    }
    Ok(())
}
