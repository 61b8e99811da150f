//! The backend in which the agents are.

use std::fs::{self, Permissions};
use std::future;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use spop_tokio::{Agent, AgentConfig, Exchange, Scope};
use tokio::net::UnixListener;
use tokio::sync::Barrier;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::cases::Case;
use crate::haproxy::{Program, Setup, wait_until};
use crate::spy::Serving;

use super::{CLOSED, Files, Site};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new("lint_l12_no_check", no_check),
    Case::new("lint_l12_no_protocol_check", no_protocol_check),
    Case::new("lint_l13_server_timeout_too_short", server_timeout_too_short),
    Case::new("lint_l14_socket_outside_chroot", socket_outside_chroot),
    Case::new("lint_l15_balance_by_source", balance_by_source),
    Case::new("lint_l18_backend_before_frontend", backend_before_frontend),
];

/// Nobody listens: the request waits, or goes on at once.
fn no_check(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let right = Files::right(agent)?.with(CLOSED, "")?.with("20s", "300ms")?;
    let wrong = right.with(" check inter 100ms fall 2 rise 1", "")?;
    wrong.expect(bench, &[&format!("L12 server agent1 {agent}")])?;
    equal("error after the whole timeout", wrong.start(bench, "no check")?.error()?, "1")?;
    right.expect(bench, &[])?;
    let at_once = if bench.new_engine() { "257" } else { "2" };
    equal("error, corrected", right.start(bench, "DOWN")?.error()?, at_once)
}

/// A port that is open, and no agent behind it.
fn no_protocol_check(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let _listener = TcpListener::bind(agent)?;
    let right = Files::right(agent)?.with("timeout check 10s", "timeout check 200ms")?;
    let wrong = right.with("    option spop-check\n", "")?;
    wrong.expect(bench, &["L12 backend agents"])?;
    let site = wrong.start(bench, "UP")?;
    wait_until("a check", || {
        Ok((site.haproxy.stat("agents", "agent1", "check_status")? == "L4OK").then_some(()))
    })?;
    equal("status", site.haproxy.stat("agents", "agent1", "status")?.as_str(), "UP")?;
    drop(site);
    right.expect(bench, &[])?;
    right.start(bench, "DOWN").map(drop)
}

/// An agent that never answers.
fn server_timeout_too_short(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let never = Agent::concurrent(|_| future::pending());
    let _serving = Serving::start(agent, never)?;
    let right = Files::right(agent)?.with(CLOSED, "")?.with("20s", "2s")?;
    let wrong = right.with("server 60s", "server 200ms")?;
    wrong.expect(bench, &["L13 timeout server 200ms"])?;
    equal("the connection is cut", wrong.start(bench, "UP")?.error()?, "257")?;
    right.expect(bench, &[])?;
    equal("error, corrected", right.start(bench, "UP")?.error()?, "1")
}

fn socket_outside_chroot(bench: &Bench) -> Result<(), Failure> {
    let jail = bench.path("jail");
    fs::create_dir(&jail)?;
    let socket = jail.join("agent.sock");
    let inline = Agent::inline(|_, ack| Ok(ack.set(Scope::Transaction, "score", 10)?));
    let path = socket.clone();
    let _serving = Serving::start_on(async move || UnixListener::bind(path), inline)?;

    let right = Files::right("/agent.sock")?;
    let right = right
        .with("    nbthread 1\n", &format!("    nbthread 1\n    chroot {}\n", jail.display()))?;
    let wrong = right.with("/agent.sock", &socket.display().to_string())?;
    let line = format!("server agent1 {} check inter 100ms fall 2 rise 1", socket.display());
    wrong.expect(bench, &[&format!("L14 {line}")])?;
    equal("status", start_as_root(bench, &wrong, "DOWN")?.status()?, 503)?;
    right.expect(bench, &[])?;
    equal("status, corrected", start_as_root(bench, &right, "UP")?.status()?, 200)
}

/// `chroot` is for root alone, or for whoever is root in a user namespace of its own.
fn start_as_root(bench: &Bench, files: &Files, status: &str) -> Result<Site, Failure> {
    let id = Command::new("id").arg("-u").output()?;
    if id.stdout.trim_ascii() == b"0" {
        return files.start(bench, status);
    }
    let haproxy = bench.program();
    let script =
        format!("#!/bin/sh\nexec unshare --map-root-user '{}' \"$@\"\n", haproxy.path.display());
    let script = bench.write("as-root", &script)?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    let program = Program { path: script, version: haproxy.version.clone() };
    let setup = Setup::new(files.config.as_str()).file("spoe.conf", files.spoe.as_str());
    let haproxy = setup.start(&program)?;
    haproxy.wait_for_server("agents", "agent1", status)?;
    Ok(Site { web: files.web, haproxy })
}

/// Requests of one client, all under way at once, go to both agents, as with roundrobin, which at least
/// says so.
fn balance_by_source(bench: &Bench) -> Result<(), Failure> {
    const AT_ONCE: usize = 4;
    let (first, second) = (port()?, port()?);
    let server = format!("    server agent1 {first} check inter 100ms fall 2 rise 1\n");
    let another =
        server.replace("agent1", "agent2").replace(&first.to_string(), &second.to_string());
    let right = Files::right(first)?
        .with(&server, &["    balance roundrobin\n", &server, &another].concat())?;
    let wrong = right.with("roundrobin", "source")?;
    wrong.expect(bench, &["L15 balance source"])?;
    right.expect(bench, &[])?;

    // No answer before all have asked, so that none finds the connection of another one idle.
    let barrier = Arc::new(Barrier::new(AT_ONCE));
    let asked = [first, second].map(|address| (address, Arc::new(AtomicUsize::new(0))));
    let mut serving = Vec::new();
    for (address, asked) in &asked {
        let (barrier, asked) = (Arc::clone(&barrier), Arc::clone(asked));
        // Without pipelining HAProxy up to 3.0 cannot put them all on its first connection.
        let config = AgentConfig::new().pipelining(false);
        let agent = Agent::concurrent(move |mut exchange: Exchange| {
            asked.fetch_add(1, Ordering::Relaxed);
            let barrier = Arc::clone(&barrier);
            async move {
                barrier.wait().await;
                exchange.set(Scope::Transaction, "score", 10)?;
                Ok(exchange)
            }
        });
        serving.push(Serving::start(*address, agent.config(config))?);
    }
    for files in [wrong, right] {
        let site = files.start(bench, "UP")?;
        site.haproxy.wait_for_server("agents", "agent2", "UP")?;
        let statuses = thread::scope(|scope| {
            let clients = [(); AT_ONCE].map(|()| scope.spawn(|| site.status()));
            clients.map(|client| client.join().map_err(|_| Failure::new("a client panicked")))
        });
        for status in statuses {
            equal("status", status??, 200)?;
        }
        let counts = asked.each_ref().map(|(_, asked)| asked.swap(0, Ordering::Relaxed));
        let balance = files.config.contains("source");
        ensure(counts.iter().all(|count| *count > 0), || format!("source {balance}: {counts:?}"))?;
    }
    Ok(())
}

/// From 3.1 on each request makes a connection to the agent.
fn backend_before_frontend(bench: &Bench) -> Result<(), Failure> {
    const REQUESTS: usize = 10;
    let right = Files::right(port()?)?;
    let unchecked = right.with(" check inter 100ms fall 2 rise 1", "")?;
    let (before, backend) = unchecked.config.split_once("backend agents").unwrap_or_default();
    let (defaults, frontend) = before.split_once("frontend web").unwrap_or_default();
    let config = format!("{defaults}backend agents{backend}\nfrontend web{frontend}");
    let wrong = Files { config, ..unchecked.clone() };
    let found = wrong.lint(bench, &[])?;
    ensure(found.contains(&"L18 backend agents".to_owned()), || format!("{found:?}"))?;
    for (release, finds) in [("2.6", false), ("3.0", false), ("3.2", true), ("3.4", true)] {
        let found = wrong.lint(bench, &["--haproxy", release])?;
        equal(release, found.contains(&"L18 backend agents".to_owned()), finds)?;
    }
    equal("haproxy -c", bench.program().warnings(&bench.path("haproxy.cfg"))?, "")?;
    right.expect(bench, &[])?;
    if !bench.new_engine() {
        return Ok(());
    }
    for (files, each) in [(wrong, true), (unchecked, false)] {
        let agent = port()?;
        let address = files.config.split("server agent1 ").nth(1).unwrap_or_default();
        let address = address.split_whitespace().next().unwrap_or_default().to_owned();
        let files = files.with(&address, &agent.to_string())?;
        let inline = Agent::inline(|_, ack| Ok(ack.set(Scope::Transaction, "score", 10)?));
        let serving = Serving::start(agent, inline)?;
        let site = files.start(bench, "no check")?;
        for _ in 0..REQUESTS {
            equal("status", site.status()?, 200)?;
        }
        let connections = site.haproxy.stat("agents", "agent1", "connect")?.parse::<usize>()?;
        drop(site);
        drop(serving);
        ensure((connections >= REQUESTS) == each, || format!("{connections} connections"))?;
    }
    Ok(())
}
