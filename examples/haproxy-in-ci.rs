//! A real HAProxy in the tests of your agent: one file, nothing but `std`. Copy it, for example to
//! `tests/haproxy/mod.rs`, and write a test beside it:
//!
//! ```ignore
//! mod haproxy;
//!
//! #[test]
//! fn the_score_reaches_the_request() -> std::io::Result<()> {
//!     let agent = my_agent::start_on("127.0.0.1:0")?;                   // yours, in a thread or a process
//!     let haproxy = haproxy::Site::new(agent.local_addr(), "iprep", include_str!("../spoe.conf"))
//!         .variable("txn.iprep.ip_score")                               // what you want to see
//!         .rule("http-request deny if { var(txn.iprep.ip_score) -m int gt 80 }")
//!         .start(&haproxy::find()?)?;                                   // returns once it serves
//!     let response = haproxy.get("/some/path")?;
//!     assert_eq!(response.status, 200);
//!     assert_eq!(response.variable("txn.iprep.ip_score"), Some("20"));
//!     Ok(())
//! }                                                                     // dropped: stopped, and its files gone
//! ```
//!
//! HAProxy is `$HAPROXY`, else the `haproxy` on the PATH: in CI `apt-get install haproxy`. Run the tests
//! with a version up to 3.0 and with one from 3.1 on: those have two engines, which differ now and then.
//!
//! Nothing here sleeps and hopes: [`Site::start`] returns when HAProxy accepts connections, and all waiting
//! ends after [`PATIENCE`], with an error that has HAProxy's own words in it; a test that panics prints them.
//! The server behind is HAProxy itself and answers 200, so there are request and response events.

#![allow(dead_code, unreachable_pub, reason = "copied whole: not all of it is used everywhere")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// How long anything may take before it counts as broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// HAProxy itself replaces `"${NAME}"` by what is in its environment; `@…@` is replaced below.
const CONFIG: &str = r#"
global
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    timeout connect 2s
    timeout client 30s
    timeout server 30s
frontend web
    bind "${WEB}"
    unique-id-format %[uuid()]
    filter spoe engine @ENGINE@ config spoe.conf
@RULES@
    default_backend app
backend app
    server app "${APP}"
frontend server
    bind "${APP}"
    http-request return status 200
backend agents
    mode tcp
    timeout server 3m
    server agent1 "${AGENT}" @SERVER@
"#;

/// `$HAPROXY`, else the first `haproxy` on the PATH.
pub fn find() -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut on_path = env::split_paths(&path).map(|folder| folder.join("haproxy"));
    let named = env::var_os("HAPROXY").filter(|name| !name.is_empty()).map(PathBuf::from);
    let none = "no haproxy on the PATH: install it, or set HAPROXY to the program";
    let found = named.or_else(|| on_path.find(|file| file.is_file()));
    found.ok_or_else(|| io::Error::new(ErrorKind::NotFound, none))
}

/// What HAProxy is to do.
#[derive(Debug, Clone)]
pub struct Site {
    agent: String,
    spoe: String,
    engine: String,
    server: String,
    rules: String,
}

impl Site {
    /// An agent, as the address of a `server` line (`127.0.0.1:12345`, `unix@/run/a.sock`); the section
    /// in brackets of spoe.conf; and its text, whose `use-backend` has to be `agents`.
    pub fn new(agent: impl ToString, engine: &str, spoe_conf: &str) -> Self {
        let (agent, engine, spoe) = (agent.to_string(), engine.to_owned(), spoe_conf.to_owned());
        Self { agent, engine, spoe, server: String::new(), rules: String::new() }
    }

    /// A variable, with scope and prefix, to be read by [`Response::variable`].
    pub fn variable(self, name: &str) -> Self {
        let value = format!("%[var({name})] if {{ var({name}) -m found }}");
        self.rule(&format!("http-after-response set-header {name} {value}"))
    }

    /// A line for the frontend, behind that of the filter.
    pub fn rule(mut self, line: &str) -> Self {
        self.rules += &format!("    {line}\n");
        self
    }

    /// Words for the agent's `server` line: `check`, `ssl verify required ca-file …`.
    pub fn server(mut self, words: &str) -> Self {
        words.clone_into(&mut self.server);
        self
    }

    /// Starts `program`; returns when it serves.
    pub fn start(&self, program: &Path) -> io::Result<Haproxy> {
        let (web, app) = (free_port()?, free_port()?);
        let folder = env::temp_dir().join(format!("haproxy-{}-{}", std::process::id(), web.port()));
        fs::create_dir_all(&folder)?;
        let config = CONFIG.replace("@ENGINE@", &self.engine).replace("@SERVER@", &self.server);
        fs::write(folder.join("haproxy.cfg"), config.replace("@RULES@", &self.rules))?;
        fs::write(folder.join("spoe.conf"), &self.spoe)?;
        // A file, not a pipe: nobody has to read it for HAProxy to go on.
        let log = fs::File::create(folder.join("log"))?;
        // -db: in the foreground, one process, which ends with its Child.
        let child = Command::new(program)
            .args(["-db", "-f", "haproxy.cfg"])
            .current_dir(&folder)
            .envs([
                ("WEB", web.to_string()),
                ("APP", app.to_string()),
                ("AGENT", self.agent.clone()),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", program.display()))
            })?;
        let mut haproxy = Haproxy { child, folder, web };
        haproxy.wait_until_it_serves()?;
        Ok(haproxy)
    }
}

/// A running HAProxy. Dropped, it is stopped.
#[derive(Debug)]
pub struct Haproxy {
    child: Child,
    folder: PathBuf,
    /// Where its frontend listens, for clients of your own.
    pub web: SocketAddr,
}

impl Haproxy {
    /// `GET path`, on a connection of its own.
    pub fn get(&self, path: &str) -> io::Result<Response> {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"))
    }

    /// A request as it is on the wire. It has to ask for `connection: close`.
    pub fn send(&self, request: &str) -> io::Result<Response> {
        let mut stream = TcpStream::connect_timeout(&self.web, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(|error| self.failure(&error.to_string()))?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&*answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| self.failure(&format!("no HTTP answer: {answer:?}")))?;
        let headers = head.lines().filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Response { status, headers, body: body.to_owned() })
    }

    /// What it printed so far, its log among it. A request's line may come a moment after its answer.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_else(|error| error.to_string())
    }

    fn failure(&self, what: &str) -> io::Error {
        io::Error::other(format!("{what}\n--- HAProxy printed:\n{}", self.log()))
    }

    fn wait_until_it_serves(&mut self) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&self.web, PATIENCE).is_err() {
            let ended =
                self.child.try_wait()?.map(|status| format!("HAProxy ended at once: {status}"));
            let late = (Instant::now() > end).then(|| "HAProxy accepts no connections".to_owned());
            if let Some(what) = ended.or(late) {
                return Err(self.failure(&what));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // Nothing to be done about errors here; that it ended already is the ordinary one.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.failure("the test failed"));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names and values, in their order.
    pub headers: Vec<(String, String)>,
    /// The body, with chunks where it has some.
    pub body: String,
}

impl Response {
    /// The value of a variable that [`Site::variable`] named; `None` where it is not set.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let named = |header: &&(String, String)| header.0.eq_ignore_ascii_case(name);
        self.headers.iter().find(named).map(|(_, value)| &**value)
    }
}

/// A port of 127.0.0.1 on which nobody listens, another one with each call.
pub fn free_port() -> io::Result<SocketAddr> {
    // Below those of outgoing connections, which could take it before HAProxy does. Test programs that
    // run at once begin in different places.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 200).unwrap_or(0) * 100;
    for _ in 0..20_000 {
        let nth = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], 10_000 + nth));
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(address),
            _ => {}
        }
    }
    Err(io::Error::new(ErrorKind::AddrInUse, "no port is free on 127.0.0.1"))
}
