//! What the agents of the gallery have in common beside their handlers: their options, where they log,
//! how they end.

#[path = "basics.rs"]
mod basics;

use std::error::Error;
use std::future::Future;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use spop_proto::Dispatch;
use spop_tokio::Agent;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

pub(crate) use self::basics::{Site, parse};

/// How long health checks fail before the agent leaves: more than `inter` times `fall` of the `server`
/// line in haproxy.cfg, so that HAProxy has gone elsewhere by then.
const LAME_DUCK: Duration = Duration::from_secs(3);

/// For the end of `--help`.
pub(crate) const AFTER_HELP: &str = "\
Exit status:
  0  after SIGTERM or Ctrl-C, or what was asked for is printed
  1  it cannot start, or with --check could not
  2  wrong usage

RUST_LOG says what to log, to stderr: error, warn, info (default), debug, trace.";

/// The options that all of them have.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    basics: basics::Basics,

    /// Read what the options name, say what is there, and exit: 0 if it can be used, 1 if not.
    #[arg(long, help_heading = basics::tell::INSTEAD, conflicts_with_all = ["describe", "print_haproxy_config"])]
    pub(crate) check: bool,
}

impl Options {
    /// Serves until SIGTERM or Ctrl-C, then drains.
    pub(crate) async fn serve<D: Dispatch>(self, agent: Agent<D>) -> io::Result<()> {
        // First, so that a signal that comes early finds its handler.
        let (mut term, mut int) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        };
        agent.lame_duck(LAME_DUCK).bind(self.basics.listen).await?.run_until(stop).await;
        Ok(())
    }
}

/// Runs the agent `name` on tokio, logs to stderr. Exit status 0 after a stop that was asked for, 1
/// where it could not start.
pub(crate) fn run(name: &str, agent: impl Future<Output = Result<(), Box<dyn Error>>>) -> ExitCode {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let stderr = tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy());
    stderr.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    let result = tokio::runtime::Runtime::new().map_err(Into::into);
    match result.and_then(|runtime| runtime.block_on(agent)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
