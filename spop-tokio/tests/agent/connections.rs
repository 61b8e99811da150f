//! Health checks, and connections over the limit.

use spop_proto::Dialect::{New, Old};
use spop_proto::EngineConfig;
use spop_tokio::{Agent, HealthState, Limits, Scope};
use tokio::net::TcpStream;

use crate::common::{Engine, Told, payload};
use crate::support::{ready, start};

#[tokio::test]
async fn health_checks_follow_the_switch_while_requests_are_served() {
    let agent = Agent::inline(|_, ack| Ok(ack.set(Scope::Transaction, "ok", true)?));
    let health = agent.health();
    let (address, stop, running) = start(agent).await;
    for dialect in [Old, New] {
        for (state, well) in [(HealthState::Ready, true), (HealthState::NotReady, false)] {
            health.set(state);
            let stream = TcpStream::connect(address).await.unwrap();
            let config = EngineConfig::new(dialect).health_check();
            let told = Engine::new(stream, config).next().await;
            match told {
                Some(Told::Check(result)) => assert_eq!(result.is_ok(), well, "{result:?}"),
                other => panic!("{other:?}"),
            }
            let mut engine = ready(address, dialect).await;
            assert_eq!(engine.ask(&payload("m", 1)).await, ["set-var txn.ok bool:true"]);
        }
    }
    drop(stop);
    let report = running.await.unwrap();
    assert_eq!(report.health_checks, 4);
    assert_eq!(report.stats.answered, 4);
}

#[tokio::test]
async fn over_the_limit_health_checks_are_answered_and_the_rest_turned_away() {
    let limits = Limits::new().connections(1.try_into().unwrap());
    let (address, stop, running) = start(Agent::inline(|_, _| Ok(())).limits(limits)).await;
    let mut first = ready(address, New).await;
    let check = EngineConfig::new(New).health_check();
    let mut second = Engine::new(TcpStream::connect(address).await.unwrap(), check);
    assert_eq!(second.next().await, Some(Told::Check(Ok(()))));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut third = Engine::new(stream, EngineConfig::new(New));
    assert_eq!(third.next().await, None, "closed without a word");
    assert_eq!(first.ask(&payload("m", 1)).await, Vec::<String>::new());
    drop(first);
    drop(stop);
    let report = running.await.unwrap();
    assert_eq!((report.connections, report.refused, report.health_checks), (3, 1, 1));
}

/// HAProxy <= 3.0 comes back at once, hundreds of times a second: those that are turned away must
/// not keep the seats taken.
#[tokio::test]
async fn a_storm_of_refused_connections_takes_no_seat() {
    let limits = Limits::new().connections(1.try_into().unwrap());
    let (address, stop, running) = start(Agent::inline(|_, _| Ok(())).limits(limits)).await;
    let first = ready(address, New).await;
    let mut refused = Vec::new();
    for _ in 0..10 {
        let stream = TcpStream::connect(address).await.unwrap();
        refused.push(Engine::new(stream, EngineConfig::new(New)));
    }
    drop(first);
    // The refused ones are still there, and the seat is free: somebody gets it.
    loop {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut next = Engine::new(stream, EngineConfig::new(New));
        if matches!(next.next().await, Some(Told::Hello { .. })) {
            break;
        }
    }
    drop((refused, stop));
    running.await.unwrap();
}
