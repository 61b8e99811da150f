//! What a connection writes, judged by the naive decoder.

use crate::naive;

const ACK: u8 = 103;
const AGENT_HELLO: u8 = 101;
const AGENT_DISCONNECT: u8 = 102;
const HAPROXY_HELLO: u8 = 1;
const HAPROXY_DISCONNECT: u8 = 2;
const NOTIFY: u8 = 3;
const UNSET: u8 = 0;

/// Whose output it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// An agent's.
    Agent,
    /// HAProxy's.
    Haproxy,
}

/// Takes output apart as it comes, and asserts that it is what the writer may write.
#[derive(Debug)]
pub struct Output {
    writer: Writer,
    /// What is not a whole frame yet.
    pending: Vec<u8>,
    /// All frames.
    pub frames: Vec<naive::Frame>,
    /// The largest frame that may be written.
    pub limit: usize,
    /// The largest ACK.
    pub ack_limit: usize,
}

impl Output {
    /// Of a connection that was just made. `limit` is good until the handshake says another.
    pub fn new(writer: Writer, limit: usize) -> Self {
        Self { writer, pending: Vec::new(), frames: Vec::new(), limit, ack_limit: limit }
    }

    /// More of it; returns the frames that are whole now.
    pub fn push(&mut self, bytes: &[u8]) -> &[naive::Frame] {
        let before = self.frames.len();
        self.pending.extend_from_slice(bytes);
        while let Some(head) = self.pending.first_chunk() {
            let end = 4 + u32::from_be_bytes(*head) as usize;
            if self.pending.len() < end {
                break;
            }
            let frame: Vec<_> = self.pending.drain(..end).skip(4).collect();
            self.judge(&frame);
        }
        &self.frames[before..]
    }

    /// Whether it ended with a whole frame.
    pub fn is_whole(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many frames of a type there are.
    pub fn count(&self, kind: u8) -> usize {
        self.frames.iter().filter(|frame| frame.kind == kind).count()
    }

    fn judge(&mut self, bytes: &[u8]) {
        let frame = naive::frame(bytes).expect("a frame with a good header");
        assert!(
            bytes.len() <= self.limit,
            "{} bytes exceed {}: {frame:?}",
            bytes.len(),
            self.limit
        );
        let last = self.frames.last().map(|frame| frame.kind);
        match self.writer {
            Writer::Agent => self.judge_agent(&frame, last, bytes.len()),
            Writer::Haproxy => Self::judge_haproxy(&frame, last),
        }
        self.frames.push(frame);
    }

    fn judge_agent(&self, frame: &naive::Frame, last: Option<u8>, length: usize) {
        assert_ne!(last, Some(AGENT_DISCONNECT), "nothing follows the goodbye");
        match frame.kind {
            AGENT_HELLO => {
                assert_eq!(last, None, "HELLO is the first frame");
                alone(frame);
            }
            AGENT_DISCONNECT => alone(frame),
            ACK => {
                assert!(last.is_some(), "no ACK before HELLO");
                assert!(length <= self.ack_limit, "an ACK of {length} bytes");
                assert!(frame.flags == 1 || frame.flags == 3, "an ACK is never fragmented");
                let (_, bad) = naive::actions(&frame.payload);
                assert!(!bad, "a bad action in {frame:?}");
            }
            other => panic!("an agent does not send type {other}"),
        }
    }

    fn judge_haproxy(frame: &naive::Frame, last: Option<u8>) {
        assert_ne!(last, Some(HAPROXY_DISCONNECT), "nothing follows the goodbye");
        match frame.kind {
            HAPROXY_HELLO => {
                assert_eq!(last, None, "HELLO is the first frame");
                alone(frame);
            }
            HAPROXY_DISCONNECT => alone(frame),
            NOTIFY => assert!(last.is_some() && frame.flags <= 1, "{frame:?}"),
            UNSET => {
                assert!(matches!(last, Some(NOTIFY | UNSET)), "a fragment of nothing: {frame:?}");
            }
            other => panic!("HAProxy does not send type {other}"),
        }
    }
}

/// Frames of the connection: FIN, both ids 0, keys and values.
fn alone(frame: &naive::Frame) {
    assert_eq!((frame.flags, frame.stream, frame.frame), (1, 0, 0), "{frame:?}");
    assert!(naive::pairs(&frame.payload).is_some(), "{frame:?}");
}
