//! Loads an agent as HAProxy would, and checks every answer.
//!
//! Read it in this order: [`args`] is what it can do, [`payload`] what is asked, [`connection`] one
//! connection and its checks, [`worker`] a thread of them, [`report`] what is said at the end.

mod args;
#[path = "../shared/command_line.rs"]
mod command_line;
mod connection;
#[path = "../shared/generation.rs"]
mod generation;
mod payload;
mod report;
mod worker;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Args;
use crate::payload::Template;
use crate::report::Report;
use crate::worker::{Tally, Worker};

/// How often the progress is shown, and the end looked for.
const LOOK: Duration = Duration::from_millis(20);

/// What a wrong command line ends with.
const USAGE: i32 = 2;

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    /// Nothing more is asked.
    stop: AtomicBool,
    /// NOTIFYs asked so far: with --count, also claims to ask.
    asked: AtomicU64,
    /// NOTIFYs answered so far.
    answered: AtomicU64,
    /// Threads that have not ended.
    running: AtomicU64,
}

fn main() -> ExitCode {
    let args: Args = command_line::parse(USAGE);
    match run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("spop-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every NOTIFY got its answer.
fn run(args: Args) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let args = Arc::new(args);
    let template = Template::new(&args)?;
    let shared = Arc::new(Shared::default());
    let busy = report::processor_time();
    let start = Instant::now();
    let mut threads = Vec::new();
    for index in 0..args.threads.get() {
        let worker =
            Worker::new(index, Arc::clone(&args), template.clone(), Arc::clone(&shared), start)?;
        shared.running.fetch_add(1, Ordering::Relaxed);
        threads.push(
            thread::Builder::new()
                .name(format!("load-{index}"))
                .spawn(move || worker.run(start))?,
        );
    }
    wait(&args, &shared, start);
    let mut tally = Tally::new(start + args.warm_up)?;
    for thread in threads {
        tally.add(&thread.join().map_err(|_| "a thread panicked")?);
    }
    let busy =
        busy.zip(report::processor_time()).map(|(before, after)| after.saturating_sub(before));
    let report = Report { args: &args, tally: &tally, payload: template.len(), busy };
    let text = if args.json { format!("{}\n", report.json()) } else { report.to_string() };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    Ok(tally.is_flawless())
}

/// Shows the progress until the time is up or the threads have ended by themselves.
fn wait(args: &Args, shared: &Shared, start: Instant) {
    let bar = progress(args);
    let end = args.end(start);
    loop {
        let ended = shared.running.load(Ordering::Relaxed) == 0;
        let now = Instant::now();
        let answered = shared.answered.load(Ordering::Relaxed);
        if let Some(bar) = &bar {
            match args.count {
                Some(_) => bar.set_position(answered),
                None => bar.set_position(millis(now.duration_since(start))),
            }
            let rate = answered * 1000 / millis(now.duration_since(start)).max(1);
            bar.set_message(format!("{answered} answers, {rate}/s"));
        }
        if ended || end.is_some_and(|end| now >= end) {
            shared.stop.store(true, Ordering::Relaxed);
            break;
        }
        thread::sleep(LOOK);
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// On a terminal only.
fn progress(args: &Args) -> Option<ProgressBar> {
    if args.json || !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(args.count.unwrap_or_else(|| millis(args.time())));
    let style = ProgressStyle::with_template("[{elapsed_precise}] {wide_bar} {msg}").ok()?;
    bar.set_style(style);
    Some(bar)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
