//! The gallery of examples, end to end: each agent behind a real HAProxy with the configuration that
//! stands beside it, changed only in its ports and where a case says so.
//!
//! ```text
//! HAPROXY=/path/to/haproxy cargo test -p spop-examples --test gallery [NAME]
//! ```
//!
//! HAProxy is found as in the suite `e2e`; where none can be had every case is reported as ignored, by
//! name, and with `CI=true` as failed. Cases that want Redis take the `redis-server` on the PATH.
//!
//! The agents are the programs of the gallery. They are part of this one, which starts itself again to be
//! one of them: cargo builds no examples for `--test gallery`, and an old one would be tested instead.
#![allow(clippy::duplicate_mod, reason = "the agents are programs, and each has what they share")]

mod agents;
mod cases;
mod h2;
#[path = "../haproxy.rs"]
mod haproxy;
mod site;

use std::env;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::cases::{ALL, Outcome};
use crate::haproxy::{Program, Unpack};

fn main() -> ExitCode {
    if let Some(status) = agents::run() {
        return status;
    }
    let mut arguments = Arguments::from_args();
    // The cases wait far more than they compute.
    arguments.test_threads.get_or_insert(6);

    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = package.parent().unwrap_or(package);
    let unpack = Unpack {
        script: project.join(".ci/get-haproxy.sh"),
        suite: "bookworm".to_owned(),
        directory: project.join("target/haproxy/bookworm"),
    };
    let programs = Program::find_all(Some(&unpack));
    let mut trials = Vec::new();
    for (name, case) in ALL.iter().copied().flatten().copied() {
        match &programs {
            Ok(programs) => {
                for program in programs.iter().cloned() {
                    let name = format!("{}::{name}", program.version);
                    trials.push(Trial::ignorable_test(name, move || match case(&program)? {
                        Outcome::Shown => Ok(Completion::Completed),
                        Outcome::Without(what) => absent(what),
                    }));
                }
            }
            Err(error) => {
                let (reason, missing) =
                    (error.to_string(), error.kind() == io::ErrorKind::NotFound);
                trials.push(Trial::ignorable_test(format!("no-haproxy::{name}"), move || {
                    if missing { absent(reason) } else { Err(reason.into()) }
                }));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Ignored where the machine has not got something, failed where it was promised.
fn absent(what: String) -> Result<Completion, Failed> {
    let promised = env::var("CI").is_ok_and(|ci| ci == "true");
    if promised { Err(what.into()) } else { Ok(Completion::ignored_with(what)) }
}
