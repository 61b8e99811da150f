//! What idle connections cost the process they are connections of: for adapters, read off `/proc`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use spop_proto::{Dialect, EngineConfig, EngineConnection};

pub(crate) const CONNECTIONS: u64 = 400;

/// What the connections cost together.
pub(crate) struct Cost {
    pub(crate) threads: u64,
    /// For each, beyond what the others have already made the process touch.
    pub(crate) bytes: u64,
}

/// Has [`CONNECTIONS`] idle ones to the agent of this process.
pub(crate) fn measure(agent: SocketAddr) -> Cost {
    let haproxy = EngineConnection::new(EngineConfig::new(Dialect::New), Instant::now());
    let idle = |_| idle(agent, haproxy.transmit());
    // The first ones pay for what all share.
    let _first: Vec<_> = (0..50).map(idle).collect();
    let (threads, memory) = (status("Threads:"), status("RssAnon:"));
    let _idle: Vec<_> = (0..CONNECTIONS).map(idle).collect();
    let threads = status("Threads:") - threads;
    let bytes = (status("RssAnon:").saturating_sub(memory)) * 1024 / CONNECTIONS;
    println!("an idle connection: {bytes} bytes; {CONNECTIONS} of them: {threads} threads");
    Cost { threads, bytes }
}

/// A number of `/proc/self/status`.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Shakes hands, and then says nothing more.
fn idle(agent: SocketAddr, hello: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(agent).unwrap();
    stream.write_all(hello).unwrap();
    let mut answer = [0; 200];
    assert!(stream.read(&mut answer).unwrap() > 4);
    assert_eq!(answer[4], 101, "AGENT-HELLO");
    stream
}
