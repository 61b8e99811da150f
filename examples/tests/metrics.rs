//! `ip-reputation --metrics`: what the page says is what was asked, under each runtime.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: a panic is its way to fail"
)]

#[path = "../../spop-proto/tests/common/exposition.rs"]
mod exposition;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use exposition::Exposition;
use spop_proto::wire::{NotifyPayload, Value};
use spop_proto::{Dialect, EngineConfig, EngineConnection, EngineEvent};

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);

const RUNTIMES: [(&str, &[&str]); 4] = [
    ("tokio", &["--runtime", "tokio"]),
    ("async-std", &["--runtime", "async-std"]),
    ("blocking", &["--runtime", "blocking"]),
    ("blocking", &["--runtime", "blocking", "--workers", "2"]),
];

/// The program, what it logs, and where it listens. Dropped, it is killed.
struct Agent {
    child: Child,
    log: mpsc::Receiver<String>,
    spop: SocketAddr,
    metrics: SocketAddr,
}

impl Agent {
    fn start(runtime: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ip-reputation"));
        command.args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]).args(runtime);
        let mut child = command.env("RUST_LOG", "info").stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (line, log) = mpsc::channel();
        std::thread::spawn(move || {
            for read in stderr.lines() {
                let _ = line.send(read.unwrap());
            }
        });
        let metrics = address(&log, "metrics at /metrics", "address=");
        let spop = address(&log, "agent listening", "listen=");
        Self { child, log, spop, metrics }
    }

    /// What HTTP answers.
    fn http(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length = format!("Content-Length: {}", body.len());
        assert!(head.contains(&length), "{head}");
        (head.to_owned(), body.to_owned())
    }

    fn page(&self) -> Exposition {
        let (head, body) = self.http("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        Exposition::read(&body).unwrap()
    }

    /// The page, once it says so. Counters lag behind by a turn: an answer can be here before it is
    /// counted.
    fn page_with(&self, name: &str, labels: &[(&str, &str)], value: &str) -> Exposition {
        let end = Instant::now() + PATIENCE;
        loop {
            let page = self.page();
            if page.value(name, labels) == Some(value) {
                return page;
            }
            assert!(Instant::now() < end, "{name}{labels:?} is {:?}", page.value(name, labels));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(log: &mpsc::Receiver<String>, line: &str, field: &str) -> SocketAddr {
    loop {
        let read = log.recv_timeout(PATIENCE).unwrap();
        let plain = read.replace("\u{1b}[0m", "");
        if plain.contains(line) {
            let (_, rest) = plain.split_once(field).unwrap();
            return rest.split(' ').next().unwrap().parse().unwrap();
        }
    }
}

/// HAProxy's side of a connection.
struct Asker {
    stream: TcpStream,
    engine: EngineConnection,
}

impl Asker {
    fn connect(address: SocketAddr, dialect: Dialect) -> Self {
        let config = EngineConfig::new(dialect).hello_timeout(None).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut asker = Self { stream, engine: EngineConnection::new(config, Instant::now()) };
        while !asker.turn(|event| matches!(event, EngineEvent::Hello(_))) {}
        asker
    }

    fn ask(&mut self, ip: Value<'_>) {
        let payload = NotifyPayload::new("check-client-ip").arg("ip", ip).arg("id", "request-7");
        self.engine.notify(payload.as_bytes().unwrap(), Instant::now()).unwrap();
        while !self.turn(|event| matches!(event, EngineEvent::Ack { .. })) {}
    }

    /// Writes, reads, and says whether it came.
    fn turn(&mut self, mut awaited: impl FnMut(&EngineEvent<'_>) -> bool) -> bool {
        let output = self.engine.transmit().to_vec();
        self.stream.write_all(&output).unwrap();
        self.engine.transmitted(output.len());
        let mut scratch = [0; 4096];
        let read = self.stream.read(&mut scratch).unwrap();
        assert!(read > 0, "the agent closed the connection");
        let mut input = &scratch[..read];
        let mut came = false;
        while let Some(event) = self.engine.receive(&mut input, Instant::now()).unwrap() {
            came |= awaited(&event);
        }
        came
    }
}

#[test]
fn the_page_counts_what_was_asked() {
    for (name, runtime) in RUNTIMES {
        let agent = Agent::start(runtime);
        let page = agent.page();
        let info = [("version", env!("CARGO_PKG_VERSION")), ("runtime", name)];
        assert_eq!(page.value("spop_agent_info", &info), Some("1"), "{page:?}");
        assert_eq!(page.value("spop_agent_connections_total", &[("dialect", "old")]), Some("0"));

        let mut old = Asker::connect(agent.spop, Dialect::Old);
        let mut new = Asker::connect(agent.spop, Dialect::New);
        for _ in 0..20 {
            old.ask(Ipv4Addr::LOCALHOST.into());
            new.ask(Ipv4Addr::LOCALHOST.into());
        }
        // No address: an error, and the fallback.
        new.ask("no address".into());
        // Of what a wake-up counts this is written last and read first: the rest is there, too.
        let page = agent.page_with("spop_agent_handler_seconds_count", &[], "41");
        let value = |name: &str, labels: &[(&str, &str)]| page.value(name, labels).unwrap();
        assert_eq!(value("spop_agent_notifies_total", &[]), "41");
        assert_eq!(value("spop_agent_answers_total", &[("cause", "handler")]), "40");
        assert_eq!(value("spop_agent_answers_total", &[("cause", "error")]), "1");
        assert_eq!(value("spop_agent_answer_seconds_count", &[]), "41");
        let asked = [("message", "check-client-ip")];
        assert_eq!(value("spop_agent_messages_total", &asked), "41");
        assert_eq!(value("spop_agent_messages_total", &[("message", "other")]), "0");
        assert_eq!(value("spop_agent_reassembly_bytes", &[]), "0");
        assert_eq!(value("spop_agent_connections", &[]), "2");
        assert_eq!(value("spop_agent_connections_total", &[("dialect", "old")]), "1");
        assert_eq!(value("spop_agent_connections_total", &[("dialect", "new")]), "1");
        assert_eq!(value("spop_agent_in_flight", &[]), "0");

        // The line about the one that failed says which request it was.
        let failed = loop {
            let line = agent.log.recv_timeout(PATIENCE).unwrap();
            if line.contains("no answer") {
                break line;
            }
        };
        assert!(failed.contains("request_id=request-7"), "{failed}");
        assert!(
            failed.contains("argument ip is str") && !failed.contains("no address"),
            "{failed}"
        );

        drop(old);
        agent.page_with("spop_agent_connections", &[], "1");
        // And who does not ask for metrics is told so.
        let (head, _) = agent.http("GET / HTTP/1.0\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 404"), "{head}");
        let (head, _) = agent.http("POST /metrics HTTP/1.1\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 405") && head.contains("Allow: GET"), "{head}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ip-reputation"));
    let output = command.args(["--listen", "127.0.0.1:0", "--metrics", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&format!("cannot serve metrics on {address} (--metrics)")), "{error}");
}
