//! What the operator is told, and what never.
#![cfg(feature = "tracing")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

#[allow(dead_code, reason = "the other tests use the rest")]
mod common;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use common::Engine;
use spop_proto::Dialect::New;
use spop_proto::wire::{NotifyPayload, Value};
use spop_tokio::{Agent, HandlerError, Peer, Router, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tracing::Level;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// A log that is kept.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Keeps what this thread logs from that level on, as long as the guard lives.
    fn keep(level: Level) -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .without_time()
            .with_writer(log.clone());
        (log, subscriber.finish().set_default())
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

const SECRET: &str = "a-value-of-a-request";

#[tokio::test]
async fn a_connection_has_a_span_a_reason_and_no_values() {
    let (log, _guard) = Log::keep(Level::TRACE);
    let agent = Agent::inline(|notify, ack| {
        let secret: &str = notify.require("m")?.get("secret")?;
        ack.set(Scope::Transaction, "copy", secret)?;
        Err(HandlerError::new("the handler's own words"))
    });
    let (ours, theirs) = duplex(64 * 1024);
    let client = async move {
        let mut engine = Engine::ready(ours, New).await;
        for _ in 0..3 {
            engine.ask(&NotifyPayload::new("m").arg("secret", SECRET)).await;
        }
    };
    let peer = Peer::Tcp("192.0.2.1:4711".parse().unwrap());
    tokio::join!(agent.serve_connection(theirs, peer), client);
    let lines = log.lines();
    let one = |part: &str| {
        let found: Vec<_> = lines.iter().filter(|line| line.contains(part)).collect();
        assert_eq!(found.len(), 1, "{part}: {lines:#?}");
        found.into_iter().next().unwrap().clone()
    };
    let span = "connection{peer=192.0.2.1:4711 dialect=\"new\" engine_id=00000000-0000-4000-8000-000000000000}";
    assert!(one("handshake done").contains("max_frame_size=16380"));
    // Three failures, one line: the others are counted for the next one.
    let first = one("first connection of HAProxy");
    assert!(first.contains("INFO") && first.contains("dialect=\"new\""), "{first}");
    let warning = one("the handler's own words");
    assert!(warning.contains("WARN") && warning.contains(span), "{warning}");
    let closed = one("connection closed");
    assert!(closed.contains("DEBUG") && closed.contains("reason=closed by the peer"), "{closed}");
    assert!(lines.iter().all(|line| !line.contains(SECRET)), "{lines:#?}");
}

/// What is answered at once, and what is answered later.
#[tokio::test]
async fn frames_are_traced_by_their_names_and_sizes() {
    let (log, _guard) = Log::keep(Level::TRACE);
    let router = Router::new()
        .on("now", |_, ack| Ok(ack.set(Scope::Transaction, "v", true)?))
        .concurrent("later", |mut x| async move {
            tokio::task::yield_now().await;
            x.set(Scope::Transaction, "v", true)?;
            Ok(x)
        });
    let agent = Agent::with(router);
    let (ours, theirs) = duplex(64 * 1024);
    let client = async move {
        let mut engine = Engine::ready(ours, New).await;
        let now = NotifyPayload::new("now").arg("secret", SECRET).arg("", SECRET).message("b\n");
        engine.ask(&now).await;
        engine.ask(&NotifyPayload::new("later")).await;
    };
    tokio::join!(agent.serve_connection(theirs, Peer::Unknown), client);
    let frames: Vec<_> = log
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("TRACE"))
        .map(|line| line.split_once("spop_tokio::log: ").unwrap().1.to_owned())
        .collect();
    assert_eq!(
        frames,
        [
            "NOTIFY stream_id=1 frame_id=1 bytes=61 messages=now(secret, _) b\\n()",
            "ACK stream_id=1 frame_id=1 bytes=6",
            "NOTIFY stream_id=3 frame_id=1 bytes=7 messages=later()",
            "ACK stream_id=3 frame_id=1 bytes=6",
        ]
    );
}

/// Declared and not sent, once for two requests; a handler of its own for that is not talked over.
#[tokio::test]
async fn arguments_that_are_not_sent_are_told_of() {
    for own in [false, true] {
        let (log, _guard) = Log::keep(Level::INFO);
        let mut router = Router::new().on("m", |_, _| Ok(())).declares(["ip=src", "id?=unique-id"]);
        if own {
            router = router.on_mismatch(|_| {});
        }
        let agent = Agent::new(router);
        let (ours, theirs) = duplex(64 * 1024);
        let client = async move {
            let mut engine = Engine::ready(ours, New).await;
            for _ in 0..2 {
                engine.ask(&NotifyPayload::new("m").arg("secret", SECRET)).await;
            }
        };
        tokio::join!(agent.serve_connection(theirs, Peer::Unknown), client);
        let lines = log.lines();
        let told: Vec<_> = lines.iter().filter(|line| line.contains("something else")).collect();
        assert_eq!(told.len(), usize::from(!own), "{lines:#?}");
        let right =
            |line: &&String| line.contains("WARN") && line.contains("argument ip is missing");
        assert!(told.iter().all(right), "{told:?}");
        assert!(lines.iter().all(|line| !line.contains(SECRET)), "{lines:#?}");
    }
}

/// HAProxy may have nothing to send for good reasons: a hint, and no warning.
#[tokio::test]
async fn an_argument_that_is_always_null_is_hinted_at() {
    let (log, _guard) = Log::keep(Level::INFO);
    let agent = Agent::new(Router::new().on("m", |_, _| Ok(())).declares(["ip=src"]));
    let (ours, theirs) = duplex(64 * 1024);
    let client = async move {
        let mut engine = Engine::ready(ours, New).await;
        for _ in 0..1001 {
            engine.ask(&NotifyPayload::new("m").arg("ip", Value::Null)).await;
        }
    };
    tokio::join!(agent.serve_connection(theirs, Peer::Unknown), client);
    let lines = log.lines();
    let told: Vec<_> = lines.iter().filter(|line| line.contains("something else")).collect();
    assert!(told.len() == 1 && told[0].contains("INFO"), "{lines:#?}");
    assert!(told[0].contains("argument ip") && told[0].contains("NULL"), "{told:?}");
}

#[tokio::test]
async fn a_peer_that_speaks_http_is_told_apart() {
    let (log, _guard) = Log::keep(Level::INFO);
    let agent = Agent::inline(|_, _| Ok(()));
    let (mut ours, theirs) = duplex(64 * 1024);
    let client = async move {
        ours.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let _ = ours.read(&mut [0; 1000]).await;
    };
    tokio::join!(agent.serve_connection(theirs, Peer::Unknown), client);
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.contains("an HTTP request")), "{lines:#?}");
}

/// One line for all of them in ten seconds, at the level a log usually has: what it was and who.
#[tokio::test(start_paused = true)]
async fn a_probe_is_one_clear_line() {
    let probes: [(&[u8], &str); 7] = [
        (b"GET / HTTP/1.1\r\n\r\n", "an HTTP request"),
        (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], "a TLS handshake"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "a PROXY protocol header"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0", "a PROXY protocol header"),
        (b"help\r\n", "text"),
        (b"\xff\xfd\x01\xff", "a length of 4294771199 bytes"),
        (b"\x81\x02\x03\x04\x05", "a length of 2164392708 bytes"),
    ];
    let (log, _guard) = Log::keep(Level::INFO);
    let agent = Agent::inline(|_, _| Ok(()));
    let peer = Peer::Tcp("192.0.2.1:4711".parse().unwrap());
    for (bytes, what) in probes {
        let before = log.lines().len();
        for _ in 0..10 {
            let (mut ours, theirs) = duplex(64 * 1024);
            let client = async move {
                ours.write_all(bytes).await.unwrap();
                let mut said = Vec::new();
                ours.read_to_end(&mut said).await.unwrap();
                assert_eq!(said[4], 102, "not a goodbye");
            };
            tokio::join!(agent.serve_connection(theirs, peer), client);
        }
        let lines = log.lines().split_off(before);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        for part in ["WARN", what, "peer=192.0.2.1:4711", "suppressed="] {
            assert!(lines[0].contains(part), "{part}: {}", lines[0]);
        }
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
    }
    // Nothing is wrong about one that says nothing: it is told at a level for those who look for it.
    let before = log.lines().len();
    let (ours, theirs) = duplex(64 * 1024);
    drop(ours);
    agent.serve_connection(theirs, peer).await;
    assert_eq!(log.lines().len(), before);
}
