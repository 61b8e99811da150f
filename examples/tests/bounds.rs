//! What hostile peers can make an agent's process hold, against what its limits allow.
//!
//! The agent is a process of its own, so that the peers' memory does not count. What is measured is the
//! peak of its resident memory (`VmHWM`) beyond that of the same process with one connection. What is
//! allowed is computed from the limits in force: their sum for each connection, times two, since a
//! buffer that grows doubles. Time and single bytes are in `spop-proto/tests/bounds.rs`, where the
//! clock is virtual and every byte of the allocator is counted.
//!
//! 10 000 connections need as many file descriptors in either process. Where the hard limit of the
//! system does not allow them there are fewer, and the test says so.

#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, unused_imports, reason = "memory is read off /proc")
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: a panic is its way to fail"
)]

#[path = "haproxy.rs"]
mod haproxy;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use libtest_mimic::{Arguments, Trial};
use spop_proto::wire::FrameType;
use spop_proto::{Dialect, EngineConfig, EngineConnection};
use spop_tokio::{Agent, AgentConfig, Limits, Scope};

use crate::haproxy::{DEADLINE, Directory, wait_until};

const FRAME: usize = 16_380;
const PAYLOAD: usize = 64 * 1024;
const OUTPUT: usize = 64 * 1024;
/// What an adapter reads at once; what it cannot use yet, it keeps.
const READ: usize = 96 * 1024;
const FIRST_FRAME: usize = 4096;
/// Of a connection beyond what limits speak of: its task, its socket's registration, the state machine.
const FIXED: usize = 4096;
/// Of the process: what its threads and its allocator keep.
const PROCESS: usize = 4 * 1024 * 1024;

const MANY: usize = 10_000;
/// Those that do more than to be there.
const SOME: usize = 200;

fn limits() -> Limits {
    let bytes = |bytes| NonZeroUsize::new(bytes).unwrap();
    let limits = Limits::new().connections(bytes(2 * MANY)).payload(bytes(PAYLOAD));
    let limits = limits.output(bytes(OUTPUT)).in_flight(NonZeroU32::new(64).unwrap());
    let limits = limits.hello_timeout(Duration::from_secs(3600)).unwrap();
    limits.write_timeout(Duration::from_secs(1)).unwrap()
}

fn main() -> ExitCode {
    if let Some(socket) = env::var_os(AGENT) {
        be_an_agent(Path::new(&socket));
        return ExitCode::SUCCESS;
    }
    if env::var_os(RAISED).is_none() {
        return with_all_descriptors();
    }
    let mut arguments = Arguments::from_args();
    // One after the other: each has a machine's worth of peers.
    arguments.test_threads = Some(1);
    let trials = [
        ("a_length_of_four_gibibytes", four_gibibytes as fn()),
        ("a_flood_of_hellos", hello_flood),
        ("ten_thousand_that_say_nothing", || silent(false)),
        ("ten_thousand_that_only_say_hello", || silent(true)),
        ("fragments_of_one_payload_without_end", || fragments(false)),
        ("fragments_of_ever_new_payloads", || fragments(true)),
        ("peers_that_ask_and_never_read", never_read),
    ];
    let trials = trials.into_iter().map(|(name, run)| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
        .with_ignored_flag(cfg!(not(target_os = "linux")))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

// ---------------------------------------------------------------------------------- the attacks

fn four_gibibytes() {
    let agent = Spawned::start();
    agent.within("4 GiB announced", SOME, &[], |agent| {
        let peers = (0..SOME).map(|n| {
            let mut peer = if n % 2 == 0 { agent.connect() } else { agent.greeted() };
            // It may hang up at the length already.
            let _ = peer.write_all(&[0xff; 4]).and_then(|()| peer.write_all(&vec![0; READ]));
            peer
        });
        peers.collect::<Vec<_>>().iter_mut().for_each(until_closed);
    });
}

fn hello_flood() {
    const AT_ONCE: usize = 8;
    let agent = Spawned::start();
    // A connection that was left is there until the agent has looked at it again.
    agent.within("a flood of HELLO", 16 * AT_ONCE, &[FIRST_FRAME], |agent| {
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| (0..2_000).for_each(|_| drop(agent.greeted())));
            }
        });
        let mut peer = agent.connect();
        while peer.write_all(&hello()).is_ok() {}
    });
}

fn silent(hello: bool) {
    let most = descriptors().saturating_sub(200);
    let count = MANY.min(most);
    if count < MANY {
        println!(
            "{count} connections instead of {MANY}: no more file descriptors are allowed here"
        );
    }
    let agent = Spawned::start();
    let what = if hello { "only HELLO" } else { "silent" };
    let limits: &[usize] = if hello { &[FIRST_FRAME] } else { &[] };
    agent.within(what, count, limits, |agent| {
        let mut peers = Vec::new();
        for _ in 0..count {
            peers.push(if hello { agent.greeted() } else { agent.connect() });
        }
        agent.wait_for_connections(count);
        assert_eq!(peers.len(), count);
    });
}

fn fragments(new_ones: bool) {
    let agent = Spawned::start();
    let what = if new_ones { "fragments of many streams" } else { "fragments of one stream" };
    agent.within(what, SOME, &[FRAME, PAYLOAD, READ], |agent| {
        let part = vec![b'x'; FRAME - 32];
        let mut peers: Vec<_> = (0..SOME).map(|_| agent.greeted()).collect();
        let fragment = |n: usize| {
            let first = new_ones || n == 0;
            let kind = if first { FrameType::NOTIFY } else { FrameType::UNSET };
            frame(kind.0, 0, if new_ones { u8::try_from(n).unwrap() } else { 1 }, &part)
        };
        // All that may be kept, of all of them; then more.
        let kept = PAYLOAD / part.len();
        for n in 0..kept {
            for peer in &mut peers {
                // A connection that is over takes nothing any more.
                let _ = peer.write_all(&fragment(n));
            }
        }
        for peer in &mut peers {
            for n in kept..2 * kept {
                let _ = peer.write_all(&fragment(n));
            }
            if !new_ones {
                // The refusal: the agent has seen as much as the limit allows.
                assert_eq!(read_frame(peer)[0], 103, "ACK with ABORT");
            }
        }
        if new_ones {
            peers.iter_mut().for_each(until_closed);
        }
    });
}

fn never_read() {
    let agent = Spawned::start();
    let ack = 1_100;
    let each = [OUTPUT, READ, ack, 20 * ack];
    agent.within("never read", SOME, &each, |agent| {
        let ask = frame(FrameType::NOTIFY.0, 1, 1, b"\x01m\x00");
        let asks: Vec<u8> = ask.iter().copied().cycle().take(ask.len() * 500).collect();
        thread::scope(|scope| {
            for _ in 0..SOME {
                scope.spawn(|| {
                    let mut peer = agent.greeted();
                    // Until the agent's `write_timeout`.
                    while peer.write_all(&asks).is_ok() {}
                });
            }
        });
    });
}

// ------------------------------------------------------------------------------------ the agent

/// For the agent's process: where to listen.
const AGENT: &str = "SPOP_BOUNDS_AGENT";

fn be_an_agent(socket: &Path) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    let text = "x".repeat(1_000);
    let agent = Agent::inline(move |_, ack| {
        ack.set(Scope::Transaction, "text", text.as_str())?;
        Ok(())
    });
    let agent = agent.config(AgentConfig::new().limits(limits()));
    let server = runtime.block_on(agent.bind(format!("unix:{}", socket.display()))).unwrap();
    runtime.spawn(server.run());
    println!("ready");
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

/// The agent's process, seen from outside. Dropped, it is killed.
struct Spawned {
    process: Child,
    socket: PathBuf,
    _directory: Directory,
}

impl Spawned {
    fn start() -> Self {
        let directory = Directory::new().unwrap();
        let socket = directory.path().join("agent");
        let mut process = Command::new(env::current_exe().unwrap())
            .env(AGENT, &socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { process, socket, _directory: directory }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// A connection after the handshake.
    fn greeted(&self) -> UnixStream {
        let mut stream = self.connect();
        stream.write_all(&hello()).unwrap();
        assert_eq!(read_frame(&mut stream)[0], 101, "AGENT-HELLO");
        stream
    }

    /// Runs an attack by that many connections, of which each may use what these limits allow.
    fn within(&self, what: &str, connections: usize, limits: &[usize], attack: impl FnOnce(&Self)) {
        drop(self.greeted());
        let before = self.peak();
        attack(self);
        let measured = self.peak() - before;
        let each = FIXED + 2 * limits.iter().sum::<usize>();
        let bound = PROCESS + connections * each;
        println!(
            "{what}: {connections} connections, {} KiB of at most {} KiB",
            measured / 1024,
            bound / 1024
        );
        assert!(measured <= bound, "{what}: {measured} bytes, and the limits allow {bound}");
        // It still serves.
        drop(self.greeted());
    }

    /// The most memory it ever had, in bytes.
    fn peak(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Waits until it has accepted so many, which its file descriptors tell.
    fn wait_for_connections(&self, count: usize) {
        let directory = format!("/proc/{}/fd", self.process.id());
        wait_until("all connections to be accepted", || {
            Ok((fs::read_dir(&directory)?.count() >= count).then_some(()))
        })
        .unwrap();
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// ------------------------------------------------------------------------------------- the wire

/// That of a HAProxy up to 3.0, whose receive buffer is not paced for.
fn hello() -> Vec<u8> {
    let size = FRAME.try_into().unwrap();
    let config = EngineConfig::new(Dialect::Old).max_frame_size(size).unwrap();
    EngineConnection::new(config, Instant::now()).transmit().to_vec()
}

/// A frame by hand; ids below 240 are one byte.
fn frame(kind: u8, flags: u32, stream: u8, payload: &[u8]) -> Vec<u8> {
    let head = [&[kind][..], &flags.to_be_bytes(), &[stream, 1]].concat();
    let length = u32::try_from(head.len() + payload.len()).unwrap();
    [&length.to_be_bytes()[..], &head, payload].concat()
}

/// A frame of the agent's, without its length.
fn read_frame(from: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    from.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length).try_into().unwrap()];
    from.read_exact(&mut frame).unwrap();
    frame
}

/// Until the agent has hung up.
fn until_closed(stream: &mut UnixStream) {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

// ----------------------------------------------------------------------------- file descriptors

/// Set in the process that may have as many as the system allows.
const RAISED: &str = "SPOP_BOUNDS_RAISED";

/// The same again, with the soft limit raised to the hard one: `std` cannot, the shell can.
fn with_all_descriptors() -> ExitCode {
    let status = Command::new("/bin/sh")
        .args(["-c", "ulimit -n \"$(ulimit -H -n)\"; exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(env::args_os().skip(1))
        .env(RAISED, "yes")
        .status()
        .unwrap();
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let soft = line.split_whitespace().next().unwrap();
    soft.parse().unwrap_or(usize::MAX)
}
