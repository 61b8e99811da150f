//! Agents that come and go, and what HAProxy and its clients notice of it.

use std::collections::HashSet;
use std::time::Duration;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::wait_until;
use crate::load::{CLIENT, Load, Reply};
use crate::site::{Site, Verdict};

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case::new("health_check_follows_the_agent", health_check_follows_the_agent)
        .shown("health check: DOWN and UP with the agent"),
    Case::new("agent_stopped_and_started_under_load", agent_stopped_and_started_under_load)
        .shown("agent stopped and started under load"),
    Case::new("sighup_reloads_the_list_under_load", sighup_reloads_the_list_under_load),
    Case::new("sigterm_drains", sigterm_drains).shown("agent leaves under load: no error"),
    Case::new("second_signal_ends_at_once", second_signal_ends_at_once),
];

fn scores(replies: &[Reply]) -> usize {
    replies.iter().filter(|reply| matches!(reply.verdict, Verdict::Score(_))).count()
}

fn errors(replies: &[Reply]) -> usize {
    replies.iter().filter(|reply| matches!(reply.verdict, Verdict::Error(_))).count()
}

/// `option spop-check`: DOWN without an agent, UP with one, DOWN again once it stops.
fn health_check_follows_the_agent(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let site = Site::new(address).start(bench)?;
    site.wait_for_agent("DOWN")?;

    let agent = bench.agent(address, &bench.write("list", "10.0.0.0/8 30\n")?)?;
    site.wait_for_agent("UP")?;
    // By a handshake that HAProxy understood, and not for instance by a mere connection.
    let check = site.haproxy.stat("agents", "agent1", "check_status")?;
    equal("result of the check", check.as_str(), "L7OK")?;
    site.expect_scores(&[("10.0.0.1", 30)])?;

    agent.stop()?;
    site.wait_for_agent("DOWN")
}

/// Every request is answered: with a score while there is an agent, with the error variable while
/// there is none.
fn agent_stopped_and_started_under_load(bench: &Bench) -> Result<(), Failure> {
    let list = bench.write("list", "10.0.0.0/8 30\n")?;
    let address = port()?;
    let agent = bench.agent(address, &list)?;
    let site = Site::new(address).processing(Duration::from_secs(1)).start(bench)?;

    let load = Load::start(site.web)?;
    load.wait_for("scores", 0, |replies| scores(replies) >= 100)?;
    let before = load.mark();
    agent.stop()?;
    let gone = load.mark();
    load.wait_for("errors without an agent", gone, |replies| errors(replies) >= 8)?;
    let _agent = bench.agent(address, &list)?;
    load.wait_for("scores of the new agent", gone, |replies| {
        let end = replies.iter().rev().take_while(|reply| reply.verdict == Verdict::Score(30));
        end.count() >= 100
    })?;

    let replies = load.finish()?;
    equal("errors before the stop", errors(replies.get(..before).unwrap_or_default()), 0)?;
    let other = |reply: &Reply| !matches!(reply.verdict, Verdict::Score(30) | Verdict::Error(_));
    equal("replies with another score", replies.iter().position(other), None)
}

/// A new list takes effect without a request that fails or falls back to the old list; a bad one is
/// refused with its line and changes nothing.
fn sighup_reloads_the_list_under_load(bench: &Bench) -> Result<(), Failure> {
    let list = bench.write("list", "10.0.0.0/8 30\n")?;
    let address = port()?;
    let mut agent = bench.agent(address, &list)?;
    let site = Site::new(address).start(bench)?;

    let load = Load::start(site.web)?;
    load.wait_for("the first score", 0, |replies| scores(replies) >= 100)?;

    bench.write("list", &format!("10.0.0.0/8 30\n{CLIENT}/32 77\n"))?;
    agent.reload()?;
    let new = |reply: &Reply| reply.verdict == Verdict::Score(77);
    load.wait_for("the score of the new list", 0, |replies| replies.iter().any(new))?;

    bench.write("list", "10.0.0.0/8 40\nnot-an-address 5\n")?;
    let mark = agent.reload()?;
    let complaint = agent.log().wait_for(mark, "list:2")?;
    ensure(complaint.contains("not-an-address"), || format!("the complaint: {complaint}"))?;
    let refused = load.mark();
    load.wait_for("replies after the bad list", refused, |replies| replies.len() >= 100)?;

    // Each client must have seen the old score for a while and from then on the new one.
    let replies = load.finish()?;
    let mut changed = HashSet::new();
    for (n, Reply { worker, verdict }) in replies.iter().enumerate() {
        match verdict {
            Verdict::Score(77) => drop(changed.insert(worker)),
            Verdict::Score(30) if !changed.contains(worker) => {}
            odd => {
                let state = if changed.contains(worker) { "after" } else { "before" };
                return Err(Failure::new(format!("reply {n}: {odd:?} {state} the change")));
            }
        }
    }
    Ok(())
}

/// SIGTERM under load: the health check fails first, so that HAProxy stops asking, while all that it
/// still asks is answered; then the agent says how it went, once, and leaves with status 0.
fn sigterm_drains(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let mut agent = bench.agent(address, &bench.write("list", "10.0.0.0/8 30\n")?)?;
    let site = Site::new(address).processing(Duration::from_secs(1)).start(bench)?;
    site.wait_for_agent("UP")?;

    let load = Load::start(site.web)?;
    load.wait_for("scores", 0, |replies| scores(replies) >= 100)?;
    agent.process().signal("TERM")?;
    let told = load.mark();
    let mut asked = told;
    wait_until("HAProxy to take the agent out", || {
        // Replies that were there before a look at the status belong to what it shows, or earlier.
        let mark = load.mark();
        let down = site.haproxy.stat("agents", "agent1", "status")? == "DOWN";
        if !down {
            asked = mark;
        }
        Ok(down.then_some(()))
    })?;
    let status = agent.process().exited()?;
    ensure(status.is_none(), || format!("it left before HAProxy took it out: {status:?}"))?;
    let status = agent.process().wait()?;
    equal("exit code", status.code(), Some(0))?;
    let lines = agent.log().lines(0);
    let reports: Vec<_> =
        lines.iter().filter(|line| line.contains(" connections drained")).collect();
    equal("reports", reports.len(), 1)?;
    ensure(reports.iter().all(|line| line.ends_with(" 0 cut")), || format!("{reports:?}"))?;

    let replies = load.finish()?;
    let asked = replies.get(..asked).unwrap_or_default();
    equal("errors while HAProxy asked it", errors(asked), 0)?;
    ensure(asked.len() > told, || "nothing was asked between SIGTERM and DOWN".to_owned())
}

/// Told a second time, it does not wait for anything any more: 1 says that it was not its usual end.
fn second_signal_ends_at_once(bench: &Bench) -> Result<(), Failure> {
    for (first, second) in [("TERM", "INT"), ("INT", "TERM")] {
        let mut agent = bench.agent(port()?, &bench.write("list", "")?)?;
        agent.process().signal(first)?;
        agent.log().wait_for(0, "stopping: health checks fail")?;
        agent.process().signal(second)?;
        let status = agent.process().wait()?;
        equal("exit code", status.code(), Some(1))?;
        agent.log().wait_for(0, "told to stop a second time")?;
    }
    Ok(())
}
