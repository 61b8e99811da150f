//! What a request does to the agent that is asked about it. Both ends read it off the request's number.

use std::time::Duration;

/// The text of an injected panic.
pub(crate) const INJECTED: &str = "injected by the soak";

/// How long the agents give a handler.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// What the handler of a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answers at once.
    Plain,
    /// Answers after that time.
    Slow(Duration),
    /// Returns an error.
    Fails,
    /// Panics.
    Panics,
    /// Never answers.
    Hangs,
}

impl Kind {
    /// Of the request with that number.
    pub(crate) fn of(id: u64) -> Self {
        match id % 100 {
            7 | 57 => Self::Fails,
            23 | 73 => Self::Panics,
            41 => Self::Hangs,
            n if n % 5 == 0 => Self::Slow(Duration::from_millis(1 + n / 4)),
            _ => Self::Plain,
        }
    }

    /// Whether the handler gives an answer; if not, HAProxy gets the fallback.
    pub(crate) const fn is_answered(self) -> bool {
        matches!(self, Self::Plain | Self::Slow(_))
    }
}
