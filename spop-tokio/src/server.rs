//! The accept loop, and how it ends.

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;

use spop_proto::handler::Dispatch;
use spop_proto::server::{AcceptBackoff, Closed, Seats, Warning};
use spop_proto::{Endpoint, Health, Peer, Report, Stats};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use crate::agent::Agent;
use crate::connection;
use crate::leave::Leave;
use crate::listener::Listener;
use crate::log::{event, warning};

/// An agent with its listener. Connections made before [`run`](Self::run) wait in the backlog.
#[must_use = "a server accepts nothing until it runs"]
pub struct Server<D, L> {
    agent: Agent<D>,
    listener: L,
    local: Endpoint,
}

impl<D: Dispatch, L: Listener> Server<D, L> {
    pub(crate) fn new(agent: Agent<D>, listener: L) -> io::Result<Self> {
        let local = listener.local_addr()?;
        Ok(Self { agent, listener, local })
    }

    /// Where it listens: with the port the system chose, where it was asked to.
    #[must_use]
    pub const fn local_addr(&self) -> &Endpoint {
        &self.local
    }

    /// The switch that health checks are answered from.
    #[must_use]
    pub fn health(&self) -> Health {
        self.agent.health()
    }

    /// What the agent counts while it runs.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.agent.stats()
    }

    /// Serves until the process ends. The result is there for `main` to return; failures to
    /// accept are waited out, never returned.
    ///
    /// # Errors
    /// None today.
    pub async fn run(self) -> io::Result<()> {
        self.run_until(pending()).await;
        Ok(())
    }

    /// Serves until `stop` is ready, then drains: see the crate's page on what happens on stop.
    /// Dropping the future ends all connections at once.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Report {
        event!(info, listen = %self.local, "agent listening");
        #[cfg(feature = "metrics")]
        let published = self.stats();
        let serving = self.serve(stop);
        #[cfg(feature = "metrics")]
        let serving = publishing(serving, published);
        serving.await
    }

    async fn serve(self, stop: impl Future<Output = ()>) -> Report {
        let Self { agent, listener, .. } = self;
        let leave = Leave::default();
        let mut accepting = Accepting {
            connections: Connections::default(),
            seats: Seats::new(agent.config.current_limits()),
            agent,
            listener,
            leave: leave.clone(),
            backoff: AcceptBackoff::new(),
        };
        accepting.run(stop).await;
        let Accepting { mut connections, listener, .. } = accepting;
        // From here on new connections are refused, and a Unix socket's file is gone.
        drop(listener);
        leave.tell();
        connections.drain().await;
        event!(info, report = %connections.report, "agent stopped");
        connections.report
    }
}

impl<D, L> fmt::Debug for Server<D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("local", &self.local).finish_non_exhaustive()
    }
}

/// The phase in which connections are accepted.
struct Accepting<D, L> {
    agent: Agent<D>,
    listener: L,
    seats: Seats,
    connections: Connections,
    /// Tells all connections to leave.
    leave: Leave,
    backoff: AcceptBackoff,
}

impl<D: Dispatch, L: Listener> Accepting<D, L> {
    /// Accepts until `stop` is ready and the lame-duck time after it has passed.
    async fn run(&mut self, stop: impl Future<Output = ()>) {
        let time = self.agent.lame_duck;
        let (config, lame_duck) = self.agent.config.for_server();
        self.agent.config = config;
        let stop = async {
            stop.await;
            lame_duck.set();
            if !time.is_zero() {
                event!(info, ?time, "stopping: health checks fail from now on");
                sleep(time).await;
            }
        };
        let mut stop = pin!(stop);
        // Set while accepting pauses: the listener would only report the same failure again.
        let mut pause = pin!(None::<tokio::time::Sleep>);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                Some(ended) = self.connections.tasks.join_next() => {
                    self.connections.count(ended, false);
                    continue;
                }
                () = until(pause.as_mut()), if pause.is_some() => {
                    pause.set(None);
                    continue;
                }
                accepted = poll_fn(|cx| self.listener.poll_accept(cx)), if pause.is_none() => {
                    accepted
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.backoff.succeeded();
                    self.admit(stream, peer);
                }
                Err(error) => {
                    if let Some(wait) = self.backoff.failed(error.kind()) {
                        warning!(
                            self.agent.shared.warnings, Warning::Accept, connection::now(),
                            %error, retry_in = ?wait, "cannot accept"
                        );
                        pause.set(Some(sleep(wait)));
                    }
                }
            }
        }
    }

    fn admit(&mut self, stream: L::Stream, peer: Peer) {
        self.connections.report.accepted();
        let Some(admission) = self.seats.admit(self.connections.tasks.len()) else {
            self.connections.report.turned_away();
            self.agent.stats().turned_away();
            return;
        };
        let agent = &self.agent;
        if admission.is_turned_away() {
            let now = connection::now();
            warning!(agent.shared.warnings, Warning::Connections, now, %peer, "too many connections");
        }
        let config = agent.config.clone();
        let begin = move |now| admission.connection(config, peer, now);
        let stop = Some(self.leave.told());
        let serving = connection::serve(stream, begin, Arc::clone(&agent.shared), stop);
        self.connections.tasks.spawn(connection::in_span(serving, peer));
    }
}

/// The tasks of all connections, and what became of them.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<Closed>,
    report: Report,
}

impl Connections {
    /// Waits for all connections to end; each has its own deadline for that.
    async fn drain(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            self.count(ended, true);
        }
    }

    fn count(&mut self, ended: Result<Closed, JoinError>, stopping: bool) {
        if let Ok(closed) = &ended {
            self.report.ended(closed, stopping);
        } else {
            event!(error, "the task of a connection panicked: please report this");
        }
    }
}

/// The same, and publishes once a second, and at the end.
#[cfg(feature = "metrics")]
async fn publishing<T>(serving: impl Future<Output = T>, stats: Stats) -> T {
    let mut publisher = spop_proto::stats::Publisher::new(stats);
    let mut serving = pin!(serving);
    loop {
        tokio::select! {
            served = &mut serving => return served,
            () = sleep(spop_proto::stats::Publisher::EVERY) => publisher.publish(),
        }
    }
}

async fn until(sleep: Pin<&mut Option<tokio::time::Sleep>>) {
    if let Some(sleep) = sleep.as_pin_mut() {
        sleep.await;
    }
}
