//! Where it listens, and what it accepts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use spop_proto::Dialect::{New, Old};
use spop_tokio::{Agent, Listener, Peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::common::{Engine, payload};
use crate::support::{ready, run, start};

#[tokio::test]
async fn a_unix_socket_is_replaced_when_stale_and_removed_at_the_end() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("spop-tokio-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    // A listener that is dropped leaves its file behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let endpoint = format!("unix:{}", path.display());
    let server = Agent::inline(|_, _| Ok(())).bind(&endpoint).await.unwrap();
    assert_eq!(server.local_addr().to_string(), endpoint);
    let (stop, running) = run(server);
    let mut engine = Engine::ready(UnixStream::connect(&path).await.unwrap(), Old).await;
    engine.ask(&payload("m", 1)).await;
    // Somebody listens: not stale.
    let error = Agent::inline(|_, _| Ok(())).bind(&endpoint).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with(&format!("cannot listen on {endpoint}: ")), "{error}");
    drop(engine);
    drop(stop);
    running.await.unwrap();
    assert!(!path.exists());
    // A socket file that has taken its place in the meantime is somebody else's.
    let first = Agent::inline(|_, _| Ok(())).bind(&endpoint).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = Agent::inline(|_, _| Ok(())).bind(&endpoint).await.unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
    // A listener with a full backlog is busy, not gone, and is not waited for.
    let busy = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    busy.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    busy.listen(0).unwrap();
    let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let error = Agent::inline(|_, _| Ok(())).bind(&endpoint).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    drop(busy);
    std::fs::remove_file(&path).unwrap();
    // A file that is no socket is left alone.
    std::fs::write(&path, "precious").unwrap();
    let error = Agent::inline(|_, _| Ok(())).bind(&endpoint).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn an_address_that_cannot_be_is_refused_with_its_name() {
    let error = Agent::inline(|_, _| Ok(())).bind("127.0.0.1").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "`127.0.0.1` is no endpoint: the port is missing; write HOST:PORT, unix:/PATH or systemd[:NAME]"
    );
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let _held = TcpListener::bind(taken).await.unwrap();
    let error = Agent::inline(|_, _| Ok(())).bind(taken.to_string()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot listen on {taken}: ")), "{error}");
}

#[tokio::test]
async fn what_is_not_spop_is_closed() {
    let (address, stop, running) = start(Agent::inline(|_, _| Ok(()))).await;
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // The goodbye of the protocol, then the end.
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer.get(4), Some(&102));
    }
    drop(stop);
    assert_eq!(running.await.unwrap().protocol_errors, 2);
}

/// Fails a few times for want of file descriptors, then accepts.
struct Exhausted {
    inner: TcpListener,
    failures: usize,
    asked: Arc<AtomicUsize>,
}

impl Listener for Exhausted {
    type Stream = TcpStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, Peer)>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(left) = self.failures.checked_sub(1) {
            self.failures = left;
            let too_many_open_files = 24;
            return Poll::Ready(Err(io::Error::from_raw_os_error(too_many_open_files)));
        }
        Listener::poll_accept(&mut self.inner, cx)
    }

    fn local_addr(&self) -> io::Result<spop_tokio::Endpoint> {
        Listener::local_addr(&self.inner)
    }
}

#[tokio::test]
async fn without_file_descriptors_it_waits_and_goes_on() {
    let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = inner.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let listener = Exhausted { inner, failures: 4, asked: Arc::clone(&asked) };
    let server = Agent::inline(|_, _| Ok(())).serve(listener).unwrap();
    let before = tokio::time::Instant::now();
    let (stop, running) = run(server);
    let mut engine = ready(address, New).await;
    // 5 + 10 + 20 + 40 ms of patience, not a busy loop.
    assert!(before.elapsed() >= Duration::from_millis(75));
    assert!(asked.load(Ordering::SeqCst) < 20);
    engine.ask(&payload("m", 1)).await;
    drop((engine, stop));
    running.await.unwrap();
}

#[tokio::test]
async fn accepted_sockets_have_nodelay_and_keepalive() {
    let mut listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _client = TcpStream::connect(address).await.unwrap();
    let accepted = std::future::poll_fn(|cx| Listener::poll_accept(&mut listener, cx)).await;
    let (stream, peer) = accepted.unwrap();
    assert!(stream.nodelay().unwrap());
    assert!(socket2::SockRef::from(&stream).keepalive().unwrap());
    assert!(matches!(peer, Peer::Tcp(_)));
}
