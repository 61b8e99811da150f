//! One connection on one thread, handlers inline.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use spop_proto::server::{Closed, Warnings};
use spop_proto::stats::Tally;
use spop_proto::{Ack, AgentConnection, Event, Notify, RequestId, Service, answer_inline};

use crate::listener::Socket;
use crate::log;

/// Bytes read at once, at first.
const READ: usize = 16 * 1024;
/// The most that are read at once, where reads have filled less.
const READ_MAX: usize = 64 * 1024;
/// How long a read blocks at most: then the thread looks whether it is to leave.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// How long a write blocks at most before the thread reads again: a peer may be waiting for that.
pub(crate) const WRITE: Duration = Duration::from_millis(50);

/// A read once the server stops: what has arrived is answered, nothing is waited for.
const LAST_READ: Duration = Duration::from_millis(1);
/// How long to go on answering what still arrives then.
const LAST_READS: Duration = Duration::from_secs(1);

/// What a connection reads into. It grows while reads fill it, because each costs a system call, and is
/// small again when there is nothing to read: an idle connection holds no more than it has to.
#[derive(Debug)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(vec![0; READ])
    }

    /// Reads once, by `read`.
    pub(crate) fn read(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Chunk<'_>> {
        let read = match read(&mut self.0) {
            Err(error) if is_time_limit(&error) && self.0.len() > READ => {
                *self = Self::new();
                return Err(error);
            }
            read => read?,
        };
        let filled = read == self.0.len();
        if filled && read < READ_MAX {
            self.0.resize(read * 2, 0);
        }
        Ok(Chunk { bytes: self.0.get(..read).unwrap_or_default(), filled })
    }
}

/// What a read has brought.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    pub(crate) bytes: &'a [u8],
    /// There was no room for more: there may be more.
    pub(crate) filled: bool,
}

/// When a connection leaves after its server was told to stop.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    since: Option<Instant>,
    left: bool,
}

impl Leaving {
    /// How long the next read may block.
    pub(crate) fn read_for(
        &mut self,
        stopping: bool,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Duration {
        if stopping && !self.left {
            self.since.get_or_insert(now);
            return LAST_READ;
        }
        let left = deadline.map_or(LOOK, |at| at.saturating_duration_since(now));
        left.clamp(LAST_READ, LOOK)
    }

    /// Whether to leave now. `filled` is that of what was read, nothing where there was nothing to read.
    pub(crate) fn now(&mut self, filled: Option<bool>, now: Instant) -> bool {
        let due = self.since.is_some_and(|since| match filled {
            Some(filled) => !filled || now >= since + LAST_READS,
            None => now >= since + LAST_READS / 2,
        });
        due && !core::mem::replace(&mut self.left, true)
    }
}

/// A time limit of the socket was reached; nothing is wrong.
pub(crate) fn is_time_limit(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Serves a socket until its end; `stopping` says whether the server is.
pub(crate) fn serve_socket<T: Socket>(
    stream: T,
    conn: AgentConnection,
    service: &impl Service,
    warnings: &Warnings,
    stopping: impl Fn() -> bool,
) -> Closed {
    // Where this fails the socket is dead, and the first read will say so.
    let _ = stream.set_write_timeout(WRITE);
    let mut set = Duration::ZERO;
    let limit_read = |stream: &Whole<T>, time| {
        // The usual time is the usual one, and asks nothing of the system.
        if set != time && stream.0.set_read_timeout(time).is_ok() {
            set = time;
        }
    };
    Connection::new(Whole(stream), conn, service, warnings).serve(limit_read, stopping)
}

/// A socket that one thread has to itself.
struct Whole<T>(T);

impl<T: Socket> Read for Whole<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl<T: Socket> Write for Whole<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves any stream until its end.
pub(crate) fn serve_stream(
    stream: impl Read + Write,
    conn: AgentConnection,
    service: &impl Service,
    warnings: &Warnings,
) -> Closed {
    Connection::new(stream, conn, service, warnings).serve(|_, _| {}, || false)
}

struct Connection<'a, T, S> {
    stream: T,
    conn: AgentConnection,
    service: &'a S,
    warnings: &'a Warnings,
    tally: Tally,
    /// The argument that names requests in the log.
    request_id: Option<Arc<str>>,
    /// Written to the stream and not yet flushed by it.
    unflushed: bool,
}

impl<'a, T: Read + Write, S: Service> Connection<'a, T, S> {
    fn new(stream: T, conn: AgentConnection, service: &'a S, warnings: &'a Warnings) -> Self {
        let tally = Tally::new(&conn);
        let request_id = conn.config().request_id_argument().cloned();
        Self { stream, conn, service, warnings, tally, request_id, unflushed: false }
    }

    fn serve(
        mut self,
        mut limit_read: impl FnMut(&T, Duration),
        stopping: impl Fn() -> bool,
    ) -> Closed {
        let mut scratch = Scratch::new();
        let mut leaving = Leaving::default();
        loop {
            let now = Instant::now();
            self.tally.clock(&self.conn, now);
            let mut want = self.conn.interest();
            // First of all: however long handlers took, the peer could not take what was not written.
            if !want.done && (want.write || self.unflushed) {
                self.write(now);
                want = self.conn.interest();
            }
            if want.done {
                break;
            }
            if want.deadline.is_some_and(|at| at <= now) {
                if let Err(error) = self.conn.handle_timeout(now) {
                    log::broken(self.warnings, self.conn.info().peer(), &error, now);
                }
                continue;
            }
            if want.ready {
                self.receive(&[], now);
                continue;
            }
            if !want.read {
                if !want.write {
                    // Others of this configuration owe as much as they may, and answer elsewhere.
                    let wait = want.deadline.map_or(LOOK, |at| at.saturating_duration_since(now));
                    thread::sleep(wait.min(LOOK));
                }
                // Without reading it is writing that there is to wait for, and that has a limit.
                continue;
            }
            self.publish(now);
            limit_read(&self.stream, leaving.read_for(stopping(), want.deadline, now));
            let read = scratch.read(|buffer| self.stream.read(buffer));
            let now = Instant::now();
            self.tally.clock(&self.conn, now);
            let filled = match read {
                Ok(Chunk { bytes: bytes @ [_, ..], filled }) => {
                    self.receive(bytes, now);
                    Some(filled)
                }
                Err(error) if is_time_limit(&error) => None,
                // A reset is as ordinary an end as any: HAProxy >= 3.1 closes with one.
                Ok(_) | Err(_) => {
                    self.conn.peer_closed(now);
                    None
                }
            };
            if leaving.now(filled, now) {
                self.conn.shutdown(now);
            }
        }
        self.publish(Instant::now());
        let reason = self.conn.close_reason().cloned();
        Closed::new(reason, self.conn.stats())
    }

    fn publish(&mut self, now: Instant) {
        let Self { tally, conn, warnings, .. } = self;
        tally.publish(conn, || now, |notice| log::noticed(warnings, &notice, now));
    }

    fn receive(&mut self, mut input: &[u8], now: Instant) {
        self.tally.received(input.len());
        let peer = self.conn.info().peer();
        loop {
            match self.conn.receive(&mut input, now) {
                Ok(Some(Event::Notify(notify, ack))) => {
                    log::asked(&notify);
                    let answer = |notify: Notify<'_>, ack: &mut Ack<'_>| {
                        self.service.notify(notify, ack)?;
                        log::answered(&notify, ack.len());
                        Ok(())
                    };
                    if let Err(failure) = answer_inline(notify, ack, answer) {
                        let request = RequestId::of(notify, self.request_id.as_deref());
                        log::failed(self.warnings, failure, request, now);
                    }
                }
                Ok(Some(event)) => log::happened(peer, &event),
                Ok(None) => return,
                Err(error) => log::broken(self.warnings, peer, &error, now),
            }
        }
    }

    fn write(&mut self, now: Instant) {
        if !self.conn.transmit().is_empty() {
            match self.stream.write(self.conn.transmit()) {
                Ok(written @ 1..) => {
                    self.conn.transmitted(written);
                    self.tally.sent(written);
                    self.unflushed = true;
                }
                Err(error) if is_time_limit(&error) => return,
                Ok(0) | Err(_) => return give_up(&mut self.conn, now),
            }
        }
        if self.unflushed && self.conn.transmit().is_empty() {
            match self.stream.flush() {
                Ok(()) => self.unflushed = false,
                // The stream still has some of it: it is asked again.
                Err(error) if is_time_limit(&error) => {}
                Err(_) => give_up(&mut self.conn, now),
            }
        }
    }
}

/// The stream takes no more: what is in the output is lost.
pub(crate) fn give_up(conn: &mut AgentConnection, now: Instant) {
    conn.peer_closed(now);
    let lost = conn.transmit().len();
    conn.transmitted(lost);
}
