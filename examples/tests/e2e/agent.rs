//! The program `ip-reputation` as a child process.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::bench::{Failure, equal};
use crate::haproxy::{Log, Process};

/// A running `ip-reputation`. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Agent(Process);

impl Agent {
    /// Starts it and returns once it accepts connections.
    pub(crate) fn start(listen: &str, list: &Path, more: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ip-reputation"));
        command.args(["--listen", listen, "--list"]).arg(list).args(more);
        // A developer's RUST_LOG must not take away the lines that are waited for here.
        command.env_remove("RUST_LOG");
        let agent = Self(Process::start("ip-reputation", &mut command)?);
        agent.log().wait_for(0, "listening")?;
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
