//! What a case is given to work with, and how its failure is told.

use std::fmt::{self, Debug, Display};
use std::fs;
use std::mem;
use std::net::SocketAddr;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::agent::{Agent, Runtime};
use crate::cases::Run;
use crate::compatibility::Verdict;
use crate::haproxy::{Directory, Haproxy, Log, Program, Setup};

/// The surroundings of one case: the HAProxy and the runtime it runs with, a directory of its own, and
/// the logs of all that it starts, which a failure shows.
#[derive(Debug)]
pub(crate) struct Bench {
    program: Program,
    runtime: Runtime,
    directory: Directory,
    logs: Mutex<Vec<(String, Log)>>,
    verdict: Mutex<Verdict>,
    cells: Mutex<Vec<(&'static str, String)>>,
}

/// What a case that passed found out.
#[derive(Debug)]
pub(crate) struct Found {
    /// For the compatibility table.
    pub(crate) verdict: Verdict,
    /// For the table of the page about bodies: row and text.
    pub(crate) cells: Vec<(&'static str, String)>,
}

impl Bench {
    /// Runs a case; an error is the whole message, logs included.
    pub(crate) fn run(program: Program, runtime: Runtime, run: Run) -> Result<Found, String> {
        let directory = Directory::new().map_err(|error| error.to_string())?;
        let (logs, verdict, cells) = (Mutex::default(), Mutex::default(), Mutex::default());
        let bench = Self { program, runtime, directory, logs, verdict, cells };
        let outcome = run(&bench).map_err(|failure| {
            let mut message = failure.to_string();
            for (name, log) in &*lock(&bench.logs) {
                let tail = log.tail(name);
                // An error of the harness may have brought these lines along.
                let lines = tail.split_once('\n').map_or(tail.as_str(), |(_, lines)| lines);
                if !message.contains(lines) {
                    message = format!("{message}\n{tail}");
                }
            }
            message
        });
        outcome.map(|()| Found {
            verdict: lock(&bench.verdict).clone(),
            cells: mem::take(&mut *lock(&bench.cells)),
        })
    }

    /// For the compatibility table: the case holds in another way than its name says. A few words
    /// that go on after "ok: ".
    pub(crate) fn note(&self, how: &'static str) {
        *lock(&self.verdict) = Verdict::OkBecause(how);
    }

    /// For the compatibility table: this HAProxy has not got what the case is about. A few words that
    /// go on after "not supported: "; that it fails as it should is what the case checks.
    pub(crate) fn not_supported(&self, why: &'static str) {
        *lock(&self.verdict) = Verdict::NotSupported(why);
    }

    /// For the table of the page about bodies.
    pub(crate) fn cell(&self, row: &'static str, text: String) {
        lock(&self.cells).push((row, text));
    }

    /// True with HAProxy 3.1 and later.
    pub(crate) fn new_engine(&self) -> bool {
        self.program.version.has_spop_multiplexer()
    }

    /// The HAProxy under test.
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    /// Starts HAProxy.
    #[track_caller]
    pub(crate) fn haproxy(&self, setup: &Setup) -> Result<Haproxy, Failure> {
        let haproxy = setup.start(&self.program)?;
        self.keep("HAProxy", haproxy.log());
        Ok(haproxy)
    }

    /// Starts `ip-reputation` and waits until it accepts.
    #[track_caller]
    pub(crate) fn agent(&self, listen: impl Display, list: &Path) -> Result<Agent, Failure> {
        self.agent_with(listen, list, &[])
    }

    /// Starts `ip-reputation` with more arguments.
    #[track_caller]
    pub(crate) fn agent_with(
        &self,
        listen: impl Display,
        list: &Path,
        more: &[&str],
    ) -> Result<Agent, Failure> {
        let agent = Agent::start(self.runtime, &listen.to_string(), list, more)?;
        self.keep("ip-reputation", agent.log());
        Ok(agent)
    }

    /// Writes a file of the case.
    #[track_caller]
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Where a file of the case is or will be.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A failure shows the last lines of that log, too.
    pub(crate) fn keep(&self, name: &str, log: &Log) {
        let mut logs = lock(&self.logs);
        let number = logs.len() + 1;
        logs.push((format!("{name} (started as number {number})"), log.clone()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port of its own for a server of the case.
#[track_caller]
pub(crate) fn port() -> Result<SocketAddr, Failure> {
    Ok(crate::haproxy::free_port()?)
}

/// Why a case failed, and in which line. Not an error type itself, so that any error becomes one by
/// `?`, which is where the line comes from.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    place: &'static Location<'static>,
}

impl Failure {
    /// A failure of the line that calls this.
    #[track_caller]
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), place: Location::caller() }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, place } = self;
        write!(f, "{}:{}: {what}", place.file(), place.line())
    }
}

impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// `got` must be `want`.
#[track_caller]
pub(crate) fn equal<A: Debug + PartialEq<B>, B: Debug>(
    what: &str,
    got: A,
    want: B,
) -> Result<(), Failure> {
    if got == want {
        return Ok(());
    }
    Err(Failure::new(format!("{what}: {got:?} instead of {want:?}")))
}

/// `condition` must hold.
#[track_caller]
pub(crate) fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if condition { Ok(()) } else { Err(Failure::new(otherwise())) }
}

/// Changes a configuration that others wrote: `old` must stand in it once, or the case would test
/// something else than it says.
#[track_caller]
pub(crate) fn replace(text: &mut String, old: &str, new: &str) -> Result<(), Failure> {
    equal(&format!("occurrences of {old:?}"), text.matches(old).count(), 1)?;
    *text = text.replace(old, new);
    Ok(())
}
