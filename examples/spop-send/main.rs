//! Asks an agent what HAProxy would ask.
//!
//! - `args`, `argument`: the command line, and the arguments of messages on it
//! - `ask`: one question; `answer`: what came of it
//! - `send`: questions from the command line; `capture`, `replay`: those of a capture, to two agents
//! - `../shared/link.rs`: the connection, and all that can be wrong with it

mod answer;
mod args;
mod argument;
mod ask;
mod capture;
#[path = "../shared/command_line.rs"]
mod command_line;
#[path = "../shared/generation.rs"]
mod generation;
#[path = "../shared/link.rs"]
mod link;
#[path = "../shared/options.rs"]
mod options;
mod replay;
mod send;

use std::io::{self, Write};
use std::process::ExitCode;

use crate::args::{Args, Task, USAGE};

fn main() -> ExitCode {
    let args = Args::from_command_line();
    let done = match args.task() {
        Some(Task::Ask(agent)) => send::send(&args, agent),
        Some(Task::Replay { file, against, and }) => replay::replay(&args, file, against, and),
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
