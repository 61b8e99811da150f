//! A HAProxy of our own: found, configured with the files of this example, started, and ended with
//! the demo whatever happens.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::http;
use super::{DemoError, Outcome, ROUNDS, context, median};

const HAPROXY_CFG: &str = include_str!("../haproxy.cfg");
const SPOE_CONF: &str = include_str!("../spoe.conf");

/// How long HAProxy may take until it serves, and until it has noticed that the agent leaves.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at something that is expected to happen soon.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Another process may take a port between our choice and HAProxy's bind.
const ATTEMPTS: usize = 3;
/// How much of its log is shown when HAProxy fails.
const LINES_SHOWN: usize = 10;

/// A `haproxy` that can be started.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    pub(super) version: String,
}

impl Program {
    /// `$HAPROXY`, else `haproxy` on the PATH, else none.
    pub(super) fn find() -> Result<Option<Self>, DemoError> {
        let path = match std::env::var_os("HAPROXY").filter(|name| !name.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => match on_the_path("haproxy") {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        // HAProxy is started in another folder, where `./haproxy` would be something else.
        let path = if path.components().count() > 1 {
            std::path::absolute(&path).map_err(context(path.display()))?
        } else {
            path
        };
        let output = Command::new(&path).arg("-v").output().map_err(context(path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(version) = version(&text) else {
            let path = path.display();
            return Err(DemoError::new(format!("{path} -v does not look like HAProxy: {text:?}")));
        };
        Ok(Some(Self { version: version.to_owned(), path }))
    }
}

fn on_the_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// `2.6.12` of `HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/`.
fn version(text: &str) -> Option<&str> {
    let rest = text.split_once("version ")?.1;
    rest.split(|c: char| c == '-' || c.is_whitespace()).next().filter(|version| !version.is_empty())
}

/// A running HAProxy.
#[derive(Debug)]
pub(super) struct HaProxy {
    child: Killed,
    folder: PathBuf,
    /// Asks the agent about each request.
    pub(super) web: SocketAddr,
    /// The same without the agent: what a request takes anyway.
    plain: SocketAddr,
}

/// A child process that does not outlive its owner.
#[derive(Debug)]
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl HaProxy {
    /// Starts HAProxy in front of `agent` and waits until a request comes through.
    pub(super) async fn start(program: &Program, agent: SocketAddr) -> Result<Self, DemoError> {
        let folder = folder();
        fs::create_dir_all(&folder).map_err(context(folder.display()))?;
        let mut attempt = 1;
        loop {
            let mut haproxy = Self::spawn(program, &folder, agent)?;
            match haproxy.ready().await {
                Ok(()) => return Ok(haproxy),
                Err(error) if attempt == ATTEMPTS || !haproxy.log().contains("cannot bind") => {
                    return Err(error);
                }
                Err(_) => attempt += 1,
            }
        }
    }

    fn spawn(program: &Program, folder: &Path, agent: SocketAddr) -> Result<Self, DemoError> {
        let [web, plain] = free_addresses().map_err(context("a free port"))?;
        let config = config(agent, web, plain)?;
        for (name, text) in [("haproxy.cfg", config.as_str()), ("spoe.conf", SPOE_CONF)] {
            let path = folder.join(name);
            fs::write(&path, text).map_err(context(path.display()))?;
        }
        let log_file = log_file(folder);
        let log = File::create(&log_file).map_err(context(log_file.display()))?;
        let child = Command::new(&program.path)
            .args([OsStr::new("-db"), OsStr::new("-f"), OsStr::new("haproxy.cfg")])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(context(log_file.display()))?)
            .stderr(log)
            .spawn()
            .map_err(context(program.path.display()))?;
        Ok(Self { child: Killed(child), folder: folder.to_owned(), web, plain })
    }

    /// Sends requests in the name of `client`, each of them twice: the agent is asked about one.
    pub(super) async fn ask(&self, client: IpAddr) -> Result<Outcome, DemoError> {
        let (mut asked, mut plain) = (Vec::new(), Vec::new());
        let first = http::get(self.web, client).await.map_err(context(self.web))?;
        for _ in 0..ROUNDS {
            let response = http::get(self.web, client).await.map_err(context(self.web))?;
            if response.status != first.status {
                let (one, other) = (first.status, response.status);
                return Err(DemoError::new(format!("{client} got {one}, then {other}")));
            }
            asked.push(response.took);
            plain.push(http::get(self.plain, client).await.map_err(context(self.plain))?.took);
        }
        let added = median(asked).saturating_sub(median(plain));
        Ok(Outcome { status: first.status, error: error_variable(&first.body), added })
    }

    /// Until the agent is asked and answers.
    pub(super) async fn ready(&mut self) -> Result<(), DemoError> {
        self.until("served no request", async |haproxy| {
            let response = http::get(haproxy.web, IpAddr::V4(Ipv4Addr::LOCALHOST)).await;
            response.is_ok_and(|response| response.status == 200)
        })
        .await
    }

    /// Until HAProxy's health checks have taken the agent out. It says so in its log; requests do
    /// not tell, since HAProxy up to 3.0 goes on using the connections it has.
    pub(super) async fn without_agent(&mut self) -> Result<(), DemoError> {
        self.until("did not notice that health checks fail", async |haproxy| {
            haproxy.log().contains("Server agents/agent1 is DOWN")
        })
        .await
    }

    async fn until(
        &mut self,
        complaint: &str,
        done: impl AsyncFn(&Self) -> bool,
    ) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        while !done(self).await {
            if let Ok(Some(status)) = self.child.0.try_wait() {
                return Err(self.complain(&format!("ended at once ({status})")));
            }
            if Instant::now() >= deadline {
                return Err(self.complain(&format!("{complaint} within {PATIENCE:?}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn complain(&self, what: &str) -> DemoError {
        let (file, log) = (log_file(&self.folder), self.log());
        let lines: Vec<_> = log.lines().collect();
        let end = lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default();
        DemoError::new(format!("HAProxy {what}; {} ends:\n{}", file.display(), end.join("\n")))
    }

    fn log(&self) -> String {
        let bytes = fs::read(log_file(&self.folder)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where its configuration can be read.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The variable of `option set-on-error`, which rule 2 of haproxy.cfg writes into its response.
fn error_variable(body: &str) -> Option<u32> {
    body.trim_end().strip_prefix("no verdict, error ")?.parse().ok()
}

/// `target/demo`: what was generated goes where generated things go.
fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").filter(|name| !name.is_empty());
    target.map_or_else(|| PathBuf::from("target"), PathBuf::from).join("demo")
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("haproxy.log")
}

/// Ports that nobody uses at this moment; both are held until both are known.
fn free_addresses() -> io::Result<[SocketAddr; 2]> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let (one, two) = (TcpListener::bind(any)?, TcpListener::bind(any)?);
    Ok([one.local_addr()?, two.local_addr()?])
}

/// The shipped haproxy.cfg with the addresses of this run, and what the demo's client needs.
fn config(agent: SocketAddr, web: SocketAddr, plain: SocketAddr) -> Result<String, DemoError> {
    let bind = format!(
        "# --demo: its client says in a line of the PROXY protocol which address it comes from.\n    \
         bind {web} accept-proxy"
    );
    let global = "# --demo: a port that is taken is an error, not shared.\n    noreuseport";
    let mut text = HAPROXY_CFG.to_owned();
    for (shipped, ours) in [
        ("\nglobal\n", format!("\nglobal\n    {global}\n")),
        ("\n    bind 127.0.0.1:8080\n", format!("\n    {bind}\n")),
        ("\n    server agent1 127.0.0.1:12345 ", format!("\n    server agent1 {agent} ")),
    ] {
        if text.matches(shipped).count() != 1 {
            return Err(DemoError::new(format!("haproxy.cfg must have one line {shipped:?}")));
        }
        text = text.replacen(shipped, &ours, 1);
    }
    text.push_str(&format!(
        "\n# --demo: the same without the agent, to tell what asking it adds.\n\
         frontend plain\n    bind {plain} accept-proxy\n    \
         http-request return status 200 content-type text/plain string \"ok\\n\"\n"
    ));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let debian =
            "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\nStatus: x";
        assert_eq!(version(debian), Some("2.6.12"));
        assert_eq!(version("HA-Proxy version 2.2.0 2020/07/07 - x"), Some("2.2.0"));
        assert_eq!(version("HAProxy version 3.5-dev5-abc 2026"), Some("3.5"));
        assert_eq!(version("bash: not found"), None);
        assert_eq!(version("version "), None);
    }

    #[test]
    fn error_variable_is_in_the_response_of_rule_2() {
        assert!(HAPROXY_CFG.contains(r#""no verdict, error %[var(txn.iprep.error)]\n""#));
        assert_eq!(error_variable("no verdict, error 257\n"), Some(257));
        assert_eq!(error_variable("no verdict\n"), None);
    }

    #[test]
    fn only_addresses_differ_from_the_shipped_configuration() {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ours = config(address(1), address(2), address(3)).unwrap();
        let shipped: Vec<_> = HAPROXY_CFG.lines().collect();
        let added: Vec<_> = ours.lines().filter(|line| !shipped.contains(line)).collect();
        let lost: Vec<_> = shipped.iter().filter(|line| !ours.contains(**line)).collect();
        assert_eq!(
            added,
            [
                "    # --demo: a port that is taken is an error, not shared.",
                "    noreuseport",
                "    # --demo: its client says in a line of the PROXY protocol which address it comes from.",
                "    bind 127.0.0.1:2 accept-proxy",
                "    server agent1 127.0.0.1:1 check inter 1s fall 2",
                "# --demo: the same without the agent, to tell what asking it adds.",
                "frontend plain",
                "    bind 127.0.0.1:3 accept-proxy",
                "    http-request return status 200 content-type text/plain string \"ok\\n\"",
            ]
        );
        let expected =
            ["    bind 127.0.0.1:8080", "    server agent1 127.0.0.1:12345 check inter 1s fall 2"];
        assert_eq!(lost, expected.iter().collect::<Vec<_>>());
    }
}
