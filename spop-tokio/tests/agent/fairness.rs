//! No peer has a thread for itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use spop_proto::wire::{Frame, FrameHeader, FrameType};
use spop_proto::{Dialect, EngineConfig, EngineConnection};
use spop_tokio::{Agent, CloseReason, Limits, Peer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Always has as many requests to read as fit, and takes every answer.
struct Flood {
    hello: Option<Vec<u8>>,
    request: Vec<u8>,
    reads: Arc<AtomicUsize>,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if let Some(hello) = self.hello.take() {
            buf.put_slice(&hello);
        }
        while buf.remaining() >= self.request.len() {
            buf.put_slice(&self.request);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Flood {
    /// And how often it was read from.
    fn new() -> (Self, Arc<AtomicUsize>) {
        let hello = EngineConnection::new(EngineConfig::new(Dialect::Old), Instant::now());
        let mut request = Vec::new();
        let header = FrameHeader::connection(FrameType::NOTIFY);
        Frame { header, payload: b"" }.encode(&mut request);
        let reads = Arc::new(AtomicUsize::new(0));
        let hello = Some(hello.transmit().to_vec());
        (Self { hello, request, reads: Arc::clone(&reads) }, reads)
    }
}

/// The runtime looks for what sockets have to say only between its tasks, and not between any two: how
/// often the flood is read from until it has done so.
#[tokio::test]
async fn a_peer_that_always_has_more_leaves_the_thread_to_others() {
    let (flood, reads) = Flood::new();
    let agent = Agent::inline(|_, _| Ok(()));
    let serving = tokio::spawn(async move { agent.serve_connection(flood, Peer::Unknown).await });
    const ROUNDS: usize = 10;
    for _ in 0..ROUNDS {
        // New, so that nothing is known of them yet.
        let (mut one, mut other) = UnixStream::pair().unwrap();
        one.write_all(b"?").await.unwrap();
        other.read_exact(&mut [0]).await.unwrap();
    }
    let reads = reads.load(Ordering::SeqCst);
    assert!(reads > 0 && reads < 100 * ROUNDS, "{reads} reads in {ROUNDS} rounds");
    serving.abort();
}

/// There is never a turn in which it has nothing to do.
#[tokio::test]
async fn deadlines_pass_for_a_peer_that_always_has_more() {
    let short = Duration::from_millis(10);
    let limits = Limits::new().max_age(Some(short)).unwrap().close_timeout(short).unwrap();
    let agent = Agent::inline(|_, _| Ok(())).limits(limits);
    let serving = agent.serve_connection(Flood::new().0, Peer::Unknown);
    let closed = timeout(Duration::from_secs(60), serving).await;
    assert_eq!(closed.unwrap().reason, CloseReason::Aged);
}
