//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::show::{Look, Side};

/// Show what HAProxy and an SPOE agent said to each other, frame by frame, and where it is wrong.
///
/// Reads what one of them wrote (a raw stream), hex dumps of it, and captures of the network. Where
/// bytes break the protocol it says at which offset, what was expected and what is there, with the
/// bytes marked, and goes on with the next frame.
#[derive(Debug, Parser)]
#[command(name = "spop-dump", version, max_term_width = 100, after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The file to read; - for standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// What the file is; by default that is found from its bytes.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Auto)]
    pub(crate) format: Format,

    /// Who wrote a raw stream; by default its first frame tells.
    #[arg(long, value_enum, value_name = "SIDE")]
    from: Option<From>,

    /// In a capture: the agent's port. By default every connection that begins with a HELLO is shown.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    #[command(flatten)]
    pub(crate) look: Look,
}

impl Args {
    /// Who wrote a raw stream, if that was said.
    pub(crate) fn side(&self) -> Option<Side> {
        self.from.map(|from| match from {
            From::Haproxy => Side::Haproxy,
            From::Agent => Side::Agent,
        })
    }
}

/// Forms of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Found from the first bytes
    Auto,
    /// The bytes that one side wrote
    Raw,
    /// Such bytes or packets as text: xxd, hexdump -C, tcpdump -X, pairs of hex digits
    Hex,
    /// A capture: pcap or pcapng
    Pcap,
}

/// A side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// HAProxy wrote it
    Haproxy,
    /// The agent wrote it
    Agent,
}

const AFTER_HELP: &str = "\
A frame's line has its offset in bytes in what that side wrote, -> from HAProxy or <- from the
agent, type, flags, ids, and length without the four bytes of the length itself. Of captures it
begins with the number of the connection and the seconds since the first frame.

Exit status:
  0  all frames are right
  1  wrong usage
  2  the file cannot be read
  3  something is wrong: a frame, an end within one, bytes that the capture lacks

Examples:
  spop-dump agent.bin
  tcpdump -i lo -s 0 -w - port 12345 | spop-dump -
  spop-dump --json capture.pcapng | jq 'select(.type == \"ACK\").after_seconds'
  xxd agent.bin | spop-dump --redact -";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn sides() {
        let side = |words: &[&str]| {
            Args::try_parse_from([&["spop-dump", "-"], words].concat()).unwrap().side()
        };
        assert_eq!(side(&[]), None);
        assert_eq!(side(&["--from", "agent"]), Some(Side::Agent));
        assert_eq!(side(&["--from", "haproxy"]), Some(Side::Haproxy));
        assert!(Args::try_parse_from(["spop-dump"]).is_err());
    }
}
