//! Rules that deny by a verdict, when there is none.

use std::sync::atomic::{AtomicBool, Ordering};

use spop_tokio::{AgentConfig, Scope};

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::cases::Case;
use crate::haproxy::{Client, Request};
use crate::spy::Spy;

use super::{CLOSED, Files};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new("lint_l11_fails_open", fails_open),
    Case::new("lint_l16_failures_leave_no_trace", failures_leave_no_trace),
    Case::new("lint_l17_verdict_in_session", verdict_in_session),
];

fn fails_open(bench: &Bench) -> Result<(), Failure> {
    let right = Files::right(port()?)?.with(" hdr set \"error=%[var(txn.e2e.error)]\"", "")?;
    let wrong = right.with(CLOSED, "")?;
    let found = "L11 http-request deny deny_status 403 if { var(txn.e2e.score) -m int gt 80 }";
    wrong.expect(bench, &[found])?;
    equal("status", wrong.start(bench, "DOWN")?.status()?, 200)?;
    right.expect(bench, &[])?;
    equal("status, corrected", right.start(bench, "DOWN")?.status()?, 503)
}

fn failures_leave_no_trace(bench: &Bench) -> Result<(), Failure> {
    let right = Files::right(port()?)?;
    let wrong = right
        .with("    log         global\n", "")?
        .with("    option      set-on-error  error\n", "")?;
    wrong.expect(bench, &["L16 spoe-agent e2e"])?;
    right.expect(bench, &[])?;
    for (files, traced) in [(wrong, false), (right, true)] {
        let site = files.start(bench, "DOWN")?;
        equal("status", site.status()?, 503)?;
        // The request's own line comes behind that of the agent.
        site.haproxy.log().wait_for(0, "GET / HTTP/1.1")?;
        let log = site.haproxy.log().lines(0);
        let found = log.iter().any(|line| line.contains("SPOE: [e2e]"));
        ensure(found == traced, || format!("a trace: {found}, in {log:#?}"))?;
    }
    Ok(())
}

/// Only the first request gets a verdict.
fn verdict_in_session(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let right = Files::right(agent)?;
    let closed = CLOSED.replace("txn", "sess");
    let wrong = right
        .with("var(txn.e2e.score) -m int", "var(sess.e2e.score) -m int")?
        .with(CLOSED, &closed)?;
    let found = "L17 http-request deny deny_status 403 if { var(sess.e2e.score) -m int gt 80 }";
    wrong.expect(bench, &[found, &format!("L17 {}", closed.trim())])?;
    right.expect(bench, &[])?;
    for (files, second) in [(wrong, 200), (right, 503)] {
        let answered = AtomicBool::new(false);
        let _spy = Spy::serve(agent, AgentConfig::new(), move |notify, ack| {
            if notify.message("ask").is_some() && !answered.swap(true, Ordering::Relaxed) {
                ack.set(Scope::Session, "score", 10)?;
                ack.set(Scope::Transaction, "score", 10)?;
            }
            Ok(())
        })?;
        let site = files.start(bench, "UP")?;
        let mut client = Client::connect(site.web)?;
        equal("first status", client.send(&Request::get("/"))?.status, 200)?;
        equal("second status", client.send(&Request::get("/"))?.status, second)?;
    }
    Ok(())
}
