//! The page `fail-closed/README.md`: whatever goes wrong, with one choice of its configuration nothing
//! passes, and with the other everything passes and can be seen.
//!
//! The configuration is the page's own.

mod site;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{Client, Request, wait_until};
use crate::raw::{self, Frame, Hello, RawAgent};
use site::{ALLOWED, Choice, Guard, Site};

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case::new("fail_closed_agent_down", |bench| down(bench, Choice::Closed)).shown(CLOSED),
    Case::new("fail_closed_agent_gone", |bench| gone(bench, Choice::Closed)).shown(CLOSED),
    Case::new("fail_closed_agent_slow", |bench| slow(bench, Choice::Closed)).shown(CLOSED),
    Case::new("fail_closed_agent_stopped", |bench| stopped(bench, Choice::Closed)).shown(CLOSED),
    Case::new("fail_closed_handler", |bench| handler(bench, Choice::Closed)).shown(CLOSED),
    Case::new("fail_closed_connection_reset", |bench| reset(bench, Choice::Closed)).shown(CLOSED),
    Case::new("fail_closed_agent_restarted", |bench| restarted(bench, Choice::Closed))
        .shown(CLOSED),
    Case::new("fail_closed_another_agent", |bench| malformed(bench, Choice::Closed)).shown(CLOSED),
    Case::new("fail_closed_haproxy_reloaded", |bench| reloaded(bench, Choice::Closed))
        .shown(CLOSED),
    Case::new("fail_closed_scope", scope).shown(CLOSED),
    Case::new("fail_open_agent_down", |bench| down(bench, Choice::Open)).shown(OPEN),
    Case::new("fail_open_agent_gone", |bench| gone(bench, Choice::Open)).shown(OPEN),
    Case::new("fail_open_agent_slow", |bench| slow(bench, Choice::Open)).shown(OPEN),
    Case::new("fail_open_agent_stopped", |bench| stopped(bench, Choice::Open)).shown(OPEN),
    Case::new("fail_open_handler", |bench| handler(bench, Choice::Open)).shown(OPEN),
    Case::new("fail_open_connection_reset", |bench| reset(bench, Choice::Open)).shown(OPEN),
    Case::new("fail_open_agent_restarted", |bench| restarted(bench, Choice::Open)).shown(OPEN),
    Case::new("fail_open_another_agent", |bench| malformed(bench, Choice::Open)).shown(OPEN),
    Case::new("fail_open_haproxy_reloaded", |bench| reloaded(bench, Choice::Open)).shown(OPEN),
    Case::new("fail_closed_configurations", site::configurations),
];

const CLOSED: &str = "fail closed: every failure is denied";
const OPEN: &str = "fail open: every failure passes, with a trace";

/// Longer than a busy machine takes.
const LONG: Duration = Duration::from_secs(10);
/// `timeout processing` where it is met.
const SHORT: Duration = Duration::from_millis(500);

/// HAProxy's own errors, as the trace has them.
const TIMEOUT: &str = "haproxy-1";
const NO_SERVER: &str = "haproxy-2";
const LOST: &str = "haproxy-257";
const TOO_BIG: &str = "haproxy-259";

/// No agent, and HAProxy knows it.
fn down(bench: &Bench, choice: Choice) -> Result<(), Failure> {
    let site = Site::new(choice, port()?).processing(LONG).start(bench)?;
    site.wait_for_agent("DOWN")?;
    let trace = if bench.new_engine() { LOST } else { NO_SERVER };
    site.fails(&site.get("/")?, &[trace])
}

/// No agent, and HAProxy does not know it yet.
fn gone(bench: &Bench, choice: Choice) -> Result<(), Failure> {
    let site = Site::new(choice, port()?).processing(SHORT).unchecked().start(bench)?;
    site.fails(&site.get("/")?, &[TIMEOUT, LOST])
}

/// A handler that does not come to an end: its deadline is before HAProxy's, and is not.
fn slow(bench: &Bench, choice: Choice) -> Result<(), Failure> {
    for (deadline, processing, trace) in
        [("300", LONG, "agent-deadline"), ("20000", SHORT, TIMEOUT)]
    {
        let agent = port()?;
        let _guard = Guard::start(bench, agent, &["--answer-timeout", deadline])?;
        let site = Site::new(choice, agent).processing(processing).unchecked().start(bench)?;
        site.fails(&site.get("/slow")?, &[trace])?;
    }
    Ok(())
}

/// The process stands still: it is connected, and does nothing.
fn stopped(bench: &Bench, choice: Choice) -> Result<(), Failure> {
    let agent = port()?;
    let mut guard = Guard::start(bench, agent, &[])?;
    let site = Site::new(choice, agent).processing(SHORT).unchecked().start(bench)?;
    let mut client = site.client()?;
    // Whether it is answered within so short a time is another question.
    client.send(&Request::get("/"))?;
    guard.process().signal("STOP")?;
    // The signal takes its time.
    let first = wait_until("the agent to stand still", || {
        let response = client.send(&Request::get("/"))?;
        Ok((&*response.text() != ALLOWED).then_some(response))
    })?;
    site.fails(&first, &[TIMEOUT])?;
    site.fails(&site.get("/")?, &[TIMEOUT])
}

/// Whatever happens to a handler; each on a connection on which one request passed before, and passes
/// after.
fn handler(bench: &Bench, choice: Choice) -> Result<(), Failure> {
    let agent = port()?;
    let _guard = Guard::start(bench, agent, &[])?;
    let site = Site::new(choice, agent).processing(LONG).start(bench)?;
    site.wait_for_agent("UP")?;
    let mut client = site.client()?;
    for (path, trace) in [
        ("/error", "agent-error"),
        ("/panic", "agent-panic"),
        ("/large", "agent-too-big"),
        ("/silent", "no-verdict"),
    ] {
        site.passes(&client.send(&Request::get("/"))?)?;
        let failing = Request::get(path).header("x-unchecked", "a client's own");
        site.fails(&client.send(&failing)?, &[trace])?;
        // The header is the proxy's, and a verdict is a verdict.
        let forged = Request::get("/").header("x-unchecked", "a client's own");
        site.passes(&client.send(&forged)?)?;
        equal("status of a denied one", client.send(&Request::get("/admin"))?.status, 403)?;
    }
    Ok(())
}

/// The agent's host resets the connection while the answer is owed.
fn reset(bench: &Bench, choice: Choice) -> Result<(), Failure> {
    let agent = port()?;
    let _agent =
        RawAgent::start(agent, Hello::new("pipelining"), |frame, wire| match path(frame) {
            b"/fails" => wire.reset(frame.connection),
            _ => wire.send(frame.connection, &allowed(frame)),
        })?;
    let site = Site::new(choice, agent).processing(LONG).unchecked().start(bench)?;
    let mut client = site.client()?;
    site.passes(&client.send(&Request::get("/"))?)?;
    site.fails(&client.send(&Request::get("/fails"))?, &[LOST])?;
    site.passes(&client.send(&Request::get("/"))?)
}

/// Killed, and started again, between requests of one client.
fn restarted(bench: &Bench, choice: Choice) -> Result<(), Failure> {
    let agent = port()?;
    let mut guard = Guard::start(bench, agent, &[])?;
    let site = Site::new(choice, agent).processing(SHORT).start(bench)?;
    site.wait_for_agent("UP")?;
    let mut client = site.client()?;
    site.passes_soon(&mut client)?;

    guard.process().signal("KILL")?;
    guard.process().wait()?;
    // HAProxy knows it, or not yet.
    site.fails(&client.send(&Request::get("/"))?, &[TIMEOUT, NO_SERVER, LOST])?;
    site.wait_for_agent("DOWN")?;
    // Before 3.1 it may go on trying, for as long as it waits for an answer.
    site.fails(&client.send(&Request::get("/"))?, &[TIMEOUT, NO_SERVER, LOST])?;

    let _guard = Guard::start(bench, agent, &[])?;
    site.wait_for_agent("UP")?;
    site.passes_soon(&mut client)
}

/// What another agent may answer, and the traces of that.
struct Malformed {
    answer: fn(&Frame) -> Vec<u8>,
    old: &'static str,
    new: &'static str,
}

const MALFORMED: [Malformed; 9] = [
    // HAProxy takes the actions before the first bad one, and says nothing.
    Malformed { answer: |frame| raw::ack(frame.ids, &[]), old: "no-verdict", new: "no-verdict" },
    Malformed {
        answer: |frame| raw::ack(frame.ids, b"garbage"),
        old: "no-verdict",
        new: "no-verdict",
    },
    Malformed {
        answer: |frame| raw::ack(frame.ids, &[b"garbage", &*verdict("allow")].concat()),
        old: "no-verdict",
        new: "no-verdict",
    },
    Malformed {
        answer: |frame| {
            let mut action = verdict("allow");
            action.pop();
            raw::ack(frame.ids, &action)
        },
        old: "no-verdict",
        new: "no-verdict",
    },
    // Well formed, and not a word that the rules know.
    Malformed {
        answer: |frame| raw::ack(frame.ids, &verdict("allowed")),
        old: "no-verdict",
        new: "no-verdict",
    },
    Malformed {
        answer: |frame| raw::ack(frame.ids, &raw::set_number("verdict", 1)),
        old: "no-verdict",
        new: "no-verdict",
    },
    // The right answer for another stream.
    Malformed {
        answer: |frame| raw::ack((frame.ids.0 + 1_000, frame.ids.1), &verdict("allow")),
        old: TIMEOUT,
        new: TIMEOUT,
    },
    // Larger than a frame.
    Malformed {
        answer: |frame| {
            let more = raw::set_string("explanation", &[b'x'; 20_000]);
            raw::ack(frame.ids, &[verdict("allow"), more].concat())
        },
        old: TOO_BIG,
        new: TIMEOUT,
    },
    // Another protocol.
    Malformed {
        answer: |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        old: TOO_BIG,
        new: TIMEOUT,
    },
];

/// Answers that this library never gives, each after one that passed.
fn malformed(bench: &Bench, choice: Choice) -> Result<(), Failure> {
    for (number, case) in MALFORMED.iter().enumerate() {
        let agent = port()?;
        let answer = case.answer;
        let _agent = RawAgent::start(agent, Hello::new("pipelining"), move |frame, wire| {
            let bytes = if path(frame) == b"/fails" { answer(frame) } else { allowed(frame) };
            wire.send(frame.connection, &bytes)
        })?;
        let trace = if bench.new_engine() { case.new } else { case.old };
        let processing = if trace == TIMEOUT { SHORT } else { LONG };
        let site = Site::new(choice, agent).processing(processing).unchecked().start(bench)?;
        let mut client = site.client()?;
        site.passes_soon(&mut client)?;
        let response = client.send(&Request::get("/fails"))?;
        site.fails(&response, &[trace])
            .map_err(|failure| Failure::new(format!("answer {number}: {failure}")))?;
    }
    Ok(())
}

/// Requests that can be judged and others that cannot, while HAProxy is replaced, twice: no failure is
/// taken for a verdict, and those with one pass.
fn reloaded(bench: &Bench, choice: Choice) -> Result<(), Failure> {
    const CLIENTS: usize = 4;
    let agent = port()?;
    let _guard = Guard::start(bench, agent, &[])?;
    let mut site = Site::new(choice, agent).processing(LONG).start(bench)?;
    site.wait_for_agent("UP")?;

    let stop = Arc::new(AtomicBool::new(false));
    let replies = Arc::<Mutex<Vec<(&str, u16, String)>>>::default();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (web, stop, replies) = (site.web, Arc::clone(&stop), Arc::clone(&replies));
            thread::spawn(move || -> io::Result<()> {
                let mut client = Client::connect(web)?;
                for path in ["/", "/error", "/panic"].into_iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let response = loop {
                        match client.send(&Request::get(path)) {
                            Ok(response) => break response,
                            // HAProxy that leaves closes the connections it keeps.
                            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                                client = Client::connect(web)?;
                            }
                            Err(error) => return Err(error),
                        }
                    };
                    if response.header("connection").is_some_and(|value| value == b"close") {
                        client = Client::connect(web)?;
                    }
                    let reply = (path, response.status, response.text().into_owned());
                    replies.lock().unwrap_or_else(PoisonError::into_inner).push(reply);
                }
                Ok(())
            })
        })
        .collect();
    let seen = || replies.lock().unwrap_or_else(PoisonError::into_inner).len();
    let some = || {
        let before = seen();
        wait_until("replies", || Ok((seen() >= before + 60).then_some(())))
    };
    some()?;
    for _ in 0..2 {
        let mut old = site.reload(bench)?;
        equal("exit code", old.process().wait()?.code(), Some(0))?;
        some()?;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().map_err(|_| Failure::new("a client panicked"))??;
    }
    for (path, status, text) in &*replies.lock().unwrap_or_else(PoisonError::into_inner) {
        let right = match (*path, choice) {
            ("/", _) => *status == 200 && text == ALLOWED,
            (_, Choice::Closed) => *status == 503,
            ("/error", Choice::Open) => text == "verdict=unknown x-unchecked=agent-error\n",
            (_, Choice::Open) => text == "verdict=unknown x-unchecked=agent-panic\n",
        };
        ensure(right, || format!("{path}: {status} {text:?}"))?;
    }
    Ok(())
}

/// Why the verdict is in the scope `txn`: one in `sess` outlives its request, and lets the next one pass
/// that got none. On the same connection of the client, and with the same rules.
fn scope(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let _agent = RawAgent::start(agent, Hello::new("pipelining"), |frame, wire| {
        let mut of_session = verdict("allow");
        // The third byte is the scope: 2 for txn, 1 for sess.
        if let Some(scope) = of_session.get_mut(2) {
            *scope = 1;
        }
        let actions = [verdict("allow"), of_session].concat();
        let actions = if path(frame) == b"/fails" { &b"garbage"[..] } else { &actions };
        wire.send(frame.connection, &raw::ack(frame.ids, actions))
    })?;
    for (scope, passes) in [("txn", false), ("sess", true)] {
        let site = Site::new(Choice::Closed, agent).processing(LONG).scope(scope).unchecked();
        let site = site.start(bench)?;
        let mut client = site.client()?;
        equal(scope, client.send(&Request::get("/"))?.status, 200)?;
        let status = if passes { 200 } else { 503 };
        equal(scope, client.send(&Request::get("/fails"))?.status, status)?;
        // On another connection there is nothing to be mistaken for a verdict.
        equal(scope, site.get("/fails")?.status, 503)?;
    }
    Ok(())
}

fn verdict(word: &str) -> Vec<u8> {
    raw::set_string("verdict", word.as_bytes())
}

fn allowed(frame: &Frame) -> Vec<u8> {
    raw::ack(frame.ids, &verdict("allow"))
}

/// The argument `path`, which is the last one.
fn path(frame: &Frame) -> &[u8] {
    let name = &b"\x04path\x08"[..];
    let at = frame.payload.windows(name.len()).position(|bytes| bytes == name);
    // Its length is one byte.
    at.and_then(|at| frame.payload.get(at + name.len() + 1..)).unwrap_or_default()
}
