//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use spop_proto::Endpoint;

use crate::command_line;
use crate::model::Version;
use crate::options;

/// What a wrong command line ends with.
const USAGE: i32 = 2;

/// Find what HAProxy accepts and what does not work all the same, in the configuration of SPOE agents.
///
/// Reads configuration files of HAProxy and the SPOE files that they name. `haproxy -c` tells what is
/// wrong in itself; this tells what is right and without effect: messages that are never sent,
/// arguments that are always NULL, rules that never match.
#[derive(Debug, Parser)]
#[command(name = "spop-lint", version, max_term_width = 100, after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Configuration files or directories, as for `haproxy -f`, in that order.
    #[arg(value_name = "FILE", required_unless_present = "explain")]
    pub(crate) files: Vec<PathBuf>,

    /// Look for SPOE files below this directory, also for those with an absolute path.
    ///
    /// Without it they are looked for as HAProxy does, in the current directory or by `default-path`,
    /// and then beside the file that names them.
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,

    /// The release that will run it; without it, what is wrong with any of them is told.
    #[arg(long, value_name = "RELEASE", value_enum)]
    pub(crate) haproxy: Option<Release>,

    /// What the agent takes, as it prints it with --describe: compared with what HAProxy sends.
    #[arg(long, value_name = "FILE")]
    pub(crate) expect: Option<PathBuf>,

    /// The agent, HOST:PORT or unix:PATH: it is asked what it takes, which is compared in the same way.
    ///
    /// An agent of this library with a `Router` answers that; it has to run and be ready, and is given
    /// ten seconds.
    #[arg(long, value_name = "ENDPOINT", value_parser = options::agent, conflicts_with = "expect")]
    pub(crate) agent: Option<Endpoint>,

    /// How to tell it.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    format: Format,

    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,

    /// Say what a rule is about: L06.
    #[arg(long, value_name = "RULE", conflicts_with = "files")]
    pub(crate) explain: Option<String>,
}

impl Args {
    /// The command line of this process, which ends here with status 2 if that is not right.
    pub(crate) fn from_command_line() -> Self {
        command_line::parse(USAGE)
    }

    /// How to tell it.
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// A release of HAProxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Release {
    /// 2.6 and later, before 3.0
    #[value(name = "2.6")]
    R26,
    /// 3.0
    #[value(name = "3.0")]
    R30,
    /// 3.1 and 3.2
    #[value(name = "3.2")]
    R32,
    /// 3.3 and 3.4
    #[value(name = "3.4")]
    R34,
}

impl Release {
    /// As numbers.
    pub(crate) fn number(self) -> Version {
        match self {
            Self::R26 => (2, 6),
            Self::R30 => (3, 0),
            Self::R32 => (3, 2),
            Self::R34 => (3, 4),
        }
    }
}

/// How findings are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people and editors, each finding behind FILE:LINE:COLUMN
    Text,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Annotations of GitHub Actions
    Github,
}

const AFTER_HELP: &str = "\
Exit status:
  0  nothing found
  1  something found
  2  wrong usage, a file that cannot be read, or an agent that does not say what it takes

Environment variables in the configuration are those of this process. Whatever is not understood (a
variable that is not set, `.if` blocks) is named, and nothing is guessed about it.

Examples:
  spop-lint /etc/haproxy/haproxy.cfg
  spop-lint --haproxy 3.2 /etc/haproxy/conf.d
  spop-lint -C deploy --format sarif deploy/haproxy.cfg > spop-lint.sarif
  ip-reputation --describe > agent.txt && spop-lint --expect agent.txt haproxy.cfg
  spop-lint --agent 127.0.0.1:12345 haproxy.cfg
  spop-lint --explain L06";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn formats() {
        let format = |words: &[&str]| {
            Args::try_parse_from([&["spop-lint", "x.cfg"], words].concat())
                .map(|args| args.format())
        };
        assert_eq!(format(&[]).unwrap(), Format::Text);
        assert_eq!(format(&["--json"]).unwrap(), Format::Json);
        assert_eq!(format(&["--format", "sarif"]).unwrap(), Format::Sarif);
        assert!(format(&["--json", "--format", "text"]).is_err());
        assert!(format(&["--haproxy", "1.8"]).is_err());
        assert!(format(&["--agent", "[::1]:1"]).is_ok());
        assert!(format(&["--agent", "[::1]:1", "--expect", "x"]).is_err());
        assert!(format(&["--agent", "systemd"]).is_err());
        assert!(Args::try_parse_from(["spop-lint"]).is_err());
        assert!(Args::try_parse_from(["spop-lint", "--explain", "L06"]).is_ok());
    }
}
