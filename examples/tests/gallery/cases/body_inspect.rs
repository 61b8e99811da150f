//! `body-inspect`: attacks in bodies, and the bypass that a body beyond the buffer would be.

use std::io;

use super::{Case, Outcome};
use crate::agents::Agent;
use crate::haproxy::{Program, Request};
use crate::site::{Running, Site};

pub(super) const CASES: &[Case] = &[
    ("body_inspect_denies_attacks", denies_attacks),
    ("body_inspect_sees_as_far_as_the_buffer", sees_as_far_as_the_buffer),
    ("body_inspect_without_its_rule_is_bypassed", without_its_rule_is_bypassed),
    ("body_inspect_denies_bodies_without_a_length", denies_bodies_without_a_length),
    ("body_inspect_in_small_frames", in_small_frames),
    ("body_inspect_fails_closed", fails_closed),
];

/// Behind so many harmless bytes.
fn attack_behind(bytes: usize) -> Request {
    Request::post("/", [&vec![b'a'; bytes][..], b"<script>"].concat())
}

fn start(program: &Program, change: impl FnOnce(Site) -> Site) -> io::Result<(Agent, Running)> {
    let agent = Agent::start("body-inspect", &[])?;
    let site = change(Site::of("body-inspect", agent.address)?).start(program)?;
    Ok((agent, site))
}

/// In each of the four places, and nothing else.
fn denies_attacks(program: &Program) -> io::Result<Outcome> {
    let (_agent, site) = start(program, |site| site)?;
    for (request, denied) in [
        (Request::get("/..%2f..%2fetc/passwd"), "path:2"),
        (Request::get("/?q=%3Cscript%3E"), "query:3"),
        (Request::get("/").header("user-agent", "${jndi:ldap://x}"), "headers:5"),
        (Request::post("/", "q=%3Cscript%3E"), "body:6"),
        (Request::post("/", "1 UNION all SELECT"), "body:7"),
        (attack_behind(1000), "body:6"),
    ] {
        let answer = site.send(&request)?;
        assert_eq!((answer.status, answer.text()), (403, format!("denied: {denied}\n").into()));
    }
    for request in [
        Request::get("/?q=script"),
        Request::post("/", "the union selects"),
        Request::post("/", ""),
    ] {
        assert_eq!(site.status(&request)?, 200, "{request:?}");
    }
    let packed = Request::post("/", "x").header("content-encoding", "gzip");
    assert_eq!(site.status(&packed)?, 415);
    Ok(Outcome::Shown)
}

/// `tune.bufsize` decides how much of a body is seen, with every HAProxy; the rest is denied unseen.
fn sees_as_far_as_the_buffer(program: &Program) -> io::Result<Outcome> {
    let (_agent, site) = start(program, |site| site)?;
    assert_eq!(site.status(&attack_behind(40_000))?, 403);
    assert_eq!(site.status(&Request::post("/", vec![b'a'; 40_000]))?, 200);
    assert_eq!(site.status(&attack_behind(100_000))?, 413);

    let (_agent, site) = start(program, |site| site.without("tune.bufsize"))?;
    assert_eq!(site.status(&attack_behind(10_000))?, 403);
    assert_eq!(site.status(&attack_behind(40_000))?, 413);
    Ok(Outcome::Shown)
}

/// What the flag is for: the same request passes where no rule looks at it.
fn without_its_rule_is_bypassed(program: &Program) -> io::Result<Outcome> {
    let unguarded = |site: Site| {
        let site = site.without("tune.bufsize");
        site.without("http-request deny deny_status 413")
    };
    let (_agent, site) = start(program, unguarded)?;
    assert_eq!(site.status(&attack_behind(10_000))?, 403);
    assert_eq!(site.status(&attack_behind(40_000))?, 200, "the bypass");
    Ok(Outcome::Shown)
}

/// Nobody announces how long a body will be, and what HAProxy tells with HTTP/2 is what it has of it.
fn denies_bodies_without_a_length(program: &Program) -> io::Result<Outcome> {
    let attack = |bytes| [&vec![b'a'; bytes][..], b"<script>"].concat();
    let without_buffer = |site: Site| site.without("tune.bufsize");
    let (_agent, site) = start(program, without_buffer)?;
    assert_eq!(site.status_by_h2(&attack(1_000))?, 403, "an attack that is seen");
    assert_eq!(site.status_by_h2(&attack(40_000))?, 411, "one that is not");
    assert_eq!(site.status_by_h2(b"")?, 200, "nothing to see");
    assert_eq!(site.status(&Request::post_chunked("/", attack(1_000), 100))?, 403);
    assert_eq!(site.status(&Request::post_chunked("/", attack(40_000), 100))?, 411);

    // An agent that takes HAProxy's size for the whole truth.
    let unguarded =
        |site| without_buffer(site).with("length=req.hdr(content-length)", "length=str(any)");
    let (_agent, site) = start(program, unguarded)?;
    assert_eq!(site.status_by_h2(&attack(1_000))?, 403);
    assert_eq!(site.status_by_h2(&attack(40_000))?, 200, "the bypass");
    Ok(Outcome::Shown)
}

/// A message beyond `max-frame-size`: HAProxy up to 3.0 sends it in fragments, later ones do not ask, and
/// nothing passes.
fn in_small_frames(program: &Program) -> io::Result<Outcome> {
    let small = |site: Site| {
        site.with("    use-backend agents\n", "    use-backend agents\n    max-frame-size 4096\n")
    };
    let (_agent, site) = start(program, small)?;
    let fragments = !program.version.has_spop_multiplexer();
    assert_eq!(site.status(&attack_behind(1_000))?, 403);
    assert_eq!(site.status(&attack_behind(40_000))?, if fragments { 403 } else { 503 });
    let harmless = Request::post("/", vec![b'a'; 40_000]);
    assert_eq!(site.status(&harmless)?, if fragments { 200 } else { 503 });
    Ok(Outcome::Shown)
}

/// Without the agent nothing passes.
fn fails_closed(program: &Program) -> io::Result<Outcome> {
    let (agent, site) = start(program, |site| site)?;
    agent.stop()?;
    let answer = site.send(&Request::get("/"))?;
    assert_eq!((answer.status, answer.text().as_ref()), (503, "not inspected\n"));
    Ok(Outcome::Shown)
}
