//! `spop-explain` with the log of a real HAProxy.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::Request;
use crate::site::Site;

use super::Case;

pub(super) const CASES: &[Case] = &[Case::new("explain_log_lines", explain_log_lines)];

/// What it prints; its status must be 0.
fn explain(words: &[&str], input: &str) -> Result<String, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spop-explain"));
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    equal("status", output.status.code(), Some(0))?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Nobody listens: the line says so in another way with each engine, and each is understood.
fn explain_log_lines(bench: &Bench) -> Result<(), Failure> {
    let site = Site::new(port()?).start(bench)?;
    site.wait_for_agent("DOWN")?;
    site.ask(IpAddr::from([192, 0, 2, 1]), &Request::get("/"))?;
    let line = site.haproxy.log().wait_for(0, "SPOE: [e2e]")?;
    let text = explain(&[&line], "")?;
    let (releases, error) =
        if bench.new_engine() { ("HAProxy 3.1 or later", 257) } else { ("HAProxy up to 3.0", 2) };
    let start = format!("agent e2e, event on-frontend-http-request, {releases}");
    ensure(text.starts_with(&start), || format!("{line}\n{text}"))?;
    ensure(text.contains("likely 1: the agent is not running"), || text.clone())?;

    let log = site.haproxy.log().lines(0).join("\n");
    let text = explain(&["--summary"], &log)?;
    ensure(text.contains(&format!("       1  e2e  st={error}  ")), || text.clone())
}
