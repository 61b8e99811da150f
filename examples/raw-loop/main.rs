//! An SPOE agent on the core alone: spop-proto in a poll loop of mio, on one thread, without a runtime.
//!
//! It tells HAProxy which requests ask for hidden files. See README.md beside it; `serve` is the loop,
//! [`Connection::turn`] what a connection does when it is its turn.

#[path = "../shared/basics.rs"]
mod basics;
mod socket;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use mio::{Events, Interest, Poll, Token, Waker};
use serde::Deserialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use spop_proto::server::{AcceptBackoff, LogLimiter, Seats};
use spop_proto::{
    Action, AgentConfig, AgentConnection, ConfigError, Endpoint, Event, Router, Scope, Service,
    Var, answer_inline,
};

use self::socket::{Listener, Stream};

/// The `spoe-message`.
const MESSAGE: &str = "check-path";
const HIDDEN: Var<'_> = Var::transaction("hidden");
const LISTENER: Token = Token(usize::MAX);
const STOP: Token = Token(usize::MAX - 1);
/// How often a connection reads in a turn: one that always has more to say lets the others have theirs.
const READS: usize = 8;

const SITE: basics::Site<'_> = basics::Site {
    engine: "raw",
    rules: &[
        "# No verdict, whatever the reason: nothing passes.",
        "http-request deny deny_status 503 unless { var(txn.raw.hidden) -m found }",
        "http-request deny deny_status 404 if { var(txn.raw.hidden) -m bool }",
    ],
    passes: "served",
};

/// Tell HAProxy which requests ask for hidden files: an SPOE agent without a runtime.
#[derive(Debug, Parser)]
#[command(
    name = "raw-loop",
    version,
    max_term_width = 100,
    after_help = "\
Exit status:
  0  after SIGTERM or Ctrl-C, or what was asked for is printed
  1  it cannot start
  2  wrong usage"
)]
struct Args {
    #[command(flatten)]
    basics: basics::Basics,
}

pub(crate) fn main() -> ExitCode {
    let args: Args = basics::parse(&SITE, MESSAGE, takes);
    let listen = &args.basics.listen;
    match router().map_err(io::Error::other).and_then(|router| serve(listen, &router)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raw-loop: {listen}: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Deserialize)]
struct Check<'a> {
    #[serde(borrow)]
    path: &'a [u8],
}

/// What the agent answers; it would be the same under any adapter.
fn router() -> Result<Router, ConfigError> {
    let router = Router::new().on(MESSAGE, |message, ack| {
        let Check { path } = message.deserialize()?;
        let hidden = path.split(|byte| *byte == b'/').any(|name| name.starts_with(b"."));
        Ok(ack.set_var(HIDDEN, hidden)?)
    });
    takes(router)
        // What could not be looked at is not served either.
        .fallback([Action::set(Scope::Transaction, HIDDEN.name(), true)])
}

/// The arguments, as spoe.conf has them.
fn takes(route: Router) -> Router {
    route.args::<Check<'_>>().declares(["path=path,url_dec"])
}

/// Accepts and serves until SIGTERM or Ctrl-C, then until every answer owed is sent.
fn serve(listen: &Endpoint, service: &impl Service) -> io::Result<()> {
    let config = AgentConfig::new();
    let seats = Seats::new(config.current_limits());
    let mut poll = Poll::new()?;
    stop_on_signal(Waker::new(poll.registry(), STOP)?)?;
    let mut listener = Listener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    eprintln!("agent listening listen={}", listener.address()?);

    let mut accepting = Some((listener, AcceptBackoff::new()));
    let mut connections: HashMap<Token, Connection> = HashMap::new();
    let (mut events, mut scratch) = (Events::with_capacity(256), vec![0; 64 << 10]);
    let (mut next, mut wait) = (0, None);
    let mut log = Log(LogLimiter::new());
    while accepting.is_some() || !connections.is_empty() {
        match poll.poll(&mut events, wait) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let now = Instant::now();
        for event in &events {
            if event.token() == STOP {
                // From here on new connections are refused.
                accepting = None;
                connections.values_mut().for_each(|connection| connection.agent.shutdown(now));
            } else if let Some(connection) = connections.get_mut(&event.token()) {
                // mio tells of a change once: it stands until the socket says WouldBlock.
                connection.readable |= event.is_readable();
                connection.writable |= event.is_writable();
            }
        }
        let mut retry = None;
        while let Some((listener, backoff)) = &mut accepting {
            match listener.accept() {
                Ok((mut stream, peer)) => {
                    backoff.succeeded();
                    // Beyond the limit health checks are still answered; beyond twice as many, nobody.
                    let Some(admission) = seats.admit(connections.len()) else { continue };
                    let both = Interest::READABLE | Interest::WRITABLE;
                    // What fails here is this one connection, gone already.
                    if stream.register(poll.registry(), Token(next), both).is_err() {
                        continue;
                    }
                    let agent = admission.connection(config.clone(), peer, now);
                    let (readable, writable) = (false, true);
                    connections
                        .insert(Token(next), Connection { stream, agent, readable, writable });
                    next += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => match backoff.failed(error.kind()) {
                    None => {}
                    Some(pause) => {
                        log.write(now, format_args!("cannot accept: {error}"));
                        retry = Some(now + pause);
                        break;
                    }
                },
            }
        }
        // All of them: with thousands, a queue of deadlines and a list of those with news pay off.
        let mut due = retry;
        connections.retain(|_, connection| {
            let turn = connection.turn(&mut scratch, now, service, &mut log);
            if let Turn::WaitUntil(Some(time)) = turn {
                due = Some(due.map_or(time, |due| due.min(time)));
            } else if turn == Turn::Again {
                due = Some(now);
            }
            turn != Turn::Done
        });
        // Rounded up: woken just before the time, the loop would turn for nothing.
        wait = due.map(|time| time.saturating_duration_since(Instant::now()));
        wait = wait.map(|time| if time.is_zero() { time } else { time + Duration::from_millis(1) });
    }
    Ok(())
}

/// The loop sleeps in `poll`, so a signal has to come by that way.
fn stop_on_signal(waker: Waker) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || signals.forever().for_each(|_| _ = waker.wake())).map(drop)
}

/// A socket and its state machine.
struct Connection {
    stream: Box<dyn Stream>,
    agent: AgentConnection,
    readable: bool,
    writable: bool,
}

/// What is to become of a connection after its turn.
#[derive(PartialEq)]
enum Turn {
    WaitUntil(Option<Instant>),
    /// It has more to do, and the others are first.
    Again,
    Done,
}

impl Connection {
    /// Does what the state machine asks for, as far as the socket lets it.
    fn turn(
        &mut self,
        scratch: &mut [u8],
        now: Instant,
        service: &impl Service,
        log: &mut Log,
    ) -> Turn {
        if self.agent.interest().deadline.is_some_and(|time| time <= now)
            && let Err(error) = self.agent.handle_timeout(now)
        {
            log.write(now, format_args!("{}: {error}", self.agent.info().peer()));
        }
        let mut reads = 0;
        loop {
            let want = self.agent.interest();
            if want.done {
                return Turn::Done;
            }
            if want.write && self.writable {
                match self.stream.write(self.agent.transmit()) {
                    Ok(written) => self.agent.transmitted(written),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // A reset is as ordinary an end as any; the output is lost.
                    Err(_) => {
                        self.agent.peer_closed(now);
                        let lost = self.agent.transmit().len();
                        self.agent.transmitted(lost);
                    }
                }
            } else if want.ready {
                self.receive(&[], now, service, log);
            } else if want.read && self.readable {
                if reads == READS {
                    return Turn::Again;
                }
                reads += 1;
                match self.stream.read(scratch) {
                    Ok(0) => self.agent.peer_closed(now),
                    Ok(read) => {
                        self.receive(scratch.get(..read).unwrap_or_default(), now, service, log);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => self.agent.peer_closed(now),
                }
            } else {
                return Turn::WaitUntil(want.deadline);
            }
        }
    }

    /// Answers each NOTIFY in what was read.
    fn receive(&mut self, mut input: &[u8], now: Instant, service: &impl Service, log: &mut Log) {
        loop {
            let peer = self.agent.info().peer();
            match self.agent.receive(&mut input, now) {
                Ok(Some(Event::Notify(notify, ack))) => {
                    // Whatever the service does, exactly one answer is in the output then.
                    let answered = answer_inline(notify, ack, |n, a| service.notify(n, a));
                    if let Err(failure) = answered {
                        log.write(now, format_args!("{peer}: no answer: {failure}"));
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                // The goodbye is in the output, and `interest` leads to `done`.
                Err(error) => log.write(now, format_args!("{peer}: {error}")),
            }
        }
    }
}

/// A peer must not be able to fill the disk: a line every ten seconds.
struct Log(LogLimiter);

impl Log {
    fn write(&mut self, now: Instant, line: std::fmt::Arguments<'_>) {
        match self.0.admit(now) {
            Some(0) => eprintln!("{line}"),
            Some(suppressed) => eprintln!("{line} ({suppressed} lines held back before)"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use spop_proto::testing;

    use super::*;

    #[test]
    fn hidden_files_are_told_apart() {
        let router = router().unwrap();
        for (path, hidden) in [
            ("/", false),
            ("/a.html", false),
            ("/.env", true),
            ("/src/.git/config", true),
            ("/a/../b", true),
        ] {
            let answer = testing::message("check-path").arg("path", path).ask(&router);
            assert_eq!(answer.to_string(), format!("txn.hidden = bool {hidden}\n"), "{path}");
        }
    }

    #[test]
    fn without_a_path_it_counts_as_hidden() {
        let answer = testing::message("check-path").ask(&router().unwrap());
        assert_eq!(answer.get(Scope::Transaction, "hidden"), Some(true.into()));
        assert!(answer.error().unwrap().contains("path"), "{answer}");
    }
}
