//! The configuration most cases share: one frontend that asks the agent and tells the client which
//! variables that left behind.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::bench::{Bench, Failure, equal, port};
use crate::haproxy::{Client, Haproxy, Request, Setup};

/// `accept-proxy`: every client says with the PROXY protocol which address it has.
const HAPROXY_CFG: &str = r#"
global
    log stdout format raw local0

defaults
    mode http
    log global
    option httplog
    timeout connect 2s
    timeout client 30s
    timeout server 30s

frontend web
    bind "${WEB}" accept-proxy
    # The whole body before the agent is asked, up to the buffer's size.
    option http-buffer-request
    timeout http-request 20s
    filter spoe engine e2e config spoe.conf
    http-request return status 200 content-type text/plain lf-string "score=%[var(txn.e2e.ip_score)] error=%[var(txn.e2e.error)] echo=%[var(txn.e2e.echo),hex] length=%[var(txn.e2e.length)]"

backend agents
    mode tcp
    option spop-check
    timeout server 30s
    # Without it a check that takes longer than `inter` fails: on a busy machine that means nothing.
    timeout check 10s
    server agent1 "${AGENT}" check inter 100ms fall 2 rise 1
"#;

/// What differs from case to case.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    agent: String,
    args: &'static str,
    option: &'static str,
    processing: Duration,
}

impl Site {
    /// Asks the agent at `agent`, an address as a `server` line has it, what `ip-reputation` wants
    /// to be asked.
    pub(crate) fn new(agent: impl ToString) -> Self {
        Self {
            agent: agent.to_string(),
            args: "ip=src",
            option: "",
            // Long: a busy test machine is not what is tested.
            processing: Duration::from_secs(10),
        }
    }

    /// The `args` of the one message, whose name is `e2e`.
    pub(crate) fn args(self, args: &'static str) -> Self {
        Self { args, ..self }
    }

    /// One more line for the `spoe-agent` section.
    pub(crate) fn option(self, option: &'static str) -> Self {
        Self { option, ..self }
    }

    /// `timeout processing`, for cases in which it is met.
    pub(crate) fn processing(self, processing: Duration) -> Self {
        Self { processing, ..self }
    }

    /// Starts HAProxy.
    #[track_caller]
    pub(crate) fn start(&self, bench: &Bench) -> Result<Running, Failure> {
        let Self { args, option, .. } = self;
        let processing = self.processing.as_millis();
        let spoe_conf = format!(
            "[e2e]
spoe-agent e2e
    messages    e2e
    option      var-prefix    e2e
    option      set-on-error  error
    timeout     hello         2s
    timeout     idle          2m
    timeout     processing    {processing}ms
    {option}
    use-backend agents
    log         global

spoe-message e2e
    args  {args}
    event on-frontend-http-request
"
        );
        let web = port()?;
        let setup = Setup::new(HAPROXY_CFG)
            .file("spoe.conf", spoe_conf)
            .set("WEB", web)
            .set("AGENT", &self.agent);
        Ok(Running { web, haproxy: bench.haproxy(&setup)? })
    }
}

/// A site that serves.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where clients connect to.
    pub(crate) web: SocketAddr,
    /// The process, to look into.
    pub(crate) haproxy: Haproxy,
}

impl Running {
    /// One request on a connection of its own.
    #[track_caller]
    pub(crate) fn ask(&self, client: IpAddr, request: &Request) -> Result<Answer, Failure> {
        Ok(Visitor::connect(self.web, client)?.ask(request)?)
    }

    /// One GET for each address, whose scores must be these.
    #[track_caller]
    pub(crate) fn expect_scores(&self, expected: &[(&str, i64)]) -> Result<(), Failure> {
        for (client, score) in expected {
            let answer = self.ask(client.parse()?, &Request::get("/"))?;
            let what = format!("score of {client}");
            equal(&what, answer.verdict(), Verdict::Score(*score))?;
        }
        Ok(())
    }

    /// Waits until the server of the agent has that status.
    #[track_caller]
    pub(crate) fn wait_for_agent(&self, status: &str) -> Result<(), Failure> {
        Ok(self.haproxy.wait_for_server("agents", "agent1", status)?)
    }
}

/// A client of a site, on one connection that it keeps.
#[derive(Debug)]
pub(crate) struct Visitor(Client);

impl Visitor {
    /// Connects as `client`.
    pub(crate) fn connect(web: SocketAddr, client: IpAddr) -> io::Result<Self> {
        Ok(Self(Client::connect_as(web, client)?))
    }

    /// One request.
    pub(crate) fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        let response = self.0.send(request)?;
        let text = response.text();
        if response.status != 200 {
            let error = format!("HTTP status {} instead of 200: {text}", response.status);
            return Err(io::Error::other(error));
        }
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        // An unset variable leaves nothing, or a dash where the line is a log's.
        let set = pairs.filter(|(_, value)| !value.is_empty() && *value != "-");
        Ok(Answer(set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }
}

/// The variables of a request, as the site's answer told them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer(HashMap<String, String>);

/// What the agent left of `ip-reputation`'s two variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A score and no error.
    Score(i64),
    /// An error and no score.
    Error(i64),
    /// Both or neither: nothing that may ever be seen.
    Odd,
}

impl Answer {
    /// A variable, if it was set.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A variable that holds a number.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    /// Score or error.
    pub(crate) fn verdict(&self) -> Verdict {
        match (self.number("score"), self.number("error")) {
            (Some(score), None) => Verdict::Score(score),
            (None, Some(error)) => Verdict::Error(error),
            _ => Verdict::Odd,
        }
    }
}
