//! Names of variables: checked here, because HAProxy drops a wrong one without a word.

use thiserror::Error;

use crate::Scope;
use crate::wire::NAME_BYTES_MAX;

/// A variable an agent sets: a scope and a name HAProxy will take.
///
/// As a constant the name is checked by the compiler:
///
/// ```
/// use spop_proto::Var;
///
/// const IP_SCORE: Var<'_> = Var::transaction("ip_score");
/// ```
///
/// ```compile_fail
/// use spop_proto::Var;
///
/// const IP_SCORE: Var<'_> = Var::transaction("ip-score");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Var<'a> {
    scope: Scope,
    name: &'a str,
}

impl<'a> Var<'a> {
    /// A variable whose name is known at run time only.
    ///
    /// # Errors
    /// When HAProxy would drop the name.
    pub fn new(scope: Scope, name: &'a str) -> Result<Self, NameError> {
        check_name(scope, name.as_bytes(), None)?;
        Ok(Self { scope, name })
    }

    /// A variable of the request and its response (`txn`).
    ///
    /// # Panics
    /// On a name HAProxy would drop; in a constant that is an error of the compiler. For names
    /// that are not literals use [`new`](Self::new).
    #[must_use]
    pub const fn transaction(name: &'a str) -> Self {
        Self::constant(Scope::Transaction, name)
    }

    /// A variable of the client's connection (`sess`).
    ///
    /// # Panics
    /// As [`transaction`](Self::transaction).
    #[must_use]
    pub const fn session(name: &'a str) -> Self {
        Self::constant(Scope::Session, name)
    }

    /// A variable of the request (`req`).
    ///
    /// # Panics
    /// As [`transaction`](Self::transaction).
    #[must_use]
    pub const fn request(name: &'a str) -> Self {
        Self::constant(Scope::Request, name)
    }

    /// A variable of the response (`res`).
    ///
    /// # Panics
    /// As [`transaction`](Self::transaction).
    #[must_use]
    pub const fn response(name: &'a str) -> Self {
        Self::constant(Scope::Response, name)
    }

    /// A variable of the process (`proc`).
    ///
    /// # Panics
    /// As [`transaction`](Self::transaction).
    #[must_use]
    pub const fn process(name: &'a str) -> Self {
        Self::constant(Scope::Process, name)
    }

    #[expect(clippy::panic, reason = "meant for constants, where it stops the compiler")]
    const fn constant(scope: Scope, name: &'a str) -> Self {
        if let Some(fault) = fault(scope, name.as_bytes(), None) {
            panic!("{}", fault.text());
        }
        Self { scope, name }
    }

    /// Checks what could not be known when the name was: the length of HAProxy's prefix.
    #[inline]
    pub(crate) fn check_length(&self, prefix: Option<usize>) -> Result<(), NameError> {
        if is_too_long(self.scope, self.name.as_bytes(), prefix.unwrap_or(1)) {
            return Err(name_error(self.scope.as_str(), self.name.as_bytes(), Fault::Long));
        }
        Ok(())
    }

    /// The scope.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// The name, without scope and prefix.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }
}

/// A name HAProxy would drop, or refuse, without telling the agent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[error("variable name `{name}` in scope {scope}: {reason}")]
pub struct NameError {
    name: Box<str>,
    scope: &'static str,
    reason: &'static str,
}

#[derive(Clone, Copy)]
enum Fault {
    Empty,
    Character,
    Long,
}

impl Fault {
    const fn text(self) -> &'static str {
        match self {
            Self::Empty => "a name has at least one character",
            Self::Character => "HAProxy takes only A-Z a-z 0-9 _ . and drops others silently",
            Self::Long => "HAProxy drops names whose scope, prefix and name exceed 63 bytes",
        }
    }
}

/// Judges a name. Without a known prefix the shortest possible one, of one byte, is assumed.
const fn fault(scope: Scope, name: &[u8], prefix: Option<usize>) -> Option<Fault> {
    let prefix = match prefix {
        Some(len) => len,
        None => 1,
    };
    if name.is_empty() {
        return Some(Fault::Empty);
    }
    if !allowed(name) {
        return Some(Fault::Character);
    }
    if is_too_long(scope, name, prefix) {
        return Some(Fault::Long);
    }
    None
}

const fn is_too_long(scope: Scope, name: &[u8], prefix: usize) -> bool {
    scope.as_str().len() + 1 + prefix + 1 + name.len() > NAME_BYTES_MAX
}

/// Whether HAProxy takes a character in a name.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time only")]
const ALLOWED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
        byte += 1;
    }
    table
};

#[expect(clippy::indexing_slicing, reason = "a table of 256 has a place for every byte")]
const fn allowed(name: &[u8]) -> bool {
    let mut rest = name;
    while let [byte, tail @ ..] = rest {
        if !ALLOWED[*byte as usize] {
            return false;
        }
        rest = tail;
    }
    true
}

#[inline]
pub(crate) fn check_name(
    scope: Scope,
    name: &[u8],
    prefix: Option<usize>,
) -> Result<(), NameError> {
    match fault(scope, name, prefix) {
        None => Ok(()),
        Some(fault) => Err(name_error(scope.as_str(), name, fault)),
    }
}

pub(crate) fn check_prefix(prefix: &str) -> Result<(), NameError> {
    if prefix.is_empty() {
        Err(name_error("(prefix)", prefix.as_bytes(), Fault::Empty))
    } else if !allowed(prefix.as_bytes()) {
        Err(name_error("(prefix)", prefix.as_bytes(), Fault::Character))
    } else {
        Ok(())
    }
}

#[cold]
fn name_error(scope: &'static str, name: &[u8], fault: Fault) -> NameError {
    let name = name.escape_ascii().to_string().into_boxed_str();
    NameError { name, scope, reason: fault.text() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_three_bytes_with_scope_and_prefix() {
        let name = |len: usize| "n".repeat(len);
        let ok = |scope, len, prefix| check_name(scope, name(len).as_bytes(), prefix).is_ok();
        // `txn.` + `iprep.` leave 53, `sess.` one less.
        assert!(ok(Scope::Transaction, 53, Some(5)));
        assert!(!ok(Scope::Transaction, 54, Some(5)));
        assert!(ok(Scope::Session, 52, Some(5)));
        assert!(!ok(Scope::Session, 53, Some(5)));
        // With an unknown prefix only what no prefix could make fit is refused.
        assert!(ok(Scope::Transaction, 57, None));
        assert!(!ok(Scope::Transaction, 58, None));
    }

    #[test]
    fn characters() {
        for good in ["a", "A.b_9", "..", "_"] {
            assert!(Var::new(Scope::Request, good).is_ok(), "{good}");
        }
        for bad in ["", "a-b", "a b", "ä", "a\0"] {
            assert!(Var::new(Scope::Request, bad).is_err(), "{bad}");
        }
        assert_eq!(
            Var::new(Scope::Transaction, "ip-score").unwrap_err().to_string(),
            "variable name `ip-score` in scope txn: HAProxy takes only A-Z a-z 0-9 _ . and drops \
             others silently"
        );
    }
}
