//! HELLO and DISCONNECT: lists of keys and values, in any order, unknown keys skipped.

use core::fmt;

use super::DecodeError;
use super::fault::{DecodeErrorKind, Parsed, decode_error, fault};
use super::value::{Value, lenient_value};
use super::varint::{bytes, encode_bytes};
use crate::Status;

const SUPPORTED_VERSIONS: &str = "supported-versions";
const VERSION: &str = "version";
const MAX_FRAME_SIZE: &str = "max-frame-size";
const CAPABILITIES: &str = "capabilities";
const ENGINE_ID: &str = "engine-id";
const HEALTHCHECK: &str = "healthcheck";
const DESCRIBE: &str = "describe";
const DESCRIPTION: &str = "description";
const STATUS_CODE: &str = "status-code";
const MESSAGE: &str = "message";

/// With a longer message a DISCONNECT may not fit the smallest frame, which is 256 bytes: header, keys and
/// status take 35. (And HAProxy <= 3.0 ignores one with more than 255.)
const MESSAGE_MAX: usize = 220;

/// What a side is able to do; announced as a comma-separated list of words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Capabilities(u8);

impl Capabilities {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Several NOTIFYs in flight on a connection, answered in any order.
    pub const PIPELINING: Self = Self(1);
    /// An ACK may take any connection of the same engine (HAProxy <= 3.0; gone from 3.1).
    pub const ASYNC: Self = Self(2);
    /// The receiver accepts payloads in fragments (used by HAProxy <= 3.0, ignored from 3.1).
    pub const FRAGMENTATION: Self = Self(4);

    /// Reads the words of `list`: spaces around them are allowed, unknown ones ignored.
    #[must_use]
    pub fn parse(list: &[u8]) -> Self {
        words(list).fold(Self::NONE, |known, word| {
            known.with(match word {
                b"pipelining" => Self::PIPELINING,
                b"async" => Self::ASYNC,
                b"fragmentation" => Self::FRAGMENTATION,
                _ => Self::NONE,
            })
        })
    }

    /// Whether all of `other` are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What both sets have.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The list as it stands in a HELLO.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.0 & 7 {
            0 => "",
            1 => "pipelining",
            2 => "async",
            3 => "pipelining,async",
            4 => "fragmentation",
            5 => "pipelining,fragmentation",
            6 => "async,fragmentation",
            _ => "pipelining,async,fragmentation",
        }
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// The items of a comma-separated list without the spaces around them.
fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// A version of SPOP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a version is these two numbers")]
pub struct Version {
    /// The part before the dot.
    pub major: u32,
    /// The part after it.
    pub minor: u32,
}

impl Version {
    /// The only version HAProxy has ever spoken since 1.8.
    pub const V2_0: Self = Self { major: 2, minor: 0 };

    /// Reads `major.minor` as HAProxy does: spaces around are allowed, the major number is above
    /// 0, the minor one has at least a digit and is at most 999.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(text.trim_ascii()).ok()?;
        let (major, minor) = text.split_once('.')?;
        let number = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            if plain { digits.parse::<u32>().ok() } else { None }
        };
        let version = Self { major: number(major)?, minor: number(minor)? };
        (version.major > 0 && version.minor <= 999).then_some(version)
    }

    /// The versions of a comma-separated list; what is none is left out.
    pub fn parse_list(list: &[u8]) -> impl Iterator<Item = Self> + '_ {
        words(list).filter_map(Self::parse)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The payload of a HAPROXY-HELLO. What is missing is `None`: which of it matters is for the state
/// machine to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by hand in tests and tools, key by key")]
pub struct HaproxyHello<'a> {
    /// `supported-versions`, a comma-separated list.
    pub supported_versions: Option<&'a [u8]>,
    /// `max-frame-size` in bytes, without the four bytes of length.
    pub max_frame_size: Option<u64>,
    /// `capabilities`, a comma-separated list; see [`Capabilities::parse`].
    pub capabilities: Option<&'a [u8]>,
    /// `engine-id`: one for each HAProxy thread (<= 3.0) or process (>= 3.1) and agent section.
    pub engine_id: Option<&'a [u8]>,
    /// `healthcheck`: the connection is a health check and ends after the answer.
    pub healthcheck: bool,
    /// `describe`: the agent is asked for its `description`. HAProxy never sends it, and what does not know
    /// it ignores it.
    pub describe: bool,
}

impl<'a> HaproxyHello<'a> {
    /// Decodes the payload of a HAPROXY-HELLO.
    ///
    /// # Errors
    /// When a key is empty, a known key has a value of the wrong type, or something is cut short.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut hello = Self::default();
        for_each_pair(payload, |key, value| {
            match key {
                b"supported-versions" => {
                    hello.supported_versions = Some(string(SUPPORTED_VERSIONS, value)?);
                }
                b"max-frame-size" => hello.max_frame_size = Some(integer(MAX_FRAME_SIZE, value)?),
                b"capabilities" => hello.capabilities = Some(string(CAPABILITIES, value)?),
                b"engine-id" => hello.engine_id = Some(string(ENGINE_ID, value)?),
                b"healthcheck" => hello.healthcheck = boolean(HEALTHCHECK, value)?,
                b"describe" => hello.describe = boolean(DESCRIBE, value)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(hello)
    }

    /// Appends the payload to `out`, keys in the order in which HAProxy writes them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        pair(SUPPORTED_VERSIONS, self.supported_versions.map(Value::Str), out);
        pair(MAX_FRAME_SIZE, self.max_frame_size.map(size), out);
        pair(CAPABILITIES, self.capabilities.map(Value::Str), out);
        pair(HEALTHCHECK, self.healthcheck.then_some(Value::Bool(true)), out);
        pair(ENGINE_ID, self.engine_id.map(Value::Str), out);
        pair(DESCRIBE, self.describe.then_some(Value::Bool(true)), out);
    }
}

/// The payload of an AGENT-HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by hand in tests and tools, key by key")]
pub struct AgentHello<'a> {
    /// `version`, the one the agent chose.
    pub version: Option<&'a [u8]>,
    /// `max-frame-size` in bytes, without the four bytes of length; bounds both directions.
    pub max_frame_size: Option<u64>,
    /// `capabilities`, a comma-separated list; see [`Capabilities::parse`].
    pub capabilities: Option<&'a [u8]>,
    /// `description`: what the agent says of itself, where [`describe`](HaproxyHello::describe) asked for
    /// it. A [`Description`](crate::Description) as text; HAProxy would ignore it.
    pub description: Option<&'a [u8]>,
}

impl<'a> AgentHello<'a> {
    /// Decodes the payload of an AGENT-HELLO.
    ///
    /// # Errors
    /// When a key is empty, a known key has a value of the wrong type, or something is cut short.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        Self::decode_for(true, payload)
    }

    /// The same; who did not ask for a description does not know the key either.
    pub(crate) fn decode_for(describe: bool, payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut hello = Self::default();
        for_each_pair(payload, |key, value| {
            match key {
                b"version" => hello.version = Some(string(VERSION, value)?),
                b"max-frame-size" => hello.max_frame_size = Some(integer(MAX_FRAME_SIZE, value)?),
                b"capabilities" => hello.capabilities = Some(string(CAPABILITIES, value)?),
                b"description" if describe => {
                    hello.description = Some(string(DESCRIPTION, value)?);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(hello)
    }

    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        pair(VERSION, self.version.map(Value::Str), out);
        pair(MAX_FRAME_SIZE, self.max_frame_size.map(size), out);
        pair(CAPABILITIES, self.capabilities.map(Value::Str), out);
        pair(DESCRIPTION, self.description.map(Value::Str), out);
    }
}

/// The payload of a HAPROXY-DISCONNECT or AGENT-DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a status and a message, nothing else")]
pub struct Disconnect<'a> {
    /// `status-code`; [`Status::NORMAL`] where it is missing, as HAProxy takes it.
    pub status: Status,
    /// `message`, for people; empty where it is missing.
    pub message: &'a [u8],
}

impl<'a> Disconnect<'a> {
    /// Decodes the payload of a DISCONNECT.
    ///
    /// # Errors
    /// When a key is empty, a known key has a value of the wrong type, or something is cut short.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut disconnect = Self { status: Status::NORMAL, message: b"" };
        for_each_pair(payload, |key, value| {
            match key {
                b"status-code" => {
                    let code = integer(STATUS_CODE, value)?;
                    // A status that does not fit is no status anybody defined.
                    disconnect.status = u32::try_from(code).map_or(Status::UNKNOWN, Status);
                }
                b"message" => disconnect.message = string(MESSAGE, value)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(disconnect)
    }

    /// Appends the payload to `out`. Of the message the first 220 bytes are written: so the frame
    /// fits every max-frame-size.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let message = self.message.get(..MESSAGE_MAX).unwrap_or(self.message);
        pair(STATUS_CODE, Some(Value::Uint32(self.status.0)), out);
        pair(MESSAGE, Some(Value::Str(message)), out);
    }
}

/// A size as HAProxy writes it: UINT32 while it fits.
fn size(bytes: u64) -> Value<'static> {
    u32::try_from(bytes).map_or(Value::Uint64(bytes), Value::Uint32)
}

fn pair(key: &str, value: Option<Value<'_>>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        encode_bytes(key.as_bytes(), out);
        value.encode(out);
    }
}

/// Calls `each` for every key and value of `payload`.
fn for_each_pair<'a>(
    payload: &'a [u8],
    mut each: impl FnMut(&'a [u8], Value<'a>) -> Result<(), DecodeErrorKind>,
) -> Result<(), DecodeError> {
    let mut one = |input: &'a [u8]| -> Parsed<'a, ()> {
        let (rest, key) = bytes(input)?;
        if key.is_empty() {
            return fault(input, DecodeErrorKind::EmptyKey);
        }
        let (after, value) = lenient_value(rest)?;
        match each(key, value) {
            Ok(()) => Ok((after, ())),
            Err(kind) => fault(rest, kind),
        }
    };
    let mut rest = payload;
    while !rest.is_empty() {
        rest = one(rest).map_err(|error| decode_error(payload, error))?.0;
    }
    Ok(())
}

const fn wrong(key: &'static str, expected: &'static str, found: Value<'_>) -> DecodeErrorKind {
    DecodeErrorKind::KeyType { key, expected, found: found.kind() }
}

fn string<'a>(key: &'static str, value: Value<'a>) -> Result<&'a [u8], DecodeErrorKind> {
    match value {
        Value::Str(text) => Ok(text),
        other => Err(wrong(key, "a string", other)),
    }
}

/// Any integer type will do, as for HAProxy; a negative number is a very large one, as there.
fn integer(key: &'static str, value: Value<'_>) -> Result<u64, DecodeErrorKind> {
    match value {
        Value::Int32(v) => Ok(i64::from(v).cast_unsigned()),
        Value::Uint32(v) => Ok(u64::from(v)),
        Value::Int64(v) => Ok(v.cast_unsigned()),
        Value::Uint64(v) => Ok(v),
        other => Err(wrong(key, "an integer", other)),
    }
}

fn boolean(key: &'static str, value: Value<'_>) -> Result<bool, DecodeErrorKind> {
    match value {
        Value::Bool(v) => Ok(v),
        other => Err(wrong(key, "a boolean", other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_haproxy_hello_by_hand() {
        let bytes = b"\x12supported-versions\x08\x032.0\
            \x0emax-frame-size\x03\xfc\xf0\x06\
            \x0ccapabilities\x08\x0apipelining\
            \x09engine-id\x08\x02id";
        let hello = HaproxyHello::decode(bytes).unwrap();
        assert_eq!(hello.supported_versions, Some(&b"2.0"[..]));
        assert_eq!(hello.max_frame_size, Some(16380));
        assert_eq!(hello.capabilities.map(Capabilities::parse), Some(Capabilities::PIPELINING));
        assert_eq!(hello.engine_id, Some(&b"id"[..]));
        assert!(!hello.healthcheck);
        let mut out = Vec::new();
        hello.encode(&mut out);
        assert_eq!(out, bytes);
    }

    #[test]
    fn any_order_unknown_keys_and_every_integer_type() {
        // An unknown key with a value of each of the sixteen types, the reserved ones without bytes.
        let mut bytes = b"\x09engine-id\x08\x01e".to_vec();
        let values: [&[u8]; 16] = [
            &[0],
            &[0x11],
            &[2, 1],
            &[3, 1],
            &[4, 1],
            &[5, 1],
            &[6, 1, 2, 3, 4],
            &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[8, 1, b'x'],
            &[9, 1, b'x'],
            &[10],
            &[11],
            &[12],
            &[13],
            &[14],
            &[15],
        ];
        for value in values {
            bytes.extend_from_slice(b"\x03new");
            bytes.extend_from_slice(value);
        }
        for kind in 2..=5 {
            let mut whole = bytes.clone();
            whole.extend_from_slice(b"\x0emax-frame-size");
            whole.extend_from_slice(&[kind, 0xf0, 0x01]);
            let hello = HaproxyHello::decode(&whole).unwrap();
            assert_eq!(hello.max_frame_size, Some(256));
            assert_eq!(hello.engine_id, Some(&b"e"[..]));
        }
    }

    #[test]
    fn faults() {
        let error = HaproxyHello::decode(b"\x00\x00").unwrap_err();
        assert_eq!((error.kind, error.offset), (DecodeErrorKind::EmptyKey, 0));
        let error = HaproxyHello::decode(b"\x0emax-frame-size\x08\x03256").unwrap_err();
        assert_eq!(error.offset, 15);
        assert_eq!(error.to_string(), "key `max-frame-size` wants an integer, got str at byte 15");
        let error = AgentHello::decode(b"\x07version\x09\x032.0").unwrap_err();
        assert_eq!(error.to_string(), "key `version` wants a string, got bin at byte 8");
        assert!(HaproxyHello::decode(b"\x0bhealthcheck\x04\x01").is_err());
        assert!(HaproxyHello::decode(b"\x0bhealthcheck").is_err());
        assert!(HaproxyHello::decode(b"\x0bhealth").is_err());
    }

    #[test]
    fn health_checks() {
        let yes = HaproxyHello::decode(b"\x0bhealthcheck\x11").unwrap();
        assert!(yes.healthcheck);
        let no = HaproxyHello::decode(b"\x0bhealthcheck\x01").unwrap();
        assert!(!no.healthcheck);
        let mut out = Vec::new();
        yes.encode(&mut out);
        assert_eq!(out, b"\x0bhealthcheck\x11");
    }

    #[test]
    fn descriptions() {
        let asks = b"\x08describe\x11";
        let hello = HaproxyHello::decode(asks).unwrap();
        assert_eq!(hello, HaproxyHello { describe: true, ..HaproxyHello::default() });
        let mut out = Vec::new();
        hello.encode(&mut out);
        assert_eq!(out, asks);
        assert!(!HaproxyHello::decode(b"\x08describe\x01").unwrap().describe);
        let error = HaproxyHello::decode(b"\x08describe\x08\x04true").unwrap_err();
        assert_eq!(error.to_string(), "key `describe` wants a boolean, got str at byte 9");

        // Any bytes: whoever reads them as text looks whether they are some.
        let says = b"\x0bdescription\x08\x03\xff\0x";
        let hello = AgentHello::decode(says).unwrap();
        assert_eq!(hello.description, Some(&b"\xff\0x"[..]));
        let mut out = Vec::new();
        hello.encode(&mut out);
        assert_eq!(out, says);
        let of_another_type = b"\x0bdescription\x11";
        let error = AgentHello::decode(of_another_type).unwrap_err();
        assert_eq!(error.to_string(), "key `description` wants a string, got bool at byte 12");
        assert_eq!(AgentHello::decode_for(false, of_another_type), Ok(AgentHello::default()));
        assert_eq!(AgentHello::decode_for(false, says), Ok(AgentHello::default()));
        // A length that is not there.
        assert!(AgentHello::decode(b"\x0bdescription\x08\xf0\xff\xff\xff\x0f").is_err());
    }

    #[test]
    fn versions_as_haproxy_reads_them() {
        for good in ["2.0", " 2.0 ", "02.000", "2.0\t"] {
            assert_eq!(Version::parse(good.as_bytes()), Some(Version::V2_0), "{good:?}");
        }
        assert_eq!(Version::parse(b"2.1"), Some(Version { major: 2, minor: 1 }));
        for bad in ["2", "2.", ".0", "0.1", "2.1000", "2.0.1", "+2.0", "a.b", "", "2 .0", "2.x"] {
            assert_eq!(Version::parse(bad.as_bytes()), None, "{bad:?}");
        }
        let list: Vec<_> = Version::parse_list(b"1.0, 2.0 ,junk,2.1").collect();
        assert_eq!(list.iter().map(Version::to_string).collect::<Vec<_>>(), ["1.0", "2.0", "2.1"]);
    }

    #[test]
    fn capability_lists() {
        let all = Capabilities::parse(b" fragmentation, async,pipelining ,teleport");
        assert_eq!(all.as_str(), "pipelining,async,fragmentation");
        assert_eq!(Capabilities::parse(b""), Capabilities::NONE);
        assert_eq!(Capabilities::parse(b"Pipelining"), Capabilities::NONE);
        for bits in 0..8 {
            let set = Capabilities(bits);
            assert_eq!(Capabilities::parse(set.as_str().as_bytes()), set);
        }
        assert!(all.contains(Capabilities::ASYNC));
        assert!(!Capabilities::PIPELINING.contains(Capabilities::ASYNC));
    }

    #[test]
    fn disconnects() {
        let bytes = b"\x0bstatus-code\x03\x03\x07message\x08\x10frame is too big";
        let disconnect = Disconnect::decode(bytes).unwrap();
        assert_eq!(disconnect.status, Status::FRAME_TOO_BIG);
        assert_eq!(disconnect.message, b"frame is too big");
        let mut out = Vec::new();
        disconnect.encode(&mut out);
        assert_eq!(out, bytes);
        let empty = Disconnect::decode(b"").unwrap();
        assert_eq!((empty.status, empty.message), (Status::NORMAL, &b""[..]));
    }

    #[test]
    fn a_long_message_is_cut_to_what_fits_every_frame() {
        let message = [b'x'; 300];
        let mut out = Vec::new();
        Disconnect { status: Status::IO, message: &message }.encode(&mut out);
        assert_eq!(Disconnect::decode(&out).unwrap().message.len(), 220);
    }
}
