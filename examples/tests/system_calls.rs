//! One read and one write for a batch: what arrives together is read at once and answered at once.
//!
//! Counted in front of the socket, where each call that gets through is a system call. What the
//! runtimes add (waiting, and reads that find nothing) shows `bench/system-calls`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![cfg(unix)]

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use spop_proto::wire::{Flags, Frame, FrameHeader, FrameType, NotifyPayload};
use spop_proto::{
    Ack, Dialect, Dispatch, EngineConfig, EngineConnection, Exchange, HandlerError, Notify, Peer,
    Scope,
};
use tokio::io::ReadBuf;

const BATCHES: usize = 50;
/// As many as HAProxy has in flight.
const WINDOW: u64 = 20;

/// Calls of a stream.
#[derive(Debug, Default)]
struct Calls {
    /// Reads that brought something.
    reads: AtomicUsize,
    /// Reads that found nothing, or the end.
    vain: AtomicUsize,
    writes: AtomicUsize,
}

impl Calls {
    fn read(&self, bytes: Option<usize>) {
        let vain = bytes.is_none_or(|bytes| bytes == 0);
        let count = if vain { &self.vain } else { &self.reads };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn wrote(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// One of each for HELLO and for each batch.
    #[track_caller]
    fn assert_one_each(&self, vain: usize) {
        assert_eq!(self.reads.load(Ordering::Relaxed), 1 + BATCHES, "reads");
        assert_eq!(self.writes.load(Ordering::Relaxed), 1 + BATCHES, "writes");
        let seen = self.vain.load(Ordering::Relaxed);
        assert!(seen <= vain, "{seen} reads in vain, {vain} at most");
    }
}

/// A stream that counts.
#[derive(Debug)]
struct Counting<S> {
    stream: S,
    calls: Arc<Calls>,
}

/// Has `agent` serve a stream whose calls are counted, and plays HAProxy on the other end: the next
/// batch goes out when all of the last is answered. `vain`: so many reads may find nothing.
#[track_caller]
fn serve(vain: usize, agent: impl FnOnce(UnixStream, Arc<Calls>)) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let playing = thread::spawn(move || {
        let haproxy = EngineConnection::new(EngineConfig::new(Dialect::New), Instant::now());
        theirs.write_all(haproxy.transmit()).unwrap();
        assert_eq!(answers(&mut theirs, 1), [FrameType::AGENT_HELLO]);
        let batch = batch();
        for _ in 0..BATCHES {
            theirs.write_all(&batch).unwrap();
            assert_eq!(answers(&mut theirs, 20), [FrameType::ACK; 20]);
        }
    });
    let calls = Arc::default();
    agent(ours, Arc::clone(&calls));
    playing.join().unwrap();
    calls.assert_one_each(vain);
}

/// The types of that many frames.
fn answers(stream: &mut UnixStream, count: usize) -> Vec<FrameType> {
    let mut kinds = Vec::new();
    while kinds.len() < count {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).unwrap();
        kinds.push(Frame::decode(&frame).unwrap().header.kind);
    }
    kinds
}

/// A window of NOTIFYs of some 700 bytes: all of it fits the smallest of the buffers that adapters
/// read into, the 16 KiB of spop-blocking.
fn batch() -> Vec<u8> {
    let text = "x".repeat(650);
    let payload = NotifyPayload::new("check-client-ip").arg("ip", Ipv4Addr::LOCALHOST);
    let payload = payload.arg("headers", text.as_str());
    let (kind, flags) = (FrameType::NOTIFY, Flags::FIN);
    let mut batch = Vec::new();
    for stream in 0..WINDOW {
        let header = FrameHeader { kind, flags, stream_id: 2 * stream + 1, frame_id: 1 };
        Frame { header, payload: payload.as_bytes().unwrap() }.encode(&mut batch);
    }
    batch
}

fn answer(notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
    let ip: Ipv4Addr = notify.require("check-client-ip")?.get("ip")?;
    ack.set(Scope::Transaction, "ip_score", i32::from(!ip.is_loopback()))?;
    Ok(())
}

/// As one that found the answer in a cache.
async fn answer_at_once(mut x: Exchange) -> Result<Exchange, HandlerError> {
    let ip: Ipv4Addr = x.require("check-client-ip")?.get("ip")?;
    x.set(Scope::Transaction, "ip_score", i32::from(!ip.is_loopback()))?;
    Ok(x)
}

#[test]
fn tokio_inline() {
    on_tokio(&spop_tokio::Agent::inline(answer));
}

#[test]
fn tokio_concurrent() {
    on_tokio(&spop_tokio::Agent::concurrent(answer_at_once));
}

fn on_tokio<D: Dispatch>(agent: &spop_tokio::Agent<D>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // tokio knows from a read that did not fill its buffer that there is no more, and spares itself
    // the call: the one in vain is asked of it, and not of the system.
    serve(2 * BATCHES + 4, |stream, calls| {
        stream.set_nonblocking(true).unwrap();
        runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(stream).unwrap();
            agent.serve_connection(Counting { stream, calls }, Peer::Unknown).await;
        });
    });
}

#[test]
fn asyncstd_inline() {
    on_async_std(&spop_asyncstd::Agent::inline(answer));
}

#[test]
fn asyncstd_concurrent() {
    on_async_std(&spop_asyncstd::Agent::concurrent(answer_at_once));
}

fn on_async_std<D: Dispatch>(agent: &spop_asyncstd::Agent<D>) {
    serve(2 * BATCHES + 4, |stream, calls| {
        stream.set_nonblocking(true).unwrap();
        async_std::task::block_on(async {
            let stream = async_std::os::unix::net::UnixStream::from(stream);
            agent.serve_connection(Counting { stream, calls }, Peer::Unknown).await;
        });
    });
}

#[test]
fn blocking() {
    // The one in vain is the end.
    serve(1, |stream, calls| {
        let agent = spop_blocking::Agent::inline(answer);
        agent.serve_connection(Counting { stream, calls }, Peer::Unknown);
    });
}

impl Read for Counting<UnixStream> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer);
        self.calls.read(read.as_ref().ok().copied());
        read
    }
}

impl Write for Counting<UnixStream> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.calls.wrote();
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: tokio::io::AsyncRead + Unpin> tokio::io::AsyncRead for Counting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.calls.read(polled.is_ready().then(|| buffer.filled().len() - before));
        polled
    }
}

impl<S: async_std::io::Read + Unpin> async_std::io::Read for Counting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.calls.read(match &polled {
            Poll::Ready(Ok(read)) => Some(*read),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        });
        polled
    }
}

/// Both runtimes write alike, and have different words for the end.
macro_rules! write_counted {
    ($write:path, $poll_end:ident) => {
        impl<S: $write + Unpin> $write for Counting<S> {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.calls.wrote();
                Pin::new(&mut self.stream).poll_write(context, bytes)
            }

            fn poll_flush(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).poll_flush(context)
            }

            fn $poll_end(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.stream).$poll_end(context)
            }
        }
    };
}

write_counted!(tokio::io::AsyncWrite, poll_shutdown);
write_counted!(async_std::io::Write, poll_close);
