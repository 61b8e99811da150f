//! `spop-check` and `spop-send` against agents, and against whatever else may listen there. What
//! needs nobody at the other end is in `transcripts`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]

mod check;
mod documents;
mod other_end;
mod replay;
mod run;
mod send;
