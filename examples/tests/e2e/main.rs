//! End to end: a real HAProxy asks a real agent about real HTTP requests, and what is checked is
//! what HAProxy did with the answers.
//!
//! HAProxy is `$HAPROXY`, else the one on the PATH, else Debian's, unpacked below `target/` by
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
//! - `site`: the configuration most cases share, and clients for it
//! - `load`: clients that do not stop while something happens to the agent
//! - `cases`: the cases themselves

mod agent;
mod bench;
mod cases;
#[path = "../haproxy.rs"]
mod haproxy;
mod load;
mod site;
mod spy;

use std::env;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::agent::Runtime;
use crate::bench::Bench;
use crate::cases::{Case, FOR_EACH_RUNTIME, ONCE};
use crate::haproxy::{Program, Unpack};

fn main() -> ExitCode {
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
    let programs = [Program::find(Some(&unpack))];

    let mut trials = Vec::new();
    for program in programs {
        let mut add = |name: &str, runtime, case| {
            trials.push(match &program {
                Ok(program) => trial(program.clone(), name, runtime, case),
                Err(error) => absent(error, name),
            });
        };
        for runtime in Runtime::ALL {
            for (name, case) in FOR_EACH_RUNTIME {
                add(&format!("{}::{name}", runtime.name()), runtime, *case);
            }
        }
        for (name, case) in ONCE {
            add(name, Runtime::Tokio, *case);
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(program: Program, name: &str, runtime: Runtime, case: Case) -> Trial {
    let name = format!("{}::{name}", program.version);
    Trial::test(name, move || Bench::run(program, runtime, case).map_err(Failed::from))
}

/// A case without an HAProxy: ignored where the machine has none, failed where one was promised.
fn absent(error: &io::Error, name: &str) -> Trial {
    let reason = error.to_string();
    let promised =
        error.kind() != io::ErrorKind::NotFound || env::var("CI").is_ok_and(|ci| ci == "true");
    Trial::ignorable_test(format!("no-haproxy::{name}"), move || {
        if promised { Err(Failed::from(reason)) } else { Ok(Completion::ignored_with(reason)) }
    })
}
