//! What HAProxy accepts and does not work: reads haproxy.cfg and the SPOE files it names.
//!
//! - `grammar`, `source`: words, lines, sections
//! - `expression`: what conditions and expressions read and set
//! - `model`: proxies, rules, engines, agents, messages
//! - `rules`: each a function from the model to what it finds
//! - `report`: the ways to print that
//! - `../shared/describe.rs`, `link.rs`: what an agent that runs says of itself

mod args;
#[path = "../shared/command_line.rs"]
mod command_line;
#[path = "../shared/describe.rs"]
mod describe;
mod expression;
mod grammar;
#[path = "../shared/link.rs"]
#[allow(dead_code, reason = "other tools need more of it")]
mod link;
mod model;
#[path = "../shared/options.rs"]
#[allow(dead_code, reason = "other tools need more of it")]
mod options;
mod report;
mod rules;
mod source;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use spop_proto::{Description, Endpoint, ParseDescriptionError};

use crate::args::Args;
use crate::model::Model;

/// Exit codes besides 0.
const FINDINGS: u8 = 1;
const UNREADABLE: u8 = 2;

/// How long an agent may take to say what it takes.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run(&Args::from_command_line()) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(FINDINGS),
        Err(error) => {
            let _ = writeln!(io::stderr(), "spop-lint: {error}");
            ExitCode::from(UNREADABLE)
        }
    }
}

/// Whether there are findings.
fn run(args: &Args) -> io::Result<bool> {
    if let Some(rule) = &args.explain {
        let wrong = || io::Error::other(format!("there is no rule {rule}: they are L01 to L20"));
        let text = rules::explain(&rule.to_ascii_uppercase()).ok_or_else(wrong)?;
        print(&format!("{text}\n"))?;
        return Ok(false);
    }
    let mut files = Vec::new();
    for path in &args.files {
        files.extend(source::files(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?);
    }
    let version = args.haproxy.map(args::Release::number);
    let mut model = Model::read(&files, args.directory.as_deref(), version)?;
    model.expected = match (&args.agent, &args.expect) {
        (Some(agent), _) => Some(ask(agent)?),
        (None, Some(path)) => Some(expected(path)?),
        (None, None) => None,
    };
    let findings = rules::check(&model);
    print(&report::report(args.format(), &model, &findings))?;
    Ok(!findings.is_empty())
}

/// What an agent that runs says of itself.
fn ask(agent: &Endpoint) -> io::Result<Description> {
    let described = describe::ask(agent, PATIENCE);
    Ok(described.map_err(|error| io::Error::other(format!("agent {agent}: {error}")))?.description)
}

/// What an agent printed of itself.
fn expected(path: &Path) -> io::Result<Description> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text =
        fs::read_to_string(path).map_err(|error| io::Error::new(error.kind(), named(&error)))?;
    text.parse().map_err(|error: ParseDescriptionError| io::Error::other(named(&error)))
}

/// A pipe that nobody reads any more is no error.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
