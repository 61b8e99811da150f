//! Configuration of HAProxy's side.

use core::num::NonZeroU32;
use std::time::Duration;

use crate::ConfigError;
use crate::config::{LARGEST_MAX_FRAME_SIZE, MIN_MAX_FRAME_SIZE};
use crate::wire::Capabilities;

/// HAProxy's own size with the default `tune.bufsize`, and what its health check offers.
const DEFAULT_MAX_FRAME_SIZE: u32 = 16_380;
/// HAProxy's is 36 bytes long; with this length the HELLO still fits the smallest frame.
const ENGINE_ID_MAX: usize = 128;
/// What a health check waits for an answer where `hello_timeout` says nothing.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Which generation of HAProxy to be.
///
/// | | `Old` | `New` |
/// | --- | --- | --- |
/// | capabilities offered | pipelining, async | pipelining |
/// | stream-ids | one count for the process, from 0 | 1, 3, 5 … on each connection |
/// | frame-ids | count the events of a stream | always 1 |
/// | payload beyond a frame | fragments, if the agent announced it | error 3, agent not asked |
/// | asks before AGENT-HELLO came | no | queues up to a window |
/// | agent breaks the protocol | HAPROXY-DISCONNECT, streams are told | silence, streams time out, reset |
/// | time limits of its own | hello, idle | none |
/// | goodbye | HAPROXY-DISCONNECT | the connection is reset |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "SPOP has two engines, and the first is finished")]
pub enum Dialect {
    /// HAProxy up to 3.0: an applet for each connection. Where versions differ this is 3.0.
    Old,
    /// HAProxy from 3.1: the SPOP multiplexer.
    New,
}

/// How HAProxy's side behaves; setters take and return it by value.
///
/// ```
/// use spop_proto::{Dialect, EngineConfig};
/// use std::time::Duration;
///
/// let config = EngineConfig::new(Dialect::Old)
///     .max_frame_size(1024)?
///     .pipelining(false)
///     .processing_timeout(Duration::from_millis(500))?;
/// # Ok::<(), spop_proto::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub(super) dialect: Dialect,
    max_frame_size: u32,
    pipelining: bool,
    r#async: bool,
    pub(super) send_frag_payload: bool,
    pub(super) engine_id: Box<[u8]>,
    pub(super) health_check: bool,
    pub(super) describe: bool,
    pub(super) window: NonZeroU32,
    pub(super) hello: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) processing: Duration,
    pub(super) first_stream_id: u64,
    receive_buffer: Option<NonZeroU32>,
}

impl EngineConfig {
    /// The defaults of that generation.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        let old = dialect == Dialect::Old;
        Self {
            dialect,
            max_frame_size: DEFAULT_MAX_FRAME_SIZE,
            pipelining: true,
            r#async: old,
            send_frag_payload: old,
            engine_id: Box::from(*b"00000000-0000-4000-8000-000000000000"),
            health_check: false,
            describe: false,
            window: const { NonZeroU32::MIN.saturating_add(19) },
            hello: old.then_some(Duration::from_secs(2)),
            idle: old.then_some(Duration::from_secs(120)),
            processing: Duration::from_secs(1),
            first_stream_id: 0,
            receive_buffer: None,
        }
    }

    /// The max-frame-size to offer. Default 16 380, HAProxy's with the default `tune.bufsize`.
    ///
    /// # Errors
    /// Below 256 or above 1 GiB.
    pub fn max_frame_size(mut self, bytes: u32) -> Result<Self, ConfigError> {
        if !(MIN_MAX_FRAME_SIZE..=LARGEST_MAX_FRAME_SIZE).contains(&bytes) {
            return Err(ConfigError::MaxFrameSize { bytes });
        }
        self.max_frame_size = bytes;
        Ok(self)
    }

    /// Whether to offer `pipelining`: HAProxy's `option pipelining`. Default on.
    #[must_use]
    pub const fn pipelining(mut self, on: bool) -> Self {
        self.pipelining = on;
        self
    }

    /// Whether to offer `async`: HAProxy's `option async`. Default on; [`Dialect::Old`] only.
    ///
    /// With an agent that announces it too, NOTIFYs in flight when the connection ends wait for
    /// their processing timeout, as in HAProxy. ACKs that such an agent sends on another
    /// connection are not carried over: a connection knows nothing of others.
    #[must_use]
    pub const fn r#async(mut self, on: bool) -> Self {
        self.r#async = on;
        self
    }

    /// Whether a payload larger than a frame is sent in fragments: HAProxy's
    /// `option send-frag-payload`. Default on; [`Dialect::Old`] only.
    #[must_use]
    pub const fn send_frag_payload(mut self, on: bool) -> Self {
        self.send_frag_payload = on;
        self
    }

    /// The `engine-id`. HAProxy makes a random UUID at every start; there is no randomness in
    /// this crate, so the default is always `00000000-0000-4000-8000-000000000000`.
    ///
    /// # Errors
    /// When it is empty or longer than 128 bytes.
    pub fn engine_id(mut self, id: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let id = id.as_ref();
        if id.is_empty() || id.len() > ENGINE_ID_MAX {
            return Err(ConfigError::EngineId { bytes: id.len() });
        }
        self.engine_id = id.into();
        Ok(self)
    }

    /// Makes the connection a health check (`option spop-check`): no engine-id, no capabilities,
    /// judged by [`EngineEvent::HealthCheck`](crate::EngineEvent::HealthCheck) and over.
    /// [`Dialect::New`] offers 16 380 bytes then, whatever is configured.
    #[must_use]
    pub const fn health_check(mut self) -> Self {
        self.health_check = true;
        if self.hello.is_none() {
            self.hello = Some(CHECK_TIMEOUT);
        }
        self
    }

    /// Whether to ask the agent for its description, which
    /// [`EngineConnection::description`](crate::EngineConnection::description) has after the handshake or
    /// the health check. Default off: HAProxy does not. Ask by a health check where nothing else is wanted,
    /// and the agent closes after it; and offer a large [`max_frame_size`](Self::max_frame_size) (of
    /// [`Dialect::Old`], whose health check takes one): the agent leaves out what does not fit the lower of
    /// that and its own.
    #[must_use]
    pub const fn describe(mut self, on: bool) -> Self {
        self.describe = on;
        self
    }

    /// NOTIFYs in flight at once where both sides pipeline: `max-waiting-frames` of HAProxy <= 3.0,
    /// a constant from 3.1. Default 20.
    #[must_use]
    pub const fn window(mut self, notifies: NonZeroU32) -> Self {
        self.window = notifies;
        self
    }

    /// How long the agent may take to answer HELLO: `timeout hello`. Default 2 s for
    /// [`Dialect::Old`] and for health checks; none for [`Dialect::New`], which waits for ever.
    ///
    /// # Errors
    /// When the time is zero.
    pub fn hello_timeout(mut self, time: Option<Duration>) -> Result<Self, ConfigError> {
        self.hello = not_zero("hello_timeout", time)?;
        Ok(self)
    }

    /// How long the connection may be without any frame, and how long the agent may take to answer
    /// HAPROXY-DISCONNECT: `timeout idle`. Default 2 min for [`Dialect::Old`], where it runs while
    /// ACKs are awaited too. [`Dialect::New`] has none by default; if set, it resets a connection
    /// without NOTIFYs in flight, as HAProxy's pool of idle connections does.
    ///
    /// # Errors
    /// When the time is zero.
    pub fn idle_timeout(mut self, time: Option<Duration>) -> Result<Self, ConfigError> {
        self.idle = not_zero("idle_timeout", time)?;
        Ok(self)
    }

    /// How long an event waits for its ACK, counted from the request to ask: `timeout processing`.
    /// Default 1 s (HAProxy has no default and warns where it is missing).
    ///
    /// # Errors
    /// When the time is zero.
    pub fn processing_timeout(mut self, time: Duration) -> Result<Self, ConfigError> {
        if let Some(time) = not_zero("processing_timeout", Some(time))? {
            self.processing = time;
        }
        Ok(self)
    }

    /// The stream-id of the first NOTIFY of a [`Dialect::Old`] connection. Default 0, as after
    /// HAProxy's start. Ids are counted for the whole process there: give each of several
    /// connections with one engine-id a range of its own. Ignored by [`Dialect::New`].
    #[must_use]
    pub const fn first_stream_id(mut self, id: u64) -> Self {
        self.first_stream_id = id;
        self
    }

    /// The size of the buffer that the connection is read into: `tune.bufsize`. If a read fills it to
    /// the last byte, the connection stops for good, as that of HAProxy >= 3.1 does: nothing more is
    /// read, its NOTIFYs time out, and no error says why. Each call of
    /// [`receive`](crate::EngineConnection::receive) with new input is a read of all there is. Default
    /// none: it cannot be filled. [`Dialect::New`] only.
    #[must_use]
    pub const fn receive_buffer(mut self, bytes: Option<NonZeroU32>) -> Self {
        self.receive_buffer = bytes;
        self
    }

    /// The size of a receive buffer that can be filled.
    pub(super) fn fillable_buffer(&self) -> Option<usize> {
        let bytes = self.receive_buffer.filter(|_| self.dialect == Dialect::New)?;
        usize::try_from(bytes.get()).ok()
    }

    /// What HELLO says.
    pub(super) fn offered_max_frame_size(&self) -> u32 {
        match (self.dialect, self.health_check) {
            (Dialect::New, true) => DEFAULT_MAX_FRAME_SIZE,
            _ => self.max_frame_size,
        }
    }

    /// What HELLO says.
    pub(super) fn offered_capabilities(&self) -> Capabilities {
        let mut offered = Capabilities::NONE;
        if self.health_check {
            return offered;
        }
        if self.pipelining {
            offered = offered.with(Capabilities::PIPELINING);
        }
        if self.r#async && self.dialect == Dialect::Old {
            offered = offered.with(Capabilities::ASYNC);
        }
        offered
    }
}

fn not_zero(name: &'static str, time: Option<Duration>) -> Result<Option<Duration>, ConfigError> {
    if time.is_some_and(|time| time.is_zero()) {
        return Err(ConfigError::ZeroTimeout { name });
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_right_is_refused() {
        let config = || EngineConfig::new(Dialect::Old);
        assert!(config().max_frame_size(255).is_err());
        assert!(config().max_frame_size(256).is_ok());
        assert!(config().engine_id("").is_err());
        assert_eq!(
            config().engine_id([b'x'; 129]).unwrap_err().to_string(),
            "engine-id of 129 bytes: HAProxy's has 36, and 1 to 128 fit every HELLO"
        );
        assert_eq!(
            config().idle_timeout(Some(Duration::ZERO)).unwrap_err().to_string(),
            "idle_timeout of zero would end every connection at once"
        );
        assert!(config().processing_timeout(Duration::ZERO).is_err());
        assert!(config().hello_timeout(None).is_ok());
    }
}
