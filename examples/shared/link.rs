//! HAProxy's side of one connection, on a blocking socket.

mod foreign;
mod socket;

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;
use spop_proto::wire::{AgentHello, Capabilities, Disconnect, Frame, FrameType};
use spop_proto::{
    CheckFailure, Endpoint, EngineCloseReason, EngineConfig, EngineConnection, EngineEvent,
    ProtocolError, Status,
};

pub(crate) use self::foreign::Foreign;

/// How long an agent may take to answer a goodbye.
const GOODBYE: Duration = Duration::from_millis(100);
const CHUNK: usize = 16 * 1024;

/// Why there is no connection to ask on.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// No connection.
    Unreachable(String),
    /// Not a byte.
    Silent(Duration),
    /// Some bytes, which are not a whole frame.
    Unfinished(usize, Duration),
    /// The connection ended; so many bytes came before.
    Closed(usize),
    /// Another protocol.
    Foreign(Foreign),
    /// A handshake that HAProxy does not take.
    Wrong(String),
    /// AGENT-DISCONNECT instead of AGENT-HELLO.
    Refused {
        /// Its status.
        status: Status,
        /// Its message.
        message: String,
        /// What HAProxy shows, in the case of a health check.
        shown: Option<CheckFailure>,
    },
}

impl Failure {
    /// The exit status.
    pub(crate) const fn exit(&self) -> u8 {
        match self {
            Self::Unreachable(_) => 2,
            Self::Refused { .. } => 4,
            _ => 3,
        }
    }

    /// One word for machines.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Silent(_) => "silent",
            Self::Unfinished(..) => "unfinished",
            Self::Closed(_) => "closed",
            Self::Foreign(foreign) => foreign.word(),
            Self::Wrong(_) => "wrong-handshake",
            Self::Refused { .. } => "refused",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) => f.write_str(reason),
            Self::Silent(time) => write!(
                f,
                "took the connection and said nothing for {time:?}. Does the agent hang, or is it \
                 another kind of server?"
            ),
            Self::Unfinished(bytes, time) => {
                write!(f, "sent {bytes} bytes in {time:?}, which are no whole frame")
            }
            Self::Closed(0) => f.write_str(
                "took the connection and closed it without a word. Has the agent as many connections \
                 as it serves, or does something in between expect another protocol?",
            ),
            Self::Closed(bytes) => {
                write!(f, "closed the connection after {bytes} bytes, which are no whole frame")
            }
            Self::Foreign(foreign) => foreign.fmt(f),
            Self::Wrong(reason) => write!(f, "no handshake: {reason}"),
            Self::Refused { status, message, shown } => {
                write!(f, "refused with status {status}")?;
                if !message.is_empty() {
                    write!(f, ": \"{message}\"")?;
                }
                match shown {
                    Some(shown) => write!(f, "; HAProxy shows \"{shown}\""),
                    None => Ok(()),
                }
            }
        }
    }
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// It did not; the time is up.
    Timeout,
    /// The agent closed it.
    Closed,
    /// The agent said goodbye.
    Goodbye(Status, String),
    /// The agent broke the protocol.
    Broken(ProtocolError),
}

/// What was agreed on.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    /// The agent's version.
    pub(crate) version: String,
    /// The agent's list of capabilities as it stands in AGENT-HELLO.
    pub(crate) announced: String,
    /// What HAProxy makes use of.
    pub(crate) in_use: Capabilities,
    /// In bytes, without the length field.
    pub(crate) max_frame_size: u32,
    /// From the connection's beginning to the end of the handshake.
    pub(crate) took: Duration,
}

/// A connection to an agent.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) engine: EngineConnection,
    socket: Socket,
    /// All that came until the handshake was over.
    first: Vec<u8>,
    shaking_hands: bool,
}

impl Link {
    /// Connects and waits for the handshake, or for the verdict if `config` is a health check's;
    /// both take at most `time`.
    pub(crate) fn open(
        agent: &Endpoint,
        config: EngineConfig,
        time: Duration,
    ) -> Result<(Self, Agreed), Failure> {
        // The engine's own limits, where it has some, would be a second clock.
        let config = config.hello_timeout(None).map_err(wrong)?;
        let config = config.idle_timeout(None).map_err(wrong)?;
        let start = Instant::now();
        let until = start + time;
        let socket = socket::connect(agent, time).map_err(Failure::Unreachable)?;
        let engine = EngineConnection::new(config, Instant::now());
        let mut link = Self { engine, socket, first: Vec::new(), shaking_hands: true };
        let mut verdict = None;
        let driven = link.drive(until, |event| match event {
            EngineEvent::Hello(_) => true,
            EngineEvent::HealthCheck(result) => {
                verdict = Some(result);
                true
            }
            _ => false,
        });
        link.shaking_hands = false;
        match (driven, verdict) {
            (Ok(()), None | Some(Ok(()))) => {
                let agreed = link.agreed(start.elapsed()).map_err(wrong)?;
                Ok((link, agreed))
            }
            (Ok(()), Some(Err(check))) => Err(link.failed_check(check)),
            (Err(end), _) => Err(link.no_handshake(end, time)),
        }
    }

    /// Moves bytes and time on until `take` has had enough of the events, or `until`.
    pub(crate) fn drive(
        &mut self,
        until: Instant,
        mut take: impl FnMut(EngineEvent<'_>) -> bool,
    ) -> Result<(), End> {
        let mut chunk = [0; CHUNK];
        loop {
            self.write(until)?;
            let want = self.engine.interest();
            if want.done {
                return Err(self.end());
            }
            let mut input: &[u8] = &[];
            if !want.ready {
                let wake = want.deadline.map_or(until, |deadline| deadline.min(until));
                let wait = wake.saturating_duration_since(Instant::now());
                if want.read && !wait.is_zero() {
                    input = self.read(&mut chunk, wait);
                } else {
                    thread::sleep(wait);
                }
            }
            let now = Instant::now();
            let mut broken = None;
            if want.deadline.is_some_and(|deadline| deadline <= now) {
                broken = self.engine.handle_timeout(now).err();
            }
            // To the last event, so that no byte of the input is lost.
            let mut enough = false;
            loop {
                match self.engine.receive(&mut input, now) {
                    Ok(Some(event)) => enough |= take(event),
                    Ok(None) => break,
                    Err(error) => broken = Some(error),
                }
            }
            match broken {
                _ if enough => return Ok(()),
                Some(error) => {
                    // HAProxy's last word, if the agent takes it.
                    let _ = self.write(until);
                    return Err(End::Broken(error));
                }
                None if now >= until => return Err(End::Timeout),
                None => {}
            }
        }
    }

    /// Leaves as HAProxy does, without waiting long for an agent that has no manners.
    pub(crate) fn leave(mut self) {
        let now = Instant::now();
        self.engine.shutdown(now);
        // However it ends, it has ended.
        let _ = self.drive(now + GOODBYE, |_| false);
    }

    /// What came; nothing when the time was up first, or when the connection has ended.
    fn read<'c>(&mut self, chunk: &'c mut [u8; CHUNK], wait: Duration) -> &'c [u8] {
        // Zero would mean without end.
        let wait = wait.max(Duration::from_millis(1));
        let read = self.socket.set_read_timeout(Some(wait)).and_then(|()| self.socket.read(chunk));
        match read {
            Ok(bytes @ 1..) => {
                let input = chunk.get(..bytes).unwrap_or_default();
                if self.shaking_hands {
                    self.first.extend_from_slice(input);
                }
                input
            }
            Err(error) if is_no_end(error.kind()) => &[],
            Ok(_) | Err(_) => {
                self.engine.peer_closed(Instant::now());
                &[]
            }
        }
    }

    /// Writes all there is.
    fn write(&mut self, until: Instant) -> Result<(), End> {
        loop {
            let output = self.engine.transmit();
            if output.is_empty() {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(End::Timeout);
            }
            let left = left.max(Duration::from_millis(1));
            let written =
                self.socket.set_write_timeout(Some(left)).and_then(|()| self.socket.write(output));
            match written {
                Ok(bytes) => self.engine.transmitted(bytes),
                Err(error) if is_no_end(error.kind()) => {}
                // What the agent said before is still to be read, and then the end.
                Err(_) => self.engine.swap_output(&mut Vec::new()),
            }
        }
    }

    /// How it ended.
    pub(crate) fn end(&self) -> End {
        match self.engine.close_reason() {
            Some(EngineCloseReason::Agent { status, message }) => {
                End::Goodbye(*status, message.to_string())
            }
            Some(EngineCloseReason::Protocol(error)) => End::Broken(error.clone()),
            _ => End::Closed,
        }
    }

    fn agreed(&self, took: Duration) -> Result<Agreed, &'static str> {
        let no_hello = "AGENT-HELLO was not the first frame";
        let (frame, _) = Frame::split(&self.first).ok().flatten().ok_or(no_hello)?;
        let hello = AgentHello::decode(frame.payload).map_err(|_| no_hello)?;
        let text = |bytes: Option<&[u8]>| bytes.unwrap_or_default().escape_ascii().to_string();
        let info = self.engine.info();
        let size = info.max_frame_size();
        let named = hello.max_frame_size.and_then(|size| u32::try_from(size).ok());
        Ok(Agreed {
            version: text(hello.version),
            announced: text(hello.capabilities),
            in_use: info.capabilities(),
            // A health check agrees on nothing.
            max_frame_size: named.map_or(size, |named| named.min(size)),
            took,
        })
    }

    fn failed_check(&self, check: CheckFailure) -> Failure {
        if let Some(foreign) = Foreign::of(&self.first) {
            return Failure::Foreign(foreign);
        }
        match (goodbye(&self.first), check) {
            (Some((status, message)), _) => {
                Failure::Refused { status, message, shown: Some(check) }
            }
            (None, CheckFailure::Closed) => Failure::Closed(self.first.len()),
            (None, _) => Failure::Wrong(check.to_string()),
        }
    }

    fn no_handshake(&self, end: End, time: Duration) -> Failure {
        if let Some(foreign) = Foreign::of(&self.first) {
            return Failure::Foreign(foreign);
        }
        // HAProxy >= 3.1 sees no goodbye in it, and who wants to know why does.
        if let Some((status, message)) = goodbye(&self.first) {
            return Failure::Refused { status, message, shown: None };
        }
        match end {
            End::Timeout if self.first.is_empty() => Failure::Silent(time),
            End::Timeout => Failure::Unfinished(self.first.len(), time),
            End::Closed => Failure::Closed(self.first.len()),
            End::Goodbye(status, message) => Failure::Refused { status, message, shown: None },
            End::Broken(error) => Failure::Wrong(error.to_string()),
        }
    }
}

/// The status and the message of an AGENT-DISCONNECT at the beginning of `bytes`.
fn goodbye(bytes: &[u8]) -> Option<(Status, String)> {
    let (frame, _) = Frame::split(bytes).ok()??;
    if frame.header.kind != FrameType::AGENT_DISCONNECT {
        return None;
    }
    let goodbye = Disconnect::decode(frame.payload).ok()?;
    Some((goodbye.status, goodbye.message.escape_ascii().to_string()))
}

/// Whether a read or write may go on after that.
fn is_no_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn wrong(reason: impl fmt::Display) -> Failure {
    Failure::Wrong(reason.to_string())
}
