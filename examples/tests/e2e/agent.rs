//! The program `ip-reputation` as a child process.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::bench::{Failure, equal};
use crate::haproxy::{Log, Process};

/// What `ip-reputation` runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Runtime {
    Tokio,
    AsyncStd,
    Blocking,
    /// Blocking, with answers computed by a pool of threads.
    BlockingWorkers,
}

impl Runtime {
    /// All of them.
    pub(crate) const ALL: [Self; 4] =
        [Self::Tokio, Self::AsyncStd, Self::Blocking, Self::BlockingWorkers];

    /// Its name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            Self::AsyncStd => "async-std",
            Self::Blocking => "blocking",
            Self::BlockingWorkers => "blocking-workers",
        }
    }

    /// How the program is told.
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Tokio => &["--runtime", "tokio"],
            Self::AsyncStd => &["--runtime", "async-std"],
            Self::Blocking => &["--runtime", "blocking"],
            Self::BlockingWorkers => &["--runtime", "blocking", "--workers", "2"],
        }
    }
}

/// A running `ip-reputation`. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Agent(Process);

impl Agent {
    /// Starts it and returns once it accepts connections.
    pub(crate) fn start(
        runtime: Runtime,
        listen: &str,
        list: &Path,
        more: &[&str],
    ) -> io::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ip-reputation"));
        command.args(["--listen", listen, "--list"]).arg(list).args(runtime.arguments()).args(more);
        // A developer's RUST_LOG must not take away the lines that are waited for here.
        command.env_remove("RUST_LOG");
        let agent = Self(Process::start("ip-reputation", &mut command)?);
        agent.log().wait_for(0, "agent listening")?;
        Ok(agent)
    }

    /// What it printed.
    pub(crate) fn log(&self) -> &Log {
        self.0.log()
    }

    /// The process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.0
    }

    /// SIGHUP: reads its list again. Returns the place in its log before that.
    pub(crate) fn reload(&mut self) -> io::Result<usize> {
        let mark = self.log().mark();
        self.0.signal("HUP")?;
        Ok(mark)
    }

    /// SIGTERM, as an operator or systemd would: it has to drain and leave with status 0.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        self.0.signal("TERM")?;
        let status = self.0.wait()?;
        equal("exit code of ip-reputation after SIGTERM", status.code(), Some(0))
    }
}
