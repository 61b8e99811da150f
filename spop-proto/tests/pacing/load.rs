//! Answers all the time: none waits for long, and the buffer is never filled.

use std::time::Duration;

use proptest::prelude::*;
use spop_proto::AgentConfig;

use crate::pair::*;

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
            pair.ask_and_answer(1, size);
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
    pair.ask_and_answer(1, 3_000);
    pair.pass(ms(900));
    assert!(!pair.engine.is_wedged());
    assert_eq!((pair.waits.len(), pair.shed, pair.failed), (0, 1, 0));
    pair.ask_and_answer(1, 3_000);
    pair.pass(ms(1));
    assert_eq!(pair.waits.len(), 1);
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
