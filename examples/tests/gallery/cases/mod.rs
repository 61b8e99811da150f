//! What is shown of each page.

mod body_inspect;
mod configuration;
mod geoip;
mod jwt_auth;
mod mirror;
mod rate_limit;
mod raw_loop;
mod told;

use std::io;

use crate::haproxy::Program;

/// How a case ended that did not fail.
pub(crate) enum Outcome {
    Shown,
    /// The machine has not got what it takes: this.
    Without(String),
}

/// A case and its name.
pub(crate) type Case = (&'static str, fn(&Program) -> io::Result<Outcome>);

pub(crate) const ALL: &[&[Case]] = &[
    configuration::CASES,
    told::CASES,
    raw_loop::CASES,
    jwt_auth::CASES,
    geoip::CASES,
    body_inspect::CASES,
    mirror::CASES,
    rate_limit::CASES,
];
