//! `spop-tap` between a client and an agent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]

#[path = "tap/capture.rs"]
mod capture;
#[path = "tap/replay.rs"]
mod replay;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use spop_blocking::{Agent, Scope};
use spop_proto::wire::NotifyPayload;
use spop_proto::{Dialect, EngineConfig, EngineConnection, EngineEvent};

/// Far beyond what anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A tap that ends with the test.
struct Tap {
    child: Child,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Tap {
    fn start(listen: &str, target: &str, words: &[&str]) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_spop-tap"));
        Self::started_by(program, listen, target, words)
    }

    fn started_by(mut program: Command, listen: &str, target: &str, words: &[&str]) -> Self {
        let mut child =
            program.args([listen, target]).args(words).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.split_once("listening on ").unwrap().1.split_once(',').unwrap().0;
        Self { address: address.to_owned(), child, output }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Lines up to one that ends in `last`.
    fn read_to(&mut self, last: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(&format!("{last}\n")) {
            assert_ne!(self.output.read_line(&mut text).unwrap(), 0, "{text}");
        }
        text
    }

    /// SIGTERM; the rest of what it prints, and its exit status.
    fn stop(mut self) -> (String, Option<i32>) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        (text, self.child.wait().unwrap().code())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // Fails where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// HAProxy's part.
struct Client {
    stream: TcpStream,
    engine: EngineConnection,
    greeted: bool,
}

impl Client {
    /// Returns once the agent has answered to HELLO.
    fn greet(stream: TcpStream) -> Self {
        let engine = EngineConnection::new(EngineConfig::new(Dialect::New), Instant::now());
        let mut client = Self { stream, engine, greeted: false };
        while !client.greeted {
            assert_eq!(client.turn(), None);
        }
        client
    }

    /// Asks; the actions of the answer.
    fn ask(&mut self, token: &str) -> String {
        let payload = NotifyPayload::new("check-client-ip")
            .arg("ip", std::net::Ipv4Addr::LOCALHOST)
            .arg("token", token);
        self.engine.notify(payload.as_bytes().unwrap(), Instant::now()).unwrap();
        loop {
            if let Some(answer) = self.turn() {
                return answer;
            }
        }
    }

    /// Writes what is to be written, and reads once; an answer, if that was one.
    fn turn(&mut self) -> Option<String> {
        let Self { stream, engine, greeted } = self;
        let bytes = engine.transmit().len();
        stream.write_all(engine.transmit()).unwrap();
        engine.transmitted(bytes);
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the agent has closed");
        let (mut input, mut answer) = (&buffer[..read], None);
        while let Some(event) = engine.receive(&mut input, Instant::now()).unwrap() {
            match event {
                EngineEvent::Hello(_) => *greeted = true,
                EngineEvent::Ack { actions, .. } => {
                    answer = Some(actions.map(|action| format!("{}\n", action.unwrap())).collect());
                }
                _ => {}
            }
        }
        answer
    }

    fn leave(mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
        // The agent says goodbye or not; then it closes.
        drop(self.stream.read_to_end(&mut Vec::new()));
    }
}

/// One question on a connection that is then closed; the actions of the answer.
fn ask(stream: TcpStream) -> String {
    let mut client = Client::greet(stream);
    let answer = client.ask("swordfish");
    client.leave();
    answer
}

/// An agent for as long as the test lives.
fn agent(listen: &str) -> String {
    let agent = Agent::inline(|_, ack| Ok(ack.set(Scope::Transaction, "ip_score", 20)?));
    let server = agent.bind(listen).unwrap();
    let address = server.local_addr().to_string();
    thread::spawn(move || server.run().unwrap());
    address
}

fn directory(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(std::fs::remove_dir_all(&directory));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn dump(file: &str, words: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_spop-dump")).arg(file).args(words).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Lines without the number of the connection and the times.
fn timeless(text: &str) -> String {
    let line = |line: &str| {
        let line =
            line.strip_prefix("#1 ").map_or(line, |line| &line[line.find(' ').unwrap_or(0)..]);
        let line = match line.trim_start().split_once(' ') {
            Some((time, rest)) if time.contains('.') && !line.starts_with("    ") => rest,
            _ => line,
        };
        format!("{}\n", line.split(" after ").next().unwrap().trim())
    };
    text.lines().map(line).collect()
}

/// Frames are shown as they pass, and kept as they are.
#[test]
fn a_question_and_its_answer() {
    let folder = directory("tap");
    let prefix = folder.join("spoe").display().to_string();
    let mut tap = Tap::start("127.0.0.1:0", &agent("127.0.0.1:0"), &["--write", &prefix]);
    assert_eq!(ask(tap.connect()), "set-var txn.ip_score int32:20\n");
    let live = tap.read_to("closed");
    for part in [
        "-> HAPROXY-HELLO FIN stream-id 0 frame-id 0 length ",
        "<- AGENT-HELLO FIN",
        "-> NOTIFY FIN stream-id 1 frame-id 1 length ",
        "    check-client-ip\n        ip = ipv4 127.0.0.1\n        token = str \"swordfish\"\n",
        "<- ACK FIN stream-id 1 frame-id 1 length 21 after ",
        "    set-var txn ip_score = int32 20\n",
    ] {
        assert!(live.contains(part), "{part}: {live}");
    }
    let (rest, status) = tap.stop();
    assert_eq!(status, Some(0), "{rest}");

    // What the page shows of it, without times and lengths.
    let shown = include_str!("../spop-tap/README.md").split("```text\n").nth(1).unwrap();
    let shown = timeless(shown.split("```").next().unwrap());
    let live = timeless(&live);
    for line in shown.lines().map(|line| line.split(" length ").next().unwrap()) {
        let known = live.contains(line.split_once(" -> ").map_or(line, |(_, rest)| rest));
        assert!(known, "{line}: {live}");
    }

    // The files hold the same frames.
    let mut frames = 0;
    for side in ["haproxy", "agent"] {
        let dumped = dump(&format!("{prefix}.1.{side}"), &[]);
        let dumped: Vec<_> = dumped.lines().map(str::trim).collect();
        let (summary, dumped) = dumped.split_last().unwrap();
        for line in dumped {
            assert!(live.contains(&format!("{line}\n")), "{line}: {live}");
        }
        frames += summary.split_once(' ').unwrap().0.parse::<u64>().unwrap();
    }
    assert!(rest.starts_with(&format!("{frames} frames, nothing wrong")), "{rest}");
}

#[test]
fn unix_sockets_on_both_sides() {
    let folder = directory("tap-unix");
    let [listen, target] =
        ["tap.sock", "agent.sock"].map(|name| format!("unix:{}", folder.join(name).display()));
    let target = agent(&target);
    // Left behind by a program that was killed.
    drop(std::os::unix::net::UnixListener::bind(folder.join("tap.sock")).unwrap());
    let inner = Tap::start(&listen, &target, &["--redact", "--json"]);
    let outer = Tap::start("127.0.0.1:0", &listen, &["--json"]);
    assert_eq!(ask(outer.connect()), "set-var txn.ip_score int32:20\n");
    let (shown, _) = outer.stop();
    assert!(shown.contains("swordfish"), "{shown}");
    let (hidden, status) = inner.stop();
    assert!(hidden.contains(r#"{"length":9,"name":"token","type":"str"}"#), "{hidden}");
    assert!(!hidden.contains("swordfish"), "{hidden}");
    assert_eq!(status, Some(0), "{hidden}");
    assert!(!folder.join("tap.sock").exists());
}

/// A direction ends by itself, and the other goes on.
#[test]
fn half_a_close_is_half_a_close() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tap = Tap::start("127.0.0.1:0", &listener.local_addr().unwrap().to_string(), &[]);
    let mut client = tap.connect();
    let mut server = listener.accept().unwrap().0;
    client.write_all(b"any bytes").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    server.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"any bytes");
    server.write_all(b"an answer").unwrap();
    drop(server);
    bytes.clear();
    client.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"an answer");
    let text = tap.read_to("closed");
    assert!(text.contains("this looks like text"), "{text}");
    assert_eq!(tap.stop().1, Some(3));
}

#[test]
fn a_reset_is_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tap = Tap::start("127.0.0.1:0", &listener.local_addr().unwrap().to_string(), &[]);
    let mut client = tap.connect();
    let server = listener.accept().unwrap().0;
    // Whichever way it goes.
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    tap.read_to("Connection reset by peer (os error 104)");

    let client = tap.connect();
    let mut server = listener.accept().unwrap().0;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    server.set_read_timeout(Some(LONG)).unwrap();
    let error = server.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn no_agent_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut tap = Tap::start("127.0.0.1:0", &nobody, &[]);
    let error = tap.connect().read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let text = tap.read_to("(os error 111)");
    assert!(
        text.contains(&format!("#1 closed: cannot connect to the agent at {nobody}: ")),
        "{text}"
    );
}

/// A NOTIFY of 16 kB, of which two lines are shown.
fn large_frame() -> Vec<u8> {
    let payload = NotifyPayload::new("m").arg("body", "x".repeat(16_000).as_str());
    let mut frame = vec![0, 0, 0, 0, 3, 0, 0, 0, 1, 1, 1];
    frame.extend_from_slice(payload.as_bytes().unwrap());
    let length = u32::try_from(frame.len() - 4).unwrap();
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Nobody reads what it prints: the bytes pass all the same, and what was not shown is told.
#[test]
fn a_screen_that_stands_still_holds_nothing_up() {
    const FRAMES: usize = 4000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tap = Tap::start("127.0.0.1:0", &listener.local_addr().unwrap().to_string(), &[]);
    let frame = large_frame();
    let all = frame.repeat(FRAMES);
    let expected = all.len();
    let mut client = tap.connect();
    let mut server = listener.accept().unwrap().0;
    let writer = thread::spawn(move || client.write_all(&all).map(|()| client).unwrap());
    let mut got = vec![0; expected];
    server.read_exact(&mut got).unwrap();
    assert!(got == frame.repeat(FRAMES));
    drop(writer.join().unwrap());
    drop(server);
    // Only now is anything read.
    let (text, status) = tap.stop();
    let told = text.lines().rev().nth(1).unwrap();
    let lost =
        told.strip_suffix(" bytes passed too fast to be shown").unwrap_or_else(|| panic!("{told}"));
    let lost: usize = lost.parse().unwrap();
    assert!(lost > 0 && lost < expected, "{lost}");
    // What was there before the queue was full.
    assert!(text.matches("-> NOTIFY").count() > 500, "{told}");
    assert_eq!(status, Some(3), "{told}");
}
