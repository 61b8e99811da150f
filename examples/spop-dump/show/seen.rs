//! A frame as it was found.

use std::ops::Range;
use std::time::Duration;

use spop_proto::wire::FrameHeader;
use spop_proto::{OwnedValue, Scope};

pub(crate) use crate::side::Side;

/// A frame, or the bytes where one should be.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Where its length field begins in the stream, in bytes.
    pub(crate) offset: u64,
    /// When its last byte was there, since 1970; `None` where nothing tells.
    pub(crate) time: Option<Duration>,
    /// Who wrote it.
    pub(crate) side: Side,
    /// Its length field: the bytes that follow it.
    pub(crate) length: u32,
    /// Type, flags and ids; `None` where they cannot be read.
    pub(crate) header: Option<FrameHeader>,
    /// What it holds, as far as it can be read.
    pub(crate) content: Content,
    /// Of an ACK: how long after its NOTIFY.
    pub(crate) after: Option<Duration>,
    /// What breaks the protocol.
    pub(crate) faults: Vec<Fault>,
    /// What is allowed and worth a word.
    pub(crate) notes: Vec<String>,
}

impl Seen {
    /// Whether its payload may hold something else than what was read.
    pub(crate) fn is_doubtful(&self) -> bool {
        !self.faults.is_empty()
    }
}

/// What a frame holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// Nothing that can be read.
    Unread,
    /// HELLO, DISCONNECT: keys and values.
    Items(Vec<Item>),
    /// NOTIFY: messages.
    Messages(Vec<Message>),
    /// ACK.
    Actions(Vec<Action>),
    /// A part of a payload: how many bytes there are so far, and in how many frames.
    Part { bytes: usize, frames: usize },
    /// The last part of a payload: the whole, how many bytes and frames it has and where the first begins.
    Joined { messages: Vec<Message>, bytes: usize, frames: usize, from: u64 },
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// May be empty, and any bytes.
    pub(crate) name: Vec<u8>,
    pub(crate) value: OwnedValue,
}

/// A message of a NOTIFY.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) name: Vec<u8>,
    pub(crate) args: Vec<Item>,
}

/// An action of an ACK.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Set(Scope, Item),
    Unset(Scope, Vec<u8>),
}

/// What breaks the protocol, and where.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    /// What was expected and what is there.
    pub(crate) what: String,
    /// Where, in the stream.
    pub(crate) offset: u64,
    /// Where, from the first byte of the frame (its length field), or of the payload that was joined.
    pub(crate) within: Within,
    /// The bytes around it.
    pub(crate) excerpt: Excerpt,
}

/// A place that is counted from a start that is not the stream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Within {
    /// From the frame's length field.
    Frame(usize),
    /// From the first byte of a payload that came in fragments.
    Payload(usize),
}

/// A few rows of bytes, some of which are marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excerpt {
    /// Where the first row begins: in the stream, or in a payload that was joined.
    pub(crate) start: u64,
    pub(crate) bytes: Vec<u8>,
    /// Which of them; empty where bytes are missing, and then it says before which one.
    pub(crate) mark: Range<usize>,
}

/// Bytes in a row of an excerpt.
pub(crate) const ROW: usize = 16;
/// Rows of an excerpt, at most.
const ROWS: usize = 4;

impl Excerpt {
    /// The rows around `mark`, a range of `bytes`, which begin at `start`.
    pub(crate) fn new(start: u64, bytes: &[u8], mark: &Range<usize>) -> Self {
        let first = mark.start.min(bytes.len()) / ROW;
        // The row before says what came before.
        let begin = first.saturating_sub(1).saturating_mul(ROW);
        let last = mark.end.saturating_sub(1).max(mark.start) / ROW;
        let rows = last.saturating_add(1).saturating_sub(begin / ROW).min(ROWS);
        let end = begin.saturating_add(rows.saturating_mul(ROW)).min(bytes.len());
        let place = |at: usize| at.clamp(begin, end).saturating_sub(begin);
        Self {
            start: start.saturating_add(u64::try_from(begin).unwrap_or(u64::MAX)),
            bytes: bytes.get(begin..end).unwrap_or_default().to_vec(),
            mark: place(mark.start)..place(mark.end),
        }
    }
}
