//! HAProxy's side of an agent, written from what its router declares.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use spop_proto::{Declared, Endpoint, Kind, Router};

/// A pair of files.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) haproxy: String,
    pub(crate) spoe: String,
}

/// What a router does not know of itself.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    /// The `engine`, and the `var-prefix`.
    pub(crate) engine: &'a str,
    /// What the agent's variables decide, as lines of a frontend.
    pub(crate) rules: &'a [&'a str],
    /// What a request is answered that passes them, in the words of a log format.
    pub(crate) passes: &'a str,
}

impl Configuration {
    /// `agent` is where it listens; `multiplexed` whether HAProxy is 3.1 or later.
    pub(crate) fn of<M>(
        router: &Router<M>,
        site: &Site<'_>,
        agent: &Endpoint,
        multiplexed: bool,
    ) -> Self {
        Self {
            haproxy: haproxy(router, site, agent, multiplexed),
            spoe: spoe(router, site.engine, multiplexed),
        }
    }

    /// Writes `haproxy.cfg` and `spoe.conf` into a folder that is there.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        for (name, text) in [("haproxy.cfg", &self.haproxy), ("spoe.conf", &self.spoe)] {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
        }
        Ok(())
    }
}

fn haproxy<M>(router: &Router<M>, site: &Site<'_>, agent: &Endpoint, multiplexed: bool) -> String {
    let Site { engine, rules, passes } = site;
    let mode = if multiplexed { "spop" } else { "tcp" };
    let server = match agent {
        Endpoint::Unix(path) => format!("unix@{}", path.display()),
        // Known to its unit, and not here.
        Endpoint::Systemd(_) => "127.0.0.1:12345".to_owned(),
        other => other.to_string(),
    };
    let sends = |wanted: &str| {
        router.declared().flat_map(|(_, args)| args).any(|arg| fetch(arg).starts_with(wanted))
    };
    let mut front = String::new();
    if sends("unique-id") {
        front.push_str("    unique-id-format %[uuid()]\n");
    }
    if sends("req.body") {
        front.push_str("    # The agent wants bodies: requests wait for theirs.\n");
        front.push_str("    option http-buffer-request\n    timeout http-request 10s\n");
    }
    _ = writeln!(front, "    filter spoe engine {engine} config spoe.conf");
    for rule in *rules {
        _ = writeln!(front, "    {rule}");
    }
    format!(
        "\
# haproxy.cfg
defaults
    mode http
    timeout connect 2s
    timeout client  30s
    timeout server  30s

frontend web
    bind 127.0.0.1:8080
{front}    # In place of your servers.
    http-request return status 200 content-type text/plain lf-string \"{passes}\\n\"

backend agents
    mode {mode}
    option spop-check
    # Longer than the timeouts of spoe.conf.
    timeout server 3m
    server agent1 {server} check
"
    )
}

fn spoe<M>(router: &Router<M>, engine: &str, multiplexed: bool) -> String {
    let names: Vec<_> = router.declared().map(|(name, _)| name).collect();
    let mut out = format!(
        "\
# spoe.conf
[{engine}]
spoe-agent {engine}
    messages    {}
    option      var-prefix    {engine}
    option      set-on-error  error
",
        names.join(" ")
    );
    if !multiplexed {
        out.push_str("    timeout     hello         2s\n    timeout     idle          2m\n");
    }
    out.push_str("    timeout     processing    100ms\n    use-backend agents\n");
    for (name, args) in router.declared() {
        _ = write!(out, "\nspoe-message {name}\n");
        if !args.is_empty() {
            let argument = |arg: &Declared| format!("{}={}", arg.name, fetch(arg));
            let args: Vec<_> = args.iter().map(argument).collect();
            _ = writeln!(out, "    args  {}", args.join("  "));
        }
        out.push_str("    event on-frontend-http-request\n");
    }
    out
}

/// As declared; where no fetch was named, one of the right type to start from.
fn fetch(arg: &Declared) -> &str {
    match (&arg.fetch, arg.kind) {
        (Some(fetch), _) => fetch,
        (None, Kind::Address | Kind::Ipv4 | Kind::Ipv6) => "src",
        (None, Kind::Bool) => "bool(false)",
        (None, Kind::Integer) => "int(0)",
        (None, Kind::OneOf(_)) => "method",
        (None, Kind::Bytes) => "req.body",
        (None, _) => "path",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: Site<'_> = Site {
        engine: "e",
        rules: &["http-request deny unless { var(sess.e.v) -m found }"],
        passes: "%[var(sess.e.v)]",
    };

    #[test]
    fn a_configuration_says_what_was_declared() {
        let router = Router::new()
            .on("one", |_, _| Ok(()))
            .declares(["ip=src", "path"])
            .on("two", |_, _| Ok(()));
        let agent = "unix:/run/a.sock".parse().unwrap();
        let Configuration { haproxy, spoe } = Configuration::of(&router, &SITE, &agent, false);
        assert!(spoe.contains("messages    one two\n"), "{spoe}");
        assert!(spoe.contains("spoe-message one\n    args  ip=src  path=path\n"), "{spoe}");
        assert!(spoe.contains("spoe-message two\n    event "), "{spoe}");
        assert!(spoe.contains("timeout     idle"), "{spoe}");
        assert!(haproxy.contains("mode tcp\n"), "{haproxy}");
        assert!(haproxy.contains("server agent1 unix@/run/a.sock check\n"), "{haproxy}");
        assert!(haproxy.contains("    http-request deny unless { var(sess.e.v) "), "{haproxy}");
        assert!(haproxy.contains(r#"lf-string "%[var(sess.e.v)]\n""#), "{haproxy}");
        assert!(!haproxy.contains("unique-id") && !haproxy.contains("buffer"), "{haproxy}");
        let new = Configuration::of(&router, &SITE, &agent, true);
        assert!(new.haproxy.contains("mode spop\n") && !new.spoe.contains("idle"));
    }

    /// What an argument needs of the frontend.
    #[test]
    fn bodies_and_ids() {
        let agent = "127.0.0.1:1".parse().unwrap();
        for (arg, line) in [
            ("id?=unique-id", "    unique-id-format %[uuid()]\n"),
            ("body=req.body", "    option http-buffer-request\n"),
            ("size=req.body_size", "    option http-buffer-request\n"),
        ] {
            let router = Router::new().on("m", |_, _| Ok(())).declares([arg]);
            let Configuration { haproxy, .. } = Configuration::of(&router, &SITE, &agent, false);
            assert!(haproxy.contains(line), "{arg}: {haproxy}");
        }
    }
}
