//! An SPOE agent that tells HAProxy the reputation of its clients.
//!
//! Read it in this order: [`reputation`] is the agent, [`list`] what it knows, this file how it
//! lives (start, reload, stop), [`runtime`] who runs it, [`handed_over`] how systemd starts it and
//! [`service_manager`] what systemd is told, [`metrics`] what it counts, [`demo`] shows it at work in
//! front of HAProxy, [`tell`] writes HAProxy's side from what the agent declares.

mod args;
#[path = "../shared/command_line.rs"]
mod command_line;
mod demo;
mod handed_over;
mod list;
mod metrics;
mod reputation;
mod runtime;
mod service_manager;
mod signals;
#[path = "../shared/tell/mod.rs"]
mod tell;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use spop_proto::{Endpoint, Scope};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::args::{Args, Runtime};
use crate::list::List;
use crate::metrics::Metrics;
use crate::reputation::{IP_SCORE, Reputation, router};
use crate::runtime::Process;
use crate::service_manager::ServiceManager;
use crate::signals::Signals;
use crate::tell::Site;

fn main() -> ExitCode {
    let args = Args::from_command_line();
    log_to_stderr(if args.demo { LevelFilter::ERROR } else { LevelFilter::INFO });
    let result = match &args {
        Args { demo: true, keep, .. } => show(*keep),
        Args { check: true, list: Some(list), .. } => check(list),
        _ if args.tell.is_asked() => tell_of_itself(&args),
        _ => serve(args),
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

fn show(keep: bool) -> Result<(), Box<dyn Error>> {
    Ok(tokio::runtime::Runtime::new()?.block_on(demo::run(keep))?)
}

fn check(path: &Path) -> Result<(), Box<dyn Error>> {
    println!("{}: {}", path.display(), List::load(path)?);
    Ok(())
}

/// What the agent takes, or HAProxy's side of it.
fn tell_of_itself(args: &Args) -> Result<(), Box<dyn Error>> {
    const ENGINE: &str = "iprep";
    let variable = format!("var({}.{ENGINE}.{IP_SCORE})", Scope::from(args.scope));
    let rules = [
        "# Nothing passes without a verdict; put your rules behind this one.",
        &format!("http-request deny deny_status 503 unless {{ {variable} -m found }}"),
    ];
    let passes = format!("{IP_SCORE} %[{variable}]");
    let site = Site { engine: ENGINE, rules: &rules, passes: &passes };
    Ok(args.tell.answer(&router(Arc::new(Reputation::default())), &site, &args.listen)?)
}

fn serve(args: Args) -> Result<(), Box<dyn Error>> {
    // First of all, so that a signal that comes early finds its handler.
    let (hangup, stop) = (Signals::hangup()?, Signals::stop()?);

    let Args { listen, list: path, scope, workers, .. } = args;
    let list = first_list(path.as_deref())?;
    let reputation = Arc::new(Reputation::new(list, scope.into()));
    let replaced = Arc::clone(&reputation);
    let manager = Arc::new(ServiceManager::default());
    let told = Arc::clone(&manager);
    // A long list takes its time; requests are answered meanwhile.
    hangup.on_each(move || told.while_reloading(|| reload(path.as_deref(), &replaced)))?;

    let metrics = args.metrics.map(Metrics::bind).transpose()?;
    let router = router(reputation);
    let socket_mode = match &listen {
        Endpoint::Unix(path) => args.socket_mode.map(|mode| (path.clone(), mode)),
        _ => None,
    };
    let process = Process { stop, manager, metrics, socket_mode };
    match args.runtime {
        Runtime::Tokio => runtime::tokio(router, listen, process)?,
        Runtime::AsyncStd => runtime::async_std(router, listen, process)?,
        Runtime::Blocking => runtime::blocking(router, listen, process, workers)?,
    }
    Ok(())
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

/// Reads the list again; one with an error changes nothing.
fn reload(path: Option<&Path>, reputation: &Reputation) {
    let Some(path) = path else {
        warn!("SIGHUP: there is no --list to read again");
        return;
    };
    match List::load(path) {
        Ok(list) => {
            info!("{} read again: {list}", path.display());
            reputation.replace(list);
        }
        Err(error) => error!("{error}; the list of before stays: {}", reputation.list()),
    }
}
