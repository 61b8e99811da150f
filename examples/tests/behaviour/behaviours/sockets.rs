//! Unix sockets, and streams that are no sockets: TLS.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use socket2::SockRef;
use spop_proto::Dialect::{self, New, Old};
use spop_proto::server::Closed;
use spop_proto::{CloseReason, Endpoint, Status};

use crate::adapter::Running;
use crate::bench::Bench;
use crate::client::{Client, Told, patient};
use crate::script::{Word, echo};
use crate::{stream, tls};

/// A path of its own; whatever is there is removed at the end.
pub(super) struct Socket(PathBuf);

impl Socket {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("spop-behaviour-{}-{number}.sock", std::process::id());
        // Not below the target directory: the path of a socket has at most 107 bytes.
        Self(std::env::temp_dir().join(name))
    }

    pub(super) fn bind(&self, bench: &Bench) -> io::Result<Running> {
        let mut setup = bench.setup();
        setup.endpoint = Endpoint::Unix(self.0.clone());
        bench.adapter.start(setup)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Served like any other, and ended like any other.
pub(super) fn unix(bench: &Bench) {
    let socket = Socket::new();
    let mut agent = socket.bind(bench).unwrap();
    assert_eq!(*agent.endpoint(), Endpoint::Unix(socket.0.clone()));
    let mut clients = [Old, New].map(|dialect| Client::ready(agent.endpoint(), dialect));
    for client in &mut clients {
        for number in 0..20 {
            assert_eq!(client.ask(&Word::Echo.number(number)), echo(number));
        }
    }
    agent.ask_to_stop();
    for client in &mut clients {
        assert_eq!(client.next(), Some(Told::Goodbye(0)));
        client.expect_end();
    }
    let report = agent.report();
    assert_eq!((report.stats.answered, report.drained), (40, 2), "{report}");
}

/// A stale file is replaced, any other left alone; at the end there is none.
pub(super) fn unix_file(bench: &Bench) {
    let socket = Socket::new();
    // A listener that is dropped leaves its file behind.
    drop(UnixListener::bind(&socket.0).unwrap());
    assert!(socket.0.exists());
    let agent = socket.bind(bench).unwrap();
    let mut client = Client::ready(agent.endpoint(), Old);
    let error = socket.bind(bench).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
    assert!(error.to_string().contains(&socket.0.display().to_string()), "{error}");
    assert_eq!(client.ask(&Word::Echo.number(1)), echo(1));
    drop(client);
    agent.stop();
    assert!(!socket.0.exists());

    fs::write(&socket.0, "precious").unwrap();
    let error = socket.bind(bench).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
    assert_eq!(fs::read_to_string(&socket.0).unwrap(), "precious");
}

/// A stream that takes more than goes out at once, and has to be flushed.
pub(super) fn tls(bench: &Bench) {
    for dialect in [Old, New] {
        let closed = over_tls(bench, dialect, |client| {
            client.hello();
            let ids: Vec<_> = (0..20).map(|n| client.queue(&Word::Echo.number(n))).collect();
            client.flush();
            let mut answers: Vec<_> = ids.iter().map(|_| client.ack()).collect();
            if bench.mode.overtakes() {
                answers.sort_by_key(|(id, _)| ids.iter().position(|sent| sent == id));
            }
            for ((number, id), answer) in (0..).zip(ids).zip(answers) {
                assert_eq!(answer, (id, echo(number)));
            }
            // More than the session and the sockets hold.
            for _ in 0..20 {
                client.queue(&Word::Fill.number(16_000));
            }
            client.flush();
            for _ in 0..20 {
                assert_eq!(client.ack().1.len(), 1);
            }
            client.shutdown();
            if dialect == Old {
                assert_eq!(client.next(), Some(Told::Goodbye(0)));
            }
            client.expect_end();
        });
        let expected = match dialect {
            Old => CloseReason::Haproxy { status: Status::NORMAL, message: "normal".into() },
            New => CloseReason::PeerClosed,
        };
        assert_eq!(closed.reason, expected);
        assert_eq!((closed.stats.answered, closed.stats.abandoned), (40, 0));
    }
}

/// The end of the connection is said in TLS, too: without that it could be an attacker's doing.
pub(super) fn tls_close_notify(bench: &Bench) {
    over_tls(bench, Old, |client| {
        client.hello();
        client.shutdown();
        assert_eq!(client.next(), Some(Told::Goodbye(0)));
        client.expect_end();
        assert!(!client.was_cut_off());
    });
}

/// Serves one connection.
fn over_tls(bench: &Bench, dialect: Dialect, haproxy: impl FnOnce(&mut Client)) -> Closed {
    let (server, client) = tls::configurations();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    SockRef::from(&tcp).set_recv_buffer_size(8 * 1024).unwrap();
    SockRef::from(&accepted).set_send_buffer_size(8 * 1024).unwrap();
    let (setup, adapter) = (bench.setup(), bench.adapter);
    thread::scope(|scope| {
        let serving = scope.spawn(move || adapter.serve_tls(setup, accepted, server).unwrap());
        let stream = tls::connect(stream::patient(tcp).unwrap(), client);
        haproxy(&mut Client::new(Box::new(stream), patient(dialect)));
        serving.join().unwrap()
    })
}
