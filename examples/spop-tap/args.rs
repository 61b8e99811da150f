//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Parser;
use spop_proto::Endpoint;

use crate::show::Look;

/// Stand between HAProxy and an SPOE agent, and show every frame as it passes.
///
/// HAProxy's `server` line names LISTEN instead of the agent. Bytes are passed on as they come, and
/// do not wait to be shown; what cannot be shown as fast as it passes is counted and named.
#[derive(Debug, Parser)]
#[command(name = "spop-tap", version, max_term_width = 100, after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Where HAProxy connects to: ADDRESS:PORT, or unix:PATH for a Unix socket.
    pub(crate) listen: Endpoint,

    /// Where the agent listens, in the same form.
    pub(crate) target: Endpoint,

    #[command(flatten)]
    pub(crate) look: Look,

    /// Keep what each side wrote, as it is, in PREFIX.N.haproxy and PREFIX.N.agent; or, with a name that
    /// ends in .pcapng, all of it as packets in that file, for Wireshark.
    ///
    /// N is the number of the connection. Existing files are overwritten. spop-dump reads both. Packets
    /// go from HAProxy's address to the agent's, as if there were no tap; a Unix socket is an address of
    /// 127.0.0.1 or ::1, and the comment of the first packet says which socket.
    #[arg(long, value_name = "PREFIX|FILE.pcapng", value_parser = destination)]
    pub(crate) write: Option<PathBuf>,

    /// Connections at a time; one more is closed at once.
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(crate) connections: NonZeroUsize,
}

const AFTER_HELP: &str = "\
A frame's line begins with the number of its connection and the seconds since the first frame;
the rest is that of spop-dump. SIGINT and SIGTERM end the program, and with it all connections.

Exit status:
  0  ended by a signal, and all frames were right
  1  wrong usage
  2  it cannot listen, or --write names a directory that is not there, or a capture that cannot be
     created
  3  ended by a signal; a frame was wrong or not shown, or a file could not be written

Examples:
  spop-tap 127.0.0.1:12346 127.0.0.1:12345
  spop-tap --redact --json unix:/run/tap.sock unix:/run/agent.sock > frames.json
  spop-tap --write /tmp/spoe 127.0.0.1:12346 127.0.0.1:12345 && spop-dump /tmp/spoe.1.haproxy
  spop-tap --write spoe.pcapng 127.0.0.1:12346 127.0.0.1:12345 && tshark -r spoe.pcapng";

/// A name that would become a prefix, where a capture is meant.
fn destination(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(ending) if ending.eq_ignore_ascii_case("pcap") => {
            Err("captures are written as pcapng: name it FILE.pcapng".to_owned())
        }
        _ => Ok(path),
    }
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
    fn both_ends_are_needed() {
        assert!(Args::try_parse_from(["spop-tap", "127.0.0.1:1"]).is_err());
        assert!(Args::try_parse_from(["spop-tap", "127.0.0.1:1", "nowhere"]).is_err());
        assert!(Args::try_parse_from(["spop-tap", "unix:/a", "[::1]:2"]).is_ok());
    }

    #[test]
    fn captures_are_pcapng() {
        let write = |name| {
            Args::try_parse_from(["spop-tap", "unix:/a", "unix:/b", "--write", name])
                .map(|args| crate::keep::is_capture(&args.write.unwrap()))
                .map_err(|error| error.to_string())
        };
        assert_eq!(write("a/b.pcapng"), Ok(true));
        assert_eq!(write("a.PCAPNG"), Ok(true));
        assert_eq!(write("spoe"), Ok(false));
        assert!(write("a.pcap").unwrap_err().contains("FILE.pcapng"));
    }
}
