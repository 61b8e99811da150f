//! HAProxy's side against bytes written by hand and against captures.

mod asking;
mod captures;
mod faults;
mod hello;
mod time;

use std::time::{Duration, Instant};

use super::{
    CheckFailure, Dialect, EngineCloseReason, EngineConfig, EngineConnection, EngineEvent,
    NotifyError, NotifyId, Outcome, StreamError,
};
use crate::wire::{Disconnect, Flags, Frame, FrameHeader, FrameType, encode_varint};

const OLD: Dialect = Dialect::Old;
const NEW: Dialect = Dialect::New;

/// `m1` with `a=int(7)`: what most captures hold.
const PAYLOAD: &[u8] = b"\x02m1\x01\x01a\x04\x07";
/// `set-var txn.a str:hi`.
const ACTIONS: &[u8] = b"\x01\x03\x02\x01a\x08\x02hi";

/// A connection with a clock of its own, whose happenings are words.
struct Engine {
    conn: EngineConnection,
    now: Instant,
    seen: Vec<String>,
    /// All output so far.
    sent: Vec<u8>,
}

impl Engine {
    fn new(config: EngineConfig) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a first instant to count from")]
        let now = Instant::now();
        let conn = EngineConnection::new(config, now);
        Self { conn, now, seen: Vec::new(), sent: Vec::new() }
    }

    /// After a handshake in which the agent announced that.
    fn ready(config: EngineConfig, capabilities: &str) -> Self {
        let mut engine = Self::new(config);
        let size = engine.conn.info().max_frame_size();
        engine.feed(&agent_hello(size, capabilities));
        assert_eq!(engine.seen(), ["hello"]);
        engine.output();
        engine
    }

    fn notify(&mut self, payload: &[u8]) -> Result<NotifyId, NotifyError> {
        self.conn.notify(payload, self.now)
    }

    /// Hands over the agent's bytes.
    fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        loop {
            let word = match self.conn.receive(&mut input, self.now) {
                Ok(None) => break,
                Ok(Some(event)) => word(&event),
                Err(error) => {
                    assert!(input.is_empty());
                    format!("fault {}", error.status().0)
                }
            };
            self.seen.push(word);
        }
        assert!(input.is_empty());
        assert!(!self.conn.interest().ready);
    }

    /// What happened since this was asked last.
    fn seen(&mut self) -> Vec<String> {
        self.feed(&[]);
        core::mem::take(&mut self.seen)
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
        if let Err(error) = self.conn.handle_timeout(self.now) {
            self.seen.push(format!("fault {}", error.status().0));
        }
    }

    fn after_ms(&mut self, ms: u64) {
        self.after(Duration::from_millis(ms));
    }

    /// Lets time pass until nothing more comes of it.
    fn wait(&mut self) {
        while let Some(deadline) = self.conn.interest().deadline {
            self.after(deadline.saturating_duration_since(self.now));
            self.feed(&[]);
        }
    }

    fn eof(&mut self) {
        self.conn.peer_closed(self.now);
    }

    /// Takes all output and returns it.
    fn output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        while self.conn.interest().write {
            let part = self.conn.transmit();
            output.extend_from_slice(part);
            let len = part.len();
            self.conn.transmitted(len);
        }
        self.sent.extend_from_slice(&output);
        output
    }

    /// The frames of the output, in words.
    fn frames(&mut self) -> Vec<String> {
        let output = self.output();
        let mut rest = &output[..];
        let mut words = Vec::new();
        while let Some((frame, after)) = Frame::split(rest).unwrap() {
            rest = after;
            let FrameHeader { kind, flags, stream_id, frame_id } = frame.header;
            words.push(match kind {
                FrameType::HAPROXY_DISCONNECT => {
                    format!("disconnect {}", Disconnect::decode(frame.payload).unwrap().status.0)
                }
                FrameType::HAPROXY_HELLO => "hello".to_owned(),
                kind => {
                    let len = frame.payload.len();
                    format!("{kind} {stream_id}/{frame_id} {flags:?} {len}")
                }
            });
        }
        assert!(rest.is_empty());
        words
    }

    fn done(&self) -> bool {
        self.conn.interest().done
    }
}

fn word(event: &EngineEvent<'_>) -> String {
    match event {
        EngineEvent::Hello(_) => "hello".to_owned(),
        EngineEvent::HealthCheck(Ok(())) => "healthy".to_owned(),
        EngineEvent::HealthCheck(Err(failure)) => format!("unhealthy: {failure}"),
        EngineEvent::Ack { stream_id, frame_id, actions, .. } => {
            let count = actions.filter(Result::is_ok).count();
            format!("ack {stream_id}/{frame_id} {count}")
        }
        EngineEvent::Failed { error, .. } => format!("err {}", error.0),
        EngineEvent::Disconnected { status } => format!("bye {}", status.0),
    }
}

fn frame(kind: u8, flags: u32, ids: (u64, u64), payload: &[u8]) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend_from_slice(&flags.to_be_bytes());
    encode_varint(ids.0, &mut body);
    encode_varint(ids.1, &mut body);
    body.extend_from_slice(payload);
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

fn ack(stream_id: u64, frame_id: u64) -> Vec<u8> {
    frame(103, 1, (stream_id, frame_id), ACTIONS)
}

fn hello_keys(version: &str, size: u32, capabilities: &str) -> Vec<u8> {
    let mut keys = b"\x07version\x08".to_vec();
    keys.push(u8::try_from(version.len()).unwrap());
    keys.extend_from_slice(version.as_bytes());
    keys.extend_from_slice(b"\x0emax-frame-size\x03");
    encode_varint(u64::from(size), &mut keys);
    keys.extend_from_slice(b"\x0ccapabilities\x08");
    keys.push(u8::try_from(capabilities.len()).unwrap());
    keys.extend_from_slice(capabilities.as_bytes());
    keys
}

fn agent_hello(size: u32, capabilities: &str) -> Vec<u8> {
    frame(101, 1, (0, 0), &hello_keys("2.0", size, capabilities))
}

fn agent_disconnect(status: u8) -> Vec<u8> {
    let mut keys = b"\x0bstatus-code\x03".to_vec();
    encode_varint(u64::from(status), &mut keys);
    keys.extend_from_slice(b"\x07message\x08\x03bye");
    frame(102, 1, (0, 0), &keys)
}
