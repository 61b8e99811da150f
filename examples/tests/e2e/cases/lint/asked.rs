//! Messages that never reach the agent.

use crate::bench::{Bench, Failure, equal, port};
use crate::cases::Case;
use crate::haproxy::{Client, Request};
use crate::spy::{Spy, Value};

use super::Files;

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new("lint_l01_group_never_sent", group_never_sent),
    Case::new("lint_l02_message_not_listed", message_not_listed),
    Case::new("lint_l03_event_set_twice", event_set_twice),
];

/// The messages of two requests on one connection.
fn names(bench: &Bench, files: &Files, spy: &Spy) -> Result<Vec<String>, Failure> {
    let site = files.start(bench, "UP")?;
    let mut client = Client::connect(site.web)?;
    for _ in 0..2 {
        equal("status", client.send(&Request::get("/"))?.status, 200)?;
    }
    Ok(spy.take().into_iter().map(|seen| seen.message).collect())
}

const ALL: [&str; 6] = ["ask", "more", "late", "ask", "more", "late"];

/// The wrong configuration, what is found, and the messages that reach the agent with it.
fn compare(
    bench: &Bench,
    wrong: impl FnOnce(&Files) -> Result<Files, Failure>,
    found: &str,
    asked: &[&str],
) -> Result<(), Failure> {
    let agent = port()?;
    let spy = Spy::start(agent, |_| vec![("score", Value::Int32(10))])?;
    let right = Files::right(agent)?;
    let wrong = wrong(&right)?;
    wrong.expect(bench, &[found])?;
    equal("messages", names(bench, &wrong, &spy)?, asked)?;
    right.expect(bench, &[])?;
    equal("messages, corrected", names(bench, &right, &spy)?, ALL)
}

fn group_never_sent(bench: &Bench) -> Result<(), Failure> {
    let wrong = |right: &Files| right.with("    http-request send-spoe-group e2e of-rule\n", "");
    compare(bench, wrong, "L01 groups      of-rule", &["ask", "more", "ask", "more"])?;
    // Nor is one that no agent lists.
    let wrong = Files::right(port()?)?
        .with("    http-request send-spoe-group e2e of-rule\n", "")?
        .with("    groups      of-rule\n", "")?;
    wrong.expect(bench, &["L01 spoe-group of-rule"])
}

fn message_not_listed(bench: &Bench) -> Result<(), Failure> {
    let wrong = |right: &Files| right.with("ask more", "ask");
    compare(bench, wrong, "L02 spoe-message more", &["ask", "late", "ask", "late"])
}

/// The second replaces the first: the message comes alone, before the request was read.
fn event_set_twice(bench: &Bench) -> Result<(), Failure> {
    let wrong = |right: &Files| {
        let event = "ip=src\n    event on-frontend-http-request\n";
        right.with(event, &format!("{event}    event on-client-session\n"))
    };
    let found = "L03 event on-client-session";
    compare(bench, wrong, found, &["more", "ask", "late", "more", "ask", "late"])
}
