//! The rows of the page's table: configurations.

use std::fmt::Display;
use std::net::SocketAddr;

use crate::haproxy::Setup;

/// How much of a body that comes with the headers an agent gets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waits {
    /// Nobody waits for it: some part, as luck has it.
    No,
    /// What the buffer holds.
    Yes,
}

/// A configuration: a row of the table.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) waits: Waits,
    /// For `global`.
    pub(super) global: &'static str,
    /// For the frontend.
    front: &'static str,
    /// For the `spoe-agent`.
    agent: &'static str,
}

/// The body is waited for before the event.
pub(super) const BUFFERED: &str = "option http-buffer-request";
const SEND: &str = "http-request send-spoe-group e2e bodies";
const WAIT: &str =
    "http-request wait-for-body time 20s\n    http-request send-spoe-group e2e bodies";
const WAIT_LARGE: &str = "http-request wait-for-body time 20s use-large-buffer\n    http-request send-spoe-group e2e bodies";
/// A buffer that holds what is posted.
pub(super) const LARGE: &str = "tune.bufsize 65536";

/// All of them.
pub(super) const TABLE: [Row; 11] = [
    Row::new("the event alone", Waits::No, "", "", ""),
    Row::new(
        "the event, and a rule `wait-for-body`",
        Waits::No,
        "",
        "http-request wait-for-body time 20s",
        "",
    ),
    Row::new("`send-spoe-group` alone", Waits::No, "", SEND, ""),
    Row::new("`option http-buffer-request`", Waits::Yes, "", BUFFERED, ""),
    Row::new("`wait-for-body`, then `send-spoe-group`", Waits::Yes, "", WAIT, ""),
    Row::new("buffered, `max-frame-size 4096`", Waits::Yes, "", BUFFERED, "max-frame-size 4096"),
    Row::new(
        "the same and `no option send-frag-payload`",
        Waits::Yes,
        "",
        BUFFERED,
        "max-frame-size 4096\n    no option send-frag-payload",
    ),
    Row::new("buffered, `tune.bufsize 65536`", Waits::Yes, LARGE, BUFFERED, ""),
    Row::new(
        "the same and `max-frame-size 16380`",
        Waits::Yes,
        LARGE,
        BUFFERED,
        "max-frame-size 16380",
    ),
    Row::new(
        "that and `no option send-frag-payload`",
        Waits::Yes,
        LARGE,
        BUFFERED,
        "max-frame-size 16380\n    no option send-frag-payload",
    ),
    Row::new(
        "`tune.bufsize.large 65536`, `wait-for-body … use-large-buffer`, then `send-spoe-group`",
        Waits::Yes,
        "tune.bufsize.large 65536",
        WAIT_LARGE,
        "",
    ),
];

/// Their names.
pub(crate) fn names() -> Vec<&'static str> {
    TABLE.iter().map(|row| row.name).collect()
}

impl Row {
    pub(super) const fn new(
        name: &'static str,
        waits: Waits,
        global: &'static str,
        front: &'static str,
        agent: &'static str,
    ) -> Self {
        Self { name, waits, global, front, agent }
    }

    /// HAProxy with it, on the address of a `bind` line.
    pub(super) fn setup(&self, bind: impl Display, agent: SocketAddr) -> Setup {
        let (messages, event) = if self.front.contains("send-spoe-group") {
            ("groups bodies", "\nspoe-group bodies\n    messages body\n")
        } else {
            ("messages body", "    event on-frontend-http-request\n")
        };
        let config = format!(
            "global
    log stdout format raw local0
    nbthread 1
    {}

defaults
    mode http
    log global
    timeout connect 2s
    timeout client 30s
    timeout server 30s

frontend web
    bind {bind}
    {}
    filter spoe engine e2e config spoe.conf
    http-request return status 200 content-type text/plain lf-string \"error=%[var(txn.e2e.error)]\"

backend agents
    mode tcp
    timeout server 30s
    server agent1 {agent}
",
            self.global, self.front
        );
        let spoe = format!(
            "[e2e]
spoe-agent e2e
    {messages}
    {}
    option      var-prefix    e2e
    option      set-on-error  error
    timeout     hello         2s
    timeout     idle          2m
    timeout     processing    20s
    use-backend agents
    log         global

spoe-message body
    args body=req.body size=req.body_size len=req.body_len header=req.hdr_val(content-length)
{event}",
            self.agent
        );
        Setup::new(config).file("spoe.conf", spoe)
    }
}
