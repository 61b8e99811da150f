//! What an agent counts goes to the recorder of the `metrics` facade: for adapters whose time does not
//! stand still.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use spop_proto::Report;

use crate::recorder::Recorded;

/// While the agent at that address runs, and at its end. It has to publish to `recorded`.
pub(crate) fn while_it_runs_and_at_the_end(
    recorded: &Recorded,
    agent: SocketAddr,
    stop: impl FnOnce() -> Report,
) {
    // Not SPOP: as good as anything else to be counted.
    let connect = || TcpStream::connect(agent).unwrap().write_all(b"GET / HTTP/1.1\r\n").unwrap();
    connect();
    let seen = || recorded.counter("spop_agent_connections_total{dialect=not_spop}");
    let end = Instant::now() + Duration::from_secs(20);
    while seen() != Some(1) {
        assert!(Instant::now() < end, "not published: {:?}", seen());
        thread::sleep(Duration::from_millis(10));
    }
    connect();
    let report = stop();
    assert_eq!(seen(), Some(report.protocol_errors), "all of it at the end");
    assert!(recorded.gauge("spop_agent_connections").unwrap().abs() < 0.1);
}
