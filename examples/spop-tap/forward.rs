//! A connection: what comes from one side goes to the other as it is.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use socket2::Socket;
use spop_proto::Endpoint;

use crate::endpoint::{self, Listener};
use crate::keep::{Keep, Kept};
use crate::segments;
use crate::show::Side;
use crate::watch::{Event, PIECE, Reporter};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) target: Endpoint,
    /// Where what passes is kept.
    pub(crate) keep: Keep,
    /// Connections at a time.
    pub(crate) most: NonZeroUsize,
    pub(crate) events: SyncSender<Event>,
    /// Bytes that could not be shown.
    pub(crate) lost: Arc<AtomicU64>,
}

/// How long to wait when the system has no descriptors left.
const RETRY: Duration = Duration::from_millis(100);

/// Takes connections, each on a thread of its own, without end.
pub(crate) fn accept(listener: &Listener, tap: &Arc<Tap>) {
    let open = Arc::<AtomicUsize>::default();
    for number in 1.. {
        let (haproxy, from) = loop {
            match listener.accept() {
                Ok(accepted) => break accepted,
                Err(error) => {
                    let _ = tap.events.try_send(Event::Trouble(format!("accept: {error}")));
                    thread::sleep(RETRY);
                }
            }
        };
        let refuse = |why: String| drop(tap.events.try_send(Event::Refused { number, why }));
        if open.load(Ordering::Relaxed) >= tap.most.get() {
            reset(&haproxy);
            refuse(format!("closed: {} connections are open", tap.most));
            continue;
        }
        let guard = Open::count(&open);
        let shared = Arc::clone(tap);
        let peer = from.map_or_else(
            || format!("a client of {}", listener.address()),
            |address| address.to_string(),
        );
        let started = thread::Builder::new().spawn(move || {
            connection(number, haproxy, from, peer, &shared);
            drop(guard);
        });
        if let Err(error) = started {
            refuse(format!("closed: no thread for it: {error}"));
        }
    }
}

/// A connection among those that are open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn connection(number: u64, haproxy: Socket, from: Option<SocketAddr>, peer: String, tap: &Tap) {
    let who = format!("{peer} -> {}", tap.target);
    let _ = tap.events.try_send(Event::Opened { number, peer });
    let (agent, to) = match endpoint::connect(&tap.target) {
        Ok(connected) => connected,
        Err(error) => {
            reset(&haproxy);
            drop(haproxy);
            let why = format!("closed: cannot connect to the agent at {}: {error}", tap.target);
            let _ = tap.events.send(Event::Refused { number, why });
            return;
        }
    };
    let mut untold = Vec::new();
    let trouble = |what| {
        if let Err(TrySendError::Full(event)) = tap.events.try_send(Event::Trouble(what)) {
            untold.push(event);
        }
    };
    let kept = tap.keep.connection(number, &who, [from, to], trouble);
    let broken = AtomicBool::new(false);
    let one = |side, from, to| Direction {
        side,
        from,
        to,
        broken: &broken,
        kept: Some(&kept),
        reporter: Reporter::new(number, side, tap.events.clone(), Arc::clone(&tap.lost)),
        error: None,
    };
    let there = one(Side::Haproxy, &haproxy, &agent);
    let back = one(Side::Agent, &agent, &haproxy);
    let ended = thread::scope(|scope| {
        let there = thread::Builder::new().spawn_scoped(scope, move || there.run());
        let there = match there {
            Ok(there) => there,
            Err(error) => return Err(error.to_string()),
        };
        let back = back.run();
        let there = there.join().map_err(|_| "a thread has panicked".to_owned())?;
        Ok((there, back))
    });
    // Closed first, reported then: whoever shows it may be slow.
    drop((haproxy, agent));
    let closed = match ended {
        Ok((there, back)) => {
            untold.extend([there.untold, back.untold].into_iter().flatten().map(Event::Trouble));
            let lost = [there.lost, back.lost];
            Event::Closed { number, lost, error: there.error.or(back.error) }
        }
        Err(error) => Event::Closed { number, lost: [0, 0], error: Some(error) },
    };
    for event in untold.into_iter().chain([closed]) {
        let _ = tap.events.send(event);
    }
}

/// What is left to say of a direction that is over.
struct Ended {
    /// Bytes that could not be shown, the last ones.
    lost: u64,
    /// Something went wrong beside it, and could not be told yet.
    untold: Option<String>,
    /// What broke it off.
    error: Option<String>,
}

/// One way.
struct Direction<'s> {
    side: Side,
    from: &'s Socket,
    to: &'s Socket,
    /// The connection was broken off, in whatever direction it was noticed.
    broken: &'s AtomicBool,
    /// `None` once that has failed.
    kept: Option<&'s Kept<'s>>,
    reporter: Reporter,
    error: Option<String>,
}

impl Direction<'_> {
    /// Until its end.
    fn run(mut self) -> Ended {
        let mut buffer = vec![0; PIECE];
        loop {
            let mut from = self.from;
            let read = match from.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.break_off(&error, self.side);
                    break;
                }
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                // The other direction may go on.
                if !self.broken.load(Ordering::Relaxed) {
                    self.keep(|kept, side| kept.end(side));
                    let _ = self.to.shutdown(Shutdown::Write);
                }
                break;
            }
            let mut to = self.to;
            // Told first, so that an answer never stands in front of its question.
            self.keep(|kept, side| kept.bytes(side, bytes));
            self.reporter.passes(bytes);
            if let Err(error) = to.write_all(bytes) {
                self.break_off(&error, segments::other(self.side));
                break;
            }
        }
        let (lost, untold) = self.reporter.end();
        Ended { lost, untold, error: self.error }
    }

    /// A reset on one side is a reset on the other. `Shutdown::Read` sends nothing, and wakes the other
    /// direction from its read.
    fn break_off(&mut self, error: &io::Error, by: Side) {
        if self.broken.swap(true, Ordering::Relaxed) {
            return;
        }
        self.keep(|kept, _| kept.reset(by));
        self.error = Some(error.to_string());
        for socket in [self.from, self.to] {
            reset(socket);
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    fn keep(&mut self, what: impl FnOnce(&Kept<'_>, Side) -> io::Result<()>) {
        if let Some(kept) = self.kept
            && let Err(error) = what(kept, self.side)
        {
            self.kept = None;
            self.reporter.trouble(error.to_string());
        }
    }
}

/// Closing will be a reset, where there is such a thing.
fn reset(socket: &Socket) {
    let _ = socket.set_linger(Some(Duration::ZERO));
}
