//! A burst of connections waits for the agent, and not for a second try of the peer's system.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use spop_blocking::Agent;

/// Far more than the 128 that `std` asks for, and less than the descriptors that a process may have.
const BURST: usize = 400;

#[test]
fn a_burst_waits_in_the_backlog() {
    let server = Agent::inline(|_, _| Ok(())).bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = server.local_addr().to_string().parse().unwrap();
    // Nobody accepts. A connection that does not fit is tried again after one second, and then two.
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
    let waiting: Vec<TcpStream> = (0..BURST).map(connect).collect();
    assert_eq!(waiting.len(), BURST);
    drop(server);
}
