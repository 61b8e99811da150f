//! The configuration most cases share: one frontend that asks the agent and tells the client which
//! variables that left behind.

use std::collections::HashMap;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::bench::{Bench, Failure, equal, port};
use crate::haproxy::{Client, Haproxy, Request, Response, Setup};

/// `accept-proxy`: every client says with the PROXY protocol which address it has. `@WORDS@` are what
/// cases can change.
const HAPROXY_CFG: &str = r#"
global
    log stdout format raw local0
    @GLOBAL@

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
    http-request return status 200 content-type text/plain lf-string "score=%[var(txn.e2e.ip_score)] error=%[var(txn.e2e.error)] echo=%[var(txn.e2e.echo),hex] length=%[var(txn.e2e.length)] @MORE@"

backend agents
    mode tcp
    option spop-check
    timeout server 30s
    # Without it a check that takes longer than `inter` fails: on a busy machine that means nothing.
    timeout check 10s
    server agent1 "${AGENT}" @CHECK@
"#;

/// What a case with proxies of its own need not write: they bind `"${WEB}"`, and `backend app` is a
/// server behind them, for which `"${APP}"` may stand too.
const OWN_CFG: &str = r#"
global
    log stdout format raw local0
    # Threads may have connections of their own to the agent. With one, its ids are predictable.
    nbthread 1

defaults
    mode http
    log global
    timeout connect 2s
    timeout client 30s
    timeout server 30s

frontend origin
    bind "${APP}"
    http-request return status 200 content-type text/plain string served

backend app
    server app "${APP}"
"#;

/// Behind the proxies that use it: before them, HAProxy from 3.1 on would not keep its connections.
const OWN_AGENTS: &str = r#"
backend agents
    mode tcp
    option spop-check
    timeout server 30s
    timeout check 10s
    server agent1 "${AGENT}" check inter 100ms fall 2 rise 1
"#;

/// The agent section of such a case; its own lines follow.
const OWN_SPOE: &str = "[e2e]
spoe-agent e2e
    option      var-prefix    e2e
    option      set-on-error  error
    timeout     hello         2s
    timeout     idle          2m
    timeout     processing    20s
    use-backend agents
    log         global
";

/// Starts HAProxy with proxies that are the case's own. `spoe` goes on where an agent section still
/// misses its `messages` and `groups`.
#[track_caller]
pub(crate) fn start_own(
    bench: &Bench,
    agent: SocketAddr,
    proxies: &str,
    spoe: &str,
) -> Result<Running, Failure> {
    let web = port()?;
    let setup = Setup::new([OWN_CFG, proxies, OWN_AGENTS].concat())
        .file("spoe.conf", [OWN_SPOE, spoe].concat())
        .set("WEB", web)
        .set("APP", port()?)
        .set("AGENT", agent);
    Ok(Running { web, haproxy: bench.haproxy(&setup)?, setup })
}

/// A header of a response, as text.
pub(crate) fn header(response: &Response, name: &str) -> Option<String> {
    response.header(name).map(|value| String::from_utf8_lossy(value).into_owned())
}

const CHECK: &str = "check inter 100ms fall 2 rise 1";

/// Goes on in the last section.
const SECOND: &str = r#"    balance roundrobin
    server agent2 "${SECOND}" @CHECK@
"#;

/// What differs from case to case.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    agent: String,
    args: &'static str,
    option: &'static str,
    processing: Duration,
    global: &'static str,
    check: &'static str,
    more: &'static str,
    second: Option<String>,
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
            global: "",
            check: CHECK,
            more: "",
            second: None,
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

    /// One more line for the `global` section.
    pub(crate) fn global(self, global: &'static str) -> Self {
        Self { global, ..self }
    }

    /// No health checks: each connection the agent sees is one for requests.
    pub(crate) fn unchecked(self) -> Self {
        Self { check: "", ..self }
    }

    /// More that the answer tells: `name=%[sample]`.
    pub(crate) fn more(self, more: &'static str) -> Self {
        Self { more, ..self }
    }

    /// One more agent, the server `agent2`, in turn with the first.
    pub(crate) fn second(self, agent: impl ToString) -> Self {
        Self { second: Some(agent.to_string()), ..self }
    }

    /// Starts HAProxy.
    #[track_caller]
    pub(crate) fn start(&self, bench: &Bench) -> Result<Running, Failure> {
        let Self { args, option, global, check, more, .. } = self;
        let second = if self.second.is_some() { SECOND } else { "" };
        let config = [HAPROXY_CFG, second].concat();
        let config = config.replace("@GLOBAL@", global).replace("@CHECK@", check);
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
        let setup = Setup::new(config.replace("@MORE@", more))
            .file("spoe.conf", spoe_conf)
            .set("WEB", web)
            .set("AGENT", &self.agent)
            .set("SECOND", self.second.as_deref().unwrap_or_default());
        Ok(Running { web, haproxy: bench.haproxy(&setup)?, setup })
    }
}

/// A site that serves.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where clients connect to.
    pub(crate) web: SocketAddr,
    /// The process, to look into.
    pub(crate) haproxy: Haproxy,
    setup: Setup,
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

    /// A variable of the process, as HAProxy describes it (`type=sint value=<1>`), if it is set.
    #[track_caller]
    pub(crate) fn process_variable(&self, name: &str) -> Result<Option<String>, Failure> {
        let answer = self.haproxy.command(&format!("get var proc.{name}"))?;
        let answer = answer.trim_end();
        if answer == "Variable not found." {
            return Ok(None);
        }
        let value = answer.strip_prefix(&format!("proc.{name}: "));
        let odd = || Failure::new(format!("HAProxy on proc.{name}: {answer:?}"));
        value.map(|value| Some(value.to_owned())).ok_or_else(odd)
    }

    /// Starts a HAProxy with the same configuration in place of this one, which it tells to finish
    /// and which is returned.
    #[track_caller]
    pub(crate) fn reload(&mut self, bench: &Bench) -> Result<Haproxy, Failure> {
        let setup = self.setup.clone().replacing(&mut self.haproxy)?;
        Ok(mem::replace(&mut self.haproxy, bench.haproxy(&setup)?))
    }

    /// Waits until the server of the agent has that status.
    #[track_caller]
    pub(crate) fn wait_for_agent(&self, status: &str) -> Result<(), Failure> {
        Ok(self.haproxy.wait_for_server("agents", "agent1", status)?)
    }
}

/// A client of a site, on one connection that it keeps.
#[derive(Debug)]
pub(crate) struct Visitor {
    client: Client,
    dismissed: bool,
}

impl Visitor {
    /// Connects as `client`.
    pub(crate) fn connect(web: SocketAddr, client: IpAddr) -> io::Result<Self> {
        Ok(Self { client: Client::connect_as(web, client)?, dismissed: false })
    }

    /// Whether the last answer said that there will be no other on this connection.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.dismissed
    }

    /// One request.
    pub(crate) fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        let response = self.client.send(request)?;
        self.dismissed =
            response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
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
