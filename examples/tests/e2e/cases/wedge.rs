//! Large answers, and the receive buffer of HAProxy >= 3.1 that they must not fill: a read that does
//! stops its connection for good, without a word.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use spop_tokio::{Agent, AgentConfig, Exchange, Report, Scope};
use tokio::sync::{mpsc, oneshot};

use super::Case;
use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{Client, Haproxy, Request, Setup, wait_until};

pub(super) const CASES: &[Case] = &[
    Case::new("twenty_large_answers_at_once", twenty_large_answers_at_once)
        .shown("twenty large answers at once"),
    Case::new("without_pacing_they_stop_the_connection", without_pacing_they_stop_the_connection),
    Case::new("declared_large_answers_do_not_wait", declared_large_answers_do_not_wait)
        .shown("answers as large as a frame"),
    Case::new("large_answers_while_clients_reset_and_haproxy_stops", resets_and_stops)
        .shown("large answers, clients that reset, HAProxy stopped"),
];

/// One thread, so that all requests go over one connection to the agent where that is possible.
const HAPROXY_CFG: &str = r#"
global
    log stdout format raw local0
    nbthread 1

defaults
    mode http
    log global
    timeout connect 2s
    timeout client 30s
    timeout server 30s

frontend web
    bind "${WEB}"
    filter spoe engine wedge config spoe.conf
    http-request return status 200 content-type text/plain lf-string "length=%[var(txn.wedge.v),length] error=%[var(txn.wedge.error)]"

backend agents
    mode tcp
    timeout server 30s
    server agent1 "${AGENT}"
"#;

const SPOE_CONF: &str = "[wedge]
spoe-agent wedge
    messages    ask
    option      var-prefix    wedge
    option      set-on-error  error
    timeout     hello         2s
    timeout     idle          2m
    timeout     processing    PROCESSING
    use-backend agents

spoe-message ask
    args  ip=src
    event on-frontend-http-request
";

/// An agent that answers `batch` requests at once with `size` bytes each.
struct Large {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    report: std::sync::mpsc::Receiver<Report>,
    batch: Arc<AtomicUsize>,
}

impl Large {
    fn start(config: AgentConfig, size: usize) -> Result<Self, Failure> {
        let value = Arc::new("x".repeat(value(size)));
        let batch = Arc::new(AtomicUsize::new(1));
        let wanted = Arc::clone(&batch);
        let (queue, mut waiting) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
        let agent = Agent::concurrent(move |mut exchange: Exchange| {
            let (value, queue) = (Arc::clone(&value), queue.clone());
            async move {
                let (go, told) = oneshot::channel();
                queue.send(go)?;
                told.await?;
                exchange.set(Scope::Transaction, "v", value.as_str())?;
                Ok(exchange)
            }
        });
        let agent = agent.config(config);
        let address = port()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (done, report) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, bound) = std::sync::mpsc::channel();
        thread::spawn(move || {
            runtime.block_on(async move {
                tokio::spawn(async move {
                    let mut held = Vec::new();
                    while let Some(go) = waiting.recv().await {
                        held.push(go);
                        if held.len() >= wanted.load(Ordering::Relaxed) {
                            for go in held.drain(..) {
                                let _ = go.send(());
                            }
                        }
                    }
                });
                match agent.bind(address).await {
                    Ok(server) => {
                        let _ = ready.send(Ok(()));
                        let _ = done.send(server.run_until(async { drop(stopped.await) }).await);
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        });
        bound.recv_timeout(crate::haproxy::DEADLINE)??;
        Ok(Self { address, stop: Some(stop), report, batch })
    }

    /// So many requests are answered together from now on.
    fn batch(&self, requests: usize) {
        self.batch.store(requests, Ordering::Relaxed);
    }

    fn finish(mut self) -> Result<Report, Failure> {
        drop(self.stop.take());
        Ok(self.report.recv_timeout(crate::haproxy::DEADLINE)?)
    }
}

struct Site {
    web: SocketAddr,
    haproxy: Haproxy,
}

impl Site {
    fn start(bench: &Bench, agent: &Large, processing: &str) -> Result<Self, Failure> {
        let web = port()?;
        let setup = Setup::new(HAPROXY_CFG)
            .file("spoe.conf", SPOE_CONF.replace("PROCESSING", processing))
            .set("WEB", web)
            .set("AGENT", agent.address);
        Ok(Self { web, haproxy: bench.haproxy(&setup)? })
    }

    fn ask(&self) -> Result<(String, Duration), Failure> {
        ask(self.web)
    }

    /// `requests` at once.
    fn ask_at_once(&self, requests: usize) -> Result<Vec<(String, Duration)>, Failure> {
        let start = Barrier::new(requests);
        thread::scope(|scope| {
            let client = || {
                start.wait();
                self.ask()
            };
            let clients: Vec<_> = (0..requests).map(|_| scope.spawn(client)).collect();
            let panicked = |_| Failure::new("a client panicked");
            clients.into_iter().map(|client| client.join().map_err(panicked)?).collect()
        })
    }
}

/// What the agent's variable amounts to, or the error, and how long that took.
fn ask(web: SocketAddr) -> Result<(String, Duration), Failure> {
    let mut client = Client::connect(web)?;
    let began = Instant::now();
    let answer = client.send(&Request::get("/"))?;
    Ok((answer.text().into_owned(), began.elapsed()))
}

/// The length of the one variable's value in a frame of that length: less the header with ids of one
/// byte, the action's head and name, type and length.
fn value(frame: usize) -> usize {
    frame.saturating_sub(7 + 5 + 1 + if frame > 2_302 { 3 } else { 2 })
}

fn expected(size: usize) -> String {
    format!("length={} error=", value(size))
}

/// HAProxy reads with 250 ms of patience; a busy machine gets the time it needs besides.
const PATIENCE: Duration = Duration::from_millis(250);

/// 20 answers at once and then silence: each request gets its variable in time, and the connection works
/// afterwards.
fn twenty_large_answers_at_once(bench: &Bench) -> Result<(), Failure> {
    for size in [850, 1_500] {
        let agent = Large::start(AgentConfig::new(), size)?;
        let site = Site::start(bench, &agent, "5s")?;
        // The handshake comes first.
        equal("the first answer", site.ask()?.0, expected(size))?;
        agent.batch(20);
        let answers = site.ask_at_once(20)?;
        for (text, took) in answers {
            equal(&format!("{size} bytes"), text, expected(size))?;
            // Of a wedge it would be the processing timeout.
            ensure(took < PATIENCE * 4, || format!("{size} bytes took {took:?}"))?;
        }
        agent.batch(1);
        for _ in 0..3 {
            equal("afterwards", site.ask()?.0, expected(size))?;
        }
        drop(site);
        let stats = agent.finish()?.stats;
        equal("answered", (stats.notifies, stats.answered), (24, 24))?;
        let holds = if bench.new_engine() { 1..20 } else { 0..1 };
        ensure(holds.contains(&stats.held), || format!("{size} bytes: {} held", stats.held))?;
        if bench.new_engine() {
            bench.note("some are held back up to 0.1 s");
        }
    }
    Ok(())
}

/// What pacing is for: with it switched off the same answers stop a connection of HAProxy >= 3.1. If this
/// fails, HAProxy has been repaired, and pacing is needed for older ones only.
fn without_pacing_they_stop_the_connection(bench: &Bench) -> Result<(), Failure> {
    const SIZE: usize = 1_500;
    let agent = Large::start(AgentConfig::new().pacing(None), SIZE)?;
    let site = Site::start(bench, &agent, "300ms")?;
    equal("the first answer", site.ask()?.0, expected(SIZE))?;
    agent.batch(20);
    let answers = site.ask_at_once(20)?;
    let lost = answers.iter().filter(|(text, _)| text == "length= error=1").count();
    let good = answers.iter().filter(|(text, _)| *text == expected(SIZE)).count();
    equal("answers and errors", lost + good, 20)?;
    if bench.new_engine() {
        ensure(lost > 0, || "all 20 answers arrived".to_owned())
    } else {
        equal("lost", lost, 0)
    }
}

/// With their size declared, answers up to the largest there can be are not held back at all.
fn declared_large_answers_do_not_wait(bench: &Bench) -> Result<(), Failure> {
    for size in [8_000, 16_379] {
        let config = AgentConfig::new().expected_ack_size(u32::try_from(size)?);
        let agent = Large::start(config, size)?;
        let site = Site::start(bench, &agent, "5s")?;
        for _ in 0..10 {
            equal("one by one", site.ask()?.0, expected(size))?;
        }
        agent.batch(20);
        for (text, took) in site.ask_at_once(20)? {
            equal(&format!("{size} bytes"), text, expected(size))?;
            ensure(took < PATIENCE * 4, || format!("{size} bytes took {took:?}"))?;
        }
        agent.batch(1);
        equal("afterwards", site.ask()?.0, expected(size))?;
        drop(site);
        let stats = agent.finish()?.stats;
        equal("answered", (stats.notifies, stats.answered), (31, 31))?;
        equal("held back", stats.held, 0)?;
    }
    Ok(())
}

/// Two clients that reset their connections all the time, and a HAProxy that is stopped for 30 ms of
/// every 80: no connection stops, every request of the others is answered, and where such an answer
/// had to be the fallback (which says nothing here), the agent has counted it.
fn resets_and_stops(bench: &Bench) -> Result<(), Failure> {
    const REQUESTS: usize = 100;
    for size in [850, 3_000] {
        let agent = Large::start(AgentConfig::new(), size)?;
        let Site { web, mut haproxy } = Site::start(bench, &agent, "5s")?;
        equal("the first answer", ask(web)?.0, expected(size))?;
        let (over, shed) = (AtomicBool::new(false), AtomicUsize::new(0));
        let slowest = Mutex::new(Duration::ZERO);
        let process = haproxy.process();
        thread::scope(|scope| {
            // The time is the subject here.
            let stopper = scope.spawn(|| -> Result<(), Failure> {
                while !over.load(Ordering::Relaxed) {
                    process.signal("STOP")?;
                    thread::sleep(Duration::from_millis(30));
                    process.signal("CONT")?;
                    thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let _ = ask_and_reset(web);
                    }
                });
            }
            let clients = [(); 2].map(|()| {
                scope.spawn(|| -> Result<(), Failure> {
                    for _ in 0..REQUESTS {
                        let (text, took) = ask(web)?;
                        if text == "length= error=" {
                            shed.fetch_add(1, Ordering::Relaxed);
                        } else {
                            equal(&format!("{size} bytes"), text, expected(size))?;
                        }
                        let mut slowest = slowest.lock().unwrap_or_else(PoisonError::into_inner);
                        *slowest = took.max(*slowest);
                    }
                    Ok(())
                })
            });
            let outcomes = clients.map(thread::ScopedJoinHandle::join);
            over.store(true, Ordering::Relaxed);
            let panicked = |_| Failure::new("a thread panicked");
            stopper.join().map_err(panicked)??;
            outcomes.into_iter().try_for_each(|outcome| outcome.map_err(panicked)?)
        })?;
        let slowest = slowest.into_inner().unwrap_or_else(PoisonError::into_inner);
        ensure(slowest < PATIENCE * 4, || format!("{size} bytes took up to {slowest:?}"))?;
        // What is still held back for clients that have left is soon gone.
        wait_until("answers afterwards", || match ask(web) {
            Ok((text, _)) if text == "length= error=" => Ok(None),
            Ok((text, _)) => Ok(Some(text)),
            Err(failure) => Err(std::io::Error::other(failure.to_string())),
        })
        .map_err(Failure::from)
        .and_then(|text| equal("afterwards", text, expected(size)))?;
        drop(haproxy);
        let stats = agent.finish()?.stats;
        // What clients did not wait for is answered as well, or was given up with HAProxy's end.
        equal("counters", stats.notifies, stats.answered + stats.shed + stats.abandoned)?;
        let shed = shed.into_inner();
        let enough = u64::try_from(2 * REQUESTS + 2 - shed)?;
        ensure(stats.answered >= enough, || format!("{size} bytes: {stats:?}"))?;
        ensure(stats.shed >= u64::try_from(shed)?, || format!("{shed} shed: {stats:?}"))?;
        ensure(shed * 4 <= 2 * REQUESTS, || format!("{size} bytes: {shed} shed: {stats:?}"))?;
    }
    Ok(())
}

/// Asks, and is gone before the answer, with a reset.
fn ask_and_reset(web: SocketAddr) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut stream = TcpStream::connect(web)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")?;
    // Time for HAProxy to ask the agent, mostly.
    thread::sleep(Duration::from_millis(5));
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}
