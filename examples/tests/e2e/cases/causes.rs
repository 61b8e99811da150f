//! What HAProxy is told where a handler gives no answer, and connections that leave because of their age.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use spop_tokio::{Agent, AgentConfig, HandlerError, Limits, Scope, Var};

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::Request;
use crate::load::{Load, Reply, WORKERS};
use crate::site::{Site, Verdict};
use crate::spy::Serving;

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case::new("fallback_says_why", fallback_says_why)
        .shown("reason of a fallback answer in a variable"),
    Case::new("old_connections_leave_under_load", old_connections_leave_under_load)
        .shown("connections that leave because of their age, under load"),
];

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// The variable is there for the rules behind the filter, and only where there was no answer.
fn fallback_says_why(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let agent = Agent::inline(|notify, ack| {
        match notify.require("e2e")?.get("what")? {
            "error" => return Err(HandlerError::new("on purpose")),
            "too-big" => ack.set(Scope::Transaction, "echo", &vec![b'x'; 20_000][..])?,
            _ => ack.set(Scope::Transaction, "ip_score", 7)?,
        }
        Ok(())
    });
    let config = AgentConfig::new().var_prefix("e2e")?;
    let agent = agent.config(config.fallback_reason(Var::transaction("no_verdict"))?);
    let agent = Serving::start(address, agent)?;
    let site = Site::new(address).args("what=req.hdr(x-what)").unchecked();
    let site = site.more("why=%[var(txn.e2e.no_verdict)]").start(bench)?;
    let ask = |what: &str| site.ask(CLIENT, &Request::get("/").header("x-what", what));
    for reason in ["error", "too-big"] {
        let answer = ask(reason)?;
        equal("the reason", answer.get("why"), Some(reason))?;
        equal("score and error", (answer.get("score"), answer.get("error")), (None, None))?;
    }
    let answer = ask("nothing")?;
    equal("the reason of an answer", answer.get("why"), None)?;
    equal("an answer", answer.verdict(), Verdict::Score(7))?;
    drop(site);
    let stats = agent.stop()?.stats;
    equal("errors, too big", (stats.errors, stats.too_big), (2, 1))
}

/// A hundred times the age that anybody would configure.
fn old_connections_leave_under_load(bench: &Bench) -> Result<(), Failure> {
    const REPLIES: usize = 2_000;

    let address = port()?;
    let age = Duration::from_millis(200);
    let agent = Agent::inline(|_, ack| Ok(ack.set(Scope::Transaction, "ip_score", 7)?));
    let agent = Serving::start(address, agent.limits(Limits::new().max_age(Some(age))?))?;
    let site = Site::new(address).processing(Duration::from_secs(2)).unchecked().start(bench)?;
    let load = Load::start(site.web)?;
    load.wait_for("replies", 0, |replies| replies.len() >= REPLIES)?;
    let replies = load.finish()?;
    drop(site);
    let report = agent.stop()?;
    let connections = usize::try_from(report.connections)?;
    ensure(connections > WORKERS, || format!("no connection has left: {report}"))?;
    equal("cut, abandoned", (report.cut, report.stats.abandoned), (0, 0))?;

    let lost = |reply: &&Reply| reply.verdict != Verdict::Score(7);
    let errors: Vec<_> = replies.iter().filter(lost).collect();
    bench.note("a request that crosses the goodbye may fail");
    // A question crossed the goodbye: one for each, at most, and far from each.
    ensure(errors.len() <= connections, || {
        format!("{connections} connections, {} replies: {errors:?}", replies.len())
    })
}
