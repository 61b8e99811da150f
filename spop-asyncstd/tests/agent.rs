//! What is async-std's here: sockets, tasks, stop, timers, streams. HAProxy's side is blocking, so
//! that each wait is for the one thing that a test is about.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

#[path = "../../spop-proto/tests/common/engine.rs"]
mod engine;

use std::future::{pending, poll_fn};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use async_std::channel::{Sender, bounded};
use async_std::net::TcpListener;
use async_std::task::{self, JoinHandle};
use engine::Engine;
use futures_io::{AsyncRead, AsyncWrite};
use spop_asyncstd::{
    Action, Agent, AgentConfig, CloseReason, Closed, Dispatch, Endpoint, Limits, Listener, Peer,
    Report, Scope, Server, Timer,
};
use spop_proto::Dialect::Old;

fn doubling() -> Agent<impl Dispatch> {
    Agent::inline(|notify, ack| {
        let number: i64 = notify.require("m")?.get("number")?;
        Ok(ack.set(Scope::Transaction, "n", number * 2)?)
    })
}

/// An agent whose handlers wait for ever and tell when they were begun and dropped.
fn waiting() -> (Agent<impl Dispatch>, mpsc::Receiver<&'static str>) {
    struct Told(mpsc::Sender<&'static str>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    let (tell, told) = mpsc::channel();
    let agent = Agent::concurrent(move |x| {
        tell.send("begun").unwrap();
        let guard = Told(tell.clone());
        async move {
            pending::<()>().await;
            drop(guard);
            Ok(x)
        }
    });
    let failed = [Action::set(Scope::Transaction, "failed", true)];
    (agent.config(AgentConfig::new().fallback(failed).unwrap()), told)
}

/// Runs a server until the sender is dropped.
fn start<L: Listener>(
    server: Server<impl Dispatch, L>,
) -> (Option<SocketAddr>, Sender<()>, JoinHandle<Report>) {
    let address = server.local_addr().socket_addr();
    let (stop, stopped) = bounded(1);
    let running = task::spawn(server.run_until(async move {
        let _ = stopped.recv().await;
    }));
    (address, stop, running)
}

fn bind<D: Dispatch>(agent: Agent<D>) -> Server<D, spop_asyncstd::Bound> {
    task::block_on(agent.bind("127.0.0.1:0")).unwrap()
}

#[test]
fn a_stop_sends_what_is_owed_and_refuses_what_comes() {
    let (release, released) = bounded::<()>(1);
    let (tell, begun) = mpsc::channel();
    let agent = Agent::concurrent(move |mut x| {
        let released = released.clone();
        tell.send(()).unwrap();
        async move {
            let _ = released.recv().await;
            x.set(Scope::Transaction, "late", true)?;
            Ok(x)
        }
    });
    let (address, stop, running) = start(bind(agent));
    let address = address.unwrap();
    let mut idle = Engine::ready(TcpStream::connect(address).unwrap(), Old);
    let mut busy = Engine::ready(TcpStream::connect(address).unwrap(), Old);
    let asking = thread::spawn(move || (busy.ask(1), busy.next()));
    begun.recv().unwrap();
    drop(stop);
    assert!(idle.next().unwrap().starts_with("Disconnected"));
    drop(idle);
    assert!(TcpStream::connect(address).is_err(), "nobody listens, and one answer is still owed");
    drop(release);
    let (answer, goodbye) = asking.join().unwrap();
    assert_eq!(answer.unwrap(), "set-var txn.late bool:true");
    assert!(goodbye.unwrap().starts_with("Disconnected"));
    let report = task::block_on(running);
    assert_eq!((report.connections, report.drained, report.cut), (2, 2, 0));
}

#[test]
fn dropping_the_run_ends_its_connections_and_their_handlers() {
    let (agent, told) = waiting();
    let (address, _stop, running) = start(bind(agent));
    let address = address.unwrap();
    let mut engine = Engine::ready(TcpStream::connect(address).unwrap(), Old);
    let asking = thread::spawn(move || engine.ask(1));
    assert_eq!(told.recv().unwrap(), "begun");
    assert_eq!(task::block_on(running.cancel()), None);
    assert_eq!(told.recv().unwrap(), "dropped");
    assert_eq!(asking.join().unwrap(), None, "closed without an answer");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn deadlines_hold_and_cancel_the_handler() {
    let limits = Limits::new().answer_timeout(Duration::from_millis(80)).unwrap();
    let (agent, told) = waiting();
    let (address, stop, running) = start(bind(agent.limits(limits)));
    let mut engine = Engine::ready(TcpStream::connect(address.unwrap()).unwrap(), Old);
    let before = Instant::now();
    assert_eq!(engine.ask(1).unwrap(), "set-var txn.failed bool:true");
    assert!(before.elapsed() >= Duration::from_millis(80));
    assert_eq!([told.recv().unwrap(), told.recv().unwrap()], ["begun", "dropped"]);
    drop((engine, stop));
    assert_eq!(task::block_on(running).stats.deadlines, 1);
}

#[test]
fn a_unix_socket_is_replaced_when_stale_and_removed_at_the_end() {
    let name = format!("spop-asyncstd-{}.sock", std::process::id());
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    // A listener that is dropped leaves its file behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let endpoint = format!("unix:{}", path.display());
    let bind = || task::block_on(doubling().bind(&endpoint));
    let server = bind().unwrap();
    assert_eq!(server.local_addr().to_string(), endpoint);
    let refused = bind().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "somebody listens");
    assert!(refused.to_string().starts_with(&format!("cannot listen on {endpoint}: ")));
    let (_, stop, running) = start(server);
    let mut engine = Engine::ready(UnixStream::connect(&path).unwrap(), Old);
    assert_eq!(engine.ask(4).unwrap(), "set-var txn.n int64:8");
    drop((engine, stop));
    task::block_on(running);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(bind().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}

/// Reads one byte at a time, or panics.
struct Odd<S>(S, bool, Arc<AtomicUsize>);

impl<S: AsyncRead + Unpin> AsyncRead for Odd<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!self.1, "on purpose");
        Pin::new(&mut self.0).poll_read(cx, &mut buf[..1])
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Odd<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.2.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// Fails for want of file descriptors, then accepts a stream that panics, then good ones.
struct Troubled(TcpListener, usize);

impl Listener for Troubled {
    type Stream = Odd<async_std::net::TcpStream>;

    async fn accept(&mut self) -> io::Result<(Self::Stream, Peer)> {
        self.1 += 1;
        if self.1 <= 3 {
            return Err(io::Error::from_raw_os_error(24));
        }
        let (stream, peer) = Listener::accept(&mut self.0).await?;
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        Ok((Odd(stream, self.1 == 4, Arc::default()), peer))
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        Listener::local_addr(&self.0)
    }
}

#[test]
fn failures_to_accept_are_waited_out_and_a_panic_costs_one_connection() {
    let listener = task::block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let before = Instant::now();
    let (address, stop, running) = start(doubling().serve(Troubled(listener, 0)).unwrap());
    let mut first = TcpStream::connect(address.unwrap()).unwrap();
    assert_eq!(first.read(&mut [0; 10]).unwrap(), 0, "its task panicked");
    assert!(before.elapsed() >= Duration::from_millis(5 + 10 + 20));
    let mut second = Engine::ready(TcpStream::connect(address.unwrap()).unwrap(), Old);
    assert_eq!(second.ask(4).unwrap(), "set-var txn.n int64:8");
    drop((second, stop));
    let report = task::block_on(running);
    assert_eq!((report.connections, report.stats.answered), (2, 1));
}

/// A clock that a test moves by hand.
#[derive(Clone)]
struct Manual(Arc<Mutex<(Instant, Vec<Waker>)>>);

impl Timer for Manual {
    type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn wait_until(&self, at: Instant) -> Self::Wait {
        let clock = Arc::clone(&self.0);
        Box::pin(poll_fn(move |cx| {
            let mut clock = clock.lock().unwrap();
            if clock.0 >= at {
                return Poll::Ready(());
            }
            clock.1.push(cx.waker().clone());
            Poll::Pending
        }))
    }

    fn now(&self) -> Instant {
        self.0.lock().unwrap().0
    }
}

/// Serves smol's kind of stream (`smol::Async` is this `Async`) on a thread of its own, under smol's
/// `block_on`, byte by byte.
fn serve_on_smol<T: Timer<Wait: Send> + Send + Sync + 'static>(
    stop: impl Future<Output = ()> + Send + 'static,
    timer: T,
) -> (UnixStream, Arc<AtomicUsize>, thread::JoinHandle<Closed>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let writes = Arc::new(AtomicUsize::new(0));
    let theirs = Odd(async_io::Async::new(theirs).unwrap(), false, Arc::clone(&writes));
    let limits = Limits::new().idle_timeout(Some(Duration::from_secs(3600)));
    let serving = doubling().limits(limits).serve_connection_with(theirs, Peer::Unix, stop, timer);
    (ours, writes, thread::spawn(|| async_io::block_on(serving)))
}

#[test]
fn any_futures_io_stream_is_served_byte_by_byte_with_one_write_an_answer() {
    let (stop, stopped) = bounded::<()>(1);
    let stopped = async move {
        let _ = stopped.recv().await;
    };
    let (ours, writes, serving) = serve_on_smol(stopped, async_io::Timer::at);
    let mut engine = Engine::ready(ours, Old);
    for number in 1..=10 {
        assert_eq!(engine.ask(number), Some(format!("set-var txn.n int64:{}", number * 2)));
    }
    assert_eq!(writes.load(Ordering::SeqCst), 1 + 10, "the handshake, and each answer");
    drop(stop);
    assert!(engine.next().unwrap().starts_with("Disconnected"));
    drop(engine);
    assert_eq!(serving.join().unwrap().reason, CloseReason::Drained);
}

#[test]
fn deadlines_go_by_the_callers_timer() {
    let clock = Manual(Arc::new(Mutex::new((Instant::now(), Vec::new()))));
    let (ours, _, serving) = serve_on_smol(pending(), clock.clone());
    let mut engine = Engine::ready(ours, Old);
    assert_eq!(engine.ask(1).unwrap(), "set-var txn.n int64:2");
    let mut now = clock.0.lock().unwrap();
    now.0 += Duration::from_secs(24 * 3600);
    now.1.drain(..).for_each(Waker::wake);
    drop(now);
    assert!(engine.next().unwrap().starts_with("Disconnected"));
    drop(engine);
    assert_eq!(serving.join().unwrap().reason, CloseReason::Idle);
}
