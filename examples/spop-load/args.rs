//! The command line.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::{Duration, Instant};

use clap::Parser;
use spop_proto::Endpoint;

use crate::generation::Generation;

/// Load an SPOE agent as HAProxy would, and check every answer.
///
/// By default each connection asks again as soon as it has an answer (closed loop). Latencies are
/// then those of an agent that is asked no faster than it answers. With --rate questions come when
/// they are due (open loop), and latency counts from there: what a question waits because the agent
/// was slow before is in it. The exit status is 0 if every NOTIFY got its answer, and the right one.
#[derive(Debug, Parser)]
#[command(name = "spop-load", version, max_term_width = 100)]
pub(crate) struct Args {
    /// The agent: ADDRESS:PORT, or unix:PATH for a Unix socket.
    #[arg(value_name = "ENDPOINT", default_value = "127.0.0.1:12345")]
    pub(crate) agent: Endpoint,

    /// Which HAProxy to be.
    #[arg(long, value_enum, default_value_t = Generation::New)]
    pub(crate) dialect: Generation,

    /// Connections, over all threads.
    #[arg(short, long, value_name = "N", default_value = "1")]
    pub(crate) connections: NonZeroUsize,

    /// NOTIFYs in flight on a connection, at most.
    #[arg(short, long, value_name = "N", default_value = "20")]
    pub(crate) in_flight: NonZeroU32,

    /// Threads of the load itself.
    #[arg(short, long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZeroUsize,

    /// How long to ask, in seconds; 10 where there is no --count either.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,

    /// How many NOTIFYs to send.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,

    /// How long to ask before anything is counted, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0")]
    pub(crate) warm_up: Duration,

    /// Open loop: NOTIFYs a second, over all connections.
    #[arg(short, long, value_name = "N")]
    pub(crate) rate: Option<NonZeroU64>,

    /// Close a connection after that many answers and make a new one.
    #[arg(long, value_name = "ANSWERS")]
    pub(crate) churn: Option<NonZeroU64>,

    /// Arguments of the message check-client-ip: an address, then strings.
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) arguments: u8,

    /// Length of the payload in bytes, or up to four fewer; the last string fills it.
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) payload: Option<usize>,

    /// One more argument, body, of that many bytes.
    ///
    /// What does not fit a frame goes in fragments with --dialect old, if the agent takes them.
    #[arg(short, long, value_name = "BYTES")]
    pub(crate) body: Option<usize>,

    /// The max-frame-size to offer.
    #[arg(long, value_name = "BYTES", default_value_t = 16_380)]
    pub(crate) max_frame_size: u32,

    /// How long an answer may take, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    pub(crate) timeout: Duration,

    /// A variable that each ACK has to set to the last byte of the address it was asked about.
    ///
    /// Without it an ACK is checked for its ids and for being an ACK from end to end.
    #[arg(long, value_name = "NAME")]
    pub(crate) expect: Option<String>,

    /// Print the result as JSON, for machines.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Args {
    /// How long to ask.
    pub(crate) fn time(&self) -> Duration {
        self.duration.unwrap_or(Duration::from_secs(10))
    }

    /// When to stop asking, if that is a matter of time.
    pub(crate) fn end(&self, start: Instant) -> Option<Instant> {
        let timed = self.count.is_none() || self.duration.is_some();
        timed.then(|| start + self.warm_up + self.time())
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
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
    fn an_end_by_time_or_by_count() {
        let end = |words: &[&str]| {
            let start = Instant::now();
            let args = Args::try_parse_from([&["spop-load"], words].concat()).unwrap();
            args.end(start).map(|end| end.duration_since(start).as_secs())
        };
        assert_eq!(end(&[]), Some(10));
        assert_eq!(end(&["-d", "2.5", "--warm-up", "0.5"]), Some(3));
        assert_eq!(end(&["--count", "5"]), None);
        assert_eq!(end(&["--count", "5", "-d", "2"]), Some(2));
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [["-c", "0"], ["-d", "-1"], ["-d", "soon"], ["--rate", "0"], ["-a", "0"]] {
            assert!(
                Args::try_parse_from([&["spop-load"][..], &words].concat()).is_err(),
                "{words:?}"
            );
        }
    }
}
