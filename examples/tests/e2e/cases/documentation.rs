//! The page `haproxy-versions.md`: its configurations are accepted and do what it says. And the pages of
//! the guide.

mod guide;
mod page;

use std::future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use spop_tokio::spop_proto::handler::Dispatch;
use spop_tokio::{Action, Agent, AgentConfig, Limits, Scope};
use tokio::runtime;
use tokio::sync::oneshot;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{Client, DEADLINE, Haproxy, Request, Response, Setup, wait_until};
use crate::spy::{Spy, Value};

use super::Case;
use page::{Files, Page, Versions};

pub(super) const CASES: &[Case] = &[
    Case::new("documented_configurations", documented_configurations),
    Case::new("documented_fail_closed", documented_fail_closed),
    Case::new("documented_fail_open", documented_fail_open),
    Case::new("documented_scope", documented_scope),
    Case::new("documented_large_bodies", documented_large_bodies),
    Case::new("documented_answer_deadline", documented_answer_deadline),
    Case::new("documented_options_without_effect", documented_options_without_effect),
    Case::new("documented_configurations_of_the_guide", guide::configurations),
    Case::new("documented_order_of_rules", guide::order_of_rules),
    Case::new("documented_variables_are_seen", guide::variables_are_seen),
];

const LONG: &str = "20s";

/// Every block of the page is accepted without a warning by the versions that it is for, a fragment
/// as a part of the configuration for these versions.
fn documented_configurations(bench: &Bench) -> Result<(), Failure> {
    let page = Page::read()?;
    for versions in [Versions::Old, Versions::New, Versions::All] {
        let whole = page.whole(versions)?;
        let ours = match versions {
            Versions::Old => !bench.new_engine(),
            Versions::New => bench.new_engine(),
            Versions::All => true,
        };
        if !ours {
            continue;
        }
        equal("warnings", warnings(bench, &whole)?, "")?;
        for block in page.0.iter().filter(|block| block.versions == versions) {
            let files = whole.clone().with(block)?;
            equal(&format!("warnings about\n{}", block.text), warnings(bench, &files)?, "")?;
        }
    }

    // Refused where the page says so; and warnings would have been seen.
    let new = page.whole(Versions::New)?;
    if !bench.new_engine() {
        let refused = warnings(bench, &new).err().map(|failure| failure.to_string());
        let refused = refused.unwrap_or_default();
        ensure(refused.contains("unknown proxy mode 'spop'"), || format!("not so: {refused:?}"))?;
    }
    let mut poor = page.whole(Versions::All)?;
    replace(&mut poor.config, "    timeout client  30s\n", "")?;
    let said = warnings(bench, &poor)?;
    ensure(said.contains("missing timeouts"), || format!("no warning: {said:?}"))
}

#[track_caller]
fn warnings(bench: &Bench, files: &Files) -> Result<String, Failure> {
    bench.write("spoe.conf", &files.spoe)?;
    let config = bench.write("haproxy.cfg", &files.config)?;
    Ok(bench.program().warnings(&config)?)
}

/// Nothing passes without a verdict.
fn documented_fail_closed(bench: &Bench) -> Result<(), Failure> {
    policy(bench, "fail-closed", 503).map(drop)
}

/// Only a verdict denies; the log tells why there was none.
fn documented_fail_open(bench: &Bench) -> Result<(), Failure> {
    let running = policy(bench, "fail-open", 200)?;
    // What went wrong is in the log, as the page says: the captured variable of the first request.
    let captured = format!("{{{}}}", none_up(bench));
    running.haproxy.log().wait_for(0, &captured)?;
    Ok(())
}

/// The error while all servers are DOWN.
fn none_up(bench: &Bench) -> u16 {
    if bench.new_engine() { 257 } else { 2 }
}

/// Rules of the page without an agent, then with one that scores some clients and not others.
/// `status` is that of a request without a verdict.
fn policy(bench: &Bench, rules: &str, status: u16) -> Result<Running, Failure> {
    let page = Page::read()?;
    let files = page.whole(Versions::All)?.with(page.rules(rules)?)?;
    let agent = port()?;
    let running = Running::start(bench, files, agent, LONG)?;
    running.haproxy.wait_for_server("agents", "agent1", "DOWN")?;
    let alone = running.get("192.0.2.10")?;
    equal("status without an agent", alone.status, status)?;
    if status == 200 {
        let text = format!("score= error={} none=1", none_up(bench));
        equal("variables without an agent", alone.text().trim(), text)?;
    }

    // The score is the last number of the address; for 0 there is none.
    let _spy = Spy::start(agent, |seen| match seen.arg("ip") {
        Some(Value::Ipv4(ip)) => match ip.octets() {
            [.., 0] => vec![],
            [.., last] => vec![("ip_score", Value::Int32(last.into()))],
        },
        _ => vec![],
    })?;
    running.haproxy.wait_for_server("agents", "agent1", "UP")?;
    equal("status of score 95", running.get("192.0.2.95")?.status, 403)?;
    let good = running.get("192.0.2.10")?;
    equal("status of score 10", good.status, 200)?;
    equal("variables of score 10", good.text().trim(), "score=10 error= none=")?;
    let silent = running.get("192.0.2.0")?;
    equal("status of an answer without a verdict", silent.status, status)?;
    if status == 200 {
        equal("variables without a verdict", silent.text().trim(), "score= error= none=1")?;
    }
    Ok(running)
}

/// An agent that answers the first request of a connection and has nothing to say about the second:
/// the fail-closed rules hold with the scope `txn`, and let the second pass with `sess`.
fn documented_scope(bench: &Bench) -> Result<(), Failure> {
    for (scope, second) in [("txn", 503), ("sess", 200)] {
        let page = Page::read()?;
        let mut files = page.whole(Versions::All)?.with(page.rules("fail-closed")?)?;
        files.config = files
            .config
            .replace("var(txn.iprep.ip_score)", &format!("var({scope}.iprep.ip_score)"));
        let answered = AtomicBool::new(false);
        let agent = port()?;
        let _serving = Serving::start(
            agent,
            Agent::inline(move |_, ack| {
                if !answered.swap(true, Ordering::Relaxed) {
                    ack.set(Scope::Session, "ip_score", 10)?;
                    ack.set(Scope::Transaction, "ip_score", 10)?;
                }
                Ok(())
            }),
        )?;
        let running = Running::start(bench, files, agent, LONG)?;
        let mut client = Client::connect_as(running.web, IpAddr::from([192, 0, 2, 1]))?;
        equal(scope, client.send(&Request::get("/"))?.status, 200)?;
        equal(scope, client.send(&Request::get("/"))?.status, second)?;
    }
    Ok(())
}

/// A body beyond the default buffer is cut without an error, and whole with the larger buffer.
fn documented_large_bodies(bench: &Bench) -> Result<(), Failure> {
    const SIZE: i64 = 50_000;
    let page = Page::read()?;
    for larger in [false, true] {
        let mut files = page.whole(Versions::All)?.with(page.rules("fail-open")?)?;
        for block in page.0.iter().filter(|block| {
            let text = &block.text;
            (larger && text.contains("tune.bufsize"))
                || text.contains("http-buffer-request")
                || text.contains("length=req.hdr_val(content-length)")
        }) {
            files = files.with(block)?;
        }
        let agent = port()?;
        let spy = Spy::start(agent, |_| vec![("ip_score", Value::Int32(1))])?;
        let running = Running::start(bench, files, agent, LONG)?;
        let mut client = Client::connect_as(running.web, IpAddr::from([192, 0, 2, 1]))?;
        let answer = client.send(&Request::post("/", vec![b'x'; 50_000]))?;
        equal("variables", answer.text().trim(), "score=1 error= none=")?;
        let seen = spy.take();
        let arg = |name| seen.first().and_then(|seen| seen.arg(name));
        equal("length that the client announced", arg("length"), Some(&Value::Int64(SIZE)))?;
        let Some(Value::Bin(body)) = arg("body") else {
            return Err(Failure::new(format!("no body among {} messages", seen.len())));
        };
        if larger {
            equal("length of the body", body.len(), 50_000)?;
        } else {
            let about = 14_500..15_500;
            ensure(about.contains(&body.len()), || format!("{} bytes of body", body.len()))?;
        }
    }
    Ok(())
}

/// A handler that never ends. Its deadline below `timeout processing`: the fallback, and no error.
/// Above it, which the default is: HAProxy's timeout, and no verdict.
fn documented_answer_deadline(bench: &Bench) -> Result<(), Failure> {
    let page = Page::read()?;
    let files = page.whole(Versions::All)?.with(page.rules("fail-open")?)?;
    let short = Limits::new().answer_timeout(Duration::from_millis(80))?;
    for (limits, processing, variables) in
        [(short, LONG, "score=50 error= none="), (Limits::new(), "100ms", "score= error=1 none=1")]
    {
        let fallback = Action::set(Scope::Transaction, "ip_score", 50);
        let config = AgentConfig::new().fallback([fallback])?.limits(limits);
        let agent = port()?;
        let never = Agent::concurrent(|_| future::pending()).config(config);
        let _serving = Serving::start(agent, never)?;
        let running = Running::start(bench, files.clone(), agent, processing)?;
        let answer = running.get("192.0.2.1")?;
        equal("status", answer.status, 200)?;
        equal("variables", answer.text().trim(), variables)?;
    }
    Ok(())
}

/// The options that >= 3.1 accepts and ignores, with values that could not be overlooked: old
/// engines offer async and give up the connection at `timeout hello`. New ones wait for HELLO, keep
/// the connection while it is idle, and put a second request on it.
fn documented_options_without_effect(bench: &Bench) -> Result<(), Failure> {
    // Time is the subject here: four times what the options say.
    const PAUSE: Duration = Duration::from_millis(400);
    let page = Page::read()?;
    let ignored = page.0.iter().find(|block| block.text.contains("max-waiting-frames 1\n"));
    let ignored = ignored.ok_or_else(|| Failure::new("the page has no such block"))?;
    let mut files = page.whole(Versions::All)?.with(ignored)?;
    // A health check would be one more connection, and each thread has connections of its own.
    replace(&mut files.config, " check inter 2s fall 2 rise 1", "")?;
    replace(&mut files.config, "\nglobal\n", "\nglobal\n    nbthread 1\n")?;

    let address = port()?;
    let listener = TcpListener::bind(address)?;
    let running = Running::start(bench, files, address, LONG)?;
    let first = running.ask();
    let mut agent = Raw::accept(&listener)?;
    let hello = agent.frame()?;
    let has = |text: &[u8]| hello.windows(text.len()).any(|window| window == text);
    if !bench.new_engine() {
        ensure(has(b"\x0ccapabilities\x08\x10pipelining,async"), || format!("{hello:?}"))?;
        return agent.closes();
    }
    ensure(has(b"\x0ccapabilities\x08\x0apipelining"), || format!("{hello:?}"))?;
    agent.is_silent(PAUSE)?; // `timeout hello`
    agent.send(b"\x65\0\0\0\x01\0\0\x07version\x08\x032.0\x0emax-frame-size\x03\xfc\xf0\x06\x0ccapabilities\x08\x0apipelining")?;
    let id = agent.notify()?;
    agent.is_silent(PAUSE)?; // `timeout idle`, which runs while an answer is owed
    agent.ack(id)?;
    equal("first status", first.recv_timeout(DEADLINE)??.status, 200)?;

    agent.is_silent(PAUSE)?; // `timeout idle`
    let second = running.ask();
    let second_id = agent.notify()?;
    let third = running.ask();
    let third_id = agent.notify()?; // `max-waiting-frames`
    agent.ack(third_id)?;
    agent.ack(second_id)?;
    for reply in [second, third] {
        equal("status", reply.recv_timeout(DEADLINE)??.status, 200)?;
    }
    Ok(())
}

/// An HAProxy with a configuration of the page.
struct Running {
    web: SocketAddr,
    haproxy: Haproxy,
}

impl Running {
    /// Starts it, changed only where a test has to.
    #[track_caller]
    fn start(
        bench: &Bench,
        mut files: Files,
        agent: SocketAddr,
        processing: &str,
    ) -> Result<Self, Failure> {
        let web = port()?;
        let config = &mut files.config;
        replace(config, "bind 127.0.0.1:8080", &format!("bind {web} accept-proxy"))?;
        replace(config, "agent1 127.0.0.1:12345", &format!("agent1 {agent}"))?;
        replace(config, "timeout check   1s", "timeout check 10s")?;
        // Absent where a case is not about checks.
        *config = config.replace("inter 2s", "inter 100ms");
        let shown = "error=%[var(txn.iprep.error)]";
        replace(config, shown, &format!("{shown} none=%[req.hdr(x-no-verdict)]"))?;
        replace(&mut files.spoe, "processing    100ms", &format!("processing {processing}"))?;
        let setup = Setup::new(files.config).file("spoe.conf", files.spoe);
        Ok(Self { web, haproxy: bench.haproxy(&setup)? })
    }

    fn get(&self, client: &str) -> Result<Response, Failure> {
        Ok(Client::connect_as(self.web, client.parse()?)?.send(&Request::get("/"))?)
    }

    /// A request that is under way when this returns.
    fn ask(&self) -> Receiver<io::Result<Response>> {
        let (web, (reply, replies)) = (self.web, mpsc::channel());
        thread::spawn(move || {
            let client = Client::connect_as(web, IpAddr::from([192, 0, 2, 1]));
            let _ = reply.send(client.and_then(|mut client| client.send(&Request::get("/"))));
        });
        replies
    }
}

/// A change that did not find its place would leave a case that tests something else than it says.
#[track_caller]
fn replace(text: &mut String, old: &str, new: &str) -> Result<(), Failure> {
    equal(&format!("occurrences of {old:?}"), text.matches(old).count(), 1)?;
    *text = text.replace(old, new);
    Ok(())
}

/// An agent of the library on a thread. Dropped, it stops: its runtime ends, and all that ran on it.
struct Serving(Option<oneshot::Sender<()>>);

impl Serving {
    fn start<D: Dispatch>(address: SocketAddr, agent: Agent<D>) -> Result<Self, Failure> {
        let (stop, told) = oneshot::channel::<()>();
        let (started, ready) = mpsc::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || {
            runtime.block_on(async {
                match agent.bind(address).await {
                    Ok(server) => {
                        let _ = started.send(Ok(()));
                        tokio::select! { _ = server.run() => {} _ = told => {} }
                    }
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        });
        ready.recv_timeout(DEADLINE)??;
        Ok(Self(Some(stop)))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

/// An agent's end of a connection, by hand.
struct Raw(TcpStream);

impl Raw {
    fn accept(listener: &TcpListener) -> Result<Self, Failure> {
        listener.set_nonblocking(true)?;
        let stream = wait_until("HAProxy to connect", || match listener.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        })?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self(stream))
    }

    /// The next frame, without its length.
    #[track_caller]
    fn frame(&mut self) -> Result<Vec<u8>, Failure> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length))?];
        self.0.read_exact(&mut frame)?;
        Ok(frame)
    }

    /// The stream-id of the next frame, which is a NOTIFY.
    #[track_caller]
    fn notify(&mut self) -> Result<u8, Failure> {
        match self.frame()?.as_slice() {
            // One byte each, as this engine counts: 1, 3, 5 … and always 1.
            [3, 0, 0, 0, 1, id, 1, ..] => Ok(*id),
            other => Err(Failure::new(format!("no NOTIFY: {other:?}"))),
        }
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), Failure> {
        let length = u32::try_from(frame.len())?.to_be_bytes();
        Ok(self.0.write_all(&[&length, frame].concat())?)
    }

    /// Answers with a score of 10.
    fn ack(&mut self, id: u8) -> Result<(), Failure> {
        let head = [103, 0, 0, 0, 1, id, 1];
        self.send(&[head.as_slice(), b"\x01\x03\x02\x08ip_score\x04\x0a"].concat())
    }

    /// Nothing comes for that long, the connection's end neither.
    #[track_caller]
    fn is_silent(&mut self, time: Duration) -> Result<(), Failure> {
        self.0.set_read_timeout(Some(time))?;
        let read = self.0.read(&mut [0]).map_err(|error| error.kind());
        self.0.set_read_timeout(Some(DEADLINE))?;
        let silent = matches!(read, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut));
        ensure(silent, || format!("not silent: {read:?}"))
    }

    /// HAProxy ends the connection without another frame.
    #[track_caller]
    fn closes(&mut self) -> Result<(), Failure> {
        let read = self.0.read(&mut [0]).map_err(|error| error.kind());
        let closed = matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset));
        ensure(closed, || format!("not closed: {read:?}"))
    }
}
