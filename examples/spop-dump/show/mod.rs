//! Bytes of a stream into frames that people and machines can read. `spop-dump` and `spop-tap` share it.
//!
//! - `seen`: a frame as it was found, and what is wrong with it
//! - `cursor`, `payload`: what a payload holds, and where it stops making sense
//! - `stream`: one direction of a connection; frames cut anywhere, fragments, bytes that are missing
//! - `conversation`: both directions of one
//! - `printer`, `text`, `json`: the output

mod conversation;
mod cursor;
mod json;
mod payload;
mod printer;
mod seen;
mod stream;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use self::conversation::Conversation;
pub(crate) use self::printer::{Look, Printer};
pub(crate) use self::seen::{Seen, Side};
pub(crate) use self::stream::{Limits, Stream};
