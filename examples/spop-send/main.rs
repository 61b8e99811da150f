//! Asks an agent what HAProxy would ask.
//!
//! - `args`, `argument`: the command line, and the arguments of messages on it
//! - `ask`: one question; `answer`: what came of it
//! - `send`: questions from the command line; `replay`: those of a capture, to two agents
//! - `capture`: what HAProxy sent on a connection; `connections`: on those in a capture of the network
//! - `../shared/link.rs`: the connection, and all that can be wrong with it
//! - `../shared/network`: pcap and pcapng files, and the connections in them; `spop-dump` reads them by it, too

mod answer;
mod args;
mod argument;
mod ask;
mod capture;
#[path = "../shared/command_line.rs"]
mod command_line;
mod connections;
#[path = "../shared/generation.rs"]
mod generation;
#[path = "../shared/link.rs"]
mod link;
#[path = "../shared/network/mod.rs"]
mod network;
#[path = "../shared/options.rs"]
mod options;
mod replay;
mod send;
#[path = "../shared/side.rs"]
mod side;

use std::io::{self, Write};
use std::process::ExitCode;

use crate::args::{Args, Task, USAGE};

fn main() -> ExitCode {
    let args = Args::from_command_line();
    let done = match args.task() {
        Some(Task::Ask(agent)) => send::send(&args, agent),
        Some(Task::Replay(task)) => replay::replay(&args, &task),
        None => Err("nothing to do: see --help".to_owned()),
    };
    match done {
        Ok(done) => done.print(&args),
        Err(error) => {
            anstream::eprintln!("spop-send: {error}");
            ExitCode::from(USAGE)
        }
    }
}

/// What there is to say at the end.
#[derive(Debug)]
struct Done {
    exit: u8,
    /// For standard output.
    text: String,
    /// For standard error.
    error: Option<String>,
    json: serde_json::Value,
}

impl Done {
    fn print(self, args: &Args) -> ExitCode {
        let text = if args.json { format!("{:#}\n", self.json) } else { self.text };
        let written = anstream::stdout().write_all(text.as_bytes());
        if let Some(error) = self.error.filter(|_| !args.json) {
            anstream::eprintln!("spop-send: {error}");
        }
        match written {
            // Whoever reads has read enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                anstream::eprintln!("spop-send: standard output: {error}");
                ExitCode::from(USAGE)
            }
            _ => ExitCode::from(self.exit),
        }
    }
}
