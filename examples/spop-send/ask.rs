//! One question, and what came of it.

use std::fmt;
use std::time::{Duration, Instant};

use spop_proto::wire::Messages;
use spop_proto::{DecodeError, EngineEvent, NotifyError, NotifyId, Outcome, StreamError};

use crate::answer::Answer;
use crate::link::{End, Link};

/// Beyond the time that an answer may take: HAProxy's side then says itself that it is late.
const SLACK: Duration = Duration::from_secs(1);
/// Of a value, that many characters are shown.
const SHOWN: usize = 60;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) enum Unanswered {
    /// HAProxy's stream would get that error.
    Failed(StreamError),
    /// The connection ended.
    Ended(End),
    /// The ACK does not decode.
    Malformed(DecodeError),
    /// Nothing was sent.
    NotAsked(String),
}

impl Unanswered {
    /// The exit status.
    pub(crate) const fn exit(&self) -> u8 {
        match self {
            Self::Failed(StreamError::TIMEOUT) | Self::Ended(End::Timeout) => 5,
            Self::Failed(_) | Self::Ended(_) | Self::Malformed(_) => 6,
            Self::NotAsked(_) => 7,
        }
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(StreamError::TIMEOUT) | Self::Ended(End::Timeout) => {
                f.write_str("no answer in time")
            }
            Self::Failed(error) => write!(f, "no answer: HAProxy's error {error}"),
            Self::Ended(End::Closed) => {
                f.write_str("no answer: the agent closed the connection without a word")
            }
            Self::Ended(End::Goodbye(status, message)) => {
                write!(f, "no answer: the agent disconnected with status {status}")?;
                if message.is_empty() { Ok(()) } else { write!(f, ": \"{message}\"") }
            }
            Self::Ended(End::Broken(error)) => write!(f, "the agent broke the protocol: {error}"),
            Self::Malformed(error) => write!(
                f,
                "the agent broke the protocol: its ACK is not actions from end to end: {error}"
            ),
            Self::NotAsked(reason) => f.write_str(reason),
        }
    }
}

/// Asks; with `previous`, for a further event of the same stream. The id is there if it was sent.
pub(crate) fn ask(
    link: &mut Link,
    previous: Option<(NotifyId, Outcome)>,
    payload: &[u8],
    time: Duration,
) -> (Option<NotifyId>, Result<Answer, Unanswered>) {
    let now = Instant::now();
    let asked = match previous {
        Some((id, outcome)) => link.engine.notify_again(id, outcome, payload, now),
        None => link.engine.notify(payload, now),
    };
    let asked = match asked {
        Ok(id) => id,
        Err(error) => {
            let size = link.engine.info().max_frame_size();
            return (None, Err(Unanswered::NotAsked(not_asked(error, payload.len(), size))));
        }
    };
    let mut result = None;
    let driven = link.drive(now + time + SLACK, |event| {
        match event {
            EngineEvent::Ack { id, actions, .. } if id == asked => {
                let (answer, malformed) = Answer::read(actions);
                result =
                    Some(malformed.map_or(Ok(answer), |error| Err(Unanswered::Malformed(error))));
            }
            EngineEvent::Failed { id, error } if id == asked => {
                result = Some(Err(Unanswered::Failed(error)));
            }
            _ => {}
        }
        result.is_some()
    });
    let result = match (result, driven) {
        // The end says more than the number that comes of it.
        (Some(Err(Unanswered::Failed(_))), _) if link.engine.close_reason().is_some() => {
            Err(Unanswered::Ended(link.end()))
        }
        (Some(result), _) => result,
        (None, Err(end)) => Err(Unanswered::Ended(end)),
        (None, Ok(())) => Err(Unanswered::Ended(End::Timeout)),
    };
    (Some(asked), result)
}

fn not_asked(error: NotifyError, payload: usize, frame: u32) -> String {
    match error {
        NotifyError::TooBig { error } => format!(
            "not asked: the payload has {payload} bytes, and a frame has {frame} with its header. \
             HAProxy from 3.1 on does not ask then: error {error}. Up to 3.0 it sends fragments: \
             --dialect old"
        ),
        NotifyError::NoFragmentation => format!(
            "not asked: the payload has {payload} bytes, a frame has {frame} with its header, and \
             the agent takes no fragments (status 10)"
        ),
        other => format!("not asked: {other}"),
    }
}

/// The messages of a NOTIFY, as they are written in documents: `name(arg=type:value, ..)`.
pub(crate) fn describe(payload: &[u8]) -> String {
    let messages = match Messages::check(payload) {
        Ok(messages) => messages,
        Err(error) => return format!("a payload that does not decode: {error}"),
    };
    let message = |message: spop_proto::Message<'_>| {
        let args = message.args().map(|arg| {
            let value = arg.value.to_string();
            let shown = value.char_indices().nth(SHOWN).and_then(|(end, _)| value.get(..end));
            let shown = shown.map_or_else(|| value.clone(), |shown| format!("{shown}.."));
            match arg.name {
                [] => shown,
                name => format!("{}={shown}", name.escape_ascii()),
            }
        });
        format!("{}({})", message.name().escape_ascii(), args.collect::<Vec<_>>().join(", "))
    };
    messages.map(message).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use spop_proto::wire::NotifyPayload;

    use super::*;

    #[test]
    fn questions_in_words() {
        let long = "x".repeat(100);
        let payload = NotifyPayload::new("m")
            .arg("ip", std::net::Ipv4Addr::LOCALHOST)
            .arg("", 7_i64)
            .message("n")
            .arg("long", &*long);
        assert_eq!(
            describe(payload.as_bytes().unwrap()),
            format!("m(ip=ipv4:127.0.0.1, int64:7) n(long=str:{}..)", "x".repeat(56))
        );
        assert!(describe(b"\x05m").starts_with("a payload that does not decode: "));
    }
}
