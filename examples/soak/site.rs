//! HAProxy in the middle, reloaded now and then, and what it logged and counted.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clients::Outcome;
use crate::haproxy::{Haproxy, Log, Program, Setup, free_port, wait_until};

/// A line for each request that says all there is to say of it, written by the process that served it.
/// One thread: where two of HAProxy's threads write a line at once, one of the lines may be dropped.
const HAPROXY_CFG: &str = r#"
global
    log stdout format raw local0
    nbthread 1

defaults
    mode http
    log global
    option dontlognull
    timeout connect 2s
    timeout client 30s
    timeout server 30s

frontend web
    bind "${WEB}"
    capture request header x-id len 20
    filter spoe engine soak config spoe.conf
    log-format "web %rt %[capture.req.hdr(0)] %[var(txn.soak.score)] %[var(txn.soak.fallback)] %[var(txn.soak.error)] end"
    http-request return status 200 content-type text/plain lf-string "score=%[var(txn.soak.score)] fallback=%[var(txn.soak.fallback)] error=%[var(txn.soak.error)]"

backend agents
    mode tcp
    balance roundrobin
    option spop-check
    timeout server 30s
    timeout check 5s
    server agent0 "${AGENT0}" check inter 100ms fall 2 rise 1
    server agent1 "${AGENT1}" check inter 100ms fall 2 rise 1
"#;

/// `timeout processing` is long: it shall never be what ends a request.
const SPOE_CONF: &str = "[soak]
spoe-agent soak
    messages    ask
    option      var-prefix    soak
    option      set-on-error  error
    timeout     hello         5s
    timeout     idle          1m
    timeout     processing    10s
    use-backend agents
    log         global

spoe-message ask
    args  id=req.hdr(x-id)
    event on-frontend-http-request
";

/// A stream of HAProxy's: which process, counted by reloads, and which stream of it.
pub(crate) type Stream = (u64, u64);

/// The line of a request in HAProxy's log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logged {
    /// The number that its client gave it.
    pub(crate) id: u64,
    /// The stream that served it.
    pub(crate) stream: Stream,
    /// What HAProxy knew of it.
    pub(crate) outcome: Outcome,
}

/// What HAProxy has in its books.
#[derive(Debug, Default)]
pub(crate) struct HaproxyBook {
    /// The lines of requests.
    pub(crate) requests: Vec<Logged>,
    /// Lines of requests whose number or outcome could not be read.
    pub(crate) unreadable: Vec<String>,
    /// The lines of the SPOE agent: their `st=`, by stream.
    pub(crate) events: BTreeMap<Stream, Vec<i64>>,
    /// Lines that HAProxy dropped (last process), and that were printed and not read in time.
    pub(crate) lost: usize,
    /// Of the last process: requests by `show stat`, and lines of requests.
    pub(crate) last: (u64, u64),
    /// What processes said when they ended, if it was not 0.
    pub(crate) ends: Vec<String>,
    /// How many times it was reloaded.
    pub(crate) reloads: u64,
}

/// The running HAProxy.
#[derive(Debug)]
pub(crate) struct Site {
    /// Where clients connect to.
    pub(crate) web: SocketAddr,
    program: Program,
    setup: Setup,
    current: Running,
    book: HaproxyBook,
}

#[derive(Debug)]
struct Running {
    haproxy: Haproxy,
    follower: Follower,
}

impl Site {
    /// Starts it and waits until it has seen both agents.
    pub(crate) fn start(program: &Program, agents: &[SocketAddr; 2]) -> io::Result<Self> {
        let web = free_port()?;
        let mut setup = Setup::new(HAPROXY_CFG).file("spoe.conf", SPOE_CONF).set("WEB", web);
        for (number, agent) in agents.iter().enumerate() {
            setup = setup.set(&format!("AGENT{number}"), agent);
        }
        let current = Running::new(setup.start(program)?);
        let book = HaproxyBook::default();
        let site = Self { web, program: program.clone(), setup, current, book };
        for number in 0..agents.len() {
            site.wait_until_up(number)?;
        }
        Ok(site)
    }

    /// A new process takes over; the old one finishes what it has begun.
    pub(crate) fn reload(&mut self) -> io::Result<()> {
        let setup = self.setup.clone().replacing(&mut self.current.haproxy)?;
        let new = Running::new(setup.start(&self.program)?);
        let old = mem::replace(&mut self.current, new);
        old.end(&mut self.book)?;
        self.book.reloads += 1;
        Ok(())
    }

    /// Waits until HAProxy has seen an agent come back.
    pub(crate) fn wait_until_up(&self, agent: usize) -> io::Result<()> {
        self.current.haproxy.wait_for_server("agents", &format!("agent{agent}"), "UP")
    }

    /// Compares the statistics of the last process with its log, then stops it. To be called when no
    /// client is there any more.
    pub(crate) fn finish(self) -> io::Result<HaproxyBook> {
        let haproxy = &self.current.haproxy;
        wait_until("HAProxy to have no session left", || {
            Ok((haproxy.stat("web", "FRONTEND", "scur")? == "0").then_some(()))
        })?;
        let counted = haproxy.stat("web", "FRONTEND", "req_tot")?;
        let info = haproxy.command("show info")?;
        let dropped: Option<usize> =
            info.lines().find_map(|line| line.strip_prefix("DroppedLogs: ")?.parse().ok());
        let before = self.book.lines();
        let Self { mut current, mut book, .. } = self;
        book.lost += dropped.ok_or_else(|| io::Error::other("show info has no DroppedLogs"))?;
        current.haproxy.process().signal("USR1")?;
        current.end(&mut book)?;
        let counted = counted.parse().map_err(io::Error::other)?;
        book.last = (counted, book.lines() - before);
        Ok(book)
    }
}

impl HaproxyBook {
    fn lines(&self) -> u64 {
        (self.requests.len() + self.unreadable.len()) as u64
    }

    fn enter(&mut self, line: &str) {
        let read = if let Some(fields) = line.strip_prefix("web ") {
            self.request(fields)
        } else if let Some(fields) = line.strip_prefix("SPOE: [soak] ") {
            self.event(fields)
        } else {
            return;
        };
        if read.is_none() {
            self.unreadable.push(line.to_owned());
        }
    }

    fn request(&mut self, fields: &str) -> Option<()> {
        let fields: Vec<_> = fields.split(' ').collect();
        let [stream, id, score, fallback, error, "end"] = fields.as_slice() else { return None };
        let (id, stream) = (id.parse().ok()?, (self.reloads, stream.parse().ok()?));
        let outcome = Outcome::of(id, score, fallback, error);
        self.requests.push(Logged { id, stream, outcome });
        Some(())
    }

    fn event(&mut self, fields: &str) -> Option<()> {
        let field = |name| fields.split(' ').find_map(|word| word.strip_prefix(name));
        let stream = (self.reloads, field("sid=")?.parse().ok()?);
        self.events.entry(stream).or_default().push(field("st=")?.parse().ok()?);
        Some(())
    }
}

impl Running {
    fn new(haproxy: Haproxy) -> Self {
        let follower = Follower::start(haproxy.log().clone());
        Self { haproxy, follower }
    }

    /// Waits for the end of a process that was told to leave.
    fn end(mut self, book: &mut HaproxyBook) -> io::Result<()> {
        let status = self.haproxy.process().wait()?;
        if !status.success() {
            book.ends.push(status.to_string());
        }
        let lines = self.follower.finish();
        book.lost += self.haproxy.log().mark().saturating_sub(lines.len());
        lines.iter().for_each(|line| book.enter(line));
        Ok(())
    }
}

/// Reads a log as it grows, since a [`Log`] keeps only the last lines.
#[derive(Debug)]
struct Follower {
    ended: Arc<AtomicBool>,
    reading: JoinHandle<Vec<String>>,
}

impl Follower {
    fn start(log: Log) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let reading = thread::spawn(move || {
            let mut all = Vec::new();
            loop {
                let last = until.load(Ordering::Relaxed);
                let lines = log.lines(all.len());
                let none = lines.is_empty();
                all.extend(lines);
                if none && last {
                    return all;
                }
                if none {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self { ended, reading }
    }

    fn finish(self) -> Vec<String> {
        self.ended.store(true, Ordering::Relaxed);
        self.reading.join().unwrap_or_default()
    }
}
