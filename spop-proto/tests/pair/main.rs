//! Role against role: an agent and HAProxy's side, both of this crate, under random scripts and a
//! clock that only the test moves.
//!
//! - `setup`: how both are configured, and what happens; `both_sides`: both, and the bytes between them
//! - `reads`: where reads end is not to be seen

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from")]

mod both_sides;
mod reads;
mod setup;

use std::time::Instant;

use proptest::prelude::*;
use spop_proto::{
    AgentConfig, AgentConnection, Dialect, EngineConfig, EngineConnection, EngineEvent, Event,
    HealthState, Peer,
};

use crate::both_sides::Pair;
use crate::setup::{config, setups, steps};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_notify_ends_once(setup in setups(), script in prop::collection::vec(steps(), 0..80)) {
        let mut pair = Pair::new(setup);
        pair.check();
        for step in &script {
            pair.step(step);
        }
        pair.settle();
        prop_assert_eq!(pair.haproxy.in_flight(), 0);
        prop_assert_eq!(pair.asked.len(), pair.ended.len());
        // Both sides leave, and come to an end.
        pair.haproxy.shutdown(pair.now);
        pair.agent.shutdown(pair.now);
        for _ in 0..100 {
            pair.settle();
        }
        pair.check();
        prop_assert!(pair.haproxy.interest().done, "{:?}", pair.haproxy.interest());
        prop_assert!(pair.agent.interest().done, "{:?}", pair.agent.interest());
    }
}

#[test]
fn health_checks() {
    let now = Instant::now();
    for (dialect, refused) in [
        (Dialect::Old, "an unknown error occurred"),
        // A slip of HAProxy's: it reads no AGENT-DISCONNECT there.
        (Dialect::New, "version value not found"),
    ] {
        for ready in [true, false] {
            let config = AgentConfig::new();
            if !ready {
                config.health().set(HealthState::NotReady);
            }
            let mut agent = AgentConnection::new(config, Peer::Unknown, now);
            let check = EngineConfig::new(dialect).health_check();
            let mut haproxy = EngineConnection::new(check, now);
            let mut wire = Vec::new();
            haproxy.swap_output(&mut wire);
            let event = agent.receive(&mut &wire[..], now);
            assert!(matches!(event, Ok(Some(Event::HealthCheck { healthy })) if healthy == ready));
            drop(event);
            agent.swap_output(&mut wire);
            match haproxy.receive(&mut &wire[..], now) {
                Ok(Some(EngineEvent::HealthCheck(Ok(())))) => assert!(ready),
                Ok(Some(EngineEvent::HealthCheck(Err(failure)))) => {
                    assert!(!ready);
                    assert_eq!(failure.to_string(), refused);
                }
                other => panic!("{other:?}"),
            }
            assert!(haproxy.interest().done);
            agent.peer_closed(now);
            assert!(agent.interest().done);
        }
    }
}
