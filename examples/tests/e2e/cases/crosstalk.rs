//! Two connections whose NOTIFYs have the same ids, as HAProxy 3.1 and later number them: an answer
//! must stay on the connection of its question.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use spop_proto::{AgentConnection, AnswerOnError, Event, Ticket};
use spop_tokio::{Agent, AgentConfig, Scope};
use tokio::sync::oneshot;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{DEADLINE, Request};
use crate::raw::{self, Frame, Hello, RawAgent};
use crate::site::{Running, Site, Verdict};
use crate::spy::Serving;

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case::new("answers_on_the_other_connection", on_the_other_connection),
    Case::new("answers_of_the_core_on_the_other_connection", of_the_core_on_the_other_connection),
    Case::new("answers_on_their_own_connection", on_their_own_connection)
        .shown("two connections, same ids: no answer crosses"),
];

/// The clients' addresses end with these.
const CLIENTS: [u8; 2] = [1, 2];

fn address_of(client: u8) -> IpAddr {
    Ipv4Addr::new(10, 7, 0, client).into()
}

/// Both clients ask, the second one once `first_is_asked` says that the first one's NOTIFY is there:
/// its connection is then busy. Returns what each got.
fn both(
    site: &Running,
    first_is_asked: impl FnOnce() -> Result<(), Failure>,
    then: impl FnOnce() -> Result<(), Failure>,
) -> Result<[Verdict; 2], Failure> {
    thread::scope(|scope| {
        let ask = |client| scope.spawn(move || site.ask(address_of(client), &Request::get("/")));
        let [first, second] = CLIENTS;
        let first = ask(first);
        first_is_asked()?;
        let second = ask(second);
        then()?;
        let verdict = |client: thread::ScopedJoinHandle<'_, Result<_, Failure>>| {
            let answer: crate::site::Answer =
                client.join().map_err(|_| Failure::new("a client panicked"))??;
            Ok::<_, Failure>(answer.verdict())
        };
        Ok([verdict(first)?, verdict(second)?])
    })
}

/// What an agent may do that announced `async` to a HAProxy up to 3.0, where ids are the engine's.
/// Later ones, which never announced it, give each client the other's verdict: the scenario is real,
/// and such an agent dangerous.
fn on_the_other_connection(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let capabilities = if bench.new_engine() { "" } else { "pipelining,async" };
    let agent = RawAgent::start(address, Hello::new(capabilities), |_, _| Ok(()))?;
    let site = Site::new(address).global("nbthread 1").unchecked().start(bench)?;
    let asked = |number: usize| {
        agent.wire().wait_for("a NOTIFY on each connection", |seen| {
            (seen.frames.len() >= number && seen.hellos >= number).then(|| seen.frames.clone())
        })
    };

    let verdicts = both(
        &site,
        || asked(1).map(drop).map_err(Failure::from),
        || {
            let frames = asked(2)?;
            if bench.new_engine() {
                let ids: Vec<_> =
                    frames.iter().map(|frame| (frame.connection, frame.ids)).collect();
                equal("connections and ids", ids, [(0, (1, 1)), (1, (1, 1))])?;
            }
            for frame in &frames {
                let score = client_of(frame)?;
                let answer = raw::ack(frame.ids, &raw::set_number("ip_score", score.into()));
                agent.wire().send(1 - frame.connection, &answer)?;
            }
            Ok(())
        },
    )?;
    let [first, second] = CLIENTS.map(|client| Verdict::Score(client.into()));
    let want = if bench.new_engine() { [second, first] } else { [first, second] };
    equal("verdicts", verdicts, want)
}

/// The last byte of `ip=src`, which is the last of the payload.
fn client_of(frame: &Frame) -> Result<u8, Failure> {
    let last = frame.payload.last().copied();
    last.filter(|client| CLIENTS.contains(client))
        .ok_or_else(|| Failure::new(format!("no address at the end: {frame:?}")))
}

/// The library in the same place: it holds both requests and answers the second one first.
fn on_their_own_connection(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let (tell, asked) = mpsc::channel();
    let agent = Agent::concurrent(move |mut exchange| {
        let tell = tell.clone();
        async move {
            let ip: Ipv4Addr = exchange.require("e2e")?.get("ip")?;
            let [.., client] = ip.octets();
            let (go, told) = oneshot::channel::<()>();
            let (peer, ids) = (exchange.peer(), (exchange.stream_id(), exchange.frame_id()));
            tell.send((peer.to_string(), ids, go))?;
            told.await?;
            exchange.set(Scope::Transaction, "ip_score", i32::from(client))?;
            Ok(exchange)
        }
    });
    // So that HAProxy takes a connection for each.
    let _agent = Serving::start(address, agent.config(AgentConfig::new().pipelining(false)))?;
    let site = Site::new(address).global("nbthread 1").unchecked().start(bench)?;

    for _ in 0..3 {
        let held = Mutex::new(Vec::new());
        let hold = || {
            held.lock().unwrap_or_else(PoisonError::into_inner).push(asked.recv_timeout(DEADLINE)?);
            Ok(())
        };
        let verdicts = both(&site, hold, || {
            hold()?;
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            let ids: HashSet<_> = held.iter().map(|(_, ids, _)| *ids).collect();
            let peers: HashSet<_> = held.iter().map(|(peer, _, _)| peer.clone()).collect();
            equal("connections", peers.len(), 2)?;
            equal("different ids", ids.len(), if bench.new_engine() { 1 } else { 2 })?;
            while let Some((_, _, go)) = held.pop() {
                let _ = go.send(());
            }
            Ok(())
        })?;
        equal("verdicts", verdicts, CLIENTS.map(|client| Verdict::Score(client.into())))?;
    }
    Ok(())
}

/// A connection of the core alone, and its socket.
struct Connection {
    stream: TcpStream,
    core: AgentConnection,
}

impl Connection {
    /// Whether its handshake is done and its end has not come.
    fn is_ready(&self) -> bool {
        self.core.info().engine_id().is_some() && self.core.close_reason().is_none()
    }

    /// One turn; gives the address asked about and the ticket for the answer.
    fn turn(&mut self, now: Instant) -> Result<Option<(u8, Ticket)>, Failure> {
        let mut scratch = [0; 4096];
        let read = match self.stream.read(&mut scratch) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            // HAProxy 2.6 resets some that it has no use for.
            Err(_) => {
                self.core.peer_closed(now);
                return Ok(None);
            }
        };
        let mut input = scratch.get(..read).unwrap_or_default();
        let mut asked = None;
        while let Some(event) = self.core.receive(&mut input, now)? {
            if let Event::Notify(notify, ack) = event {
                let ip: Ipv4Addr = notify.require("e2e")?.get("ip")?;
                let [.., client] = ip.octets();
                asked = Some((client, ack.defer()));
            }
        }
        // A few bytes: the socket takes them at once.
        self.stream.write_all(self.core.transmit())?;
        let written = self.core.transmit().len();
        self.core.transmitted(written);
        Ok(asked)
    }
}

/// The core told to announce `async`: where HAProxy offered it, an answer goes over the other
/// connection and arrives; where it did not, the core refuses and gives the ticket back.
fn of_the_core_on_the_other_connection(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let listener = raw::listen(address)?;
    listener.set_nonblocking(true)?;
    let site = Site::new(address).global("nbthread 1").unchecked().start(bench)?;
    let (tell, asked) = mpsc::channel();
    let agent = thread::spawn(move || -> Result<u64, Failure> {
        let config = AgentConfig::new().r#async(true).pipelining(false);
        let mut connections: Vec<Connection> = Vec::new();
        let mut held: Vec<(usize, u8, Ticket)> = Vec::new();
        let end = Instant::now() + DEADLINE;
        let mut greeted = 0;
        while held.len() < 2 || greeted < 2 {
            let now = Instant::now();
            ensure(now < end, || format!("{} NOTIFYs in time", held.len()))?;
            if let Ok((stream, peer)) = listener.accept() {
                stream.set_nonblocking(true)?;
                let core = AgentConnection::new(config.clone(), peer.into(), now);
                connections.push(Connection { stream, core });
            }
            for (index, connection) in connections.iter_mut().enumerate() {
                if let Some((client, ticket)) = connection.turn(now)? {
                    held.push((index, client, ticket));
                    tell.send(())?;
                }
            }
            // Of an engine there may be more than one connection before there is work for it.
            greeted = connections.iter().filter(|connection| connection.is_ready()).count();
            thread::yield_now();
        }
        let now = Instant::now();
        for (index, client, ticket) in held.drain(..).rev() {
            let other = (0..).zip(&connections).find(|(at, c)| *at != index && c.is_ready());
            let other =
                other.map(|(at, _)| at).ok_or_else(|| Failure::new("no other connection"))?;
            let [one, two] = connections.get_disjoint_mut([index, other])?;
            let mut ack = match one.core.answer_on(&mut two.core, ticket, now) {
                Ok(ack) => ack,
                Err(AnswerOnError::NotShared { ticket }) => one.core.answer(ticket, now)?,
                Err(error) => return Err(error.into()),
            };
            ack.set(Scope::Transaction, "ip_score", i32::from(client))?;
            ack.commit();
        }
        for connection in connections.iter_mut().filter(|connection| connection.is_ready()) {
            connection.turn(now)?;
        }
        Ok(connections.iter().map(|connection| connection.core.stats().elsewhere).sum())
    });

    let verdicts = both(&site, || Ok(asked.recv_timeout(DEADLINE)?), || Ok(()));
    let elsewhere = agent.join().map_err(|_| Failure::new("the agent panicked"))??;
    equal("verdicts", verdicts?, CLIENTS.map(|client| Verdict::Score(client.into())))?;
    equal("answers on the other connection", elsewhere, if bench.new_engine() { 0 } else { 2 })
}
