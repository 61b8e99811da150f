//! HAPROXY-HELLO and what the agent says to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::CloseReason;
use super::core::{Core, Phase, Step};
use crate::Status;
use crate::config::MIN_MAX_FRAME_SIZE;
use crate::cut::Window;
use crate::error::{Part, ProtocolError, When};
use crate::shown;
use crate::wire::{AgentHello, Capabilities, Frame, FrameType, HaproxyHello, Version};

/// What both sides agreed on.
struct Agreement {
    offered: Capabilities,
    offered_max_frame_size: u64,
    max_frame_size: u32,
    capabilities: Capabilities,
    /// The size of HAProxy's receive buffer, if it must not be filled.
    buffer: Option<u32>,
}

impl Core {
    pub(super) fn on_hello(
        &mut self,
        frame: &Frame<'_>,
        offset: u64,
        now: Instant,
    ) -> Result<Step, ProtocolError> {
        let header = frame.header;
        let kind = header.kind;
        if kind != FrameType::HAPROXY_HELLO {
            return Err(ProtocolError::Unexpected { frame: kind, when: When::BeforeHello });
        }
        if !header.flags.fin() {
            return Err(ProtocolError::HelloFragmented { frame: kind });
        }
        let (stream_id, frame_id) = (header.stream_id, header.frame_id);
        if (stream_id, frame_id) != (0, 0) {
            return Err(ProtocolError::HelloIds { frame: kind, stream_id, frame_id });
        }
        let hello = HaproxyHello::decode(frame.payload).map_err(|error| {
            ProtocolError::Malformed { part: Part::Payload(kind), error, offset }
        })?;
        let agreement = self.negotiate(&hello)?;
        if hello.healthcheck {
            return Ok(self.answer_health_check(&agreement, hello.describe, now));
        }
        if self.control.phase == Phase::HelloOverLimit {
            // Turned away: says nothing until the deadline that was set at the start.
            self.ending(CloseReason::ConnectionLimit);
            self.control.phase = Phase::Closing;
            return Ok(Step::Skip);
        }
        self.say_hello(&agreement, hello.describe, now);
        if let Some(buffer) = agreement.buffer {
            self.tx.pace_for(buffer, agreement.capabilities.contains(Capabilities::PIPELINING));
        }
        let pacing = self.tx.config.current_pacing();
        self.control.window = Window::of(pacing, agreement.offered_max_frame_size);
        let mut info = (*self.info).clone();
        info.engine_id = hello.engine_id.map(Into::into);
        info.offered = agreement.offered;
        info.offered_max_frame_size = agreement.offered_max_frame_size;
        info.capabilities = agreement.capabilities;
        info.max_frame_size = agreement.max_frame_size;
        self.info = Arc::new(info);
        self.control.phase = Phase::Ready;
        self.control.phase_ends = None;
        let serial = self.tx.serial;
        let age = self.tx.config.current_limits().max_age;
        self.control.drain_ends = age.and_then(|age| now.checked_add(with_jitter(age, serial)));
        Ok(Step::Hello)
    }

    fn negotiate(&self, hello: &HaproxyHello<'_>) -> Result<Agreement, ProtocolError> {
        let config = &self.tx.config;
        let versions = hello.supported_versions.ok_or(ProtocolError::NoVersion)?;
        if !Version::parse_list(versions).any(|version| version == Version::V2_0) {
            return Err(ProtocolError::UnsupportedVersion {
                offered: shown::name(versions).to_box(),
            });
        }
        let offered_size = hello.max_frame_size.ok_or(ProtocolError::NoMaxFrameSize)?;
        if offered_size < u64::from(MIN_MAX_FRAME_SIZE) {
            return Err(ProtocolError::BadMaxFrameSize {
                offered: offered_size,
                limit: u64::from(u32::MAX),
            });
        }
        // Any larger offer is fine: the lower of both counts.
        let own = config.own_max_frame_size();
        let max_frame_size = u32::try_from(offered_size).map_or(own, |offered| offered.min(own));
        let list = hello.capabilities.ok_or(ProtocolError::NoCapabilities)?;
        let offered = Capabilities::parse(list);
        // HAProxy <= 3.0 offers `async`, and has no buffer that must not be filled. (If an option
        // takes it away, it is treated with more care than it needs.)
        let old = offered.contains(Capabilities::ASYNC);
        let pacing = config.current_pacing().filter(|_| !old);
        let buffer = pacing.map(|pacing| pacing.buffer(offered_size));
        let mut capabilities = Capabilities::NONE;
        if config.announces_pipelining(buffer) {
            capabilities = capabilities.with(offered.common(Capabilities::PIPELINING));
        }
        if config.announces_async() {
            capabilities = capabilities.with(offered.common(Capabilities::ASYNC));
        }
        // HAProxy never offers it: <= 3.0 uses it where it is announced, >= 3.1 ignores it.
        if config.announces_fragmentation() {
            capabilities = capabilities.with(Capabilities::FRAGMENTATION);
        }
        Ok(Agreement {
            offered,
            offered_max_frame_size: offered_size,
            max_frame_size,
            capabilities,
            buffer,
        })
    }

    /// `describe`: the agent is asked what it takes, by a tool.
    fn say_hello(&mut self, agreement: &Agreement, describe: bool, now: Instant) {
        let description = self.tx.config.own_description().filter(|_| describe).cloned();
        let hello = AgentHello {
            version: Some(b"2.0"),
            max_frame_size: Some(u64::from(agreement.max_frame_size)),
            // Written even if empty: the health check of HAProxy >= 3.1 insists on it.
            capabilities: Some(agreement.capabilities.as_str().as_bytes()),
            description: description.as_deref().map(str::as_bytes),
        };
        self.tx.hello(hello, agreement.max_frame_size, now);
        // HAProxy >= 3.1 stalls on a frame that fills its buffer to the last byte, so an ACK stays
        // one below the size HAProxy offered.
        let offered = agreement.offered_max_frame_size.saturating_sub(1);
        let limit = offered.min(u64::from(agreement.max_frame_size));
        self.tx.limit_acks(u32::try_from(limit).unwrap_or(u32::MAX));
    }

    /// HAProxy judges the answer and closes, mostly with a reset.
    fn answer_health_check(&mut self, agreement: &Agreement, describe: bool, now: Instant) -> Step {
        let healthy = self.tx.config.is_well();
        if healthy {
            self.say_hello(agreement, describe, now);
        } else {
            self.tx.disconnect(Status::UNKNOWN, "the agent takes no new requests", now);
        }
        self.ending(CloseReason::HealthCheck);
        let wait = self.tx.config.current_limits().close;
        self.enter_closing(now, wait);
        Step::HealthCheck { healthy }
    }
}

/// Up to a quarter more, another for each connection: those that were made at once do not end at once,
/// nor do neighbours.
fn with_jitter(age: Duration, serial: u64) -> Duration {
    // Fibonacci hashing: the upper bits of consecutive numbers are spread evenly.
    let spread = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    let part = u32::try_from(spread).unwrap_or_default();
    age.saturating_add((age / 4096).saturating_mul(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jitter_is_spread_over_a_quarter() {
        let age = Duration::from_secs(4096);
        let ends: Vec<_> = (0..64).map(|serial| with_jitter(age, serial).as_secs()).collect();
        assert!(ends.iter().all(|end| (4096..4096 + 1024).contains(end)), "{ends:?}");
        // Each eighth of the quarter has about an eighth of them.
        for eighth in 0..8 {
            let within = |end: &&u64| (**end - 4096) / 128 == eighth;
            assert!((6..=10).contains(&ends.iter().filter(within).count()), "{ends:?}");
        }
        assert_eq!(with_jitter(Duration::MAX, 3), Duration::MAX);
    }
}
