//! AGENT-HELLO, and what HAProxy makes of it.

use super::config::Dialect;
use super::core::{Core, Fault, Phase, Step};
use super::{CheckFailure, EngineCloseReason};
use crate::Status;
use crate::config::MIN_MAX_FRAME_SIZE;
use crate::error::{Part, ProtocolError, When};
use crate::shown;
use crate::wire::{
    AgentHello, Capabilities, DecodeError, DecodeErrorKind, Flags, Frame, FrameType, Value,
    Version, decode_varint,
};

/// What an AGENT-HELLO settled.
#[derive(Debug, Default)]
struct Answer<'a> {
    version: Option<()>,
    max_frame_size: Option<u32>,
    capabilities: Capabilities,
    description: Option<&'a [u8]>,
}

impl Core {
    /// The first frame of the agent.
    pub(super) fn on_hello(&mut self, frame: &Frame<'_>, offset: u64) -> Result<Step, Fault> {
        let header = frame.header;
        let kind = header.kind;
        if kind != FrameType::AGENT_HELLO {
            return Err(Fault::Frame(ProtocolError::Unexpected {
                frame: kind,
                when: When::BeforeHello,
            }));
        }
        if !header.flags.fin() {
            return Err(Fault::Frame(ProtocolError::HelloFragmented { frame: kind }));
        }
        let (stream_id, frame_id) = (header.stream_id, header.frame_id);
        if (stream_id, frame_id) != (0, 0) {
            let error = ProtocolError::HelloIds { frame: kind, stream_id, frame_id };
            return Err(Fault::Frame(error));
        }
        self.negotiate(frame.payload, offset).map_err(Fault::Hello)?;
        Ok(Step::Hello)
    }

    /// Reads the payload of an AGENT-HELLO and takes over what it says. HAProxy >= 3.1 does so
    /// whenever one comes.
    pub(super) fn negotiate(&mut self, payload: &[u8], offset: u64) -> Result<(), ProtocolError> {
        let answer = self.read_answer(payload, offset)?;
        if answer.version.is_none() {
            return Err(ProtocolError::NoVersion);
        }
        if let Some(max_frame_size) = answer.max_frame_size {
            self.info.max_frame_size = max_frame_size;
        } else if self.config.dialect == Dialect::Old {
            return Err(ProtocolError::NoMaxFrameSize);
        }
        self.description = answer.description.map(Into::into);
        let offered = self.info.offered;
        self.info.capabilities = match self.config.dialect {
            // Never offered by HAProxy: what counts is that the agent takes fragments.
            Dialect::Old => answer.capabilities.common(offered.with(Capabilities::FRAGMENTATION)),
            Dialect::New => answer.capabilities.common(offered),
        };
        let pipelines = match self.config.dialect {
            Dialect::Old => [Capabilities::PIPELINING, Capabilities::ASYNC].as_slice(),
            Dialect::New => &[Capabilities::PIPELINING],
        };
        if !pipelines.iter().any(|&one| self.info.capabilities.contains(one)) {
            self.limit = 1;
        }
        Ok(())
    }

    /// Reads the keys one after the other, as HAProxy does: the first fault counts. A key is known
    /// by how it begins.
    fn read_answer<'a>(&self, payload: &'a [u8], offset: u64) -> Result<Answer<'a>, ProtocolError> {
        let mut answer = Answer::default();
        let mut rest = payload;
        while !rest.is_empty() {
            let at = payload.len() - rest.len();
            let (key, after) = key(rest).map_err(|kind| malformed(kind, at, offset))?;
            let value_at = payload.len() - after.len();
            let here = |kind| malformed(kind, value_at, offset);
            let (value, after) = value(after).map_err(here)?;
            rest = after;
            if key.starts_with(b"version") {
                self.check_version(string("version", value).map_err(here)?, here)?;
                answer.version = Some(());
            } else if key.starts_with(b"max-frame-size") {
                let size = integer("max-frame-size", value).map_err(here)?;
                answer.max_frame_size = Some(check_size(size, self.info.max_frame_size)?);
            } else if key.starts_with(b"capabilities") {
                let list = string("capabilities", value).map_err(here)?;
                answer.capabilities = Capabilities::parse(list);
            } else if self.config.describe && key == b"description" {
                answer.description = Some(string("description", value).map_err(here)?);
            }
        }
        Ok(answer)
    }

    fn check_version(
        &self,
        text: &[u8],
        here: impl FnOnce(DecodeErrorKind) -> ProtocolError,
    ) -> Result<(), ProtocolError> {
        match (Version::parse(text), self.config.dialect) {
            (Some(Version::V2_0), _) => Ok(()),
            (None, Dialect::New) => Err(here(DecodeErrorKind::KeyType {
                key: "version",
                expected: "a version such as 2.0",
                found: "another text",
            })),
            _ => Err(ProtocolError::UnsupportedVersion { offered: shown::name(text).to_box() }),
        }
    }

    /// The answer to a health check. HAProxy closes after it, whatever it was.
    pub(super) fn on_check(&mut self, frame: &Frame<'_>, offset: u64) -> Step {
        let verdict = self.judge(frame, offset);
        self.end_check(verdict)
    }

    pub(super) fn end_check(&mut self, verdict: Result<(), Status>) -> Step {
        self.reason = Some(EngineCloseReason::HealthCheck);
        self.phase = Phase::Done;
        Step::HealthCheck(verdict.map_err(|status| CheckFailure::Refused { status }))
    }

    fn judge(&mut self, frame: &Frame<'_>, offset: u64) -> Result<(), Status> {
        let header = frame.header;
        match (header.kind, self.config.dialect) {
            (FrameType::AGENT_HELLO, Dialect::Old) => self
                .on_hello(frame, offset)
                .map(|_| ())
                .map_err(|fault| fault.into_error().status()),
            (FrameType::AGENT_HELLO, Dialect::New) => {
                let whole = header.flags == Flags::FIN;
                if !whole || (header.stream_id, header.frame_id) != (0, 0) {
                    return Err(Status::INVALID_FRAME);
                }
                self.judge_strictly(frame.payload)
            }
            (FrameType::AGENT_DISCONNECT, Dialect::Old) => {
                let goodbye = super::goodbye::read(frame.payload);
                Err(goodbye.filter(|bye| bye.0.text().is_some()).map_or(Status::UNKNOWN, |b| b.0))
            }
            // A slip: it looks for the type in the wrong place.
            (FrameType::AGENT_DISCONNECT, Dialect::New) => Err(Status::NO_VERSION),
            _ => Err(Status::INVALID_FRAME),
        }
    }

    /// HAProxy >= 3.1 has a reader of its own for health checks: keys count by their whole name,
    /// and all three must be there.
    fn judge_strictly(&mut self, payload: &[u8]) -> Result<(), Status> {
        let hello = AgentHello::decode_for(self.config.describe, payload)
            .map_err(|_| Status::INVALID_FRAME)?;
        let version = hello.version.ok_or(Status::NO_VERSION)?;
        if Version::parse(version) != Some(Version::V2_0) {
            return Err(Status::UNSUPPORTED_VERSION);
        }
        let size = hello.max_frame_size.ok_or(Status::NO_MAX_FRAME_SIZE)?;
        check_size(size, self.info.max_frame_size).map_err(|error| error.status())?;
        hello.capabilities.ok_or(Status::NO_CAPABILITIES)?;
        self.description = hello.description.map(Into::into);
        Ok(())
    }
}

fn malformed(kind: DecodeErrorKind, at: usize, offset: u64) -> ProtocolError {
    ProtocolError::Malformed {
        part: Part::Payload(FrameType::AGENT_HELLO),
        error: DecodeError { kind, offset: at },
        offset,
    }
}

fn check_size(offered: u64, limit: u32) -> Result<u32, ProtocolError> {
    u32::try_from(offered)
        .ok()
        .filter(|size| (MIN_MAX_FRAME_SIZE..=limit).contains(size))
        .ok_or_else(|| ProtocolError::BadMaxFrameSize { offered, limit: u64::from(limit) })
}

/// The key at the start of `input`, and what follows it.
pub(super) fn key(input: &[u8]) -> Result<(&[u8], &[u8]), DecodeErrorKind> {
    let (declared, rest) = decode_varint(input).map_err(|error| error.kind)?;
    let split = usize::try_from(declared).ok().and_then(|len| rest.split_at_checked(len));
    match split {
        Some(([], _)) => Err(DecodeErrorKind::EmptyKey),
        Some(split) => Ok(split),
        None => Err(DecodeErrorKind::Length { declared, left: rest.len() }),
    }
}

/// The value at the start of `input`, and what follows it. Reserved types have no data.
pub(super) fn value(input: &[u8]) -> Result<(Value<'_>, &[u8]), DecodeErrorKind> {
    match input.split_first() {
        Some((tag, rest)) if tag & 0x0f > 9 => Ok((Value::Null, rest)),
        Some((tag, _)) => {
            let (value, rest) = Value::decode(input).map_err(|error| error.kind)?;
            // A string with flags counts as a string here.
            Ok(match value {
                Value::Bin(text) if tag & 0x0f == 8 => (Value::Str(text), rest),
                value => (value, rest),
            })
        }
        None => Err(DecodeErrorKind::Truncated),
    }
}

pub(super) fn string<'a>(key: &'static str, value: Value<'a>) -> Result<&'a [u8], DecodeErrorKind> {
    match value {
        Value::Str(text) => Ok(text),
        other => Err(DecodeErrorKind::KeyType { key, expected: "a string", found: other.kind() }),
    }
}

/// Any integer type will do; a negative number is a very large one.
pub(super) fn integer(key: &'static str, value: Value<'_>) -> Result<u64, DecodeErrorKind> {
    match value {
        Value::Int32(v) => Ok(i64::from(v).cast_unsigned()),
        Value::Uint32(v) => Ok(u64::from(v)),
        Value::Int64(v) => Ok(v.cast_unsigned()),
        Value::Uint64(v) => Ok(v),
        other => Err(DecodeErrorKind::KeyType { key, expected: "an integer", found: other.kind() }),
    }
}
