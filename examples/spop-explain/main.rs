//! What an error of HAProxy's SPOE means: of a log line, a `set-on-error` value, a DISCONNECT status.
//!
//! - `line`: log lines of both engines
//! - `meaning`: what a number says, why, and where to look next

#[path = "../shared/command_line.rs"]
mod command_line;
mod line;
mod meaning;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::line::{Engine, Line};
use crate::meaning::Meaning;

/// Say what an error of HAProxy's SPOE means, why it is likely there, and where to look next.
#[derive(Debug, Parser)]
#[command(name = "spop-explain", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Args {
    /// A log line with `SPOE: [`, or the value of the `set-on-error` variable (the `st=` of a log); - for
    /// a log on standard input, of which each line with an error is explained.
    #[arg(value_name = "LINE|VALUE", required_unless_present_any = ["disconnect", "summary"])]
    what: Option<String>,

    /// The status of a DISCONNECT frame, as agents log it.
    #[arg(long, value_name = "STATUS", conflicts_with_all = ["what", "summary"])]
    disconnect: Option<u32>,

    /// Read a log from standard input, and count by agent and error.
    #[arg(long, conflicts_with = "what")]
    summary: bool,
}

const AFTER_HELP: &str = "\
Examples:
  spop-explain 257
  spop-explain 'SPOE: [iprep] <EVENT:on-frontend-http-request> sid=0 st=257 0 1/1'
  spop-explain --disconnect 9
  journalctl -fu haproxy | spop-explain -
  journalctl -u haproxy | spop-explain --summary

Exit status: 0, or 2 for what is no such line or value.";

/// What a wrong command line ends with.
const USAGE: i32 = 2;

fn main() -> ExitCode {
    match run(&command_line::parse(USAGE)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "spop-explain: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    if args.what.as_deref() == Some("-") {
        return explain_log(io::stdin().lock(), &mut io::stdout().lock());
    }
    let text = if args.summary {
        summary(io::stdin().lock())?
    } else if let Some(status) = args.disconnect {
        meaning::of_disconnect(status).to_string()
    } else {
        explain(args.what.as_deref().unwrap_or_default()).map_err(io::Error::other)?
    };
    io::stdout().write_all(text.as_bytes())
}

/// A line or a value.
fn explain(what: &str) -> Result<String, String> {
    if let Ok(value) = what.trim().parse::<u32>() {
        return Ok(Meaning::of(value, None).to_string());
    }
    let line = Line::find(what).ok_or_else(|| {
        format!(
            "neither a number nor a line with \"SPOE: [AGENT] <EVENT:..> sid=.. st=..\": {what}"
        )
    })?;
    Ok(format!("{line}\n{}", Meaning::of(line.error, Some(line.engine))))
}

/// Each line of a log that tells of an error, as it comes: what it means is said the first time.
fn explain_log(log: impl BufRead, out: &mut impl Write) -> io::Result<()> {
    let mut said = BTreeSet::new();
    // A log may hold any bytes.
    for bytes in log.split(b'\n') {
        let Some(line) = Line::find(&String::from_utf8_lossy(&bytes?)) else { continue };
        if line.error == 0 {
            continue;
        }
        let meaning = Meaning::of(line.error, Some(line.engine));
        if said.insert((line.error, line.engine)) {
            writeln!(out, "{line}\n{meaning}")?;
        } else {
            writeln!(out, "{line}\n{}: as above\n", meaning.what)?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Counts by agent and error.
fn summary(log: impl BufRead) -> io::Result<String> {
    let mut counts = BTreeMap::<(String, u32, Engine), u64>::new();
    let mut others = 0_u64;
    // A log may hold any bytes.
    for bytes in log.split(b'\n') {
        match Line::find(&String::from_utf8_lossy(&bytes?)) {
            Some(line) => *counts.entry((line.agent, line.error, line.engine)).or_default() += 1,
            None => others += 1,
        }
    }
    let mut text = String::new();
    // Writing to a String does not fail.
    for ((agent, error, engine), count) in &counts {
        let what = Meaning::of(*error, Some(*engine)).what;
        let _ = writeln!(text, "{count:>8}  {agent}  st={error}  {what}");
    }
    let lines: u64 = counts.values().sum();
    let _ = writeln!(text, "{lines} lines of SPOE agents, {others} others");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn values_and_lines() {
        assert!(explain("257").unwrap().contains("256 + 1"));
        let line = "SPOE: [iprep] <EVENT:on-frontend-http-request> sid=0 st=257 0 1/1";
        let text = explain(line).unwrap();
        assert!(
            text.starts_with("agent iprep, event on-frontend-http-request, HAProxy 3.1 or later")
        );
        assert!(explain("SPOE: nothing").is_err());
        assert!(explain("").is_err());
        assert!(explain("-1").is_err());
    }

    #[test]
    fn a_log_is_explained_as_it_comes() {
        let log = "SPOE: [a] <EVENT:e> sid=0 st=1 5 1/1\nx\nSPOE: [a] <EVENT:e> sid=1 st=0 5 0/1\n\
                   SPOE: [b] <GROUP:g> sid=0 st=1 5 1/1\nSPOE: [a] <EVENT:e> sid=3 st=257 5 1/1\n";
        let mut out = Vec::new();
        explain_log(log.as_bytes(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("look at: ").count(), 2, "{text}");
        let told = text.lines().filter(|line| line.starts_with("agent ")).count();
        assert_eq!(told, 3, "{text}");
        assert!(text.contains("no answer within `timeout processing`: as above\n"), "{text}");
    }

    #[test]
    fn summaries_count_by_agent_and_error() {
        let log = "SPOE: [a] <EVENT:e> sid=0 st=1 5 1/1\nx\nSPOE: [b] <GROUP:g> sid=0 st=1 5 1/1\n\
                   \u{fffd}SPOE: [a] <EVENT:e> sid=3 st=1 5 1/1\n";
        let text = summary(log.as_bytes()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("       2  a  st=1  "), "{text}");
        assert!(lines[1].starts_with("       1  b  st=1  "), "{text}");
        assert_eq!(lines[2], "3 lines of SPOE agents, 1 others");
        assert_eq!(summary(&b""[..]).unwrap(), "0 lines of SPOE agents, 0 others\n");
    }
}
