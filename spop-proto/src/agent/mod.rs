//! The agent's side of a connection.

mod core;
mod ending;
mod frames;
mod handshake;
mod time;

use ::core::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::core::{Core, Payload, Phase, Step};
use crate::ack::{Ack, AnswerOnError, StaleTicket, Ticket};
use crate::cut::MaybeCut;
use crate::driver::Input;
use crate::info::{ConnectionInfo, Peer};
use crate::request::Notify;
use crate::rx::Rx;
use crate::server::Seat;
use crate::stats::{Counters, Stats};
use crate::tx::Tx;
use crate::wire::{Capabilities, Messages};
use crate::{AgentConfig, ConnectionStats, ProtocolError, Status};

/// How long a connection beyond the limit is kept: HAProxy >= 3.1 holds on to a connection that it
/// gave a stream to, and one that is closed at once is retried at once.
const TURNED_AWAY_AFTER: Duration = Duration::from_millis(100);

/// What a driver waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interest {
    /// Wait until the peer's bytes can be read, or its end of stream.
    pub read: bool,
    /// Wait until [`transmit`](AgentConnection::transmit) can be written.
    pub write: bool,
    /// Do not wait: call [`receive`](AgentConnection::receive) now, with no input: what is kept comes
    /// first, and more of it would have to be kept as well.
    pub ready: bool,
    /// Wait no longer than this, then call [`handle_timeout`](AgentConnection::handle_timeout).
    pub deadline: Option<Instant>,
    /// Nothing more will happen: drop the connection and close the stream.
    pub done: bool,
}

/// What a peer's bytes amounted to.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The handshake is done.
    Hello(&'a ConnectionInfo),
    /// A health check was answered; HAProxy closes next.
    HealthCheck {
        /// Whether it was told that the agent is well.
        healthy: bool,
    },
    /// HAProxy asks, and waits for the answer.
    Notify(Notify<'a>, Ack<'a>),
    /// An argument of the NOTIFY before this is a string, or binary, and as long as a body that HAProxy cut
    /// because its buffer was full: of it, and of the rest, HAProxy says nothing. Once for each message and
    /// argument of an agent (of 64 of them), and always after that NOTIFY. For a log: its text says what to
    /// change.
    ///
    /// That length is from 6 144 bytes below the size of HAProxy's buffer up to it: headers of 4 KiB leave so
    /// much. The size is taken from the frame size that HAProxy offers; where that is not what it amounts to,
    /// [`Pacing::bufsize`](crate::Pacing::bufsize) says it.
    MaybeCut(&'a MaybeCut),
    /// A payload that came in fragments was given up before it was whole.
    Abandoned {
        /// Its stream-id.
        stream_id: u64,
        /// Its frame-id.
        frame_id: u64,
        /// Who gave it up.
        by: AbandonedBy,
    },
    /// HAProxy said goodbye; see [`AgentConnection::close_reason`] for its words.
    Disconnected {
        /// HAProxy's status.
        status: Status,
    },
}

/// Who gave a fragmented payload up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AbandonedBy {
    /// HAProxy: its stream ended first.
    Haproxy,
    /// This side: the payload exceeded [`Limits::payload`](crate::Limits::payload).
    Limit,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// HAProxy said goodbye.
    Haproxy {
        /// Its status.
        status: Status,
        /// Its message, escaped; of a longer one the first 256 bytes and `...`.
        message: Box<str>,
    },
    /// HAProxy closed the stream, or the stream failed: an ordinary end.
    PeerClosed,
    /// A health check, answered.
    HealthCheck,
    /// [`AgentConnection::shutdown`]: everything owed was answered.
    Drained,
    /// [`AgentConnection::shutdown`]: the drain deadline came first.
    Cut {
        /// Answers that were still owed.
        owed: u32,
    },
    /// [`AgentConnection::close`].
    Closed {
        /// The status this side gave.
        status: Status,
    },
    /// Nothing happened for the idle timeout.
    Idle,
    /// It was as old as a connection may get ([`Limits::max_age`](crate::Limits::max_age)); everything
    /// owed was answered.
    Aged,
    /// A fragmented payload was refused while HAProxy was still sending it: from then on HAProxy
    /// <= 3.0 counts on the connection and asks nothing on it.
    Unused,
    /// The agent has as many connections as it may.
    ConnectionLimit,
    /// The peer broke the protocol or a time limit.
    Protocol(ProtocolError),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Haproxy { status, message } => {
                write!(f, "HAProxy said goodbye: status {status}, \"{message}\"")
            }
            Self::PeerClosed => f.write_str("closed by the peer"),
            Self::HealthCheck => f.write_str("health check answered"),
            Self::Drained => f.write_str("drained"),
            Self::Cut { owed } => write!(f, "cut at the drain deadline with {owed} answers owed"),
            Self::Closed { status } => write!(f, "closed with status {status}"),
            Self::Idle => f.write_str("idle for too long"),
            Self::Aged => f.write_str("as old as it may get"),
            Self::Unused => f.write_str("not used any more after a payload was refused"),
            Self::ConnectionLimit => f.write_str("too many connections"),
            Self::Protocol(error) => error.fmt(f),
        }
    }
}

/// The agent's side of one connection, without I/O: bytes in, events and bytes out.
///
/// # The contract
/// - [`receive`](Self::receive) takes any chunk of the peer's bytes and gives the next event. Call
///   it until it gives `None`; by then the input is empty.
/// - [`transmit`](Self::transmit) is what to write; [`transmitted`](Self::transmitted) tells how
///   much of it was written.
/// - [`interest`](Self::interest) says what to wait for. It costs next to nothing.
/// - [`handle_timeout`](Self::handle_timeout) is due at the deadline it names.
/// - [`peer_closed`](Self::peer_closed) tells of the end of the stream.
///
/// There is nothing else to remember. Time is an argument and never read inside. An error from
/// `receive` or `handle_timeout` is for the log: the goodbye is already in the output, further
/// input is discarded, and `interest` leads to `done`.
///
/// # The run loop
/// ```
/// use spop_proto::{AgentConfig, AgentConnection, Event, Peer, Scope};
/// use std::io::{Read, Write};
/// use std::time::{Duration, Instant};
///
/// fn serve(mut stream: std::net::TcpStream) -> std::io::Result<()> {
///     let mut conn = AgentConnection::new(AgentConfig::new(), Peer::Unknown, Instant::now());
///     let mut scratch = [0; 16 * 1024];
///     loop {
///         let want = conn.interest();
///         let now = Instant::now();
///         if want.done {
///             return Ok(());
///         }
///         if want.write {
///             let written = stream.write(conn.transmit())?;
///             conn.transmitted(written);
///             continue;
///         }
///         let mut input = &[][..];
///         if !want.ready {
///             let wait = want.deadline.map(|at| at.saturating_duration_since(now));
///             stream.set_read_timeout(wait.map(|t| t.max(Duration::from_millis(1))))?;
///             match stream.read(&mut scratch) {
///                 Ok(0) => conn.peer_closed(now),
///                 Ok(n) => input = &scratch[..n],
///                 Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
///                 Err(e) => return Err(e),
///             }
///         }
///         let now = Instant::now();
///         let _ = conn.handle_timeout(now);
///         while let Ok(Some(event)) = conn.receive(&mut input, now) {
///             if let Event::Notify(notify, mut ack) = event {
///                 let known = notify.message("check-client-ip").is_some();
///                 let _ = ack.set(Scope::Transaction, "known", known);
///             } // dropped here, the answer is in the output
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct AgentConnection {
    rx: Rx,
    core: Core,
    /// Its place among the connections of its server, if that counts them.
    seat: Option<Seat>,
}

impl AgentConnection {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(config: AgentConfig, peer: Peer, now: Instant) -> Self {
        config.stats().into_iter().for_each(Stats::opened);
        let hello = now.checked_add(config.current_limits().hello);
        Self {
            rx: Rx::default(),
            core: Core::new(config, peer, Phase::Hello, hello, now),
            seat: None,
        }
    }

    /// A connection that was accepted although the agent has as many as it may. Health checks are
    /// answered; anything else is closed after 100 ms. (Left in the backlog, connections of
    /// HAProxy >= 3.1 would hold requests that nobody answers.)
    #[must_use]
    pub fn over_limit(config: AgentConfig, peer: Peer, now: Instant) -> Self {
        config.stats().into_iter().for_each(Stats::opened);
        let end = now.checked_add(TURNED_AWAY_AFTER);
        let core = Core::new(config, peer, Phase::HelloOverLimit, end, now);
        Self { rx: Rx::default(), core, seat: None }
    }

    /// The same with a seat, which it keeps until it is dropped.
    pub(crate) fn seated(mut self, seat: Seat) -> Self {
        self.seat = Some(seat);
        self
    }

    /// Takes the peer's bytes and gives the next event, `None` when there is no more in them.
    ///
    /// A frame that is whole in `input` is parsed where it lies. Of `input` only the part that is
    /// no whole frame is copied (and the rest of it while reading has to wait for output). Read as much
    /// as there is, into a buffer of 4 KiB at least: [`Pacing`](crate::Pacing) takes a smaller input for
    /// the end of what there was.
    ///
    /// # Errors
    /// When the peer broke the protocol. The connection is closing then, as `interest` will say.
    // So that the usual event is never written to memory: it is large.
    #[inline(always)]
    pub fn receive<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        now: Instant,
    ) -> Result<Option<Event<'a>>, ProtocolError> {
        self.core.begin(now);
        if !input.is_empty() {
            self.core.tx.set_active(now);
            self.core.tx.pace_input(input.len(), now);
        } else if self.rx.is_empty() && self.core.has_nothing_to_do() {
            return Ok(None);
        }
        if let Some((ids, messages)) = self.core.take_whole_notify(&mut self.rx, input, now) {
            let Core { tx, info, .. } = &mut self.core;
            tx.lends(messages.payload().len());
            let notify = Notify::new(messages, ids, info);
            return Ok(Some(Event::Notify(notify, Ack::new(tx, ids, None))));
        }
        self.receive_any(input, now)
    }

    #[inline(never)]
    fn receive_any<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        now: Instant,
    ) -> Result<Option<Event<'a>>, ProtocolError> {
        let Self { rx, core, .. } = self;
        if core.control.tells_of_cut {
            return Ok(core.control.take_cut().map(Event::MaybeCut));
        }
        loop {
            if !core.takes_frames() {
                rx.clear();
                *input = &[];
                return Ok(None);
            }
            if !input.is_empty() || rx.has_pending() {
                core.look_at_agent(now);
            }
            if core.blocked() {
                rx.stash(input);
                core.leave_if_drained(rx.has_pending(), now);
                return Ok(None);
            }
            let limit = core.frame_limit();
            let located = match rx.locate(input, |length| limit.check(length)) {
                Ok(Some(located)) => located,
                Ok(None) => {
                    core.drained_input(rx.has_pending(), now);
                    return Ok(None);
                }
                Err(length) => {
                    let (first, len) = rx.peek::<12>(input);
                    let first = first.get(..len).unwrap_or(&first);
                    let error = limit.error(length, first, rx.offset());
                    *input = &[];
                    rx.clear();
                    return Err(core.fail(error, now));
                }
            };
            match core.on_frame(rx.frame(located), rx.offset(), now) {
                Ok(Step::Skip) => {}
                Ok(Step::Notify(ids, payload)) => {
                    let Core { reassembly, tx, info, control } = core;
                    let payload = match payload {
                        Payload::Frame(len) => {
                            let frame = rx.frame(located);
                            frame.get(frame.len() - len..).unwrap_or_default()
                        }
                        Payload::Reassembled => reassembly.payload(),
                    };
                    if control.window.may_lie_in(payload.len()) {
                        control.look_for_cut(payload, tx, info);
                    }
                    tx.lends(payload.len());
                    let notify = Notify::new(Messages::checked(payload), ids, info);
                    let ack = Ack::new(tx, ids, None);
                    return Ok(Some(Event::Notify(notify, ack)));
                }
                Ok(Step::Hello) => return Ok(Some(Event::Hello(&core.info))),
                Ok(Step::HealthCheck { healthy }) => {
                    return Ok(Some(Event::HealthCheck { healthy }));
                }
                Ok(Step::Abandoned(ids, by)) => {
                    return Ok(Some(Event::Abandoned {
                        stream_id: ids.stream,
                        frame_id: ids.frame,
                        by,
                    }));
                }
                Ok(Step::Disconnected { status }) => {
                    return Ok(Some(Event::Disconnected { status }));
                }
                Err(error) => {
                    *input = &[];
                    return Err(core.fail(error, now));
                }
            }
        }
    }

    /// The answer to a NOTIFY that was deferred.
    ///
    /// # Errors
    /// When nothing waits for it any more. That is no fault: the deadline has answered, HAProxy
    /// has asked anew, or the connection ended.
    pub fn answer(&mut self, ticket: Ticket, now: Instant) -> Result<Ack<'_>, StaleTicket> {
        let Self { core, .. } = self;
        core.begin(now);
        if ticket.connection != core.tx.serial {
            return Err(StaleTicket);
        }
        let ids = core.tx.in_flight.get(ticket.key).ok_or(StaleTicket)?;
        core.tx.set_active(now);
        Ok(Ack::new(&mut core.tx, ids, Some(ticket.key)))
    }

    /// The answer to a NOTIFY that was deferred, to be sent on `other`: both connections must be of
    /// one engine, and both sides must have agreed on `async` on each of them
    /// ([`AgentConfig::async`]). `other` counts it as answered, this connection as given
    /// [`elsewhere`](ConnectionStats::elsewhere).
    ///
    /// # Errors
    /// When nothing waits for the answer any more; or when it cannot go over that connection, and then
    /// the ticket comes back: [`answer`](Self::answer) it here.
    pub fn answer_on<'b>(
        &mut self,
        other: &'b mut Self,
        ticket: Ticket,
        now: Instant,
    ) -> Result<Ack<'b>, AnswerOnError> {
        self.core.begin(now);
        if !self.owes(&ticket) {
            return Err(AnswerOnError::Stale);
        }
        if !self.shares_answers_with(other) {
            return Err(AnswerOnError::NotShared { ticket });
        }
        let ids = self.core.tx.in_flight.get(ticket.key).ok_or(AnswerOnError::Stale)?;
        self.core.tx.in_flight.remove(ticket.key);
        other.core.begin(now);
        if other.core.tx.in_flight.find(ids).is_some() {
            // Asked anew, over there: an answer to the first question would be taken for this one's.
            self.core.tx.stats.others().superseded += 1;
            return Err(AnswerOnError::Stale);
        }
        self.core.tx.stats.others().elsewhere += 1;
        other.core.tx.set_active(now);
        Ok(Ack::new(&mut other.core.tx, ids, None))
    }

    fn shares_answers_with(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.info(), other.info());
        let agreed = |info: &ConnectionInfo| info.capabilities().contains(Capabilities::ASYNC);
        other.core.control.phase == Phase::Ready
            && agreed(mine)
            && agreed(theirs)
            && mine.engine_id().is_some()
            && mine.engine_id() == theirs.engine_id()
    }

    /// Whether the NOTIFY of a ticket still waits for its answer.
    #[must_use]
    pub fn owes(&self, ticket: &Ticket) -> bool {
        ticket.connection == self.core.tx.serial && self.core.tx.in_flight.get(ticket.key).is_some()
    }

    /// For how long the NOTIFY of a ticket has waited for its answer, since it was deferred; `None` where
    /// it waits no more.
    #[must_use]
    #[inline]
    pub fn owed_for(&self, ticket: &Ticket, now: Instant) -> Option<Duration> {
        let Tx { in_flight, serial, .. } = &self.core.tx;
        // Deferred with a deadline, it needs no time of its own.
        let deadline = in_flight.deadline(ticket.key).filter(|_| ticket.connection == *serial)?;
        Some(self.answer_timeout().saturating_sub(deadline.saturating_duration_since(now)))
    }

    pub(crate) fn answer_timeout(&self) -> Duration {
        self.core.tx.config.current_limits().answer
    }

    /// Answers owed: NOTIFYs that were deferred.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.core.tx.in_flight.len()
    }

    /// What to write: whole frames, one after the other, in one piece.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        self.core.tx.transmit()
    }

    /// That many bytes of [`transmit`](Self::transmit) were written.
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
        self.core.interest(&self.rx)
    }

    /// The part of it that the beginning of a turn asks for, which takes less.
    #[inline]
    pub(crate) fn input(&self) -> Input {
        match self.core.wants_input(&self.rx) {
            _ if self.core.control.phase == Phase::Done => Input::None,
            (true, _) => Input::Kept,
            (false, true) => Input::Stream,
            (false, false) => Input::None,
        }
    }

    /// Does what is due: late answers, limits of time, memory given back. To be called at the
    /// deadline of [`interest`](Self::interest); early, late and needless calls do no harm.
    ///
    /// # Errors
    /// When a peer exceeded a time limit. The connection is closing then, as `interest` will say.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ProtocolError> {
        let result = self.core.handle_timeout(self.rx.has_pending(), now);
        if self.core.trim_due(self.rx.capacity(), now) {
            self.rx.trim();
            self.core.trim(now);
        }
        result
    }

    /// The stream ended, or failed. What is in the output may still be written; no answer is owed
    /// any more.
    pub fn peer_closed(&mut self, now: Instant) {
        self.core.peer_closed(now);
    }

    /// Begins to leave: at once where nothing is owed, else as soon as everything is answered or
    /// the drain deadline has come. HAProxy is told goodbye. NOTIFYs that arrive before that are
    /// answered like any other in the first half of the drain, and with the fallback in the second:
    /// a busy connection is to come to a moment at which nothing is owed.
    pub fn shutdown(&mut self, now: Instant) {
        self.core.shutdown(self.rx.has_pending(), now);
    }

    /// Leaves now, with that status and message; what is owed stays unanswered. HAProxy shows the
    /// status as 256 + N to the streams that wait.
    pub fn close(&mut self, status: Status, message: &str, now: Instant) {
        self.core.close(status, message, now);
    }

    /// What is known about the connection; before the handshake no more than the peer.
    #[must_use]
    pub fn info(&self) -> &Arc<ConnectionInfo> {
        &self.core.info
    }

    /// What was counted so far.
    #[must_use]
    #[inline]
    pub fn stats(&self) -> ConnectionStats {
        self.core.tx.stats.now().all()
    }

    /// The same where they lie.
    pub(crate) const fn counters(&self) -> &Counters {
        &self.core.tx.stats
    }

    /// Whether HAProxy's HELLO was answered with one.
    pub(crate) fn is_greeted(&self) -> bool {
        self.core.control.window.is_known()
    }

    /// Its configuration.
    #[must_use]
    pub const fn config(&self) -> &AgentConfig {
        &self.core.tx.config
    }

    /// The counters of its agent.
    pub(crate) fn shared_stats(&self) -> Option<&Stats> {
        self.core.tx.config.stats()
    }

    /// Tells connections apart.
    pub(crate) const fn serial(&self) -> u64 {
        self.core.tx.serial
    }

    /// Why the connection is ending; `None` while it is not.
    #[must_use]
    pub fn close_reason(&self) -> Option<&CloseReason> {
        self.core.control.reason()
    }

    /// Bytes of memory behind the connection's buffers. Falls to 0 a second after the last frame
    /// of a connection that owes nothing.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.rx.capacity() + self.core.capacity()
    }
}

/// However it ends, it is not open any more.
impl Drop for AgentConnection {
    fn drop(&mut self) {
        if let Some(stats) = self.shared_stats() {
            stats.closed(self.close_reason(), self.info(), self.in_flight());
        }
    }
}
