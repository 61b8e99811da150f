//! End to end: a real HAProxy asks a real agent about real HTTP requests, and what is checked is
//! what HAProxy did with the answers.
//!
//! HAProxy is `$HAPROXY` (one, or several separated by colons), else the one on the PATH, else Debian's, unpacked below `target/` by
//! `.ci/get-haproxy.sh`. Where none can be had, every case is reported as ignored, by name and with
//! the reason; with `CI=true` that is a failure, because there it would hide that nothing was tested.
//!
//! ```text
//! HAPROXY=/path/to/haproxy cargo test -p spop-examples --test e2e [NAME]
//! ```
//!
//! A case in which `ip-reputation` takes part is run for each runtime it can be started with, and is
//! reported as `VERSION::RUNTIME::CASE`; the others run once, as `VERSION::CASE`.
//!
//! - `bench`: what a case is given, and how its failures are told
//! - `agent`: the program `ip-reputation` as a child process
//! - `spy`: an agent in this process, which shows what it received
//! - `raw`: an agent written by hand, for what the library never does
//! - `site`: the configuration most cases share, and clients for it
//! - `load`: clients that do not stop while something happens to the agent
//! - `cases`: the cases themselves
//! - `compatibility`: the tables in README and `bodies.md`, written from what the cases found
//!
//! A whole run that passed writes README's table to `target/compatibility.md`, and fails where README's is
//! another one; a run with the case `bodies_that_reach_an_agent` does so with `target/bodies.md`.

mod agent;
mod bench;
mod cases;
mod compatibility;
#[path = "../haproxy.rs"]
mod haproxy;
mod load;
#[path = "../shared/programs.rs"]
mod programs;
mod raw;
mod site;
mod spy;

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use crate::agent::Runtime;
use crate::bench::Bench;
use crate::cases::{Case, FOR_EACH_RUNTIME, ONCE, rows_of_bodies};
use crate::compatibility::{BODIES, Findings, README};
use crate::haproxy::Program;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The cases wait far more than they compute.
    arguments.test_threads.get_or_insert(6);

    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = package.parent().unwrap_or(package);
    let (programs, error) = match programs::find_all() {
        Ok(programs) => (programs, None),
        Err(error) => (Vec::new(), Some(error)),
    };

    let (findings, cells) = (Findings::default(), Findings::default());
    let mut trials = Vec::new();
    for (name, runtime, case) in runs() {
        if let Some(error) = &error {
            trials.push(programs::not_found(error, &name));
        }
        for program in &programs {
            trials.push(trial(program.clone(), &name, runtime, case, [&findings, &cells]));
        }
    }
    let whole = arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    if whole && !programs.is_empty() && !conclusion.has_failed() {
        let mut rows: Vec<_> = runs().filter_map(|(_, _, case)| case.row).collect();
        let mut seen = HashSet::new();
        rows.retain(|row| seen.insert(*row));
        if let Err(error) = compatibility::publish(&README, &findings, &rows, project) {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    // One case finds out all of it.
    if !cells.is_empty()
        && !conclusion.has_failed()
        && let Err(error) = compatibility::publish(&BODIES, &cells, &rows_of_bodies(), project)
    {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Every case with the runtimes it is for, and its name with that of the runtime.
fn runs() -> impl Iterator<Item = (String, Runtime, Case)> {
    let with_agent = Runtime::ALL.into_iter().flat_map(|runtime| {
        let cases = FOR_EACH_RUNTIME.iter().copied().flatten();
        cases.map(move |case| (format!("{}::{}", runtime.name(), case.name), runtime, *case))
    });
    let once = ONCE.iter().copied().flatten();
    with_agent.chain(once.map(|case| (case.name.to_owned(), Runtime::Tokio, *case)))
}

fn trial(
    program: Program,
    name: &str,
    runtime: Runtime,
    case: Case,
    findings: [&Findings; 2],
) -> Trial {
    let name = format!("{}::{name}", program.version);
    let [findings, of_bodies] = findings.map(Findings::clone);
    Trial::test(name, move || {
        let version = program.version.clone();
        let found = Bench::run(program, runtime, case.run)?;
        if let Some(row) = case.row {
            findings.add(&version, row, found.verdict.text());
        }
        for (row, text) in found.cells {
            of_bodies.add(&version, row, text);
        }
        Ok(())
    })
}
