//! Compares what the compiler says of wrong code with what is written down beside that.
//!
//! The expected texts are those of one release of rustc, and only there they are compared. After an
//! update write them anew with `TRYBUILD=overwrite cargo test -p PACKAGE --test compile_fail`, for each
//! package that has such a test, and read the difference.

use std::process::Command;

const RELEASE: &str = "rustc 1.95.";

/// What is in `tests/compile_fail` of the package.
pub(crate) fn compare() {
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
