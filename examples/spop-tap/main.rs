//! Between HAProxy and an agent: passes everything on, and shows it.
//!
//! - `endpoint`: sockets to listen on and to connect with
//! - `forward`: a connection, two threads, each for a direction
//! - `keep`: what was passed on, in files; `segments` and `pcapng` make a capture of it
//! - `watch`: what was passed on, on its way to the screen
//! - `show`: frames, what is wrong with them, and how they are printed; shared with `spop-dump`

mod args;
#[path = "../shared/command_line.rs"]
mod command_line;
mod endpoint;
mod forward;
mod keep;
mod pcapng;
mod segments;
#[path = "../spop-dump/show/mod.rs"]
#[allow(dead_code, unused_imports, reason = "spop-dump uses the rest")]
mod show;
#[path = "../shared/side.rs"]
mod side;
mod watch;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use spop_proto::Endpoint;

use crate::args::Args;
use crate::endpoint::Listener;
use crate::forward::Tap;
use crate::keep::Keep;
use crate::show::Printer;
use crate::watch::Event;

const USAGE: i32 = 1;
const FAILED: u8 = 2;
const WRONG: u8 = 3;

fn main() -> ExitCode {
    let args: Args = command_line::parse(USAGE);
    match run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WRONG),
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "spop-tap: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Whether all was right, and shown.
fn run(args: Args) -> io::Result<bool> {
    let Args { listen, target, look, write, connections } = args;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let listener = Listener::bind(&listen)
        .map_err(|error| io::Error::new(error.kind(), format!("{listen}: {error}")))?;
    let mut printer = Printer::new(BufWriter::new(anstream::stdout().lock()), look);
    let here = listener.address();
    let keep = Keep::open(write, &format!("HAProxy -> {here} (spop-tap) -> {target}"));
    let keep = keep.inspect_err(|_| remove(&listen))?;
    printer.event(None, &format!("listening on {here}, the agent is at {target}"))?;
    printer.flush()?;

    let (events, arrived) = watch::queue();
    let stop = events.clone();
    thread::Builder::new().spawn(move || {
        if signals.forever().next().is_some() {
            // Behind all that is in the queue.
            let _ = stop.send(Event::Stop);
        }
    })?;
    let lost = Arc::default();
    let tap = Tap { target, keep, most: connections, events, lost: Arc::clone(&lost) };
    let tap = Arc::new(tap);
    thread::Builder::new().spawn(move || forward::accept(&listener, &tap))?;
    let all_right = watch::show(&arrived, &lost, &mut printer);
    remove(&listen);
    all_right
}

/// A Unix socket is a file, which nobody else will remove.
fn remove(listen: &Endpoint) {
    if let Endpoint::Unix(path) = listen {
        let _ = std::fs::remove_file(path);
    }
}
