//! Many answers at once: those that would fill the buffer wait, and no others.

use spop_proto::{AgentConfig, Dialect, EngineConfig, NotifyError, Pacing, Scope};

use crate::pair::*;

/// What a real HAProxy 3.2 and 3.4 does, too: 810 bytes work and 850 do not.
#[test]
fn without_pacing_twenty_answers_can_stop_a_connection() {
    for (size, wedged) in [(400, false), (810, false), (850, true), (1_500, true)] {
        let pair = burst(AgentConfig::new().pacing(None), size);
        assert_eq!(pair.engine.is_wedged(), wedged, "{size}");
        assert_eq!(pair.waits.len(), if wedged { 0 } else { 20 }, "{size}");
        assert_eq!(pair.stats().held, 0);
    }
}

#[test]
fn twenty_large_answers_and_then_silence() {
    for (size, held, slowest) in
        [(256, 0, 0), (810, 0, 0), (850, 1, 100), (1_500, 10, 100), (3_000, 15, 300)]
    {
        let mut pair = burst(AgentConfig::new(), size);
        assert!(!pair.engine.is_wedged(), "{size}");
        assert_eq!(pair.waits.len(), 20, "{size}");
        assert_eq!(pair.slowest(), ms(slowest), "{size}");
        assert_eq!(pair.stats().held, held, "{size}");
        // And the connection still works.
        pair.ask_and_answer(1, size);
        pair.pass(ms(1));
        assert_eq!((pair.waits.len(), pair.failed), (21, 0), "{size}");
        assert!(pair.waits[20] <= ms(1), "{:?}", pair.waits[20]);
    }
}

/// One that fills the buffer cannot be made; one byte less works.
#[test]
fn the_largest_answer() {
    let mut pair = Pair::new(AgentConfig::new(), haproxy());
    pair.ask_and_answer(1, 16_383);
    let largest = pair.agent.transmit().len();
    pair.pass(ms(1));
    assert_eq!((largest, pair.waits.len(), pair.stats().held), (16_383, 1, 0));
    assert_eq!(pair.stats().too_big, 0);

    pair.ask(100).unwrap();
    pair.exchange();
    let (_, ticket) = pair.tickets.pop().unwrap();
    let mut ack = pair.agent.answer(ticket, pair.now).unwrap();
    assert!(ack.set(Scope::Transaction, "v", value_for(16_384).as_str()).is_err());
}

/// With its size declared the agent does not pipeline, HAProxy asks one thing at a time on each
/// connection, and no answer waits however fast they follow each other.
#[test]
fn declared_answers_do_not_wait() {
    for size in [8_000, 16_379] {
        let config = AgentConfig::new().expected_ack_size(u32::try_from(size).unwrap());
        let mut pair = Pair::new(config, haproxy());
        assert!(pair.agent.info().capabilities().as_str() == "fragmentation");
        for _ in 0..100 {
            pair.ask(size).unwrap();
            assert_eq!(pair.ask(size), Err(NotifyError::Window));
            pair.exchange();
            pair.answer();
            pair.exchange();
        }
        assert_eq!((pair.waits.len(), pair.slowest(), pair.stats().held), (100, ms(0), 0));
        assert!(!pair.engine.is_wedged());
    }
}

/// Before it has read AGENT-HELLO, HAProxy sends 20 NOTIFYs to an agent that does not pipeline, too.
#[test]
fn a_burst_on_a_new_connection_without_pipelining() {
    let config = AgentConfig::new().expected_ack_size(3_000);
    let mut pair = Pair::before_hello(config, haproxy());
    pair.ask_and_answer(20, 3_000);
    pair.pass(ms(990));
    assert!(!pair.engine.is_wedged());
    assert_eq!((pair.waits.len(), pair.slowest()), (20, ms(300)));
}

#[test]
fn which_buffer_is_meant() {
    let announced = |config: AgentConfig, offered: u32| {
        let engine = EngineConfig::new(Dialect::New).max_frame_size(offered).unwrap();
        let pair = Pair::new(config, engine);
        pair.agent.info().capabilities().as_str().contains("pipelining")
    };
    let bufsize = |bytes: u32| Some(Pacing::new().bufsize(bytes.try_into().unwrap()));
    // 40 * (405 + 4) = 16 360, 40 * (406 + 4) = 16 400.
    assert!(announced(AgentConfig::new().expected_ack_size(405), 16_380));
    assert!(!announced(AgentConfig::new().expected_ack_size(406), 16_380));
    assert!(announced(AgentConfig::new().expected_ack_size(406).pacing(None), 16_380));
    // `max-frame-size` says little about `tune.bufsize`: the default is assumed...
    assert!(announced(AgentConfig::new().expected_ack_size(405), 1_024));
    // ... but it cannot be less than the frame size, and the operator may know better.
    assert!(announced(AgentConfig::new().expected_ack_size(800), 32_764));
    assert!(!announced(AgentConfig::new().expected_ack_size(406).pacing(bufsize(16_384)), 32_764));
    assert!(!announced(AgentConfig::new().pacing(bufsize(8_192)), 1_024));
}

/// HAProxy <= 3.0 has no such buffer, and says so by offering `async`.
#[test]
fn older_haproxies_get_everything_at_once() {
    let config = AgentConfig::new().expected_ack_size(10_000);
    let mut pair = Pair::new(config, EngineConfig::new(Dialect::Old));
    assert_eq!(pair.agent.info().capabilities().as_str(), "pipelining,fragmentation");
    pair.ask_and_answer(20, 3_000);
    pair.exchange();
    assert_eq!((pair.waits.len(), pair.slowest(), pair.stats().held), (20, ms(0), 0));
}
