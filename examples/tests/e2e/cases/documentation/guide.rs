//! The pages of `examples/guide`.

use std::net::{IpAddr, SocketAddr};

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{Client, Haproxy, Request, Response, Setup};
use crate::spy::{Spy, Value};

use super::page::{Files, Page, Versions};
use super::{LONG, replace, warnings};

const HAPROXY: &str = "guide/haproxy-for-rust-people.md";
const PAGES: [&str; 4] =
    [HAPROXY, "guide/rust-for-haproxy-people.md", "guide/porting.md", "guide/understand.md"];

/// What other tests check (Rust), or a reader types.
const OTHERS: [&str; 5] = ["rust", "rust,no_run", "sh", "text", "ini"];

/// Each is accepted without a warning, by all versions.
pub(super) fn configurations(bench: &Bench) -> Result<(), Failure> {
    let mut seen = 0;
    for name in PAGES {
        let page = Page::of(name, &OTHERS)?;
        let pairs = page.pairs(Versions::All)?;
        equal(&format!("blocks of {name} in a configuration"), 2 * pairs.len(), page.0.len())?;
        for files in pairs {
            equal(&format!("warnings about {name}"), warnings(bench, &files)?, "")?;
            seen += 1;
        }
    }
    ensure(seen >= 3, || format!("{seen} configurations"))
}

/// A rule sets a variable and the next one sends it: the agent gets it. Sent by the event instead, that
/// is before the rule, it is NULL.
pub(super) fn order_of_rules(bench: &Bench) -> Result<(), Failure> {
    let page = Page::of(HAPROXY, &OTHERS)?;
    let [_, group] =
        page.pairs(Versions::All)?.try_into().map_err(|_| Failure::new("two pairs"))?;
    let mut event = group.clone();
    replace(&mut event.config, "    http-request send-spoe-group iprep users\n", "")?;
    replace(&mut event.spoe, "    groups      users\n", "    messages    check-user\n")?;
    replace(
        &mut event.spoe,
        "path=path\n\nspoe-group users\n    messages check-user\n",
        "path=path\n    event on-frontend-http-request\n",
    )?;
    for (files, user) in [(group, Value::Str("alice".into())), (event, Value::Null)] {
        let agent = port()?;
        let spy = Spy::start(agent, |_| vec![("allowed", Value::Bool(true))])?;
        let request = Request::get("/").header("X-User", "Alice");
        let (_haproxy, answer) = ask(bench, files, agent, &request)?;
        equal("status", answer.status, 200)?;
        let seen = spy.take();
        equal("user", seen.first().and_then(|seen| seen.arg("user")), Some(&user))?;
    }
    Ok(())
}

/// In the log and in a header, and in that of a response which HAProxy makes itself.
pub(super) fn variables_are_seen(bench: &Bench) -> Result<(), Failure> {
    for (score, status, header) in [(20, 200, "20"), (95, 403, "95")] {
        let page = Page::of(HAPROXY, &OTHERS)?;
        let files = page.pairs(Versions::All)?.swap_remove(0);
        let agent = port()?;
        let _spy = Spy::start(agent, move |_| vec![("ip_score", Value::Int32(score))])?;
        let (haproxy, answer) = ask(bench, files, agent, &Request::get("/"))?;
        equal("status", answer.status, status)?;
        equal("x-score", answer.header("x-score"), Some(header.as_bytes()))?;
        haproxy.log().wait_for(0, &format!("GET / {status} score={score} error="))?;
        haproxy.log().wait_for(0, "SPOE: [iprep] <EVENT:on-frontend-http-request> sid=")?;
    }
    Ok(())
}

/// Starts HAProxy with a configuration of a page and sends it a request.
fn ask(
    bench: &Bench,
    mut files: Files,
    agent: SocketAddr,
    request: &Request,
) -> Result<(Haproxy, Response), Failure> {
    let web = port()?;
    replace(&mut files.config, "bind 127.0.0.1:8080", &format!("bind {web} accept-proxy"))?;
    replace(&mut files.config, "agent1 127.0.0.1:12345", &format!("agent1 {agent}"))?;
    replace(&mut files.config, "check inter 2s", "")?;
    replace(&mut files.spoe, "processing    100ms", &format!("processing {LONG}"))?;
    let haproxy = bench.haproxy(&Setup::new(files.config).file("spoe.conf", files.spoe))?;
    let answer = Client::connect_as(web, IpAddr::from([192, 0, 2, 1]))?.send(request)?;
    Ok((haproxy, answer))
}
