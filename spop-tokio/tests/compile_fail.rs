//! Handlers with a wrong signature meet an error that says what is wanted.
//!
//! The expected texts are those of one release of rustc, and only there they are compared. After an
//! update write them anew with `TRYBUILD=overwrite cargo test -p spop-tokio --test compile_fail` and
//! read the difference.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::process::Command;

const RELEASE: &str = "rustc 1.95.";

#[test]
fn wrong_handlers_are_told_what_is_wanted() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    if !version.starts_with(RELEASE) {
        println!("not compared: the texts are those of {RELEASE}x, this is {version}");
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}
