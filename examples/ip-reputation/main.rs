//! An SPOE agent that tells HAProxy the reputation of its clients.
//!
//! Read it in this order: [`reputation`] is the agent, [`list`] what it knows, this file how it
//! lives (start, reload, stop), [`demo`] shows it at work in front of HAProxy.

mod args;
mod demo;
mod list;
mod reputation;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use spop_tokio::Agent;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::args::Args;
use crate::list::List;
use crate::reputation::Reputation;

/// How long health checks fail before the agent leaves: more than `inter` times `fall` of the
/// `server` line in haproxy.cfg, so that HAProxy has gone elsewhere by then.
const LAME_DUCK: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    log_to_stderr(if args.demo { LevelFilter::ERROR } else { LevelFilter::INFO });
    let result = match &args {
        Args { demo: true, keep, .. } => demo::run(*keep).await.map_err(Into::into),
        Args { check: true, list: Some(list), .. } => check(list),
        _ => serve(args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ip-reputation: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs go to stderr, results to stdout.
fn log_to_stderr(default: LevelFilter) {
    let filter = EnvFilter::builder().with_default_directive(default.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

fn check(path: &Path) -> Result<(), Box<dyn Error>> {
    println!("{}: {}", path.display(), List::load(path)?);
    Ok(())
}

async fn serve(args: Args) -> Result<(), Box<dyn Error>> {
    // First of all, so that a signal that comes early finds its handler.
    let (mut first, mut again) = (StopSignals::install()?, StopSignals::install()?);
    let hangup = signal(SignalKind::hangup())?;

    let list = first_list(args.list.as_deref())?;
    let reputation = Arc::new(Reputation::new(list, args.scope.into()));
    tokio::spawn(reload_on(hangup, args.list, Arc::clone(&reputation)));

    let server = Agent::new(reputation).lame_duck(LAME_DUCK).bind(args.listen).await?;
    tokio::select! {
        report = server.run_until(first.next()) => {
            println!("{report}");
            Ok(())
        }
        () = again.next_but_one() => Err("told to stop a second time: connections cut".into()),
    }
}

fn first_list(path: Option<&Path>) -> Result<List, Box<dyn Error>> {
    let Some(path) = path else {
        warn!("no --list: {}", List::default());
        return Ok(List::default());
    };
    let list = List::load(path)?;
    info!("{}: {list}", path.display());
    Ok(list)
}

/// Reads the list again whenever asked to, until the process ends.
async fn reload_on(mut hangup: Signal, path: Option<PathBuf>, reputation: Arc<Reputation>) {
    while hangup.recv().await.is_some() {
        let Some(path) = path.clone() else {
            warn!("SIGHUP: there is no --list to read again");
            continue;
        };
        let shown = path.display().to_string();
        // A long list takes its time; requests are answered meanwhile.
        match tokio::task::spawn_blocking(move || List::load(&path)).await {
            Ok(Ok(list)) => {
                info!("{shown} read again: {list}");
                reputation.replace(list);
            }
            Ok(Err(error)) => error!("{error}; the list of before stays: {}", reputation.list()),
            Err(error) => error!("{shown}: {error}; the list of before stays"),
        }
    }
}

/// SIGTERM and Ctrl-C. Each of these sees all of them.
#[derive(Debug)]
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn install() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn next_but_one(&mut self) {
        self.next().await;
        self.next().await;
    }
}
