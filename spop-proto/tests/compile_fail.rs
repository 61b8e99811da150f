//! Wrong code meets an error that says what to write instead.
//!
//! The expected texts are those of one release of rustc, and only there they are compared. After an
//! update write them anew with `TRYBUILD=overwrite cargo test -p spop-proto --test compile_fail` and
//! read the difference.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "a test"
)]

use std::process::Command;

const RELEASE: &str = "rustc 1.95.";

#[test]
fn wrong_code_is_told_the_remedy() {
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
