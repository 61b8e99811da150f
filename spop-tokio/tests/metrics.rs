//! What the agent counts goes to the recorder of the `metrics` facade, once a second and at the end.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

#[allow(dead_code, reason = "the other tests use the rest")]
mod common;
#[path = "../../spop-proto/tests/common/recorder.rs"]
mod recorder;

use std::time::Duration;

use common::{Engine, payload};
use recorder::Recorded;
use spop_proto::Dialect::New;
use spop_tokio::Agent;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Stopped time: it moves on when all wait.
#[test]
fn once_a_second_and_at_the_end() {
    let recorded = Recorded::default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    metrics::with_local_recorder(&recorded, || {
        runtime.unwrap().block_on(async {
            let server = Agent::inline(|_, _| Ok(())).bind("127.0.0.1:0").await.unwrap();
            let address = server.local_addr().socket_addr().unwrap();
            let (stop, stopped) = oneshot::channel::<()>();
            let running = tokio::spawn(server.run_until(async { _ = stopped.await }));
            let mut engine = Engine::ready(TcpStream::connect(address).await.unwrap(), New).await;
            engine.ask(&payload("m", 1)).await;
            let asked = || recorded.counter("spop_agent_notifies_total");
            assert_eq!(asked(), None, "nothing before the first second is over");
            sleep(Duration::from_millis(1010)).await;
            assert_eq!(asked(), Some(1));
            assert!((recorded.gauge("spop_agent_connections").unwrap() - 1.0).abs() < 0.1);
            engine.ask(&payload("m", 2)).await;
            engine.ask(&payload("m", 3)).await;
            assert_eq!(asked(), Some(1));
            sleep(Duration::from_millis(1010)).await;
            assert_eq!(asked(), Some(3));
            engine.ask(&payload("m", 4)).await;
            drop(engine);
            drop(stop);
            running.await.unwrap();
            assert_eq!(asked(), Some(4));
            assert!(recorded.gauge("spop_agent_connections").unwrap().abs() < 0.1);
        });
    });
}
