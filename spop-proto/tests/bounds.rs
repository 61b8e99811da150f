//! What hostile peers can make connections hold, in bytes of the allocator, against what the limits
//! allow: the sum of the limits that are in force, times two, since a buffer that grows doubles.
//!
//! Linking `allocation-counter` makes it the allocator of this binary; it counts for each thread. The
//! same against a process with sockets is `examples/tests/bounds.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from")]
#![allow(clippy::disallowed_macros, reason = "tells what was measured, with --nocapture")]

mod common;

use std::future::pending;
use std::num::{NonZeroU32, NonZeroUsize};
use std::task::{Context, Waker};
use std::time::Duration;

use allocation_counter::measure;
use common::*;
use spop_proto::driver::Driver;
use spop_proto::wire::NotifyPayload;
use spop_proto::{
    Ack, Action, AgentConfig, ConnectionStats, Event, Exchange, Limits, Notify, Scope, Turn,
};

const CONNECTIONS: usize = 200;
/// What a connection has besides the buffers that limits speak of: itself, and small boxes.
const FIXED: usize = 2048;

const FRAME: usize = 16_380;
const PAYLOAD: usize = 64 * 1024;
const OUTPUT: usize = 32 * 1024;
const IN_FLIGHT: usize = 100;

fn limits() -> Limits {
    let bytes = |bytes| NonZeroUsize::new(bytes).unwrap();
    Limits::new()
        .payload(bytes(PAYLOAD))
        .output(bytes(OUTPUT))
        .in_flight(NonZeroU32::new(u32::try_from(IN_FLIGHT).unwrap()).unwrap())
}

fn config(limits: Limits) -> AgentConfig {
    AgentConfig::new().limits(limits)
}

/// The bound for connections that each use those of the limits whose bytes are given.
#[track_caller]
fn within(what: &str, connections: usize, limits: &[usize], attack: impl FnOnce()) {
    let bound = connections * (FIXED + 2 * limits.iter().sum::<usize>());
    let info = measure(attack);
    let measured = usize::try_from(info.bytes_max).unwrap();
    println!("{what}: {connections} connections, {measured} bytes of at most {bound}");
    assert!(measured > 0, "{what}: nothing was measured");
    assert!(measured <= bound, "{what}: {measured} bytes, and the limits allow {bound}");
    assert_eq!(info.bytes_current, 0, "{what}: bytes that nobody owns any more");
}

/// Gives bytes as an adapter would: as long as the connection reads. NOTIFYs are answered by `answer`.
/// False when it takes no more.
fn give(rig: &mut Rig, ms: u64, bytes: &[u8], answer: Option<&str>) -> bool {
    let want = rig.conn.interest();
    if want.done || !want.read {
        return false;
    }
    let now = rig.at(ms);
    let mut input = bytes;
    // An error ends the connection, and its last words are output.
    while let Ok(Some(event)) = rig.conn.receive(&mut input, now) {
        if let (Event::Notify(_, mut ack), Some(text)) = (event, answer) {
            ack.set(Scope::Transaction, "text", text).unwrap();
        }
    }
    true
}

fn connections(ready: bool, limits: &Limits) -> Vec<Rig> {
    let new = |_| {
        let config = config(limits.clone());
        if ready { Rig::ready(config) } else { Rig::new(config) }
    };
    (0..CONNECTIONS).map(new).collect()
}

#[test]
fn a_length_of_four_gibibytes() {
    for ready in [false, true] {
        // Not even what one frame may take.
        within("4 GiB announced", CONNECTIONS, &[0], || {
            let mut all = connections(ready, &limits());
            for rig in &mut all {
                for bytes in [&[0xff; 4][..], &[0; 1000]] {
                    give(rig, 0, bytes, None);
                }
                assert!(rig.conn.close_reason().is_some(), "refused at once");
            }
        });
    }
}

#[test]
fn a_flood_of_hellos() {
    within("HELLO, again and again", CONNECTIONS, &[4096], || {
        let mut all = connections(false, &limits());
        for _ in 0..100 {
            for rig in &mut all {
                give(rig, 0, &hello(), None);
            }
        }
        assert!(all.iter().all(|rig| rig.conn.close_reason().is_some()), "the second is refused");
    });
    within("connections that say HELLO and go", 1, &[4096], || {
        for n in 0..10_000 {
            let mut rig = Rig::new(config(limits()));
            give(&mut rig, 0, &if n % 2 == 0 { hello() } else { health_check() }, None);
        }
    });
}

#[test]
fn fragments_of_one_payload_without_end() {
    within("fragments of one stream", CONNECTIONS, &[FRAME, PAYLOAD, 4096], || {
        let part = vec![b'x'; FRAME - 32];
        let mut all = connections(true, &limits());
        let parts = 4 * PAYLOAD / part.len();
        let mut seen_full = false;
        for n in 0..parts {
            let kind = if n == 0 { NOTIFY } else { UNSET };
            let fragment = frame(kind, 0, 1, 1, &part);
            for rig in &mut all {
                // In two pieces, so that each is kept.
                let (first, second) = fragment.split_at(fragment.len() / 2);
                give(rig, 0, first, None);
                give(rig, 0, second, None);
                seen_full |= rig.conn.buffered() >= PAYLOAD / 2;
                rig.take();
            }
        }
        assert!(seen_full, "the limit was nearly reached");
        assert!(all.iter().all(|rig| rig.conn.stats().refused == 1), "and then refused");
    });
}

#[test]
fn fragments_of_ever_new_payloads() {
    within("fragments of many streams", CONNECTIONS, &[FRAME, PAYLOAD, 4096], || {
        let part = vec![b'x'; FRAME - 32];
        let mut all = connections(true, &limits());
        for stream in 1..100 {
            let first = frame(NOTIFY, 0, stream, 1, &part);
            for rig in &mut all {
                give(rig, 0, &first, None);
            }
        }
        let over = |rig: &Rig| rig.conn.close_reason().is_some();
        assert!(all.iter().all(over), "two open payloads are one too many");
    });
}

#[test]
fn peers_that_ask_and_never_read() {
    let ack = 1_100;
    let text = "x".repeat(1_000);
    let limits = limits().write_timeout(Duration::from_secs(1)).unwrap();
    // What was read at once and is waiting: here one chunk.
    let chunk: Vec<u8> = (1..=50).flat_map(notify).collect();
    let held = 20 * ack;
    within("never read", CONNECTIONS, &[OUTPUT, ack, held, chunk.len(), 20 * FIXED], || {
        let mut all = connections(true, &limits);
        for rig in &mut all {
            let mut chunks = 0;
            while give(rig, 0, &chunk, Some(&text)) {
                chunks += 1;
                assert!(chunks < 10_000, "it reads for ever");
            }
            assert!(!rig.conn.interest().read);
        }
        // The time is up for all of them.
        for rig in &mut all {
            let _ = rig.timeout(10_000);
            assert!(rig.conn.interest().done, "given up");
        }
    });
}

#[test]
fn answers_that_are_owed() {
    let ack = 1_100;
    within("deferred answers", CONNECTIONS, &[OUTPUT, IN_FLIGHT * (ack + 64)], || {
        let mut all = connections(true, &limits());
        let text = "x".repeat(1_000);
        for rig in &mut all {
            let mut tickets = Vec::new();
            for stream in 0..10 * IN_FLIGHT as u64 {
                let now = rig.at(0);
                let mut input = &notify(2 * stream + 1)[..];
                if let Ok(Some(Event::Notify(_, ack))) = rig.conn.receive(&mut input, now) {
                    tickets.push(ack.defer());
                }
                rig.take();
            }
            assert_eq!(tickets.len(), IN_FLIGHT, "the others were answered by the fallback");
            for ticket in tickets {
                let now = rig.at(0);
                let mut ack = rig.conn.answer(ticket, now).unwrap();
                ack.set(Scope::Transaction, "text", text.as_str()).unwrap();
            }
        }
    });
}

#[test]
fn one_byte_a_second() {
    let whole = frame(NOTIFY, FIN, 1, 1, &vec![b'x'; FRAME - 32]);
    // With the usual clocks a frame has ten seconds.
    within("one byte a second", CONNECTIONS, &[16], || {
        let mut all = connections(true, &limits());
        for (second, byte) in (0..).zip(whole.chunks(1).take(60)) {
            for rig in &mut all {
                if rig.deadline().is_some_and(|deadline| deadline <= second * 1000) {
                    let _ = rig.timeout(second * 1000);
                }
                give(rig, second * 1000, byte, None);
            }
        }
        assert!(all.iter().all(|rig| rig.conn.close_reason().is_some()), "too slow");
    });
    // Without them it is still no more than the frame.
    let hours = Duration::from_secs(24 * 3600);
    let limits = limits().frame_timeout(hours).unwrap();
    within("one byte a second, all night", CONNECTIONS, &[FRAME], || {
        let mut all = connections(true, &limits);
        for (second, byte) in (0..).zip(whole[..whole.len() - 1].chunks(1)) {
            for rig in &mut all {
                assert!(give(rig, second * 1000, byte, None));
            }
        }
        assert!(all.iter().all(|rig| rig.conn.close_reason().is_none()));
    });
}

#[test]
fn fallback_answers_count_as_output() {
    let text = "x".repeat(200);
    let fallback = [Action::set(Scope::Transaction, "a", text.as_str())];
    let config = config(limits()).fallback(fallback).unwrap();
    within("a storm of requests, not read", 1, &[OUTPUT, 64 * 1024, IN_FLIGHT * 300], || {
        let mut rig = Rig::ready(config.clone());
        let chunk: Vec<u8> = (1..1000).flat_map(notify).collect();
        while give(&mut rig, 0, &chunk, None) {}
        assert!(rig.conn.transmit().len() >= OUTPUT / 2);
    });
}

/// Each request that waits for a slow handler is copied.
#[test]
fn large_requests_to_handlers_that_never_answer() {
    const EACH: usize = 256 * 1024;
    const ALL: usize = 4 * EACH;
    let bytes = |bytes| NonZeroUsize::new(bytes).unwrap();
    let limits = limits().in_flight_bytes(bytes(EACH)).agent_in_flight_bytes(bytes(ALL));
    let body = vec![b'x'; FRAME - 100];
    let payload = NotifyPayload::new("m").arg("body", body.as_slice());
    let payload = payload.as_bytes().unwrap();
    // Each may go over its own by one; together they may not.
    within("large requests", 1, &[ALL, EACH, CONNECTIONS * FIXED, 4096], || {
        let config = config(limits);
        let context = Context::from_waker(Waker::noop());
        let mut all: Vec<_> =
            (0..CONNECTIONS).map(|_| Driver::new(Rig::ready(config.clone()).conn)).collect();
        let now = std::time::Instant::now();
        for stream in 1..100 {
            let asked = frame(NOTIFY, FIN, stream, 1, payload);
            for driver in &mut all {
                let never = |_: Notify<'_>, _: &mut Ack<'_>, own: &mut dyn FnMut() -> Exchange| {
                    let exchange = own();
                    Turn::Later(async move {
                        pending::<()>().await;
                        Ok(exchange)
                    })
                };
                driver.receive(&asked, &context, now, never, &mut |_| {});
                let written = driver.transmit().len();
                driver.transmitted(written);
            }
        }
        let closed: Vec<_> = all.into_iter().map(Driver::finish).collect();
        let total = |count: fn(&ConnectionStats) -> u64| {
            closed.iter().map(|closed| count(&closed.stats)).sum::<u64>()
        };
        let asked = 99 * CONNECTIONS as u64;
        let held = u64::try_from(ALL / FRAME).unwrap();
        assert_eq!(total(|stats| stats.notifies), asked);
        // Given up as their connections ended.
        let waited = asked - total(|stats| stats.shed);
        assert!((held..held + 2).contains(&waited), "{waited} waited, of {asked}");
    });
}
