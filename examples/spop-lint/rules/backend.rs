//! The backend in which the agents are.

use std::path::Path;

use crate::expression::time;
use crate::model::{Model, Proxy};
use crate::source::{Line, Place};

use super::Findings;

/// The lines that define servers.
fn servers(backend: &Proxy) -> impl Iterator<Item = &Line> {
    backend.lines.iter().filter(|line| matches!(line.word(0), "server" | "server-template"))
}

fn has(line: &Line, keyword: &str) -> bool {
    line.words.iter().any(|word| word.text == keyword)
}

/// L12
pub(super) fn no_protocol_check(model: &Model, findings: &mut Findings) {
    for (backend, _) in model.backends() {
        let defaults = backend.last(&["default-server"]);
        let by_default = defaults.is_some_and(|line| has(line, "check"));
        let mut checked = false;
        for line in servers(backend) {
            let other =
                ["no-check", "track", "agent-check", "disabled"].iter().find(|w| has(line, w));
            if has(line, "check") || (by_default && other.is_none()) {
                checked = true;
            } else if matches!(other, None | Some(&"no-check")) {
                let what = format!("server {}/{} is not checked", backend.name, line.word(1));
                let effect = "while the agent is gone every request waits, up to `timeout processing`, before it goes on without a verdict";
                findings.add(
                    &line.place,
                    what,
                    effect,
                    "option spop-check, and check on the server line",
                );
            }
        }
        // Checks written by hand may speak the protocol.
        let by_hand = backend.option("external-check")
            || backend.lines.iter().any(|line| line.starts(&["tcp-check", "send-binary"]));
        if checked && !backend.option("spop-check") && !by_hand {
            let what =
                format!("backend {} checks its agents without `option spop-check`", backend.name);
            let effect = "a check sees an open port: an agent that hangs, refuses HAProxy or is none stays UP and is asked";
            findings.add(&backend.place, what, effect, "option spop-check, in that backend");
        }
    }
}

/// L13
pub(super) fn server_timeout_too_short(model: &Model, findings: &mut Findings) {
    for (backend, agents) in model.backends() {
        let Some(line) = backend.last(&["timeout", "server"]) else { continue };
        for (_, agent) in agents {
            let Some(word) = agent.value(&["timeout", "processing"]) else { continue };
            let (Some(server), Some(processing)) = (time(line.word(2)), time(&word.text)) else {
                continue;
            };
            if server <= processing {
                let what = format!(
                    "backend {}: timeout server {} is not above timeout processing {} of agent {}",
                    backend.name,
                    line.word(2),
                    word.text,
                    agent.name
                );
                let effect = "it cuts the connection to the agent, and with it every answer owed on it: error 257";
                findings.add(
                    &line.place,
                    what,
                    effect,
                    format!("timeout server 3m, in backend {}", backend.name),
                );
            }
        }
    }
}

/// L14
pub(super) fn socket_outside_chroot(model: &Model, findings: &mut Findings) {
    let Some(line) = model.global.iter().rfind(|line| line.word(0) == "chroot") else { return };
    let root = line.word(1).trim_end_matches('/');
    if root.is_empty() || line.words.get(1).is_none_or(|word| word.unknown) {
        return;
    }
    for (backend, _) in model.backends() {
        for server in servers(backend) {
            let Some(word) = server.words.get(2).filter(|word| !word.unknown) else { continue };
            let path = word.text.strip_prefix("unix@").unwrap_or(&word.text);
            if !path.starts_with('/') {
                continue;
            }
            let looked_for = format!("{root}{path}");
            let inside = path.strip_prefix(root).filter(|rest| rest.starts_with('/'));
            let usual = ["/run/", "/var/run/", "/tmp/", "/dev/shm/"];
            let outside =
                usual.iter().any(|folder| path.starts_with(folder)) || Path::new(path).exists();
            if inside.is_none() && (!outside || Path::new(&looked_for).exists()) {
                continue;
            }
            let what = format!(
                "server {}/{}: {path} is looked for at {looked_for}",
                backend.name,
                server.word(1)
            );
            let effect = format!(
                "HAProxy connects after `chroot {root}`, finds no socket there, and no request gets a verdict"
            );
            let write = match inside {
                Some(rest) => {
                    format!("server {} {rest}, the path as it is seen from {root}", server.word(1))
                }
                None => format!(
                    "let the agent listen on {root}/agent.sock, and write server {} /agent.sock",
                    server.word(1)
                ),
            };
            findings.add(&server.at(word), what, effect, write);
        }
    }
}

/// L15
pub(super) fn balance_by_source(model: &Model, findings: &mut Findings) {
    for (backend, _) in model.backends() {
        let source = |line: &&Line| {
            line.word(1) == "source" || (line.word(1) == "hash" && line.word(2).starts_with("src"))
        };
        let Some(line) = backend.last(&["balance"]).filter(source) else { continue };
        if servers(backend).count() < 2 {
            continue;
        }
        let what = format!("backend {}: balance {} knows no client", backend.name, line.word(1));
        let effect = "it is HAProxy that connects to agents: requests of one client go to all of them in turn";
        let write = "balance roundrobin, and agents that share what they must know of a client";
        findings.add(&line.place, what, effect, write);
    }
}

/// L18
pub(super) fn backend_before_frontend(model: &Model, findings: &mut Findings) {
    if !model.may_be_from((3, 1)) {
        return;
    }
    let number = |place: &Place| model.proxies.iter().position(|proxy| proxy.place == *place);
    for (backend, agents) in model.backends() {
        // HAProxy makes `mode spop` of `mode tcp`, here too late.
        if backend.lines.iter().any(|line| line.starts(&["mode", "spop"])) {
            continue;
        }
        let Some((engine, _)) = agents.iter().find(|(e, _)| number(&backend.place) < Some(e.proxy))
        else {
            continue;
        };
        let Some(front) = model.proxy_of(engine) else { continue };
        let what = format!(
            "backend {} stands before {} {}, which asks its agents",
            backend.name, front.kind, front.name
        );
        let effect = "from HAProxy 3.1 on each request makes a connection of its own to the agent";
        let write = "the backend behind the proxies that ask; or `mode spop`, where HAProxy is 3.1 or later";
        findings.add(&backend.place, what, effect, write);
    }
}
