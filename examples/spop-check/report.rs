//! What is said about an agent, for people and machines.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::builder::styling::{AnsiColor, Style};
use serde_json::{Value, json};
use spop_proto::Dialect;

use crate::Handshake;
use crate::args::Args;
use crate::link::{Agreed, Failure};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// All handshakes with an agent.
pub(crate) struct Report<'a> {
    args: &'a Args,
    handshakes: Vec<Handshake>,
}

impl<'a> Report<'a> {
    pub(crate) const fn new(args: &'a Args) -> Self {
        Self { args, handshakes: Vec::new() }
    }

    /// Adds one; true where the other generation of HAProxy would meet the same.
    pub(crate) fn add(&mut self, dialect: Dialect, result: Result<Agreed, Failure>) -> bool {
        let same = result.as_ref().err().is_some_and(is_the_same_for_all);
        self.handshakes.push(Handshake { dialect, result });
        same
    }

    /// The status of the first failure.
    pub(crate) fn exit(&self) -> u8 {
        let failures = self.handshakes.iter().filter_map(|one| one.result.as_ref().err());
        failures.map(Failure::exit).next().unwrap_or_default()
    }

    /// Health goes to standard output, the lack of it to the other one.
    pub(crate) fn print(&self) -> io::Result<()> {
        let healthy = self.exit() == 0;
        if healthy && self.args.quiet {
            return Ok(());
        }
        if self.args.json {
            return writeln!(anstream::stdout(), "{:#}", self.json());
        }
        let text = self.text();
        if healthy {
            anstream::stdout().write_all(text.as_bytes())
        } else {
            anstream::stderr().write_all(text.as_bytes())
        }
    }

    fn text(&self) -> String {
        let agent = &self.args.agent;
        let mut text = match self.exit() {
            0 => format!("{GOOD}healthy{GOOD:#}: {agent}"),
            _ => format!("{BAD}unhealthy{BAD:#}: {agent}"),
        };
        if let [Handshake { result: Err(failure), .. }] = &*self.handshakes
            && is_the_same_for_all(failure)
        {
            return format!("{text}: {failure}\n");
        }
        text.push('\n');
        for Handshake { dialect, result } in &self.handshakes {
            let haproxy = haproxy(*dialect);
            // Writing to a String does not fail.
            let _ = match result {
                Ok(agreed) => writeln!(text, "  {haproxy}: {}", self.words(agreed)),
                Err(failure) => writeln!(text, "  {haproxy}: {failure}"),
            };
        }
        text
    }

    fn words(&self, agreed: &Agreed) -> String {
        let time = agreed.took.as_secs_f64() * 1000.0;
        let Agreed { version, max_frame_size, .. } = agreed;
        if self.args.healthcheck {
            return format!("option spop-check passes, SPOP {version} ({time:.1} ms)");
        }
        let used = match agreed.in_use.as_str() {
            "" => "no pipelining: one request at a time".to_owned(),
            list => list.replace(',', ", "),
        };
        format!("SPOP {version}, max-frame-size {max_frame_size}, {used} ({time:.1} ms)")
    }

    fn json(&self) -> Value {
        let handshakes = self.handshakes.iter().map(|Handshake { dialect, result }| {
            let dialect = match dialect {
                Dialect::Old => "old",
                Dialect::New => "new",
            };
            match result {
                Ok(agreed) => json!({
                    "dialect": dialect,
                    "healthy": true,
                    "version": agreed.version,
                    "max_frame_size": agreed.max_frame_size,
                    "announced": list(&agreed.announced),
                    "in_use": list(agreed.in_use.as_str()),
                    "elapsed_us": u64::try_from(agreed.took.as_micros()).unwrap_or(u64::MAX),
                }),
                Err(failure) => json!({
                    "dialect": dialect,
                    "healthy": false,
                    "exit": failure.exit(),
                    "reason": failure.word(),
                    "text": failure.to_string(),
                    "status": match failure {
                        Failure::Refused { status, .. } => Some(status.0),
                        _ => None,
                    },
                }),
            }
        });
        json!({
            "endpoint": self.args.agent.to_string(),
            "healthy": self.exit() == 0,
            "exit": self.exit(),
            "check": if self.args.healthcheck { "healthcheck" } else { "hello" },
            "handshakes": handshakes.collect::<Vec<_>>(),
        })
    }
}

/// Whether it has nothing to do with what HAProxy said.
const fn is_the_same_for_all(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable(_)
        | Failure::Silent(_)
        | Failure::Unfinished(..)
        | Failure::Foreign(_) => true,
        Failure::Closed(_) | Failure::Wrong(_) | Failure::Refused { .. } => false,
    }
}

fn list(capabilities: &str) -> Vec<&str> {
    capabilities.split(',').map(str::trim).filter(|one| !one.is_empty()).collect()
}

/// HAProxy, as users call its two generations.
const fn haproxy(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Old => "HAProxy <= 3.0",
        Dialect::New => "HAProxy >= 3.1",
    }
}
