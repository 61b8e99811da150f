//! `jwt-auth`: who passes, and as whom.

use std::fs;
use std::io;

use serde_json::json;

use super::{Case, Outcome};
use crate::agents::Agent;
use crate::agents::jwt_auth::tests::{SECRET, at, token};
use crate::haproxy::{Directory, Program, Request};
use crate::site::{Running, Site};

pub(super) const CASES: &[Case] = &[
    ("jwt_auth_lets_a_good_token_pass", good),
    ("jwt_auth_turns_others_away", others),
    ("jwt_auth_fails_closed", fails_closed),
];

fn start(program: &Program, change: impl FnOnce(Site) -> Site) -> io::Result<(Agent, Running)> {
    let directory = Directory::new()?;
    let key = directory.path().join("secret");
    // As an editor leaves it: with a line break.
    fs::write(&key, format!("{SECRET}\n"))?;
    let agent = Agent::start("jwt-auth", &["--key".as_ref(), key.as_os_str()])?;
    let site = change(Site::of("jwt-auth", agent.address)?).start(program)?;
    Ok((agent, site))
}

fn with(token: &str) -> Request {
    Request::get("/").header("authorization", token)
}

/// The server behind is told who it is, whatever the client says it were.
fn good(program: &Program) -> io::Result<Outcome> {
    let (agent, site) = start(program, |site| {
        site.with("hello %[req.hdr(x-user)]", "hello %[req.hdr(x-user)] of %[req.hdr_cnt(x-user)]")
    })?;
    let token = token(&json!({ "sub": "alice", "exp": at(60) }), SECRET);
    let answer = site.send(&with(&token).header("x-user", "root"))?;
    assert_eq!((answer.status, answer.text().as_ref()), (200, "hello alice of 1\n"));
    agent.stop()?;
    Ok(Outcome::Shown)
}

/// With the reason, for the client to do something about it.
fn others(program: &Program) -> io::Result<Outcome> {
    let (_agent, site) = start(program, |site| site)?;
    let alice = json!({ "sub": "alice", "exp": at(60) });
    let expired = token(&json!({ "sub": "alice", "exp": at(-60) }), SECRET);
    let forged = token(&alice, "another secret of the same length");
    for (request, reason) in [
        (Request::get("/"), "no token"),
        (with("Basic YTpi"), "not a bearer token"),
        (with("Bearer x.y.z"), "malformed"),
        (with("Bearer \u{e9}, x"), "malformed"),
        (with(&expired), "expired"),
        (with(&forged), "wrong signature"),
        (Request::get("/").header("authorization", b"Bearer \xff"), "not checked"),
    ] {
        let answer = site.send(&request)?;
        assert_eq!((answer.status, answer.text().trim_end()), (401, reason));
        let header = answer.header("www-authenticate").unwrap_or_default();
        let expected = format!("Bearer error=\"invalid_token\", error_description=\"{reason}\"");
        assert_eq!(String::from_utf8_lossy(header), expected);
    }
    // A good one does not help where there is another one.
    let two = with(&token(&alice, SECRET)).header("authorization", "Bearer x.y.z");
    assert_eq!(site.status(&two)?, 400);
    Ok(Outcome::Shown)
}

/// Without the agent nobody passes, not even who passed before.
fn fails_closed(program: &Program) -> io::Result<Outcome> {
    let (agent, site) = start(program, |site| site)?;
    let request = with(&token(&json!({ "sub": "alice", "exp": at(60) }), SECRET));
    assert_eq!(site.status(&request)?, 200);
    drop(agent);
    let answer = site.send(&request)?;
    assert_eq!((answer.status, answer.text().as_ref()), (503, "cannot check tokens\n"));
    Ok(Outcome::Shown)
}
