//! The programs of the gallery, in processes of their own.
#![allow(dead_code, unused_imports, reason = "their unit tests are run where they are examples")]

use std::env;
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::haproxy::{Process, free_port};

#[path = "../../body-inspect/main.rs"]
pub(crate) mod body_inspect;
#[path = "../../geoip/main.rs"]
pub(crate) mod geoip;
#[path = "../../jwt-auth/main.rs"]
pub(crate) mod jwt_auth;
#[path = "../../mirror/main.rs"]
pub(crate) mod mirror;
#[path = "../../rate-limit/main.rs"]
pub(crate) mod rate_limit;
#[path = "../../raw-loop/main.rs"]
pub(crate) mod raw_loop;

/// Says which to be.
pub(crate) const VARIABLE: &str = "SPOP_GALLERY_AGENT";

/// The agent itself, when this process is one.
pub(crate) fn run() -> Option<ExitCode> {
    let name = env::var(VARIABLE).ok()?;
    Some(match name.as_str() {
        "body-inspect" => body_inspect::main(),
        "geoip" => geoip::main(),
        "jwt-auth" => jwt_auth::main(),
        "mirror" => mirror::main(),
        "rate-limit" => rate_limit::main(),
        "raw-loop" => raw_loop::main(),
        _ => {
            eprintln!("{VARIABLE}: there is no `{name}`");
            ExitCode::FAILURE
        }
    })
}

/// An agent that listens. Dropped, it is killed.
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Agent {
    /// Starts it and returns once it accepts connections.
    pub(crate) fn start(name: &str, options: &[&OsStr]) -> io::Result<Self> {
        let address = free_port()?;
        let mut command = Self::command(name)?;
        command.arg("--listen").arg(address.to_string()).args(options);
        let process = Process::start(name, &mut command)?;
        process.log().wait_for(0, "agent listening")?;
        Ok(Self { process, address })
    }

    /// The program, without any options.
    pub(crate) fn command(name: &str) -> io::Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        command.env(VARIABLE, name).env_remove("RUST_LOG");
        Ok(command)
    }

    /// Writes what `--print-haproxy-config` prints into a folder.
    pub(crate) fn print_configuration(name: &str, folder: &Path, more: &[&str]) -> io::Result<()> {
        let option = format!("--print-haproxy-config={}", folder.display());
        let output = Self::command(name)?.arg(option).args(more).output()?;
        assert!(output.status.success() && output.stdout.is_empty(), "{name}: {output:?}");
        Ok(())
    }

    /// What `--help` prints.
    pub(crate) fn help(name: &str) -> io::Result<String> {
        let output = Self::command(name)?.arg("--help").output()?;
        assert!(output.status.success(), "{name}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// SIGTERM, as an operator or systemd would: it has to drain and leave with status 0.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        self.process.signal("TERM")?;
        let status = self.process.wait()?;
        assert_eq!(status.code(), Some(0), "exit code after SIGTERM");
        Ok(())
    }
}
