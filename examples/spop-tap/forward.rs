//! A connection: what comes from one side goes to the other as it is.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use socket2::Socket;
use spop_proto::Endpoint;

use crate::endpoint::{self, Listener};
use crate::show::Side;
use crate::watch::{Event, PIECE, Reporter};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) target: Endpoint,
    /// Where what passes is kept.
    pub(crate) write: Option<PathBuf>,
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
        let (haproxy, peer) = loop {
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
        let started = thread::Builder::new().spawn(move || {
            connection(number, haproxy, peer, &shared);
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

fn connection(number: u64, haproxy: Socket, peer: String, tap: &Tap) {
    let _ = tap.events.try_send(Event::Opened { number, peer });
    let agent = match endpoint::connect(&tap.target) {
        Ok(agent) => agent,
        Err(error) => {
            reset(&haproxy);
            drop(haproxy);
            let why = format!("closed: cannot connect to the agent at {}: {error}", tap.target);
            let _ = tap.events.send(Event::Refused { number, why });
            return;
        }
    };
    let broken = AtomicBool::new(false);
    let one = |side, from, to| Direction {
        number,
        from,
        to,
        broken: &broken,
        file: tap.write.as_deref().and_then(|prefix| create(prefix, number, side, &tap.events)),
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
        Ok(((lost, error), (lost_back, error_back))) => {
            Event::Closed { number, lost: [lost, lost_back], error: error.or(error_back) }
        }
        Err(error) => Event::Closed { number, lost: [0, 0], error: Some(error) },
    };
    let _ = tap.events.send(closed);
}

/// One way.
struct Direction<'s> {
    number: u64,
    from: &'s Socket,
    to: &'s Socket,
    /// The connection was broken off, in whatever direction it was noticed.
    broken: &'s AtomicBool,
    file: Option<File>,
    reporter: Reporter,
    error: Option<String>,
}

impl Direction<'_> {
    /// Until its end; how many bytes could not be shown, and what broke it off.
    fn run(mut self) -> (u64, Option<String>) {
        let mut buffer = vec![0; PIECE];
        loop {
            let mut from = self.from;
            let read = match from.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.break_off(&error);
                    break;
                }
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                // The other direction may go on.
                if !self.broken.load(Ordering::Relaxed) {
                    let _ = self.to.shutdown(Shutdown::Write);
                }
                break;
            }
            let mut to = self.to;
            // Told first, so that an answer never stands in front of its question.
            self.keep(bytes);
            self.reporter.passes(bytes);
            if let Err(error) = to.write_all(bytes) {
                self.break_off(&error);
                break;
            }
        }
        (self.reporter.lost(), self.error)
    }

    /// A reset on one side is a reset on the other. `Shutdown::Read` sends nothing, and wakes the other
    /// direction from its read.
    fn break_off(&mut self, error: &io::Error) {
        if self.broken.swap(true, Ordering::Relaxed) {
            return;
        }
        self.error = Some(error.to_string());
        for socket in [self.from, self.to] {
            reset(socket);
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            self.file = None;
            let what = format!("#{} is no longer written: {error}", self.number);
            self.reporter.trouble(what);
        }
    }
}

/// Closing will be a reset, where there is such a thing.
fn reset(socket: &Socket) {
    let _ = socket.set_linger(Some(Duration::ZERO));
}

fn create(prefix: &Path, number: u64, side: Side, events: &SyncSender<Event>) -> Option<File> {
    let mut name = prefix.as_os_str().to_owned();
    name.push(format!(".{number}.{}", side.name()));
    File::create(&name)
        .map_err(|error| {
            let what = format!("{}: {error}", Path::new(&name).display());
            let _ = events.try_send(Event::Trouble(what));
        })
        .ok()
}
