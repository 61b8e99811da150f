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
//! What agents say without a HAProxy, in [`pages`], is tried in any case.
//!
//! The agents are the programs of the gallery. They are part of this one, which starts itself again to be
//! one of them: cargo builds no examples for `--test gallery`, and an old one would be tested instead.
#![allow(clippy::duplicate_mod, reason = "the agents are programs, and each has what they share")]

mod agents;
mod cases;
mod h2;
#[path = "../haproxy.rs"]
mod haproxy;
mod pages;
#[path = "../shared/programs.rs"]
mod programs;
mod site;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

use crate::cases::{ALL, Outcome};

fn main() -> ExitCode {
    if let Some(status) = agents::run() {
        return status;
    }
    let mut arguments = Arguments::from_args();
    // The cases wait far more than they compute.
    arguments.test_threads.get_or_insert(6);

    let programs = programs::find_all();
    let mut trials = pages::trials();
    for (name, case) in ALL.iter().copied().flatten().copied() {
        match &programs {
            Ok(programs) => {
                for program in programs.iter().cloned() {
                    let name = format!("{}::{name}", program.version);
                    trials.push(Trial::ignorable_test(name, move || match case(&program)? {
                        Outcome::Shown => Ok(Completion::Completed),
                        Outcome::Without(what) => programs::absent(what),
                    }));
                }
            }
            Err(error) => trials.push(programs::not_found(error, name)),
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
