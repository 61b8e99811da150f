//! Checks an agent as HAProxy would, and says what is there instead of one.
//!
//! - `args`: the command line
//! - `report`: what is said
//! - `description`: what the agent says of itself
//! - `../shared/describe.rs`: asks for that
//! - `../shared/link.rs`: the connection, and all that can be wrong with it

mod args;
#[path = "../shared/command_line.rs"]
mod command_line;
#[path = "../shared/describe.rs"]
mod describe;
mod description;
#[path = "../shared/generation.rs"]
mod generation;
#[path = "../shared/link.rs"]
mod link;
#[path = "../shared/options.rs"]
mod options;
mod report;

use std::io;
use std::process::ExitCode;

use spop_proto::Dialect;

use crate::args::{Args, USAGE};
use crate::link::{Agreed, Failure, Link};
use crate::report::Report;

fn main() -> ExitCode {
    let args = Args::from_command_line();
    if args.describe {
        let (exit, printed) = description::print(&args);
        return ended(exit, printed);
    }
    let mut report = Report::new(&args);
    for dialect in args.dialects() {
        let result = match args.engine(dialect) {
            Ok(config) => Link::open(&args.agent, config, args.timeout),
            Err(error) => {
                anstream::eprintln!("spop-check: {error}");
                return ExitCode::from(USAGE);
            }
        };
        let result = result.map(|(link, agreed)| goodbye(&args, link, agreed));
        if report.add(dialect, result) {
            break;
        }
    }
    ended(report.exit(), report.print())
}

/// The exit status, unless it could not be said.
fn ended(exit: u8, printed: io::Result<()>) -> ExitCode {
    match printed {
        // Whoever reads has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            anstream::eprintln!("spop-check: standard output: {error}");
            ExitCode::from(USAGE)
        }
        _ => ExitCode::from(exit),
    }
}

/// HAProxy just closes after a health check.
fn goodbye(args: &Args, link: Link, agreed: Agreed) -> Agreed {
    if !args.healthcheck {
        link.leave();
    }
    agreed
}

/// What came of the handshake with one generation of HAProxy.
#[derive(Debug)]
struct Handshake {
    dialect: Dialect,
    result: Result<Agreed, Failure>,
}
