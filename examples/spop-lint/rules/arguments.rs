//! Arguments that come empty, cut, or not at all.

use crate::expression::{fetches, variables};
use crate::model::{Argument, Engine, Message, Model, Proxy, Rule};
use crate::source::Place;

use super::Findings;

/// A moment in the life of a request: a phase, and the number of a rule in it.
type Moment = (u8, usize);

/// When rules run, in a proxy that takes requests or in one behind it.
fn phase_of_rules(set: &str, front: bool) -> u8 {
    match (set, front) {
        ("tcp-request connection", _) => 0,
        ("tcp-request session", _) => 1,
        ("tcp-request content", true) => 4,
        ("http-request", true) => 6,
        ("tcp-request content", false) => 8,
        ("http-request", false) => 10,
        ("tcp-response content", _) => 12,
        ("http-response", _) => 14,
        _ => 15,
    }
}

/// When HAProxy sends the messages of an event.
fn phase_of_event(event: &str) -> Option<u8> {
    Some(match event {
        "on-client-session" => 2,
        "on-frontend-tcp-request" => 3,
        "on-frontend-http-request" => 5,
        "on-backend-tcp-request" => 7,
        "on-backend-http-request" => 9,
        "on-server-session" | "on-tcp-response" => 11,
        "on-http-response" => 13,
        _ => return None,
    })
}

/// A message at a moment at which it is sent; with the rule, where it is one that sends it.
struct Sending<'a> {
    message: &'a Message,
    moment: Moment,
    event: &'a str,
    rule: Option<&'a Rule>,
}

fn sendings<'a>(model: &'a Model, engine: &'a Engine) -> Vec<Sending<'a>> {
    let events = engine.of_events().filter_map(|(message, event)| {
        let moment = (phase_of_event(&event.name)?, 0);
        Some(Sending { message, moment, event: &event.name, rule: None })
    });
    let front = model.proxy_of(engine).is_some_and(Proxy::takes_requests);
    let groups = engine.sent(model).flat_map(move |(group, index, rule)| {
        let moment = (phase_of_rules(&rule.set, front), index);
        let messages = group.messages.iter().filter_map(|name| engine.message(name));
        messages.map(move |message| Sending { message, moment, event: &rule.set, rule: Some(rule) })
    });
    events.chain(groups).collect()
}

/// L04
pub(super) fn variable_of_later_rules(model: &Model, findings: &mut Findings) {
    for engine in &model.engines {
        for sending in sendings(model, engine) {
            for arg in &sending.message.args {
                for named in variables(&arg.expression) {
                    let lives = matches!(named.scope(), "txn" | "req" | "res");
                    let of_agent =
                        model.agents().any(|(_, agent)| named.of(agent.prefix()).is_some());
                    if named.set || named.default || !lives || of_agent {
                        continue;
                    }
                    later(model, engine, &sending, arg, &named.name, findings);
                }
            }
        }
    }
}

fn later(
    model: &Model,
    engine: &Engine,
    sending: &Sending<'_>,
    arg: &Argument,
    name: &str,
    findings: &mut Findings,
) {
    let (mut first, mut in_rules) = (None::<&Place>, 0);
    for (index, proxy) in model.proxies.iter().enumerate() {
        for (number, rule) in proxy.rules.iter().enumerate() {
            let variables = crate::expression::all_variables(&rule.words);
            if !variables.iter().any(|named| named.set && named.name == name) {
                continue;
            }
            in_rules += 1;
            let phase = phase_of_rules(&rule.set, proxy.takes_requests());
            // Of two proxies of one kind a request meets only one.
            let number = if index == engine.proxy { number } else { usize::MAX };
            if (phase, number) < sending.moment || rule.place.conditional {
                return;
            }
            first.get_or_insert(&rule.place);
        }
    }
    let elsewhere = model.sets(name) && in_rules == 0;
    if elsewhere || (first.is_none() && (model.has_other_setters() || model.incomplete)) {
        return;
    }
    let what = format!("argument {}: {name} is not set yet", label(arg));
    let sent = match sending.rule {
        Some(rule) => format!("the rule of line {}", rule.place.line),
        None => format!("event {}", sending.event),
    };
    let set = first.map_or_else(
        || "no rule sets it".to_owned(),
        |place| format!("it is set by the rule of {}:{}", place.file, place.line),
    );
    let effect = format!("the agent gets NULL: {sent} sends the message, {set}, which comes later");
    let effect = if first.is_none() { format!("the agent gets NULL: {set}") } else { effect };
    let write = format!(
        "send the message by a rule behind that one: a spoe-group with {}, and http-request send-spoe-group {} GROUP",
        sending.message.name, engine.name
    );
    findings.add(&arg.place, what, effect, write);
}

/// L05
pub(super) fn unique_id_without_format(model: &Model, findings: &mut Findings) {
    for engine in &model.engines {
        let Some(proxy) = model.proxy_of(engine).filter(|proxy| proxy.takes_requests()) else {
            continue;
        };
        if proxy.last(&["unique-id-format"]).is_some() {
            continue;
        }
        for sending in sendings(model, engine) {
            for arg in
                sending.message.args.iter().filter(|arg| fetches(&arg.expression, "unique-id"))
            {
                let Proxy { kind, name, .. } = proxy;
                let what =
                    format!("argument {}: {kind} {name} has no unique-id-format", label(arg));
                let write = format!("unique-id-format %[uuid()], in {kind} {name} or its defaults");
                findings.add(&arg.place, what, "the agent gets NULL", write);
            }
        }
    }
}

/// L06
pub(super) fn body_not_waited_for(model: &Model, findings: &mut Findings) {
    const REQUEST: &[&str] = &["req.body", "req.body_len", "req.body_param"];
    const RESPONSE: &[&str] = &["res.body", "res.body_len"];
    for engine in &model.engines {
        let Some(proxy) = model.proxy_of(engine).filter(|proxy| is_http(proxy)) else { continue };
        for sending in sendings(model, engine) {
            let (fetch, set) = match sending.moment.0 {
                5..=10 => (REQUEST, "http-request"),
                13.. => (RESPONSE, "http-response"),
                _ => continue,
            };
            if waited(model, proxy, &sending, set) {
                continue;
            }
            for arg in &sending.message.args {
                if fetch.iter().any(|fetch| fetches(&arg.expression, fetch)) {
                    body(engine, &sending, set, arg, findings);
                }
            }
        }
    }
}

/// Whether the body is there, or as much of it as the buffer holds.
fn waited(model: &Model, proxy: &Proxy, sending: &Sending<'_>, set: &str) -> bool {
    let by_option = |proxy: &Proxy| proxy.option("http-buffer-request");
    let by_rule =
        |rules: &[Rule]| rules.iter().any(|rule| rule.action == "wait-for-body" && rule.set == set);
    let (phase, number) = sending.moment;
    let before = by_rule(proxy.rules.get(..number).unwrap_or_default());
    if set == "http-response" {
        return before;
    }
    // What has come to a backend has passed a frontend, and which one is not known.
    let others =
        |other: &Proxy| by_option(other) || (other.takes_requests() && by_rule(&other.rules));
    before || by_option(proxy) || (phase > 6 && model.proxies.iter().any(others))
}

fn body(
    engine: &Engine,
    sending: &Sending<'_>,
    set: &str,
    arg: &Argument,
    findings: &mut Findings,
) {
    let Sending { message, event, rule, .. } = sending;
    let what = format!("argument {}: nothing waits for the body", label(arg));
    let effect = "the agent gets what came together with the headers, often nothing";
    let write = match (set, rule) {
        ("http-request", None) => {
            "option http-buffer-request; rules like wait-for-body run after the event".to_owned()
        }
        (set, Some(_)) => format!("{set} wait-for-body time 1s, before that rule"),
        (set, None) => format!(
            "{set} wait-for-body time 1s and then {set} send-spoe-group {} GROUP with {}, in place of event {event}",
            engine.name, message.name
        ),
    };
    findings.add(&arg.place, what, effect, write);
}

/// L07
pub(super) fn body_without_size(model: &Model, findings: &mut Findings) {
    // What tells how long the body is.
    const TELLS: &[&str] = &["req.body_size", "req.hdrs", "req.hdrs_bin"];
    for engine in &model.engines {
        for Sending { message, .. } in sendings(model, engine) {
            let mut args = message.args.iter();
            let Some(body) = args.find(|arg| fetches(&arg.expression, "req.body")) else {
                continue;
            };
            let tells = |arg: &Argument| {
                TELLS.iter().any(|fetch| fetches(&arg.expression, fetch))
                    || arg.expression.to_ascii_lowercase().contains("(content-length")
            };
            if !message.args.iter().any(tells) {
                let what =
                    format!("argument {}: the agent cannot see that the body is cut", label(body));
                let effect = "a body larger than the buffer (about 15 000 bytes by default) comes cut, without an error";
                findings.add(
                    &body.place,
                    what,
                    effect,
                    "also length=req.hdr_val(content-length), and compare in the agent; refuse requests with a body and without that header",
                );
            }
        }
    }
}

fn is_http(proxy: &Proxy) -> bool {
    proxy.last(&["mode"]).is_some_and(|line| line.word(1) == "http")
}

fn label(arg: &Argument) -> String {
    match arg.name.as_str() {
        "" => arg.expression.clone(),
        name => format!("{name}={}", arg.expression),
    }
}
