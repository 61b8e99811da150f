//! The agents: two, each restarted now and then, and what they counted together.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::panic;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spop_tokio::{Action, Agent, AgentConfig, Exchange, HandlerError, Limits, Report, Scope};
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::haproxy::free_port;
use crate::kind::{ANSWER_TIMEOUT, INJECTED, Kind};

/// Longer than `inter` × `fall` and a check: HAProxy must see an agent fail before it leaves.
const LAME_DUCK: Duration = Duration::from_millis(1500);

/// Of a connection that is never idle, which HAProxy up to 3.0 goes on using, half of it passes.
const DRAIN: Duration = Duration::from_secs(4);

/// How often each request was seen by a handler, by its number.
type Seen = Arc<Mutex<Vec<u8>>>;

/// What the agents have in their books.
#[derive(Debug, Default)]
pub(crate) struct AgentBook {
    /// The sum of all reports.
    pub(crate) report: Report,
    /// How often each request was seen by a handler, by its number.
    pub(crate) seen: Vec<u8>,
    /// How many times an agent left and came back.
    pub(crate) restarts: u64,
}

/// The running agents.
#[derive(Debug)]
pub(crate) struct Agents {
    runtime: Runtime,
    addresses: [SocketAddr; 2],
    seen: Seen,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    serving: Vec<Option<Serving>>,
    report: Report,
    restarts: u64,
}

#[derive(Debug)]
struct Serving {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Report>,
}

impl Agents {
    /// Starts both.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let addresses = [free_port()?, free_port()?];
        let seen = Seen::default();
        let serving = addresses.map(|address| serve(&runtime, address, &seen).map(Some));
        let serving = serving.into_iter().collect::<io::Result<_>>()?;
        let state = State { serving, report: Report::default(), restarts: 0 };
        Ok(Self { runtime, addresses, seen, state: Mutex::new(state) })
    }

    /// Where they listen.
    pub(crate) const fn addresses(&self) -> &[SocketAddr; 2] {
        &self.addresses
    }

    /// One leaves, as on SIGTERM, and another one takes its place.
    pub(crate) fn restart(&self, number: usize) -> io::Result<()> {
        self.stop(number)?;
        let Some(address) = self.addresses.get(number) else { return Ok(()) };
        let serving = serve(&self.runtime, *address, &self.seen)?;
        let mut state = lock(&self.state);
        state.restarts += 1;
        if let Some(slot) = state.serving.get_mut(number) {
            *slot = Some(serving);
        }
        Ok(())
    }

    fn stop(&self, number: usize) -> io::Result<()> {
        let serving = lock(&self.state).serving.get_mut(number).and_then(Option::take);
        let Some(Serving { stop, ended }) = serving else { return Ok(()) };
        drop(stop);
        let report = self.runtime.block_on(ended).map_err(io::Error::other)?;
        add(&mut lock(&self.state).report, &report);
        Ok(())
    }

    /// Both leave; what they counted.
    pub(crate) fn finish(self) -> io::Result<AgentBook> {
        for number in 0..self.addresses.len() {
            self.stop(number)?;
        }
        let State { report, restarts, .. } = &*lock(&self.state);
        let seen = std::mem::take(&mut *lock(&self.seen));
        Ok(AgentBook { report: *report, seen, restarts: *restarts })
    }
}

fn serve(runtime: &Runtime, address: SocketAddr, seen: &Seen) -> io::Result<Serving> {
    let seen = Arc::clone(seen);
    let agent = Agent::concurrent(move |exchange| answer(exchange, Arc::clone(&seen)));
    let agent = agent.config(config().map_err(io::Error::other)?).lame_duck(LAME_DUCK);
    let server = runtime.block_on(agent.bind(address.to_string()))?;
    let (stop, stopped) = oneshot::channel();
    let ended = runtime.spawn(server.run_until(async { drop::<Result<(), _>>(stopped.await) }));
    Ok(Serving { stop, ended })
}

fn config() -> Result<AgentConfig, spop_tokio::ConfigError> {
    let limits = Limits::new().answer_timeout(ANSWER_TIMEOUT)?.drain_timeout(DRAIN)?;
    AgentConfig::new().limits(limits).fallback([Action::set(Scope::Transaction, "fallback", true)])
}

async fn answer(mut exchange: Exchange, seen: Seen) -> Result<Exchange, HandlerError> {
    let id: u64 = exchange.require("ask")?.get::<&str>("id")?.parse()?;
    count(&seen, id);
    match Kind::of(id) {
        Kind::Plain => {}
        Kind::Slow(time) => tokio::time::sleep(time).await,
        Kind::Fails => return Err(io::Error::other(INJECTED).into()),
        Kind::Panics => panics(),
        Kind::Hangs => pending().await,
    }
    // Its number: an answer that goes to another request is found out.
    exchange.set(Scope::Transaction, "score", id)?;
    Ok(exchange)
}

#[expect(clippy::panic, reason = "one of the things a handler may do")]
fn panics() {
    panic::panic_any(INJECTED)
}

fn count(seen: &Seen, id: u64) {
    let mut seen = lock(seen);
    let Ok(at) = usize::try_from(id) else { return };
    if seen.len() <= at {
        seen.resize(at + 1, 0);
    }
    if let Some(times) = seen.get_mut(at) {
        *times = times.saturating_add(1);
    }
}

const fn plus(sum: &mut u64, more: u64) {
    *sum = sum.wrapping_add(more);
}

fn add(sum: &mut Report, more: &Report) {
    plus(&mut sum.connections, more.connections);
    plus(&mut sum.refused, more.refused);
    plus(&mut sum.health_checks, more.health_checks);
    plus(&mut sum.protocol_errors, more.protocol_errors);
    plus(&mut sum.drained, more.drained);
    plus(&mut sum.cut, more.cut);
    sum.stats += &more.stats;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
