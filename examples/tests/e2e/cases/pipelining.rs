//! Many requests at once: on one connection where the agent announces pipelining, else on many.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;

use socket2::{SockRef, Socket};
use spop_proto::handler::Dispatch;
use spop_tokio::{Ack, Agent, AgentConfig, Endpoint, HandlerError, Notify, Peer, Scope};
use tokio::sync::oneshot;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::Request;
use crate::raw;
use crate::site::{Running, Site, Verdict, Visitor};
use crate::spy::{FirstOnly, Serving};

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case::new("20_requests_on_one_connection", on_one_connection)
        .shown("20 requests at once on one connection"),
    Case::new("20_requests_without_pipelining", without_pipelining),
    Case::new("nodelay_of_spop_tokio", nodelay_of_tokio),
    Case::new("nodelay_of_spop_asyncstd", nodelay_of_asyncstd),
    Case::new("nodelay_of_spop_blocking", nodelay_of_blocking),
];

/// As many as HAProxy sends on a connection without an answer.
const REQUESTS: u8 = 20;

fn client(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 7, 0, n).into()
}

/// One request each from 20 clients at once; the score of each must be its number.
fn ask_all(site: &Running) -> Result<(), Failure> {
    thread::scope(|scope| {
        let ask = |n: u8| {
            scope.spawn(move || Visitor::connect(site.web, client(n))?.ask(&Request::get("/")))
        };
        let clients: Vec<_> = (0..REQUESTS).map(|n| (n, ask(n))).collect();
        clients.into_iter().try_for_each(|(n, client)| {
            let answer = client.join().map_err(|_| Failure::new("a client panicked"))??;
            equal(&format!("score of client {n}"), answer.verdict(), Verdict::Score(n.into()))
        })
    })
}

/// Requests that were asked and wait to be let go.
#[derive(Debug, Default)]
struct Held {
    waiting: Vec<(Peer, oneshot::Sender<()>)>,
    /// How many each connection had in flight when all were.
    in_flight: Vec<usize>,
}

impl Held {
    /// Keeps one back. The last of all lets the one before it go, and so on: answers leave in the
    /// opposite order.
    fn hold(&mut self, peer: Peer) -> oneshot::Receiver<()> {
        let (go, told) = oneshot::channel();
        self.waiting.push((peer, go));
        if self.waiting.len() == usize::from(REQUESTS) {
            let mut in_flight = HashMap::<String, usize>::new();
            for (peer, _) in &self.waiting {
                *in_flight.entry(peer.to_string()).or_default() += 1;
            }
            self.in_flight = in_flight.into_values().collect();
            self.release();
        }
        told
    }

    fn release(&mut self) {
        if let Some((_, go)) = self.waiting.pop() {
            let _ = go.send(());
        }
    }
}

/// An agent that answers the 20 clients once it was asked by all, and others at once.
fn holding(held: &Arc<Mutex<Held>>, config: AgentConfig) -> Agent<impl Dispatch> {
    let held = Arc::clone(held);
    let agent = Agent::concurrent(move |mut exchange| {
        let held = Arc::clone(&held);
        async move {
            let ip: Ipv4Addr = exchange.require("e2e")?.get("ip")?;
            let [.., number] = ip.octets();
            if number < REQUESTS {
                let told = lock(&held).hold(exchange.peer());
                told.await?;
                lock(&held).release();
            }
            exchange.set(Scope::Transaction, "ip_score", i32::from(number))?;
            Ok(exchange)
        }
    });
    agent.config(config)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All are in flight before the first is answered, and the last asked is answered first.
fn on_one_connection(bench: &Bench) -> Result<(), Failure> {
    let (address, held) = (port()?, Arc::default());
    let listener = FirstOnly::listen(raw::listen(address)?);
    let agent = Serving::start_on(listener, holding(&held, AgentConfig::new()))?;
    // One thread: each has connections of its own.
    let site = Site::new(address).global("nbthread 1").unchecked().start(bench)?;
    // HAProxy 3.1 and later have to know the connection, or they open more.
    site.expect_scores(&[("10.7.0.100", 100)])?;
    ask_all(&site)?;
    let in_flight = lock(&held).in_flight.clone();
    equal("in flight on each connection", in_flight, [usize::from(REQUESTS)])?;
    let report = agent.stop()?;
    equal("answers", report.stats.answered, 1 + u64::from(REQUESTS))
}

/// HAProxy opens more connections instead. All 20 are in flight here, too, before any is answered.
fn without_pipelining(bench: &Bench) -> Result<(), Failure> {
    let (address, held) = (port()?, Arc::default());
    let agent = Serving::start(address, holding(&held, AgentConfig::new().pipelining(false)))?;
    let site = Site::new(address).global("nbthread 1").unchecked().start(bench)?;
    ask_all(&site)?;
    drop(site);
    let in_flight = lock(&held).in_flight.clone();
    equal("in flight in all", in_flight.iter().sum::<usize>(), usize::from(REQUESTS))?;
    // HAProxy 3.1 and later may send more of them before they have the agent's HELLO.
    let one_each = in_flight.iter().all(|number| *number == 1);
    ensure(one_each || bench.new_engine(), || format!("on each connection: {in_flight:?}"))?;
    let report = agent.stop()?;
    equal("answers", report.stats.answered, u64::from(REQUESTS))
}

// ---------------------------------------------------------------------------------- TCP_NODELAY

/// What was accepted, once more, to look at.
type Kept = Arc<Mutex<Vec<Socket>>>;

fn keep(kept: &Kept, socket: &SockRef<'_>) -> io::Result<()> {
    lock(kept).push(socket.try_clone()?);
    Ok(())
}

/// A request is answered, and no connection that it took waits with small packets.
fn nodelay(bench: &Bench, address: SocketAddr, kept: &Kept) -> Result<(), Failure> {
    let site = Site::new(address).unchecked().start(bench)?;
    equal("verdict", site.ask(client(1), &Request::get("/"))?.verdict(), Verdict::Score(7))?;
    let kept = lock(kept);
    ensure(!kept.is_empty(), || "no connection was accepted".to_owned())?;
    for socket in &*kept {
        ensure(socket.tcp_nodelay()?, || format!("TCP_NODELAY is off: {socket:?}"))?;
    }
    Ok(())
}

fn score(_: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
    Ok(ack.set(Scope::Transaction, "ip_score", 7)?)
}

/// A listener of each adapter, which keeps what that has accepted.
struct Keeping<L>(L, Kept);

impl spop_tokio::Listener for Keeping<tokio::net::TcpListener> {
    type Stream = tokio::net::TcpStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Peer)>> {
        let (stream, peer) = ready!(spop_tokio::Listener::poll_accept(&mut self.0, cx))?;
        keep(&self.1, &SockRef::from(&stream))?;
        Poll::Ready(Ok((stream, peer)))
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        spop_tokio::Listener::local_addr(&self.0)
    }
}

impl spop_asyncstd::Listener for Keeping<async_std::net::TcpListener> {
    type Stream = async_std::net::TcpStream;

    async fn accept(&mut self) -> io::Result<(Self::Stream, Peer)> {
        let (stream, peer) = spop_asyncstd::Listener::accept(&mut self.0).await?;
        keep(&self.1, &SockRef::from(&stream))?;
        Ok((stream, peer))
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        spop_asyncstd::Listener::local_addr(&self.0)
    }
}

impl spop_blocking::Listener for Keeping<TcpListener> {
    type Stream = TcpStream;

    fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, peer) = spop_blocking::Listener::accept(&self.0)?;
        keep(&self.1, &SockRef::from(&stream))?;
        Ok((stream, peer))
    }

    fn unblock(&self) {
        spop_blocking::Listener::unblock(&self.0);
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        spop_blocking::Listener::local_addr(&self.0)
    }
}

fn nodelay_of_tokio(bench: &Bench) -> Result<(), Failure> {
    let (address, kept) = (port()?, Kept::default());
    let keeping = Arc::clone(&kept);
    let listener = raw::listen(address)?;
    listener.set_nonblocking(true)?;
    let listen = async move || {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok(Keeping(listener, keeping))
    };
    let _agent = Serving::start_on(listen, Agent::inline(score))?;
    nodelay(bench, address, &kept)
}

fn nodelay_of_asyncstd(bench: &Bench) -> Result<(), Failure> {
    let (address, kept) = (port()?, Kept::default());
    let listener = async_std::net::TcpListener::from(raw::listen(address)?);
    let agent = spop_asyncstd::Agent::inline(score);
    let server = agent.serve(Keeping(listener, Arc::clone(&kept)))?;
    let (stop, told) = oneshot::channel::<()>();
    let serving = thread::spawn(move || {
        async_std::task::block_on(server.run_until(async { drop(told.await) }))
    });
    let outcome = nodelay(bench, address, &kept);
    drop(stop);
    serving.join().map_err(|_| Failure::new("the agent panicked"))?;
    outcome
}

fn nodelay_of_blocking(bench: &Bench) -> Result<(), Failure> {
    let (address, kept) = (port()?, Kept::default());
    let listener = Keeping(raw::listen(address)?, Arc::clone(&kept));
    let server = spop_blocking::Agent::inline(score).serve(listener)?;
    let stop = server.stop_handle();
    let serving = thread::spawn(move || server.run());
    let outcome = nodelay(bench, address, &kept);
    stop.stop();
    serving.join().map_err(|_| Failure::new("the agent panicked"))??;
    outcome
}
