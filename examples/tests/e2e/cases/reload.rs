//! Reloads, restarts and ends of HAProxy and of agents while requests are under way.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use spop_tokio::spop_proto::Status;
use spop_tokio::spop_proto::handler::Dispatch;
use spop_tokio::{CloseReason, Closed, Peer, Scope};
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::agent::Agent;
use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{DEADLINE, Log, Request, wait_until};
use crate::load::{Load, Reply, WORKERS};
use crate::site::{Running, Site, Verdict, Visitor};

use super::Case;

/// With `ip-reputation`, for each runtime.
pub(super) const FOR_EACH: &[Case] = &[
    Case::new("haproxy_reloaded_under_load", haproxy_reloaded_under_load)
        .shown("HAProxy reloaded under load: no error"),
    Case::new("agent_killed_with_requests_in_flight", agent_killed_with_requests_in_flight)
        .shown("agent killed: in-flight requests fail at once"),
    Case::new("one_of_two_agents_leaves_under_load", one_of_two_agents_leaves_under_load)
        .shown(RESTART),
];

/// Once: its own agent, or twice the time of a lame duck (3 s).
pub(super) const CASES: &[Case] = &[
    Case::new("soft_stop_waits_for_answers", soft_stop_waits_for_answers)
        .shown("HAProxy soft stop: in-flight answers arrive"),
    Case::new("rolling_restart_under_load", rolling_restart_under_load).shown(RESTART),
];

const RESTART: &str = "rolling restart of two agents under load";

/// A new HAProxy takes over the listeners, the old one finishes what it has begun and leaves with
/// status 0. Every request gets its score.
fn haproxy_reloaded_under_load(bench: &Bench) -> Result<(), Failure> {
    const RELOADS: usize = 2;

    let address = port()?;
    let agent = bench.agent(address, &bench.write("list", "10.0.0.0/8 30\n")?)?;
    let mut site = Site::new(address).start(bench)?;
    site.wait_for_agent("UP")?;

    let load = Load::start_retrying(site.web)?;
    for reload in 1..=RELOADS {
        some_scores(&load)?;
        let mut old = site.reload(bench)?;
        let status = old.process().wait()?;
        equal(&format!("exit code at reload {reload}"), status.code(), Some(0))?;
        let lines = old.log().lines(0);
        let mut requests = lines.iter().filter(|line| line.contains("GET / HTTP/1.1"));
        let dropped = requests.find(|line| !line.contains(" 200 "));
        ensure(dropped.is_none(), || format!("begun and not finished: {dropped:?}"))?;
    }
    // By the last HAProxy, there is no other any more.
    some_scores(&load)?;

    // HAProxy that leaves closes the idle connection of each client, and a request may cross that: it
    // is not in the log above. It goes again to the new one, as the old one listens no more.
    let retried = load.retried();
    ensure(retried <= RELOADS * WORKERS, || format!("{retried} requests had to be sent again"))?;
    only_scores(&load.finish()?, &[30])?;
    nothing_to_complain_of(agent.log())
}

/// SIGUSR1 while an agent thinks: those requests get their variables, then HAProxy leaves with status
/// 0, and each of its connections ends in the ordinary way.
fn soft_stop_waits_for_answers(bench: &Bench) -> Result<(), Failure> {
    const CLIENTS: u8 = 6;

    let address = port()?;
    let agent = Holding::start(address)?;
    let mut site = Site::new(address).start(bench)?;
    let web = site.web;
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|n| {
            thread::spawn(move || {
                let client = IpAddr::from(Ipv4Addr::new(10, 1, 1, n));
                let answer = Visitor::connect(web, client)?.ask(&Request::get("/"))?;
                Ok::<_, io::Error>((n, answer.verdict()))
            })
        })
        .collect();
    agent.wait_for(usize::from(CLIENTS))?;

    let mark = site.haproxy.log().mark();
    site.haproxy.process().signal("USR1")?;
    site.haproxy.log().wait_for(mark, "Proxy web stopped")?;
    let status = site.haproxy.process().exited()?;
    ensure(status.is_none(), || format!("it did not wait for the answers: {status:?}"))?;

    agent.answer();
    for client in clients {
        let answered = client.join().map_err(|_| Failure::new("a client panicked"))?;
        let (n, verdict) = answered?;
        equal(&format!("answer for client {n}"), verdict, Verdict::Score(n.into()))?;
    }
    let status = site.haproxy.process().wait()?;
    equal("exit code of HAProxy", status.code(), Some(0))?;

    let ends = agent.finish()?;
    let mut answered = 0;
    for Closed { reason, stats, .. } in ends {
        answered += stats.answered;
        let ordinary = match &reason {
            CloseReason::HealthCheck => true,
            CloseReason::Haproxy { status, .. } => *status == Status::NORMAL && !bench.new_engine(),
            CloseReason::PeerClosed => bench.new_engine(),
            _ => false,
        };
        ensure(ordinary, || format!("a connection ended otherwise: {reason}"))?;
    }
    equal("answers given", answered, u64::from(CLIENTS))
}

/// SIGKILL: the system closes the agent's connections, which HAProxy takes as the answer to all that
/// waits on them. With a new agent everything is as before.
fn agent_killed_with_requests_in_flight(bench: &Bench) -> Result<(), Failure> {
    /// Connection lost.
    const LOST: Verdict = Verdict::Error(256 + 1);
    const PROCESSING: Duration = Duration::from_secs(20);

    let list = bench.write("list", "10.0.0.0/8 30\n")?;
    let address = port()?;
    let mut agent = bench.agent(address, &list)?;
    // One thread: what it has done before it answers on its admin socket is done.
    let site = Site::new(address).global("nbthread 1").processing(PROCESSING).start(bench)?;
    site.wait_for_agent("UP")?;

    let load = Load::start(site.web)?;
    some_scores(&load)?;
    // It keeps its connections and takes what is sent, but does nothing.
    agent.process().signal("STOP")?;
    all_requests_wait(&site)?;

    let in_flight = load.mark();
    let killed = Instant::now();
    agent.process().signal("KILL")?;
    load.wait_for("an answer for each client", in_flight, |replies| {
        of_each_client(replies).len() == WORKERS
    })?;
    // Its own number says so already: it was not the processing timeout, which would be a 1.
    let took = killed.elapsed();
    ensure(took < PROCESSING / 2, || format!("the last answer came after {took:?}"))?;
    agent.process().wait()?;

    let _agent = bench.agent(address, &list)?;
    load.wait_for("scores of the new agent", in_flight, |replies| {
        let end = replies.iter().rev().take_while(|reply| reply.verdict == Verdict::Score(30));
        end.count() >= 100
    })?;
    let replies = load.finish()?;
    let (before, since) = replies.split_at_checked(in_flight).unwrap_or_default();
    only_scores(before, &[30])?;
    for Reply { worker, verdict } in of_each_client(since) {
        equal(&format!("what client {worker} had asked"), verdict, LOST)?;
    }
    Ok(())
}

/// Two agents behind one backend; one is told to stop, and it is the busy one. No request notices
/// that its health checks fail and HAProxy goes over to the other, nor (see [`but_lost_ones`]) that
/// it leaves.
fn one_of_two_agents_leaves_under_load(bench: &Bench) -> Result<(), Failure> {
    let Pair { site, load, first, second, .. } = Pair::start(bench)?;
    // HAProxy before 3.1 need not use both, as long as the connections to one are enough.
    let busy = load.last().map(|reply| reply.verdict);
    let (leaving, server, _other, score) = match busy {
        Some(Verdict::Score(30)) => (first, "agent1", second, 40),
        _ => (second, "agent2", first, 30),
    };
    leaves(leaving, &site, server)?;

    let gone = load.mark();
    load.wait_for("more scores", gone, |replies| replies.len() >= 100)?;
    let replies = load.finish()?;
    only_scores(&but_lost_ones(bench, &replies, 1)?, &[30, 40])?;
    only_scores(&asked_later(replies.get(gone..).unwrap_or_default()), &[score])
}

/// What an operator does: one agent after the other is told to stop, started anew, and the next one's
/// turn comes when HAProxy uses the new one. Each request gets a score (see [`but_lost_ones`]).
fn rolling_restart_under_load(bench: &Bench) -> Result<(), Failure> {
    let Pair { site, load, addresses, first, second } = Pair::start(bench)?;
    let lists =
        [bench.write("list31", "10.0.0.0/8 31\n")?, bench.write("list41", "10.0.0.0/8 41\n")?];

    let mut renewed = Vec::new();
    let steps = [first, second].into_iter().zip(["agent1", "agent2"]).zip(addresses).zip(lists);
    for (((agent, server), address), list) in steps {
        leaves(agent, &site, server)?;
        renewed.push(bench.agent(address, &list)?);
        site.haproxy.wait_for_server("agents", server, "UP")?;
    }

    let done = load.mark();
    load.wait_for("more scores", done, |replies| replies.len() >= 100)?;
    let replies = load.finish()?;
    only_scores(&but_lost_ones(bench, &replies, 2)?, &[30, 31, 40, 41])?;
    only_scores(&asked_later(replies.get(done..).unwrap_or_default()), &[31, 41])
}

/// Two agents behind one HAProxy, which is under load.
struct Pair {
    site: Running,
    load: Load,
    addresses: [SocketAddr; 2],
    /// Its score is 30.
    first: Agent,
    /// Its score is 40.
    second: Agent,
}

impl Pair {
    #[track_caller]
    fn start(bench: &Bench) -> Result<Self, Failure> {
        let addresses @ [one, two] = [port()?, port()?];
        let first = bench.agent(one, &bench.write("list30", "10.0.0.0/8 30\n")?)?;
        let second = bench.agent(two, &bench.write("list40", "10.0.0.0/8 40\n")?)?;
        // Short: before 3.1 it may be met, see `but_lost_ones`.
        let processing = Duration::from_secs(2);
        let site = Site::new(one).second(two).processing(processing).start(bench)?;
        for server in ["agent1", "agent2"] {
            site.haproxy.wait_for_server("agents", server, "UP")?;
        }
        let load = Load::start(site.web)?;
        some_scores(&load)?;
        Ok(Self { site, load, addresses, first, second })
    }
}

/// SIGTERM: HAProxy takes the agent out, then that leaves, and nobody waited in vain for an answer.
#[track_caller]
fn leaves(mut agent: Agent, site: &Running, server: &str) -> Result<(), Failure> {
    agent.process().signal("TERM")?;
    site.haproxy.wait_for_server("agents", server, "DOWN")?;
    let status = agent.process().exited()?;
    ensure(status.is_none(), || format!("it left before HAProxy took it out: {status:?}"))?;
    let status = agent.process().wait()?;
    equal("exit code", status.code(), Some(0))?;
    let lines = agent.log().lines(0);
    let reports = lines.iter().filter(|line| line.contains(" connections drained"));
    let reports: Vec<_> = reports.collect();
    ensure(matches!(reports.as_slice(), [report] if report.ends_with(" 0 cut")), || {
        format!("its report: {reports:?}")
    })?;
    nothing_to_complain_of(agent.log())
}

/// What is left without the requests that crossed a goodbye. From 3.1 on there are none. HAProxy
/// before that stays on its connections to a server that is DOWN, and a few requests fail with the
/// goodbye's status (256), or lie in its queue until the processing timeout (1).
#[track_caller]
fn but_lost_ones(bench: &Bench, replies: &[Reply], goodbyes: usize) -> Result<Vec<Reply>, Failure> {
    if bench.new_engine() {
        return Ok(replies.to_vec());
    }
    bench.note("a request that crosses the goodbye may fail");
    let lost = |reply: &&Reply| matches!(reply.verdict, Verdict::Error(256 | 1));
    let count = replies.iter().filter(lost).count();
    // What each client had under way, and its next one, if that met another connection that ended.
    let most = 2 * WORKERS * goodbyes;
    ensure(count <= most, || format!("{count} requests lost, {most} may be"))?;
    Ok(replies.iter().filter(|reply| !lost(reply)).copied().collect())
}

/// Waits until HAProxy has a request of each client and no answer to it.
#[track_caller]
fn all_requests_wait(site: &Running) -> Result<(), Failure> {
    let mut before = None;
    let waiting = wait_until("a request of each client to wait", || {
        let count = |field| {
            let text = site.haproxy.stat("web", "FRONTEND", field)?;
            text.parse::<usize>().map_err(io::Error::other)
        };
        let (asked, answered) = (count("req_tot")?, count("hrsp_2xx")?);
        // Twice the same: no answer that the agent gave before is still to be read.
        let same = before.replace((asked, answered)) == Some((asked, answered));
        Ok((same && asked.checked_sub(answered) == Some(WORKERS)).then_some(()))
    });
    Ok(waiting?)
}

#[track_caller]
fn some_scores(load: &Load) -> Result<(), Failure> {
    let score = |reply: &&Reply| matches!(reply.verdict, Verdict::Score(_));
    load.wait_for("scores", load.mark(), |replies| replies.iter().filter(score).count() >= 100)
}

/// Every reply has one of these scores.
#[track_caller]
fn only_scores(replies: &[Reply], scores: &[i64]) -> Result<(), Failure> {
    let other =
        |reply: &&Reply| !scores.iter().any(|score| reply.verdict == Verdict::Score(*score));
    let others: Vec<_> = replies.iter().filter(other).take(8).collect();
    let count = replies.iter().filter(other).count();
    ensure(count == 0, || {
        format!("{count} of {} replies without a score of {scores:?}: {others:?}", replies.len())
    })
}

/// Each client's first reply: what it had asked when the first of all these arrived.
fn of_each_client(replies: &[Reply]) -> Vec<Reply> {
    let mut seen = HashSet::new();
    replies.iter().filter(|reply| seen.insert(reply.worker)).copied().collect()
}

/// The others: what was asked when all that came before was over.
fn asked_later(replies: &[Reply]) -> Vec<Reply> {
    let mut seen = HashSet::new();
    replies.iter().filter(|reply| !seen.insert(reply.worker)).copied().collect()
}

/// All that `ip-reputation` printed is at level INFO.
#[track_caller]
fn nothing_to_complain_of(log: &Log) -> Result<(), Failure> {
    let lines = log.lines(0);
    let complaint = lines.iter().find(|line| !line.contains(" INFO "));
    ensure(complaint.is_none(), || format!("the agent complains: {complaint:?}"))
}

/// An agent in this process that answers when it is told to, and keeps how its connections ended.
struct Holding {
    held: Arc<AtomicUsize>,
    answer: watch::Sender<bool>,
    stop: oneshot::Sender<()>,
    ended: mpsc::Receiver<Vec<Closed>>,
}

impl Holding {
    /// Starts it. A client's score is the last number of its address.
    fn start(address: SocketAddr) -> Result<Self, Failure> {
        let held = Arc::<AtomicUsize>::default();
        let (answer, told) = watch::channel(false);
        let (counter, gate) = (Arc::clone(&held), told);
        let agent = spop_tokio::Agent::concurrent(move |mut x| {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|open| *open).await?;
                let client: Ipv4Addr = x.require("e2e")?.get("ip")?;
                let [.., last] = client.octets();
                x.set(Scope::Transaction, "ip_score", i32::from(last))?;
                Ok(x)
            }
        });

        let (stop, stopping) = oneshot::channel();
        let (started, ready) = mpsc::channel();
        let (done, ended) = mpsc::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || {
            runtime.block_on(async {
                match TcpListener::bind(address).await {
                    Ok(listener) => {
                        let _ = started.send(Ok(()));
                        let _ = done.send(serve(agent, listener, stopping).await);
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        });
        ready.recv_timeout(DEADLINE)??;
        Ok(Self { held, answer, stop, ended })
    }

    /// Waits until so many requests wait for their answer.
    #[track_caller]
    fn wait_for(&self, requests: usize) -> Result<(), Failure> {
        let arrived = wait_until("the requests to reach the agent", || {
            Ok((self.held.load(Ordering::SeqCst) >= requests).then_some(()))
        });
        Ok(arrived?)
    }

    /// From now on it answers, what waits first of all.
    fn answer(&self) {
        let _ = self.answer.send(true);
    }

    /// After the end of HAProxy: how each connection ended.
    #[track_caller]
    fn finish(self) -> Result<Vec<Closed>, Failure> {
        drop(self.stop);
        Ok(self.ended.recv_timeout(DEADLINE)?)
    }
}

/// Accepts until it is told to stop, then waits for the end of all connections.
async fn serve<D: Dispatch>(
    agent: spop_tokio::Agent<D>,
    listener: TcpListener,
    mut stop: oneshot::Receiver<()>,
) -> Vec<Closed> {
    let agent = Arc::new(agent);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // First what was made before the stop.
            biased;
            accepted = listener.accept() => accepted,
            _ = &mut stop => break,
        };
        let Ok((stream, peer)) = accepted else { continue };
        let agent = Arc::clone(&agent);
        connections.spawn(async move { agent.serve_connection(stream, Peer::Tcp(peer)).await });
    }
    connections.join_all().await
}
