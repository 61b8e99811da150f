//! What the agent counts goes to the recorder of the `metrics` facade, while it runs and at the end.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

#[path = "../../spop-proto/tests/common/recorder.rs"]
mod recorder;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use async_std::channel::bounded;
use async_std::task;
use recorder::Recorded;
use spop_asyncstd::Agent;

/// Not SPOP: as good as anything else to be counted.
#[test]
fn while_it_runs_and_at_the_end() {
    let recorded = Recorded::default();
    metrics::set_global_recorder(recorded.clone()).unwrap();
    let server = task::block_on(Agent::inline(|_, _| Ok(())).bind("127.0.0.1:0")).unwrap();
    let address = server.local_addr().socket_addr().unwrap();
    let (stop, stopped) = bounded::<()>(1);
    let running = task::spawn(server.run_until(async move { _ = stopped.recv().await }));
    let connect = || TcpStream::connect(address).unwrap().write_all(b"GET / HTTP/1.1\r\n").unwrap();
    connect();
    let seen = || recorded.counter("spop_agent_connections_total{dialect=not_spop}");
    let end = Instant::now() + Duration::from_secs(20);
    while seen() != Some(1) {
        assert!(Instant::now() < end, "not published: {:?}", seen());
        std::thread::sleep(Duration::from_millis(10));
    }
    connect();
    drop(stop);
    let report = task::block_on(running);
    assert_eq!(seen(), Some(report.protocol_errors), "all of it at the end");
    assert!(recorded.gauge("spop_agent_connections").unwrap().abs() < 0.1);
}
