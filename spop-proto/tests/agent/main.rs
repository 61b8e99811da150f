//! An agent's connection, byte by byte and on a clock that stands still unless told.
//!
//! - `states`: what each frame does in each state; `faults`: what is refused, and with which status
//! - `hello`: handshakes, health checks, connections over the limit
//! - `answers`: each NOTIFY gets exactly one ACK; `actions`: what is in it; `tickets`: later answers
//! - `sizes`, `fragments`, `in_flight`, `overload`, `timeouts`, `idle`, `memory`: each limit, hit
//! - `output`: how it is taken
//! - `shutdown`, `closing`, `goodbyes`: the ways a connection ends
//!
//! ```text
//! cargo test -p spop-proto --test agent [MODULE::]
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from")]

mod actions;
mod answers;
mod closing;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod fragments;
mod goodbyes;
mod hello;
mod idle;
mod in_flight;
mod memory;
mod output;
mod overload;
mod shutdown;
mod sizes;
mod states;
mod support;
mod tickets;
mod timeouts;
