//! AGENT-DISCONNECT.

use super::config::Dialect;
use super::core::{Core, Fault, Phase, Step};
use super::handshake::{integer, key, string, value};
use super::{EngineCloseReason, StreamError};
use crate::Status;
use crate::error::ProtocolError;
use crate::shown;
use crate::wire::Frame;

/// HAProxy <= 3.0 takes no longer message, and then not the frame either.
const MESSAGE_MAX: usize = 255;

/// The status and the message of an AGENT-DISCONNECT; keys are known by how they begin. `None`
/// where HAProxy <= 3.0 ignores the frame.
pub(super) fn read(payload: &[u8]) -> Option<(Status, &[u8])> {
    let mut goodbye = (Status::NORMAL, &b""[..]);
    let mut rest = payload;
    while !rest.is_empty() {
        let (key, after) = key(rest).ok()?;
        let (value, after) = value(after).ok()?;
        rest = after;
        if key.starts_with(b"status-code") {
            let code = integer("status-code", value).ok()?;
            goodbye.0 = u32::try_from(code).map_or(Status::UNKNOWN, Status);
        } else if key.starts_with(b"message") {
            goodbye.1 = string("message", value).ok()?;
        }
    }
    Some(goodbye)
}

impl Core {
    /// HAProxy <= 3.0 looks for nothing but an AGENT-DISCONNECT once one has come or it has said
    /// goodbye itself, and tells the streams when it has found one.
    pub(super) fn on_goodbye_old(&mut self, frame: &Frame<'_>) -> Result<Step, Fault> {
        let header = frame.header;
        if !header.flags.fin() {
            let (stream_id, frame_id) = (header.stream_id, header.frame_id);
            let error = ProtocolError::FragmentationUnsupported { stream_id, frame_id };
            return Err(Fault::Frame(error));
        }
        let whole = (header.stream_id, header.frame_id) == (0, 0);
        match read(frame.payload).filter(|_| whole) {
            Some((status, message)) if message.len() <= MESSAGE_MAX => {
                let error = StreamError::from_status(status);
                self.streams.fail_all(error);
                Ok(self.said_goodbye(status, message))
            }
            _ => Ok(Step::Skip),
        }
    }

    /// HAProxy >= 3.1 tells the streams at once; what it cannot read it takes for a fault.
    pub(super) fn on_goodbye_new(&mut self, frame: &Frame<'_>) -> Option<Step> {
        let (status, message) = read(frame.payload)?;
        let error = match status {
            Status::NORMAL => StreamError::CONNECTION_LOST,
            other => StreamError::from_status(other),
        };
        self.streams.fail_sent(error);
        Some(self.said_goodbye(status, message))
    }

    fn said_goodbye(&mut self, status: Status, message: &[u8]) -> Step {
        let message = shown::goodbye(message);
        self.reason.get_or_insert(EngineCloseReason::Agent { status, message });
        // What was never sent would be tried on other connections until its time is up.
        self.phase = if self.config.dialect == Dialect::New { Phase::Dead } else { Phase::Done };
        Step::Disconnected { status }
    }
}
