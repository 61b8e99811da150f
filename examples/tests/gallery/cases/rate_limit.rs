//! `rate-limit`: a count for one HAProxy, and one for several.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::process::Command;

use super::{Case, Outcome};
use crate::agents::Agent;
use crate::haproxy::{Directory, Process, Program, Request, free_port};
use crate::site::{Running, Site};

pub(super) const CASES: &[Case] = &[
    ("rate_limit_by_one_agent", by_one_agent),
    ("rate_limit_shared_by_redis", shared_by_redis),
    ("rate_limit_fails_open", fails_open),
];

fn start(program: &Program, more: &[&str]) -> io::Result<(Agent, Running)> {
    // An hour: no window ends while the case runs. And a machine as busy as this takes its time.
    let options = [&["--limit", "3", "--window", "3600", "--timeout", "4000"], more].concat();
    let options: Vec<_> = options.into_iter().map(OsStr::new).collect();
    let agent = Agent::start("rate-limit", &options)?;
    let site = Site::of("rate-limit", agent.address)?.start(program)?;
    Ok((agent, site))
}

#[track_caller]
fn assert_status(site: &Running, client: &str, expected: u16) -> io::Result<()> {
    let answer = site.send_from(client, &Request::get("/"))?;
    assert_eq!(answer.status, expected, "{client}: {answer:?}");
    Ok(())
}

/// In memory: each client has its own count, and those of a /64 have one.
fn by_one_agent(program: &Program) -> io::Result<Outcome> {
    let (agent, site) = start(program, &[])?;
    for status in [200, 200, 200, 429, 429] {
        assert_status(&site, "192.0.2.1", status)?;
    }
    assert_status(&site, "192.0.2.2", 200)?;
    for (client, status) in [("2001:db8::1", 200), ("2001:db8::2", 200), ("2001:db8::3", 200)] {
        assert_status(&site, client, status)?;
    }
    assert_status(&site, "2001:db8::4", 429)?;
    assert_status(&site, "2001:db8:0:1::1", 200)?;
    agent.stop()?;
    Ok(Outcome::Shown)
}

/// A Redis of its own; `None` where the machine has none.
fn redis(directory: &Directory) -> io::Result<Option<(Process, SocketAddr)>> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found = env::split_paths(&path).map(|folder| folder.join("redis-server"));
    let Some(program) = found.find(|program| program.is_file()) else { return Ok(None) };
    let address = free_port()?;
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(directory.path());
    let redis = Process::start("redis-server", &mut command)?;
    redis.log().wait_for(0, "Ready to accept connections")?;
    Ok(Some((redis, address)))
}

/// Two HAProxys with an agent each count as one; and where Redis goes, requests pass.
fn shared_by_redis(program: &Program) -> io::Result<Outcome> {
    let directory = Directory::new()?;
    let Some((redis, address)) = redis(&directory)? else {
        return Ok(Outcome::Without("no redis-server is on the PATH".to_owned()));
    };
    let url = format!("redis://{address}/");
    let (_first_agent, first) = start(program, &["--redis", &url])?;
    let (_second_agent, second) = start(program, &["--redis", &url])?;
    for (site, status) in
        [(&first, 200), (&second, 200), (&first, 200), (&second, 429), (&first, 429)]
    {
        assert_status(site, "192.0.2.1", status)?;
    }
    assert_status(&second, "192.0.2.2", 200)?;
    let check = |timeout: &str| {
        let options = ["--check", "--timeout", timeout, "--redis", &url];
        Agent::command("rate-limit")?.args(options).output()
    };
    let output = check("4000")?;
    assert_eq!(output.stdout, b"--redis: it answers\n", "{output:?}");
    drop(redis);
    let output = check("50")?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("rate-limit: --redis: no answer within 50ms\n"), "{said}");
    assert_status(&first, "192.0.2.1", 200)?;
    Ok(Outcome::Shown)
}

/// No Redis, and then no agent: requests pass.
fn fails_open(program: &Program) -> io::Result<Outcome> {
    let url = format!("redis://{}/", free_port()?);
    let (agent, site) = start(program, &["--redis", &url])?;
    assert_status(&site, "192.0.2.1", 200)?;
    agent.process.log().wait_for(0, "no answer")?;
    drop(agent);
    assert_status(&site, "192.0.2.1", 200)?;
    Ok(Outcome::Shown)
}
