//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use spop_proto::{Endpoint, Scope};

use crate::command_line;
use crate::tell::{INSTEAD, Tell};

/// What a wrong command line ends with.
const USAGE: i32 = 2;

/// Tell HAProxy the reputation of its clients: an SPOE agent.
///
/// Every message with an argument `ip` (IPv4 or IPv6) is answered with the variable `ip_score`, an
/// INT32: the score of the longest prefix of the list that covers the address, 10 where none does.
#[derive(Debug, Parser)]
#[command(name = "ip-reputation", version, max_term_width = 100)]
#[command(after_long_help = AFTER_HELP, after_help = SHORT_AFTER_HELP)]
pub(crate) struct Args {
    /// Where HAProxy finds the agent: ADDRESS:PORT, unix:PATH for a Unix socket, or `systemd[:NAME]`.
    ///
    /// The last is a socket that systemd has opened (socket activation): the one with
    /// `FileDescriptorName=NAME` in its unit, or the only one. HAProxy's connections wait in it while
    /// the agent is started again.
    #[arg(long, value_name = "ENDPOINT", default_value = "127.0.0.1:12345")]
    pub(crate) listen: Endpoint,

    /// With --listen unix:PATH: the permissions of the socket's file, in octal. 660 lets a HAProxy of the
    /// agent's group connect.
    ///
    /// Who connects has to be allowed to write. Without this the umask decides, which in most places
    /// leaves that to the agent's own user.
    #[arg(long, value_name = "MODE", value_parser = permissions)]
    pub(crate) socket_mode: Option<u32>,

    /// The reputation list: one `CIDR SCORE` per line, `#` starts a comment.
    ///
    /// The longest prefix wins, an address alone stands for itself, a score is any 32-bit integer.
    /// Without a list every address scores 10.
    #[arg(long, value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,

    /// Scope of the variable, in HAProxy's words.
    ///
    /// A verdict belongs to one request: with `sess` it is still there for the next request of the
    /// same connection, even if the agent gives no answer to that one.
    #[arg(long, value_name = "SCOPE", value_enum, default_value_t = ScopeWord::Transaction)]
    pub(crate) scope: ScopeWord,

    /// What the agent runs on; its answers are the same.
    #[arg(long, value_name = "RUNTIME", value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,

    /// With --runtime blocking: how many threads compute answers, for all connections together.
    ///
    /// With 0 each connection computes its own on the thread it has anyway.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) workers: usize,

    /// Answer `GET /metrics` over HTTP there, for Prometheus: what the agent counts, and how long its
    /// answers take, in seconds. Port 0 lets the system choose; the log says which.
    ///
    /// There is neither TLS nor a password: choose an address that only your own can reach.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    /// Read the list, say what is in it, and exit: 0 if it can be used, 1 if not.
    #[arg(long, help_heading = INSTEAD, requires = "list", conflicts_with_all = ["describe", "print_haproxy_config"])]
    pub(crate) check: bool,

    #[command(flatten)]
    pub(crate) tell: Tell,

    /// Show the agent at work in front of HAProxy, and exit.
    ///
    /// Starts the agent and the `haproxy` found in $HAPROXY or on the PATH, both on free ports of
    /// 127.0.0.1, with the configuration of this example; without one its part is played by
    /// spop-proto. Exit status 0 if every request went as it should.
    #[arg(
        long,
        help_heading = INSTEAD,
        conflicts_with_all = [
            "listen", "socket_mode", "list", "scope", "runtime", "workers", "metrics", "check", "describe",
            "print_haproxy_config"
        ]
    )]
    pub(crate) demo: bool,

    /// With --demo: leave HAProxy and the agent running until Ctrl-C.
    #[arg(long, help_heading = INSTEAD, requires = "demo")]
    pub(crate) keep: bool,
}

impl Args {
    /// The command line of this process, which ends here if that is not right.
    pub(crate) fn from_command_line() -> Self {
        let args: Self = command_line::parse(USAGE);
        args.fitting().unwrap_or_else(|error| error.exit())
    }

    /// What clap cannot say in attributes.
    fn fitting(self) -> Result<Self, clap::Error> {
        if self.workers > 0 && self.runtime != Runtime::Blocking {
            let text =
                "'--workers' needs '--runtime blocking': the others have threads of their own";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, text));
        }
        if self.socket_mode.is_some() && !matches!(self.listen, Endpoint::Unix(_)) {
            let text = "'--socket-mode' needs '--listen unix:PATH': nothing else has a file";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, text));
        }
        Ok(self)
    }
}

fn permissions(text: &str) -> Result<u32, &'static str> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or("write it as three octal digits, as 660")
}

/// What the agent runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// Crate spop-tokio
    Tokio,
    /// Crate spop-asyncstd, for programs that are on async-std already
    AsyncStd,
    /// Crate spop-blocking: no async runtime, a thread for each connection
    Blocking,
}

/// A variable's scope as HAProxy's configuration spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeWord {
    /// The HAProxy process; only if its configuration names the variable
    #[value(name = "proc", alias = "process")]
    Process,
    /// The client's connection
    #[value(name = "sess", alias = "session")]
    Session,
    /// The request and its response
    #[value(name = "txn", alias = "transaction")]
    Transaction,
    /// The request only
    #[value(name = "req", alias = "request")]
    Request,
    /// The response only
    #[value(name = "res", alias = "response")]
    Response,
}

impl From<ScopeWord> for Scope {
    fn from(word: ScopeWord) -> Self {
        match word {
            ScopeWord::Process => Self::Process,
            ScopeWord::Session => Self::Session,
            ScopeWord::Transaction => Self::Transaction,
            ScopeWord::Request => Self::Request,
            ScopeWord::Response => Self::Response,
        }
    }
}

const SHORT_AFTER_HELP: &str = "\
See it work: ip-reputation --demo
Signals, examples and the whole story: ip-reputation --help";

const AFTER_HELP: &str = "\
Signals:
  SIGHUP           read the list again. No connection is touched; requests see the old list until
                   the new one is complete. A list with an error is refused and the old one stays
  SIGTERM, Ctrl-C  fail HAProxy's health checks for 3 s so that it goes elsewhere, finish what is
                   under way, log how it went, exit 0. A second one ends at once, exit 1

Environment:
  RUST_LOG         what to log, to stderr: error, warn, info (default), debug, trace, or by target:
                   info,spop_tokio=debug
  HAPROXY          the program --demo starts
  NOTIFY_SOCKET    set by systemd with Type=notify: told when the agent listens, while a list is read
                   again, and when it stops

Examples:
  ip-reputation --demo
  ip-reputation --list reputation.list
  ip-reputation --list reputation.list --listen unix:/run/iprep.sock
  ip-reputation --list reputation.list --runtime blocking --workers 4
  ip-reputation --list reputation.list --metrics 127.0.0.1:9100
  ip-reputation --print-haproxy-config --haproxy 3.2
  ip-reputation --list reputation.list --check && kill -HUP $(pidof ip-reputation)

HAProxy's side is haproxy.cfg and spoe.conf beside this program's source.";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, String> {
        Args::try_parse_from([&["ip-reputation"], words].concat())
            .and_then(Args::fitting)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn command_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.listen.to_string(), "127.0.0.1:12345");
        assert_eq!(args.scope, ScopeWord::Transaction);
        assert_eq!(args.list, None);
        assert_eq!((args.runtime, args.workers), (Runtime::Tokio, 0));
    }

    #[test]
    fn runtimes() {
        for (word, runtime) in [
            ("tokio", Runtime::Tokio),
            ("async-std", Runtime::AsyncStd),
            ("blocking", Runtime::Blocking),
        ] {
            assert_eq!(parse(&["--runtime", word]).unwrap().runtime, runtime, "{word}");
        }
        let args = parse(&["--workers", "4", "--runtime", "blocking"]).unwrap();
        assert_eq!(args.workers, 4);
    }

    #[test]
    fn unix_endpoint() {
        let args = parse(&["--listen", "unix:/run/x.sock"]).unwrap();
        assert_eq!(args.listen.to_string(), "unix:/run/x.sock");
    }

    #[test]
    fn socket_modes() {
        let mode = |text| parse(&["--listen", "unix:/run/x.sock", "--socket-mode", text]);
        assert_eq!(mode("660").unwrap().socket_mode, Some(0o660));
        for wrong in ["rw", "1777", "680", "-1", ""] {
            assert!(mode(wrong).is_err(), "{wrong}");
        }
        assert!(parse(&["--socket-mode", "660"]).unwrap_err().contains("--listen unix:PATH"));
        assert!(parse(&["--listen", "systemd", "--socket-mode", "660"]).is_err());
    }

    #[test]
    fn handed_over_endpoint() {
        for text in ["systemd", "systemd:spoe"] {
            assert_eq!(parse(&["--listen", text]).unwrap().listen.to_string(), text);
        }
    }

    #[test]
    fn scopes_short_and_long() {
        for (short, long, scope) in [
            ("proc", "process", Scope::Process),
            ("sess", "session", Scope::Session),
            ("txn", "transaction", Scope::Transaction),
            ("req", "request", Scope::Request),
            ("res", "response", Scope::Response),
        ] {
            for word in [short, long] {
                let args = parse(&["--scope", word]).unwrap();
                assert_eq!(Scope::from(args.scope), scope, "{word}");
            }
        }
        let error = parse(&["--scope", "session2"]).unwrap_err();
        assert!(error.contains("proc, sess, txn, req, res"), "{error}");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse(&["--check"]).unwrap_err().contains("--list"));
        assert!(parse(&["--check", "--list", "x", "--describe"]).is_err());
        assert!(parse(&["--print-haproxy-config", "--demo"]).is_err());
        assert!(parse(&["--keep"]).unwrap_err().contains("--demo"));
        assert!(parse(&["--demo", "--list", "x"]).unwrap_err().contains("cannot be used with"));
        assert!(parse(&["--listen", "12345"]).is_err());
        assert!(parse(&["--runtime", "smol"]).unwrap_err().contains("async-std"));
        assert!(parse(&["--workers", "4"]).unwrap_err().contains("--runtime blocking"));
        assert!(parse(&["--demo", "--runtime", "tokio"]).is_err());
    }
}
