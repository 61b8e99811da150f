//! Status codes of a DISCONNECT.

use core::fmt;

/// The status of a DISCONNECT. Open: agents may use numbers of their own, and HAProxy shows any
/// status N of an agent as 256 + N (`option set-on-error`, `st=` in its log).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "an open number: the code of the wire")]
pub struct Status(pub u32);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// HAProxy's words for it; `None` for a number HAProxy does not define.
            #[must_use]
            pub const fn text(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// No error: an ordinary goodbye.
    NORMAL = 0, "normal";
    /// An I/O error.
    IO = 1, "I/O error";
    /// Something took too long.
    TIMEOUT = 2, "a timeout occurred";
    /// A frame is larger than max-frame-size.
    FRAME_TOO_BIG = 3, "frame is too big";
    /// A frame does not decode, or is not one that may come now.
    INVALID_FRAME = 4, "invalid frame received";
    /// A HELLO names no version.
    NO_VERSION = 5, "version value not found";
    /// A HELLO names no max-frame-size.
    NO_MAX_FRAME_SIZE = 6, "max-frame-size value not found";
    /// A HELLO names no capabilities.
    NO_CAPABILITIES = 7, "capabilities value not found";
    /// No version in common.
    UNSUPPORTED_VERSION = 8, "unsupported version";
    /// max-frame-size is below 256 or, from an agent, above HAProxy's.
    BAD_MAX_FRAME_SIZE = 9, "max-frame-size too big or too small";
    /// A fragment came where fragmentation was not announced.
    FRAGMENTATION_UNSUPPORTED = 10, "fragmentation not supported";
    /// A payload began while another one was still open.
    INTERLACED_FRAMES = 11, "invalid interlaced frames";
    /// An ACK for a NOTIFY that nobody waits for.
    FRAME_ID_NOT_FOUND = 12, "frame-id not found";
    /// Out of resources.
    RESOURCE = 13, "resource allocation error";
    /// Any other error.
    UNKNOWN = 99, "an unknown error occurred";
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => write!(f, "{} ({text})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
