//! Wrong code meets an error that says what to write instead.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "a test"
)]

#[path = "common/wrong_code.rs"]
mod wrong_code;

#[test]
fn wrong_code_is_told_the_remedy() {
    wrong_code::compare();
}
