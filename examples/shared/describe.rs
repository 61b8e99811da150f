//! Asks an agent that runs what it takes.

use std::fmt;
use std::time::Duration;

use spop_proto::{Description, Dialect, Endpoint, EngineConfig};

use crate::link::{Failure, Link};

/// What is offered, and so the longest description: as much as an agent takes by default.
const MAX_FRAME_SIZE: u32 = 1 << 20;

/// What an agent said of itself.
#[derive(Debug)]
pub(crate) struct Described {
    /// As it came: lines of text.
    #[allow(dead_code, reason = "who compares does not print")]
    pub(crate) text: String,
    /// The same, read.
    #[allow(dead_code, reason = "who prints does not compare")]
    pub(crate) description: Description,
}

/// Why it is not known what an agent takes.
#[derive(Debug)]
pub(crate) enum NotDescribed {
    /// It could not be asked.
    Failure(Failure),
    /// It shook hands and said nothing; the frame size that was agreed on.
    Nothing(u32),
    /// What it said is no description.
    Wrong(String),
}

/// Asks by a health check, after which the agent closes: nothing else becomes of the connection. It takes
/// at most `time`.
pub(crate) fn ask(agent: &Endpoint, time: Duration) -> Result<Described, NotDescribed> {
    let config = EngineConfig::new(Dialect::Old)
        .max_frame_size(MAX_FRAME_SIZE)
        .map_err(|error| NotDescribed::Failure(Failure::Wrong(error.to_string())))?
        .health_check()
        .describe(true);
    let (link, agreed) = Link::open(agent, config, time).map_err(NotDescribed::Failure)?;
    let said = link.engine.description().ok_or(NotDescribed::Nothing(agreed.max_frame_size))?;
    read(said).map_err(NotDescribed::Wrong)
}

/// An agent's text is a stranger's: it may be printed to a terminal.
fn read(said: &[u8]) -> Result<Described, String> {
    let text = str::from_utf8(said).map_err(|error| error.to_string())?;
    if let Some(sign) = text.chars().find(|&sign| sign.is_control() && sign != '\n') {
        return Err(format!("there is a {} in it", sign.escape_default()));
    }
    let description: Description = text.parse().map_err(|error| format!("{error}"))?;
    if description.messages().next().is_none() {
        return Err("it names no message".to_owned());
    }
    Ok(Described { text: text.to_owned(), description })
}

impl fmt::Display for NotDescribed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failure(failure) => failure.fmt(f),
            Self::Nothing(size) => write!(
                f,
                "healthy, and does not say what it takes: it has no `Router` of this library and no \
                 `AgentConfig::description`, or its description does not fit the frame of {size} bytes \
                 agreed on"
            ),
            Self::Wrong(reason) => write!(f, "what it says it takes is no description: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_description() {
        let refused = |said: &[u8]| read(said).map(|_| ()).unwrap_err();
        assert_eq!(refused(b"message \x1b[2J"), "there is a \\u{1b} in it");
        assert_eq!(refused(b"message a\r\n"), "there is a \\r in it");
        assert_eq!(refused(b"message \xff"), "invalid utf-8 sequence of 1 bytes from index 8");
        assert_eq!(
            refused(b"message a\narg x y"),
            "line 2: `y` is no type: write any, bool, int, ip, ipv4, ipv6, str or bytes"
        );
        assert_eq!(refused(b"# nothing\n"), "it names no message");
        assert_eq!(read(b"message a\n").unwrap().text, "message a\n");
    }
}
