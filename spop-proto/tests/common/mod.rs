//! Bytes written by hand, and a connection with a clock of its own.
//!
//! Nothing here uses the crate's encoders: where a test is about the wire, both sides of the
//! comparison must not come from the same code.

#![allow(dead_code, reason = "every test binary uses its own part")]

use std::time::{Duration, Instant};

use spop_proto::{AgentConfig, AgentConnection, Event, Peer, ProtocolError, Ticket};

pub(crate) const UNSET: u8 = 0;
pub(crate) const HAPROXY_HELLO: u8 = 1;
pub(crate) const HAPROXY_DISCONNECT: u8 = 2;
pub(crate) const NOTIFY: u8 = 3;
pub(crate) const AGENT_HELLO: u8 = 101;
pub(crate) const AGENT_DISCONNECT: u8 = 102;
pub(crate) const ACK: u8 = 103;

pub(crate) const FIN: u32 = 1;
pub(crate) const ABORT: u32 = 2;

/// One message `m` with the argument `a` = INT64 7: the smallest NOTIFY worth the name.
pub(crate) const MESSAGE: &[u8] = b"\x01m\x01\x01a\x04\x07";

/// As the manual tells it, in numbers too wide to overflow.
pub(crate) fn varint(value: u64) -> Vec<u8> {
    let mut rest = u128::from(value);
    if rest < 240 {
        return vec![low_byte(rest)];
    }
    let mut bytes = vec![low_byte(rest) | 0xf0];
    rest = (rest - 240) / 16;
    while rest >= 128 {
        bytes.push(low_byte(rest) | 0x80);
        rest = (rest - 128) / 128;
    }
    bytes.push(low_byte(rest));
    bytes
}

fn low_byte(value: u128) -> u8 {
    value.to_le_bytes()[0]
}

/// A length and that many bytes.
pub(crate) fn counted(bytes: &[u8]) -> Vec<u8> {
    [varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A frame, length first.
pub(crate) fn frame(kind: u8, flags: u32, stream: u64, frame: u64, payload: &[u8]) -> Vec<u8> {
    let body =
        [&[kind][..], &flags.to_be_bytes(), &varint(stream), &varint(frame), payload].concat();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

/// A key and a value that is already encoded.
pub(crate) fn pair(key: &str, value: &[u8]) -> Vec<u8> {
    [counted(key.as_bytes()), value.to_vec()].concat()
}

pub(crate) fn string(text: &[u8]) -> Vec<u8> {
    [vec![8], counted(text)].concat()
}

pub(crate) fn uint32(value: u64) -> Vec<u8> {
    [vec![3], varint(value)].concat()
}

/// The pairs of a HAPROXY-HELLO, in HAProxy's order.
pub(crate) fn hello_pairs(size: u64, capabilities: &str) -> Vec<Vec<u8>> {
    vec![
        pair("supported-versions", &string(b"2.0")),
        pair("max-frame-size", &uint32(size)),
        pair("capabilities", &string(capabilities.as_bytes())),
        pair("engine-id", &string(b"6b1b9c6d-9b8e-4b0a-8f0f-0d6a5d1f9c11")),
    ]
}

/// A HAPROXY-HELLO as HAProxy <= 3.0 sends it by default.
pub(crate) fn hello() -> Vec<u8> {
    hello_of(16380)
}

pub(crate) fn hello_of(size: u64) -> Vec<u8> {
    frame(HAPROXY_HELLO, FIN, 0, 0, &hello_pairs(size, "pipelining,async").concat())
}

/// The HELLO of a health check.
pub(crate) fn health_check() -> Vec<u8> {
    let mut pairs = hello_pairs(16380, "pipelining");
    pairs[3] = pair("healthcheck", &[0x11]);
    frame(HAPROXY_HELLO, FIN, 0, 0, &pairs.concat())
}

pub(crate) fn agent_hello(size: u64, capabilities: &str) -> Vec<u8> {
    let pairs = [
        pair("version", &string(b"2.0")),
        pair("max-frame-size", &uint32(size)),
        pair("capabilities", &string(capabilities.as_bytes())),
    ];
    frame(AGENT_HELLO, FIN, 0, 0, &pairs.concat())
}

pub(crate) fn goodbye_pairs(status: u64, message: &str) -> Vec<u8> {
    [pair("status-code", &uint32(status)), pair("message", &string(message.as_bytes()))].concat()
}

pub(crate) fn haproxy_disconnect(status: u64, message: &str) -> Vec<u8> {
    frame(HAPROXY_DISCONNECT, FIN, 0, 0, &goodbye_pairs(status, message))
}

pub(crate) fn agent_disconnect(status: u64, message: &str) -> Vec<u8> {
    frame(AGENT_DISCONNECT, FIN, 0, 0, &goodbye_pairs(status, message))
}

pub(crate) fn notify(stream: u64) -> Vec<u8> {
    frame(NOTIFY, FIN, stream, 1, MESSAGE)
}

/// An ACK with those actions.
pub(crate) fn ack(stream: u64, actions: &[u8]) -> Vec<u8> {
    frame(ACK, FIN, stream, 1, actions)
}

/// `set-var txn.NAME` with a value that is already encoded.
pub(crate) fn set_txn(name: &str, value: &[u8]) -> Vec<u8> {
    [&[1, 3, 2][..], &counted(name.as_bytes()), value].concat()
}

/// A connection, and a clock that stands still unless told.
pub(crate) struct Rig {
    pub(crate) conn: AgentConnection,
    start: Instant,
}

impl Rig {
    pub(crate) fn new(config: AgentConfig) -> Self {
        let start = Instant::now();
        Self { conn: AgentConnection::new(config, Peer::Unknown, start), start }
    }

    pub(crate) fn over_limit(config: AgentConfig) -> Self {
        let start = Instant::now();
        Self { conn: AgentConnection::over_limit(config, Peer::Unknown, start), start }
    }

    /// After the handshake, the AGENT-HELLO taken; all at 0 ms.
    pub(crate) fn ready(config: AgentConfig) -> Self {
        let mut rig = Self::new(config);
        assert_eq!(rig.feed(0, &hello()), Ok(vec!["Hello".to_owned()]));
        rig.take();
        rig
    }

    pub(crate) fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// Gives `bytes` and takes all events, each as text; a NOTIFY is answered by dropping it.
    pub(crate) fn feed(&mut self, ms: u64, bytes: &[u8]) -> Result<Vec<String>, ProtocolError> {
        let now = self.at(ms);
        let mut input = bytes;
        let mut seen = Vec::new();
        while let Some(event) = self.conn.receive(&mut input, now)? {
            seen.push(text(&event));
        }
        assert_eq!(input, b"", "input is left over");
        Ok(seen)
    }

    /// Gives `bytes`, whose only event is a NOTIFY, and defers its answer.
    pub(crate) fn defer(&mut self, ms: u64, bytes: &[u8]) -> Ticket {
        let now = self.at(ms);
        let mut input = bytes;
        match self.conn.receive(&mut input, now) {
            Ok(Some(Event::Notify(_, ack))) => ack.defer(),
            other => panic!("not a NOTIFY: {other:?}"),
        }
    }

    /// All output, which counts as written.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let bytes = self.conn.transmit().to_vec();
        self.conn.transmitted(bytes.len());
        bytes
    }

    pub(crate) fn timeout(&mut self, ms: u64) -> Result<(), ProtocolError> {
        let now = self.at(ms);
        self.conn.handle_timeout(now)
    }

    /// The deadline in ms since the start; `None` where there is none.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let deadline = self.conn.interest().deadline?;
        Some(u64::try_from(deadline.duration_since(self.start).as_millis()).unwrap())
    }
}

/// An event in a word, with its ids.
pub(crate) fn text(event: &Event<'_>) -> String {
    match event {
        Event::Hello(_) => "Hello".to_owned(),
        Event::HealthCheck { healthy } => format!("HealthCheck {healthy}"),
        Event::Notify(notify, _) => {
            format!("Notify {}/{}", notify.stream_id(), notify.frame_id())
        }
        Event::Abandoned { stream_id, frame_id, by } => {
            format!("Abandoned {stream_id}/{frame_id} {by:?}")
        }
        Event::Disconnected { status } => format!("Disconnected {}", status.0),
        other => panic!("an event no test knows: {other:?}"),
    }
}

/// The name of an error's variant.
pub(crate) fn variant(error: &ProtocolError) -> String {
    let debug = format!("{error:?}");
    debug.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}
