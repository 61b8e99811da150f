//! What a NOTIFY costs in allocations once a connection is warm: nothing.
//!
//! Linking `allocation-counter` makes it the allocator of this binary; it counts for each thread.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from")]

mod common;

use std::future::poll_fn;
use std::mem;
use std::net::IpAddr;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use common::*;
use spop_proto::driver::{Driver, Notice};
use spop_proto::handler::{Concurrent, HandlerFn};
use spop_proto::wire::NotifyPayload;
use spop_proto::{
    Ack, AgentConfig, AgentConnection, Dispatch, Event, Exchange, HandlerError, Limits, Notify,
    Router, Scope, Stats, Ticket, Value, Var, answer_inline,
};

const ROUNDS: usize = 100;
/// HAProxy has at most this many in flight.
const WINDOW: u64 = 20;

const SCORE: Var<'static> = Var::transaction("ip_score");

/// Three arguments: an address, a string and an integer.
fn payload() -> Vec<u8> {
    let args =
        [&b"\x02ip\x06\xc0\x00\x02\x01"[..], b"\x04host\x08\x07example", b"\x04port\x04\x50"];
    [&b"\x0fcheck-client-ip\x03"[..], &args.concat()].concat()
}

/// What the handlers of this file set.
fn answer_of(stream: u64) -> Vec<u8> {
    ack(stream, &[set_txn("ip_score", b"\x02\x14"), set_txn("host", b"\x08\x07example")].concat())
}

/// A whole window of NOTIFYs, and what is to be said to it.
fn window() -> (Vec<u8>, Vec<u8>) {
    let streams = (0..WINDOW).map(|n| 2 * n + 1);
    let input = streams.clone().flat_map(|id| frame(NOTIFY, FIN, id, 1, &payload())).collect();
    (input, streams.flat_map(answer_of).collect())
}

fn handle(notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
    let message = notify.require("check-client-ip")?;
    let ip: IpAddr = message.get("ip")?;
    let host: &str = message.get("host")?;
    let port: u16 = message.get("port")?;
    ack.set_var(SCORE, if ip.is_loopback() || port == 0 { 0 } else { 20 })?;
    ack.set(Scope::Transaction, "host", host)?;
    Ok(())
}

fn connection() -> AgentConnection {
    // What is counted is told to the agent's counters too, and requests have ids.
    let rig = Rig::ready(AgentConfig::new().count_in(Stats::new("test")).request_id("host"));
    rig.conn
}

/// Runs `round` until everything is warm, then counts the allocations of many more.
fn allocations(mut round: impl FnMut()) -> u64 {
    for _ in 0..3 {
        round();
    }
    measure(|| {
        for _ in 0..ROUNDS {
            round();
        }
    })
    .count_total
}

/// Gives all of `input` to the connection in pieces, and every NOTIFY in it to `each`.
fn read(
    conn: &mut AgentConnection,
    input: &[u8],
    piece: usize,
    now: Instant,
    mut each: impl FnMut(Notify<'_>, Ack<'_>),
) {
    for mut rest in input.chunks(piece) {
        while let Some(event) = conn.receive(&mut rest, now).unwrap() {
            if let Event::Notify(notify, ack) = event {
                each(notify, ack);
            }
        }
    }
}

/// Takes the output, which must be `expected`.
fn write(conn: &mut AgentConnection, expected: &[u8]) {
    assert!(conn.transmit() == expected, "not the answers that were expected");
    conn.transmitted(expected.len());
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(Box::new(1))), ROUNDS as u64);
    assert_eq!(allocations(|| ()), 0);
}

/// Of a body that may have been cut it is told in the first round; then it is looked at, and no more.
#[test]
fn a_large_body_allocates_nothing() {
    let body = vec![b'x'; 15_214];
    let payload = NotifyPayload::new("check").arg("body", Value::Bin(&body));
    let input = frame(NOTIFY, FIN, 1, 1, payload.as_bytes().unwrap());
    let mut conn = connection();
    let now = Instant::now();
    let mut answered = 0;
    let count = allocations(|| {
        read(&mut conn, &input, input.len(), now, |_, _| answered += 1);
        conn.transmitted(usize::MAX);
    });
    assert_eq!((count, answered), (0, ROUNDS + 3));
}

#[test]
fn inline_answers_allocate_nothing() {
    let (input, expected) = window();
    // The whole window in one read; a frame a read; frames that straddle reads in every way.
    let one = input.len() / 20;
    for piece in [input.len(), one, one - 1, one + 1, 37, 5, 1] {
        let mut conn = connection();
        let now = Instant::now();
        let count = allocations(|| {
            read(&mut conn, &input, piece, now, |notify, ack| {
                answer_inline(notify, ack, handle).unwrap();
            });
            conn.handle_timeout(now).unwrap();
            write(&mut conn, &expected);
        });
        assert_eq!(count, 0, "in pieces of {piece} bytes");
    }
}

#[test]
fn fragments_allocate_nothing() {
    let payload = payload();
    let streams = (0..WINDOW).map(|n| 2 * n + 1);
    let input: Vec<u8> = streams
        .flat_map(|id| {
            let (first, rest) = payload.split_at(10);
            [frame(NOTIFY, 0, id, 1, first), frame(UNSET, FIN, id, 1, rest)].concat()
        })
        .collect();
    let (_, expected) = window();
    let mut conn = connection();
    let now = Instant::now();
    let count = allocations(|| {
        read(&mut conn, &input, 50, now, |notify, ack| {
            answer_inline(notify, ack, handle).unwrap();
        });
        write(&mut conn, &expected);
    });
    assert_eq!(count, 0);
}

#[test]
fn output_swapped_between_two_buffers_allocates_nothing() {
    let (input, expected) = window();
    let mut conn = connection();
    let mut buffer = Vec::new();
    let now = Instant::now();
    let count = allocations(|| {
        read(&mut conn, &input, input.len(), now, |notify, ack| {
            answer_inline(notify, ack, handle).unwrap();
        });
        conn.swap_output(&mut buffer);
        assert!(buffer == expected, "not the answers that were expected");
    });
    assert_eq!(count, 0);
}

#[test]
fn deferred_answers_allocate_nothing() {
    let (input, _) = window();
    let mut conn = connection();
    let mut tickets: Vec<Ticket> = Vec::with_capacity(20);
    let expected: Vec<u8> =
        (0..WINDOW).rev().flat_map(|n| ack(2 * n + 1, &set_txn("ip_score", b"\x02\x14"))).collect();
    let now = Instant::now();
    let count = allocations(|| {
        read(&mut conn, &input, 64, now, |_, ack| tickets.push(ack.defer()));
        while let Some(ticket) = tickets.pop() {
            let mut ack = conn.answer(ticket, now).unwrap();
            ack.set_var(SCORE, 20).unwrap();
            ack.commit();
        }
        write(&mut conn, &expected);
    });
    assert_eq!(count, 0);
}

#[test]
fn fallback_answers_allocate_nothing() {
    let (input, _) = window();
    // Late before memory is given back for want of traffic.
    let time = Duration::from_millis(500);
    let limits = Limits::new().answer_timeout(time).unwrap();
    let mut conn = Rig::ready(AgentConfig::new().limits(limits)).conn;
    let expected: Vec<u8> = (0..WINDOW).flat_map(|n| ack(2 * n + 1, b"")).collect();
    let now = Instant::now();
    let late = now + time;
    let count = allocations(|| {
        // Forgotten, and answered by the call after it.
        read(&mut conn, &input, input.len(), now, |_, ack| mem::forget(ack));
        write(&mut conn, &expected);
        // Deferred, and answered by the deadline.
        read(&mut conn, &input, input.len(), now, |_, ack| drop(ack.defer()));
        conn.handle_timeout(late).unwrap();
        write(&mut conn, &expected);
    });
    assert_eq!(count, 0);
}

/// Answers at the second poll, as if it had waited for something.
async fn wait_once() {
    let mut polled = false;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn answer_later(mut x: Exchange, wait: bool) -> Result<Exchange, HandlerError> {
    if wait {
        wait_once().await;
    }
    let message = x.require("check-client-ip")?;
    let ip: IpAddr = message.get("ip")?;
    let port: u16 = message.get("port")?;
    x.set_var(SCORE, if ip.is_loopback() || port == 0 { 0 } else { 20 })?;
    x.set(Scope::Transaction, "host", "example")?;
    Ok(x)
}

/// Says what it was asked, without a copy of it.
async fn echo_later(mut x: Exchange) -> Result<Exchange, HandlerError> {
    let (notify, mut reply) = x.split();
    let message = notify.require("check-client-ip")?;
    let host: &str = message.get("host")?;
    wait_once().await;
    reply.set_var(SCORE, 20)?;
    reply.set(Scope::Transaction, "host", host)?;
    Ok(x)
}

/// The log of a connection on which all is well.
fn only_answers(notice: Notice<'_>) {
    assert!(matches!(notice, Notice::Answered { .. }), "{notice:?}");
}

#[test]
fn concurrent_handlers_allocate_nothing() {
    let handler = |wait| Concurrent::new(HandlerFn::new(move |x| answer_later(x, wait)));
    assert_eq!(served(&handler(false)), 0, "ready at once");
    assert_eq!(served(&handler(true)), 0, "parked");
    let echo = Concurrent::new(HandlerFn::new(echo_later));
    assert_eq!(served(&echo), 0, "a borrowed argument in the answer");
}

/// Allocations of answering the window through a driver.
fn served(dispatch: &impl Dispatch) -> u64 {
    let (input, expected) = window();
    let mut driver = Driver::new(connection());
    let now = Instant::now();
    allocations(|| {
        let context = Context::from_waker(Waker::noop());
        let log = &mut only_answers;
        let tally = &mut driver.tally();
        driver.receive(&input, &context, now, |n, a, own| dispatch.serve(n, a, own), log);
        driver.poll_answers(&context, now, tally, log);
        driver.publish(tally, || now, only_answers);
        // In the order in which the futures got ready.
        assert_eq!(driver.transmit().len(), expected.len());
        driver.transmitted(expected.len());
    })
}

#[test]
fn routes_allocate_nothing() {
    let inline = || {
        let router =
            Router::new().on("other", |_, _| Ok(())).on("check-client-ip", |message, ack| {
                let ip: IpAddr = message.get("ip")?;
                ack.set_var(SCORE, if ip.is_loopback() { 0 } else { 20 })?;
                ack.set(Scope::Transaction, "host", message.get::<&str>("host")?)?;
                Ok(())
            });
        router.fallback([]).unwrap()
    };
    assert_eq!(served(&inline()), 0, "inline");
    let mixed = inline().concurrent("slow", |x| async { Ok(x) });
    assert_eq!(served(&mixed), 0, "inline, with one that waits beside it");
    let waiting =
        |wait| Router::new().concurrent("check-client-ip", move |x| answer_later(x, wait));
    assert_eq!(served(&waiting(false)), 0, "ready at once");
    assert_eq!(served(&waiting(true)), 0, "parked");
}
