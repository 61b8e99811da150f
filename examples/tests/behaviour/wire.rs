//! A client that says what a test wrote by hand, right or wrong.
//!
//! Frames to the agent are built here without the encoders of `spop-proto`: what is wrong must be
//! wrong in one place only. The agent's are read with its decoder.

use spop_proto::Endpoint;
use spop_proto::wire::{Disconnect, Frame, FrameType};

use crate::stream::{self, Stream};

pub(crate) const UNSET: u8 = 0;
pub(crate) const HAPROXY_HELLO: u8 = 1;
pub(crate) const NOTIFY: u8 = 3;
pub(crate) const ACK: u8 = 103;

pub(crate) const FIN: u32 = 1;
pub(crate) const ABORT: u32 = 2;

/// `echo` with `number` = INT64 7.
pub(crate) const ECHO_7: &[u8] = b"\x04echo\x01\x06number\x04\x07";
/// Its answer: `set-var txn.number int64:7`.
pub(crate) const SAYS_7: &[u8] = b"\x01\x03\x02\x06number\x04\x07";

/// A frame, length first. Ids below 240 are one byte.
pub(crate) fn frame(kind: u8, flags: u32, stream: u8, frame: u8, payload: &[u8]) -> Vec<u8> {
    assert!(stream < 240 && frame < 240, "longer numbers are not written by hand");
    let head = [&[kind][..], &flags.to_be_bytes(), &[stream, frame]].concat();
    let length = u32::try_from(head.len() + payload.len()).unwrap();
    [&length.to_be_bytes()[..], &head, payload].concat()
}

/// A whole NOTIFY that wants a 7.
pub(crate) fn notify(stream: u8) -> Vec<u8> {
    frame(NOTIFY, FIN, stream, 1, ECHO_7)
}

/// A key and a value that is already encoded.
pub(crate) fn pair(key: &str, value: &[u8]) -> Vec<u8> {
    [&[u8::try_from(key.len()).unwrap()][..], key.as_bytes(), value].concat()
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&[8, u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
}

/// UINT32 16 380 and 255.
pub(crate) const SIZE_16380: &[u8] = &[3, 0xfc, 0xf0, 0x06];
pub(crate) const SIZE_255: &[u8] = &[3, 0xff, 0x00];

/// The pairs of a HAPROXY-HELLO, in HAProxy's order.
pub(crate) fn hello_pairs() -> [Vec<u8>; 4] {
    [
        pair("supported-versions", &text("2.0")),
        pair("max-frame-size", SIZE_16380),
        pair("capabilities", &text("pipelining")),
        pair("engine-id", &text("6b1b9c6d-9b8e-4b0a-8f0f-0d6a5d1f9c11")),
    ]
}

/// A HAPROXY-HELLO.
pub(crate) fn hello() -> Vec<u8> {
    frame(HAPROXY_HELLO, FIN, 0, 0, &hello_pairs().concat())
}

/// What the agent says to [`hello`] by default.
pub(crate) fn agent_hello() -> Vec<u8> {
    let pairs = [
        pair("version", &text("2.0")),
        pair("max-frame-size", SIZE_16380),
        pair("capabilities", &text("pipelining,fragmentation")),
    ];
    frame(101, FIN, 0, 0, &pairs.concat())
}

/// A frame of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) kind: u8,
    pub(crate) flags: u32,
    pub(crate) stream: u64,
    pub(crate) payload: Vec<u8>,
    /// The whole frame, length first.
    pub(crate) bytes: Vec<u8>,
}

/// A connection to an agent, frame by frame.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    over: bool,
}

impl Wire {
    /// Connects.
    #[track_caller]
    pub(crate) fn connect(endpoint: &Endpoint) -> Self {
        let stream = stream::connect(endpoint).unwrap();
        Self { stream, buffer: Vec::new(), over: false }
    }

    /// Connects and shakes hands.
    #[track_caller]
    pub(crate) fn ready(endpoint: &Endpoint) -> Self {
        let mut wire = Self::connect(endpoint);
        wire.write(&hello());
        assert_eq!(wire.heard().kind, FrameType::AGENT_HELLO.0);
        wire
    }

    /// Writes; where the agent has gone, reading says so.
    #[track_caller]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        stream::write(&mut *self.stream, bytes);
    }

    /// The agent's next frame; `None` at the end of the connection.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Heard> {
        let mut scratch = vec![0; 64 * 1024];
        loop {
            if let Some((frame, rest)) = Frame::split(&self.buffer).unwrap() {
                let (left, taken) = (rest.len(), self.buffer.len() - rest.len());
                let heard = Heard {
                    kind: frame.header.kind.0,
                    flags: frame.header.flags.0,
                    stream: frame.header.stream_id,
                    payload: frame.payload.to_vec(),
                    bytes: self.buffer[..taken].to_vec(),
                };
                self.buffer.drain(..self.buffer.len() - left);
                return Some(heard);
            }
            if self.over {
                assert!(self.buffer.is_empty(), "the agent stopped within a frame");
                return None;
            }
            let read = stream::read(&mut *self.stream, &mut scratch).unwrap_or(0);
            self.over = read == 0;
            self.buffer.extend_from_slice(&scratch[..read]);
        }
    }

    /// The agent's next frame; the connection may not end before.
    #[track_caller]
    pub(crate) fn heard(&mut self) -> Heard {
        match self.next() {
            Some(heard) => heard,
            None => panic!("the agent closed the connection"),
        }
    }

    /// The agent's goodbye: its status. Nothing else may come, and then the agent closes.
    #[track_caller]
    pub(crate) fn goodbye(&mut self) -> u32 {
        let heard = self.heard();
        assert_eq!(heard.kind, FrameType::AGENT_DISCONNECT.0, "not a goodbye: {heard:?}");
        let status = Disconnect::decode(&heard.payload).unwrap().status;
        self.stream.finish();
        self.expect_end();
        status.0
    }

    /// Waits for the end of the connection; nothing else may come.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.next(), None, "this came instead of the end of the connection");
    }

    /// Says that this side is done, and waits for the agent to close: by then it has noticed.
    #[track_caller]
    pub(crate) fn hang_up(mut self) {
        self.stream.finish();
        while self.next().is_some() {}
    }
}
