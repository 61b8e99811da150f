//! What the agent takes and what it is sent, by `spop-lint --expect` and `--agent`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::cases::Case;
use crate::spy::{Spy, Value};

use super::Files;

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new("lint_l19_argument_not_sent", argument_not_sent),
    Case::new("lint_l20_argument_of_another_type", argument_of_another_type),
    Case::new("lint_asks_an_agent_that_runs", agent_that_runs),
];

/// What an agent says that takes what the right files send.
const TAKES: &str = "message ask
    arg id str = unique-id
    arg body bytes
    arg size int
    arg tag str optional
message more
    arg ip ip = src
";

/// The findings of the files for an agent that takes that.
fn found(bench: &Bench, files: &Files, takes: &str) -> Result<Vec<String>, Failure> {
    let path = bench.write("agent.txt", takes)?;
    files.lint(bench, &["--expect", &path.display().to_string()])
}

/// What the message `more` is sent with.
fn sent(bench: &Bench, files: &Files, spy: &Spy, name: &str) -> Result<Option<Value>, Failure> {
    spy.take();
    equal("status", files.start(bench, "UP")?.status()?, 200)?;
    let seen = spy.take();
    Ok(seen.iter().find(|seen| seen.message == "more").and_then(|seen| seen.arg(name)).cloned())
}

fn argument_not_sent(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let spy = Spy::start(agent, |_| vec![("score", Value::Int32(10))])?;
    let right = Files::right(agent)?;
    equal("nothing", found(bench, &right, TAKES)?, Vec::<String>::new())?;
    let wrong = right.with("args  ip=src", "args  address=src")?;
    wrong.expect(bench, &[])?;
    equal("sent", sent(bench, &wrong, &spy, "ip")?, None)?;
    equal("found", found(bench, &wrong, TAKES)?, ["L19 spoe-message more".to_owned()])?;
    equal(
        "no message",
        found(bench, &right, "message gone\n")?,
        ["L19 spoe-agent e2e".to_owned()],
    )?;
    let ip = Some(Value::Ipv4([127, 0, 0, 1].into()));
    equal("sent by the right ones", sent(bench, &right, &spy, "ip")?, ip)
}

fn argument_of_another_type(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let spy = Spy::start(agent, |_| vec![("score", Value::Int32(10))])?;
    let wrong = Files::right(agent)?.with("args  ip=src", "args  ip=path")?;
    wrong.expect(bench, &[])?;
    equal("sent", sent(bench, &wrong, &spy, "ip")?, Some(Value::Str("/".into())))?;
    equal("found", found(bench, &wrong, TAKES)?, ["L20 args  ip=path".to_owned()])
}

/// `ip-reputation` as its users run it, and its own configuration.
fn agent_that_runs(bench: &Bench) -> Result<(), Failure> {
    let address = port()?;
    let agent = bench.agent(address, &bench.write("list", "10.0.0.0/8 30\n")?)?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("ip-reputation");
    let own = Files {
        web: port()?,
        config: fs::read_to_string(example.join("haproxy.cfg"))?,
        spoe: fs::read_to_string(example.join("spoe.conf"))?,
    };
    let endpoint = address.to_string();
    let found = |files: &Files| files.lint(bench, &["--agent", &endpoint]);
    equal("nothing", found(&own)?, Vec::<String>::new())?;
    let wrong = own.with("args  ip=src", "args  address=src")?;
    equal("without asking", wrong.lint(bench, &[])?, Vec::<String>::new())?;
    equal("found", found(&wrong)?, ["L19 spoe-message check-client-ip".to_owned()])?;
    let wrong = own.with("args  ip=src", "args  ip=path")?;
    equal("found", found(&wrong)?, ["L20 args  ip=path  path=path  id=unique-id".to_owned()])?;
    agent.stop()?;

    // One that does not know what it takes, and one that is gone.
    let closure = Spy::start(address, |_| vec![("score", Value::Int32(10))])?;
    let path = bench.path("haproxy.cfg");
    let ask = || {
        Command::new(env!("CARGO_BIN_EXE_spop-lint"))
            .arg(&path)
            .args(["--agent", &endpoint])
            .output()
    };
    let said = ask()?;
    let text = String::from_utf8(said.stderr)?;
    equal("exit status", said.status.code(), Some(2))?;
    let why = "healthy, and does not say what it takes: it has no `Router`";
    ensure(text.starts_with(&format!("spop-lint: agent {endpoint}: {why}")), || text.clone())?;
    drop(closure);
    let said = ask()?;
    equal("exit status", said.status.code(), Some(2))?;
    let text = String::from_utf8(said.stderr)?;
    ensure(text.contains("connection refused: nothing listens there"), || text.clone())
}
