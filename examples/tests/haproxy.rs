//! A real HAProxy in your tests: one file, nothing but `std`. Copy it into your own project; a smaller
//! one to begin with is `../haproxy-in-ci.rs`.
//!
//! ```ignore
//! #[path = "haproxy.rs"]
//! mod haproxy;
//!
//! const CONFIG: &str = r#"
//! defaults
//!     mode http
//!     timeout connect 2s
//!     timeout client 30s
//!     timeout server 30s
//! frontend web
//!     bind "${WEB}"
//!     filter spoe engine my-engine config spoe.conf
//!     http-request return status 200 content-type text/plain lf-string "%[var(txn.my.score)]"
//! backend agents
//!     mode tcp
//!     server agent1 "${AGENT}"
//! "#;
//!
//! #[test]
//! fn the_answer_reaches_the_request() -> std::io::Result<()> {
//!     let program = haproxy::Program::find(None)?; // $HAPROXY, then the PATH
//!     let (web, agent) = (haproxy::free_port()?, haproxy::free_port()?);
//!     // ... start the agent on `agent` ...
//!     let _haproxy = haproxy::Setup::new(CONFIG)
//!         .file("spoe.conf", include_str!("spoe.conf"))
//!         .set("WEB", web)
//!         .set("AGENT", agent)
//!         .start(&program)?; // returns once HAProxy serves; dropped, it is gone
//!     let answer = haproxy::Client::connect(web)?.send(&haproxy::Request::get("/"))?;
//!     assert_eq!((answer.status, answer.text().as_ref()), (200, "42"));
//!     Ok(())
//! }
//! ```
//!
//! What it takes care of, because each of these makes tests fail now and then:
//!
//! - Configurations are plain text without a template language: HAProxy itself replaces `"${NAME}"`
//!   (inside double quotes) by what [`Setup::set`] gave.
//! - Ports lie below the range from which the system picks ports for outgoing connections, so no
//!   connection of a neighbour sits on them, not even while a server is stopped and started again.
//! - "It serves" is asked, not slept for: [`Setup::start`] returns when HAProxy has answered on its
//!   own admin socket, which it does only after every listener is bound. All waiting ends after
//!   [`DEADLINE`].
//! - What HAProxy prints is kept ([`Log`]). Errors of this file end with its last lines, and a test
//!   that panics while a [`Process`] lives prints them.
//!
//! Needs a Unix system, as HAProxy does.

#![allow(dead_code, reason = "copied whole: not every project uses every function")]
#![allow(unreachable_pub, reason = "a module in one test target, the root of another")]
#![allow(clippy::exhaustive_structs, reason = "no crate depends on a test")]

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// How long anything here waits before it calls it a failure. Generous, because the machines tests
/// run on are slow and busy; it is met only when something is broken.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The pause between two looks at something that cannot be waited for.
const NAP: Duration = Duration::from_millis(5);

/// How many of its last lines a [`Log`] keeps, and how many of them an error shows.
const KEPT: usize = 5_000;
const SHOWN: usize = 25;

// ------------------------------------------------------------------------------- the program

/// HAProxy's version, as `haproxy -v` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The 3 of `3.2.26`.
    pub major: u32,
    /// The 2 of `3.2.26`.
    pub minor: u32,
    text: String,
}

impl Version {
    /// Reads the first line of `haproxy -v`: `HAProxy version 2.6.12-1+deb12u4 2026/10/17 - …`.
    pub fn parse(line: &str) -> Option<Self> {
        let full = line.split_once("version ")?.1.split_whitespace().next()?;
        // What distributions append says nothing about HAProxy; `-dev5` does.
        let mut parts = full.split(['-', '+', '~']);
        let mut text = parts.next()?.to_owned();
        if let Some(development) = parts.next().filter(|part| part.starts_with("dev")) {
            text = format!("{text}-{development}");
        }
        let mut numbers = full.split(['.', '-', '+', '~']);
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Self { major, minor, text })
    }

    /// True for HAProxy 3.1 and later, which speak SPOP through a multiplexer of their own: no
    /// fragmentation, no async, and other answers to faults than before.
    pub fn has_spop_multiplexer(&self) -> bool {
        (self.major, self.minor) >= (3, 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An HAProxy that can be run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// What it says it is.
    pub version: Version,
}

/// Where an HAProxy comes from on a machine that has none: `SCRIPT SUITE DIRECTORY` must leave
/// `DIRECTORY/haproxy`.
#[derive(Debug, Clone)]
pub struct Unpack {
    /// The script to run.
    pub script: PathBuf,
    /// Its first argument: which HAProxy.
    pub suite: String,
    /// Its second argument: where to.
    pub directory: PathBuf,
}

impl Program {
    /// The HAProxy at `path`.
    pub fn at(path: impl Into<PathBuf>) -> io::Result<Self> {
        let mut path = path.into();
        // It is started in another directory than this one. A bare name is looked up on the PATH.
        if path.components().count() > 1 {
            path = std::path::absolute(path)?;
        }
        let output = Command::new(&path).arg("-v").output().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = Version::parse(&said).ok_or_else(|| {
            let said = [said.as_ref(), &String::from_utf8_lossy(&output.stderr)].concat();
            io::Error::other(format!("{} -v is not HAProxy: {said}", path.display()))
        })?;
        Ok(Self { path, version })
    }

    /// `$HAPROXY`, else the first `haproxy` on the PATH, else what `unpack` fetches.
    ///
    /// An error of kind [`io::ErrorKind::NotFound`] means that this machine has none, and why: a
    /// reason to skip tests. Any other is worth a failure, a `$HAPROXY` that does not run above all,
    /// since whoever set it wants that one and no other.
    pub fn find(unpack: Option<&Unpack>) -> io::Result<Self> {
        let all = Self::find_all(unpack)?;
        let none = || io::Error::other("$HAPROXY names no program");
        all.into_iter().next().ok_or_else(none)
    }

    /// The same for tests that run with each of several: `$HAPROXY` may name more than one, separated
    /// by colons as in PATH.
    pub fn find_all(unpack: Option<&Unpack>) -> io::Result<Vec<Self>> {
        if let Some(paths) = env::var_os("HAPROXY").filter(|path| !path.is_empty()) {
            let wrong = |error| io::Error::other(format!("$HAPROXY does not run: {error}"));
            return env::split_paths(&paths).map(|path| Self::at(path).map_err(wrong)).collect();
        }
        Self::installed(unpack).map(|program| vec![program])
    }

    fn installed(unpack: Option<&Unpack>) -> io::Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&path).map(|dir| dir.join("haproxy")).find(|p| p.is_file());
        if let Some(path) = on_path {
            return Self::at(path);
        }
        let none = "$HAPROXY is not set and no haproxy is on the PATH";
        let Some(Unpack { script, suite, directory }) = unpack else {
            return Err(io::Error::new(io::ErrorKind::NotFound, none));
        };
        // The script is asked even if the file is there: it knows whether that is whole.
        let reason = match Command::new(script).arg(suite).arg(directory).output() {
            Ok(output) if output.status.success() => return Self::at(directory.join("haproxy")),
            // One line: it becomes the reason of a skipped test.
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
            Err(error) => error.to_string(),
        };
        let script = script.display();
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{none}; {script} {suite}: {reason}")))
    }

    /// `haproxy -c`: whether a configuration file is right. Relative names in it are looked up beside
    /// it. The error tells all that HAProxy said.
    pub fn check(&self, config: &Path) -> io::Result<()> {
        self.warnings(config).map(drop)
    }

    /// The same check; returns what HAProxy said about a file that it accepts, which is nothing
    /// where it has no warning.
    pub fn warnings(&self, config: &Path) -> io::Result<String> {
        let mut command = Command::new(&self.path);
        command.arg("-c").arg("-f").arg(config);
        if let Some(beside) = config.parent() {
            command.current_dir(beside);
        }
        let output = command.output()?;
        // That a file is valid is said on stdout, and only by some versions.
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(said.trim().to_owned());
        }
        Err(io::Error::other(format!("{} is refused:\n{said}", config.display())))
    }
}

// ------------------------------------------------------------------------------ configuration

/// A configuration to start HAProxy with.
///
/// Only one thing is added to it: an admin socket, in a file of its own before yours.
#[derive(Debug, Clone)]
pub struct Setup {
    files: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    replaced: Option<Replaced>,
}

/// The HAProxy that a reload replaces.
#[derive(Debug, Clone)]
struct Replaced {
    pid: String,
    directory: Arc<Directory>,
    generation: u32,
}

impl Setup {
    /// The text of haproxy.cfg. `"${NAME}"` (in double quotes) stands for what [`Setup::set`] gives.
    /// With `log stdout format raw local0` in `global`, HAProxy's log is in [`Haproxy::log`].
    pub fn new(haproxy_cfg: impl Into<String>) -> Self {
        let setup = Self { files: Vec::new(), variables: Vec::new(), replaced: None };
        setup.file(CONFIG, haproxy_cfg)
    }

    /// One more file beside haproxy.cfg, which names it without a directory.
    #[must_use]
    pub fn file(mut self, name: &str, text: impl Into<String>) -> Self {
        self.files.push((name.to_owned(), text.into()));
        self
    }

    /// The value of `"${NAME}"` in the configuration.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// For a reload: started from here, once, HAProxy takes the listeners over from `old` and tells it
    /// to finish what it has begun and to end, for which [`Process::wait`] waits. The files of `old`
    /// are replaced by these.
    pub fn replacing(mut self, old: &mut Haproxy) -> io::Result<Self> {
        // A child that was not waited for keeps its number, so the signal cannot meet another process.
        if let Some(status) = old.process.exited()? {
            return Err(io::Error::other(format!(
                "HAProxy cannot be reloaded, it ended: {status}"
            )));
        }
        self.replaced = Some(Replaced {
            pid: old.process.child.id().to_string(),
            directory: Arc::clone(&old.directory),
            generation: old.generation,
        });
        Ok(self)
    }

    /// Starts HAProxy and returns once it serves.
    pub fn start(&self, program: &Program) -> io::Result<Haproxy> {
        let (directory, generation) = match &self.replaced {
            Some(Replaced { directory, generation, .. }) => (Arc::clone(directory), generation + 1),
            None => (Arc::new(Directory::new()?), 0),
        };
        let admin = admin_socket(generation);
        for (name, text) in &self.files {
            fs::write(directory.path().join(name), text)?;
        }
        // The name is relative because the path of a Unix socket has to be short. And HAProxy must not
        // share a port with another one that happens to have it: a reload hands the listeners over.
        let admin_cfg = format!(
            "global\n    stats socket unix@{admin} mode 600 level admin expose-fd listeners\n    noreuseport\n"
        );
        fs::write(directory.path().join("admin.cfg"), admin_cfg)?;

        // Foreground, one process, no quiet mode: it dies with its Child and says what it does.
        let mut command = Command::new(&program.path);
        command.args(["-db", "-f", "admin.cfg", "-f", CONFIG]).current_dir(directory.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(Replaced { pid, generation, .. }) = &self.replaced {
            // -sf takes all that follows for process numbers, so it comes last.
            command.args(["-x", &admin_socket(*generation), "-sf", pid]);
        }
        let mut haproxy = Haproxy {
            process: Process::start(&format!("haproxy {}", program.version), &mut command)?,
            directory,
            generation,
        };
        haproxy.wait_until_it_serves()?;
        Ok(haproxy)
    }
}

const CONFIG: &str = "haproxy.cfg";

/// Each process has its own: asked, it is the one that answers.
fn admin_socket(generation: u32) -> String {
    format!("admin-{generation}.sock")
}

/// A running HAProxy. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Haproxy {
    // In this order: the process goes before the files it uses.
    process: Process,
    /// Shared by those that replaced each other.
    directory: Arc<Directory>,
    /// How many reloads came before it.
    generation: u32,
}

impl Haproxy {
    /// What it printed, its log among it.
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// The process, to send signals to and to wait for.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its working directory: where its files and the sockets of its configuration are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// One command on the admin socket, for example `show servers state`; returns the answer.
    pub fn command(&self, command: &str) -> io::Result<String> {
        let admin = admin_socket(self.generation);
        let mut socket = UnixStream::connect(self.directory.path().join(admin))?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        writeln!(socket, "{command}")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// One field of `show stat`, by the name in its heading: `stat("agents", "agent1", "status")`.
    /// The service is a server's name, `FRONTEND` or `BACKEND`.
    pub fn stat(&self, proxy: &str, service: &str, field: &str) -> io::Result<String> {
        let table = self.command("show stat")?;
        let missing = || io::Error::other(format!("no {field} of {proxy}/{service} in:\n{table}"));
        let mut lines = table.lines().map(fields);
        let heading = lines.next().ok_or_else(missing)?;
        let column = heading.iter().position(|name| name.trim_start_matches("# ") == field);
        let row = lines.find(|row| {
            row.first().is_some_and(|name| name == proxy)
                && row.get(1).is_some_and(|name| name == service)
        });
        row.zip(column).and_then(|(row, column)| row.into_iter().nth(column)).ok_or_else(missing)
    }

    /// Waits until a server's status in `show stat` is that one: `UP`, `DOWN`, `MAINT`, …
    pub fn wait_for_server(&self, backend: &str, server: &str, status: &str) -> io::Result<()> {
        let what = format!("server {backend}/{server} to be {status}");
        let reached = wait_until(&what, || {
            Ok(self.stat(backend, server, "status")?.eq(status).then_some(()))
        });
        reached.map_err(|error| self.process.failure(&error))
    }

    fn wait_until_it_serves(&mut self) -> io::Result<()> {
        let served = wait_until("HAProxy's admin socket to answer", || {
            if let Some(status) = self.process.exited()? {
                self.process.log.wait_for_end();
                return Err(io::Error::other(format!("HAProxy ended at once: {status}")));
            }
            Ok(self.command("show info").ok().filter(|answer| answer.contains("Version")))
        });
        served.map(|_| ()).map_err(|error| self.process.failure(&error))
    }
}

/// The fields of a line of `show stat`, where the last check's text may be quoted.
fn fields(line: &str) -> Vec<String> {
    let (mut all, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    all.push(field);
    all
}

// ---------------------------------------------------------------------------------- processes

/// A child process whose output is kept; killed when dropped. For HAProxy, and for an agent that is
/// a program of its own.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Log,
}

impl Process {
    /// Starts a command without input; `name` says in messages what it is.
    pub fn start(name: &str, command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            let program = Path::new(command.get_program()).display();
            io::Error::new(error.kind(), format!("cannot start {name} ({program}): {error}"))
        })?;
        let log = Log::default();
        log.read(child.stdout.take());
        log.read(child.stderr.take());
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// What it printed so far, to stdout and stderr.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its exit status, if it has ended.
    pub fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal by its name without SIG: `TERM`, `HUP`, `USR1`, `STOP`, …
    pub fn signal(&mut self, signal: &str) -> io::Result<()> {
        // `std` can only kill. The shell's built-in needs no crate and no unsafe code; and a child
        // that was not waited for keeps its number, so the signal cannot meet another process.
        if let Some(status) = self.exited()? {
            let error = io::Error::other(format!("no SIG{signal}: it ended before: {status}"));
            return Err(self.failure(&error));
        }
        let pid = self.child.id().to_string();
        let status =
            Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid]).status()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("kill -s {signal} {pid} ({}): {status}", self.name)))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let ended = wait_until(&format!("{} to end", self.name), || self.child.try_wait());
        self.log.wait_for_end();
        ended.map_err(|error| self.failure(&error))
    }

    /// `error`, followed by the last lines this process printed.
    pub fn failure(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{error}\n{}", self.tail()))
    }

    fn tail(&self) -> String {
        self.log.tail(&self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to be done about an error here; that it ended already is the ordinary one.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

/// The last lines a [`Process`] printed, complete ones only. Clones are the same log.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    /// How many came before the kept ones.
    dropped: usize,
    /// How many pipes may still bring more.
    open: usize,
}

impl Log {
    /// A place in the log, for [`Log::wait_for`]: all that comes after this call lies behind it.
    pub fn mark(&self) -> usize {
        let lines = self.lock();
        lines.dropped + lines.kept.len()
    }

    /// Waits for a line behind `mark` (0 for any line) that contains `text`, and returns it.
    pub fn wait_for(&self, mark: usize, text: &str) -> io::Result<String> {
        let end = Instant::now() + DEADLINE;
        let mut lines = self.lock();
        let mut seen = mark;
        loop {
            let from = seen.saturating_sub(lines.dropped);
            if let Some(line) = lines.kept.iter().skip(from).find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            seen = lines.dropped + lines.kept.len();
            let left = end.saturating_duration_since(Instant::now());
            if lines.open == 0 || left.is_zero() {
                drop(lines);
                let error = format!("no line with {text:?} was printed\n{}", self.tail("it"));
                return Err(io::Error::new(io::ErrorKind::TimedOut, error));
            }
            let woken = self.0.changed.wait_timeout(lines, left);
            lines = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The kept lines behind `mark` (0 for all).
    pub fn lines(&self, mark: usize) -> Vec<String> {
        let lines = self.lock();
        lines.kept.iter().skip(mark.saturating_sub(lines.dropped)).cloned().collect()
    }

    /// The last lines as a block of text, under a heading.
    pub fn tail(&self, name: &str) -> String {
        let lines = self.lock();
        let mut text = format!("--- the last lines of {name}:");
        if lines.kept.is_empty() {
            text.push_str(" none");
        }
        for line in lines.kept.iter().skip(lines.kept.len().saturating_sub(SHOWN)) {
            let _ = write!(text, "\n    {line}");
        }
        text
    }

    /// After the end of a process: what it wrote last may still be on its way. Not for long; only a
    /// process of its own that it left behind could hold the pipes open.
    fn wait_for_end(&self) {
        let (lines, second) = (self.lock(), Duration::from_secs(1));
        drop(self.0.changed.wait_timeout_while(lines, second, |lines| lines.open > 0));
    }

    /// Follows a pipe until its end, on a thread of its own: an unread pipe would block its writer.
    fn read(&self, pipe: Option<impl Read + Send + 'static>) {
        let Some(pipe) = pipe else { return };
        self.lock().open += 1;
        let log = self.clone();
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                line.clear();
                let mut lines = log.lock();
                if lines.kept.len() == KEPT {
                    lines.kept.pop_front();
                    lines.dropped += 1;
                }
                lines.kept.push_back(text);
                log.0.changed.notify_all();
            }
            log.lock().open -= 1;
            log.0.changed.notify_all();
        });
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// ------------------------------------------------------------------- waiting, ports, directories

/// Asks until there is an answer, at most [`DEADLINE`]; `what` names in the error what was awaited.
pub fn wait_until<T>(what: &str, mut ask: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > end {
            let error = format!("waited {} s in vain for {what}", DEADLINE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        thread::sleep(NAP);
    }
}

/// A port of 127.0.0.1 on which nobody listens, another one with each call.
pub fn free_port() -> io::Result<SocketAddr> {
    // Not port 0: the system's choice lies among the ports of outgoing connections. Such a port can
    // be taken by anybody's connection before it is bound (again), and a client that tries it while
    // nobody listens can even meet itself. Linux starts those ports at 32768, others higher.
    const PORTS: std::ops::Range<u32> = 10_000..32_768;
    // Test programs that run at once take different stretches.
    const STRETCH: u32 = 1_024;
    static TAKEN: AtomicU32 = AtomicU32::new(0);

    let count = PORTS.end - PORTS.start;
    let first = (std::process::id() % (count / STRETCH)) * STRETCH;
    for _ in PORTS {
        let nth = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + first.wrapping_add(nth) % count;
        let address = u16::try_from(port).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        // Tried as a client: a socket that is bound for the test could live on for a moment in a child
        // that another thread starts just then, and the port would not be free when it is needed.
        let free = |address: &SocketAddr| {
            let tried = TcpStream::connect_timeout(address, Duration::from_secs(1));
            tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        if let Some(address) = address.ok().filter(free) {
            return Ok(address);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free on 127.0.0.1"))
}

/// A directory of its own for a test, removed when dropped.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// An empty directory below Cargo's `target/tmp`, or below the system's where that would make
    /// the path of a Unix socket in it too long (108 bytes, and HAProxy needs some for itself).
    pub fn new() -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let cargo = option_env!("CARGO_TARGET_TMPDIR").map(PathBuf::from);
        let base = cargo.filter(|base| base.as_os_str().len() <= 60).unwrap_or_else(env::temp_dir);
        let (pid, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = base.join(format!("haproxy-{pid}-{number}"));
        // A former process of that number may have been killed before it could clean up.
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

// ---------------------------------------------------------------------------------------- HTTP

/// An HTTP/1.1 request. Header values are bytes, since not all that HAProxy passes on is text.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    /// `GET target`.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// `POST target` with a body, whose length is announced.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        Self { body, ..Self::new("POST", target) }.header("content-length", length)
    }

    /// `POST target` with a body in chunks of so many bytes: its length is not announced.
    pub fn post_chunked(target: &str, body: impl AsRef<[u8]>, size: usize) -> Self {
        let mut chunks = Vec::new();
        for chunk in body.as_ref().chunks(size.max(1)) {
            chunks.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunks.extend([chunk, b"\r\n"].concat());
        }
        chunks.extend(b"0\r\n\r\n");
        Self { body: chunks, ..Self::new("POST", target) }.header("transfer-encoding", "chunked")
    }

    fn new(method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self { method, target, headers: Vec::new(), body: Vec::new() }.header("host", "test")
    }

    /// One more header, sent as it is.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

/// An HTTP/1.1 answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers in their order, the values as bytes.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, without its chunks.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name, in upper or lower case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        headers.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    /// The body as text.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// Reads one answer to a request of any method but HEAD, and nothing behind it.
    fn read(from: &mut impl BufRead) -> io::Result<Self> {
        loop {
            let answer = Self::read_one(from)?;
            // 100 Continue and its like come before the answer.
            if answer.status >= 200 {
                return Ok(answer);
            }
        }
    }

    fn read_one(from: &mut impl BufRead) -> io::Result<Self> {
        let first = line(from)?;
        let text = String::from_utf8_lossy(&first);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.filter(|_| text.starts_with("HTTP/1."));
        let status: u16 = status.ok_or_else(|| invalid(&format!("not a status line: {text:?}")))?;
        let mut answer = Self { status, headers: headers(from)?, body: Vec::new() };
        let length = answer.header("content-length").map(number::<10>).transpose()?;
        let chunked = answer.header("transfer-encoding").is_some();
        if chunked {
            loop {
                let size = line(from)?;
                let digits = size.split(|byte| *byte == b';').next().unwrap_or_default();
                let size = number::<16>(digits.trim_ascii())?;
                if size == 0 {
                    headers(from)?; // trailers, which nobody here asks for
                    break;
                }
                answer.read_body(from, size)?;
                line(from)?;
            }
        } else if let Some(length) = length {
            answer.read_body(from, length)?;
        } else if !matches!(status, 100..200 | 204 | 304) {
            from.read_to_end(&mut answer.body)?;
        }
        Ok(answer)
    }

    fn read_body(&mut self, from: &mut impl BufRead, length: u64) -> io::Result<()> {
        let got = from.take(length).read_to_end(&mut self.body)?;
        if u64::try_from(got).is_ok_and(|got| got == length) {
            return Ok(());
        }
        Err(invalid(&format!("the body ended after {got} of {length} bytes")))
    }
}

/// A connection to HAProxy as a client: requests one after the other, kept alive.
#[derive(Debug)]
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Connects and says with the PROXY protocol that the client is `client`. For a HAProxy that
    /// has `accept-proxy` on its `bind` line, where `src` is then that address.
    pub fn connect_as(to: SocketAddr, client: IpAddr) -> io::Result<Self> {
        let mut connected = Self::connect(to)?;
        connected.0.get_mut().write_all(proxy_line(client).as_bytes())?;
        Ok(connected)
    }

    /// Sends a request and reads its answer. An error of kind [`io::ErrorKind::ConnectionReset`]
    /// says that HAProxy closed the connection without a byte of an answer: a client may then ask
    /// again on a new one (RFC 9112, section 9.3.1).
    pub fn send(&mut self, request: &Request) -> io::Result<Response> {
        self.finish(&request.to_bytes())
    }

    /// The same with a body that comes later than the headers: once `until` has returned, which is
    /// called when these are sent.
    pub fn send_body_later(
        &mut self,
        request: &Request,
        until: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Response> {
        let headers = Request { body: Vec::new(), ..request.clone() };
        self.0.get_mut().write_all(&headers.to_bytes())?;
        until()?;
        self.finish(&request.body)
    }

    /// Sends the end of a request and reads its answer.
    fn finish(&mut self, bytes: &[u8]) -> io::Result<Response> {
        let sent = self.0.get_mut().write_all(bytes);
        let begun = sent.and_then(|()| self.begin());
        if begun.as_ref().map_or_else(is_close, |begun| !begun) {
            let text = "HAProxy closed the connection and did not answer";
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, text));
        }
        let answer = begun.and_then(|_| Response::read(&mut self.0));
        answer.map_err(|error| match error.kind() {
            // The answer had begun, and that is another matter.
            _ if is_close(&error) => invalid(&format!("the answer ended early: {error}")),
            // What a socket's timeout is called where it is not called TimedOut says nothing to a reader.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let text = format!("no HTTP answer within {} s", DEADLINE.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, text)
            }
            _ => error,
        })
    }

    /// Waits for the first byte of an answer; false at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            match self.0.fill_buf() {
                // With a timeout set, a process that was stopped and goes on finds its read ended.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                begin => return begin.map(|begin| !begin.is_empty()),
            }
        }
    }
}

/// What the system calls a connection that the other side has closed.
fn is_close(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

fn proxy_line(client: IpAddr) -> String {
    match client {
        IpAddr::V4(client) => format!("PROXY TCP4 {client} 127.0.0.1 40000 80\r\n"),
        IpAddr::V6(client) => format!("PROXY TCP6 {client} ::1 40000 80\r\n"),
    }
}

fn line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(invalid("the connection ended before the answer did"));
    }
    Ok(line.trim_ascii_end().to_vec())
}

fn headers(from: &mut impl BufRead) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut headers = Vec::new();
    loop {
        let line = line(from)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
        let value = halves.next().unwrap_or_default().trim_ascii().to_vec();
        headers.push((name, value));
    }
}

fn number<const BASE: u32>(digits: &[u8]) -> io::Result<u64> {
    let text = String::from_utf8_lossy(digits);
    u64::from_str_radix(&text, BASE).map_err(|_| invalid(&format!("not a length: {text:?}")))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

// ------------------------------------------------------------------------------------- its tests

#[cfg(test)]
mod tests {
    #![allow(unused_imports, reason = "a test target without a harness drops the functions below")]

    use super::*;

    #[test]
    fn versions_of_all_kinds_are_read() {
        let cases = [
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", "2.6.12", false),
            ("HA-Proxy version 2.2.9-2+deb11u6 2023/12/21", "2.2.9", false),
            ("HAProxy version 3.0.11-1+deb13u3 2026/05/20 - https://haproxy.org/", "3.0.11", false),
            ("HAProxy version 3.2.26 2026/10/14 - https://haproxy.org/", "3.2.26", true),
            ("HAProxy version 3.5-dev5-0a1b2c 2026/08/21 - https://haproxy.org/", "3.5-dev5", true),
        ];
        for (line, text, new) in cases {
            let version = Version::parse(line).unwrap();
            assert_eq!((version.to_string().as_str(), version.has_spop_multiplexer()), (text, new));
        }
        for line in ["", "nginx version: nginx/1.22.1", "HAProxy version", "HAProxy version x.y"] {
            assert_eq!(Version::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_statistics_line_may_quote_commas() {
        assert_eq!(fields(r#"a,,"b, c",d"#), ["a", "", "b, c", "d"]);
    }

    #[test]
    fn answers_end_where_they_should() {
        let cases: [(&str, u16, &str, &str); 5] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabREST", 200, "ab", "REST"),
            ("HTTP/1.1 204 No Content\r\n\r\nREST", 204, "", "REST"),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\ncontent-length:0\r\n\r\nREST",
                403,
                "",
                "REST",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nt: 1\r\n\r\nREST",
                200,
                "abc",
                "REST",
            ),
            ("HTTP/1.0 200 OK\r\n\r\nto the end", 200, "to the end", ""),
        ];
        for (input, status, body, rest) in cases {
            let mut input = input.as_bytes();
            let answer = Response::read(&mut input).unwrap();
            assert_eq!((answer.status, answer.text().as_ref()), (status, body));
            assert_eq!(input, rest.as_bytes());
        }
    }

    #[test]
    fn broken_answers_are_errors() {
        for input in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nab",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(Response::read(&mut input.as_bytes()).is_err(), "{input}");
        }
    }

    #[test]
    fn header_values_are_bytes() {
        let bytes = Request::post("/", "ab").header("x", [0x80, 0xff]).to_bytes();
        let head = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\nx: \x80\xff\r\n\r\nab";
        assert_eq!(bytes, head);
        let mut answer: &[u8] = b"HTTP/1.1 204 x\r\nX-Y: \x80\xff \r\n\r\n";
        let answer = Response::read(&mut answer).unwrap();
        assert_eq!(answer.header("x-y"), Some([0x80, 0xff].as_slice()));
    }

    #[test]
    fn the_proxy_line_names_the_client() {
        let line = proxy_line("2001:db8::1".parse().unwrap());
        assert_eq!(line, "PROXY TCP6 2001:db8::1 ::1 40000 80\r\n");
    }

    #[test]
    fn ports_differ_and_lie_below_the_ephemeral_ones() {
        let ports: Vec<_> = (0..20).map(|_| free_port().unwrap().port()).collect();
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), ports.len());
        assert!(ports.iter().all(|port| (10_000..32_768).contains(port)), "{ports:?}");
    }

    #[test]
    fn a_process_is_heard_signalled_and_waited_for() {
        let script =
            "trap 'echo caught; exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.01; done";
        let mut process = Process::start("sh", Command::new("sh").args(["-c", script])).unwrap();
        process.log().wait_for(0, "out").unwrap();
        process.log().wait_for(0, "err").unwrap();
        assert!(process.exited().unwrap().is_none());
        let mark = process.log().mark();
        process.signal("TERM").unwrap();
        assert_eq!(process.wait().unwrap().code(), Some(3));
        assert_eq!(process.log().lines(mark), ["caught"]);
        assert!(process.signal("TERM").is_err());
        let error = process.log().wait_for(0, "never said").unwrap_err().to_string();
        assert!(error.contains("caught"), "{error}");
    }
}
