//! What idle connections cost, read off the process: no thread, and a task of a few kilobytes with what async-std keeps for a socket.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "tests")]

#[path = "../../spop-proto/tests/common/idle.rs"]
mod idle;

use spop_asyncstd::Agent;

/// Bytes for each.
const MOST: u64 = 4 * 1024;

#[test]
fn idle_connections() {
    let server = Agent::inline(|_, _| Ok(())).bind("127.0.0.1:0");
    let server = async_std::task::block_on(server).unwrap();
    let address = server.local_addr().socket_addr().unwrap();
    let running = async_std::task::spawn(server.run());
    let cost = idle::measure(address);
    assert_eq!(cost.threads, 0);
    assert!(cost.bytes < MOST, "{} bytes", cost.bytes);
    async_std::task::block_on(running.cancel());
}
