//! `raw-loop`: all that a poll loop has to do for the core.

use std::io;
use std::thread;

use super::{Case, Outcome};
use crate::agents::Agent;
use crate::haproxy::{Program, Request, wait_until};
use crate::site::Site;

pub(super) const CASES: &[Case] = &[
    ("raw_loop_hides_files", hides_files),
    ("raw_loop_serves_many_at_once", serves_many_at_once),
    ("raw_loop_stops", stops),
    ("raw_loop_fails_closed", fails_closed),
];

/// The verdict of the agent decides.
fn hides_files(program: &Program) -> io::Result<Outcome> {
    let agent = Agent::start("raw-loop", &[])?;
    let site = Site::of("raw-loop", agent.address)?.start(program)?;
    for (path, status) in
        [("/", 200), ("/a/b.html", 200), ("/.env", 404), ("/a/%2egit/config", 404)]
    {
        assert_eq!(site.status(&Request::get(path))?, status, "{path}");
    }
    // Health checks are answered, too.
    wait_until("a health check to succeed", || {
        let status = site.haproxy.stat("agents", "agent1", "check_status")?;
        Ok((status == "L7OK").then_some(()))
    })?;
    Ok(Outcome::Shown)
}

/// Every one of 400 requests, 8 at a time, has the answer to its own question.
fn serves_many_at_once(program: &Program) -> io::Result<Outcome> {
    let agent = Agent::start("raw-loop", &[])?;
    let site = Site::of("raw-loop", agent.address)?.start(program)?;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let site = &site;
                scope.spawn(move || -> io::Result<()> {
                    for nth in 0..50 {
                        let hidden = (client + nth) % 3 == 0;
                        let path = format!("/{}{client}-{nth}", if hidden { "." } else { "" });
                        let status = if hidden { 404 } else { 200 };
                        assert_eq!(site.status(&Request::get(&path))?, status, "{path}");
                    }
                    Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| {
            client.join().unwrap_or_else(|_| Err(io::Error::other("a client failed")))
        })
    })?;
    Ok(Outcome::Shown)
}

/// SIGTERM ends it, with connections of HAProxy open.
fn stops(program: &Program) -> io::Result<Outcome> {
    let agent = Agent::start("raw-loop", &[])?;
    let site = Site::of("raw-loop", agent.address)?.start(program)?;
    assert_eq!(site.status(&Request::get("/"))?, 200);
    agent.stop()?;
    Ok(Outcome::Shown)
}

/// Without the agent nothing is served.
fn fails_closed(program: &Program) -> io::Result<Outcome> {
    let agent = Agent::start("raw-loop", &[])?;
    let site = Site::of("raw-loop", agent.address)?.start(program)?;
    drop(agent);
    let answer = site.send(&Request::get("/"))?;
    assert_eq!((answer.status, answer.text().as_ref()), (503, "no verdict\n"));
    Ok(Outcome::Shown)
}
