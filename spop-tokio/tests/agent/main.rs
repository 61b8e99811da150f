//! The adapter over real sockets and in-memory streams, asked by HAProxy's side of the protocol.
//!
//! - `answers`: handlers and what becomes of them
//! - `connections`: health checks, and connections over the limit; `stopping`: how they end
//! - `sockets`: where it listens, and what it accepts; `streams`: in memory
//! - `fairness`: what one peer leaves to others

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod answers;
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod fairness;
mod sockets;
mod stopping;
mod streams;
mod support;
