//! Documents that say the same thing twice say the same thing.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

const SECURITY: &str = include_str!("../../SECURITY.md");
const LIMITS: &str = include_str!("../../spop-proto/src/limits.rs");

const HEADING: &str = "| limit | default | when it is hit |";

/// The lines of the table of limits, each without `prefix`.
fn table<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let lines = text.lines().map(|line| line.strip_prefix(prefix).unwrap_or_default());
    lines.skip_while(|line| *line != HEADING).take_while(|line| line.starts_with('|')).collect()
}

/// Links of rustdoc, as what they show: [`name`](path) becomes `name`.
fn without_links(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, link)) = rest.split_once("[`") {
        let (name, after) = link.split_once("`]").unwrap();
        text.extend([before, "`", name, "`"]);
        rest = after.strip_prefix('(').map_or(after, |path| path.split_once(')').unwrap().1);
    }
    text + rest
}

#[test]
fn the_limits_in_security_are_those_of_the_code() {
    let documented: Vec<_> = table(LIMITS, "/// ").into_iter().map(without_links).collect();
    assert!(documented.len() > 10, "the table is where it was: {documented:?}");
    assert_eq!(table(SECURITY, ""), documented);
}

/// The page that lists them, against the sources.
#[test]
fn every_line_of_the_log_is_listed() {
    const PAGE: &str = include_str!("../../spop-proto/src/logging.rs");
    let adapters = [
        [
            include_str!("../../spop-tokio/src/log.rs"),
            include_str!("../../spop-tokio/src/connection.rs"),
            include_str!("../../spop-tokio/src/server.rs"),
        ],
        [
            include_str!("../../spop-asyncstd/src/log.rs"),
            include_str!("../../spop-asyncstd/src/connection.rs"),
            include_str!("../../spop-asyncstd/src/server.rs"),
        ],
        [
            include_str!("../../spop-blocking/src/log.rs"),
            include_str!("../../spop-blocking/src/connection.rs"),
            include_str!("../../spop-blocking/src/server.rs"),
        ],
    ];
    // A level stands before the message, except where all are warnings.
    let rows = PAGE.lines().filter(|line| line.starts_with("//! | ") && line.contains('`'));
    let rows = rows.filter(|line| !line.starts_with("//! | message"));
    let listed: Vec<_> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    assert!(listed.len() > 14, "the tables are where they were: {listed:?}");
    for (number, sources) in adapters.iter().enumerate() {
        let all = sources.concat();
        for message in &listed {
            // Tasks are what panics, and threads are none.
            if message.starts_with("the task of a connection") && number == 2 {
                continue;
            }
            assert!(all.contains(&format!("\"{message}\"")), "adapter {number}: {message}");
        }
        // And the other way round: what stands where a message stands.
        for line in all.lines().map(str::trim) {
            let is_event = ["event!(", "log::", "warn!(", "debug!(", "warning!("]
                .iter()
                .any(|start| line.starts_with(start));
            let alone = line.starts_with('"');
            let Some(text) = line.split('"').nth(1).filter(|_| is_event || alone) else { continue };
            if ["peer", "engine_id", "connection", "tracing"].contains(&text) {
                continue;
            }
            assert!(listed.contains(&text), "adapter {number}: {line}");
        }
    }
}

const RUST_PAGE: &str = include_str!("../guide/rust-for-haproxy-people.md");
const RUST_AGENT: &str = include_str!("../guide/agent.rs");

#[test]
fn the_agent_of_the_guide_is_the_one_that_is_tested() {
    assert!(RUST_PAGE.contains(&format!("\n```rust,no_run\n{RUST_AGENT}```\n")));
}

/// Where the links of a page lead, those within the page excepted.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty())
}

#[test]
fn links_of_the_guide_lead_somewhere() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("guide");
    let mut seen = 0;
    for entry in fs::read_dir(&guide).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let page = fs::read_to_string(&path).unwrap();
        for target in links(&page) {
            assert!(guide.join(target).exists(), "{}: {target}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 50, "{seen} links");
}
