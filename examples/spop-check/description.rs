//! What the agent says it takes.

use std::io::{self, Write as _};

use serde_json::{Value, json};

use crate::args::Args;
use crate::describe::{Described, NotDescribed, ask};

/// The agent is well, and does not say what it takes.
const NOT_DESCRIBED: u8 = 5;

/// Asks and prints: the exit status, and whether it could be said. A description goes to standard output,
/// the lack of one to the other.
pub(crate) fn print(args: &Args) -> (u8, io::Result<()>) {
    let described = ask(&args.agent, args.timeout);
    let exit = described.as_ref().map_or_else(exit, |_| 0);
    let printed = match &described {
        _ if args.json => writeln!(anstream::stdout(), "{:#}", json(args, exit, &described)),
        Ok(Described { text, .. }) => anstream::stdout().write_all(text.as_bytes()),
        Err(error) => writeln!(anstream::stderr(), "spop-check: {}: {error}", args.agent),
    };
    (exit, printed)
}

const fn exit(error: &NotDescribed) -> u8 {
    match error {
        NotDescribed::Failure(failure) => failure.exit(),
        NotDescribed::Nothing(_) | NotDescribed::Wrong(_) => NOT_DESCRIBED,
    }
}

fn json(args: &Args, exit: u8, described: &Result<Described, NotDescribed>) -> Value {
    let error = described.as_ref().err();
    json!({
        "endpoint": args.agent.to_string(),
        "exit": exit,
        "check": "describe",
        "description": described.as_ref().ok().map(|described| &described.text),
        "reason": error.map(|error| match error {
            NotDescribed::Failure(failure) => failure.word(),
            NotDescribed::Nothing(_) => "not-described",
            NotDescribed::Wrong(_) => "wrong-description",
        }),
        "text": error.map(ToString::to_string),
    })
}
