//! What is held back when a connection ends, or its buffers are exchanged.

use spop_proto::{AgentConfig, CloseReason, Status};

use crate::pair::*;

/// The goodbye comes after what is held back, and a drain waits for both.
#[test]
fn a_drain_sends_what_is_held_back() {
    let mut pair = Pair::new(AgentConfig::new(), haproxy());
    pair.ask_and_answer(20, 1_500);
    pair.agent.shutdown(pair.now);
    assert_eq!(pair.agent.close_reason(), Some(&CloseReason::Drained));
    pair.write();
    assert!(!pair.agent.interest().write && !pair.agent.interest().done);
    pair.pass(ms(150));
    assert_eq!((pair.waits.len(), pair.failed), (20, 0));
    let goodbye = matches!(
        pair.engine.close_reason(),
        Some(spop_proto::EngineCloseReason::Agent { status: Status::NORMAL, .. })
    );
    assert!(goodbye, "{:?}", pair.engine.close_reason());
}

/// Nobody's buffer can be filled once the peer is gone: nothing waits any more.
#[test]
fn a_peer_that_is_gone_gets_the_rest_at_once() {
    let mut pair = Pair::new(AgentConfig::new(), haproxy());
    pair.ask_and_answer(20, 1_500);
    pair.agent.peer_closed(pair.now);
    assert!(pair.agent.transmit().len() > 29_000);
    pair.write();
    assert!(pair.agent.interest().done);
}

/// With buffers that are passed by value.
#[test]
fn what_is_held_back_stays_when_buffers_are_exchanged() {
    let mut pair = Pair::new(AgentConfig::new(), haproxy());
    pair.ask_and_answer(20, 1_500);
    let (mut taken, mut sizes) = (Vec::new(), Vec::new());
    loop {
        pair.agent.swap_output(&mut taken);
        sizes.push(taken.len());
        pair.socket.append(&mut taken);
        pair.exchange();
        let Some(deadline) = pair.agent.interest().deadline else { break };
        if pair.waits.len() == 20 {
            break;
        }
        pair.now = deadline;
        pair.agent.handle_timeout(pair.now).unwrap();
    }
    assert_eq!(sizes.len(), 2, "{sizes:?}");
    assert!(sizes.iter().all(|&size| size < 16_384), "{sizes:?}");
    assert_eq!(pair.waits.len(), 20);
}
