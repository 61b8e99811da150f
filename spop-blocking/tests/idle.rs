//! What idle connections cost, read off the process: one thread each, whose stack and read buffer are touched only where they are used.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

#[path = "../../spop-proto/tests/common/idle.rs"]
mod idle;

use spop_blocking::Agent;

/// Bytes for each.
const MOST: u64 = 48 * 1024;

#[test]
fn idle_connections() {
    let server = Agent::inline(|_, _| Ok(())).bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().socket_addr().unwrap();
    let stop = server.stop_handle();
    let running = std::thread::spawn(move || server.run().unwrap());
    let cost = idle::measure(address);
    assert_eq!(cost.threads, idle::CONNECTIONS);
    assert!(cost.bytes < MOST, "{} bytes", cost.bytes);
    stop.stop();
    running.join().unwrap();
}
