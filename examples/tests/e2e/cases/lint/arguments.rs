//! Arguments that come empty or cut.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::cases::Case;
use crate::haproxy::{Request, wait_until};
use crate::spy::{Seen, Spy, Value};

use super::Files;

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new("lint_l04_variable_of_later_rules", variable_of_later_rules),
    Case::new("lint_l05_unique_id_without_format", unique_id_without_format),
    Case::new("lint_l06_body_not_waited_for", body_not_waited_for),
    Case::new("lint_l06_body_of_a_group", body_of_a_group),
    Case::new("lint_l06_body_of_a_response", body_of_a_response),
    Case::new("lint_l07_body_without_size", body_without_size),
];

fn spy(agent: SocketAddr) -> Result<Spy, Failure> {
    Ok(Spy::start(agent, |_| vec![("score", Value::Int32(10))])?)
}

/// An argument of a message among those.
fn arg(seen: &[Seen], message: &str, name: &str) -> Option<Value> {
    seen.iter().find(|seen| seen.message == message)?.arg(name).cloned()
}

fn variable_of_later_rules(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let spy = spy(agent)?;
    let right = Files::right(agent)?;
    let wrong = right.with("id=unique-id", "id=unique-id early=var(txn.early)")?;
    wrong.expect(
        bench,
        &["L04 args  id=unique-id early=var(txn.early) body=req.body size=req.body_size"],
    )?;
    equal("status", wrong.start(bench, "UP")?.status()?, 200)?;
    let seen = spy.take();
    equal("sent by the event", arg(&seen, "ask", "early"), Some(Value::Null))?;
    right.expect(bench, &[])?;
    equal("status", right.start(bench, "UP")?.status()?, 200)?;
    let set = Some(Value::Str("set".into()));
    equal("sent by the rule", arg(&spy.take(), "late", "early"), set)?;

    // The rule that sends comes before the one that sets.
    let set = "    http-request set-var(txn.early) str(set)\n";
    let send = "    http-request send-spoe-group e2e of-rule\n";
    let wrong = right.with(&[set, send].concat(), &[send, set].concat())?;
    wrong.expect(bench, &["L04 args  early=var(txn.early)"])?;
    equal("status", wrong.start(bench, "UP")?.status()?, 200)?;
    equal("sent too early", arg(&spy.take(), "late", "early"), Some(Value::Null))
}

fn unique_id_without_format(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let spy = spy(agent)?;
    let right = Files::right(agent)?;
    let wrong = right.with("    unique-id-format %[uuid()]\n", "")?;
    wrong.expect(bench, &["L05 args  id=unique-id body=req.body size=req.body_size"])?;
    equal("status", wrong.start(bench, "UP")?.status()?, 200)?;
    equal("id", arg(&spy.take(), "ask", "id"), Some(Value::Null))?;
    right.expect(bench, &[])?;
    equal("status", right.start(bench, "UP")?.status()?, 200)?;
    let id = arg(&spy.take(), "ask", "id");
    ensure(matches!(&id, Some(Value::Str(id)) if !id.is_empty()), || format!("{id:?}"))
}

/// The body of a POST as the agent gets it. Where HAProxy does not wait for the body, it is sent when
/// the agent has been asked.
fn late_body(
    files: &Files,
    bench: &Bench,
    spy: &Spy,
    message: &str,
    waits: bool,
) -> Result<Option<Value>, Failure> {
    let site = files.start(bench, "UP")?;
    let mut client = TcpStream::connect(site.web)?;
    client.write_all(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\n")?;
    if waits {
        client.write_all(b"body")?;
    }
    let mut seen = Vec::new();
    let asked = wait_until("the agent to be asked", || {
        seen.extend(spy.take());
        Ok(seen.iter().any(|seen| seen.message == message).then(|| arg(&seen, message, "body")))
    })?;
    client.write_all(if waits { b"" } else { b"body" })?;
    Ok(asked)
}

fn body_not_waited_for(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let spy = spy(agent)?;
    let right = Files::right(agent)?;
    // Rules run after the event.
    for instead in ["", "    http-request wait-for-body time 20s\n"] {
        let wrong = right.with("    option http-buffer-request\n", "")?;
        let rule = "    http-request set-var(txn.early)";
        let wrong = wrong.with(rule, &[instead, rule].concat())?;
        wrong.expect(bench, &["L06 args  id=unique-id body=req.body size=req.body_size"])?;
        let body = late_body(&wrong, bench, &spy, "ask", false)?;
        equal("body", body, Some(Value::Bin("".into())))?;
    }
    right.expect(bench, &[])?;
    let body = late_body(&right, bench, &spy, "ask", true)?;
    equal("body, corrected", body, Some(Value::Bin("body".into())))
}

fn body_of_a_group(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let spy = spy(agent)?;
    let wait = "    http-request wait-for-body time 20s\n";
    let send = "    http-request send-spoe-group e2e of-rule\n";
    let wrong = Files::right(agent)?
        .with("    option http-buffer-request\n", "")?
        .with("args  id=unique-id body=req.body size=req.body_size", "args  id=unique-id")?
        .with("args  early=var(txn.early)", "args  body=req.body size=req.body_size")?
        .with(send, &[send, wait].concat())?;
    wrong.expect(bench, &["L06 args  body=req.body size=req.body_size"])?;
    let body = late_body(&wrong, bench, &spy, "late", false)?;
    equal("body", body, Some(Value::Bin("".into())))?;
    let right = wrong.with(&[send, wait].concat(), &[wait, send].concat())?;
    right.expect(bench, &[])?;
    let body = late_body(&right, bench, &spy, "late", true)?;
    equal("body, corrected", body, Some(Value::Bin("body".into())))
}

/// A server that sends the body when it is told to, or at once.
fn body_of_a_response(bench: &Bench) -> Result<(), Failure> {
    let (agent, app) = (port()?, port()?);
    let spy = spy(agent)?;
    let server = TcpListener::bind(app)?;
    let wrong = Files::right(agent)?
        .with(
            "    http-request return status 200 hdr set \"error=%[var(txn.e2e.error)]\"\n",
            &format!("    server app {app}\n"),
        )?
        .with("frontend web", "listen web")?
        .with(
            "args  ip=src\n    event on-frontend-http-request",
            "args  body=res.body\n    event on-http-response",
        )?;
    wrong.expect(bench, &["L06 args  body=res.body"])?;
    let right = wrong
        .with("    server app", "    http-response wait-for-body time 20s\n    http-response send-spoe-group e2e more\n    server app")?
        .with("messages    ask more", "messages    ask")?
        .with("groups      of-rule", "groups      of-rule more")?
        .with("    event on-http-response\n", "\nspoe-group more\n    messages    more\n")?;
    right.expect(bench, &[])?;
    for (files, body, at_once) in [(wrong, "", false), (right, "body", true)] {
        let site = files.start(bench, "UP")?;
        let mut client = TcpStream::connect(site.web)?;
        client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")?;
        let (mut served, _) = server.accept()?;
        served.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")?;
        if at_once {
            served.write_all(b"body")?;
        }
        let mut seen = Vec::new();
        let got = wait_until("the agent to be asked", || {
            seen.extend(spy.take());
            let asked = seen.iter().any(|seen| seen.message == "more");
            Ok(asked.then(|| arg(&seen, "more", "body")))
        })?;
        equal("body", got, Some(Value::Bin(body.into())))?;
    }
    Ok(())
}

fn body_without_size(bench: &Bench) -> Result<(), Failure> {
    const SIZE: usize = 40_000;
    let agent = port()?;
    let spy = spy(agent)?;
    let right = Files::right(agent)?;
    let wrong = right.with(" size=req.body_size", "")?;
    wrong.expect(bench, &["L07 args  id=unique-id body=req.body"])?;
    for (files, size) in [(wrong, None), (right.clone(), Some(Value::Int64(40_000)))] {
        let site = files.start(bench, "UP")?;
        let response = site.send(&Request::post("/", vec![b'x'; SIZE]))?;
        equal("status", response.status, 200)?;
        let seen = spy.take();
        let Some(Value::Bin(body)) = arg(&seen, "ask", "body") else {
            return Err(Failure::new(format!("no body in {seen:?}")));
        };
        ensure(body.len() < SIZE, || "the body is whole".to_owned())?;
        equal("what tells that it is cut", arg(&seen, "ask", "size"), size)?;
    }
    right.expect(bench, &[])
}
