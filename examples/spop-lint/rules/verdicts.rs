//! Rules that turn requests away by a verdict, and what becomes of them when there is none.

use crate::expression::Named;
use crate::model::{Agent, Model, Rule};

use super::Findings;

/// The rules of all proxies that stop a request by a verdict of that agent, with the variable.
fn gates<'a>(model: &'a Model, agent: &'a Agent) -> Vec<(&'a Rule, String)> {
    // What HAProxy sets itself is no verdict.
    let own: Vec<_> = agent.own_variables().map(|(_, _, name)| name.text.as_str()).collect();
    let mut gates = Vec::new();
    for rule in model.proxies.iter().flat_map(|proxy| &proxy.rules).filter(|rule| rule.stops()) {
        for (_, named) in rule.reads() {
            let verdict = named.of(agent.prefix()).is_some_and(|name| !own.contains(&name));
            if verdict && !named.default {
                gates.push((rule, named.name));
            }
        }
    }
    gates
}

/// L11
pub(super) fn fails_open(model: &Model, findings: &mut Findings) {
    for (_, agent) in model.agents() {
        let error = agent.value(&["option", "set-on-error"]).map(|word| word.text.as_str());
        let gates = gates(model, agent);
        // Whatever looks at the error, or at the lack of a verdict, shows that somebody thought of it.
        let of_error = |named: &Named| {
            !named.set
                && named.scope() == "txn"
                && error.is_some()
                && named.of(agent.prefix()) == error
        };
        let reads_error = model.variables().any(|(_, _, named)| of_error(&named));
        let missing = |rule: &Rule| {
            rule.reads().any(|(term, named)| term.negated && named.of(agent.prefix()).is_some())
        };
        let asks_missing = model.proxies.iter().flat_map(|proxy| &proxy.rules).any(missing);
        if reads_error || asks_missing {
            continue;
        }
        for (rule, name) in gates {
            let what =
                format!("{} by {name}, and no rule for requests without a verdict", rule.action);
            let effect = "fails open: when the agent is gone, slow or fails, every request passes";
            let write =
                format!("http-request deny deny_status 503 unless {{ var({name}) -m found }}");
            findings.add(&rule.place, what, effect, write);
        }
    }
}

/// L16
pub(super) fn failures_leave_no_trace(model: &Model, findings: &mut Findings) {
    for (_, agent) in model.agents() {
        let logs = agent.line(&["log"]).is_some();
        if !logs && agent.line(&["option", "set-on-error"]).is_none() {
            let what =
                format!("spoe-agent {} has neither `log` nor `option set-on-error`", agent.name);
            let effect = "when it fails, neither a log line nor a variable says so";
            findings.add(&agent.place, what, effect, "log global and option set-on-error error");
        }
    }
}

/// L17
pub(super) fn verdict_in_session(model: &Model, findings: &mut Findings) {
    for (engine, agent) in model.agents() {
        // What is asked of a connection is rightly kept for the connection.
        let mut asked = engine.of_events().map(|(_, event)| event.name.as_str());
        if engine.groups.is_empty() && asked.all(|event| event == "on-client-session") {
            continue;
        }
        for (rule, name) in gates(model, agent) {
            let Some(rest) = name.strip_prefix("sess.").filter(|_| rule.set.starts_with("http-"))
            else {
                continue;
            };
            let what = format!("{} by {name}, which outlives the request", rule.action);
            let effect = "on a kept-alive connection the verdict of one request stands for the next when that gets none: who was let through once stays let through when the agent fails";
            let write = format!("txn.{rest}, and the scope txn in the agent");
            findings.add(&rule.place, what, effect, write);
        }
    }
}
