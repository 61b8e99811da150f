//! HAProxy's SPOP without I/O.

mod ack;
mod agent;
mod config;
mod error;
mod inflight;
mod info;
mod reassembly;
mod request;
mod rx;
pub mod server;
mod stats;
mod status;
mod tx;
mod vars;
pub mod wire;

pub use ack::{Ack, SetError, StaleTicket, Ticket};
pub use agent::{AbandonedBy, AgentConnection, CloseReason, Event, Interest};
pub use config::{AgentConfig, ConfigError, Limits, Overload};
pub use error::{FirstBytes, Part, ProtocolError, Waiting, When};
pub use info::{ConnectionInfo, Peer};
pub use request::{ArgError, FromValue, Mismatch, Notify};
pub use server::{Health, HealthState, Report};
pub use stats::ConnectionStats;
pub use status::Status;
pub use tx::Cause;
pub use vars::{NameError, Var};
pub use wire::{
    Action, Capabilities, DecodeError, DecodeErrorKind, Message, Messages, OwnedValue, Scope, Value,
};
