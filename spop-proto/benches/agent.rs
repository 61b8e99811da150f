//! What the agent's side costs: `cargo bench -p spop-proto --bench agent [FILTER]`.
//!
//! Times are of this machine; allocations are counts. Those of a warm connection are to be none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a measurement: a panic is its way to fail"
)]

mod common;

use std::time::Instant;

use common::*;
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use spop_proto::handler::{Concurrent, HandlerFn, Inline, ServiceFn};
use spop_proto::{AgentConfig, AgentConnection, Scope};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

fn warm() -> (AgentConnection, Instant) {
    let now = Instant::now();
    (connection(AgentConfig::new(), OLD, now), now)
}

/// Does it a few times, so that all memory it needs is there when it is measured.
fn warmed(mut round: impl FnMut() -> usize) -> impl FnMut() -> usize {
    for _ in 0..3 {
        round();
    }
    round
}

/// Rounds of one warm connection, counted in answers and in bytes read.
fn bench_answers(bencher: Bencher<'_, '_>, input: &[u8], answers: usize) {
    let (mut conn, now) = warm();
    bencher
        .counter(ItemsCount::new(answers))
        .counter(BytesCount::of_slice(input))
        .bench_local(warmed(|| round(&mut conn, black_box(input), now, answer)));
}

/// A connection made, the handshake, and the connection dropped.
#[divan::bench]
fn hello(bencher: Bencher<'_, '_>) {
    let now = Instant::now();
    bencher.bench_local(|| connection(AgentConfig::new(), black_box(OLD), now));
}

/// NOTIFYs of that many arguments, of which the handler reads up to three.
#[divan::bench(args = [1, 3, 20])]
fn notify_arguments(bencher: Bencher<'_, '_>, count: usize) {
    let (mut conn, now) = warm();
    let input = notify(1, &arguments(count));
    bencher.counter(ItemsCount::new(1_usize)).bench_local(warmed(|| {
        round(&mut conn, black_box(&input), now, |notify, ack| {
            for arg in notify.require("check-client-ip")?.args().take(3) {
                black_box(arg);
            }
            ack.set(Scope::Transaction, "ip_score", 20)?;
            ack.set(Scope::Transaction, "length", 458_u32)?;
            Ok(())
        })
    }));
}

#[divan::bench(args = [1, 20])]
fn frames_in_a_read(bencher: Bencher<'_, '_>, frames: usize) {
    bench_answers(bencher, &notifies(frames, &arguments(3)), frames);
}

/// The second is as large as a frame may be.
#[divan::bench(args = [900, 16_373])]
fn payload_bytes(bencher: Bencher<'_, '_>, bytes: usize) {
    bench_answers(bencher, &notify(1, &sized(bytes)), 1);
}

#[divan::bench]
fn frame_in_two_reads(bencher: Bencher<'_, '_>) {
    let (mut conn, now) = warm();
    let input = notify(1, &sized(900));
    let (first, second) = input.split_at(500);
    bencher.counter(BytesCount::of_slice(&input)).bench_local(warmed(|| {
        read(&mut conn, black_box(first), now, answer);
        round(&mut conn, black_box(second), now, answer)
    }));
}

/// A payload of that many bytes in fragments; the second is the largest that is taken.
#[divan::bench(args = [64 << 10, 1 << 20])]
fn reassembly(bencher: Bencher<'_, '_>, bytes: usize) {
    bench_answers(bencher, &fragments(&sized(bytes)), 1);
}

#[divan::bench(args = [1, 10])]
fn actions(bencher: Bencher<'_, '_>, count: usize) {
    const NAMES: [&str; 10] =
        ["score", "country", "bot", "list", "rate", "age", "tier", "reason", "until", "shard"];
    let (mut conn, now) = warm();
    let input = notify(1, &arguments(1));
    bencher.bench_local(warmed(|| {
        round(&mut conn, black_box(&input), now, |_, ack| {
            for name in NAMES.iter().take(count) {
                ack.set(Scope::Transaction, name, 20)?;
            }
            Ok(())
        })
    }));
}

/// Twenty, answered by ticket after the last was read.
#[divan::bench]
fn deferred(bencher: Bencher<'_, '_>) {
    let (mut conn, now) = warm();
    let input = notifies(WINDOW, &arguments(3));
    let mut tickets = Vec::with_capacity(WINDOW);
    bencher
        .counter(ItemsCount::new(WINDOW))
        .bench_local(warmed(|| deferred_round(&mut conn, black_box(&input), &mut tickets, now)));
}

/// Twenty, each answered by a future that waits once.
#[divan::bench]
fn concurrent(bencher: Bencher<'_, '_>) {
    let (conn, now) = warm();
    let dispatch = Concurrent::new(HandlerFn::new(answer_later));
    let mut turn = driven(&dispatch, conn, now);
    let input = notifies(WINDOW, &arguments(3));
    bencher.counter(ItemsCount::new(WINDOW)).bench_local(warmed(|| turn(black_box(&input))));
}

/// Twenty, answered inline, through what the asynchronous adapters drive.
#[divan::bench]
fn inline_driver(bencher: Bencher<'_, '_>) {
    let (conn, now) = warm();
    let dispatch = Inline::new(ServiceFn::new(answer));
    let mut turn = driven(&dispatch, conn, now);
    let input = notifies(WINDOW, &arguments(3));
    bencher.counter(ItemsCount::new(WINDOW)).bench_local(warmed(|| turn(black_box(&input))));
}

/// A frame split off and checked, and each argument looked at: no connection, no answer.
#[divan::bench(args = [1, 3, 20])]
fn decode_only(bencher: Bencher<'_, '_>, count: usize) {
    let input = notify(1, &arguments(count));
    bencher.bench_local(|| decode(black_box(&input)));
}
