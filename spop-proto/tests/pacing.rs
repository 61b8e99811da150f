//! Answers never fill the receive buffer of HAProxy >= 3.1: an agent and an engine that stops when its
//! buffer is full, between them a socket, on a virtual clock.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "the same first lines in every test of the crate")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use spop_proto::wire::NotifyPayload;
use spop_proto::{
    AgentConfig, AgentConnection, CloseReason, ConnectionStats, Dialect, EngineConfig,
    EngineConnection, EngineEvent, Event, NotifyError, NotifyId, Pacing, Peer, Scope, Status,
    Ticket,
};

const BUFFER: u32 = 16_384;
/// What an answer with one string has beside that and its length: the frame's own length and header,
/// the action's head, name and type.
const OVERHEAD: usize = 4 + 7 + (3 + 2 + 1);

/// A string that makes an answer of that size.
fn value_for(size: usize) -> String {
    let text = size.saturating_sub(OVERHEAD);
    // The length takes one byte up to 239, two up to 2 287, then three.
    let length = match text {
        0..=240 => 1,
        241..=2_289 => 2,
        _ => 3,
    };
    "x".repeat(text.saturating_sub(length))
}

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// Both sides and the socket from the agent to HAProxy, which takes whatever is written.
struct Pair {
    agent: AgentConnection,
    engine: EngineConnection,
    socket: Vec<u8>,
    now: Instant,
    tickets: Vec<(usize, Ticket)>,
    /// When each NOTIFY was asked, and when it was answered.
    asked: HashMap<NotifyId, Instant>,
    waits: Vec<Duration>,
    /// Answers without the variable.
    shed: usize,
    failed: usize,
}

impl Pair {
    fn new(config: AgentConfig, engine: EngineConfig) -> Self {
        let now = Instant::now();
        let mut pair = Self {
            agent: AgentConnection::new(config, Peer::Unknown, now),
            engine: EngineConnection::new(engine, now),
            socket: Vec::new(),
            now,
            tickets: Vec::new(),
            asked: HashMap::new(),
            waits: Vec::new(),
            shed: 0,
            failed: 0,
        };
        pair.exchange();
        pair
    }

    /// Asks for an answer whose frame takes `size` bytes of the buffer.
    fn ask(&mut self, size: usize) -> Result<NotifyId, NotifyError> {
        let payload = NotifyPayload::new("m").arg("size", size as u64);
        let id = self.engine.notify(payload.as_bytes().unwrap(), self.now)?;
        self.asked.insert(id, self.now);
        Ok(id)
    }

    /// Both sides do what they want to do at this moment.
    fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            let asked = self.engine.transmit().to_vec();
            self.engine.transmitted(asked.len());
            let mut input = &asked[..];
            while let Some(event) = self.agent.receive(&mut input, self.now).unwrap() {
                quiet = false;
                if let Event::Notify(notify, ack) = event {
                    let size: usize = notify.require("m").unwrap().get("size").unwrap();
                    self.tickets.push((size, ack.defer()));
                }
            }
            self.write();
            if self.engine.interest().read || self.engine.interest().ready {
                let read = std::mem::take(&mut self.socket);
                let mut input = &read[..];
                while let Some(event) = self.engine.receive(&mut input, self.now).unwrap() {
                    quiet = false;
                    match event {
                        EngineEvent::Ack { id, actions, .. } => match actions.count() {
                            0 => self.shed += 1,
                            _ => self.waits.push(self.now - self.asked[&id]),
                        },
                        EngineEvent::Failed { .. } => self.failed += 1,
                        _ => {}
                    }
                }
            }
            if quiet {
                break;
            }
        }
    }

    fn write(&mut self) {
        self.socket.extend_from_slice(self.agent.transmit());
        let written = self.agent.transmit().len();
        self.agent.transmitted(written);
    }

    /// Gives all answers, in one write.
    fn answer(&mut self) {
        for (size, ticket) in std::mem::take(&mut self.tickets) {
            let Ok(mut ack) = self.agent.answer(ticket, self.now) else { continue };
            ack.set(Scope::Transaction, "v", value_for(size).as_str()).unwrap();
        }
    }

    /// Lets time pass, with all that is due on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            let deadlines = [self.agent.interest().deadline, self.engine.interest().deadline];
            match deadlines.into_iter().flatten().min() {
                Some(deadline) if deadline <= end => self.now = self.now.max(deadline),
                _ => break,
            }
            let _ = self.agent.handle_timeout(self.now);
            let _ = self.engine.handle_timeout(self.now);
        }
        self.now = end;
        self.exchange();
    }

    fn stats(&self) -> &ConnectionStats {
        self.agent.stats()
    }

    fn slowest(&self) -> Duration {
        self.waits.iter().copied().max().unwrap()
    }
}

fn haproxy() -> EngineConfig {
    EngineConfig::new(Dialect::New).receive_buffer(BUFFER.try_into().ok())
}

/// Twenty answers at once, and then silence.
fn burst(config: AgentConfig, size: usize) -> Pair {
    let mut pair = Pair::new(config, haproxy());
    for _ in 0..20 {
        pair.ask(size).unwrap();
    }
    pair.exchange();
    pair.answer();
    pair.pass(ms(990));
    pair
}

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
        pair.ask(size).unwrap();
        pair.exchange();
        pair.answer();
        pair.pass(ms(1));
        assert_eq!((pair.waits.len(), pair.failed), (21, 0), "{size}");
        assert!(pair.waits[20] <= ms(1), "{:?}", pair.waits[20]);
    }
}

/// One that fills the buffer cannot be made; one byte less works.
#[test]
fn the_largest_answer() {
    let mut pair = Pair::new(AgentConfig::new(), haproxy());
    pair.ask(16_383).unwrap();
    pair.exchange();
    pair.answer();
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
    let now = Instant::now();
    let config = AgentConfig::new().expected_ack_size(3_000);
    let mut pair = Pair {
        agent: AgentConnection::new(config, Peer::Unknown, now),
        engine: EngineConnection::new(haproxy(), now),
        socket: Vec::new(),
        now,
        tickets: Vec::new(),
        asked: HashMap::new(),
        waits: Vec::new(),
        shed: 0,
        failed: 0,
    };
    for _ in 0..20 {
        pair.ask(3_000).unwrap();
    }
    pair.exchange();
    pair.answer();
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
    for _ in 0..20 {
        pair.ask(3_000).unwrap();
    }
    pair.exchange();
    pair.answer();
    pair.exchange();
    assert_eq!((pair.waits.len(), pair.slowest(), pair.stats().held), (20, ms(0), 0));
}

/// HAProxy asks so much that it must have read: the wait is the short one.
#[test]
fn under_load_answers_wait_for_moments_only() {
    let mut pair = Pair::new(AgentConfig::new(), haproxy());
    for _ in 0..2_000 {
        while pair.engine.window_left() > 0 {
            pair.ask(1_500).unwrap();
        }
        pair.exchange();
        pair.answer();
        pair.pass(ms(1));
    }
    assert!(!pair.engine.is_wedged());
    // 16 383 bytes in 4 ms at the most, which is 10 answers; HAProxy itself has 20 in flight.
    assert!(pair.waits.len() > 2_000 * 10 / 4 - 40, "{} answers", pair.waits.len());
    assert!(pair.slowest() <= ms(9), "{:?}", pair.slowest());
}

/// One question after the other: each shows that HAProxy has read what it was sent before the last one.
#[test]
fn one_question_after_the_other() {
    for (size, pause, slowest) in
        [(1_500, 1, 0), (3_000, 2, 0), (8_000, 8, 0), (3_000, 1, 5), (8_000, 3, 5)]
    {
        let mut pair = Pair::new(AgentConfig::new(), haproxy());
        for _ in 0..500 {
            pair.ask(size).unwrap();
            pair.exchange();
            pair.answer();
            let answered = pair.waits.len();
            pair.exchange();
            while pair.waits.len() == answered {
                pair.pass(ms(1));
            }
            pair.pass(ms(pause));
        }
        assert!(!pair.engine.is_wedged());
        assert_eq!(pair.waits.len(), 500);
        assert!(
            pair.slowest() <= ms(slowest),
            "{size} bytes every {pause} ms: {:?}",
            pair.slowest()
        );
    }
}

/// Small answers are nobody's business, and one large one in between does not make them wait.
#[test]
fn small_answers_are_sent_at_once() {
    let mut pair = Pair::new(AgentConfig::new(), haproxy());
    for round in 0..50 {
        for n in 0..20 {
            let size = if round >= 25 && n == 7 { 300 } else { 200 };
            pair.ask(size).unwrap();
        }
        pair.exchange();
        pair.answer();
        pair.exchange();
        pair.pass(ms(10));
    }
    assert_eq!((pair.waits.len(), pair.slowest(), pair.stats().held), (1_000, ms(0), 0));
}

/// Clients that leave make room for new questions whose answers HAProxy has not read: 850 and 3 000
/// bytes while HAProxy stands still for 30 ms of every 80.
#[test]
fn clients_that_leave_and_a_haproxy_that_stands_still() {
    // How many leave when HAProxy stops, and every how many milliseconds one asks that stays.
    for (size, leaving, pause) in [(850, 25, 1), (3_000, 8, 9)] {
        for (config, stops) in
            [(AgentConfig::new(), false), (AgentConfig::new().pacing(None), true)]
        {
            let mut pair = Pair::new(config, haproxy());
            let mut asked = 0;
            for at in 0..2_000_u64 {
                let stops_now = at % 80 == 0;
                if stops_now {
                    pair.engine.stall_until(pair.now + ms(30));
                }
                if stops_now || at % 80 >= 30 {
                    // Some clients ask and leave, others wait for their answers.
                    for _ in 0..if stops_now { leaving } else { u64::from(at % pause == 0) * 2 } {
                        if let Ok(id) = pair.ask(size) {
                            assert!(pair.engine.abandon(id, pair.now));
                        }
                    }
                    if at % pause == 0 {
                        asked += usize::from(pair.ask(size).is_ok());
                    }
                }
                pair.exchange();
                pair.answer();
                pair.pass(ms(1));
            }
            assert_eq!(pair.engine.is_wedged(), stops, "{size}");
            if stops {
                continue;
            }
            pair.pass(ms(990));
            assert_eq!((pair.waits.len() + pair.shed, pair.failed), (asked, 0), "{size}");
            assert!(pair.shed * 20 < asked, "{size}: {} of {asked} without an answer", pair.shed);
            assert!(asked > 100, "{size}: {asked}");
            assert!(pair.slowest() <= ms(250), "{size}: {:?}", pair.slowest());
            let stats = pair.stats();
            assert_eq!(stats.notifies, stats.answered + stats.shed, "{stats:?}");
            assert!(stats.shed >= pair.shed as u64, "{stats:?}");
        }
    }
}

/// What is held back is bounded: HAProxy waits for twenty answers, so the rest is for clients that have
/// left, and gets the fallback.
#[test]
fn no_more_is_held_back_than_haproxy_waits_for() {
    let mut pair = Pair::new(AgentConfig::new(), haproxy());
    pair.engine.stall_until(pair.now + ms(50));
    for _ in 0..100 {
        let id = pair.ask(3_000).unwrap();
        assert!(pair.engine.abandon(id, pair.now));
    }
    pair.exchange();
    pair.answer();
    let stats = pair.stats();
    // Five fit the buffer, twenty wait.
    assert_eq!((stats.answered, stats.held, stats.shed), (25, 95, 75));
    pair.ask(3_000).unwrap();
    pair.exchange();
    pair.answer();
    pair.pass(ms(900));
    assert!(!pair.engine.is_wedged());
    assert_eq!((pair.waits.len(), pair.shed, pair.failed), (0, 1, 0));
    pair.ask(3_000).unwrap();
    pair.exchange();
    pair.answer();
    pair.pass(ms(1));
    assert_eq!(pair.waits.len(), 1);
}

/// The goodbye comes after what is held back, and a drain waits for both.
#[test]
fn a_drain_sends_what_is_held_back() {
    let mut pair = Pair::new(AgentConfig::new(), haproxy());
    for _ in 0..20 {
        pair.ask(1_500).unwrap();
    }
    pair.exchange();
    pair.answer();
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
    for _ in 0..20 {
        pair.ask(1_500).unwrap();
    }
    pair.exchange();
    pair.answer();
    pair.agent.peer_closed(pair.now);
    assert!(pair.agent.transmit().len() > 29_000);
    pair.write();
    assert!(pair.agent.interest().done);
}

/// With buffers that are passed by value.
#[test]
fn what_is_held_back_stays_when_buffers_are_exchanged() {
    let mut pair = Pair::new(AgentConfig::new(), haproxy());
    for _ in 0..20 {
        pair.ask(1_500).unwrap();
    }
    pair.exchange();
    pair.answer();
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Without streams that end in another way, and with a HAProxy that does not stand still for
    /// longer than it is given, the buffer is never filled, whatever the sizes and the order.
    #[test]
    fn the_buffer_is_never_filled(
        steps in prop::collection::vec(
            (0..24_usize, 16..6_000_usize, any::<bool>(), 0..40_u64, 0..90_u64), 1..80,
        ),
    ) {
        let engine = haproxy().processing_timeout(Duration::from_secs(60)).unwrap();
        let mut pair = Pair::new(AgentConfig::new(), engine);
        let mut asked = 0;
        for (questions, size, answers, time, stall) in steps {
            for _ in 0..questions {
                asked += usize::from(pair.ask(size).is_ok());
            }
            pair.exchange();
            if stall > 40 {
                pair.engine.stall_until(pair.now + ms(stall));
            }
            if answers {
                pair.answer();
            }
            pair.pass(ms(time));
            // Stalls do not follow each other without a moment in between.
            if let (true, Some(until)) = (stall > 40, pair.engine.interest().deadline) {
                pair.pass(until.saturating_duration_since(pair.now).min(ms(90)));
            }
            prop_assert!(!pair.engine.is_wedged());
        }
        pair.answer();
        pair.pass(Duration::from_secs(5));
        prop_assert!(!pair.engine.is_wedged());
        prop_assert_eq!((pair.waits.len(), pair.failed, pair.shed), (asked, 0, 0));
    }
}
