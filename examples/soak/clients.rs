//! The clients: some stay for many requests, some for one, some reset in the middle.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::haproxy::{Client, DEADLINE, Request, Response};

/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(1);

/// What became of a request, as its client or HAProxy's log tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answer that the handler of this very request gave.
    Answered,
    /// The fallback.
    Fallback,
    /// An error, and when the client asked and was told.
    Error(i64),
    /// The client reset the connection and saw nothing.
    Left,
    /// HAProxy closed the connection without an answer, as it may when it leaves; the client asks
    /// again under another number.
    Closed,
    /// Neither, or the answer of another request: never allowed.
    Odd,
}

impl Outcome {
    /// From the variables of a request, as text; unset ones are empty or a dash.
    pub(crate) fn of(id: u64, score: &str, fallback: &str, error: &str) -> Self {
        let unset = |text: &str| text.is_empty() || text == "-";
        match (unset(score), unset(fallback), unset(error)) {
            (false, true, true) if score == id.to_string() => Self::Answered,
            (true, false, true) => Self::Fallback,
            (true, true, false) => error.parse().map_or(Self::Odd, Self::Error),
            _ => Self::Odd,
        }
    }
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Its number.
    pub(crate) id: u64,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// When it was sent and when it ended.
    pub(crate) time: (Instant, Instant),
}

/// Running clients.
#[derive(Debug)]
pub(crate) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Entry>>>,
}

#[derive(Debug)]
struct Shared {
    web: SocketAddr,
    stop: AtomicBool,
    next: AtomicU64,
    broken: Mutex<Option<String>>,
}

/// What the clients have in their books.
#[derive(Debug, Default)]
pub(crate) struct ClientBook {
    /// All requests, in no order.
    pub(crate) entries: Vec<Entry>,
    /// How many numbers were given out.
    pub(crate) sent: u64,
    /// Something that must not happen to a client.
    pub(crate) broken: Option<String>,
}

impl Clients {
    /// Starts them.
    pub(crate) fn start(web: SocketAddr, clients: u32) -> Self {
        let shared = Arc::new(Shared {
            web,
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            broken: Mutex::new(None),
        });
        let threads = (0..clients).map(|client| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut visits = Visits { shared, chance: Chance(client.into()), book: Vec::new() };
                if let Err(error) = visits.go_on() {
                    lock(&visits.shared.broken).get_or_insert(error.to_string());
                }
                visits.book
            })
        });
        let threads = threads.collect();
        Self { shared, threads }
    }

    /// An error if one of them could not go on.
    pub(crate) fn check(&self) -> io::Result<()> {
        match &*lock(&self.shared.broken) {
            Some(error) => Err(io::Error::other(format!("a client: {error}"))),
            None => Ok(()),
        }
    }

    /// Lets them finish what they have begun.
    pub(crate) fn finish(self) -> ClientBook {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut book = ClientBook::default();
        for thread in self.threads {
            match thread.join() {
                Ok(entries) => book.entries.extend(entries),
                Err(_) => book.broken = Some("a client panicked".to_owned()),
            }
        }
        book.sent = self.shared.next.load(Ordering::Relaxed);
        book.broken = book.broken.or_else(|| lock(&self.shared.broken).take());
        book
    }
}

/// One client.
struct Visits {
    shared: Arc<Shared>,
    chance: Chance,
    book: Vec<Entry>,
}

impl Visits {
    fn go_on(&mut self) -> io::Result<()> {
        while !self.stopped() {
            match self.chance.below(8) {
                0 => self.leave_early()?,
                1..=3 => self.visit(1)?,
                _ => {
                    let requests = 2 + self.chance.below(60);
                    self.visit(requests)?;
                }
            }
        }
        Ok(())
    }

    /// So many requests on one connection.
    fn visit(&mut self, requests: u64) -> io::Result<()> {
        let mut client = Client::connect(self.shared.web)?;
        for _ in 0..requests {
            if self.stopped() {
                return Ok(());
            }
            let (id, from) = self.begin();
            let request = Request::get("/").header("x-id", id.to_string());
            let outcome = match client.send(&request) {
                Ok(response) => outcome(id, &response),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Outcome::Closed,
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("request {id}: {error}")));
                }
            };
            self.end(id, from, outcome);
            if outcome == Outcome::Closed {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Asks, and resets the connection instead of reading the answer.
    fn leave_early(&mut self) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.shared.web, DEADLINE)?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let (id, from) = self.begin();
        let request = format!("GET / HTTP/1.1\r\nhost: test\r\nx-id: {id}\r\n\r\n");
        // If that fails, HAProxy was faster. The number is gone either way.
        let _ = stream.write_all(request.as_bytes());
        thread::sleep(Duration::from_millis(self.chance.below(20)));
        drop(stream);
        self.end(id, from, Outcome::Left);
        Ok(())
    }

    fn begin(&self) -> (u64, Instant) {
        (self.shared.next.fetch_add(1, Ordering::Relaxed), Instant::now())
    }

    fn end(&mut self, id: u64, from: Instant, outcome: Outcome) {
        self.book.push(Entry { id, outcome, time: (from, Instant::now()) });
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }
}

fn outcome(id: u64, response: &Response) -> Outcome {
    let text = response.text();
    let field = |name: &str| {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.filter(|(n, _)| *n == name).map(|(_, value)| value).next().unwrap_or_default()
    };
    if response.status != 200 {
        return Outcome::Odd;
    }
    Outcome::of(id, field("score"), field("fallback"), field("error"))
}

/// Numbers in no order, the same ones in each run (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
