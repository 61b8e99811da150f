//! Variables under a name that HAProxy never has.

use spop_tokio::{AgentConfig, Scope};

use crate::bench::{Bench, Failure, equal, port};
use crate::cases::Case;
use crate::spy::{Spy, Value};

use super::{CLOSED, Files};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new("lint_l08_prefix_of_no_agent", prefix_of_no_agent),
    Case::new("lint_l09_error_in_another_scope", error_in_another_scope),
    Case::new("lint_l09_scope_of_the_response", scope_of_the_response),
    Case::new("lint_l09_two_scopes", two_scopes),
    Case::new("lint_l10_name_too_long", name_too_long),
];

const DENY: &str = "var(txn.e2e.score) -m int gt";

fn prefix_of_no_agent(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let _spy = Spy::start(agent, |_| vec![("score", Value::Int32(90))])?;
    let right = Files::right(agent)?;
    for name in ["txn.e_2e.score", "txn.score", "txn.other.score"] {
        let wrong = right.with(DENY, &format!("var({name}) -m int gt"))?;
        let found =
            format!("L08 http-request deny deny_status 403 if {{ var({name}) -m int gt 80 }}");
        wrong.expect(bench, &[&found])?;
        equal("status", wrong.start(bench, "UP")?.status()?, 200)?;
    }
    right.expect(bench, &[])?;
    equal("status, corrected", right.start(bench, "UP")?.status()?, 403)
}

fn error_in_another_scope(bench: &Bench) -> Result<(), Failure> {
    let rule = "    http-request deny deny_status 503 if { var(txn.e2e.error) -m found }\n";
    // Nobody listens there.
    let right = Files::right(port()?)?.with(CLOSED, rule)?;
    let wrong = right.with(rule, &rule.replace("txn", "sess"))?;
    let found = "L09 http-request deny deny_status 503 if { var(sess.e2e.error) -m found }";
    wrong.expect(bench, &[found])?;
    equal("status", wrong.start(bench, "DOWN")?.status()?, 200)?;
    right.expect(bench, &[])?;
    equal("status, corrected", right.start(bench, "DOWN")?.status()?, 503)
}

/// An agent that sets its score in `txn` and in `res`.
fn scope_of_the_response(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let _spy = Spy::serve(agent, AgentConfig::new(), |_, ack| {
        ack.set(Scope::Transaction, "score", 90)?;
        ack.set(Scope::Response, "late", 90)?;
        Ok(())
    })?;
    let right = Files::right(agent)?;
    let wrong = right.with(DENY, "var(res.e2e.late) -m int gt")?;
    let found = "L09 http-request deny deny_status 403 if { var(res.e2e.late) -m int gt 80 }";
    wrong.expect(bench, &[found])?;
    equal("status", wrong.start(bench, "UP")?.status()?, 200)?;
    right.expect(bench, &[])?;
    equal("status, corrected", right.start(bench, "UP")?.status()?, 403)
}

fn two_scopes(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let _spy = Spy::start(agent, |_| vec![("score", Value::Int32(90))])?;
    let right = Files::right(agent)?;
    let wrong = right.with(DENY, "var(req.e2e.score) -m int gt")?;
    // Which of the two is wrong only the agent knows.
    let found = "L09 http-request deny deny_status 503 unless { var(txn.e2e.score) -m found }";
    wrong.expect(bench, &[found])?;
    equal("status", wrong.start(bench, "UP")?.status()?, 200)?;
    right.expect(bench, &[])?;
    equal("status, corrected", right.start(bench, "UP")?.status()?, 403)
}

fn name_too_long(bench: &Bench) -> Result<(), Failure> {
    // With `txn.e2e.` 63 bytes, which is what HAProxy takes.
    let longest = "x".repeat(55);
    let name = |name: &str| -> Result<Files, Failure> {
        let rule = format!(
            "    http-request deny deny_status 503 if {{ var(txn.e2e.{name}) -m found }}\n"
        );
        let option = format!("set-on-error  {name}");
        Files::right(port()?)?.with(CLOSED, &rule)?.with("set-on-error  error", &option)
    };
    let long = format!("{longest}x");
    let wrong = name(&long)?;
    let rule =
        format!("L10 http-request deny deny_status 503 if {{ var(txn.e2e.{long}) -m found }}");
    wrong.expect(bench, &[&rule, &format!("L10 option      set-on-error  {long}")])?;
    equal("status", wrong.start(bench, "DOWN")?.status()?, 200)?;
    let right = name(&longest)?;
    right.expect(bench, &[])?;
    equal("status, corrected", right.start(bench, "DOWN")?.status()?, 503)
}
