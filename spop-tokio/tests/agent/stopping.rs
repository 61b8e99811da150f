//! A stop: what is owed, the drain deadline, the time as a lame duck.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use spop_proto::Dialect::{New, Old};
use spop_proto::EngineConfig;
use spop_tokio::{Agent, AgentConfig, CloseReason, Limits, Peer, Scope};
use tokio::io::{AsyncReadExt, duplex};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::common::{Engine, Told, payload};
use crate::support::{ready, start};

#[tokio::test]
async fn a_stop_sends_what_is_owed_and_says_goodbye() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let agent = Agent::concurrent(move |mut x| {
        let gate = Arc::clone(&opened);
        async move {
            gate.acquire().await?.forget();
            x.set(Scope::Transaction, "late", true)?;
            Ok(x)
        }
    });
    let (address, stop, running) = start(agent).await;
    let connect = || TcpStream::connect(address);
    let mut fresh = connect().await.unwrap();
    let mut idle = Engine::ready(connect().await.unwrap(), Old).await;
    let mut busy = Engine::ready(connect().await.unwrap(), Old).await;
    let id = busy.notify(&payload("m", 1)).unwrap();
    busy.flush().await;
    // A second request on the same connection shows that the first has arrived.
    gate.add_permits(1);
    let second = busy.notify(&payload("m", 2)).unwrap();
    let first_answer = busy.next().await.unwrap();
    drop(stop);
    assert_eq!(idle.next().await, Some(Told::Goodbye(0)));
    assert_eq!(idle.next().await, None);
    assert_eq!(fresh.read(&mut [0; 10]).await.unwrap(), 0, "left without a word");
    gate.add_permits(1);
    let second_answer = busy.next().await.unwrap();
    let answered: Vec<_> = [first_answer, second_answer]
        .into_iter()
        .map(|told| match told {
            Told::Ack(id, actions) => (id, actions),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(answered.iter().any(|(done, _)| *done == id));
    assert!(answered.iter().any(|(done, _)| *done == second));
    assert_eq!(busy.next().await, Some(Told::Goodbye(0)));
    drop((busy, idle));
    let report = running.await.unwrap();
    assert_eq!((report.drained, report.cut, report.stats.answered), (3, 0, 2));
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(start_paused = true)]
async fn past_the_drain_deadline_the_rest_is_cut() {
    let agent = Agent::concurrent(|x| async move {
        pending::<()>().await;
        Ok(x)
    });
    let limits = Limits::new()
        .drain_timeout(Duration::from_secs(5))
        .and_then(|limits| limits.answer_timeout(Duration::from_secs(60)))
        .unwrap();
    let agent = agent.limits(limits);
    let (ours, theirs) = duplex(64 * 1024);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        agent.serve_connection_until(theirs, Peer::Unknown, stopped).await
    });
    let mut engine = Engine::ready(ours, Old).await;
    let id = engine.notify(&payload("m", 1)).unwrap();
    engine.flush().await;
    drop(stop);
    let before = tokio::time::Instant::now();
    assert_eq!(engine.next().await, Some(Told::Goodbye(0)));
    assert_eq!(before.elapsed().as_secs(), 5);
    assert!(matches!(engine.next().await, Some(Told::Failed(failed, _)) if failed == id));
    drop(engine);
    let closed = serving.await.unwrap();
    assert_eq!(closed.reason, CloseReason::Cut { owed: 1 });
    assert_eq!(closed.stats.abandoned, 1);
}

#[tokio::test]
async fn before_it_leaves_a_lame_duck_still_serves() {
    let config = AgentConfig::new();
    let agent = Agent::inline(|_, _| Ok(())).config(config.clone());
    let (address, stop, running) = start(agent.lame_duck(Duration::from_secs(1))).await;
    // Another server with the same configuration, which is not told to stop.
    let (other, stop_other, other_running) =
        start(Agent::inline(|_, _| Ok(())).config(config)).await;
    let check = |address| async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let told = Engine::new(stream, EngineConfig::new(New).health_check()).next().await;
        matches!(told, Some(Told::Check(Ok(()))))
    };
    let mut engine = ready(address, New).await;
    assert!(check(address).await);
    drop(stop);
    while check(address).await {
        tokio::task::yield_now().await;
    }
    assert!(check(other).await, "one server's end is not another's");
    drop(stop_other);
    other_running.await.unwrap();
    let mut late = ready(address, New).await;
    late.ask(&payload("m", 1)).await;
    engine.ask(&payload("m", 1)).await;
    assert_eq!(engine.next().await, Some(Told::Goodbye(0)));
    drop((engine, late));
    assert_eq!(running.await.unwrap().stats.answered, 2);
}
