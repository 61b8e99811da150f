//! Encodings: what the bytes of a frame mean, without any state.
//!
//! Decoders borrow from the bytes they are given and neither copy nor allocate; encoders append to a
//! `Vec<u8>`. The four-byte length in front of a frame is handled by hand, never by a parser that
//! could ask for more input: inside a frame everything is either there or wrong.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod action;
mod fault;
mod frame;
mod hello;
mod notify;
mod scan;
mod value;
mod varint;

pub use self::action::{Action, Actions, ParseScopeError, Scope};
pub use self::fault::{DecodeError, DecodeErrorKind};
pub use self::frame::{Flags, Frame, FrameHeader, FrameType};
pub use self::hello::{AgentHello, Capabilities, Disconnect, HaproxyHello, Version};
pub use self::notify::{Arg, Args, Message, Messages, NotifyPayload, TooManyArgs};
pub use self::value::{OwnedValue, Value};
pub use self::varint::{decode_varint, encode_varint, varint_len};

pub(crate) use self::action::{NAME_BYTES_MAX, encode_set_var, encode_unset_var};
pub(crate) use self::frame::{FrameStart, LENGTH_BYTES, MIN_FRAME};
