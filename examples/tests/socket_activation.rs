//! `ip-reputation --listen systemd[:NAME]`: a listener that was opened by somebody else, who still has it
//! when the agent is gone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: a panic is its way to fail"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use spop_proto::wire::NotifyPayload;
use spop_proto::{Dialect, EngineConfig, EngineConnection, EngineEvent};

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);

const RUNTIMES: [&[&str]; 4] = [
    &["--runtime", "tokio"],
    &["--runtime", "async-std"],
    &["--runtime", "blocking"],
    &["--runtime", "blocking", "--workers", "2"],
];

/// The program, with what systemd would give it. Dropped, it is killed.
struct Agent(Child);

impl Agent {
    /// The listener arrives as standard input, and the shell makes it what the first of systemd's is.
    fn start(listener: impl Into<OwnedFd>, listen: &str, runtime: &[&str]) -> Self {
        let script = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=spoe; exec \"$0\" \"$@\" 3<&0 </dev/null";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_ip-reputation"), "--listen", listen]);
        command.args(runtime).env("RUST_LOG", "warn").stdin(Stdio::from(listener.into()));
        Self(command.spawn().unwrap())
    }

    /// SIGTERM; it has to leave with status 0.
    fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let end = Instant::now() + PATIENCE;
        let status = loop {
            match self.0.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < end, "the agent does not end"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails where it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks for a score, as HAProxy would.
#[track_caller]
fn ask(mut stream: impl Read + Write) {
    let config = EngineConfig::new(Dialect::New).hello_timeout(None).unwrap();
    let mut engine = EngineConnection::new(config, Instant::now());
    let mut scratch = [0; 4096];
    let mut asked = false;
    loop {
        let output = engine.transmit().to_vec();
        stream.write_all(&output).unwrap();
        engine.transmitted(output.len());
        let read = stream.read(&mut scratch).unwrap();
        assert!(read > 0, "the agent closed the connection");
        let mut input = &scratch[..read];
        while let Some(event) = engine.receive(&mut input, Instant::now()).unwrap() {
            match event {
                EngineEvent::Hello(_) => asked = true,
                EngineEvent::Ack { actions, .. } => {
                    let actions: Vec<_> =
                        actions.map(|action| action.unwrap().to_string()).collect();
                    assert_eq!(actions, ["set-var txn.ip_score int32:10"]);
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
        if core::mem::take(&mut asked) {
            let payload =
                NotifyPayload::new("check-client-ip").arg("ip", Ipv4Addr::new(192, 0, 2, 1));
            engine.notify(payload.as_bytes().unwrap(), Instant::now()).unwrap();
        }
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One agent after the other on the same socket. A connection that is made while there is none waits.
#[track_caller]
fn tcp(runtime: &[&str]) {
    let ours = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = ours.local_addr().unwrap();
    for listen in ["systemd", "systemd:spoe"] {
        let waiting = patient(TcpStream::connect(address).unwrap());
        let agent = Agent::start(ours.try_clone().unwrap(), listen, runtime);
        ask(waiting);
        ask(patient(TcpStream::connect(address).unwrap()));
        agent.stop();
    }
    // Its first owner still has it, and it still listens.
    let last = TcpStream::connect(address).unwrap();
    let port = last.local_addr().unwrap();
    while ours.accept().unwrap().1 != port {}
}

#[test]
fn tcp_under_tokio() {
    tcp(RUNTIMES[0]);
}

#[test]
fn tcp_under_async_std() {
    tcp(RUNTIMES[1]);
}

#[test]
fn tcp_under_threads() {
    tcp(RUNTIMES[2]);
}

#[test]
fn tcp_under_threads_with_workers() {
    tcp(RUNTIMES[3]);
}

/// The file of a socket that was handed over is its owner's, and stays.
#[test]
fn unix_under_all() {
    let directory = std::env::temp_dir().join(format!("spop-activation-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::thread::scope(|scope| {
        for (number, runtime) in RUNTIMES.into_iter().enumerate() {
            let path = directory.join(number.to_string());
            scope.spawn(move || {
                let ours = UnixListener::bind(&path).unwrap();
                let agent = Agent::start(ours.try_clone().unwrap(), "systemd:spoe", runtime);
                let stream = UnixStream::connect(&path).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                ask(stream);
                agent.stop();
                assert!(UnixStream::connect(&path).is_ok(), "the socket is still open");
            });
        }
    });
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_is_missing_is_named() {
    let run = |listen: &str, fds: &str| {
        let script = "export LISTEN_PID=$$; exec \"$0\" --listen \"$1\"";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_ip-reputation"), listen]);
        let output = command.env("LISTEN_FDS", fds).env("LISTEN_FDNAMES", "a:b").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run("systemd", "0");
    assert!(said.contains("no listener for `systemd`: nothing was handed over"), "{said}");
    let said = run("systemd", "2");
    assert!(said.contains("2 were handed over: write systemd:NAME, of `a:b`"), "{said}");
    let said = run("systemd:c", "2");
    assert!(said.contains("none has that name"), "{said}");
}
