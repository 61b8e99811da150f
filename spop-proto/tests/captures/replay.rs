//! Captures of HAProxy's side through an `AgentConnection`, and what the index lets one expect.

use std::time::Instant;

use spop_proto::{
    AbandonedBy, AgentConfig, AgentConnection, ConnectionStats, Event, Peer, Scope, Value,
};

use super::text;

/// What a connection made of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replay {
    events: Vec<Seen>,
    output: Vec<u8>,
    close_reason: String,
    stats: ConnectionStats,
}

/// An event, or an error. The payloads become text where the text is wanted: thousands of replays
/// are only compared with each other.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Notify { stream_id: u64, frame_id: u64, payload: Vec<u8> },
    Other(String),
}

impl Seen {
    fn text(&self) -> String {
        match self {
            Self::Notify { stream_id, frame_id, payload } => {
                format!("notify sid={stream_id} fid={frame_id} {}", text::messages(payload))
            }
            Self::Other(text) => text.clone(),
        }
    }
}

impl Replay {
    /// A new connection gets the chunks one by one and answers each NOTIFY with one variable.
    pub(crate) fn of<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let now = Instant::now();
        let mut connection = AgentConnection::new(AgentConfig::new(), Peer::Unknown, now);
        let mut events = Vec::new();
        let mut output = Vec::new();
        for mut input in chunks {
            while let Some(event) = next_event(&mut connection, &mut input, now) {
                events.push(event);
            }
            assert!(input.is_empty(), "input was left");
            assert!(!connection.interest().ready, "an event was left");
            let written = connection.transmit();
            output.extend_from_slice(written);
            let bytes = written.len();
            connection.transmitted(bytes);
        }
        let close_reason = format!("{:?}", connection.close_reason());
        Self { events, output, close_reason, stats: connection.stats() }
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.events.iter().map(Seen::text).collect()
    }

    /// The frames the agent wrote, without their lengths and the words of a goodbye.
    pub(crate) fn answers(&self) -> Vec<String> {
        let text = text::capture(&self.output);
        let frames = text.split(" ; ").filter(|frame| !frame.is_empty());
        frames.map(|frame| without(&without(frame, "len=", "sid="), ", message=", "}")).collect()
    }
}

/// The text without what lies between `start`, which goes too, and the next `end`.
fn without(text: &str, start: &str, end: &str) -> String {
    let Some((before, rest)) = text.split_once(start) else {
        return text.to_owned();
    };
    let at = rest.find(end).unwrap();
    format!("{before}{}", &rest[at..])
}

fn next_event(connection: &mut AgentConnection, input: &mut &[u8], now: Instant) -> Option<Seen> {
    Some(Seen::Other(match connection.receive(input, now) {
        Ok(None) => return None,
        Err(error) => format!("error {}", error.status().0),
        Ok(Some(Event::Hello(info))) => {
            let engine = Value::Str(info.engine_id().unwrap_or_default());
            format!("hello {} {}", info.offered_max_frame_size(), text::value(engine))
        }
        Ok(Some(Event::HealthCheck { healthy })) => format!("health check {healthy}"),
        Ok(Some(Event::Notify(notify, mut ack))) => {
            ack.set(Scope::Transaction, "seen", true).unwrap();
            return Some(Seen::Notify {
                stream_id: notify.stream_id(),
                frame_id: notify.frame_id(),
                payload: notify.payload().to_vec(),
            });
        }
        Ok(Some(Event::Abandoned { stream_id, frame_id, by: AbandonedBy::Haproxy })) => {
            format!("abandoned sid={stream_id} fid={frame_id}")
        }
        Ok(Some(Event::Disconnected { status })) => format!("disconnected {}", status.0),
        Ok(Some(other)) => panic!("unexpected: {other:?}"),
    }))
}

/// What a line of the index means for the agent.
#[derive(Default)]
pub(crate) struct Expected {
    pub(crate) events: Vec<String>,
    pub(crate) answers: Vec<String>,
}

impl Expected {
    pub(crate) fn of(frames: &str) -> Self {
        let mut expected = Self::default();
        for frame in frames.split(" ; ") {
            let words: Vec<_> = frame.splitn(6, ' ').collect();
            let [kind, _len, sid, fid, flags, payload] = words[..] else {
                panic!("not a frame: {frame}");
            };
            if !expected.frame(kind, &format!("{sid} {fid}"), flags, payload) {
                break;
            }
        }
        expected
    }

    /// Adds what a frame leads to; `false` if the agent reads nothing after it.
    fn frame(&mut self, kind: &str, ids: &str, flags: &str, payload: &str) -> bool {
        let whole = payload.split_once(" => ").map(|(_, whole)| whole);
        match (kind, flags) {
            ("HAPROXY-HELLO", "FIN") => return self.hello(payload),
            ("HAPROXY-DISCONNECT", "FIN") => {
                let status = field(payload, "status-code=u32:");
                self.event(format!("disconnected {status}"), goodbye(0));
                return false;
            }
            ("NOTIFY", "FIN") if payload.starts_with("MALFORMED") => {
                self.event("error 4".to_owned(), goodbye(4));
                return false;
            }
            ("NOTIFY", "FIN") => self.notify(ids, payload),
            ("UNSET", "FIN") => self.notify(ids, whole.unwrap()),
            ("UNSET", "FIN|ABORT") => self.events.push(format!("abandoned {ids}")),
            ("NOTIFY" | "UNSET", "0") => {}
            other => panic!("unexpected: {other:?}"),
        }
        true
    }

    fn hello(&mut self, payload: &str) -> bool {
        let size = field(payload, "max-frame-size=u32:");
        let pipelining = field(payload, "capabilities=str:").contains("pipelining");
        let capabilities =
            if pipelining { "pipelining\\x2cfragmentation" } else { "fragmentation" };
        let health_check = payload.contains("healthcheck=bool:true");
        let event = if health_check {
            "health check true".to_owned()
        } else {
            format!("hello {size} str:{}", field(payload, "engine-id=str:"))
        };
        let answer = format!(
            "AGENT-HELLO sid=0 fid=0 FIN \
             {{version=str:2.0, max-frame-size=u32:{size}, capabilities=str:{capabilities}}}"
        );
        self.event(event, answer);
        !health_check
    }

    fn notify(&mut self, ids: &str, messages: &str) {
        let answer = format!("ACK {ids} FIN [set-var txn.seen bool:true]");
        self.event(format!("notify {ids} {messages}"), answer);
    }

    fn event(&mut self, event: String, answer: String) {
        self.events.push(event);
        self.answers.push(answer);
    }
}

fn goodbye(status: u32) -> String {
    format!("AGENT-DISCONNECT sid=0 fid=0 FIN {{status-code=u32:{status}}}")
}

/// What follows `key` in a list of keys and values.
fn field<'a>(payload: &'a str, key: &str) -> &'a str {
    let (_, rest) = payload.split_once(key).unwrap();
    rest.split([',', '}']).next().unwrap()
}
