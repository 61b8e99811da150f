//! The cases. Each starts its own HAProxy and its own agent, so all may run at once, in any order.

mod bodies;
mod causes;
mod configuration;
mod crosstalk;
mod documentation;
mod events;
mod explain;
mod fail_closed;
mod faults;
mod fragments;
mod frame_size;
mod lifecycle;
mod lint;
mod payload;
mod pipelining;
mod reload;
mod score;
mod symptoms;
mod tap;
mod values;
mod variables;
mod wedge;

use crate::bench::{Bench, Failure};

pub(crate) use bodies::rows as rows_of_bodies;

/// What a case does.
pub(crate) type Run = fn(&Bench) -> Result<(), Failure>;

/// One case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// The name it is reported by.
    pub(crate) name: &'static str,
    /// Its row in the compatibility table, if it says something about HAProxy; several may share one.
    pub(crate) row: Option<&'static str>,
    /// Its body.
    pub(crate) run: Run,
}

impl Case {
    /// A case that is not in the table.
    const fn new(name: &'static str, run: Run) -> Self {
        Self { name, row: None, run }
    }

    /// A case that the table shows as `row`.
    const fn shown(self, row: &'static str) -> Self {
        Self { row: Some(row), ..self }
    }
}

/// Those in which `ip-reputation` takes part, for each runtime it can be started with.
pub(crate) const FOR_EACH_RUNTIME: &[&[Case]] =
    &[score::CASES, lifecycle::CASES, configuration::CASES, reload::FOR_EACH];

/// Those without it.
pub(crate) const ONCE: &[&[Case]] = &[
    values::CASES,
    variables::CASES,
    events::CASES,
    payload::CASES,
    fragments::CASES,
    frame_size::CASES,
    pipelining::CASES,
    crosstalk::CASES,
    wedge::CASES,
    faults::CASES,
    fail_closed::CASES,
    bodies::CASES,
    causes::CASES,
    reload::CASES,
    configuration::WITHOUT_AGENT,
    documentation::CASES,
    symptoms::CASES,
    tap::CASES,
    explain::CASES,
    lint::NEVER_ASKED,
    lint::ARGUMENTS,
    lint::VARIABLES,
    lint::VERDICTS,
    lint::BACKENDS,
    lint::EXPECTED,
    lint::WELL_FORMED,
];
