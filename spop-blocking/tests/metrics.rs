//! What the agent counts goes to the recorder of the `metrics` facade, while it runs and at the end.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../../spop-proto/tests/common/recorder.rs"]
mod recorder;

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use recorder::Recorded;
use spop_blocking::Agent;

/// Not SPOP: as good as anything else to be counted.
#[test]
fn while_it_runs_and_at_the_end() {
    let recorded = Recorded::default();
    metrics::set_global_recorder(recorded.clone()).unwrap();
    let server = Agent::inline(|_, _| Ok(())).bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().socket_addr().unwrap();
    let stop = server.stop_handle();
    let running = thread::spawn(move || server.run().unwrap());
    let connect = || TcpStream::connect(address).unwrap().write_all(b"GET / HTTP/1.1\r\n").unwrap();
    connect();
    let seen = || recorded.counter("spop_agent_connections_total{dialect=not_spop}");
    let end = Instant::now() + Duration::from_secs(20);
    while seen() != Some(1) {
        assert!(Instant::now() < end, "not published: {:?}", seen());
        thread::sleep(Duration::from_millis(10));
    }
    connect();
    stop.stop();
    let report = running.join().unwrap();
    assert_eq!(seen(), Some(report.protocol_errors), "all of it at the end");
    assert!(recorded.gauge("spop_agent_connections").unwrap().abs() < 0.1);
}
