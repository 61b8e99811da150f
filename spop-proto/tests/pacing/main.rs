//! Answers never fill the receive buffer of HAProxy >= 3.1: an agent and an engine that stops when its
//! buffer is full, between them a socket, on a virtual clock.
//!
//! - `bursts`: many large answers at once, and which of them wait; `load`: answers all the time
//! - `endings`: what is held back when a connection ends, or its buffers are exchanged
//! - `pair`: both sides and the socket

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "the same first lines in every test of the crate")]

mod bursts;
mod endings;
mod load;
mod pair;
