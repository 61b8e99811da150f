//! What an agent tells of itself instead of serving: what it takes, and HAProxy's side of it.

mod configuration;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use spop_proto::{Endpoint, Router};

use self::configuration::Configuration;
pub(crate) use self::configuration::Site;

/// What `--help` calls options after which an agent ends.
pub(crate) const INSTEAD: &str = "Instead of serving";

/// The options for that.
#[derive(Debug, Args)]
pub(crate) struct Tell {
    /// Print a haproxy.cfg and a spoe.conf for this agent, or write them into DIR, and exit.
    ///
    /// They are made from what the agent declares and from the other options, and are a start: one
    /// frontend, and the rules without which the agent would decide nothing.
    #[arg(
        long,
        help_heading = INSTEAD,
        value_name = "DIR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "-"
    )]
    pub(crate) print_haproxy_config: Option<PathBuf>,

    /// With --print-haproxy-config: HAProxy's version; what 2.6 takes, later ones take too.
    #[arg(
        long,
        help_heading = INSTEAD,
        value_name = "VERSION",
        default_value = "2.6",
        requires = "print_haproxy_config"
    )]
    pub(crate) haproxy: HaproxyVersion,

    /// Print the messages and arguments that this agent takes, for `spop-lint --expect`, and exit.
    #[arg(long, help_heading = INSTEAD, conflicts_with = "print_haproxy_config")]
    describe: bool,
}

impl Tell {
    pub(crate) const fn is_asked(&self) -> bool {
        self.describe || self.print_haproxy_config.is_some()
    }

    /// To stdout, or two files in a folder. `agent` is where it listens.
    pub(crate) fn answer<M>(
        &self,
        router: &Router<M>,
        site: &Site<'_>,
        agent: &Endpoint,
    ) -> io::Result<()> {
        let mut text = String::new();
        if self.describe {
            text = router.description().to_string();
        }
        if let Some(folder) = &self.print_haproxy_config {
            let both = Configuration::of(router, site, agent, self.haproxy.multiplexed());
            if folder != Path::new("-") {
                return both.write(folder);
            }
            text = format!("{}\n{}", both.haproxy, both.spoe);
        }
        match io::stdout().write_all(text.as_bytes()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}

/// HAProxy's version, as far as its configuration goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HaproxyVersion {
    major: u32,
    minor: u32,
}

impl HaproxyVersion {
    /// Whether connections to agents are multiplexed: `mode spop`, and no timeouts of their own.
    pub(crate) fn multiplexed(self) -> bool {
        (self.major, self.minor) >= (3, 1)
    }
}

impl FromStr for HaproxyVersion {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split('.').map(str::parse);
        let version = match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Self { major, minor },
            _ => return Err("write it as 2.6 or 3.2"),
        };
        if (version.major, version.minor) < (2, 6) {
            return Err("2.6 is the first that this is tested with");
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        tell: Tell,
    }

    fn parse(words: &[&str]) -> Result<Tell, clap::Error> {
        Alone::try_parse_from([&["agent"], words].concat()).map(|alone| alone.tell)
    }

    #[test]
    fn haproxy_configurations() {
        let tell = parse(&["--print-haproxy-config"]).unwrap();
        assert_eq!(tell.print_haproxy_config.as_ref().unwrap().as_os_str(), "-");
        assert!(tell.is_asked() && !tell.haproxy.multiplexed());
        let tell = parse(&["--print-haproxy-config=/tmp", "--haproxy", "3.2.26"]).unwrap();
        assert_eq!(tell.print_haproxy_config.unwrap().as_os_str(), "/tmp");
        assert!(tell.haproxy.multiplexed());
        assert!(parse(&["--print-haproxy-config", "--haproxy", "2.4"]).is_err());
        assert!(parse(&["--print-haproxy-config", "--haproxy", "new"]).is_err());
        assert!(parse(&["--haproxy", "3.2"]).is_err());
        assert!(parse(&["--print-haproxy-config", "--describe"]).is_err());
        assert!(parse(&["--describe"]).unwrap().is_asked());
        assert!(!parse(&[]).unwrap().is_asked());
    }
}
