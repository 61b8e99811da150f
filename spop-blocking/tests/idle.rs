//! What idle connections cost, read off the process: one thread each, whose stack and read buffer are touched only where they are used.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use spop_blocking::Agent;
use spop_proto::wire::{Frame, FrameHeader, FrameType, HaproxyHello};

const CONNECTIONS: u64 = 400;
/// Bytes for each, beyond what the others have already made the process touch.
const MOST: u64 = 48 * 1024;

/// A number of `/proc/self/status`.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Shakes hands, and then says nothing more.
fn idle(address: SocketAddr, hello: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(hello).unwrap();
    let mut answer = [0; 200];
    assert!(stream.read(&mut answer).unwrap() > 4);
    assert_eq!(answer[4], 101, "AGENT-HELLO");
    stream
}

#[test]
fn idle_connections() {
    let mut payload = Vec::new();
    HaproxyHello {
        supported_versions: Some(b"2.0"),
        max_frame_size: Some(16380),
        capabilities: Some(b"pipelining"),
        engine_id: Some(b"5c5e1f5a-7c8a-4bd4-9f0d-0d6b7d4e7d0d"),
        healthcheck: false,
    }
    .encode(&mut payload);
    let mut hello = Vec::new();
    let header = FrameHeader::connection(FrameType::HAPROXY_HELLO);
    Frame { header, payload: &payload }.encode(&mut hello);

    let server = Agent::inline(|_, _| Ok(())).bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().socket_addr().unwrap();
    let stop = server.stop_handle();
    let running = std::thread::spawn(move || server.run().unwrap());

    // The first ones pay for what all share.
    let _first: Vec<_> = (0..50).map(|_| idle(address, &hello)).collect();
    let (threads, memory) = (status("Threads:"), status("RssAnon:"));
    let idle: Vec<_> = (0..CONNECTIONS).map(|_| idle(address, &hello)).collect();
    let threads = status("Threads:") - threads;
    let bytes = (status("RssAnon:").saturating_sub(memory)) * 1024 / CONNECTIONS;
    println!("an idle connection: {bytes} bytes; {CONNECTIONS} of them: {threads} threads");
    assert_eq!(threads, CONNECTIONS);
    assert!(bytes < MOST, "{bytes} bytes");
    drop(idle);
    stop.stop();
    running.join().unwrap();
}
