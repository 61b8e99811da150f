//! Which of HAProxy's requests a line of the log is about.

use core::fmt;
use std::sync::Arc;

use crate::request::Notify;
use crate::wire::Value;

/// Bytes of an id that are looked at: a UUID has 36, HAProxy's own default format 58.
const LONGEST: usize = 128;

/// What tells a request apart in HAProxy's log and here: its `unique-id`, where HAProxy sends it as the
/// argument that [`AgentConfig::request_id`](crate::AgentConfig::request_id) names. It is looked up when
/// it is written, and not before. (For a future that waits a copy is made as it begins to wait: nobody
/// can look once its handler has failed.)
///
/// `Display` writes at most 128 bytes of it, what is not printable ASCII escaped, `...` where there was
/// more; nothing where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestId<'a>(Source<'a>);

#[derive(Clone, Copy, Debug, Default)]
enum Source<'a> {
    #[default]
    Unknown,
    Notify(Notify<'a>, &'a str),
    Copied(&'a [u8]),
}

impl<'a> RequestId<'a> {
    /// That of a NOTIFY: in the first message that has the argument, if one was named.
    #[must_use]
    pub fn of(notify: Notify<'a>, argument: Option<&'a str>) -> Self {
        Self(argument.map_or(Source::Unknown, |argument| Source::Notify(notify, argument)))
    }

    /// One that was copied with [`copy_to`](Self::copy_to).
    #[must_use]
    pub const fn copied(bytes: &'a [u8]) -> Self {
        Self(Source::Copied(bytes))
    }

    /// Keeps as much of it as is ever written, in place of what is in `buffer`.
    pub fn copy_to(self, buffer: &mut Vec<u8>) {
        buffer.clear();
        let bytes = self.bytes().unwrap_or_default();
        // One more byte tells that there was more.
        buffer.extend_from_slice(bytes.get(..=LONGEST).unwrap_or(bytes));
    }

    /// Itself, where there is one.
    #[must_use]
    pub fn found(self) -> Option<Self> {
        let bytes = self.bytes().filter(|bytes| !bytes.is_empty())?;
        Some(Self::copied(bytes))
    }

    /// Cold, and a search of its own: that of handlers is to be inlined into them.
    #[cold]
    fn bytes(self) -> Option<&'a [u8]> {
        match self.0 {
            Source::Unknown => None,
            Source::Copied(bytes) => Some(bytes),
            Source::Notify(notify, argument) => {
                let mut args = notify.messages().flat_map(|message| message.args());
                let arg = args.find(|arg| arg.name == argument.as_bytes())?;
                match arg.value {
                    Value::Str(bytes) | Value::Bin(bytes) => Some(bytes),
                    _ => None,
                }
            }
        }
    }
}

impl fmt::Display for RequestId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes().unwrap_or_default();
        match bytes.get(..LONGEST).filter(|_| bytes.len() > LONGEST) {
            Some(start) => write!(f, "{}...", start.escape_ascii()),
            None => bytes.escape_ascii().fmt(f),
        }
    }
}

/// A failure, with what it takes to find the request it was of.
#[derive(Debug)]
pub(crate) struct Failed<E> {
    pub(crate) failure: E,
    pub(crate) argument: Option<Arc<str>>,
}
