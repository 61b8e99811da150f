//! Messages that never reach the agent.

use crate::model::Model;

use super::Findings;

/// L01
pub(super) fn group_never_sent(model: &Model, findings: &mut Findings) {
    const EFFECT: &str = "its messages never reach the agent, and nothing says so";
    for (engine, agent) in model.agents() {
        let listed = agent.list("groups");
        // Several filters may take the same agent, and one of them may be enough.
        let same = |place| model.agents().filter(move |(_, other)| other.place == place);
        for (place, name) in &listed {
            let mut sent = same(agent.place.clone()).flat_map(|(engine, _)| engine.sent(model));
            if !sent.any(|(group, _, _)| group.name == *name) {
                let engine = &engine.name;
                let what = format!("group {name} is sent by no rule");
                let write = format!(
                    "http-request send-spoe-group {engine} {name}, in the proxy of the filter"
                );
                findings.add(place, what, EFFECT, write);
            }
        }
        for group in &engine.groups {
            if !listed.iter().any(|(_, name)| *name == group.name) {
                let what = format!("group {} is not listed by its agent", group.name);
                let write = format!("groups {}, in spoe-agent {}", group.name, agent.name);
                findings.add(&group.place, what, EFFECT, write);
            }
        }
    }
}

/// L02
pub(super) fn message_not_listed(model: &Model, findings: &mut Findings) {
    for (engine, agent) in model.agents() {
        let listed = agent.list("messages");
        let in_groups: Vec<_> = engine.groups.iter().flat_map(|group| &group.messages).collect();
        for message in &engine.messages {
            let name = &message.name;
            if !listed.iter().any(|(_, listed)| listed == name) && !in_groups.contains(&name) {
                let what = format!("message {name} is in no `messages` line");
                let write =
                    format!("messages {name}, in spoe-agent {} or in a spoe-group", agent.name);
                findings.add(&message.place, what, "HAProxy never sends it", write);
            }
        }
    }
}

/// L03
pub(super) fn event_set_twice(model: &Model, findings: &mut Findings) {
    for message in model.engines.iter().flat_map(|engine| &engine.messages) {
        let [.., before, last] = message.events.as_slice() else { continue };
        let what = format!("message {} has more than one event", message.name);
        let effect =
            format!("only the last counts: it is sent {}, never {}", last.name, before.name);
        let write = "one event for each message: a second message with the same args for the other";
        findings.add(&last.place, what, effect, write);
    }
}
