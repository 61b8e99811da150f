//! What HAProxy and an agent said, of raw streams, hex dumps and captures, in readable frames.
//!
//! - `input`: what a file is
//! - `hex_dump`: text that stands for bytes
//! - `../shared/network`: captures, and the connections in them; `connections`: how those are shown
//! - `show`: frames, what is wrong with them, and how they are printed

mod args;
#[path = "../shared/command_line.rs"]
mod command_line;
mod connections;
mod hex_dump;
mod input;
#[path = "../shared/network/mod.rs"]
mod network;
mod show;
#[path = "../shared/side.rs"]
mod side;
#[cfg(test)]
mod tests;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use crate::args::Args;
use crate::show::Printer;

const USAGE: i32 = 1;
const UNREADABLE: u8 = 2;
const WRONG: u8 = 3;

fn main() -> ExitCode {
    let args: Args = command_line::parse(USAGE);
    let out = BufWriter::new(anstream::stdout().lock());
    match input::run(&args, &mut Printer::new(out, args.look)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WRONG),
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "spop-dump: {error}");
            ExitCode::from(UNREADABLE)
        }
    }
}
