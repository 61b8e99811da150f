//! When HAProxy asks: its events, its groups, and what ties together what belongs together.

use std::io;
use std::process::Command;

use spop_tokio::{Ack, AgentConfig, HandlerError, Notify, Scope};

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{Client, Process, Request};
use crate::site::{header, start_own};
use crate::spy::{Asked, Seen, Spy, Value};

use super::Case;

const MESSAGES: &str = "several messages in a NOTIFY, groups";

pub(super) const CASES: &[Case] = &[
    Case::new("messages_share_a_notify", messages_share_a_notify).shown(MESSAGES),
    Case::new("groups_are_sent_by_rules", groups_are_sent_by_rules).shown(MESSAGES),
    Case::new("events_of_mode_tcp", events_of_mode_tcp).shown("events of mode tcp"),
    Case::new("events_of_one_request", events_of_one_request)
        .shown("request and response events of a request"),
    Case::new("first_stream_of_a_process", first_stream_of_a_process).shown("stream-id 0"),
];

/// For each message a variable of its name in `sess`: which one of the NOTIFY it was.
fn number_messages(notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
    for (number, message) in (1_u64..).zip(notify.messages()) {
        ack.set(Scope::Session, std::str::from_utf8(message.name())?, number)?;
    }
    Ok(())
}

fn names(asked: &[Asked]) -> Vec<Vec<&str>> {
    asked.iter().map(|asked| asked.messages.iter().map(|m| m.message.as_str()).collect()).collect()
}

/// The messages of an event come in one NOTIFY, ordered as in the `messages` line; a condition leaves
/// out its message, and where none is left nobody is asked.
fn messages_share_a_notify(bench: &Bench) -> Result<(), Failure> {
    const PROXIES: &str = r#"
frontend web
    bind "${WEB}"
    filter spoe engine e2e config spoe.conf
    http-request return status 200 hdr set "first=%[var(sess.e2e.first)] second=%[var(sess.e2e.second)] third=%[var(sess.e2e.third)]"
"#;
    // Their order is not that of the line.
    const SPOE: &str = "    messages  first second third

spoe-message third
    event on-frontend-http-request unless { path /none }

spoe-message second
    event on-frontend-http-request if { path /all }

spoe-message first
    event on-frontend-http-request unless { path /none }
";
    let address = port()?;
    let spy = Spy::serve(address, AgentConfig::new(), number_messages)?;
    let site = start_own(bench, address, PROXIES, SPOE)?;
    let requests: [(&str, &[&[&str]], &str); 3] = [
        ("/all", &[&["first", "second", "third"]], "first=1 second=2 third=3"),
        ("/some", &[&["first", "third"]], "first=1 second= third=2"),
        ("/none", &[], "first= second= third="),
    ];
    for (path, want, set) in requests {
        let response = Client::connect(site.web)?.send(&Request::get(path))?;
        equal(&format!("{path}: set"), header(&response, "set").as_deref(), Some(set))?;
        equal(&format!("{path}: messages"), names(&spy.take_asked()), want)?;
    }
    Ok(())
}

/// A group is asked where a rule says so, in the request or in the response, and the rules behind that
/// one see the answer.
fn groups_are_sent_by_rules(bench: &Bench) -> Result<(), Failure> {
    const PROXIES: &str = r#"
frontend web
    bind "${WEB}"
    filter spoe engine e2e config spoe.conf
    http-request set-var-fmt(txn.before) "one=%[var(sess.e2e.one)] two=%[var(sess.e2e.two)] three=%[var(sess.e2e.three)]"
    http-request send-spoe-group e2e of-request if { path /both }
    http-request set-var-fmt(txn.between) "one=%[var(sess.e2e.one)] two=%[var(sess.e2e.two)] three=%[var(sess.e2e.three)]"
    http-response send-spoe-group e2e of-response
    http-response set-header before "%[var(txn.before)]"
    http-response set-header between "%[var(txn.between)]"
    http-response set-header after "one=%[var(sess.e2e.one)] two=%[var(sess.e2e.two)] three=%[var(sess.e2e.three)]"
    default_backend app
"#;
    const SPOE: &str = "    groups  of-request of-response

spoe-group of-request
    messages  two one

spoe-group of-response
    messages  three

spoe-message one

spoe-message two

spoe-message three
    args  status=status
";
    let address = port()?;
    let spy = Spy::serve(address, AgentConfig::new(), number_messages)?;
    let site = start_own(bench, address, PROXIES, SPOE)?;
    let none = "one= two= three=";
    let requests: [(&str, &[&[&str]], &str, &str); 2] = [
        ("/both", &[&["two", "one"], &["three"]], "one=2 two=1 three=", "one=2 two=1 three=1"),
        ("/one", &[&["three"]], none, "one= two= three=1"),
    ];
    for (path, want, between, after) in requests {
        let response = Client::connect(site.web)?.send(&Request::get(path))?;
        equal(&format!("{path}: before"), header(&response, "before").as_deref(), Some(none))?;
        equal(&format!("{path}: between"), header(&response, "between").as_deref(), Some(between))?;
        equal(&format!("{path}: after"), header(&response, "after").as_deref(), Some(after))?;
        let asked = spy.take_asked();
        equal(&format!("{path}: messages"), names(&asked), want)?;
        let status = asked.last().and_then(|asked| asked.messages.first()?.arg("status"));
        equal(&format!("{path}: status"), status, Some(&Value::Int64(200)))?;
    }
    Ok(())
}

/// Without HTTP there are five moments to ask, and the rules of `tcp-request` see the answers.
fn events_of_mode_tcp(bench: &Bench) -> Result<(), Failure> {
    const PROXIES: &str = r#"
frontend web
    mode tcp
    bind "${WEB}"
    filter spoe engine e2e config spoe.conf
    tcp-request inspect-delay 20s
    tcp-request content reject unless { var(sess.e2e.frontend) -m int 1 }
    tcp-request content accept if { req.len gt 0 }
    # The end of the connection is in it, so that it is written then.
    log-format "tcp client=%[var(sess.e2e.client)] frontend=%[var(sess.e2e.frontend)] backend=%[var(sess.e2e.backend)] server=%[var(sess.e2e.server)] response=%[var(sess.e2e.response)] error=%[var(txn.e2e.error)] end=%ts"
    default_backend tcp

backend tcp
    mode tcp
    server app "${APP}"
"#;
    const SPOE: &str = "    messages  client frontend backend server response

spoe-message client
    args  ip=src
    event on-client-session

spoe-message frontend
    args  ip=src
    event on-frontend-tcp-request

spoe-message backend
    args  data=req.payload(0,4)
    event on-backend-tcp-request

spoe-message server
    args  port=dst_port
    event on-server-session

spoe-message response
    args  port=dst_port
    event on-tcp-response
";
    let address = port()?;
    let spy = Spy::serve(address, AgentConfig::new(), number_messages)?;
    let site = start_own(bench, address, PROXIES, SPOE)?;
    let mut client = Client::connect(site.web)?;
    let response = client.send(&Request::get("/"))?;
    equal("the answer of the server", response.text().as_ref(), "served")?;
    drop(client);

    let line = site.haproxy.log().wait_for(0, "tcp client=")?;
    let variables = line.split_once(" end=").map(|(variables, _)| variables);
    let want = "tcp client=1 frontend=1 backend=1 server=1 response=1 error=-";
    equal("the agent's variables", variables, Some(want))?;
    let (ip, port) = (Value::Ipv4("127.0.0.1".parse()?), Value::Int64(site.web.port().into()));
    let want = [
        ("client", "ip", ip.clone()),
        ("frontend", "ip", ip),
        // The rules of the frontend have waited for it.
        ("backend", "data", Value::Bin("GET ".into())),
        ("server", "port", port.clone()),
        ("response", "port", port),
    ];
    let want = want.map(|(message, name, value)| Seen {
        message: message.to_owned(),
        args: vec![(name.to_owned(), value)],
    });
    equal("what the agent received", spy.take(), want)
}

/// `unique-id` tells an agent which response belongs to which request. The ids of stream and frame do
/// so only with HAProxy up to 3.0.
fn events_of_one_request(bench: &Bench) -> Result<(), Failure> {
    const PROXIES: &str = r#"
frontend web
    bind "${WEB}"
    unique-id-format %[uuid()]
    filter spoe engine e2e config spoe.conf
    http-response set-header id "%[unique-id]"
    http-response set-header set "request=%[var(sess.e2e.request)] response=%[var(sess.e2e.response)]"
    default_backend app
"#;
    const SPOE: &str = "    messages  request response

spoe-message request
    args  id=unique-id
    event on-frontend-http-request

spoe-message response
    args  id=unique-id
    event on-http-response
";
    let address = port()?;
    let spy = Spy::serve(address, AgentConfig::new(), number_messages)?;
    let site = start_own(bench, address, PROXIES, SPOE)?;
    let (mut streams, mut frames, mut unique_ids) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..2 {
        let response = Client::connect(site.web)?.send(&Request::get("/"))?;
        let set = header(&response, "set");
        equal("the agent's variables", set.as_deref(), Some("request=1 response=1"))?;
        let asked = spy.take_asked();
        equal("messages", names(&asked), [["request"], ["response"]])?;
        let id = header(&response, "id").unwrap_or_default();
        let want = Value::Str(id.clone().into());
        for message in asked.iter().flat_map(|asked| &asked.messages) {
            equal("unique-id at the agent", message.arg("id"), Some(&want))?;
        }
        unique_ids.push(id);
        streams.extend(asked.iter().map(|asked| asked.stream_id));
        frames.extend(asked.iter().map(|asked| asked.frame_id));
    }
    unique_ids.dedup();
    equal("number of different unique-ids", unique_ids.len(), 2)?;
    if bench.new_engine() {
        equal("stream-ids", streams, [1, 3, 5, 7])?;
        equal("frame-ids", frames, [1, 1, 1, 1])?;
        bench.note("each event has ids of its own");
    } else {
        streams.dedup();
        equal("number of streams", streams.len(), 2)?;
        equal("frame-ids", frames, [1, 2, 1, 2])?;
    }
    Ok(())
}

/// The first stream of a process is number 0 to HAProxy, which up to 3.0 is its id for the agent, too.
/// It is answered as any other.
fn first_stream_of_a_process(bench: &Bench) -> Result<(), Failure> {
    const HAPROXY_CFG: &str = r#"
global
    log stdout format raw local0

defaults
    mode http
    log global
    timeout connect 2s
    timeout client 30s
    timeout server 30s

frontend web
    bind "${WEB}"
    filter spoe engine e2e config spoe.conf
    http-request return status 200 hdr set "%[var(sess.e2e.ask)]"

backend agents
    mode tcp
    option spop-check
    option log-health-checks
    timeout check 10s
    server agent1 "${AGENT}" check inter 100ms
"#;
    const SPOE_CONF: &str = "[e2e]
spoe-agent e2e
    messages    ask
    option      var-prefix  e2e
    timeout     hello       2s
    timeout     idle        2m
    timeout     processing  20s
    use-backend agents
    log         global

spoe-message ask
    event on-frontend-http-request
";
    let (web, address) = (port()?, port()?);
    let spy = Spy::serve(address, AgentConfig::new(), number_messages)?;
    let config = bench.write("haproxy.cfg", HAPROXY_CFG)?;
    bench.write("spoe.conf", SPOE_CONF)?;
    // Not by `Setup`: a look at the admin socket would be the first stream.
    let mut command = Command::new(&bench.program().path);
    command.arg("-db").arg("-f").arg(config).current_dir(bench.path("."));
    command.env("WEB", web.to_string()).env("AGENT", address.to_string());
    let haproxy = Process::start("haproxy", &mut command)?;
    let failure = |error: io::Error| haproxy.failure(&error);
    // A health check is no stream.
    haproxy.log().wait_for(0, "Health check for server agents/agent1 succeeded")?;

    for first in [true, false] {
        let mut client = Client::connect(web).map_err(failure)?;
        let response = client.send(&Request::get("/")).map_err(failure)?;
        equal("the agent's variable", header(&response, "set").as_deref(), Some("1"))?;
        let asked = spy.take_asked();
        equal("messages", names(&asked), [["ask"]])?;
        let ids: Vec<_> = asked.iter().map(|asked| asked.stream_id).collect();
        match (first, bench.new_engine()) {
            (true, false) => equal("stream-id", ids, [0])?,
            (true, true) => equal("stream-id", ids, [1])?,
            (false, _) => ensure(!ids.contains(&0), || "another stream 0".to_owned())?,
        }
    }
    // In HAProxy's log it is number 0 in any case.
    haproxy.log().wait_for(0, "<EVENT:on-frontend-http-request> sid=0 st=0 ")?;
    if bench.new_engine() {
        bench.note("streams count from 1");
    }
    Ok(())
}
