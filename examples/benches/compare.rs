//! The same work done by spop-proto and by the crate `spop`: a window of NOTIFYs decoded, three
//! arguments read, and the ACKs with two variables encoded. `cargo bench -p spop-examples --bench
//! compare`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a measurement: a panic is its way to fail"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use bytes::BytesMut;
use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use spop::actions::VarScope;
use spop::frame::FramePayload;
use spop::{SpopCodec, TypedData};
use spop_proto::wire::{Flags, Frame, FrameHeader, FrameType, Messages, NotifyPayload};
use spop_proto::{
    Ack, AgentConfig, AgentConnection, Dialect, EngineConfig, EngineConnection, Event,
    HandlerError, Notify, Peer, Scope, answer_inline,
};
use tokio_util::codec::{Decoder, Encoder};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

/// NOTIFYs in a read.
const WINDOW: u64 = 20;

fn main() {
    same_bytes();
    divan::main();
}

/// Both give the same answers, or there is nothing to compare.
fn same_bytes() {
    let input = window(WINDOW);
    let mut conn = connection();
    read(&mut conn, &input, Instant::now());
    let mut output = BytesMut::new();
    read_with_spop(&mut SpopCodec::new(16_380), &mut BytesMut::from(&input[..]), &mut output);
    assert_eq!(conn.transmit(), &output[..]);
}

fn window(count: u64) -> Vec<u8> {
    let payload = NotifyPayload::new("check-client-ip")
        .arg("ip", Ipv4Addr::new(192, 0, 2, 1))
        .arg("host", "www.example.com")
        .arg("port", 443_u32);
    let mut out = Vec::new();
    for n in 0..count {
        let header = FrameHeader {
            kind: FrameType::NOTIFY,
            flags: Flags::FIN,
            stream_id: 2 * n + 1,
            frame_id: 1,
        };
        Frame { header, payload: payload.as_bytes().unwrap() }.encode(&mut out);
    }
    out
}

fn connection() -> AgentConnection {
    let now = Instant::now();
    let haproxy = EngineConnection::new(EngineConfig::new(Dialect::Old), now);
    let mut conn = AgentConnection::new(AgentConfig::new(), Peer::Unknown, now);
    read(&mut conn, haproxy.transmit(), now);
    take(&mut conn);
    conn
}

fn take(conn: &mut AgentConnection) {
    let bytes = conn.transmit().len();
    conn.transmitted(bytes);
}

fn read(conn: &mut AgentConnection, mut input: &[u8], now: Instant) {
    while let Some(event) = conn.receive(&mut input, now).unwrap() {
        if let Event::Notify(notify, ack) = event {
            answer_inline(notify, ack, answer).unwrap();
        }
    }
}

fn answer(notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
    let message = notify.require("check-client-ip")?;
    let ip: IpAddr = message.get("ip")?;
    let host: &str = message.get("host")?;
    let port: u32 = message.get("port")?;
    ack.set(Scope::Transaction, "ip_score", if ip.is_loopback() { 0 } else { 20 })?;
    ack.set(Scope::Transaction, "length", port + u32::try_from(host.len())?)?;
    Ok(())
}

fn read_with_spop(codec: &mut SpopCodec, input: &mut BytesMut, output: &mut BytesMut) {
    while let Some(frame) = codec.decode(input).unwrap() {
        let FramePayload::ListOfMessages(messages) = frame.payload() else { panic!("no NOTIFY") };
        let ids = frame.metadata();
        let mut ack = spop::frames::Ack::new(ids.stream_id, ids.frame_id);
        let message = messages.iter().find(|message| message.name == "check-client-ip").unwrap();
        let Some(TypedData::IPv4(ip)) = message.get("ip") else { panic!("no ip") };
        let Some(TypedData::String(host)) = message.get("host") else { panic!("no host") };
        let Some(TypedData::UInt32(port)) = message.get("port") else { panic!("no port") };
        let score = if ip.is_loopback() { 0_i32 } else { 20 };
        ack = ack.set_var(VarScope::Transaction, "ip_score", score);
        let length = port + u32::try_from(host.len()).unwrap();
        ack = ack.set_var(VarScope::Transaction, "length", length);
        codec.encode(Box::new(ack), output).unwrap();
    }
}

#[divan::bench(args = [1, 20])]
fn answer_spop_proto(bencher: Bencher<'_, '_>, frames: u64) {
    let (mut conn, now) = (connection(), Instant::now());
    let input = window(frames);
    bencher.counter(ItemsCount::new(frames)).bench_local(|| {
        read(&mut conn, black_box(&input), now);
        take(&mut conn);
    });
}

/// With the copy into its buffer that reading takes there.
#[divan::bench(args = [1, 20])]
fn answer_spop(bencher: Bencher<'_, '_>, frames: u64) {
    let mut codec = SpopCodec::new(16_380);
    let (mut buffer, mut output) = (BytesMut::with_capacity(1 << 16), BytesMut::new());
    let input = window(frames);
    bencher.counter(ItemsCount::new(frames)).bench_local(|| {
        buffer.extend_from_slice(black_box(&input));
        read_with_spop(&mut codec, &mut buffer, &mut output);
        output.clear();
    });
}

#[divan::bench]
fn decode_spop_proto(bencher: Bencher<'_, '_>) {
    let input = window(1);
    bencher.bench_local(|| {
        let (frame, _) = Frame::split(black_box(&input)).unwrap().unwrap();
        let messages = Messages::check(frame.payload).unwrap();
        messages
            .flat_map(|message| message.args())
            .map(|arg| black_box(arg).name.len())
            .sum::<usize>()
    });
}

#[divan::bench]
fn decode_spop(bencher: Bencher<'_, '_>) {
    let mut codec = SpopCodec::new(16_380);
    let mut buffer = BytesMut::with_capacity(1 << 16);
    let input = window(1);
    bencher.bench_local(|| {
        buffer.extend_from_slice(black_box(&input));
        codec.decode(&mut buffer).unwrap()
    });
}
