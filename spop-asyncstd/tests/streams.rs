//! Streams that are in the way of others, or break.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_std::future::timeout;
use async_std::task;
use futures_io::{AsyncRead, AsyncWrite};
use spop_asyncstd::{Agent, CloseReason, Limits, Peer};
use spop_proto::wire::{Frame, FrameHeader, FrameType};
use spop_proto::{Dialect, EngineConfig, EngineConnection};

/// Always has as many requests to read as fit, and takes every answer.
struct Flood {
    hello: Vec<u8>,
    request: Vec<u8>,
    reads: Arc<AtomicUsize>,
}

impl Flood {
    /// And how often it was read from.
    fn new() -> (Self, Arc<AtomicUsize>) {
        let hello = EngineConnection::new(EngineConfig::new(Dialect::Old), Instant::now());
        let mut request = Vec::new();
        let header = FrameHeader::connection(FrameType::NOTIFY);
        Frame { header, payload: b"" }.encode(&mut request);
        let reads = Arc::new(AtomicUsize::new(0));
        (Self { hello: hello.transmit().to_vec(), request, reads: Arc::clone(&reads) }, reads)
    }
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut input = std::mem::take(&mut self.hello);
        while input.len() + self.request.len() <= buf.len() {
            input.extend_from_slice(&self.request);
        }
        buf.get_mut(..input.len()).unwrap().copy_from_slice(&input);
        Poll::Ready(Ok(input.len()))
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

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Six thousand requests in each of 32 reads would take some ten milliseconds.
#[test]
fn a_peer_that_always_has_more_leaves_the_thread_to_others() {
    let (flood, reads) = Flood::new();
    let agent = Agent::inline(|_, _| Ok(()));
    let mut serving = pin!(agent.serve_connection(flood, Peer::Unknown));
    assert!(serving.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let reads = reads.load(Ordering::SeqCst);
    assert!((1..32).contains(&reads), "{reads} reads in one go");
}

/// There is never a turn in which it has nothing to do.
#[test]
fn deadlines_pass_for_a_peer_that_always_has_more() {
    let short = Duration::from_millis(10);
    let limits = Limits::new().max_age(Some(short)).unwrap().close_timeout(short).unwrap();
    let agent = Agent::inline(|_, _| Ok(())).limits(limits);
    let serving = agent.serve_connection(Flood::new().0, Peer::Unknown);
    let closed = task::block_on(timeout(Duration::from_secs(60), serving));
    assert_eq!(closed.unwrap().reason, CloseReason::Aged);
}

/// Reads a HELLO and a request, and has taken one answer when it breaks; it never gets to flush.
struct Breaking {
    input: Vec<Vec<u8>>,
    writes: usize,
}

impl Breaking {
    fn new() -> Self {
        let hello = EngineConnection::new(EngineConfig::new(Dialect::Old), Instant::now());
        let mut request = Vec::new();
        let header = FrameHeader::connection(FrameType::NOTIFY);
        Frame { header, payload: b"" }.encode(&mut request);
        Self { input: vec![request, hello.transmit().to_vec()], writes: 0 }
    }
}

impl AsyncRead for Breaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(input) = self.input.pop() else { return Poll::Pending };
        buf.get_mut(..input.len()).unwrap().copy_from_slice(&input);
        Poll::Ready(Ok(input.len()))
    }
}

impl AsyncWrite for Breaking {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes += 1;
        Poll::Ready(if self.writes == 1 {
            Ok(buf.len())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        assert_eq!(self.writes, 1, "asked to flush after it broke");
        Poll::Pending
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_stream_that_broke_is_not_asked_to_flush() {
    let agent = Agent::inline(|_, _| Ok(()));
    let closed = task::block_on(agent.serve_connection(Breaking::new(), Peer::Unknown));
    assert_eq!((closed.reason, closed.stats.answered), (CloseReason::PeerClosed, 1));
}
