//! What HAProxy got.

use core::fmt;

use crate::engine::StreamError;
use crate::wire::{Action, OwnedValue, Scope, Value};

/// What became of a question: the variables HAProxy was told to set, and how the answer came about.
///
/// It prints in HAProxy's words, one variable a line, and after them the outcome unless all went well:
///
/// ```text
/// txn.iprep.ip_score = int32 20
/// sess.iprep.seen unset
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    pub(super) actions: Vec<Done>,
    pub(super) prefix: Option<Box<str>>,
    pub(super) outcome: Outcome,
}

/// An action, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    scope: Scope,
    name: Box<[u8]>,
    /// `None` for `unset-var`.
    value: Option<OwnedValue>,
}

/// How an answer came about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// As the handler wanted.
    Handled,
    /// The handler failed with that error; the answer is the fallback, or has it for that message.
    Error(Box<str>),
    /// The handler panicked with that text; the same.
    Panicked(Box<str>),
    /// The handler waited beyond the deadline; the answer is the fallback.
    Deadline,
    /// An action did not fit the frame. What the answer is then is the handler's choice: `?` makes it
    /// the fallback.
    TooBig,
    /// The answer was not of this question.
    WrongAnswer,
    /// HAProxy got no answer at all; what it would tell its stream.
    Unanswered(StreamError),
    /// HAProxy could not ask: what it, or the configuration, says against the question.
    NotAsked(Box<str>),
}

impl Answer {
    /// The value that a variable has then; `None` where it was not set, or was unset. The name is the
    /// agent's, without scope and prefix.
    #[must_use]
    pub fn get(&self, scope: Scope, name: &str) -> Option<Value<'_>> {
        let same = |done: &&Done| done.scope == scope && *done.name == *name.as_bytes();
        let last = self.actions.iter().rev().find(same)?;
        last.value.as_ref().map(OwnedValue::as_value).filter(|value| !value.is_null())
    }

    /// All actions of the ACK, in order.
    pub fn actions(&self) -> impl Iterator<Item = Action<'_>> {
        self.actions.iter().map(|Done { scope, name, value }| match value {
            Some(value) => Action::SetVar { scope: *scope, name, value: value.as_value() },
            None => Action::UnsetVar { scope: *scope, name },
        })
    }

    /// How it came about.
    #[must_use]
    pub const fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Whether the handler answered, and nothing was refused.
    #[must_use]
    pub const fn is_handled(&self) -> bool {
        matches!(self.outcome, Outcome::Handled)
    }

    /// The text of the error, the panic, or why nothing was asked.
    #[must_use]
    pub const fn error(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Error(text) | Outcome::Panicked(text) | Outcome::NotAsked(text) => Some(text),
            _ => None,
        }
    }
}

impl Done {
    pub(super) fn of(action: &Action<'_>) -> Self {
        let (scope, name) = (action.scope(), action.name().into());
        let value = match action {
            Action::SetVar { value, .. } => Some(value.to_owned()),
            Action::UnsetVar { .. } => None,
        };
        Self { scope, name, value }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Done { scope, name, value } in &self.actions {
            write!(f, "{scope}.")?;
            if let Some(prefix) = &self.prefix {
                write!(f, "{prefix}.")?;
            }
            write!(f, "{}", name.escape_ascii())?;
            match value.as_ref().map(OwnedValue::as_value) {
                None | Some(Value::Null) => writeln!(f, " unset")?,
                Some(value) => {
                    let text = value.to_string();
                    let (kind, value) = text.split_once(':').unwrap_or((&text, ""));
                    writeln!(f, " = {kind} {value}")?;
                }
            }
        }
        match &self.outcome {
            Outcome::Handled => Ok(()),
            outcome => writeln!(f, "{outcome}"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handled => f.write_str("handled"),
            Self::Error(text) => write!(f, "error: {text}"),
            Self::Panicked(text) => write!(f, "panicked: {text}"),
            Self::Deadline => f.write_str("deadline: the handler waited for too long"),
            Self::TooBig => f.write_str("too big: an action did not fit the frame"),
            Self::WrongAnswer => f.write_str("the handler returned another request's exchange"),
            Self::Unanswered(error) => write!(f, "unanswered: HAProxy's stream fails with {error}"),
            Self::NotAsked(text) => write!(f, "not asked: {text}"),
        }
    }
}
