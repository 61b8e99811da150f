//! The frame: length, type, flags, stream-id, frame-id, payload.

use core::fmt;

use nom::Parser;
use nom::number::complete::{be_u8, be_u32};

use super::DecodeError;
use super::fault::{Parsed, run};
use super::scan;
use super::varint::{encode_varint, varint, varint_len};

/// The length field in front of each frame; it does not count itself.
pub(crate) const LENGTH_BYTES: usize = 4;
/// Type, flags and two varints of one byte: no frame is shorter.
pub(crate) const MIN_FRAME: u32 = 7;

/// The type of a frame. Open: a receiver skips types it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "an open number: the byte of the wire")]
pub struct FrameType(pub u8);

impl FrameType {
    /// Continues a fragmented payload (HAProxy <= 3.0).
    pub const UNSET: Self = Self(0);
    /// HAProxy opens the handshake.
    pub const HAPROXY_HELLO: Self = Self(1);
    /// HAProxy says goodbye.
    pub const HAPROXY_DISCONNECT: Self = Self(2);
    /// HAProxy asks.
    pub const NOTIFY: Self = Self(3);
    /// The agent answers the handshake.
    pub const AGENT_HELLO: Self = Self(101);
    /// The agent says goodbye.
    pub const AGENT_DISCONNECT: Self = Self(102);
    /// The agent answers a NOTIFY.
    pub const ACK: Self = Self(103);

    /// The name in HAProxy's words; `None` for a type SPOP does not define.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::UNSET => "UNSET",
            Self::HAPROXY_HELLO => "HAPROXY-HELLO",
            Self::HAPROXY_DISCONNECT => "HAPROXY-DISCONNECT",
            Self::NOTIFY => "NOTIFY",
            Self::AGENT_HELLO => "AGENT-HELLO",
            Self::AGENT_DISCONNECT => "AGENT-DISCONNECT",
            Self::ACK => "ACK",
            _ => return None,
        })
    }
}

impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "frame type {}", self.0),
        }
    }
}

impl fmt::Debug for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The flags of a frame. Reserved bits are kept, and ignored on receipt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(clippy::exhaustive_structs, reason = "an open number: the bits of the wire")]
pub struct Flags(pub u32);

impl Flags {
    /// The last frame of a payload; set on every frame that is not a fragment.
    pub const FIN: Self = Self(1);
    /// The payload is given up.
    pub const ABORT: Self = Self(2);

    /// Whether the payload ends with this frame.
    #[must_use]
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN.0 != 0
    }

    /// Whether the payload is given up.
    #[must_use]
    pub const fn abort(self) -> bool {
        self.0 & Self::ABORT.0 != 0
    }

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.fin(), self.abort(), self.0 & !3) {
            (true, true, 0) => f.write_str("FIN|ABORT"),
            (true, false, 0) => f.write_str("FIN"),
            (false, true, 0) => f.write_str("ABORT"),
            _ => write!(f, "{:#x}", self.0),
        }
    }
}

/// The head of a frame, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the four fields of the protocol")]
pub struct FrameHeader {
    /// The type.
    pub kind: FrameType,
    /// The flags.
    pub flags: Flags,
    /// HAProxy's stream; 0 is a stream like any other in a NOTIFY of HAProxy <= 3.0.
    pub stream_id: u64,
    /// The frame within the stream.
    pub frame_id: u64,
}

impl FrameHeader {
    /// The head of a HELLO or DISCONNECT: FIN, both ids 0.
    #[must_use]
    pub const fn connection(kind: FrameType) -> Self {
        Self { kind, flags: Flags::FIN, stream_id: 0, frame_id: 0 }
    }

    /// The head of an answer.
    #[inline(always)]
    pub(crate) const fn ack(stream_id: u64, frame_id: u64) -> Self {
        Self { kind: FrameType::ACK, flags: Flags::FIN, stream_id, frame_id }
    }

    /// How many bytes it takes.
    pub(crate) const fn encoded_len(&self) -> usize {
        // In front of the ids: the type and the flags.
        let ids = varint_len(self.stream_id).saturating_add(varint_len(self.frame_id));
        ids.saturating_add(1 + 4)
    }
}

/// A whole frame, borrowed; the four bytes of length are not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a head and a payload, nothing else")]
pub struct Frame<'a> {
    /// Type, flags and ids.
    pub header: FrameHeader,
    /// What follows them.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Splits the first whole frame off `input`, which starts with the length; `None` when it is
    /// not all there yet. For connections use the state machines: they bound the length.
    ///
    /// # Errors
    /// When the header does not decode.
    #[inline(always)]
    pub fn split(input: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, DecodeError> {
        let Some((length, rest)) = input.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        match rest.split_at_checked(length) {
            Some((frame, rest)) => Ok(Some((Self::decode(frame)?, rest))),
            None => Ok(None),
        }
    }

    /// Decodes a frame without its length field; all that follows the header is payload.
    ///
    /// # Errors
    /// When the bytes end inside the header or an id exceeds 64 bits.
    #[inline]
    pub fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
        match Self::scan(frame) {
            Some(frame) => Ok(frame),
            None => Self::parse(frame),
        }
    }

    /// The same, and does not know what is wrong.
    #[inline(always)]
    pub(crate) fn scan(frame: &'a [u8]) -> Option<Self> {
        let (&[kind, flags @ ..], ids) = frame.split_first_chunk::<5>()?;
        let (stream_id, at) = scan::varint::<true>(ids, 0)?;
        let (frame_id, at) = scan::varint::<true>(ids, at)?;
        let (kind, flags) = (FrameType(kind), Flags(u32::from_be_bytes(flags)));
        let header = FrameHeader { kind, flags, stream_id, frame_id };
        Some(Self { header, payload: ids.get(at..)? })
    }

    /// The same, and does.
    #[cold]
    #[inline(never)]
    fn parse(frame: &'a [u8]) -> Result<Self, DecodeError> {
        let (header, payload) = run(frame, header)?;
        Ok(Self { header, payload })
    }

    /// Appends the frame, length first.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = FrameStart::write(self.header, out);
        out.extend_from_slice(self.payload);
        start.finish(out);
    }
}

fn header(input: &[u8]) -> Parsed<'_, FrameHeader> {
    let (rest, (kind, flags)) = (be_u8, be_u32).parse_complete(input)?;
    let (rest, stream_id) = varint(rest)?;
    let (rest, frame_id) = varint(rest)?;
    Ok((rest, FrameHeader { kind: FrameType(kind), flags: Flags(flags), stream_id, frame_id }))
}

/// A frame being written: the length is put in when the end is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameStart {
    at: usize,
}

impl FrameStart {
    /// Writes room for the length, and the header.
    // Of a header whose type and flags are constants little is left to do.
    #[inline(always)]
    pub(crate) fn write(header: FrameHeader, out: &mut Vec<u8>) -> Self {
        let at = out.len();
        let [f0, f1, f2, f3] = header.flags.0.to_be_bytes();
        let head = [0, 0, 0, 0, header.kind.0, f0, f1, f2, f3];
        if let (Ok(stream @ 0..240), Ok(frame @ 0..240)) =
            (u8::try_from(header.stream_id), u8::try_from(header.frame_id))
        {
            let [l0, l1, l2, l3, kind, f0, f1, f2, f3] = head;
            out.extend_from_slice(&[l0, l1, l2, l3, kind, f0, f1, f2, f3, stream, frame]);
        } else {
            out.extend_from_slice(&head);
            encode_varint(header.stream_id, out);
            encode_varint(header.frame_id, out);
        }
        Self { at }
    }

    /// The frame that begins at that place.
    pub(crate) const fn at(at: usize) -> Self {
        Self { at }
    }

    /// The value of the length field if the frame ended here.
    #[inline]
    pub(crate) const fn length(self, out: &[u8]) -> usize {
        out.len().saturating_sub(self.at).saturating_sub(LENGTH_BYTES)
    }

    /// Puts the length in. Frames beyond 4 GiB cannot be built: every caller bounds them by a
    /// max-frame-size of 32 bits first.
    #[inline]
    pub(crate) fn finish(self, out: &mut [u8]) {
        let length = u32::try_from(self.length(out)).unwrap_or(u32::MAX);
        let field = out.get_mut(self.at..).and_then(|o| o.first_chunk_mut::<LENGTH_BYTES>());
        if let Some(field) = field {
            *field = length.to_be_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DecodeErrorKind;

    #[test]
    fn an_ack_by_hand() {
        let bytes = [0, 0, 0, 10, 103, 0, 0, 0, 1, 0xf0, 0x00, 1, 0xaa, 0xbb];
        let frame = Frame {
            header: FrameHeader {
                kind: FrameType::ACK,
                flags: Flags::FIN,
                stream_id: 240,
                frame_id: 1,
            },
            payload: &[0xaa, 0xbb],
        };
        let mut out = vec![0x77];
        frame.encode(&mut out);
        assert_eq!(out, [&[0x77][..], &bytes].concat());
        assert_eq!(Frame::split(&bytes), Ok(Some((frame, &[][..]))));
        for cut in 0..bytes.len() {
            assert_eq!(Frame::split(&bytes[..cut]), Ok(None));
        }
    }

    #[test]
    fn reserved_flags_are_kept() {
        let frame = Frame::decode(&[3, 0x80, 0, 0, 0x05, 0, 1]).unwrap();
        assert_eq!(frame.header.flags, Flags(0x8000_0005));
        assert!(frame.header.flags.fin());
        assert!(!frame.header.flags.abort());
    }

    #[test]
    fn headers_cut_short() {
        let whole = [3, 0, 0, 0, 1, 0xf0, 0x00, 1];
        for cut in 0..whole.len() {
            let error = Frame::decode(&whole[..cut]).unwrap_err();
            assert_eq!(error.kind, DecodeErrorKind::Truncated);
        }
        assert!(Frame::decode(&whole).is_ok());
    }

    #[test]
    fn names() {
        assert_eq!(FrameType::AGENT_HELLO.to_string(), "AGENT-HELLO");
        assert_eq!(FrameType(200).to_string(), "frame type 200");
        assert_eq!(format!("{:?}", Flags::FIN.with(Flags::ABORT)), "FIN|ABORT");
        assert_eq!(format!("{:?}", Flags(8)), "0x8");
    }
}
