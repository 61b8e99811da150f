//! What the command lines of all tools have in common.

use std::io::{self, Write};
use std::{env, process};

use clap::{Arg, CommandFactory, FromArgMatches, value_parser};
use clap_complete::Shell;

const COMPLETIONS: &str = "completions";

/// The command line of this process, which ends here if that is not right (with status `usage`), or
/// if it asks for help, the version or completions.
pub(crate) fn parse<A: CommandFactory + FromArgMatches>(usage: i32) -> A {
    // Added here and not in each `Args`: what is required otherwise is not required with it.
    let mut command = A::command().arg(
        Arg::new(COMPLETIONS)
            .long(COMPLETIONS)
            .value_name("SHELL")
            .value_parser(value_parser!(Shell))
            .exclusive(true)
            .help("Print a script that completes this command in SHELL, and exit"),
    );
    let args = command.try_get_matches_from_mut(env::args_os()).and_then(|mut matches| {
        if let Some(shell) = matches.remove_one::<Shell>(COMPLETIONS) {
            print_completions(shell, &mut command);
            process::exit(0);
        }
        A::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    });
    args.unwrap_or_else(|error| {
        // Nobody is left to be told.
        let _ = error.print();
        process::exit(if error.use_stderr() { usage } else { 0 });
    })
}

fn print_completions(shell: Shell, command: &mut clap::Command) {
    let name = command.get_name().to_owned();
    // By way of memory: on a pipe that nobody reads the generator would panic.
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    let _ = io::stdout().write_all(&script);
}
