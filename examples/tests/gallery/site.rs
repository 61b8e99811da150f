//! HAProxy with the configuration of a page.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::agents::Agent;
use crate::h2;
use crate::haproxy::{Client, Directory, Haproxy, Program, Request, Response, Setup, free_port};

/// A file of a page.
pub(crate) fn shipped(page: &str, file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), page, file].iter().collect()
}

/// What stands beside an agent, and what a case changes in it.
pub(crate) struct Site {
    haproxy_cfg: String,
    spoe_conf: String,
}

impl Site {
    /// The configuration of `page` with that agent. Clients say with the PROXY protocol who they are.
    pub(crate) fn of(page: &str, agent: SocketAddr) -> io::Result<Self> {
        let site = Self {
            haproxy_cfg: fs::read_to_string(shipped(page, "haproxy.cfg"))?,
            spoe_conf: fs::read_to_string(shipped(page, "spoe.conf"))?,
        };
        Ok(site.for_test().with("agent1 127.0.0.1:12345", &format!("agent1 {agent}")))
    }

    /// What the agent of that page prints for a HAProxy of that version.
    pub(crate) fn printed(page: &str, agent: SocketAddr, version: &str) -> io::Result<Self> {
        let directory = Directory::new()?;
        let (folder, listen) = (directory.path(), agent.to_string());
        Agent::print_configuration(page, folder, &["--haproxy", version, "--listen", &listen])?;
        let site = Self {
            haproxy_cfg: fs::read_to_string(folder.join("haproxy.cfg"))?,
            spoe_conf: fs::read_to_string(folder.join("spoe.conf"))?,
        };
        Ok(site.for_test())
    }

    /// What has to be changed for a test in all of them.
    fn for_test(self) -> Self {
        self.with("bind 127.0.0.1:8080", "bind \"${WEB}\" accept-proxy")
            // Right for a user, too short for a machine that runs all these cases at once.
            .with("timeout     processing    100ms", "timeout processing 5s")
    }

    /// Changes what stands once in the two files: a change that did not find its place would leave a case
    /// that tests something else than it says.
    #[track_caller]
    pub(crate) fn with(mut self, old: &str, new: &str) -> Self {
        let times = self.haproxy_cfg.matches(old).count() + self.spoe_conf.matches(old).count();
        assert_eq!(times, 1, "occurrences of {old:?}");
        self.haproxy_cfg = self.haproxy_cfg.replace(old, new);
        self.spoe_conf = self.spoe_conf.replace(old, new);
        self
    }

    /// Takes out the one line that begins with this.
    #[track_caller]
    pub(crate) fn without(self, begin: &str) -> Self {
        let begins = |line: &&str| line.trim_start().starts_with(begin);
        let line = self.haproxy_cfg.lines().find(begins).unwrap_or(begin).to_owned();
        self.with(&line, "")
    }

    /// Starts HAProxy.
    pub(crate) fn start(self, program: &Program) -> io::Result<Running> {
        let web = free_port()?;
        let setup = Setup::new(self.haproxy_cfg).file("spoe.conf", self.spoe_conf).set("WEB", web);
        Ok(Running { web, haproxy: setup.start(program)? })
    }
}

/// A frontend to send requests to.
pub(crate) struct Running {
    web: SocketAddr,
    pub(crate) haproxy: Haproxy,
}

impl Running {
    /// A request on a connection of its own.
    pub(crate) fn send(&self, request: &Request) -> io::Result<Response> {
        self.send_from("192.0.2.1", request)
    }

    /// In the name of a client.
    pub(crate) fn send_from(&self, client: &str, request: &Request) -> io::Result<Response> {
        let client: IpAddr = client.parse().map_err(io::Error::other)?;
        Client::connect_as(self.web, client)?.send(request)
    }

    /// The status of a body posted by HTTP/2, whose length is not announced.
    pub(crate) fn status_by_h2(&self, body: &[u8]) -> io::Result<u16> {
        h2::post(self.web, b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 80\r\n", None, body)
    }

    /// The status of its answer.
    pub(crate) fn status(&self, request: &Request) -> io::Result<u16> {
        Ok(self.send(request)?.status)
    }
}
