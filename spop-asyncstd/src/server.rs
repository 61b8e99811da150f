//! Accepting, and stopping.

use std::any::Any;
use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_io::Timer;
use async_std::channel::{Receiver, Sender, bounded};
use async_std::task::{self, JoinHandle};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use spop_proto::driver::Seldom;
use spop_proto::handler::Dispatch;
use spop_proto::server::{AcceptBackoff, Closed, LameDuck, Seats, Warning, Warnings};
use spop_proto::{Endpoint, Health, Limits, Peer, Report, Stats};

use crate::agent::Agent;
use crate::connection;
use crate::listener::Listener;
use crate::log;

/// An agent that listens. Until [`run`](Self::run) connections queue up in the system.
#[must_use = "a server accepts nothing until it runs"]
pub struct Server<D, L> {
    agent: Agent<D>,
    listener: L,
    local: Endpoint,
}

impl<D: Dispatch, L: Listener> Server<D, L> {
    pub(crate) fn new(agent: Agent<D>, listener: L) -> io::Result<Self> {
        Ok(Self { local: listener.local_addr()?, agent, listener })
    }

    /// The address it listens on, with the port that port 0 became.
    #[must_use]
    pub const fn local_addr(&self) -> &Endpoint {
        &self.local
    }

    /// What health checks are told; the agent's own switch.
    #[must_use]
    pub fn health(&self) -> Health {
        self.agent.health()
    }

    /// What the agent counts while it runs.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.agent.stats()
    }

    /// Serves for ever: `main` can end with it. A failure to accept is waited out and tried again.
    ///
    /// # Errors
    /// None today.
    pub async fn run(self) -> io::Result<()> {
        self.run_until(pending()).await;
        Ok(())
    }

    /// Serves until `stop` is ready, then ends in the phases that the crate's page lists.
    ///
    /// Connections are tasks of async-std's, whatever executor polls this future. Dropping it
    /// cancels them all: their streams close without a goodbye, their handlers are dropped.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Report {
        log::info!(listen = %self.local, "agent listening");
        #[cfg(feature = "metrics")]
        let published = self.stats();
        let serving = self.serve(stop);
        #[cfg(feature = "metrics")]
        let serving = publishing(serving, published);
        serving.await
    }

    async fn serve(self, stop: impl Future<Output = ()>) -> Report {
        let Self { mut agent, mut listener, .. } = self;
        let (config, lame_duck) = agent.config.for_server();
        agent.config = config;
        let mut connections = Connections::new(agent.config.current_limits());
        let mut backoff = AcceptBackoff::new();
        let mut stop = pin!(stopping(stop, &lame_duck, agent.lame_duck));
        loop {
            let mut next = pin!(accept(&mut listener, &mut backoff, &agent.warnings));
            let next = poll_fn(|cx| {
                let _ = connections.reap(cx, false);
                next.as_mut().poll(cx)
            });
            match select(&mut stop, next).await {
                Either::Left(_) => break,
                Either::Right(((stream, peer), _)) => connections.add(&agent, stream, peer),
            }
            // A storm of connections is not to keep the thread from those that are there.
            task::yield_now().await;
        }
        // Gone, with a Unix socket's file, before the first connection leaves.
        drop(listener);
        connections.leave.close();
        poll_fn(|cx| connections.reap(cx, true)).await;
        log::info!(report = %connections.report, "agent stopped");
        connections.report
    }
}

impl<D, L> fmt::Debug for Server<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("local", &self.local).finish_non_exhaustive()
    }
}

/// Publishes while that runs, once a second, and when it ends.
#[cfg(feature = "metrics")]
async fn publishing<T>(serving: impl Future<Output = T>, stats: Stats) -> T {
    let mut publisher = spop_proto::stats::Publisher::new(stats);
    let mut serving = pin!(serving);
    loop {
        let second = Timer::after(spop_proto::stats::Publisher::EVERY);
        match select(serving.as_mut(), second).await {
            Either::Left((served, _)) => return served,
            Either::Right(_) => publisher.publish(),
        }
    }
}

/// Ready when accepting has to end: after `stop`, and the time as a lame duck.
async fn stopping(stop: impl Future<Output = ()>, lame_duck: &LameDuck, time: Duration) {
    stop.await;
    lame_duck.set();
    if !time.is_zero() {
        log::info!(?time, "stopping: health checks fail from now on");
        Timer::after(time).await;
    }
}

/// The next connection, however often accepting fails before it.
async fn accept<L: Listener>(
    listener: &mut L,
    backoff: &mut AcceptBackoff,
    warnings: &Warnings,
) -> (L::Stream, Peer) {
    loop {
        let error = match listener.accept().await {
            Ok(accepted) => {
                backoff.succeeded();
                return accepted;
            }
            Err(error) => error,
        };
        if let Some(wait) = backoff.failed(error.kind()) {
            if let Some(suppressed) = warnings.admit(Warning::Accept, Instant::now()) {
                log::warn!(suppressed, %error, retry_in = ?wait, "cannot accept");
            }
            Timer::after(wait).await;
        }
    }
}

/// How the task of a connection ends: by itself, or with a panic.
type Ended = Result<Closed, Box<dyn Any + Send>>;

/// The tasks of all connections. Dropped, they are cancelled.
struct Connections {
    tasks: FuturesUnordered<JoinHandle<Ended>>,
    seats: Seats,
    report: Report,
    /// Closed when connections are to leave; nothing is ever sent.
    leave: Sender<()>,
    leaving: Receiver<()>,
}

impl Connections {
    fn new(limits: &Limits) -> Self {
        let (leave, leaving) = bounded(1);
        let (tasks, seats) = (FuturesUnordered::new(), Seats::new(limits));
        Self { tasks, seats, report: Report::default(), leave, leaving }
    }

    fn add<D, S>(&mut self, agent: &Agent<D>, stream: S, peer: Peer)
    where
        D: Dispatch,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.report.accepted();
        let Some(admission) = self.seats.admit(self.tasks.len()) else {
            agent.stats().turned_away();
            return self.report.turned_away();
        };
        if admission.is_turned_away()
            && let Some(suppressed) = agent.warnings.admit(Warning::Connections, Instant::now())
        {
            log::warn!(suppressed, %peer, "too many connections");
        }
        let config = agent.config.clone();
        let begin = move |now| admission.connection(config, peer, now);
        let (leaving, told) = (self.leaving.clone(), self.leaving.clone());
        let stop = Box::pin(async move {
            let _ = leaving.recv().await;
        });
        let stop = Seldom::new(stop, move || told.is_closed());
        let serving = connection::serve(agent, (stream, peer), begin, Some(stop), Timer::at);
        // async-std would hand the panic on to whoever joins the task: the server.
        self.tasks.push(task::spawn(AssertUnwindSafe(serving).catch_unwind()));
    }

    /// Counts the connections that have ended; ready when none is left.
    fn reap(&mut self, cx: &mut Context<'_>, stopping: bool) -> Poll<()> {
        while let Some(ended) = std::task::ready!(self.tasks.poll_next_unpin(cx)) {
            match ended {
                Ok(closed) => self.report.ended(&closed, stopping),
                Err(panic) => {
                    log::error!("the task of a connection panicked: please report this");
                    // Its destructor could panic as well.
                    std::mem::forget(panic);
                }
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // A handle that is merely dropped lets its task run on. The first poll cancels; there is
        // nobody to wait for the rest.
        for task in std::mem::take(&mut self.tasks) {
            let _ = task.cancel().now_or_never();
        }
    }
}
