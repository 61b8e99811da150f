//! HAProxy's side of a connection.

mod asking;
mod config;
mod core;
mod ending;
mod fragment;
mod goodbye;
mod handshake;
mod output;
mod receive_buffer;
mod streams;
#[cfg(test)]
mod tests;

use std::time::Instant;

use thiserror::Error;

pub use self::config::{Dialect, EngineConfig};
use self::core::{Core, Step};
use self::receive_buffer::{Admission, ReceiveBuffer};
pub use self::streams::{NotifyId, StreamError};
use crate::info::ConnectionInfo;
use crate::rx::Rx;
use crate::wire::Actions;
use crate::{Interest, ProtocolError, Status};

/// What the agent's bytes, or the clock, amounted to.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineEvent<'a> {
    /// The handshake is done. An agent that says AGENT-HELLO again makes HAProxy >= 3.1 negotiate
    /// again, and this comes again.
    Hello(&'a ConnectionInfo),
    /// The health check is over.
    HealthCheck(Result<(), CheckFailure>),
    /// The answer to a NOTIFY.
    Ack {
        /// The NOTIFY.
        id: NotifyId,
        /// The ACK's stream-id.
        stream_id: u64,
        /// The ACK's frame-id.
        frame_id: u64,
        /// What it asks for: as in HAProxy, those before the first bad one count.
        actions: Actions<'a>,
    },
    /// A NOTIFY that got no answer.
    Failed {
        /// The NOTIFY.
        id: NotifyId,
        /// What HAProxy would tell its stream.
        error: StreamError,
    },
    /// The agent said goodbye; see [`EngineConnection::close_reason`] for its words. The NOTIFYs
    /// that it left fail next.
    Disconnected {
        /// The agent's status.
        status: Status,
    },
}

/// Why HAProxy would take a server for down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckFailure {
    /// The answer was not a good one.
    #[error("{}", status.text().unwrap_or("an unknown error occurred"))]
    Refused {
        /// The status whose text HAProxy shows.
        status: Status,
    },
    /// The agent closed the connection instead.
    #[error("the agent closed the connection before it answered")]
    Closed,
    /// No answer came.
    #[error("the agent did not answer in time")]
    Timeout,
}

/// How an event of a stream ended, for the next event of the same stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a NOTIFY ends in one of these two ways")]
pub enum Outcome {
    /// [`EngineEvent::Ack`].
    Acked,
    /// [`EngineEvent::Failed`].
    Failed,
}

/// A NOTIFY that was not accepted: there will be no event for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// As many as may be are in flight, fragments of another one are still going out, or the
    /// agent does not take the output.
    #[error("no NOTIFY may be sent before an earlier one is out of the way")]
    Window,
    /// HAProxy <= 3.0 sends none before the handshake is done.
    #[error("no NOTIFY may be sent before the handshake is done")]
    NotReady,
    /// The payload does not fit a frame.
    #[error("the stream fails with {error}")]
    TooBig {
        /// What HAProxy tells its stream: 3 for its own limit, 259 for the agent's.
        error: StreamError,
    },
    /// HAProxy <= 3.0 wants to send fragments, and the agent did not announce that it takes them:
    /// HAPROXY-DISCONNECT 10 is in the output. HAProxy tries again on new connections, with the
    /// same result, until the stream fails with 1.
    #[error("the payload needs fragments, which the agent does not take: disconnected")]
    NoFragmentation,
    /// The stream's previous NOTIFY, or one with the same ids, is still in flight.
    #[error("a NOTIFY with the same stream-id and frame-id is in flight")]
    InFlight,
    /// The connection is ending, or is a health check.
    #[error("the connection takes no more NOTIFYs")]
    Closed,
}

impl NotifyError {
    /// What HAProxy tells the stream, where it does not wait or look for another connection.
    #[must_use]
    pub const fn stream_error(&self) -> Option<StreamError> {
        match self {
            Self::TooBig { error } => Some(*error),
            Self::NoFragmentation => Some(StreamError::TIMEOUT),
            Self::Window | Self::NotReady | Self::InFlight | Self::Closed => None,
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineCloseReason {
    /// The agent said goodbye.
    Agent {
        /// Its status.
        status: Status,
        /// Its message, escaped; of a longer one the first 256 bytes and `...`.
        message: Box<str>,
    },
    /// The agent closed the stream, or the stream failed.
    PeerClosed,
    /// A health check, judged.
    HealthCheck,
    /// [`EngineConnection::shutdown`]: nothing was in flight any more.
    Drained,
    /// [`EngineConnection::close`].
    Closed {
        /// The status this side gave.
        status: Status,
    },
    /// The connection was idle for the idle timeout.
    Idle,
    /// A payload needed fragments, which the agent does not take.
    Fragmentation,
    /// The agent broke the protocol or a time limit.
    Protocol(ProtocolError),
}

/// HAProxy's side of one connection, without I/O: to test an agent, to probe it, to load it.
///
/// The contract and the run loop are those of [`AgentConnection`](crate::AgentConnection#the-contract);
/// what differs:
///
/// - [`notify`](Self::notify) asks. Each NOTIFY it accepts ends in exactly one event,
///   [`Ack`](EngineEvent::Ack) or [`Failed`](EngineEvent::Failed), unless it is
///   [`abandon`](Self::abandon)ed.
/// - Events that no byte of the agent causes (time is up, the connection ended) are given by
///   `receive` too. [`Interest::ready`] says that one waits, and `done` comes after the last.
/// - What an agent may not do, and what comes of it, differs between the generations of HAProxy as
///   [`Dialect`] says. After an error from `receive` HAProxy <= 3.0 has said HAPROXY-DISCONNECT and
///   waits for AGENT-DISCONNECT; from 3.1 it mostly falls silent, its streams time out one by one,
///   and then it resets the connection. Close the socket when `done` says so.
///
/// ```
/// use spop_proto::wire::NotifyPayload;
/// use spop_proto::{
///     AgentConfig, AgentConnection, Dialect, EngineConfig, EngineConnection, EngineEvent, Event,
///     Peer, Scope,
/// };
///
/// # #[allow(clippy::disallowed_methods, reason = "an example")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let now = std::time::Instant::now();
/// let mut agent = AgentConnection::new(AgentConfig::new(), Peer::Unknown, now);
/// let mut haproxy = EngineConnection::new(EngineConfig::new(Dialect::New), now);
/// let payload = NotifyPayload::new("check-client-ip").arg("ip", std::net::Ipv4Addr::LOCALHOST);
/// let asked = haproxy.notify(payload.as_bytes()?, now)?;
///
/// let mut answered = None;
/// let mut wire = Vec::new();
/// while answered.is_none() {
///     haproxy.swap_output(&mut wire);
///     let mut input = &wire[..];
///     while let Some(event) = agent.receive(&mut input, now)? {
///         if let Event::Notify(_, mut ack) = event {
///             ack.set(Scope::Transaction, "ip_score", 0)?;
///         }
///     }
///     agent.swap_output(&mut wire);
///     let mut input = &wire[..];
///     while let Some(event) = haproxy.receive(&mut input, now)? {
///         if let EngineEvent::Ack { id, actions, .. } = event {
///             answered = Some((id, actions.count()));
///         }
///     }
/// }
/// assert_eq!(answered, Some((asked, 1)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EngineConnection {
    rx: Rx,
    core: Core,
    buffer: ReceiveBuffer,
}

impl EngineConnection {
    /// A connection that was just made; HAPROXY-HELLO is in the output.
    #[must_use]
    pub fn new(config: EngineConfig, now: Instant) -> Self {
        let buffer = ReceiveBuffer::new(config.fillable_buffer());
        Self { rx: Rx::default(), core: Core::new(config, now), buffer }
    }

    /// Asks the agent: the first event of a new stream. The payload is one of
    /// [`NotifyPayload`](crate::wire::NotifyPayload); it is not checked, so that an agent can be
    /// shown a bad one.
    ///
    /// # Errors
    /// When nothing was sent; there will be no event for it then.
    pub fn notify(&mut self, payload: &[u8], now: Instant) -> Result<NotifyId, NotifyError> {
        self.core.notify(None, payload, now)
    }

    /// Asks the agent: the next event of a stream whose previous one has ended. With
    /// [`Dialect::Old`] the stream-id is the same, and the frame-id is one more after an ACK but
    /// the same after a failure; the previous NOTIFY may be one of another connection. With
    /// [`Dialect::New`] every event is a stream of its own.
    ///
    /// # Errors
    /// When nothing was sent; there will be no event for it then.
    pub fn notify_again(
        &mut self,
        previous: NotifyId,
        outcome: Outcome,
        payload: &[u8],
        now: Instant,
    ) -> Result<NotifyId, NotifyError> {
        self.core.notify(Some((previous, outcome)), payload, now)
    }

    /// The stream of a NOTIFY has ended before its answer came: its client went away. HAProxy does not
    /// tell the agent, and ignores the answer when it comes. There is no event for the NOTIFY then.
    /// False where it was not in flight any more.
    pub fn abandon(&mut self, id: NotifyId, now: Instant) -> bool {
        self.core.abandon(id, now)
    }

    /// How many NOTIFYs may be sent now. Events that wait for [`receive`](Self::receive) count as
    /// in flight.
    #[must_use]
    pub fn window_left(&self) -> u32 {
        self.core.window_left()
    }

    /// NOTIFYs that have not ended yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.core.streams.len()
    }

    /// Takes the agent's bytes and gives the next event, `None` when there is no more.
    ///
    /// # Errors
    /// When the agent broke the protocol. The connection is ending then, as `interest` will say.
    pub fn receive<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        now: Instant,
    ) -> Result<Option<EngineEvent<'a>>, ProtocolError> {
        let Self { rx, core, buffer } = self;
        loop {
            if let Some((id, error)) = core.streams.next_failed() {
                return Ok(Some(EngineEvent::Failed { id, error }));
            }
            if let Some(failure) = core.check.take() {
                return Ok(Some(EngineEvent::HealthCheck(Err(failure))));
            }
            if !core.takes_frames() {
                rx.clear();
                *input = &[];
                return Ok(None);
            }
            match buffer.admit(rx.unread() + input.len(), now) {
                Admission::Read => {}
                Admission::Wait => {
                    rx.stash(input);
                    return Ok(None);
                }
                Admission::Lost => {
                    rx.clear();
                    *input = &[];
                    return Ok(None);
                }
            }
            let frame = rx.locate(input, |length| core.check_length(length));
            buffer.left(rx.unread() + input.len());
            let (located, step) = match frame {
                Ok(None) => return Ok(None),
                Ok(Some(located)) => {
                    let step = core.on_frame(rx.frame(located), rx.offset(), now);
                    (Some(located), step)
                }
                Err(length) => {
                    let (first, len) = rx.peek::<12>(input);
                    let first = first.get(..len).unwrap_or(&first);
                    (None, core.on_bad_length(length, first, rx.offset(), now))
                }
            };
            let step = match step {
                Ok(step) => step,
                Err(error) => {
                    if core.takes_frames() {
                        // What follows may be the goodbye that is waited for now.
                        rx.stash(input);
                    } else {
                        rx.clear();
                        *input = &[];
                    }
                    return Err(error);
                }
            };
            match step {
                Step::Skip => {}
                Step::Hello => return Ok(Some(EngineEvent::Hello(&core.info))),
                Step::HealthCheck(verdict) => return Ok(Some(EngineEvent::HealthCheck(verdict))),
                Step::Ack { id, ids, actions } => {
                    let frame = located.map_or(&[][..], |located| rx.frame(located));
                    let payload = frame.get(frame.len() - actions..).unwrap_or_default();
                    return Ok(Some(EngineEvent::Ack {
                        id,
                        stream_id: ids.stream,
                        frame_id: ids.frame,
                        actions: Actions::new(payload),
                    }));
                }
                Step::Disconnected { status } => {
                    return Ok(Some(EngineEvent::Disconnected { status }));
                }
            }
        }
    }

    /// What to write: whole frames, one after the other, in one piece.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        self.core.out.transmit()
    }

    /// That many bytes of [`transmit`](Self::transmit) were written. Of a payload in fragments the
    /// next one comes when the last was written whole.
    pub fn transmitted(&mut self, bytes: usize) {
        self.core.transmitted(bytes);
    }

    /// Exchanges the output for an empty buffer, for I/O that takes buffers by value: `buffer`
    /// gets all of [`transmit`](Self::transmit), which counts as written.
    pub fn swap_output(&mut self, buffer: &mut Vec<u8>) {
        self.core.swap_output(buffer);
    }

    /// What to wait for.
    #[must_use]
    pub fn interest(&self) -> Interest {
        let mut want = self.core.interest(self.rx.has_unseen());
        if let Some(until) = self.buffer.stalled_until() {
            want.read = false;
            want.ready = self.core.has_events();
            want.deadline = Some(want.deadline.map_or(until, |deadline| deadline.min(until)));
        }
        want.read &= !self.buffer.is_wedged();
        want
    }

    /// Reads nothing before that time, like a HAProxy that is busy, or stopped. What arrives
    /// meanwhile is kept and then read at once, which matters where
    /// [`EngineConfig::receive_buffer`] is set.
    pub const fn stall_until(&mut self, time: Instant) {
        self.buffer.stall_until(time);
    }

    /// Whether the agent filled [`EngineConfig::receive_buffer`]: nothing will be read any more.
    #[must_use]
    pub const fn is_wedged(&self) -> bool {
        self.buffer.is_wedged()
    }

    /// Does what is due: streams time out, limits of time. To be called at the deadline of
    /// [`interest`](Self::interest); early, late and needless calls do no harm.
    ///
    /// # Errors
    /// When the agent did not answer HELLO in time.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ProtocolError> {
        self.buffer.end_stall(now);
        self.core.handle_timeout(now)
    }

    /// The stream ended, or failed.
    pub fn peer_closed(&mut self, now: Instant) {
        self.core.peer_closed(now);
    }

    /// Begins to leave, as HAProxy does on SIGUSR1: no more NOTIFYs, and when none is in flight the
    /// goodbye of [`Dialect::Old`], or the reset of [`Dialect::New`].
    pub fn shutdown(&mut self, now: Instant) {
        self.core.shutdown(now);
    }

    /// Leaves now. [`Dialect::Old`] says HAPROXY-DISCONNECT with that status and message, and what
    /// is in flight fails when the agent has answered it; [`Dialect::New`] has no goodbye, and what
    /// is in flight fails with 5.
    pub fn close(&mut self, status: Status, message: &str, now: Instant) {
        self.core.close(status, message, now);
    }

    /// What the agent said of itself where it was asked to ([`EngineConfig::describe`]): the text of a
    /// [`Description`](crate::Description), if the agent means well. `None` before the handshake or the
    /// health check is over, and where the agent said nothing: it does not describe itself, or the text
    /// does not fit the frame size.
    #[must_use]
    pub fn description(&self) -> Option<&[u8]> {
        self.core.description.as_deref()
    }

    /// What is known about the connection: both sides' words after the handshake, before it this
    /// side's. [`capabilities`](ConnectionInfo::capabilities) are those in use: what the agent
    /// announced and HAProxy makes use of.
    #[must_use]
    pub const fn info(&self) -> &ConnectionInfo {
        &self.core.info
    }

    /// Why the connection is ending; `None` while it is not.
    #[must_use]
    pub const fn close_reason(&self) -> Option<&EngineCloseReason> {
        self.core.reason.as_ref()
    }
}
