//! The command line.

use std::time::Duration;

use clap::Parser;
use spop_proto::{ConfigError, Dialect, Endpoint, EngineConfig};

use crate::command_line;
use crate::generation::Generation;
use crate::options;

/// What a wrong command line ends with.
pub(crate) const USAGE: u8 = 1;

/// Check an SPOE agent: connect to it and shake hands as HAProxy does.
///
/// Says what was negotiated with either generation of HAProxy, or what is there instead of an agent.
/// It asks the agent nothing but, with --describe, what it takes.
#[derive(Debug, Parser)]
#[command(name = "spop-check", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The agent: HOST:PORT, or unix:PATH for a Unix socket.
    #[arg(value_name = "ENDPOINT", value_parser = options::agent)]
    pub(crate) agent: Endpoint,

    /// Which HAProxy to be; without it one after the other, on a connection each.
    #[arg(long, value_enum)]
    dialect: Option<Generation>,

    /// Do as `option spop-check` of HAProxy does, and judge the answer as strictly.
    ///
    /// An agent that is about to stop, or not ready, fails it and takes connections all the same.
    #[arg(long)]
    pub(crate) healthcheck: bool,

    /// Print the messages and arguments that the agent says it takes, for `spop-lint --expect`.
    ///
    /// It is asked by a health check, and has to be ready. An agent of this library with a `Router`
    /// answers; any other ignores the question.
    #[arg(long, conflicts_with_all = ["healthcheck", "dialect", "max_frame_size", "quiet"])]
    pub(crate) describe: bool,

    /// How long a connection and its handshake may take, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = options::timeout, default_value = "1")]
    pub(crate) timeout: Duration,

    /// The max-frame-size to offer, in bytes: HAProxy's `tune.bufsize` less 4.
    #[arg(long, value_name = "BYTES", default_value_t = 16_380)]
    max_frame_size: u32,

    /// Print nothing if the agent is healthy.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Print the result as JSON, for machines.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Args {
    /// The command line of this process, which ends here with status 1 if that is not right.
    pub(crate) fn from_command_line() -> Self {
        command_line::parse(i32::from(USAGE))
    }

    /// The generations of HAProxy to be.
    pub(crate) fn dialects(&self) -> Vec<Dialect> {
        match self.dialect {
            Some(one) => vec![one.into()],
            None => vec![Dialect::Old, Dialect::New],
        }
    }

    /// HAProxy's side of a connection.
    pub(crate) fn engine(&self, dialect: Dialect) -> Result<EngineConfig, ConfigError> {
        let config = EngineConfig::new(dialect).max_frame_size(self.max_frame_size)?;
        Ok(if self.healthcheck { config.health_check() } else { config })
    }
}

const AFTER_HELP: &str = "\
Exit status:
  0  healthy
  1  wrong usage
  2  cannot connect
  3  no handshake, or a wrong one: nothing in time, another protocol, the connection was closed
  4  refused: the agent said DISCONNECT; its status and message are shown
  5  with --describe: healthy, and does not say what it takes

Examples:
  spop-check 127.0.0.1:12345
  spop-check --healthcheck --dialect new unix:/run/agent.sock
  spop-check --describe 127.0.0.1:12345 > agent.txt
  HEALTHCHECK CMD [\"/spop-check\", \"--quiet\", \"127.0.0.1:12345\"]";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn both_generations_unless_one_is_named() {
        let dialects = |words: &[&str]| {
            Args::try_parse_from([&["spop-check", "[::1]:1"], words].concat()).unwrap().dialects()
        };
        assert_eq!(dialects(&[]), [Dialect::Old, Dialect::New]);
        assert_eq!(dialects(&["--dialect", "new"]), [Dialect::New]);
        assert!(Args::try_parse_from(["spop-check"]).is_err());
        assert!(Args::try_parse_from(["spop-check", "systemd"]).is_err());
    }
}
