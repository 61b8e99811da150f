//! The HAProxy that tests run with, and what becomes of a test that lacks it.

use std::path::Path;
use std::{env, io};

use libtest_mimic::{Completion, Failed, Trial};

use crate::haproxy::{Program, Unpack};

/// All that `$HAPROXY` names, else the one on the PATH, else Debian's, unpacked below `target/`.
pub(crate) fn find_all() -> io::Result<Vec<Program>> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = package.parent().unwrap_or(package);
    Program::find_all(Some(&Unpack {
        script: project.join(".ci/get-haproxy.sh"),
        suite: "bookworm".to_owned(),
        directory: project.join("target/haproxy/bookworm"),
    }))
}

/// In place of a test, where [`find_all`] failed. A `$HAPROXY` that does not run is a failure:
/// whoever set it wants that one and no other.
pub(crate) fn not_found(error: &io::Error, name: &str) -> Trial {
    let (reason, none) = (error.to_string(), error.kind() == io::ErrorKind::NotFound);
    Trial::ignorable_test(format!("no-haproxy::{name}"), move || {
        if none { absent(reason) } else { Err(reason.into()) }
    })
}

/// Ignored where the machine has not got something, failed where it was promised.
pub(crate) fn absent(what: String) -> Result<Completion, Failed> {
    let promised = env::var("CI").is_ok_and(|ci| ci == "true");
    if promised { Err(what.into()) } else { Ok(Completion::ignored_with(what)) }
}
