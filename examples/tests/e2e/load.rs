//! Clients that send one request after the other, each on a connection it keeps, while something
//! happens to the agent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bench::{Failure, ensure};
use crate::haproxy::{DEADLINE, Request};
use crate::site::{Verdict, Visitor};

/// The clients' address.
pub(crate) const CLIENT: &str = "10.1.1.1";
/// How many there are, each with one request at a time.
pub(crate) const WORKERS: usize = 4;
/// Between two requests of one client: enough traffic, and a machine left for the other cases.
const PAUSE: Duration = Duration::from_millis(2);

/// Running clients.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    replies: Vec<Reply>,
    /// How often a request went again, on a new connection, because HAProxy had closed the first
    /// one without a byte of an answer.
    retried: usize,
    /// The first request that got no proper answer; its client has given up.
    broken: Option<String>,
}

/// What one request got, in the order in which answers arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    /// Which client.
    pub(crate) worker: usize,
    /// Score or error.
    pub(crate) verdict: Verdict,
}

impl Load {
    /// Starts the clients. One whose connection is closed before its request was answered gives up.
    #[track_caller]
    pub(crate) fn start(web: SocketAddr) -> Result<Self, Failure> {
        Self::start_with(web, false)
    }

    /// Starts clients that ask again then, as HTTP has it: HAProxy closes the connections it keeps
    /// when it leaves, and a request may cross that. How often is in [`Self::retried`].
    #[track_caller]
    pub(crate) fn start_retrying(web: SocketAddr) -> Result<Self, Failure> {
        Self::start_with(web, true)
    }

    #[track_caller]
    fn start_with(web: SocketAddr, retry: bool) -> Result<Self, Failure> {
        let shared = Arc::new(Shared::default());
        let client = CLIENT.parse()?;
        let workers = (0..WORKERS).map(|worker| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                if let Err(error) = shared.visit(web, client, worker, retry) {
                    shared.lock().broken.get_or_insert_with(|| error.to_string());
                    shared.changed.notify_all();
                }
            })
        });
        let workers = workers.collect();
        Ok(Self { shared, workers })
    }

    /// How often a request went again on a new connection.
    pub(crate) fn retried(&self) -> usize {
        self.shared.lock().retried
    }

    /// How many replies there are, to wait for more than these.
    pub(crate) fn mark(&self) -> usize {
        self.shared.lock().replies.len()
    }

    /// The latest reply.
    pub(crate) fn last(&self) -> Option<Reply> {
        self.shared.lock().replies.last().copied()
    }

    /// Waits until `enough` holds for the replies behind `mark`.
    #[track_caller]
    pub(crate) fn wait_for(
        &self,
        what: &str,
        mark: usize,
        enough: impl Fn(&[Reply]) -> bool,
    ) -> Result<(), Failure> {
        let end = Instant::now() + DEADLINE;
        let mut seen = self.shared.lock();
        loop {
            unbroken(&seen)?;
            let new = seen.replies.get(mark..).unwrap_or_default();
            if enough(new) {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            ensure(!left.is_zero(), || {
                let last: Vec<_> = new.iter().rev().take(8).collect();
                format!("waited in vain for {what}; {} replies, the last: {last:?}", new.len())
            })?;
            let woken = self.shared.changed.wait_timeout(seen, left);
            seen = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets the clients finish their last requests. Every request must have been answered, each
    /// either with a score or with an error.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Result<Vec<Reply>, Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            ensure(worker.join().is_ok(), || "a client of the load panicked".to_owned())?;
        }
        let seen = self.shared.lock();
        unbroken(&seen)?;
        let odd = seen.replies.iter().position(|reply| reply.verdict == Verdict::Odd);
        ensure(odd.is_none(), || format!("reply {odd:?} has both score and error, or neither"))?;
        Ok(seen.replies.clone())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // A case that failed: the clients notice and end by themselves.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// What a client does until it is told to stop.
    fn visit(&self, web: SocketAddr, client: IpAddr, worker: usize, retry: bool) -> io::Result<()> {
        let mut visitor = Visitor::connect(web, client)?;
        while !self.stop.load(Ordering::Relaxed) {
            let verdict = loop {
                match visitor.ask(&Request::get("/")) {
                    Ok(answer) => break answer.verdict(),
                    Err(error) if retry && error.kind() == io::ErrorKind::ConnectionReset => {
                        self.lock().retried += 1;
                        visitor = Visitor::connect(web, client)?;
                    }
                    Err(error) => return Err(error),
                }
            };
            self.lock().replies.push(Reply { worker, verdict });
            self.changed.notify_all();
            if visitor.is_dismissed() {
                visitor = Visitor::connect(web, client)?;
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[track_caller]
fn unbroken(seen: &Seen) -> Result<(), Failure> {
    let after = seen.replies.len();
    match &seen.broken {
        None => Ok(()),
        Some(error) => {
            Err(Failure::new(format!("a request failed after {after} good ones: {error}")))
        }
    }
}
