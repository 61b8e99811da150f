//! What numbers mean. The page `haproxy-versions.md` has the same as a table.

use std::fmt;

use spop_proto::Status;

use crate::line::Engine;

/// An explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// One line.
    pub(crate) what: String,
    /// The likely causes, the likeliest first.
    pub(crate) likely: &'static [&'static str],
    /// Where to look.
    pub(crate) next: &'static str,
}

impl Meaning {
    fn new(what: &str, likely: &'static [&'static str], next: &'static str) -> Self {
        Self { what: what.to_owned(), likely, next }
    }

    /// Of an error of HAProxy: `st=` in its log, the value of `set-on-error`. Without an engine, of both.
    pub(crate) fn of(error: u32, engine: Option<Engine>) -> Self {
        match (error, engine) {
            (0, _) => Self::new(
                "no error: the agent has answered",
                &[],
                "whether the answer has the variable that the rules read: spop-lint",
            ),
            (1, _) => Self::new(
                "no answer within `timeout processing`",
                TIMEOUT,
                "the agent's own log and latency; `show servers state` of HAProxy",
            ),
            (2, Some(Engine::New)) => Self::new(
                "HAProxy has no memory left for it",
                &[],
                "the memory of HAProxy; `show pools`",
            ),
            (2, _) => Self::new(
                "no server of the agents' backend is UP (up to 3.0), or no memory",
                DOWN,
                "`show servers state`; spop-check or the agent's log",
            ),
            (3, _) => Self::new(
                "the messages do not fit a frame: the agent was not asked",
                LARGE,
                "the sizes of the arguments; `tune.bufsize`, `max-frame-size`",
            ),
            (4, Some(Engine::New)) => Self::unknown(error),
            (4, _) => Self::new(
                "the agent refused a message in fragments (up to 3.0)",
                &["a payload above the agent's limit"],
                "the agent's log; its limit for payloads",
            ),
            (5, _) => Self::new(
                "HAProxy gave the event up",
                &["the client has left"],
                "nothing, unless there are many",
            ),
            (255, _) => {
                Self::new("HAProxy itself does not know", &[], "HAProxy's log of the same second")
            }
            (256, _) => Self::new(
                "256 + 0: the connection was ended without an error before the answer came",
                ENDED,
                "whether agent or HAProxy was restarted; `timeout idle` of the spoe-agent",
            ),
            (257, _) => Self::new(
                "256 + 1: the connection to the agent failed, or was lost while the answer was owed",
                LOST,
                "`show servers state`; whether the agent was restarted without a drain; `timeout server`",
            ),
            (258.., _) => {
                let status = error - 256;
                let named = of_disconnect(status);
                Self { what: format!("256 + {status}: {}", named.what), ..named }
            }
            _ => Self::unknown(error),
        }
    }

    fn unknown(error: u32) -> Self {
        Self::new(
            &format!("{error} is no error that HAProxy sets there"),
            &[],
            "where the number comes from",
        )
    }
}

const TIMEOUT: &[&str] = &[
    "the agent is slower than that: its deadline for answers must be shorter",
    "the agent is not running and not yet DOWN: option spop-check",
    "the agent accepts connections and does not speak SPOP, or refuses HAProxy's HELLO",
    "from 3.1 on: the agent broke the protocol, or large answers filled HAProxy's buffer",
];
const DOWN: &[&str] = &["the agent is not running", "it fails its health checks"];
const LARGE: &[&str] =
    &["a body or all headers as an argument", "`max-frame-size` set below tune.bufsize - 4"];
const ENDED: &[&str] = &[
    "a reload or a stop of HAProxy",
    "`timeout idle` of the spoe-agent (up to 3.0), which runs while an answer is owed",
    "the agent said goodbye with status 0 while it owed an answer",
];
const LOST: &[&str] = &[
    "the agent is not running (from 3.1 on: also when all servers are DOWN)",
    "the agent was restarted without a drain, or died",
    "`timeout server` of the agents' backend is not above `timeout processing`",
    "something else listens there: HTTP, TLS",
];

/// Of the status of a DISCONNECT frame.
pub(crate) fn of_disconnect(status: u32) -> Meaning {
    let (likely, next): (&'static [&'static str], _) = match status {
        0 => (&["a reload, a stop, or a drain"], "nothing, if no request failed"),
        1 => (LOST, "the network between both, and whether one was restarted"),
        2 => (
            &["`timeout idle` or `timeout hello` of the spoe-agent", "a peer that stands still"],
            "the timeouts of both sides",
        ),
        3 => (
            &[
                "an answer above max-frame-size",
                "an agent whose frames are smaller than HAProxy's",
                "something that does not speak SPOP",
            ],
            "the sizes in both HELLO frames",
        ),
        4 => (
            &["an error in the agent's encoding", "something that does not speak SPOP"],
            "a capture of the connection",
        ),
        5..=8 => {
            (&["the agent's HELLO lacks a field or has a wrong one"], "the agent's HELLO frame")
        }
        9 => (
            &["the agent's HELLO has a larger max-frame-size than HAProxy's"],
            "the sizes in both HELLO frames",
        ),
        10 => (
            &[
                "a payload larger than a frame, for an agent that takes no fragments (up to 3.0)",
                "a frame of the agent without FIN",
            ],
            "fragmentation in the agent; `no option send-frag-payload`",
        ),
        11 => (&["fragments of two messages mixed"], "a capture of the connection"),
        12 => {
            (&["an answer with ids that nobody waits for"], "the agent's answers after a timeout")
        }
        13 => (&["no memory, or too many connections"], "limits of both sides"),
        _ => (&["an error within the agent: it chose the number"], "the agent's log"),
    };
    let text = Status(status)
        .text()
        .map_or_else(|| "a status of the agent's own".to_owned(), str::to_owned);
    Meaning { what: format!("status {status} of the protocol, {text}"), likely, next }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        for (number, cause) in (1..).zip(self.likely) {
            writeln!(f, "likely {number}: {cause}")?;
        }
        writeln!(f, "look at: {}", self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_meaning() {
        for engine in [None, Some(Engine::Old), Some(Engine::New)] {
            for error in (0..800).chain([u32::MAX]) {
                let meaning = Meaning::of(error, engine);
                assert!(!meaning.what.is_empty() && !meaning.next.is_empty(), "{error}");
            }
        }
        assert!(Meaning::of(355, None).what.starts_with("256 + 99: status 99 of the protocol"));
        assert!(Meaning::of(17, None).what.contains("no error that HAProxy sets"));
        assert_ne!(Meaning::of(2, Some(Engine::Old)), Meaning::of(2, Some(Engine::New)));
    }
}
