//! What is encoded decodes to itself, no bytes make a decoder panic, and where a stream is cut into
//! reads changes nothing.
//!
//! - `naive`: the wire written a second time, as the manual draws it, and what to write and read
//! - `encoded`: there and back; `any_bytes`: what decodes at all
//! - `cuts`: where a stream is cut

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from; captures are files")]

mod any_bytes;
#[path = "../common/mod.rs"]
mod common;
mod cuts;
mod encoded;
mod naive;
