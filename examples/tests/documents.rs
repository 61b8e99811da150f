//! Documents that say the same thing twice say the same thing.
#![allow(clippy::unwrap_used, reason = "a test")]

const SECURITY: &str = include_str!("../../SECURITY.md");
const LIMITS: &str = include_str!("../../spop-proto/src/config.rs");

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
