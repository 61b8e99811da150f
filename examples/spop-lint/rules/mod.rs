//! The rules: each a function from the model to what it finds.

mod arguments;
mod asked;
mod backend;
mod expected;
mod variables;
mod verdicts;

use crate::model::Model;
use crate::source::Place;

/// Something that HAProxy accepts and that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// `L06`.
    pub(crate) rule: &'static str,
    /// Where.
    pub(crate) place: Place,
    /// What is wrong.
    pub(crate) what: String,
    /// What happens at run time.
    pub(crate) effect: String,
    /// What to write.
    pub(crate) write: String,
}

/// A rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// `L06`.
    pub(crate) id: &'static str,
    check: fn(&Model, &mut Findings),
}

const fn rule(id: &'static str, check: fn(&Model, &mut Findings)) -> Rule {
    Rule { id, check }
}

/// All rules.
pub(crate) const RULES: &[Rule] = &[
    rule("L01", asked::group_never_sent),
    rule("L02", asked::message_not_listed),
    rule("L03", asked::event_set_twice),
    rule("L04", arguments::variable_of_later_rules),
    rule("L05", arguments::unique_id_without_format),
    rule("L06", arguments::body_not_waited_for),
    rule("L07", arguments::body_without_size),
    rule("L08", variables::prefix_of_no_agent),
    rule("L09", variables::scope_that_cannot_be),
    rule("L10", variables::name_too_long),
    rule("L11", verdicts::fails_open),
    rule("L12", backend::no_protocol_check),
    rule("L13", backend::server_timeout_too_short),
    rule("L14", backend::socket_outside_chroot),
    rule("L15", backend::balance_by_source),
    rule("L16", verdicts::failures_leave_no_trace),
    rule("L17", verdicts::verdict_in_session),
    rule("L18", backend::backend_before_frontend),
    rule("L19", expected::argument_not_sent),
    rule("L20", expected::argument_of_another_type),
];

/// What a rule adds its findings to.
#[derive(Debug)]
pub(crate) struct Findings {
    rule: &'static str,
    found: Vec<Finding>,
}

impl Findings {
    fn add(
        &mut self,
        place: &Place,
        what: impl Into<String>,
        effect: impl Into<String>,
        write: impl Into<String>,
    ) {
        let (what, effect, write) = (what.into(), effect.into(), write.into());
        self.found.push(Finding { rule: self.rule, place: place.clone(), what, effect, write });
    }
}

/// Applies all rules. What is found within `.if` is left out: it may be written for another case.
pub(crate) fn check(model: &Model) -> Vec<Finding> {
    let mut findings = Findings { rule: "", found: Vec::new() };
    for rule in RULES {
        findings.rule = rule.id;
        (rule.check)(model, &mut findings);
    }
    let mut found = findings.found;
    found.retain(|finding| !finding.place.conditional);
    found.sort_by(|a, b| (&a.place, a.rule).cmp(&(&b.place, b.rule)));
    // Two filters may take the same part of an SPOE file.
    found.dedup_by(|a, b| (a.rule, &a.place) == (b.rule, &b.place));
    found
}

/// What is said of a rule: its section of the page.
pub(crate) fn explain(id: &str) -> Option<&'static str> {
    const PAGE: &str = include_str!("../README.md");
    let start = PAGE.find(&format!("\n## {id}: "))?;
    let text = PAGE.get(start + 1..)?;
    let end = text.match_indices("\n## ").map(|(at, _)| at).next().unwrap_or(text.len());
    text.get(..end).map(str::trim)
}

/// The title of a rule, from the page.
pub(crate) fn title(id: &str) -> &'static str {
    let line = explain(id).and_then(|text| text.lines().next()).unwrap_or_default();
    line.split_once(": ").map_or("", |(_, title)| title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_section() {
        for rule in RULES {
            let text = explain(rule.id).unwrap_or_else(|| panic!("{} is not explained", rule.id));
            assert!(text.contains("At run time: "), "{} does not say what happens", rule.id);
            assert!(text.contains("Write: "), "{} does not say what to write", rule.id);
            assert!(!title(rule.id).is_empty());
        }
        assert_eq!(explain("L00"), None);
        assert_eq!(explain("L0"), None);
    }
}
