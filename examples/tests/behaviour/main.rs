//! One list of behaviours, written once, that every adapter has to show: over real sockets, with
//! HAProxy's side played by `EngineConnection`, or by hand where HAProxy would not do such a thing.
//!
//! ```text
//! cargo test -p spop-examples --test behaviour [NAME]
//! ```
//!
//! Trials are named `<adapter>::<behaviour>::<mode>`. Nothing here waits in the hope that something
//! has happened by then: handlers stop at a gate and are counted there, what the agent noticed is
//! seen in what it says, and everything that waits fails after ten seconds.
//!
//! - `adapter`: what an adapter says of itself; `adapters`: the adapters, one file each
//! - `behaviours`: what is expected of them
//! - `bench`: what a behaviour is given; `script`: the handler; `gate`: where handlers wait
//! - `client`: HAProxy's side; `wire`: bytes by hand; `stream`: the sockets below both; `tls`
//! - `log`: what agents log
//! - `child`: an agent in a process of its own, to run out of file descriptors
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test: a panic is its way to fail"
)]

mod adapter;
mod adapters;
mod behaviours;
mod bench;
mod child;
mod client;
mod gate;
mod log;
mod script;
mod stream;
mod tls;
mod wire;

use std::panic;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Trial};

use crate::adapter::{Adapter, Mode};
use crate::behaviours::Behaviour;
use crate::bench::Bench;

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if let Some(code) = child::main() {
        return code;
    }
    be_quiet_about_panics_on_purpose();
    log::keep();
    let mut arguments = Arguments::from_args();
    // The trials wait far more than they compute.
    arguments.test_threads.get_or_insert(8);

    let mut trials = Vec::new();
    for adapter in adapters::ALL.iter().copied() {
        for behaviour in behaviours::ALL {
            let modes = adapter.modes().iter().filter(|mode| behaviour.is_seen_in(**mode));
            trials.extend(modes.map(|mode| trial(adapter, *mode, behaviour)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(adapter: &'static dyn Adapter, mode: Mode, behaviour: &'static Behaviour) -> Trial {
    let name = format!("{}::{}::{mode}", adapter.name(), behaviour.name);
    let cannot = behaviour.cannot().or_else(|| adapter.cannot(behaviour.name, mode));
    Trial::ignorable_test(name, move || {
        if let Some(reason) = cannot {
            return Ok(Completion::ignored_with(reason));
        }
        (behaviour.run)(&Bench::new(adapter, mode));
        Ok(Completion::Completed)
    })
}

fn be_quiet_about_panics_on_purpose() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref() != Some(&script::ON_PURPOSE) {
            tell(info);
        }
    }));
}
