//! Streams that are no sockets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use spop_proto::Dialect::{New, Old};
use spop_proto::wire::{Frame, FrameHeader, FrameType};
use spop_proto::{EngineConfig, EngineConnection};
use spop_tokio::{Agent, CloseReason, Peer, Scope};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use crate::common::{Engine, Told, payload};

/// Hands bytes on one at a time, and counts the writes of the side that holds it.
struct Trickle {
    inner: DuplexStream,
    writes: Arc<AtomicUsize>,
    one_by_one: bool,
}

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.one_by_one {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        let polled = Pin::new(&mut self.inner).poll_read(cx, &mut one);
        buf.put_slice(one.filled());
        polled
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn twenty_requests_in_one_read_are_answered_in_one_write() {
    for one_by_one in [false, true] {
        let agent = Agent::inline(|notify, ack| {
            ack.set(Scope::Transaction, "n", notify.require("m")?.get::<i64>("number")?)?;
            Ok(())
        });
        let writes = Arc::new(AtomicUsize::new(0));
        let (ours, theirs) = duplex(64 * 1024);
        let theirs = Trickle { inner: theirs, writes: Arc::clone(&writes), one_by_one };
        let serving =
            tokio::spawn(async move { agent.serve_connection(theirs, Peer::Unknown).await });
        let mut engine = Engine::ready(ours, New).await;
        assert_eq!(writes.load(Ordering::SeqCst), 1, "the handshake is one write");
        let ids: Vec<_> = (0..20).map(|n| engine.notify(&payload("m", n)).unwrap()).collect();
        for (number, id) in ids.into_iter().enumerate() {
            let expected = vec![format!("set-var txn.n int64:{number}")];
            assert_eq!(engine.next().await, Some(Told::Ack(id, expected)));
        }
        let answers = if one_by_one { 20 } else { 1 };
        assert_eq!(writes.load(Ordering::SeqCst), 1 + answers);
        drop(engine);
        serving.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_given_up() {
    let agent = Agent::inline(|_, ack| {
        let large = [b'x'; 1000];
        ack.set(Scope::Transaction, "large", &large[..])?;
        Ok(())
    });
    // What fits the pipe is the handshake and not much more.
    let (ours, theirs) = duplex(512);
    let serving = tokio::spawn(async move { agent.serve_connection(theirs, Peer::Unknown).await });
    let mut engine = Engine::ready(ours, New).await;
    engine.notify(&payload("m", 1)).unwrap();
    engine.flush().await;
    let before = tokio::time::Instant::now();
    let closed = serving.await.unwrap();
    let waited = before.elapsed().as_secs();
    // Once the pipe took a part: ten seconds are given again after the last progress.
    assert!((10..=20).contains(&waited), "{waited}");
    assert_eq!(closed.reason.to_string(), "timeout: the peer takes no output");
}

/// Reads a HELLO and a request, and has taken one answer when it breaks; it never gets to flush.
struct Breaking {
    input: Vec<Vec<u8>>,
    writes: usize,
}

impl Breaking {
    fn new() -> Self {
        let hello = EngineConnection::new(EngineConfig::new(Old), Instant::now());
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
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(input) = self.input.pop() else { return Poll::Pending };
        buf.put_slice(&input);
        Poll::Ready(Ok(()))
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

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_stream_that_broke_is_not_asked_to_flush() {
    let agent = Agent::inline(|_, _| Ok(()));
    let closed = agent.serve_connection(Breaking::new(), Peer::Unknown).await;
    assert_eq!((closed.reason, closed.stats.answered), (CloseReason::PeerClosed, 1));
}
