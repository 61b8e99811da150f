//! Variables: where they live, how long, and which names HAProxy takes.

use std::fmt::Write as _;
use std::net::SocketAddr;

use spop_tokio::{AgentConfig, Scope, SetError};

use crate::bench::{Bench, Failure, equal, port};
use crate::haproxy::{Client, Request};
use crate::site::{header, start_own};
use crate::spy::{Seen, Spy, Value};

use super::Case;

const SCOPES: &str = "five scopes, set and unset";

pub(super) const CASES: &[Case] = &[
    Case::new("scopes_of_a_request_event", scopes_of_a_request_event).shown(SCOPES),
    Case::new("scopes_of_a_response_event", scopes_of_a_response_event).shown(SCOPES),
    Case::new("process_variables_must_be_known", process_variables_must_be_known)
        .shown("scope proc: known name or force-set-var"),
    Case::new("names_of_63_and_64_bytes", names_of_63_and_64_bytes)
        .shown("variable names up to 63 bytes"),
    Case::new("250_arguments", of_250_arguments).shown("250 arguments"),
    Case::new("verdict_ends_with_its_request", verdict_ends_with_its_request)
        .shown("keep-alive: txn ends with the request"),
];

/// Sets and unsets a variable in all five scopes, some of which may not be there at that moment.
fn in_all_scopes(address: SocketAddr) -> Result<Spy, Failure> {
    let spy = Spy::serve(address, AgentConfig::new(), |notify, ack| {
        for scope in Scope::ALL {
            if notify.message("take-back").is_some() {
                ack.unset(scope, "v")?;
            } else {
                ack.set(scope, "v", scope.as_str())?;
            }
        }
        // A dropped action does not cost those behind it.
        ack.set(Scope::Transaction, "last", notify.messages().count() as u64)?;
        Ok(())
    })?;
    Ok(spy)
}

/// All variables of [`in_all_scopes`] in HAProxy's words.
const ALL: &str = "\"proc=%[var(proc.e2e.v)] sess=%[var(sess.e2e.v)] txn=%[var(txn.e2e.v)] req=%[var(req.e2e.v)] res=%[var(res.e2e.v)] last=%[var(txn.e2e.last)]\"";

fn set_and_taken_back(event: &str) -> String {
    format!(
        "    messages set
    groups   take-back

spoe-message set
    event {event}

spoe-message take-back

spoe-group take-back
    messages take-back
"
    )
}

/// From a request, an agent reaches all scopes but that of the response; it does not hear of it.
fn scopes_of_a_request_event(bench: &Bench) -> Result<(), Failure> {
    let proxies = format!(
        r#"
frontend web
    bind "${{WEB}}"
    filter spoe engine e2e config spoe.conf
    http-request set-var-fmt(txn.set) {ALL}
    http-request send-spoe-group e2e take-back
    http-request set-var-fmt(txn.unset) {ALL}
    http-request return status 200 hdr set "%[var(txn.set)]" hdr unset "%[var(txn.unset)]" hdr error "%[var(txn.e2e.error)]"
"#
    );
    let set = "proc=proc sess=sess txn=txn req=req res= last=1";
    scopes(bench, &proxies, "on-frontend-http-request", set)
}

/// From a response, it reaches all but that of the request.
fn scopes_of_a_response_event(bench: &Bench) -> Result<(), Failure> {
    let proxies = format!(
        r#"
frontend web
    bind "${{WEB}}"
    filter spoe engine e2e config spoe.conf
    http-response set-header set {ALL}
    http-response send-spoe-group e2e take-back
    http-response set-header unset {ALL}
    http-response set-header error yes if {{ var(txn.e2e.error) -m found }}
    default_backend app
"#
    );
    let set = "proc=proc sess=sess txn=txn req= res=res last=1";
    scopes(bench, &proxies, "on-http-response", set)
}

fn scopes(bench: &Bench, proxies: &str, event: &str, set: &str) -> Result<(), Failure> {
    let address = port()?;
    let spy = in_all_scopes(address)?;
    let site = start_own(bench, address, proxies, &set_and_taken_back(event))?;
    let response = Client::connect(site.web)?.send(&Request::get("/"))?;
    let asked: Vec<_> = spy.take().into_iter().map(|seen| seen.message).collect();
    equal("messages", asked, ["set", "take-back"])?;
    equal("variables once set", header(&response, "set").as_deref(), Some(set))?;
    let unset = "proc= sess= txn= req= res= last=1";
    equal("variables once unset", header(&response, "unset").as_deref(), Some(unset))?;
    equal("the error", header(&response, "error"), None)?;
    bench.note("the scope of the other direction is dropped");
    Ok(())
}

/// A name that the configuration mentions can be set; any other only with `option force-set-var`.
fn process_variables_must_be_known(bench: &Bench) -> Result<(), Failure> {
    const PROXIES: &str = r#"
frontend web
    bind "${WEB}"
    filter spoe engine e2e config spoe.conf
    http-request return status 200 hdr known "%[var(proc.e2e.known)]" hdr last "%[var(txn.e2e.last)]"
"#;
    let unknown = [("", None), ("    option force-set-var\n", Some("type=sint value=<2>"))];
    for (option, unknown) in unknown {
        let address = port()?;
        let _spy = Spy::serve(address, AgentConfig::new(), |_, ack| {
            ack.set(Scope::Process, "unknown", 2)?;
            ack.set(Scope::Process, "known", 1)?;
            ack.set(Scope::Transaction, "last", 3)?;
            Ok(())
        })?;
        let message = "    messages ask\n\nspoe-message ask\n    event on-frontend-http-request\n";
        let site = start_own(bench, address, PROXIES, &[option, message].concat())?;
        let response = Client::connect(site.web)?.send(&Request::get("/"))?;
        let what = |variable| format!("{variable}, with {:?}", option.trim());
        equal(&what("the known one"), header(&response, "known").as_deref(), Some("1"))?;
        equal(&what("the one behind them"), header(&response, "last").as_deref(), Some("3"))?;
        // Not by the configuration, in which its name would make it known.
        let found = site.process_variable("e2e.unknown")?;
        equal(&what("the unknown one"), found.as_deref(), unknown)?;
    }
    Ok(())
}

/// Scope, prefix and name, with the dots between them: HAProxy drops what is longer than 63 bytes. An
/// agent that knows the prefix hears of it.
fn names_of_63_and_64_bytes(bench: &Bench) -> Result<(), Failure> {
    // `txn.e2e.` are 8 bytes.
    let (fits, long) = ("n".repeat(55), "n".repeat(56));
    // A name in a rule may be longer, so that a variable of 64 bytes would be found.
    let proxies = format!(
        r#"
frontend web
    bind "${{WEB}}"
    filter spoe engine e2e config spoe.conf
    http-request set-var(txn.own.{long}) str(own)
    http-request return status 200 hdr fits "%[var(txn.e2e.{fits})]" hdr long "%[var(txn.e2e.{long})]" hdr own "%[var(txn.own.{long})]" hdr refused "%[var(txn.e2e.refused)]" hdr error "%[var(txn.e2e.error)]"
"#
    );
    let spoe = "    messages ask\n\nspoe-message ask\n    event on-frontend-http-request\n";
    let configs = [(AgentConfig::new(), "0"), (AgentConfig::new().var_prefix("e2e")?, "1")];
    for (config, refused) in configs {
        let address = port()?;
        let (fits, long) = (fits.clone(), long.clone());
        let _spy = Spy::serve(address, config, move |_, ack| {
            let refused = match ack.set(Scope::Transaction, &long, "set") {
                Ok(()) => false,
                Err(SetError::Name(_)) => true,
                Err(other) => return Err(other.into()),
            };
            ack.set(Scope::Transaction, &fits, "set")?;
            ack.set(Scope::Transaction, "refused", refused)?;
            Ok(())
        })?;
        let site = start_own(bench, address, &proxies, spoe)?;
        let response = Client::connect(site.web)?.send(&Request::get("/"))?;
        let found = header(&response, "refused");
        equal("refused by the library", found.as_deref(), Some(refused))?;
        equal("63 bytes", header(&response, "fits").as_deref(), Some("set"))?;
        equal("64 bytes", header(&response, "long"), None)?;
        equal("64 bytes of a rule", header(&response, "own").as_deref(), Some("own"))?;
        equal("the error", header(&response, "error"), None)?;
    }
    Ok(())
}

/// The number of arguments is one byte on the wire, not the usual number: 250 would take two there.
fn of_250_arguments(bench: &Bench) -> Result<(), Failure> {
    const PROXIES: &str = r#"
frontend web
    bind "${WEB}"
    filter spoe engine e2e config spoe.conf
    http-request return status 200 hdr count "%[var(txn.e2e.count)]"
"#;
    let mut spoe = "    messages ask\n\nspoe-message ask\n".to_owned();
    let mut want = Vec::new();
    for n in 0..250 {
        // One on each line: a line has no room for all.
        writeln!(spoe, "    args a{n}=int({n})")?;
        want.push((format!("a{n}"), Value::Int64(n)));
    }
    spoe += "    event on-frontend-http-request\n";

    let address = port()?;
    let spy = Spy::start(address, |seen| vec![("count", Value::Uint64(seen.args.len() as u64))])?;
    let site = start_own(bench, address, PROXIES, &spoe)?;
    let response = Client::connect(site.web)?.send(&Request::get("/"))?;
    equal("the agent's count", header(&response, "count").as_deref(), Some("250"))?;
    equal("the message", spy.take(), [Seen { message: "ask".to_owned(), args: want }])
}

/// Two requests on one connection: what stands in `sess` still does so for the second, to which the
/// agent said nothing. In `txn` it does not, and on another connection neither does.
fn verdict_ends_with_its_request(bench: &Bench) -> Result<(), Failure> {
    const PROXIES: &str = r#"
frontend web
    bind "${WEB}"
    filter spoe engine e2e config spoe.conf
    http-request return status 200 hdr txn "%[var(txn.e2e.verdict)]" hdr sess "%[var(sess.e2e.verdict)]"
"#;
    let spoe = "    messages ask

spoe-message ask
    args  path=path
    event on-frontend-http-request
";
    let address = port()?;
    let spy = Spy::serve(address, AgentConfig::new(), |notify, ack| {
        let path: &str = notify.require("ask")?.get("path")?;
        if path == "/first" {
            ack.set(Scope::Transaction, "verdict", "bad")?;
            ack.set(Scope::Session, "verdict", "bad")?;
        }
        Ok(())
    })?;
    let site = start_own(bench, address, PROXIES, spoe)?;

    let mut client = Client::connect(site.web)?;
    let requests = [
        ("/first", Some("bad"), Some("bad")),
        ("/second", None, Some("bad")),
        ("/another", None, None),
    ];
    for (path, txn, sess) in requests {
        if path == "/another" {
            client = Client::connect(site.web)?;
        }
        let response = client.send(&Request::get(path))?;
        equal(&format!("{path} in txn"), header(&response, "txn").as_deref(), txn)?;
        equal(&format!("{path} in sess"), header(&response, "sess").as_deref(), sess)?;
        let path = Value::Str(path.to_owned().into());
        let args = vec![("path".to_owned(), path)];
        equal("what the agent was asked", spy.take(), [Seen { message: "ask".to_owned(), args }])?;
    }
    Ok(())
}
