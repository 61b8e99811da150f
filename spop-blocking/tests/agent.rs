//! What is this adapter's own. The behaviours that all adapters share are in the examples'
//! `tests/behaviour`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

#[path = "../../spop-proto/tests/common/engine.rs"]
mod engine;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use engine::Engine;
use spop_blocking::{
    Agent, CloseReason, Endpoint, Limits, Listener, Peer, Report, Scope, Server, Service,
    StopHandle,
};
use spop_proto::Dialect::New;
use spop_proto::{EngineConfig, EngineConnection};

fn start<S: Service>(agent: Agent<S>) -> (TcpStream, StopHandle, thread::JoinHandle<Report>) {
    let server: Server<S, _> = agent.bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().socket_addr().unwrap();
    let stop = server.stop_handle();
    let running = thread::spawn(move || server.run().unwrap());
    (TcpStream::connect(address).unwrap(), stop, running)
}

#[test]
fn inline_one_after_the_other() {
    let agent = Agent::inline(|notify, ack| {
        ack.set(Scope::Transaction, "n", notify.require("m")?.get::<i64>("number")?)?;
        Ok(())
    });
    let (stream, stop, running) = start(agent);
    let mut engine = Engine::ready(stream, New);
    for number in 0..100 {
        let id = engine.send(number);
        assert_eq!(engine.answers(1), [(id, format!("set-var txn.n int64:{number}"))]);
    }
    drop(engine);
    stop.stop();
    stop.stop();
    assert_eq!(running.join().unwrap().stats.answered, 100);
}

/// All four have to be there at once for any of them to go on.
#[test]
fn workers_run_beside_each_other() {
    let together = Arc::new(Barrier::new(4));
    let agent = Agent::inline(move |notify, ack| {
        together.wait();
        ack.set(Scope::Transaction, "n", notify.require("m")?.get::<i64>("number")?)?;
        Ok(())
    });
    let (stream, stop, running) = start(agent.workers(4));
    let mut engine = Engine::ready(stream, New);
    let asked: BTreeMap<_, _> = (0..4).map(|n| (n, engine.send(n))).collect();
    let mut answers = engine.answers(4);
    answers.sort_by_key(|(_, action)| action.clone());
    for (number, id) in asked {
        let index = usize::try_from(number).unwrap();
        assert_eq!(answers[index], (id, format!("set-var txn.n int64:{number}")));
    }
    drop(engine);
    stop.stop();
    assert_eq!(running.join().unwrap().stats.answered, 4);
}

/// As in a sandbox: a socket that was handed over is HAProxy's to connect to and not the agent's. Here it cannot,
/// because the path is gone.
#[test]
fn stops_without_a_way_to_its_own_socket() {
    let path = std::env::temp_dir().join(format!("spop-blocking-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let server = Agent::inline(|_, _| Ok(())).serve(listener).unwrap();
    let (stop, (ended, end)) = (server.stop_handle(), mpsc::channel());
    thread::spawn(move || ended.send(server.run().unwrap()).unwrap());
    // Its answer means that the next `accept` is on its way.
    let engine = Engine::ready(UnixStream::connect(&path).unwrap(), New);
    std::fs::remove_file(&path).unwrap();
    drop(engine);
    stop.stop();
    assert_eq!(end.recv_timeout(Duration::from_secs(20)).unwrap().connections, 1);
}

/// With one worker and room for one more, the third has no place.
#[test]
fn beyond_the_room_for_waiting_requests_are_shed() {
    let (started, gate) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (begun, opened) = (Arc::clone(&started), Arc::clone(&gate));
    let agent = Agent::inline(move |_, ack| {
        begun.wait();
        opened.wait();
        ack.set(Scope::Transaction, "done", true)?;
        Ok(())
    });
    let fallback = [spop_blocking::Action::set(Scope::Transaction, "shed", true)];
    let config = spop_blocking::AgentConfig::new().fallback(fallback).unwrap();
    let agent = agent.config(config).workers(1).waiting(1);
    let (stream, stop, running) = start(agent);
    let mut engine = Engine::ready(stream, New);
    let first = engine.send(1);
    started.wait();
    let (second, third) = (engine.send(2), engine.send(3));
    assert_eq!(engine.answers(1), [(third, "set-var txn.shed bool:true".to_owned())]);
    gate.wait();
    assert_eq!(engine.answers(1), [(first, "set-var txn.done bool:true".to_owned())]);
    started.wait();
    gate.wait();
    assert_eq!(engine.answers(1), [(second, "set-var txn.done bool:true".to_owned())]);
    drop(engine);
    stop.stop();
    assert_eq!(running.join().unwrap().stats.shed, 1);
}

/// Nothing can end a handler that does not return; the server ends all the same.
#[test]
fn a_handler_that_never_returns_is_left_behind() {
    let agent = Agent::inline(|_, _| {
        loop {
            thread::park();
        }
    });
    let short = |limits: Limits| {
        let time = Duration::from_millis(10);
        limits.drain_timeout(time).and_then(|limits| limits.close_timeout(time))
    };
    let (stream, stop, running) = start(agent.limits(short(Limits::new()).unwrap()));
    let mut engine = Engine::ready(stream, New);
    engine.send(1);
    stop.stop();
    assert_eq!(running.join().unwrap().cut, 1);
}

/// A stream without time limits: deadlines are looked at when a read returns.
#[test]
fn any_stream_is_served_inline() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = thread::spawn(move || {
        let agent = Agent::inline(|_, ack| Ok(ack.set(Scope::Transaction, "ok", true)?));
        agent.serve_connection(theirs, Peer::Unknown)
    });
    let mut engine = Engine::ready(ours, New);
    let id = engine.send(1);
    assert_eq!(engine.answers(1), [(id, "set-var txn.ok bool:true".to_owned())]);
    drop(engine);
    let closed = serving.join().unwrap();
    assert_eq!(closed.reason, CloseReason::PeerClosed);
    assert_eq!(closed.stats.answered, 1);
}

/// What the name promises.
#[test]
fn there_is_no_async_runtime_in_its_tree() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal", "--all-features", "--prefix", "none"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"spop-proto"), "{names:?}");
    for runtime in ["tokio", "async-std", "async-io", "async-executor", "smol", "mio", "polling"] {
        assert!(!names.contains(&runtime), "{runtime} is in the tree: {names:?}");
    }
}

/// HAProxy cannot take what was not written: the time of handlers is not its own.
#[test]
fn handlers_slower_than_the_write_timeout_are_answered() {
    let time = Duration::from_millis(20);
    let agent = Agent::inline(move |_, ack| {
        thread::sleep(2 * time);
        Ok(ack.set(Scope::Transaction, "ok", true)?)
    });
    let (stream, stop, running) = start(agent.limits(Limits::new().write_timeout(time).unwrap()));
    let mut engine = Engine::ready(stream, New);
    engine.send(1);
    engine.send(2);
    assert_eq!(engine.answers(2).len(), 2);
    drop(engine);
    stop.stop();
    assert_eq!(running.join().unwrap().protocol_errors, 0);
}

/// An error's text is the user's code, and so is what happens when it is dropped.
#[derive(Debug)]
struct Nasty;

impl std::fmt::Display for Nasty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nasty")
    }
}

impl std::error::Error for Nasty {}

impl Drop for Nasty {
    fn drop(&mut self) {
        panic!("a destructor that panics");
    }
}

#[test]
fn an_error_that_panics_costs_neither_a_worker_nor_a_connection() {
    for workers in [0, 1] {
        let agent = Agent::inline(|notify, ack| {
            if notify.require("m")?.get::<i64>("number")? == 0 {
                return Err(Nasty.into());
            }
            Ok(ack.set(Scope::Transaction, "ok", true)?)
        });
        let fallback = [spop_blocking::Action::set(Scope::Transaction, "fell", true)];
        let config = spop_blocking::AgentConfig::new().fallback(fallback).unwrap();
        let (stream, stop, running) = start(agent.config(config).workers(workers));
        let mut engine = Engine::ready(stream, New);
        for number in [0, 1, 0, 2] {
            let id = engine.send(number);
            let expected = if number == 0 { "fell" } else { "ok" };
            assert_eq!(engine.answers(1), [(id, format!("set-var txn.{expected} bool:true"))]);
        }
        drop(engine);
        stop.stop();
        let stats = running.join().unwrap().stats;
        assert_eq!((stats.answered, stats.errors), (2, 2));
    }
}

/// As TLS does, it keeps what is written until it is flushed; and the socket below has a time limit.
struct Late {
    stream: UnixStream,
    kept: Vec<u8>,
    late: bool,
}

impl Read for Late {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }
}

impl Write for Late {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.kept.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.late = !self.late;
        if self.late {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.stream.write_all(&std::mem::take(&mut self.kept))
    }
}

#[test]
fn a_flush_that_reaches_a_time_limit_is_tried_again() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let serving = thread::spawn(move || {
        let agent = Agent::inline(|_, ack| Ok(ack.set(Scope::Transaction, "ok", true)?));
        let stream = Late { stream: theirs, kept: Vec::new(), late: false };
        agent.serve_connection(stream, Peer::Unknown)
    });
    let mut engine = Engine::ready(ours, New);
    let id = engine.send(1);
    assert_eq!(engine.answers(1), [(id, "set-var txn.ok bool:true".to_owned())]);
    drop(engine);
    assert_eq!(serving.join().unwrap().stats.answered, 1);
}

/// One that accepts what it is given, and then nothing for ever.
struct Deaf(Mutex<mpsc::Receiver<UnixStream>>);

impl Listener for Deaf {
    type Stream = UnixStream;

    fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let given = self.0.lock().unwrap().recv();
        Ok((
            given.unwrap_or_else(|_| {
                loop {
                    thread::park()
                }
            }),
            Peer::Unix,
        ))
    }

    fn unblock(&self) {}

    fn local_addr(&self) -> io::Result<Endpoint> {
        Ok(Endpoint::Unix("nowhere".into()))
    }
}

#[test]
fn a_stop_does_not_wait_for_a_listener_that_cannot_be_woken() {
    let (give, given) = mpsc::channel();
    let server = Agent::inline(|_, _| Ok(())).serve(Deaf(Mutex::new(given))).unwrap();
    let stop = server.stop_handle();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(server.run().unwrap()).is_ok());
    let (ours, theirs) = UnixStream::pair().unwrap();
    give.send(theirs).unwrap();
    let engine = Engine::ready(ours, New);
    drop(give);
    stop.stop();
    assert_eq!(told.recv_timeout(Duration::from_secs(20)).unwrap().connections, 1);
    drop(engine);
}

/// Reads a HELLO and then its end, and is never done with flushing.
struct Ending {
    input: Vec<Vec<u8>>,
    over: bool,
}

impl Read for Ending {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(input) = self.input.pop() else {
            self.over = true;
            return Ok(0);
        };
        buf[..input.len()].copy_from_slice(&input);
        Ok(input.len())
    }
}

impl Write for Ending {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    /// As long as its time limit each time.
    fn flush(&mut self) -> io::Result<()> {
        assert!(!self.over, "asked to flush after the end");
        Err(io::ErrorKind::TimedOut.into())
    }
}

#[test]
fn a_stream_that_ended_is_not_asked_to_flush() {
    let hello = EngineConnection::new(EngineConfig::new(New), Instant::now());
    let stream = Ending { input: vec![hello.transmit().to_vec()], over: false };
    let closed = Agent::inline(|_, _| Ok(())).serve_connection(stream, Peer::Unknown);
    assert_eq!(closed.reason, CloseReason::PeerClosed);
}
