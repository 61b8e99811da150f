//! The command line.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, Error, FromArgMatches, Parser};
use spop_proto::{ConfigError, Dialect, Endpoint, EngineConfig};

use crate::command_line;
use crate::generation::Generation;
use crate::options;

/// What a wrong command line ends with.
pub(crate) const USAGE: u8 = 1;

const MESSAGE: &str = "message";

/// Ask an SPOE agent what HAProxy would ask, and print its answer.
///
/// Sends a NOTIFY with the messages given and prints what the ACK sets, in HAProxy's words; or sends
/// those of a capture to two agents and prints where their answers differ.
#[derive(Debug, Parser)]
#[command(name = "spop-send", version, max_term_width = 100)]
#[command(override_usage = USAGES, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The agent: HOST:PORT, or unix:PATH for a Unix socket.
    #[arg(
        value_name = "ENDPOINT",
        value_parser = options::agent,
        required_unless_present = "replay",
        conflicts_with_all = ["replay", "against", "and", "port"]
    )]
    agent: Option<Endpoint>,

    #[command(flatten)]
    pub(crate) messages: Messages,

    /// Which HAProxy to be [default: new, or with --replay the one that was captured].
    #[arg(long, value_enum)]
    dialect: Option<Generation>,

    /// HAProxy's `option var-prefix`: print the whole names of variables.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,

    /// How often to ask, one time after the other on one connection.
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "replay")]
    pub(crate) repeat: NonZeroU64,

    /// How long an answer may take, and connection and handshake together, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = options::timeout, default_value = "1")]
    pub(crate) timeout: Duration,

    /// The max-frame-size to offer, in bytes: HAProxy's `tune.bufsize` less 4 [default: 16380, or
    /// with --replay the captured one].
    #[arg(long, value_name = "BYTES")]
    max_frame_size: Option<u32>,

    /// Send the NOTIFYs of a capture: the bytes that HAProxy sent on one connection, or a capture of
    /// the network (pcap, pcapng).
    ///
    /// Those of several connections go in the order in which they stand in the file, one after the
    /// other, each put together from its fragments; on a connection for each engine-id.
    #[arg(long, value_name = "FILE", requires_all = ["against", "and"])]
    pub(crate) replay: Option<PathBuf>,

    /// With --replay: the agent that gives the answers to compare with.
    #[arg(long, value_name = "ENDPOINT", value_parser = options::agent, requires = "replay")]
    against: Option<Endpoint>,

    /// With --replay: the agent that is compared.
    #[arg(long, value_name = "ENDPOINT", value_parser = options::agent, requires = "replay")]
    and: Option<Endpoint>,

    /// With --replay of a capture of the network: the agent's port there. Without it all connections
    /// count that begin with a HELLO, of all agents.
    #[arg(long, value_name = "PORT", requires = "replay")]
    port: Option<u16>,

    /// Say on standard error what was negotiated, what is asked, and how long answers took.
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Print the result as JSON, for machines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is to be done.
pub(crate) enum Task<'a> {
    Ask(&'a Endpoint),
    Replay(Replay<'a>),
}

/// A capture, and for whom.
pub(crate) struct Replay<'a> {
    pub(crate) file: &'a Path,
    /// The agent's port in a capture of the network.
    pub(crate) port: Option<u16>,
    pub(crate) against: &'a Endpoint,
    pub(crate) and: &'a Endpoint,
}

impl Args {
    /// The command line of this process, which ends here with status 1 if that is not right.
    pub(crate) fn from_command_line() -> Self {
        command_line::parse(i32::from(USAGE))
    }

    /// What is to be done; `None` cannot be, by the rules above.
    pub(crate) fn task(&self) -> Option<Task<'_>> {
        match (&self.agent, &self.replay, &self.against, &self.and) {
            (Some(agent), ..) => Some(Task::Ask(agent)),
            (None, Some(file), Some(against), Some(and)) => {
                Some(Task::Replay(Replay { file, port: self.port, against, and }))
            }
            _ => None,
        }
    }

    /// HAProxy's side of a connection; `captured` is what a capture says of it.
    pub(crate) fn engine(
        &self,
        captured: Option<(Dialect, u32)>,
    ) -> Result<EngineConfig, ConfigError> {
        let (dialect, size) = captured.unzip();
        let dialect = self.dialect.map(Dialect::from).or(dialect).unwrap_or(Dialect::New);
        let config = EngineConfig::new(dialect).processing_timeout(self.timeout)?;
        match self.max_frame_size.or(size) {
            Some(bytes) => config.max_frame_size(bytes),
            None => Ok(config),
        }
    }
}

/// The messages in the order of the command line, each with its name and its arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Messages(pub(crate) Vec<(String, Vec<String>)>);

// By hand: `derive` knows values of an option, and not which occurrence they belong to.
impl clap::Args for Messages {
    fn augment_args(command: Command) -> Command {
        command.arg(
            Arg::new(MESSAGE)
                .short('m')
                .long(MESSAGE)
                .value_names(["NAME", "ARGUMENT"])
                .num_args(1..)
                .action(ArgAction::Append)
                .required_unless_present("replay")
                .conflicts_with("replay")
                .help("A message and its arguments; may be repeated, in the order to send them"),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Messages {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut messages = Self::default();
        messages.update_from_arg_matches(matches)?;
        Ok(messages)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        let occurrences = matches.get_occurrences::<String>(MESSAGE).into_iter().flatten();
        self.0 = occurrences
            .filter_map(|mut words| Some((words.next()?.clone(), words.cloned().collect())))
            .collect();
        Ok(())
    }
}

const USAGES: &str = "\
spop-send [OPTIONS] <ENDPOINT> -m <NAME> [ARGUMENT]...
       spop-send [OPTIONS] --replay <FILE> --against <ENDPOINT> --and <ENDPOINT>";

const AFTER_HELP: &str = "\
Arguments of messages:
  NAME=VALUE       an IP address, an integer (sent as int64, as HAProxy does), true or false, or
                   else a string
  NAME=TYPE:VALUE  str, bin (in hexadecimal), int32, uint32, int64, uint64, bool, ipv4, ipv6, null:
  NAME=@FILE       the bytes of a file, as binary; @- reads standard input
  =VALUE  :VALUE   without a name, in any of these forms

Exit status:
  0  answered; with --replay: and both alike
  1  wrong usage, or a file that cannot be read
  2  cannot connect
  3  no handshake, or a wrong one
  4  refused: the agent said DISCONNECT instead of AGENT-HELLO
  5  no answer in time
  6  no answer: the agent disconnected, closed the connection or broke the protocol
  7  not asked: the payload is larger than a frame, and no fragments are possible
  8  with --replay: the answers differ

Examples:
  spop-send 127.0.0.1:12345 -m check-client-ip ip=192.0.2.1
  spop-send unix:/run/agent.sock --prefix waf -m headers path=str:/x id=7 -m body data=@body.bin
  spop-send --replay tap.pcapng --against 127.0.0.1:12345 --and 127.0.0.1:12346";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Result<Args, Error> {
        Args::try_parse_from([&["spop-send"], words].concat())
    }

    #[test]
    fn command_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn messages_keep_their_arguments_and_their_order() {
        let args = parse(&["h:1", "-m", "b", "x=1", "=2", "--json", "-m", "a", "-m", "b", "x=-3"]);
        let messages = args.unwrap().messages.0;
        let of = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            messages,
            [
                ("b".to_owned(), of(&["x=1", "=2"])),
                ("a".to_owned(), of(&[])),
                ("b".to_owned(), of(&["x=-3"])),
            ]
        );
    }

    #[test]
    fn one_task_or_the_other() {
        let replay = ["--replay", "f", "--against", "h:1", "--and", "h:2"];
        assert!(matches!(parse(&replay).unwrap().task(), Some(Task::Replay(_))));
        assert!(matches!(parse(&["h:1", "-m", "x"]).unwrap().task(), Some(Task::Ask(_))));
        for wrong in [
            &["h:1"][..],
            &["-m", "x"],
            &["--replay", "f"],
            &["--replay", "f", "--against", "h:1"],
            &["h:1", "-m", "x", "--and", "h:2"],
            &["h:1", "-m", "x", "--replay", "f", "--against", "h:1", "--and", "h:2"],
            &["h:1", "-m", "x", "--port", "1"],
            &["h:1", "-m", "x", "--repeat", "0"],
            &["h:1", "-m", "x", "--timeout", "0"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
