//! HAProxy's SPOP without I/O.

mod status;
pub mod wire;

pub use status::Status;
pub use wire::{DecodeError, DecodeErrorKind, Value};
