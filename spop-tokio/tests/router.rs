//! A router under tokio: real timers, and a connection.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]

use std::time::Duration;

use spop_proto::handler::Mixed;
use spop_tokio::spop_proto::wire::NotifyPayload;
use spop_tokio::spop_proto::{Dialect, EngineConfig, EngineConnection, EngineEvent};
use spop_tokio::{Action, Agent, ConfigError, HandlerError, Peer, Router, Scope, testing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TXN: Scope = Scope::Transaction;

fn router() -> Result<Router<Mixed>, ConfigError> {
    Router::new()
        .on("quick", |_, ack| Ok(ack.set(TXN, "quick", true)?))
        .concurrent("slow", |mut x| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if x.require("slow")?.get::<Option<bool>>("fail")? == Some(true) {
                return Err(HandlerError::new("nobody home"));
            }
            x.set(TXN, "slow", true)?;
            Ok(x)
        })
        .fallback([Action::set(TXN, "slow", false)])
}

#[tokio::test(start_paused = true)]
async fn a_question_is_awaited_in_its_runtime() {
    let question = testing::message("slow").message("quick");
    let answer = question.ask_async(&router().unwrap()).await;
    assert_eq!(answer.to_string(), "txn.slow = bool true\ntxn.quick = bool true\n");
    let question = testing::message("slow").arg("fail", true).message("quick");
    let answer = question.ask_async(&router().unwrap()).await;
    assert_eq!(
        answer.to_string(),
        "txn.slow = bool false\ntxn.quick = bool true\nerror: nobody home\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_router_serves_a_connection() {
    let now = std::time::Instant::now();
    let mut haproxy = EngineConnection::new(EngineConfig::new(Dialect::New), now);
    let payload = NotifyPayload::new("slow").arg("fail", true).message("quick");
    haproxy.notify(payload.as_bytes().unwrap(), now).unwrap();
    let (mut near, far) = tokio::io::duplex(4096);
    let serving = tokio::spawn(async move {
        Agent::with(router().unwrap()).serve_connection(far, Peer::Unknown).await
    });
    let mut said = Vec::new();
    let mut scratch = vec![0; 4096];
    while said.is_empty() {
        let mut wire = Vec::new();
        haproxy.swap_output(&mut wire);
        near.write_all(&wire).await.unwrap();
        let read = near.read(&mut scratch).await.unwrap();
        assert_ne!(read, 0, "closed");
        let mut input = scratch.get(..read).unwrap();
        while let Some(event) = haproxy.receive(&mut input, now).unwrap() {
            if let EngineEvent::Ack { actions, .. } = event {
                said = actions.map(|action| action.unwrap().to_string()).collect();
            }
        }
    }
    assert_eq!(said, ["set-var txn.slow bool:false", "set-var txn.quick bool:true"]);
    drop(near);
    let stats = serving.await.unwrap().stats;
    assert_eq!((stats.errors, stats.answered), (1, 0));
}
