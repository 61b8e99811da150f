//! Errors that are the peer's fault.

use core::fmt;

use thiserror::Error;

use crate::Status;
use crate::wire::{DecodeError, FrameType};

/// Why a connection had to be ended: what the peer did, or failed to do.
///
/// The matching DISCONNECT is already in the output when one of these is returned; only a peer that
/// takes no output gets none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A frame is larger than what this side takes.
    #[error(
        "frame of {length} bytes at byte {offset} of the stream, more than the {limit} allowed here"
    )]
    FrameTooBig {
        /// The length that was announced.
        length: u32,
        /// The most that is accepted.
        limit: u32,
        /// Where the frame begins in the stream.
        offset: u64,
    },
    /// The peer does not speak SPOP.
    #[error("the connection begins with {found}, not with a SPOP frame")]
    NotSpop {
        /// What the first bytes look like.
        found: FirstBytes,
    },
    /// A frame is shorter than any header.
    #[error("frame of {length} bytes at byte {offset} of the stream, less than the 7 of a header")]
    FrameTooShort {
        /// The length that was announced.
        length: u32,
        /// Where the frame begins in the stream.
        offset: u64,
    },
    /// A header or payload does not decode.
    #[error("{part} of the frame at byte {offset} of the stream: {error}")]
    Malformed {
        /// Which part of the frame.
        part: Part,
        /// What is wrong, and where in that part.
        error: DecodeError,
        /// Where the frame begins in the stream.
        offset: u64,
    },
    /// A frame that may not come now.
    #[error("{frame} {when}")]
    Unexpected {
        /// The frame.
        frame: FrameType,
        /// When it came.
        when: When,
    },
    /// A HELLO that is not whole: it must have FIN set.
    #[error("{frame} without FIN: a handshake frame cannot be fragmented")]
    HelloFragmented {
        /// The frame.
        frame: FrameType,
    },
    /// A HELLO with a stream-id or frame-id.
    #[error("{frame} with stream-id {stream_id} and frame-id {frame_id}: both must be 0")]
    HelloIds {
        /// The frame.
        frame: FrameType,
        /// Its stream-id.
        stream_id: u64,
        /// Its frame-id.
        frame_id: u64,
    },
    /// A HELLO without a version.
    #[error("the HELLO names no version")]
    NoVersion,
    /// A HELLO without `max-frame-size`.
    #[error("the HELLO has no max-frame-size")]
    NoMaxFrameSize,
    /// A HELLO without `capabilities`.
    #[error("the HELLO has no capabilities")]
    NoCapabilities,
    /// No version in common.
    #[error("version `{offered}` is not supported: this side speaks 2.0")]
    UnsupportedVersion {
        /// What the peer said.
        offered: Box<str>,
    },
    /// A max-frame-size below SPOP's minimum or, from an agent, above HAProxy's.
    #[error("max-frame-size {offered} is not within 256 to {limit}")]
    BadMaxFrameSize {
        /// What the peer said.
        offered: u64,
        /// The largest that would be accepted.
        limit: u64,
    },
    /// A fragment came although fragmentation was not announced.
    #[error("fragment of stream {stream_id}, frame {frame_id}: fragmentation was not announced")]
    FragmentationUnsupported {
        /// Stream-id of the fragment.
        stream_id: u64,
        /// Frame-id of the fragment.
        frame_id: u64,
    },
    /// A NOTIFY came while the fragments of another one were still arriving.
    #[error(
        "NOTIFY of stream {stream_id}, frame {frame_id} while the payload of stream \
         {open_stream_id}, frame {open_frame_id} is incomplete"
    )]
    Interlaced {
        /// Stream-id of the new NOTIFY.
        stream_id: u64,
        /// Frame-id of the new NOTIFY.
        frame_id: u64,
        /// Stream-id of the incomplete one.
        open_stream_id: u64,
        /// Frame-id of the incomplete one.
        open_frame_id: u64,
    },
    /// An ACK for a NOTIFY that nobody waits for, where the engine does not let that pass.
    #[error("ACK for stream {stream_id}, frame {frame_id}: nothing waits for it")]
    UnknownAck {
        /// Stream-id of the ACK.
        stream_id: u64,
        /// Frame-id of the ACK.
        frame_id: u64,
    },
    /// Nothing but frames to skip.
    #[error("{limit} frames in a row that mean nothing here")]
    TooManyIgnored {
        /// How many are let pass.
        limit: u32,
    },
    /// The peer took too long.
    #[error("timeout: {waiting}")]
    Timeout {
        /// What was waited for.
        waiting: Waiting,
    },
}

impl ProtocolError {
    /// The status for the DISCONNECT.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::FrameTooBig { .. } | Self::NotSpop { .. } => Status::FRAME_TOO_BIG,
            Self::FrameTooShort { .. }
            | Self::Malformed { .. }
            | Self::Unexpected { .. }
            | Self::HelloIds { .. }
            | Self::TooManyIgnored { .. } => Status::INVALID_FRAME,
            Self::NoVersion => Status::NO_VERSION,
            Self::NoMaxFrameSize => Status::NO_MAX_FRAME_SIZE,
            Self::NoCapabilities => Status::NO_CAPABILITIES,
            Self::UnsupportedVersion { .. } => Status::UNSUPPORTED_VERSION,
            Self::BadMaxFrameSize { .. } => Status::BAD_MAX_FRAME_SIZE,
            Self::HelloFragmented { .. } | Self::FragmentationUnsupported { .. } => {
                Status::FRAGMENTATION_UNSUPPORTED
            }
            Self::Interlaced { .. } => Status::INTERLACED_FRAMES,
            Self::UnknownAck { .. } => Status::FRAME_ID_NOT_FOUND,
            Self::Timeout { .. } => Status::TIMEOUT,
        }
    }
}

/// A part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Type, flags and ids.
    Header,
    /// What follows them, in a frame of that type.
    Payload(FrameType),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Payload(kind) => write!(f, "{kind} payload"),
        }
    }
}

/// When a frame came that may not come then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// Before the handshake.
    BeforeHello,
    /// After the handshake.
    AfterHello,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeHello => "before the handshake",
            Self::AfterHello => "after the handshake",
        })
    }
}

/// What a connection waited for when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// The peer's HELLO.
    Hello,
    /// The rest of a frame.
    Frame,
    /// The peer to take output.
    Write,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "no HELLO arrived",
            Self::Frame => "a frame was begun and not finished",
            Self::Write => "the peer takes no output",
        })
    }
}

/// What the first bytes of a connection look like when they are not SPOP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FirstBytes {
    /// An HTTP request.
    Http,
    /// A TLS ClientHello.
    Tls,
    /// A PROXY protocol header, version 1 or 2.
    Proxy,
    /// Printable text.
    Text,
    /// A length beyond any HELLO.
    Length(u32),
}

impl FirstBytes {
    /// Tells from the first bytes; those of a SPOP HELLO start with two zeros.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        const METHODS: [&[u8]; 9] =
            [b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"CONN", b"PATC", b"PRI "];
        let first = bytes.first_chunk::<4>().copied().unwrap_or_default();
        match &first {
            [0x16, 0x03, ..] => Self::Tls,
            b"PROX" | [b'\r', b'\n', b'\r', b'\n'] => Self::Proxy,
            word if METHODS.contains(&&word[..]) => Self::Http,
            text if text.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => {
                Self::Text
            }
            _ => Self::Length(u32::from_be_bytes(first)),
        }
    }
}

impl fmt::Display for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http => f.write_str("an HTTP request"),
            Self::Tls => f.write_str("a TLS handshake"),
            Self::Proxy => f.write_str("a PROXY protocol header"),
            Self::Text => f.write_str("text"),
            Self::Length(length) => write!(f, "a length of {length} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes() {
        assert_eq!(FirstBytes::of(b"GET / HTTP/1.1\r\n"), FirstBytes::Http);
        assert_eq!(FirstBytes::of(&[0x16, 3, 1, 2, 0]), FirstBytes::Tls);
        assert_eq!(FirstBytes::of(b"PROXY TCP4"), FirstBytes::Proxy);
        assert_eq!(FirstBytes::of(b"\r\n\r\n\0\r\nQUIT\n"), FirstBytes::Proxy);
        assert_eq!(FirstBytes::of(b"help\r\n"), FirstBytes::Text);
        assert_eq!(FirstBytes::of(&[1, 2, 3, 4]), FirstBytes::Length(0x0102_0304));
    }
}
