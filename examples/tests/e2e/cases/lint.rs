//! What `spop-lint` finds: with HAProxy the symptom is there, `haproxy -c` is silent about it, and the
//! corrected configuration works.

mod arguments;
mod asked;
mod backend;
mod expected;
mod variables;
mod verdicts;

pub(super) use arguments::CASES as ARGUMENTS;
pub(super) use asked::CASES as NEVER_ASKED;
pub(super) use backend::CASES as BACKENDS;
pub(super) use expected::CASES as EXPECTED;
pub(super) use variables::CASES as VARIABLES;
pub(super) use verdicts::CASES as VERDICTS;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{Client, Haproxy, Request, Response, Setup};
use crate::site::header;

use super::Case;

pub(super) const WELL_FORMED: &[Case] =
    &[Case::new("lint_well_formed_files_are_accepted", well_formed_files_are_accepted)];

/// The files about which `spop-lint` has to be silent (`tests/lint.rs`) are right for HAProxy, too.
fn well_formed_files_are_accepted(bench: &Bench) -> Result<(), Failure> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "spop-lint", "tests"].iter().collect();
    let mut seen = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with("new-mode-spop") && !bench.new_engine() {
            continue; // an unknown mode up to 3.0
        }
        let file = ["haproxy.cfg", "conf.d"].map(|name| path.join(name));
        let file = file.into_iter().find(|file| file.exists());
        let file = file.unwrap_or_else(|| Path::new("neither haproxy.cfg nor conf.d").to_owned());
        equal(&path.display().to_string(), bench.program().warnings(&file)?, "")?;
        seen += 1;
    }
    ensure(seen >= 12, || format!("{seen} configurations"))
}

/// A configuration in which nothing is wrong. Cases change it.
const HAPROXY_CFG: &str = r#"global
    log stdout format raw local0
    nbthread 1

defaults
    mode http
    log global
    option httplog
    timeout connect 2s
    timeout client  30s
    timeout server  30s

frontend web
    bind @WEB@
    unique-id-format %[uuid()]
    option http-buffer-request
    filter spoe engine e2e config spoe.conf
    http-request set-var(txn.early) str(set)
    http-request send-spoe-group e2e of-rule
    http-request deny deny_status 403 if { var(txn.e2e.score) -m int gt 80 }
    http-request deny deny_status 503 unless { var(txn.e2e.score) -m found }
    http-request return status 200 hdr set "error=%[var(txn.e2e.error)]"

backend agents
    mode tcp
    option spop-check
    timeout server 60s
    timeout check 10s
    server agent1 @AGENT@ check inter 100ms fall 2 rise 1
"#;

const SPOE_CONF: &str = "[e2e]
spoe-agent e2e
    messages    ask more
    groups      of-rule
    option      var-prefix    e2e
    option      set-on-error  error
    timeout     hello         2s
    timeout     idle          50s
    timeout     processing    20s
    use-backend agents
    log         global

spoe-message ask
    args  id=unique-id body=req.body size=req.body_size
    event on-frontend-http-request

spoe-message more
    args  ip=src
    event on-frontend-http-request

spoe-message late
    args  early=var(txn.early)

spoe-group of-rule
    messages    late
";

/// The rule that lets nothing pass without a verdict.
const CLOSED: &str =
    "    http-request deny deny_status 503 unless { var(txn.e2e.score) -m found }\n";

/// Both files.
#[derive(Debug, Clone)]
struct Files {
    web: SocketAddr,
    config: String,
    spoe: String,
}

impl Files {
    /// The right ones, for an agent there.
    #[track_caller]
    fn right(agent: impl ToString) -> Result<Self, Failure> {
        let web = port()?;
        let config = HAPROXY_CFG.replace("@WEB@", &web.to_string());
        let config = config.replace("@AGENT@", &agent.to_string());
        Ok(Self { web, config, spoe: SPOE_CONF.to_owned() })
    }

    /// With other words in place of those, which stand in one of the two files, once.
    #[track_caller]
    fn with(&self, old: &str, new: &str) -> Result<Self, Failure> {
        let found = (self.config.matches(old).count(), self.spoe.matches(old).count());
        ensure(matches!(found, (1, 0) | (0, 1)), || format!("{old:?}: {found:?} times"))?;
        let (config, spoe) = (self.config.replace(old, new), self.spoe.replace(old, new));
        Ok(Self { web: self.web, config, spoe })
    }

    /// What `spop-lint` finds, as `RULE FILE:LINE`, where the line is told by its text.
    #[track_caller]
    fn lint(&self, bench: &Bench, options: &[&str]) -> Result<Vec<String>, Failure> {
        bench.write("spoe.conf", &self.spoe)?;
        let config = bench.write("haproxy.cfg", &self.config)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_spop-lint"));
        let output = command.args(options).arg(config).output()?;
        let text = String::from_utf8(output.stdout)?;
        ensure(!text.contains("not understood"), || text.clone())?;
        let mut found = Vec::new();
        for line in text.lines() {
            let Some((place, rest)) = line.split_once(": warning[") else { continue };
            let rule = rest.split(']').next().unwrap_or_default();
            let mut place = place.rsplit(':').skip(1);
            let number = place.next().unwrap_or_default().parse::<usize>()?;
            let spoe = place.next().is_some_and(|file| file.ends_with("spoe.conf"));
            let text = if spoe { &self.spoe } else { &self.config };
            let line = text.lines().nth(number - 1).unwrap_or_default();
            found.push(format!("{rule} {}", line.trim()));
        }
        equal("exit status", output.status.code(), Some(i32::from(!found.is_empty())))?;
        Ok(found)
    }

    /// `haproxy -c` has nothing to say, and `spop-lint` finds just this: rule and line.
    #[track_caller]
    fn expect(&self, bench: &Bench, found: &[&str]) -> Result<(), Failure> {
        equal("findings", self.lint(bench, &[])?, found)?;
        equal("haproxy -c", bench.program().warnings(&bench.path("haproxy.cfg"))?, "")
    }

    /// Starts HAProxy and waits for its agent to be UP, DOWN, or `no check`.
    #[track_caller]
    fn start(&self, bench: &Bench, status: &str) -> Result<Site, Failure> {
        let setup = Setup::new(self.config.as_str()).file("spoe.conf", self.spoe.as_str());
        let haproxy = bench.haproxy(&setup)?;
        haproxy.wait_for_server("agents", "agent1", status)?;
        Ok(Site { web: self.web, haproxy })
    }
}

/// A running HAProxy.
struct Site {
    web: SocketAddr,
    haproxy: Haproxy,
}

impl Site {
    #[track_caller]
    fn send(&self, request: &Request) -> Result<Response, Failure> {
        Ok(Client::connect(self.web)?.send(request)?)
    }

    /// The status of a GET.
    #[track_caller]
    fn status(&self) -> Result<u16, Failure> {
        Ok(self.send(&Request::get("/"))?.status)
    }

    /// The error variable that a GET that passes ends with.
    #[track_caller]
    fn error(&self) -> Result<String, Failure> {
        let response = self.send(&Request::get("/"))?;
        equal("status", response.status, 200)?;
        let set = header(&response, "set").unwrap_or_default();
        Ok(set.trim_start_matches("error=").to_owned())
    }
}
