//! The accept loop, and how it ends.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use spop_proto::server::{AcceptBackoff, Seats, Warning};
use spop_proto::{Endpoint, Health, Peer, Report, Service, Stats};

use crate::agent::Agent;
use crate::connection;
use crate::listener::Listener;
use crate::log::event;
use crate::workers::{self, Pool};

/// How long a stop waits for the thread that accepts.
const UNBLOCK: Duration = Duration::from_secs(1);

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

    /// Waits until told to stop.
    fn wait(&self) {
        let (told, changed) = &*self.told;
        let guard = told.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_while(guard, |told| !*told));
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

    /// What the agent counts while it runs.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.agent.stats()
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
    /// When there is no thread to accept connections on, or none for the workers (or, with the feature
    /// `metrics`, none to publish on).
    pub fn run(self) -> io::Result<Report> {
        event!(info, listen = %self.local, "agent listening");
        #[cfg(feature = "metrics")]
        let _publishing = crate::publishing::Publishing::start(self.stats())?;
        let Self { mut agent, listener, stop, .. } = self;
        let (config, switch) = agent.config.for_server();
        agent.config = config;
        let (lame_duck, limits) = (agent.lame_duck, agent.config.current_limits().clone());
        let shared = Arc::new(Shared::default());
        let seats = Seats::new(&limits);
        let accepting = Accepting { agent, shared: Arc::clone(&shared), seats };

        // Accepting blocks, so it has a thread of its own, and this one waits for the stop.
        let pool = accepting.start_pool()?;
        let listening = Arc::clone(&listener);
        let thread = thread::Builder::new().name("spop-accept".to_owned());
        let (ends, ended) = sync_channel::<()>(0);
        let acceptor = thread.spawn(move || {
            accepting.run(&*listening, &pool);
            drop((listening, ends));
        })?;
        stop.wait();
        switch.set();
        if !lame_duck.is_zero() {
            event!(info, time = ?lame_duck, "stopping: health checks fail from now on");
            thread::sleep(lame_duck);
        }
        shared.deaf.store(true, Ordering::Release);
        listener.unblock();
        // A listener that cannot be woken has its thread left behind: what it still accepts it drops.
        if ended.recv_timeout(UNBLOCK) != Err(RecvTimeoutError::Timeout) {
            let _ = acceptor.join();
        }
        // From here on new connections are refused, and a Unix socket's file is gone.
        drop(listener);
        shared.leaving.store(true, Ordering::Release);

        let report = shared.drained(limits.longest_drain());
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
    books: Mutex<Books>,
    /// A connection has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Books {
    /// Connections there are.
    open: usize,
    report: Report,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all connections have ended, at most for that long. Handlers that do not return
    /// are left behind: nothing can make them.
    fn drained(&self, at_most: Duration) -> Report {
        let waited = self.ended.wait_timeout_while(self.books(), at_most, |books| books.open > 0);
        let books = waited.unwrap_or_else(PoisonError::into_inner).0;
        let mut report = books.report;
        report.cut += books.open as u64;
        report
    }
}

/// What the accept thread needs.
struct Accepting<S> {
    agent: Agent<S>,
    shared: Arc<Shared>,
    seats: Seats,
}

impl<S: Service> Accepting<S> {
    fn run<L: Listener>(self, listener: &L, pool: &Option<Pool<L::Stream>>) {
        let mut backoff = AcceptBackoff::new();
        while !self.shared.deaf.load(Ordering::Acquire) {
            let failed = match listener.accept() {
                // What woke the thread at the end is not served.
                _ if self.shared.deaf.load(Ordering::Acquire) => return,
                Ok((stream, peer)) => self.admit(stream, peer, pool.clone()),
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
    ) -> io::Result<()> {
        let Agent { config, service, warnings, .. } = &self.agent;
        let mut books = self.shared.books();
        books.report.accepted();
        let Some(admission) = self.seats.admit(books.open) else {
            books.report.turned_away();
            self.agent.stats().turned_away();
            return Ok(());
        };
        books.open += 1;
        drop(books);
        let open = Open(Arc::clone(&self.shared));
        if admission.is_turned_away() {
            self.warn(Warning::Connections, |suppressed| {
                event!(warn, suppressed, %peer, "too many connections");
            });
        }
        let (config, service) = (config.clone(), Arc::clone(service));
        let warnings = Arc::clone(warnings);
        let serving = move || {
            let conn = admission.connection(config, peer, Instant::now());
            let stopping = || open.0.leaving.load(Ordering::Acquire);
            let closed = match &pool {
                None => connection::serve_socket(stream, conn, &*service, &warnings, stopping),
                Some(pool) => workers::serve(stream, conn, pool, &warnings, stopping),
            };
            event!(debug, %peer, reason = %closed.reason, "connection closed");
            open.0.books().report.ended(&closed, stopping());
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

impl Drop for Open {
    fn drop(&mut self) {
        self.0.books().open -= 1;
        self.0.ended.notify_all();
    }
}
