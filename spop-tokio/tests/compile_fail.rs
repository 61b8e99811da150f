//! Handlers with a wrong signature meet an error that says what is wanted.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

#[path = "../../spop-proto/tests/common/wrong_code.rs"]
mod wrong_code;

#[test]
fn wrong_handlers_are_told_what_is_wanted() {
    wrong_code::compare();
}
