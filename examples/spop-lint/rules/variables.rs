//! Variables that HAProxy never has under the name that a rule reads.

use std::collections::BTreeMap;

use crate::expression::Named;
use crate::model::Model;
use crate::source::Place;

use super::Findings;

/// HAProxy drops a variable whose name is longer, with scope and prefix.
const LONGEST: usize = 63;

/// L08
pub(super) fn prefix_of_no_agent(model: &Model, findings: &mut Findings) {
    let prefixes: Vec<_> = model.agents().map(|(_, agent)| agent.prefix()).collect();
    // An SPOE file that could not be read may have any prefix.
    let Some(known) = prefixes.first().filter(|_| !model.incomplete) else { return };
    for (_, place, named) in model.variables() {
        let scope = named.scope();
        if named.set
            || named.default
            || !matches!(scope, "sess" | "txn" | "req" | "res")
            || prefixes.iter().any(|prefix| named.of(prefix).is_some())
            || model.sets(&named.name)
        {
            continue;
        }
        let rest = named.name.split_once('.').map_or("", |(_, rest)| rest);
        let (prefix, name) = rest.split_once('.').unwrap_or(("", rest));
        let alike = prefixes.iter().find(|known| plain(known) == plain(prefix));
        if alike.is_none() && model.has_other_setters() {
            continue;
        }
        let meant = alike.unwrap_or(known);
        let what = match prefix {
            "" => format!("{}: no prefix, and no rule sets it", named.name),
            _ => format!("{}: prefix {prefix} is set by no agent, and no rule sets it", named.name),
        };
        let effect = "it is never found: a rule that compares it never matches";
        findings.add(&place, what, effect, format!("{scope}.{meant}.{name}"));
    }
}

/// What people mix up: case, `-`, `_`.
fn plain(prefix: &str) -> String {
    prefix.replace(['-', '_'], "").to_ascii_lowercase()
}

/// L09
pub(super) fn scope_that_cannot_be(model: &Model, findings: &mut Findings) {
    own_variables_are_of_the_transaction(model, findings);
    scopes_of_the_other_direction(model, findings);
    two_scopes(model, findings);
}

fn own_variables_are_of_the_transaction(model: &Model, findings: &mut Findings) {
    for (_, agent) in model.agents() {
        for (option, _, name) in agent.own_variables() {
            for (_, place, named) in model.variables() {
                if named.set
                    || named.scope() == "txn"
                    || named.of(agent.prefix()) != Some(&name.text)
                {
                    continue;
                }
                let what = format!("{}: {option} sets it in the scope txn", named.name);
                let write = format!("txn.{}.{}", agent.prefix(), name.text);
                findings.add(&place, what, "it is never found, also not after a failure", write);
            }
        }
    }
}

fn scopes_of_the_other_direction(model: &Model, findings: &mut Findings) {
    for rule in model.proxies.iter().flat_map(|proxy| &proxy.rules) {
        let of_rule = crate::expression::all_variables(&rule.words);
        let of_condition = rule.reads().map(|(_, named)| named);
        for named in of_rule.into_iter().chain(of_condition) {
            let prefix = model.agents().find(|(_, agent)| named.of(agent.prefix()).is_some());
            let (lives, here) = match (named.scope(), rule.set.as_str()) {
                ("res", "http-request" | "tcp-request content") => ("response", "request"),
                ("req", "http-response" | "http-after-response" | "tcp-response content") => {
                    ("request", "response")
                }
                _ => continue,
            };
            let Some((_, agent)) = prefix.filter(|_| !named.set) else { continue };
            let what = format!("{}: a variable of the {lives} in a rule of the {here}", named.name);
            let effect = "it is never found there";
            let name = named.of(agent.prefix()).unwrap_or_default();
            let write = format!("txn.{}.{name}, and the scope txn in the agent", agent.prefix());
            findings.add(&rule.place, what, effect, write);
        }
    }
}

fn two_scopes(model: &Model, findings: &mut Findings) {
    for (_, agent) in model.agents() {
        let own: Vec<_> = agent.own_variables().map(|(_, _, name)| name.text.as_str()).collect();
        let mut seen = BTreeMap::<String, Vec<(Place, Named)>>::new();
        for (_, place, named) in model.variables() {
            let Some(name) = named.of(agent.prefix()).map(str::to_owned) else { continue };
            if !named.set && !own.contains(&name.as_str()) && !model.sets(&named.name) {
                seen.entry(name).or_default().push((place, named));
            }
        }
        for places in seen.into_values() {
            let Some((first, (_, before))) = places.split_first().map(|(f, _)| (f, f)) else {
                continue;
            };
            let other = places.iter().find(|(_, named)| named.scope() != before.scope());
            let Some((place, named)) = other else { continue };
            let what = format!(
                "{}: read as {} in {}:{}, and an agent sets it in one scope",
                named.name, before.name, first.0.file, first.0.line
            );
            let effect = "one of the two is never found";
            findings.add(place, what, effect, format!("{}, or that scope in both", before.name));
        }
    }
}

/// L10
pub(super) fn name_too_long(model: &Model, findings: &mut Findings) {
    let effect = "HAProxy drops it: it is never set, and nothing says so";
    let write = "a shorter `option var-prefix`, or a shorter name";
    for (_, agent) in model.agents() {
        for (option, line, name) in agent.own_variables() {
            if name.unknown || agent.unknown_prefix() {
                continue;
            }
            let length = "txn.".len() + agent.prefix().len() + 1 + name.text.len();
            if length > LONGEST {
                let what = format!(
                    "{option} {}: with scope and prefix {length} bytes, more than {LONGEST}",
                    name.text
                );
                findings.add(&line.at(name), what, effect, write);
            }
        }
        for (_, place, named) in model.variables() {
            let length = named.name.len();
            if !named.set && length > LONGEST && named.of(agent.prefix()).is_some() {
                let what = format!("{}: {length} bytes, more than {LONGEST}", named.name);
                findings.add(&place, what, effect, write);
            }
        }
    }
}
