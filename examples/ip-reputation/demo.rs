//! `--demo`: the agent at work in front of HAProxy, ending with its failure on purpose.

mod agent;
mod haproxy;
mod http;
mod played;
mod table;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::sync::mpsc;

use self::agent::{DemoAgent, Seen};
use self::haproxy::{HaProxy, Program};
use self::played::Player;
use self::table::{Row, Table};
use crate::signals::Signals;

/// The list that comes with the example.
const LIST: &str = include_str!("reputation.list");
/// How often each request is made, to tell what asking the agent adds to it.
const ROUNDS: usize = 21;
/// `option var-prefix` of spoe.conf.
const VAR_PREFIX: &str = "iprep";

/// Clients whose score is in the list that comes with the example, and what the rules of its
/// haproxy.cfg make of it.
const CASES: [Case; 3] = [
    Case { client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), score: 10, status: 200 },
    Case { client: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66)), score: 95, status: 403 },
    Case {
        client: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        score: 20,
        status: 200,
    },
];

#[derive(Debug, Clone, Copy)]
struct Case {
    client: IpAddr,
    score: i32,
    status: u16,
}

/// What became of a request.
#[derive(Debug)]
struct Outcome {
    status: u16,
    /// The variable of `option set-on-error`, where it is set.
    error: Option<u32>,
    /// What asking the agent added to the time of the request.
    added: Duration,
}

/// Runs the demo; an error if anything went otherwise than it should.
pub(crate) async fn run(keep: bool) -> Result<(), DemoError> {
    let (tell, mut told) = mpsc::unbounded_channel();
    let signals = Signals::stop().map_err(context("signals"))?;
    signals.on_each(move || _ = tell.send(())).map_err(context("signals"))?;
    // Dropped here, whatever the reason, HAProxy ends with the demo.
    let kept = tokio::select! {
        result = show(keep) => result?,
        _ = told.recv() => return Err(DemoError::new("interrupted")),
    };
    if kept.is_some() {
        told.recv().await;
    }
    Ok(())
}

/// The whole demo; returns what is to be left running.
async fn show(keep: bool) -> Result<Option<(Asker, DemoAgent)>, DemoError> {
    let agent = DemoAgent::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let address = agent.address;
    let mut asker = Asker::find(address).await?;
    if keep && matches!(asker, Asker::Played(_)) {
        return Err(DemoError::new("--keep: there is no HAProxy on the PATH to leave running"));
    }
    let Seen { handshake, .. } = agent.seen().unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    println!("ip-reputation {version} · agent on {address} · {asker} · SPOP 2.0, {handshake}\n");

    let mut rows = Vec::new();
    for case in CASES {
        let outcome = asker.ask(case.client).await?;
        rows.push(case.row(&outcome, agent.seen()));
    }
    rows.push(without_agent(agent, &mut asker).await?);

    let table = Table::new(rows);
    println!("{table}\n{}\n", asker.how_timed());
    let (requests, surprises) = (CASES.len() + 1, table.surprises());
    if surprises > 0 {
        let text = format!("{surprises} of {requests} requests not as expected.");
        return Err(DemoError::new(text + &asker.where_to_look()));
    }
    println!("{requests} requests as expected.{}", asker.what_next());
    if keep { asker.keep(address).await.map(Some) } else { Ok(None) }
}

/// The last row: the agent is stopped, and nobody gets through without a verdict.
async fn without_agent(agent: DemoAgent, asker: &mut Asker) -> Result<Row, DemoError> {
    let report = match asker {
        Asker::Real { haproxy, .. } => {
            // As in operation: HAProxy has taken the agent out when it goes, so nobody waits.
            agent.fail_health_checks();
            haproxy.without_agent().await?;
            agent.stop().await?
        }
        Asker::Played(player) => tokio::join!(agent.stop(), player.goodbye()).0?,
    };
    let outcome = asker.ask(CASES[0].client).await?;
    let set = match outcome.error {
        Some(error) => format!("(none: txn.{VAR_PREFIX}.error={error})"),
        None => "(none)".to_owned(),
    };
    let as_expected = outcome.status == 503 && outcome.error.is_some() && report.cut == 0;
    let (request, sent) = ("GET /  agent stopped".to_owned(), "(not asked)".to_owned());
    Ok(Row { cells: [request, sent, set, outcome.deed(), outcome.added()], as_expected })
}

impl Case {
    fn row(&self, outcome: &Outcome, seen: Option<Seen>) -> Row {
        let Seen { sent, set, .. } = seen.unwrap_or_default();
        let kind = if self.client.is_ipv4() { "ipv4" } else { "ipv6" };
        let as_expected = sent == format!("ip={kind}:{}", self.client)
            && set == format!("txn.{VAR_PREFIX}.ip_score=int32:{}", self.score)
            && outcome.status == self.status;
        let request = format!("GET /  from {}", self.client);
        Row { cells: [request, sent, set, outcome.deed(), outcome.added()], as_expected }
    }
}

impl Outcome {
    fn deed(&self) -> String {
        let meaning = match self.status {
            200 => "let through",
            403 => "denied",
            503 => "fail closed",
            _ => "?",
        };
        format!("{} {meaning}", self.status)
    }

    fn added(&self) -> String {
        format!("{:.2} ms", self.added.as_secs_f64() * 1e3)
    }
}

/// Who asks the agent: a real HAProxy, or one played by spop-proto.
#[derive(Debug)]
enum Asker {
    Real { haproxy: HaProxy, program: Program },
    Played(Box<Player>),
}

impl Asker {
    /// HAProxy where there is one; ready to ask.
    async fn find(agent: SocketAddr) -> Result<Self, DemoError> {
        match Program::find()? {
            Some(program) => {
                let haproxy = HaProxy::start(&program, agent).await?;
                Ok(Self::Real { haproxy, program })
            }
            None => Player::connect(agent).await.map(Box::new).map(Self::Played),
        }
    }

    async fn ask(&mut self, client: IpAddr) -> Result<Outcome, DemoError> {
        match self {
            Self::Real { haproxy, .. } => haproxy.ask(client).await,
            Self::Played(player) => player.ask(client).await,
        }
    }

    fn how_timed(&self) -> String {
        match self {
            Self::Real { .. } => format!(
                "added: the median of {ROUNDS} requests, less that of {ROUNDS} without the agent"
            ),
            Self::Played(_) => format!("added: the median of {ROUNDS} questions and answers"),
        }
    }

    fn where_to_look(&self) -> String {
        match self {
            Self::Real { haproxy, .. } => {
                format!(" HAProxy's log: {}/haproxy.log", haproxy.folder().display())
            }
            Self::Played(_) => String::new(),
        }
    }

    fn what_next(&self) -> String {
        let configuration = match self {
            Self::Real { haproxy, .. } => {
                let folder = haproxy.folder().display();
                format!(" Configuration used: {folder}/{{haproxy.cfg,spoe.conf}}.")
            }
            Self::Played(_) => String::new(),
        };
        format!("{configuration} Next: README, “Your own agent”.")
    }

    /// Starts the agent again, for requests by hand.
    async fn keep(mut self, address: SocketAddr) -> Result<(Self, DemoAgent), DemoError> {
        let agent = DemoAgent::start(address).await?;
        if let Self::Real { haproxy, .. } = &mut self {
            haproxy.ready().await?;
            println!("Until Ctrl-C, a request in the name of any client (curl 8.2 or later):");
            println!("  curl -i --haproxy-clientip 203.0.113.66 http://{}/", haproxy.web);
        }
        Ok((self, agent))
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real { haproxy, program } => {
                write!(f, "HAProxy {} on {}", program.version, haproxy.web)
            }
            Self::Played(_) => {
                f.write_str("HAProxy not found: its part is played by spop-proto (dialect ≥ 3.1)")
            }
        }
    }
}

/// Why the demo could not be shown, or went wrong.
#[derive(Debug)]
pub(crate) struct DemoError(String);

impl DemoError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DemoError {}

/// Says what was being done when an error came.
fn context<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> DemoError {
    move |error| DemoError(format!("{what}: {error}"))
}

/// The middle one: what a single slow or lucky try does not change.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::List;

    #[test]
    fn cases_are_in_the_list() {
        let list = List::parse(LIST.as_bytes()).unwrap();
        for Case { client, score, .. } in CASES {
            assert_eq!(list.score(client), score, "{client}");
        }
    }

    #[test]
    fn median_is_not_the_mean() {
        let times = [9, 1, 2].map(Duration::from_millis).to_vec();
        assert_eq!(median(times), Duration::from_millis(2));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }
}
