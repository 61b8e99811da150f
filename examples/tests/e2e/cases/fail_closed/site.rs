//! The page's files, run with one choice or the other.

use std::fs;
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::bench::{Bench, Failure, ensure, equal, port, replace};
use crate::haproxy::{Client, Haproxy, Process, Request, Response, Setup, wait_until};

/// What the server behind the page's frontend saw, where the agent allowed a request.
pub(super) const ALLOWED: &str = "verdict=allow x-unchecked=\n";

fn shipped(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fail-closed", file].iter().collect()
}

/// The agent of the page, with `--provoke`.
#[derive(Debug)]
pub(super) struct Guard(Process);

impl Guard {
    /// Starts it and returns once it accepts connections.
    #[track_caller]
    pub(super) fn start(bench: &Bench, listen: SocketAddr, more: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fail-closed"));
        command.args(["--provoke", "--listen", &listen.to_string()]);
        if more.is_empty() {
            // Right for a user, too short for a machine that runs all these cases at once.
            command.args(["--answer-timeout", "5000"]);
        }
        // A developer's RUST_LOG must not take away the lines that are waited for here.
        command.args(more).env_remove("RUST_LOG");
        let process = Process::start("fail-closed", &mut command)?;
        bench.keep("fail-closed", process.log());
        process.log().wait_for(0, "agent listening")?;
        Ok(Self(process))
    }

    /// The process.
    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.0
    }
}

/// The operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Closed,
    Open,
}

impl Choice {
    /// The page's haproxy.cfg with this choice: the lines of one block, and the other's as comments.
    #[track_caller]
    fn config(self) -> Result<String, Failure> {
        let config = fs::read_to_string(shipped("haproxy.cfg"))?;
        let (mut block, mut changed) = (None, 0);
        let mut lines = Vec::new();
        for line in config.lines() {
            let words = line.trim_start();
            if words.starts_with("# FAIL CLOSED: ") {
                block = Some(Self::Closed);
            } else if words.starts_with("# FAIL OPEN: ") {
                block = Some(Self::Open);
            } else if words.starts_with("# ===== End of the choice") {
                block = None;
            }
            let rule = words.trim_start_matches('#');
            if let Some(block) = block.filter(|_| rule.starts_with("http-request ")) {
                changed += 1;
                lines.push(if block == self {
                    format!("    {rule}")
                } else {
                    format!("    #{rule}")
                });
            } else {
                lines.push(line.to_owned());
            }
        }
        equal("lines in the blocks of the choice", changed, 2)?;
        Ok(lines.join("\n") + "\n")
    }
}

/// As they are shipped they fail closed; with either choice neither HAProxy nor `spop-lint` has anything
/// to say.
pub(super) fn configurations(bench: &Bench) -> Result<(), Failure> {
    let shipped_config = fs::read_to_string(shipped("haproxy.cfg"))?;
    equal("the shipped choice", &Choice::Closed.config()?, &shipped_config)?;
    let choice = "    # ===== The operator's choice";
    let block = shipped_config.find(choice).and_then(|at| shipped_config.get(at..));
    let block = block.and_then(|rest| rest.split("\n\n").next());
    let page = fs::read_to_string(shipped("README.md"))?;
    let shown = block.is_some_and(|block| page.contains(&format!("```haproxy\n{block}\n```")));
    ensure(shown, || format!("the page does not show {block:?}"))?;
    equal("warnings", bench.program().warnings(&shipped("haproxy.cfg"))?, "")?;

    bench.write("spoe.conf", &fs::read_to_string(shipped("spoe.conf"))?)?;
    let config = bench.write("haproxy.cfg", &Choice::Open.config()?)?;
    equal("warnings with the other choice", bench.program().warnings(&config)?, "")?;
    let output = Command::new(env!("CARGO_BIN_EXE_spop-lint")).arg(config).output()?;
    ensure(output.status.success(), || format!("{output:?}"))
}

/// What differs from case to case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    choice: Choice,
    agent: SocketAddr,
    processing: Duration,
    checked: bool,
    scope: &'static str,
}

impl Site {
    pub(super) fn new(choice: Choice, agent: SocketAddr) -> Self {
        Self { choice, agent, processing: Duration::from_secs(10), checked: true, scope: "txn" }
    }

    /// `timeout processing`.
    pub(super) fn processing(self, processing: Duration) -> Self {
        Self { processing, ..self }
    }

    /// Without health checks, so the agent is UP whatever it does.
    pub(super) fn unchecked(self) -> Self {
        Self { checked: false, ..self }
    }

    /// Another scope for the verdict, which is the mistake.
    pub(super) fn scope(self, scope: &'static str) -> Self {
        Self { scope, ..self }
    }

    /// Starts HAProxy with the page's files, changed only where a test has to.
    #[track_caller]
    pub(super) fn start(self, bench: &Bench) -> Result<Running, Failure> {
        let mut config = self.choice.config()?;
        let mut spoe = fs::read_to_string(shipped("spoe.conf"))?;
        let web = port()?;
        // Several threads in need of the log at once: HAProxy drops lines rather than wait.
        replace(&mut config, "\nglobal\n", "\nglobal\n    nbthread 1\n")?;
        replace(&mut config, "bind 127.0.0.1:8080", &format!("bind {web}"))?;
        replace(&mut config, "agent1 127.0.0.1:12345", &format!("agent1 {}", self.agent))?;
        replace(&mut config, "timeout check   1s", "timeout check 10s")?;
        let check = if self.checked { "check inter 100ms fall 2 rise 1" } else { "" };
        replace(&mut config, "check inter 1s fall 2", check)?;
        let processing = format!("processing    {}ms", self.processing.as_millis());
        replace(&mut spoe, "processing    100ms", &processing)?;
        let verdict = format!("var({}.guard.verdict)", self.scope);
        let config = config.replace("var(txn.guard.verdict)", &verdict);
        let setup = Setup::new(config).file("spoe.conf", spoe);
        Ok(Running { web, haproxy: bench.haproxy(&setup)?, choice: self.choice, setup })
    }
}

/// A site that serves.
#[derive(Debug)]
pub(super) struct Running {
    /// Where clients connect to.
    pub(super) web: SocketAddr,
    haproxy: Haproxy,
    choice: Choice,
    setup: Setup,
}

impl Running {
    /// A connection for several requests.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.web)?)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub(super) fn get(&self, path: &str) -> Result<Response, Failure> {
        Ok(self.client()?.send(&Request::get(path))?)
    }

    /// Waits until the server of the agent has that status.
    #[track_caller]
    pub(super) fn wait_for_agent(&self, status: &str) -> Result<(), Failure> {
        Ok(self.haproxy.wait_for_server("agents", "agent1", status)?)
    }

    /// A HAProxy with the same configuration in place of this one, which finishes and is returned.
    #[track_caller]
    pub(super) fn reload(&mut self, bench: &Bench) -> Result<Haproxy, Failure> {
        let setup = self.setup.clone().replacing(&mut self.haproxy)?;
        Ok(mem::replace(&mut self.haproxy, bench.haproxy(&setup)?))
    }

    /// The agent allowed it, and nothing says otherwise.
    #[track_caller]
    pub(super) fn passes(&self, response: &Response) -> Result<(), Failure> {
        equal("status", response.status, 200)?;
        equal("what the server saw", &*response.text(), ALLOWED)
    }

    /// The agent allows it in the end: a busy machine may meet a short `timeout processing`.
    #[track_caller]
    pub(super) fn passes_soon(&self, client: &mut Client) -> Result<(), Failure> {
        let passed = wait_until("a request to be allowed", || {
            let response = client.send(&Request::get("/"))?;
            Ok((&*response.text() == ALLOWED).then_some(()))
        });
        Ok(passed?)
    }

    /// It was not checked, for one of those reasons: it is denied and the log says why, or it passes and
    /// server and log are told why.
    #[track_caller]
    pub(super) fn fails(&self, response: &Response, traces: &[&str]) -> Result<(), Failure> {
        let page = fs::read_to_string(shipped("README.md"))?;
        let shown = |trace: &&str| page.contains(&format!("`{trace}`"));
        ensure(traces.iter().all(shown), || format!("the page does not say all of {traces:?}"))?;
        let seen = response.text();
        let status = match self.choice {
            Choice::Closed => 503,
            Choice::Open => 200,
        };
        equal(&format!("status, with {traces:?} expected in {seen:?}"), response.status, status)?;
        if self.choice == Choice::Open {
            let told = seen.trim_end().split_once("x-unchecked=").map(|(_, trace)| trace);
            ensure(told.is_some_and(|told| traces.contains(&told)), || {
                format!("the server saw {seen:?}, without one of {traces:?}")
            })?;
        }
        let line = |trace: &&str| {
            let (status, trace) = (format!(" {status} "), format!(" unchecked={trace}"));
            let log = self.haproxy.log().lines(0);
            log.iter().any(|line| line.contains(&status) && line.ends_with(&trace))
        };
        wait_until(&format!("a log line with one of {traces:?}"), || {
            Ok(traces.iter().any(line).then_some(()))
        })?;
        Ok(())
    }
}
