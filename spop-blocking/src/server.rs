//! The accept loop, and how it ends.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use spop_proto::server::{AcceptBackoff, Closed, Seats, Warning};
use spop_proto::{Endpoint, Health, Peer, Report, Service};

use crate::agent::Agent;
use crate::connection;
use crate::listener::Listener;
use crate::log::event;
use crate::workers::{self, Pool};

/// An agent with its listener. Connections made before [`run`](Self::run) wait in the backlog.
#[must_use = "a server accepts nothing until it runs"]
pub struct Server<S, L> {
    agent: Agent<S>,
    listener: Arc<L>,
    local: Endpoint,
    stop: StopHandle,
}

/// Stops a [`Server`] from another thread. Clones stop the same one.
#[derive(Clone, Debug)]
pub struct StopHandle {
    told: Arc<(Mutex<bool>, Condvar)>,
}

impl StopHandle {
    /// Makes [`Server::run`] drain and return. Returns at once; calling it again does nothing.
    pub fn stop(&self) {
        let (told, changed) = &*self.told;
        *told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Waits until told to stop, or for that long.
    fn wait(&self, at_most: Option<Duration>) -> bool {
        let (told, changed) = &*self.told;
        let mut guard = told.lock().unwrap_or_else(PoisonError::into_inner);
        let until = at_most.map(|time| Instant::now() + time);
        while !*guard {
            guard = match until {
                None => changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }
}

impl<S: Service, L: Listener> Server<S, L> {
    pub(crate) fn new(agent: Agent<S>, listener: L) -> io::Result<Self> {
        let local = listener.local_addr()?;
        let stop = StopHandle { told: Arc::default() };
        Ok(Self { agent, listener: Arc::new(listener), local, stop })
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

    /// What ends [`run`](Self::run).
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Serves until a [`StopHandle`] says stop, then drains: see the crate's page on what happens
    /// on stop. Where no thread can be had for a connection it is dropped.
    ///
    /// # Errors
    /// When there is no thread to accept connections on, or none for the workers.
    pub fn run(self) -> io::Result<Report> {
        event!(info, listen = %self.local, "agent listening");
        let Self { mut agent, listener, stop, .. } = self;
        let (config, switch) = agent.config.for_server();
        agent.config = config;
        let (lame_duck, limits) = (agent.lame_duck, agent.config.current_limits().clone());
        let (ended, ends) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let seats = Seats::new(&limits);
        let accepting = Accepting { agent, ended, shared: Arc::clone(&shared), seats };

        // Accepting blocks, so it has a thread of its own, and this one waits for the stop.
        let pool = accepting.start_pool()?;
        let listening = Arc::clone(&listener);
        let report = Arc::new(Mutex::new(Report::default()));
        let accepted = Arc::clone(&report);
        let thread = thread::Builder::new().name("spop-accept".to_owned());
        let acceptor = thread.spawn(move || accepting.run(&*listening, &pool, &accepted))?;
        stop.wait(None);
        switch.set();
        if !lame_duck.is_zero() {
            event!(info, time = ?lame_duck, "stopping: health checks fail from now on");
            thread::sleep(lame_duck);
        }
        shared.deaf.store(true, Ordering::Release);
        listener.unblock();
        let _ = acceptor.join();
        // From here on new connections are refused, and a Unix socket's file is gone.
        drop(listener);
        shared.leaving.store(true, Ordering::Release);

        let mut report = *report.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + limits.longest_drain();
        loop {
            match ends.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(End { closed, while_stopping }) => report.ended(&closed, while_stopping),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    // Handlers that do not return; nothing can make them.
                    report.cut += shared.open.load(Ordering::Acquire) as u64;
                    break;
                }
            }
        }
        event!(info, %report, "agent stopped");
        Ok(report)
    }
}

impl<S, L> fmt::Debug for Server<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("local", &self.local).finish_non_exhaustive()
    }
}

/// What the threads of a server know of each other.
#[derive(Debug, Default)]
struct Shared {
    /// No more connections are accepted.
    deaf: AtomicBool,
    /// Connections are to leave.
    leaving: AtomicBool,
    /// Connections there are.
    open: AtomicUsize,
}

/// The end of a connection.
struct End {
    closed: Closed,
    while_stopping: bool,
}

/// What the accept thread needs.
struct Accepting<S> {
    agent: Agent<S>,
    ended: mpsc::Sender<End>,
    shared: Arc<Shared>,
    seats: Seats,
}

impl<S: Service> Accepting<S> {
    fn run<L: Listener>(
        self,
        listener: &L,
        pool: &Option<Pool<L::Stream>>,
        report: &Mutex<Report>,
    ) {
        let mut backoff = AcceptBackoff::new();
        while !self.shared.deaf.load(Ordering::Acquire) {
            let failed = match listener.accept() {
                // What woke the thread at the end is not served.
                _ if self.shared.deaf.load(Ordering::Acquire) => return,
                Ok((stream, peer)) => {
                    report.lock().unwrap_or_else(PoisonError::into_inner).accepted();
                    self.admit(stream, peer, pool.clone(), report)
                }
                Err(error) => Err(error),
            };
            match failed {
                Ok(()) => backoff.succeeded(),
                Err(error) => {
                    if let Some(wait) = backoff.failed(error.kind()) {
                        self.warn(Warning::Accept, |suppressed| {
                            event!(warn, suppressed, %error, retry_in = ?wait, "cannot accept");
                        });
                        thread::sleep(wait);
                    }
                }
            }
        }
    }

    /// The workers, if there are to be any.
    fn start_pool<T: crate::Socket>(&self) -> io::Result<Option<Pool<T>>> {
        let Agent { workers, waiting, config, service, warnings, .. } = &self.agent;
        if *workers == 0 {
            return Ok(None);
        }
        Pool::start(*workers, *waiting, config, service, warnings).map(Some)
    }

    fn admit<T: crate::Socket>(
        &self,
        stream: T,
        peer: Peer,
        pool: Option<Pool<T>>,
        report: &Mutex<Report>,
    ) -> io::Result<()> {
        let Agent { config, service, warnings, .. } = &self.agent;
        let Some(admission) = self.seats.admit(self.shared.open.load(Ordering::Acquire)) else {
            report.lock().unwrap_or_else(PoisonError::into_inner).turned_away();
            return Ok(());
        };
        if admission.is_turned_away() {
            self.warn(Warning::Connections, |suppressed| {
                event!(warn, suppressed, %peer, "too many connections");
            });
        }
        let (config, service) = (config.clone(), Arc::clone(service));
        let (warnings, ended) = (Arc::clone(warnings), self.ended.clone());
        let open = Open::new(&self.shared);
        let serving = move || {
            let conn = admission.connection(config, peer, Instant::now());
            let stopping = || open.0.leaving.load(Ordering::Acquire);
            let closed = match &pool {
                None => connection::serve_socket(stream, conn, &*service, &warnings, stopping),
                Some(pool) => workers::serve(stream, conn, pool, &warnings, stopping),
            };
            event!(debug, %peer, reason = %closed.reason, "connection closed");
            let while_stopping = stopping();
            let _ = ended.send(End { closed, while_stopping });
        };
        thread::Builder::new().name("spop-connection".to_owned()).spawn(serving).map(drop)
    }

    fn warn(&self, kind: Warning, line: impl FnOnce(u64)) {
        if let Some(suppressed) = self.agent.warnings.admit(kind, Instant::now()) {
            line(suppressed);
        }
    }
}

/// Counts a connection for as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}
