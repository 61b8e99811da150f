//! Hostile bytes for `spop-proto`: what the fuzz targets run, as functions of their input.
//!
//! Each target is a module with a `run(&[u8])` that panics when something claimed of the crate is not
//! true. They run under libFuzzer (`fuzz_targets/`), and over the seeds as ordinary tests (`tests/`).

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod agent;
pub mod compare;
pub mod differ;
pub mod driver;
pub mod engine;
pub mod hello;
pub mod naive;
pub mod output;
pub mod pair;
pub mod rig;
pub mod roundtrip;
pub mod script;
pub mod seeds;
pub mod settings;

/// A target: what it does with an input.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("agent", agent::run),
    ("engine", engine::run),
    ("naive", differ::run),
    ("roundtrip", roundtrip::run),
    ("pair", pair::run),
    ("driver", driver::run),
    ("hello", hello::run),
];
