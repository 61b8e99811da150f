//! An SPOE agent that always gives a verdict, and HAProxy's rules for when there is none all the same.
//!
//! `README.md` beside this file is the page about it, `agent.rs` the agent; this file is how it lives.

mod agent;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use spop_tokio::{Agent, Endpoint};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::agent::{Guard, config};

/// How long health checks fail before the agent leaves: more than `inter` times `fall` of the
/// `server` line in haproxy.cfg, so that HAProxy has gone elsewhere by then.
const LAME_DUCK: Duration = Duration::from_secs(3);

/// Allow or deny requests, and say so when neither was possible: an SPOE agent.
///
/// Every message `check-request` with an argument `path` is answered with the variable `verdict`, in the
/// scope `txn`: `deny` below /admin, else `allow`; and `unknown`, with the variable `reason` beside it,
/// where the handler gave no answer.
#[derive(Debug, Parser)]
#[command(name = "fail-closed", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Args {
    /// Where HAProxy finds the agent: ADDRESS:PORT, or unix:PATH for a Unix socket.
    #[arg(long, value_name = "ENDPOINT", default_value = "127.0.0.1:12345")]
    listen: Endpoint,

    /// Milliseconds until a request without an answer gets the fallback: less than HAProxy's
    /// `timeout processing`.
    #[arg(long, value_name = "MS", default_value_t = 80)]
    answer_timeout: u64,

    /// Go wrong on purpose, by path: /error, /panic, /slow, /large (an answer that fits no frame), /silent
    /// (one without a verdict).
    #[arg(long)]
    provoke: bool,
}

const AFTER_HELP: &str = "\
SIGTERM or Ctrl-C: health checks fail for 3 s, answers that are owed are given, then it ends.
The log is on stderr; RUST_LOG says how much of it.

Exit status: 0 when told to stop, 1 when it cannot listen or the time is no deadline, 2 for wrong
usage.";

fn main() -> ExitCode {
    let args = Args::parse();
    let level = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    tracing_subscriber::fmt()
        .with_env_filter(level.from_env_lossy())
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fail-closed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Args) -> Result<(), Box<dyn Error>> {
    // First of all, so that a signal that comes early finds its handler.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let (stop, told) = oneshot::channel();
    thread::spawn(move || {
        signals.forever().next();
        let _ = stop.send(());
    });

    let config = config(Duration::from_millis(args.answer_timeout))
        .map_err(|error| format!("--answer-timeout {}: {error}", args.answer_timeout))?;
    let guard = Guard { provoke: args.provoke };
    let agent = Agent::with_handler(guard).config(config).lame_duck(LAME_DUCK);
    tokio::runtime::Runtime::new()?.block_on(async {
        let server = agent.bind(args.listen).await?;
        server.run_until(async { drop(told.await) }).await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_is_consistent() {
        Args::command().debug_assert();
    }
}
