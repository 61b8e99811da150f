//! The adapter over real sockets and in-memory streams, asked by HAProxy's side of the protocol.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod common;

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use common::{Engine, Told, payload};
use spop_proto::Dialect::{New, Old};
use spop_proto::EngineConfig;
use spop_proto::wire::NotifyPayload;
use spop_tokio::{
    Action, Agent, AgentConfig, CloseReason, HealthState, Limits, Listener, Peer, Report, Scope,
};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Starts an agent on a port of its own; gives the address, the way to stop it, and its report.
macro_rules! start {
    ($agent:expr) => {{
        let server = $agent.bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().socket_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running: JoinHandle<Report> = tokio::spawn(server.run_until(async {
            let _ = stopped.await;
        }));
        (address, stop, running)
    }};
}

fn fallback() -> AgentConfig {
    AgentConfig::new().fallback([Action::set(Scope::Transaction, "failed", true)]).unwrap()
}

const FALLBACK: [&str; 1] = ["set-var txn.failed bool:true"];

#[tokio::test]
async fn answers_inline_for_both_generations() {
    let (address, stop, running) = start!(Agent::inline(|notify, ack| {
        let number: i64 = notify.require("double")?.get("number")?;
        ack.set(Scope::Transaction, "number", number * 2)?;
        Ok(())
    }));
    for dialect in [Old, New] {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut engine = Engine::ready(stream, dialect).await;
        for number in 0..100 {
            let expected = format!("set-var txn.number int64:{}", number * 2);
            assert_eq!(engine.ask(&payload("double", number)).await, [expected]);
        }
    }
    drop(stop);
    let report = running.await.unwrap();
    assert_eq!(report.stats.answered, 200);
    assert_eq!(report.connections, 2);
}

#[tokio::test]
async fn a_slow_answer_holds_up_no_other_and_all_come_in_any_order() {
    let (release, released) = mpsc::unbounded_channel::<i64>();
    let waiting = Arc::new(tokio::sync::Mutex::new(released));
    // Each request waits for its turn: a number is let go only when it is named.
    let turn = Arc::new(tokio::sync::watch::Sender::new(i64::MAX));
    let watched = Arc::clone(&turn);
    let (address, stop, running) = start!(Agent::concurrent(move |mut x| {
        let mut turn = watched.subscribe();
        async move {
            let number: i64 = x.require("m")?.get("number")?;
            turn.wait_for(|turn| *turn == number).await?;
            x.set(Scope::Transaction, "number", number)?;
            Ok(x)
        }
    }));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut engine = Engine::ready(stream, New).await;
    let ids: Vec<_> = (0..20).map(|n| engine.notify(&payload("m", n)).unwrap()).collect();
    engine.flush().await;
    for number in (0..20).rev() {
        turn.send_replace(number);
        let told = engine.next().await.unwrap();
        let expected = vec![format!("set-var txn.number int64:{number}")];
        assert_eq!(told, Told::Ack(ids[usize::try_from(number).unwrap()], expected));
    }
    drop((stop, release, waiting));
    assert_eq!(running.await.unwrap().stats.answered, 20);
}

#[tokio::test]
async fn failing_handlers_cost_their_own_request_only() {
    let inline = Agent::inline(|notify, ack| {
        ack.set(Scope::Transaction, "half", 1)?;
        match notify.require("m")?.get::<i64>("number")? {
            0 => Err(io::Error::other("on purpose").into()),
            1 => panic!("on purpose"),
            _ => Ok(()),
        }
    });
    let concurrent = Agent::concurrent(|mut x| async move {
        x.set(Scope::Transaction, "half", 1)?;
        let number = x.require("m")?.get::<i64>("number")?;
        if number < 10 {
            tokio::task::yield_now().await;
        }
        match number % 10 {
            0 => Err(io::Error::other("on purpose").into()),
            1 => panic!("on purpose"),
            _ => Ok(x),
        }
    });
    let (address, stop, running) = start!(inline.config(fallback()));
    let mut engine = Engine::ready(TcpStream::connect(address).await.unwrap(), New).await;
    for number in [0, 1] {
        assert_eq!(engine.ask(&payload("m", number)).await, FALLBACK);
    }
    assert_eq!(engine.ask(&payload("m", 2)).await, ["set-var txn.half int32:1"]);
    drop(stop);
    let report = running.await.unwrap();
    assert_eq!((report.stats.errors, report.stats.panics, report.stats.answered), (1, 1, 1));

    let (address, stop, running) = start!(concurrent.config(fallback()));
    let mut engine = Engine::ready(TcpStream::connect(address).await.unwrap(), New).await;
    // Below 10 the future waits once before it fails, from 10 on it fails when first polled.
    for number in [0, 1, 10, 11] {
        assert_eq!(engine.ask(&payload("m", number)).await, FALLBACK);
    }
    assert_eq!(engine.ask(&payload("m", 2)).await, ["set-var txn.half int32:1"]);
    drop(stop);
    let report = running.await.unwrap();
    assert_eq!((report.stats.errors, report.stats.panics, report.stats.answered), (2, 2, 1));
}

/// Counts the futures that were dropped before they were done.
struct Cancelled(Arc<AtomicUsize>, Option<oneshot::Sender<()>>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        if let Some(tell) = self.1.take() {
            let _ = tell.send(());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_replaced_by_the_fallback_and_its_future_dropped() {
    let cancelled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&cancelled);
    let limits = Limits::new().answer_timeout(Duration::from_millis(80)).unwrap();
    let agent = Agent::concurrent(move |x| {
        let guard = Cancelled(Arc::clone(&counter), None);
        async move {
            pending::<()>().await;
            drop(guard);
            Ok(x)
        }
    });
    let agent = agent.config(fallback().limits(limits));
    let (ours, theirs) = duplex(64 * 1024);
    let serving = tokio::spawn(async move { agent.serve_connection(theirs, Peer::Unknown).await });
    let mut engine = Engine::ready(ours, New).await;
    let before = tokio::time::Instant::now();
    assert_eq!(engine.ask(&payload("m", 1)).await, FALLBACK);
    let waited = before.elapsed();
    assert!((80..90).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(cancelled.load(Ordering::SeqCst), 1);
    drop(engine);
    assert_eq!(serving.await.unwrap().stats.deadlines, 1);
}

#[tokio::test]
async fn a_closed_connection_cancels_its_handlers() {
    let cancelled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&cancelled);
    let (told, dropped) = oneshot::channel();
    let told = std::sync::Mutex::new(Some(told));
    let agent = Agent::concurrent(move |x| {
        let guard = Cancelled(Arc::clone(&counter), told.lock().unwrap().take());
        async move {
            pending::<()>().await;
            drop(guard);
            Ok(x)
        }
    });
    let (address, stop, running) = start!(agent);
    let mut engine = Engine::ready(TcpStream::connect(address).await.unwrap(), New).await;
    engine.notify(&payload("m", 1)).unwrap();
    engine.flush().await;
    drop(engine);
    dropped.await.unwrap();
    assert_eq!(cancelled.load(Ordering::SeqCst), 1);
    drop(stop);
    assert_eq!(running.await.unwrap().stats.abandoned, 1);
}

#[tokio::test]
async fn health_checks_follow_the_switch_while_requests_are_served() {
    let agent = Agent::inline(|_, ack| Ok(ack.set(Scope::Transaction, "ok", true)?));
    let health = agent.health();
    let (address, stop, running) = start!(agent);
    for dialect in [Old, New] {
        for (state, well) in [(HealthState::Ready, true), (HealthState::NotReady, false)] {
            health.set(state);
            let stream = TcpStream::connect(address).await.unwrap();
            let config = EngineConfig::new(dialect).health_check();
            let told = Engine::new(stream, config).next().await;
            match told {
                Some(Told::Check(result)) => assert_eq!(result.is_ok(), well, "{result:?}"),
                other => panic!("{other:?}"),
            }
            let mut engine =
                Engine::ready(TcpStream::connect(address).await.unwrap(), dialect).await;
            assert_eq!(engine.ask(&payload("m", 1)).await, ["set-var txn.ok bool:true"]);
        }
    }
    drop(stop);
    let report = running.await.unwrap();
    assert_eq!(report.health_checks, 4);
    assert_eq!(report.stats.answered, 4);
}

#[tokio::test]
async fn over_the_limit_health_checks_are_answered_and_the_rest_turned_away() {
    let limits = Limits::new().connections(1.try_into().unwrap());
    let (address, stop, running) = start!(Agent::inline(|_, _| Ok(())).limits(limits));
    let mut first = Engine::ready(TcpStream::connect(address).await.unwrap(), New).await;
    let check = EngineConfig::new(New).health_check();
    let mut second = Engine::new(TcpStream::connect(address).await.unwrap(), check);
    assert_eq!(second.next().await, Some(Told::Check(Ok(()))));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut third = Engine::new(stream, EngineConfig::new(New));
    assert_eq!(third.next().await, None, "closed without a word");
    assert_eq!(first.ask(&payload("m", 1)).await, Vec::<String>::new());
    drop(first);
    drop(stop);
    let report = running.await.unwrap();
    assert_eq!((report.connections, report.refused, report.health_checks), (3, 1, 1));
}

/// HAProxy <= 3.0 comes back at once, hundreds of times a second: those that are turned away must
/// not keep the seats taken.
#[tokio::test]
async fn a_storm_of_refused_connections_takes_no_seat() {
    let limits = Limits::new().connections(1.try_into().unwrap());
    let (address, stop, running) = start!(Agent::inline(|_, _| Ok(())).limits(limits));
    let first = Engine::ready(TcpStream::connect(address).await.unwrap(), New).await;
    let mut refused = Vec::new();
    for _ in 0..10 {
        let stream = TcpStream::connect(address).await.unwrap();
        refused.push(Engine::new(stream, EngineConfig::new(New)));
    }
    drop(first);
    // The refused ones are still there, and the seat is free: somebody gets it.
    loop {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut next = Engine::new(stream, EngineConfig::new(New));
        if matches!(next.next().await, Some(Told::Hello { .. })) {
            break;
        }
    }
    drop((refused, stop));
    running.await.unwrap();
}

#[tokio::test]
async fn a_stop_sends_what_is_owed_and_says_goodbye() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let agent = Agent::concurrent(move |mut x| {
        let gate = Arc::clone(&opened);
        async move {
            gate.acquire().await?.forget();
            x.set(Scope::Transaction, "late", true)?;
            Ok(x)
        }
    });
    let (address, stop, running) = start!(agent);
    let connect = || TcpStream::connect(address);
    let mut fresh = connect().await.unwrap();
    let mut idle = Engine::ready(connect().await.unwrap(), Old).await;
    let mut busy = Engine::ready(connect().await.unwrap(), Old).await;
    let id = busy.notify(&payload("m", 1)).unwrap();
    busy.flush().await;
    // A second request on the same connection shows that the first has arrived.
    gate.add_permits(1);
    let second = busy.notify(&payload("m", 2)).unwrap();
    let first_answer = busy.next().await.unwrap();
    drop(stop);
    assert_eq!(idle.next().await, Some(Told::Goodbye(0)));
    assert_eq!(idle.next().await, None);
    assert_eq!(fresh.read(&mut [0; 10]).await.unwrap(), 0, "left without a word");
    gate.add_permits(1);
    let second_answer = busy.next().await.unwrap();
    let answered: Vec<_> = [first_answer, second_answer]
        .into_iter()
        .map(|told| match told {
            Told::Ack(id, actions) => (id, actions),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(answered.iter().any(|(done, _)| *done == id));
    assert!(answered.iter().any(|(done, _)| *done == second));
    assert_eq!(busy.next().await, Some(Told::Goodbye(0)));
    drop((busy, idle));
    let report = running.await.unwrap();
    assert_eq!((report.drained, report.cut, report.stats.answered), (3, 0, 2));
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(start_paused = true)]
async fn past_the_drain_deadline_the_rest_is_cut() {
    let agent = Agent::concurrent(|x| async move {
        pending::<()>().await;
        Ok(x)
    });
    let limits = Limits::new()
        .drain_timeout(Duration::from_secs(5))
        .and_then(|limits| limits.answer_timeout(Duration::from_secs(60)))
        .unwrap();
    let agent = agent.limits(limits);
    let (ours, theirs) = duplex(64 * 1024);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        agent.serve_connection_until(theirs, Peer::Unknown, stopped).await
    });
    let mut engine = Engine::ready(ours, Old).await;
    let id = engine.notify(&payload("m", 1)).unwrap();
    engine.flush().await;
    drop(stop);
    let before = tokio::time::Instant::now();
    assert_eq!(engine.next().await, Some(Told::Goodbye(0)));
    assert_eq!(before.elapsed().as_secs(), 5);
    assert!(matches!(engine.next().await, Some(Told::Failed(failed, _)) if failed == id));
    drop(engine);
    let closed = serving.await.unwrap();
    assert_eq!(closed.reason, CloseReason::Cut { owed: 1 });
    assert_eq!(closed.stats.abandoned, 1);
}

#[tokio::test]
async fn before_it_leaves_a_lame_duck_still_serves() {
    let config = AgentConfig::new();
    let agent = Agent::inline(|_, _| Ok(())).config(config.clone());
    let (address, stop, running) = start!(agent.lame_duck(Duration::from_secs(1)));
    // Another server with the same configuration, which is not told to stop.
    let (other, stop_other, other_running) = start!(Agent::inline(|_, _| Ok(())).config(config));
    let check = |address| async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let told = Engine::new(stream, EngineConfig::new(New).health_check()).next().await;
        matches!(told, Some(Told::Check(Ok(()))))
    };
    let mut engine = Engine::ready(TcpStream::connect(address).await.unwrap(), New).await;
    assert!(check(address).await);
    drop(stop);
    while check(address).await {
        tokio::task::yield_now().await;
    }
    assert!(check(other).await, "one server's end is not another's");
    drop(stop_other);
    other_running.await.unwrap();
    let mut late = Engine::ready(TcpStream::connect(address).await.unwrap(), New).await;
    late.ask(&payload("m", 1)).await;
    engine.ask(&payload("m", 1)).await;
    assert_eq!(engine.next().await, Some(Told::Goodbye(0)));
    drop((engine, late));
    assert_eq!(running.await.unwrap().stats.answered, 2);
}

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
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run_until(async {
        let _ = stopped.await;
    }));
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
async fn a_payload_in_fragments_arrives_whole() {
    let (address, stop, running) = start!(Agent::inline(|notify, ack| {
        let body: &[u8] = notify.require("body")?.get("body")?;
        ack.set(Scope::Transaction, "length", u32::try_from(body.len())?)?;
        Ok(())
    }));
    let stream = TcpStream::connect(address).await.unwrap();
    let config = EngineConfig::new(Old).max_frame_size(256).unwrap();
    let mut engine = Engine::new(stream, config);
    assert!(matches!(engine.next().await, Some(Told::Hello { .. })));
    let body = vec![b'B'; 100_000];
    let answer = engine.ask(&NotifyPayload::new("body").arg("body", &body)).await;
    assert_eq!(answer, ["set-var txn.length uint32:100000"]);
    drop((engine, stop));
    running.await.unwrap();
}

#[tokio::test]
async fn what_is_not_spop_is_closed() {
    let (address, stop, running) = start!(Agent::inline(|_, _| Ok(())));
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
    let (stop, stopped) = oneshot::channel::<()>();
    let before = tokio::time::Instant::now();
    let running = tokio::spawn(server.run_until(async {
        let _ = stopped.await;
    }));
    let mut engine = Engine::ready(TcpStream::connect(address).await.unwrap(), New).await;
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
