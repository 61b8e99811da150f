//! An agent in a process of its own, which may have few file descriptors.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{self, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use spop_proto::Endpoint;

use crate::bench::Bench;
use crate::{PATIENCE, adapters};

/// How many the process may have.
pub(crate) const DESCRIPTORS: usize = 48;
/// Says what to be: `<adapter> <mode>`.
const VARIABLE: &str = "SPOP_BEHAVIOUR_CHILD";

/// The process itself, when this is one: an agent until its input ends. It prints where it listens,
/// and at the end what it did.
pub(crate) fn main() -> Option<ExitCode> {
    let role = env::var(VARIABLE).ok()?;
    for adapter in adapters::ALL.iter().copied() {
        for mode in adapter.modes().iter().copied() {
            if role == format!("{} {mode}", adapter.name()) {
                let agent = Bench::new(adapter, mode).start();
                println!("{}", agent.endpoint());
                let _ = io::stdin().read_to_end(&mut Vec::new());
                let report = agent.stop();
                println!("{} connections, {} answered", report.connections, report.stats.answered);
                return Some(ExitCode::SUCCESS);
            }
        }
    }
    eprintln!("{VARIABLE}: there is no `{role}`");
    Some(ExitCode::FAILURE)
}

/// That process, seen from outside. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    lines: mpsc::Receiver<String>,
    endpoint: Endpoint,
}

impl Child {
    /// Starts it.
    #[track_caller]
    pub(crate) fn start(bench: &Bench) -> Self {
        let mut process = Command::new("/bin/sh")
            .args(["-c", &format!("ulimit -n {DESCRIPTORS}; exec \"$0\"")])
            .arg(env::current_exe().unwrap())
            .env(VARIABLE, format!("{} {}", bench.adapter.name(), bench.mode))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines(process.stdout.take().unwrap());
        let endpoint = lines.recv_timeout(PATIENCE).unwrap().parse().unwrap();
        Self { process, lines, endpoint }
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns when it has as many descriptors as it may have, or but one.
    #[track_caller]
    pub(crate) fn wait_until_no_descriptor_is_left(&self) {
        let directory = format!("/proc/{}/fd", self.process.id());
        let end = Instant::now() + PATIENCE;
        loop {
            let count = fs::read_dir(&directory).unwrap().count();
            if count >= DESCRIPTORS - 1 {
                return;
            }
            assert!(Instant::now() < end, "{count} descriptors of {DESCRIPTORS}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The processor time it took so far.
    #[track_caller]
    pub(crate) fn busy(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // The name, the second field, stands in parentheses and may hold anything.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let field = |number: usize| fields.split(' ').nth(number - 3).unwrap().parse::<u64>();
        let (user, system) = (field(14).unwrap(), field(15).unwrap());
        // The unit is a hundredth of a second on every Linux there is.
        Duration::from_millis((user + system) * 10)
    }

    /// Ends its input; returns its last words.
    #[track_caller]
    pub(crate) fn stop(mut self) -> String {
        drop(self.process.stdin.take());
        let report = self.lines.recv_timeout(PATIENCE).unwrap();
        assert!(self.process.wait().unwrap().success());
        report
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails where it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
