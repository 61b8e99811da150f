//! The command line of an agent of the gallery.

#[path = "command_line.rs"]
mod command_line;
#[path = "tell/mod.rs"]
pub(crate) mod tell;

use std::process;

use clap::{Args, CommandFactory, FromArgMatches};
use spop_proto::{Endpoint, Router};

pub(crate) use self::tell::Site;
use self::tell::Tell;

/// What a wrong command line ends with.
const USAGE: i32 = 2;

/// The options that all of them have.
#[derive(Debug, Args)]
pub(crate) struct Basics {
    /// Where HAProxy finds the agent: ADDRESS:PORT, or unix:PATH for a Unix socket.
    #[arg(long, value_name = "ENDPOINT", default_value = "127.0.0.1:12345")]
    pub(crate) listen: Endpoint,

    #[command(flatten)]
    tell: Tell,
}

/// The command line of an agent that has [`Basics`] among its options, answers `message` and `takes` those
/// arguments. The process ends here where that is wrong, or asks for what the agent tells of itself.
pub(crate) fn parse<A: CommandFactory + FromArgMatches>(
    site: &Site<'_>,
    message: &str,
    takes: impl FnOnce(Router) -> Router,
) -> A {
    // What an agent cannot serve without it does not need for that.
    let matches = A::command().mut_args(|arg| arg.required(false)).try_get_matches().ok();
    let basics = matches.and_then(|matches| Basics::from_arg_matches(&matches).ok());
    if let Some(Basics { listen, tell }) = basics
        && tell.is_asked()
    {
        let router = takes(Router::new().on(message, |_, _| Ok(())));
        let told = tell.answer(&router, site, &listen);
        if let Err(error) = &told {
            eprintln!("{}: {error}", A::command().get_name());
        }
        process::exit(told.is_err().into());
    }
    command_line::parse(USAGE)
}
