//! The files of all pages, as they are in the repository.

use std::fs;
use std::io;

use super::{Case, Outcome};
use crate::agents::Agent;
use crate::haproxy::Program;
use crate::pages::PAGES;
use crate::site::shipped;

pub(super) const CASES: &[Case] =
    &[("configurations_are_accepted", accepted), ("pages_name_what_there_is", named)];

/// Without a warning, and in the place where they are.
fn accepted(program: &Program) -> io::Result<Outcome> {
    for page in PAGES {
        let said = program.warnings(&shipped(page, "haproxy.cfg"))?;
        assert_eq!(said, "", "warnings of HAProxy about {page}");
    }
    Ok(Outcome::Shown)
}

/// Options that a page names are in the agent's help, and variables in its source.
fn named(_: &Program) -> io::Result<Outcome> {
    for page in PAGES {
        let text = fs::read_to_string(shipped(page, "README.md"))?;
        let (help, source) = (Agent::help(page)?, fs::read_to_string(shipped(page, "main.rs"))?);
        assert!(text.contains(&format!("--example {page}")), "{page}: how to start it");
        let of_agent = text.lines().filter(|line| !line.starts_with("curl"));
        for word in of_agent.flat_map(str::split_whitespace) {
            let option = word.trim_matches(['`', '(', ')', ',', '.', ';']);
            let named =
                option.strip_prefix("--").is_some_and(|name| name.contains(char::is_alphabetic));
            if named && option != "--example" {
                assert!(help.contains(option), "{page}: {option} is not in:\n{help}");
            }
        }
        for variable in text.split("| `txn.").skip(1) {
            let name = variable.split('`').next().unwrap_or_default().rsplit('.').next();
            let name = format!("Var::transaction(\"{}\")", name.unwrap_or_default());
            assert!(source.contains(&name), "{page}: {name}");
        }
    }
    Ok(Outcome::Shown)
}
