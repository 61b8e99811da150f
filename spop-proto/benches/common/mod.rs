//! What the benchmarks have in common: frames, connections and the handlers that answer.

#![allow(dead_code, reason = "every benchmark uses its own part")]

use std::future::poll_fn;
use std::hint::black_box;
use std::mem;
use std::net::{IpAddr, Ipv4Addr};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use spop_proto::driver::{Driver, Input, Notice};
use spop_proto::wire::{
    Flags, Frame, FrameHeader, FrameType, HaproxyHello, Messages, NotifyPayload,
};
use spop_proto::{
    Ack, AgentConfig, AgentConnection, Dispatch, Event, Exchange, HandlerError, Notify, Peer,
    Scope, Ticket, answer_inline,
};

/// HAProxy has at most this many in flight.
pub(crate) const WINDOW: usize = 20;
/// What HAProxy offers with the default `tune.bufsize`.
pub(crate) const FRAME_SIZE: usize = 16_380;
/// Of a frame in front of its payload, with ids of one byte each.
pub(crate) const HEADER: usize = 7;

/// The capabilities that HAProxy up to 3.0 offers, which nothing has to be held back for.
pub(crate) const OLD: &[u8] = b"pipelining,async";
/// Those of HAProxy from 3.1 on: answers are paced.
pub(crate) const NEW: &[u8] = b"pipelining";

pub(crate) fn frame(kind: FrameType, flags: Flags, stream_id: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let header = FrameHeader { kind, flags, stream_id, frame_id: 1 };
    Frame { header, payload }.encode(&mut out);
    out
}

pub(crate) fn hello(capabilities: &[u8]) -> Vec<u8> {
    let hello = HaproxyHello {
        supported_versions: Some(b"2.0"),
        max_frame_size: Some(FRAME_SIZE as u64),
        capabilities: Some(capabilities),
        engine_id: Some(b"6b1b9c6d-9b8e-4b0a-8f0f-0d6a5d1f9c11"),
        ..HaproxyHello::default()
    };
    let (mut payload, mut out) = (Vec::new(), Vec::new());
    hello.encode(&mut payload);
    let header = FrameHeader::connection(FrameType::HAPROXY_HELLO);
    Frame { header, payload: &payload }.encode(&mut out);
    out
}

/// One message: an address, a string and an integer, then strings up to that many arguments.
pub(crate) fn arguments(count: usize) -> Vec<u8> {
    let mut payload = NotifyPayload::new("check-client-ip").arg("ip", Ipv4Addr::new(192, 0, 2, 1));
    if count > 1 {
        payload = payload.arg("host", "www.example.com");
    }
    if count > 2 {
        payload = payload.arg("port", 443_i64);
    }
    for n in 3..count {
        payload = payload.arg(format!("header-{n}"), "text/html,application/xml;q=0.9");
    }
    payload.as_bytes().unwrap().to_vec()
}

/// Three arguments and a fourth that makes it that many bytes, or up to three fewer.
pub(crate) fn sized(bytes: usize) -> Vec<u8> {
    // The fourth takes its name, a type, and a length of up to four bytes besides.
    let padding = "x".repeat(bytes - arguments(3).len() - "_headers".len() - 1 - 4);
    let mut payload = NotifyPayload::new("check-client-ip").arg("ip", Ipv4Addr::new(192, 0, 2, 1));
    payload = payload.arg("host", "www.example.com").arg("port", 443_i64);
    let payload = payload.arg("headers", padding.as_str()).as_bytes().unwrap().to_vec();
    assert!((bytes - 3..=bytes).contains(&payload.len()), "{} of {bytes}", payload.len());
    payload
}

pub(crate) fn notify(stream_id: u64, payload: &[u8]) -> Vec<u8> {
    frame(FrameType::NOTIFY, Flags::FIN, stream_id, payload)
}

/// That many NOTIFYs, of streams 1, 3, 5 … as those of HAProxy from 3.1 on.
pub(crate) fn notifies(count: usize, payload: &[u8]) -> Vec<u8> {
    (0..count as u64).flat_map(|n| notify(2 * n + 1, payload)).collect()
}

/// The same payload in fragments, each as large as a frame may be.
pub(crate) fn fragments(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let pieces = payload.chunks(FRAME_SIZE - HEADER);
    let last = pieces.len() - 1;
    for (n, piece) in pieces.enumerate() {
        let kind = if n == 0 { FrameType::NOTIFY } else { FrameType::UNSET };
        let flags = if n == last { Flags::FIN } else { Flags::default() };
        out.extend(frame(kind, flags, 1, piece));
    }
    out
}

/// After the handshake with a HAProxy that offers these.
pub(crate) fn connection(
    config: AgentConfig,
    capabilities: &[u8],
    now: Instant,
) -> AgentConnection {
    let mut conn = AgentConnection::new(config, Peer::Unknown, now);
    let hello = hello(capabilities);
    let mut input = hello.as_slice();
    assert!(matches!(conn.receive(&mut input, now), Ok(Some(Event::Hello(_)))));
    assert!(matches!(conn.receive(&mut input, now), Ok(None)));
    take(&mut conn);
    conn
}

/// Takes the output; its length.
pub(crate) fn take(conn: &mut AgentConnection) -> usize {
    let bytes = conn.transmit().len();
    conn.transmitted(bytes);
    bytes
}

/// Reads three arguments, sets two variables.
pub(crate) fn answer(notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
    let message = notify.require("check-client-ip")?;
    let ip: IpAddr = message.get("ip")?;
    let host: &[u8] = message.get("host")?;
    let port: u32 = message.get("port")?;
    ack.set(Scope::Transaction, "ip_score", if ip.is_loopback() { 0 } else { 20 })?;
    ack.set(Scope::Transaction, "length", port + u32::try_from(host.len())?)?;
    Ok(())
}

/// The same after it has waited once, as if for a look-up.
pub(crate) async fn answer_later(mut x: Exchange) -> Result<Exchange, HandlerError> {
    let mut waited = false;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let message = x.require("check-client-ip")?;
    let ip: IpAddr = message.get("ip")?;
    let host: &[u8] = message.get("host")?;
    let (port, length): (u32, _) = (message.get("port")?, u32::try_from(host.len())?);
    x.set(Scope::Transaction, "ip_score", if ip.is_loopback() { 0 } else { 20 })?;
    x.set(Scope::Transaction, "length", port + length)?;
    Ok(x)
}

/// Gives `input` to the connection, has `service` answer, takes the output; its length.
#[inline]
pub(crate) fn round(
    conn: &mut AgentConnection,
    input: &[u8],
    now: Instant,
    service: impl Fn(Notify<'_>, &mut Ack<'_>) -> Result<(), HandlerError>,
) -> usize {
    read(conn, input, now, service);
    take(conn)
}

/// As much of it as a read: there may be no whole frame in it.
#[inline]
pub(crate) fn read(
    conn: &mut AgentConnection,
    mut input: &[u8],
    now: Instant,
    service: impl Fn(Notify<'_>, &mut Ack<'_>) -> Result<(), HandlerError>,
) {
    loop {
        // Matched where it lies: it is large.
        match conn.receive(&mut input, now) {
            Ok(Some(Event::Notify(notify, ack))) => answer_inline(notify, ack, &service).unwrap(),
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Takes tickets for all of `input`, then answers them.
pub(crate) fn deferred_round(
    conn: &mut AgentConnection,
    mut input: &[u8],
    tickets: &mut Vec<Ticket>,
    now: Instant,
) -> usize {
    while let Some(event) = conn.receive(&mut input, now).unwrap() {
        if let Event::Notify(_, ack) = event {
            tickets.push(ack.defer());
        }
    }
    for ticket in tickets.drain(..) {
        let mut ack = conn.answer(ticket, now).unwrap();
        ack.set(Scope::Transaction, "ip_score", 20).unwrap();
        ack.set(Scope::Transaction, "length", 458_u32).unwrap();
        ack.commit();
    }
    take(conn)
}

/// A driver, as a function that does one wake-up of it: a read, the futures that were woken, and what was
/// counted is published; it returns how much there is to write.
pub(crate) fn driven<D: Dispatch>(
    dispatch: &D,
    conn: AgentConnection,
    now: Instant,
) -> impl FnMut(&[u8]) -> usize {
    let mut driver = Driver::new(conn);
    move |input| {
        let context = Context::from_waker(Waker::noop());
        let log = &mut |notice: Notice<'_>| {
            assert!(matches!(notice, Notice::Answered { .. }), "{notice:?}");
        };
        let mut tally = driver.tally();
        let mut sent = 0;
        // What is read, and then that there is nothing more.
        for input in [input, &[]] {
            driver.poll_answers(&context, now, &mut tally, log);
            let read = driver.input() == Input::Stream && !input.is_empty();
            if read {
                driver.receive(
                    input,
                    &context,
                    now,
                    |n, ack, own| dispatch.serve(n, ack, own),
                    log,
                );
            }
            driver.after_read(read, false, now);
            let bytes = driver.transmit().len();
            driver.transmitted(bytes);
            tally.received(input.len());
            tally.sent(bytes);
            sent += bytes;
        }
        assert!(driver.interest().deadline > Some(now));
        driver.publish(&mut tally, || now, log);
        sent
    }
}

/// Splits a frame and looks at every argument of its messages; how many there are.
#[inline]
pub(crate) fn decode(input: &[u8]) -> usize {
    let (frame, _) = Frame::split(input).unwrap().unwrap();
    black_box(frame.header.stream_id ^ frame.header.frame_id);
    let messages = Messages::check(frame.payload).unwrap();
    messages
        .map(|message| {
            message.args().map(|arg| usize::from(black_box(&arg).name.len() < 64)).sum::<usize>()
        })
        .sum()
}
