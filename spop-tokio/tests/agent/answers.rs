//! Handlers, and what becomes of them.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use spop_proto::Dialect::{New, Old};
use spop_proto::EngineConfig;
use spop_proto::wire::NotifyPayload;
use spop_tokio::{Agent, Limits, Peer, Scope};
use tokio::io::duplex;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::common::{Engine, Told, payload};
use crate::support::{FALLBACK, fallback, ready, start};

#[tokio::test]
async fn answers_inline_for_both_generations() {
    let (address, stop, running) = start(Agent::inline(|notify, ack| {
        let number: i64 = notify.require("double")?.get("number")?;
        ack.set(Scope::Transaction, "number", number * 2)?;
        Ok(())
    }))
    .await;
    for dialect in [Old, New] {
        let mut engine = ready(address, dialect).await;
        for number in 0..100 {
            let expected = format!("set-var txn.number int64:{}", number * 2);
            assert_eq!(engine.ask(&payload("double", number)).await, [expected]);
        }
    }
    drop(stop);
    let report = running.await.unwrap();
    assert_eq!(report.stats.answered, 200);
    assert_eq!(report.connections, 2);
}

#[tokio::test]
async fn a_slow_answer_holds_up_no_other_and_all_come_in_any_order() {
    let (release, released) = mpsc::unbounded_channel::<i64>();
    let waiting = Arc::new(tokio::sync::Mutex::new(released));
    // Each request waits for its turn: a number is let go only when it is named.
    let turn = Arc::new(tokio::sync::watch::Sender::new(i64::MAX));
    let watched = Arc::clone(&turn);
    let (address, stop, running) = start(Agent::concurrent(move |mut x| {
        let mut turn = watched.subscribe();
        async move {
            let number: i64 = x.require("m")?.get("number")?;
            turn.wait_for(|turn| *turn == number).await?;
            x.set(Scope::Transaction, "number", number)?;
            Ok(x)
        }
    }))
    .await;
    let mut engine = ready(address, New).await;
    let ids: Vec<_> = (0..20).map(|n| engine.notify(&payload("m", n)).unwrap()).collect();
    engine.flush().await;
    for number in (0..20).rev() {
        turn.send_replace(number);
        let told = engine.next().await.unwrap();
        let expected = vec![format!("set-var txn.number int64:{number}")];
        assert_eq!(told, Told::Ack(ids[usize::try_from(number).unwrap()], expected));
    }
    drop((stop, release, waiting));
    assert_eq!(running.await.unwrap().stats.answered, 20);
}

#[tokio::test]
async fn failing_handlers_cost_their_own_request_only() {
    let inline = Agent::inline(|notify, ack| {
        ack.set(Scope::Transaction, "half", 1)?;
        match notify.require("m")?.get::<i64>("number")? {
            0 => Err(io::Error::other("on purpose").into()),
            1 => panic!("on purpose"),
            _ => Ok(()),
        }
    });
    let concurrent = Agent::concurrent(|mut x| async move {
        x.set(Scope::Transaction, "half", 1)?;
        let number = x.require("m")?.get::<i64>("number")?;
        if number < 10 {
            tokio::task::yield_now().await;
        }
        match number % 10 {
            0 => Err(io::Error::other("on purpose").into()),
            1 => panic!("on purpose"),
            _ => Ok(x),
        }
    });
    let (address, stop, running) = start(inline.config(fallback())).await;
    let mut engine = ready(address, New).await;
    for number in [0, 1] {
        assert_eq!(engine.ask(&payload("m", number)).await, FALLBACK);
    }
    assert_eq!(engine.ask(&payload("m", 2)).await, ["set-var txn.half int32:1"]);
    drop(stop);
    let report = running.await.unwrap();
    assert_eq!((report.stats.errors, report.stats.panics, report.stats.answered), (1, 1, 1));

    let (address, stop, running) = start(concurrent.config(fallback())).await;
    let mut engine = ready(address, New).await;
    // Below 10 the future waits once before it fails, from 10 on it fails when first polled.
    for number in [0, 1, 10, 11] {
        assert_eq!(engine.ask(&payload("m", number)).await, FALLBACK);
    }
    assert_eq!(engine.ask(&payload("m", 2)).await, ["set-var txn.half int32:1"]);
    drop(stop);
    let report = running.await.unwrap();
    assert_eq!((report.stats.errors, report.stats.panics, report.stats.answered), (2, 2, 1));
}

/// Counts the futures that were dropped before they were done.
struct Cancelled(Arc<AtomicUsize>, Option<oneshot::Sender<()>>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        if let Some(tell) = self.1.take() {
            let _ = tell.send(());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_replaced_by_the_fallback_and_its_future_dropped() {
    let cancelled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&cancelled);
    let limits = Limits::new().answer_timeout(Duration::from_millis(80)).unwrap();
    let agent = Agent::concurrent(move |x| {
        let guard = Cancelled(Arc::clone(&counter), None);
        async move {
            pending::<()>().await;
            drop(guard);
            Ok(x)
        }
    });
    let agent = agent.config(fallback().limits(limits));
    let (ours, theirs) = duplex(64 * 1024);
    let serving = tokio::spawn(async move { agent.serve_connection(theirs, Peer::Unknown).await });
    let mut engine = Engine::ready(ours, New).await;
    let before = tokio::time::Instant::now();
    assert_eq!(engine.ask(&payload("m", 1)).await, FALLBACK);
    let waited = before.elapsed();
    assert!((80..90).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(cancelled.load(Ordering::SeqCst), 1);
    drop(engine);
    assert_eq!(serving.await.unwrap().stats.deadlines, 1);
}

#[tokio::test]
async fn a_closed_connection_cancels_its_handlers() {
    let cancelled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&cancelled);
    let (told, dropped) = oneshot::channel();
    let told = std::sync::Mutex::new(Some(told));
    let agent = Agent::concurrent(move |x| {
        let guard = Cancelled(Arc::clone(&counter), told.lock().unwrap().take());
        async move {
            pending::<()>().await;
            drop(guard);
            Ok(x)
        }
    });
    let (address, stop, running) = start(agent).await;
    let mut engine = ready(address, New).await;
    engine.notify(&payload("m", 1)).unwrap();
    engine.flush().await;
    drop(engine);
    dropped.await.unwrap();
    assert_eq!(cancelled.load(Ordering::SeqCst), 1);
    drop(stop);
    assert_eq!(running.await.unwrap().stats.abandoned, 1);
}

#[tokio::test]
async fn a_payload_in_fragments_arrives_whole() {
    let (address, stop, running) = start(Agent::inline(|notify, ack| {
        let body: &[u8] = notify.require("body")?.get("body")?;
        ack.set(Scope::Transaction, "length", u32::try_from(body.len())?)?;
        Ok(())
    }))
    .await;
    let stream = TcpStream::connect(address).await.unwrap();
    let config = EngineConfig::new(Old).max_frame_size(256).unwrap();
    let mut engine = Engine::new(stream, config);
    assert!(matches!(engine.next().await, Some(Told::Hello { .. })));
    let body = vec![b'B'; 100_000];
    let answer = engine.ask(&NotifyPayload::new("body").arg("body", &body)).await;
    assert_eq!(answer, ["set-var txn.length uint32:100000"]);
    drop((engine, stop));
    running.await.unwrap();
}
