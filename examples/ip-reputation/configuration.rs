//! HAProxy's side of an agent, written from what its router declares.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use spop_proto::{Declared, Endpoint, Kind, Router, Scope};

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
    /// Where the agent listens.
    pub(crate) agent: &'a Endpoint,
    /// The variable that rules look at.
    pub(crate) scope: Scope,
    pub(crate) variable: &'a str,
    /// Whether HAProxy is 3.1 or later.
    pub(crate) multiplexed: bool,
}

impl Configuration {
    pub(crate) fn of<M>(router: &Router<M>, site: &Site<'_>) -> Self {
        Self { haproxy: haproxy(site), spoe: spoe(router, site) }
    }

    /// Writes `haproxy.cfg` and `spoe.conf` into a folder that is there.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(folder.join("haproxy.cfg"), &self.haproxy)?;
        fs::write(folder.join("spoe.conf"), &self.spoe)
    }
}

fn haproxy(site: &Site<'_>) -> String {
    let Site { engine, agent, scope, variable, multiplexed } = site;
    let mode = if *multiplexed { "spop" } else { "tcp" };
    let server = match agent {
        Endpoint::Unix(path) => format!("unix@{}", path.display()),
        other => other.to_string(),
    };
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
    unique-id-format %[uuid()]
    filter spoe engine {engine} config spoe.conf
    # Nothing passes without a verdict; put your rules behind this one.
    http-request deny deny_status 503 unless {{ var({scope}.{engine}.{variable}) -m found }}
    http-request return status 200 content-type text/plain lf-string \"{variable} %[var({scope}.{engine}.{variable})]\\n\"

backend agents
    mode {mode}
    option spop-check
    # Longer than the timeouts of spoe.conf.
    timeout server 3m
    server agent1 {server} check
"
    )
}

fn spoe<M>(router: &Router<M>, site: &Site<'_>) -> String {
    let Site { engine, multiplexed, .. } = site;
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
            let args: Vec<_> = args.iter().map(argument).collect();
            _ = writeln!(out, "    args  {}", args.join("  "));
        }
        out.push_str("    event on-frontend-http-request\n");
    }
    out
}

/// As declared; where no fetch was named, one of the right type to start from.
fn argument(arg: &Declared) -> String {
    let fetch = match (&arg.fetch, arg.kind) {
        (Some(fetch), _) => fetch,
        (None, Kind::Address | Kind::Ipv4 | Kind::Ipv6) => "src",
        (None, Kind::Bool) => "bool(false)",
        (None, Kind::Integer) => "int(0)",
        (None, Kind::OneOf(_)) => "method",
        (None, Kind::Bytes) => "req.body",
        (None, _) => "path",
    };
    format!("{}={fetch}", arg.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(agent: &Endpoint, multiplexed: bool) -> Site<'_> {
        Site { engine: "e", agent, scope: Scope::Session, variable: "v", multiplexed }
    }

    #[test]
    fn a_configuration_says_what_was_declared() {
        let router = Router::new()
            .on("one", |_, _| Ok(()))
            .declares(["ip=src", "path"])
            .on("two", |_, _| Ok(()));
        let agent = "unix:/run/a.sock".parse().unwrap();
        let old = Configuration::of(&router, &site(&agent, false));
        assert!(old.spoe.contains("messages    one two\n"), "{}", old.spoe);
        assert!(
            old.spoe.contains("spoe-message one\n    args  ip=src  path=path\n"),
            "{}",
            old.spoe
        );
        assert!(old.spoe.contains("spoe-message two\n    event "), "{}", old.spoe);
        assert!(old.spoe.contains("timeout     idle"), "{}", old.spoe);
        assert!(old.haproxy.contains("mode tcp\n"), "{}", old.haproxy);
        assert!(old.haproxy.contains("server agent1 unix@/run/a.sock check\n"), "{}", old.haproxy);
        assert!(old.haproxy.contains("var(sess.e.v)"), "{}", old.haproxy);
        let new = Configuration::of(&router, &site(&agent, true));
        assert!(new.haproxy.contains("mode spop\n") && !new.spoe.contains("idle"));
    }
}
