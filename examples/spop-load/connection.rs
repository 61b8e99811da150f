//! One connection: HAProxy's side on a socket, and the check of what comes back.

use std::io::{self, ErrorKind, Read, Write};
use std::net::ToSocketAddrs;
use std::time::Instant;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use spop_proto::wire::{Action, Actions, Value};
use spop_proto::{Endpoint, EngineConfig, EngineConnection, EngineEvent, NotifyError, NotifyId};

use crate::args::Args;
use crate::payload::Template;
use crate::worker::Tally;

/// Output is gathered up to that many bytes before it is written.
const GATHER: usize = 128 * 1024;

/// What a stream is asked, and what of it is not answered.
#[derive(Debug)]
pub(crate) struct Connection {
    engine: EngineConnection,
    stream: Stream,
    asked: Vec<Asked>,
    /// Taken from the engine, not yet by the socket.
    unsent: Vec<u8>,
    answered: u64,
    leaving: bool,
}

#[derive(Debug)]
struct Asked {
    id: NotifyId,
    /// When it was to be asked.
    due: Instant,
    /// The last byte of the address.
    byte: u8,
}

impl Connection {
    /// Connects. `streams` is where the ids of its streams begin, with the old dialect.
    pub(crate) fn open(
        args: &Args,
        streams: u64,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let config = EngineConfig::new(args.dialect.into())
            .max_frame_size(args.max_frame_size)?
            .window(args.in_flight)
            .first_stream_id(streams)
            .processing_timeout(args.timeout)?;
        let mut stream = Stream::connect(&args.agent)?;
        stream.source().register(registry, token, Interest::READABLE | Interest::WRITABLE)?;
        let engine = EngineConnection::new(config, Instant::now());
        let asked = Vec::with_capacity(usize::try_from(args.in_flight.get())?);
        Ok(Self { engine, stream, asked, unsent: Vec::new(), answered: 0, leaving: false })
    }

    /// Whether one more can be asked now.
    pub(crate) fn has_room(&self) -> bool {
        !self.leaving && self.unsent.len() < GATHER && self.engine.window_left() > 0
    }

    /// Asks what was to be asked at `due`; false where it cannot be asked now.
    pub(crate) fn ask(
        &mut self,
        template: &mut Template,
        due: Instant,
        now: Instant,
    ) -> Result<bool, NotifyError> {
        let (payload, byte) = template.next();
        match self.engine.notify(payload, now) {
            Ok(id) => {
                self.asked.push(Asked { id, due, byte });
                self.gather();
                Ok(true)
            }
            Err(NotifyError::Window | NotifyError::NotReady | NotifyError::Closed) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// NOTIFYs without an answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.asked.len()
    }

    /// Begins to leave: what is in flight is waited for.
    pub(crate) fn leave(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.leaving, true) {
            self.engine.shutdown(now);
            self.gather();
        }
    }

    /// Reads all there is and checks it; `scratch` is for the bytes.
    pub(crate) fn read(&mut self, scratch: &mut [u8], args: &Args, tally: &mut Tally) {
        loop {
            let read = self.stream.read(scratch);
            let now = Instant::now();
            match read {
                Ok(read @ 1..) => {
                    self.receive(scratch.get(..read).unwrap_or_default(), now, args, tally);
                    if read == scratch.len() {
                        continue;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => {
                    self.engine.peer_closed(now);
                    self.receive(&[], now, args, tally);
                }
            }
            break;
        }
        if let Some(answers) = args.churn
            && self.answered >= answers.get()
        {
            self.leave(Instant::now());
        }
        self.gather();
    }

    /// Does what is due, if anything is.
    pub(crate) fn look_at_clock(&mut self, now: Instant, args: &Args, tally: &mut Tally) {
        let want = self.engine.interest();
        if want.deadline.is_some_and(|at| at <= now) {
            if self.engine.handle_timeout(now).is_err() {
                tally.broken += 1;
            }
            self.receive(&[], now, args, tally);
            self.gather();
        }
    }

    /// Nothing more will happen here, or nothing that would be waited for: HAProxy's goodbye is its
    /// last word.
    pub(crate) fn is_over(&self) -> bool {
        let want = self.engine.interest();
        want.done || (self.leaving && self.asked.is_empty() && self.unsent.is_empty())
    }

    /// Writes as much as the socket takes.
    pub(crate) fn write(&mut self, now: Instant, args: &Args, tally: &mut Tally) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written @ 1..) if written == self.unsent.len() => self.unsent.clear(),
                Ok(written @ 1..) => {
                    self.unsent.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => {
                    self.unsent.clear();
                    self.engine.peer_closed(now);
                    self.receive(&[], now, args, tally);
                    return;
                }
            }
            self.gather();
        }
    }

    /// Says goodbye to the poll.
    pub(crate) fn close(mut self, registry: &Registry) {
        // Closing would do it too.
        let _ = self.stream.source().deregister(registry);
    }

    /// Takes the engine's output: fragments come one by one, and are to go out together.
    fn gather(&mut self) {
        while self.unsent.len() < GATHER {
            let output = self.engine.transmit();
            let bytes = output.len();
            if bytes == 0 {
                return;
            }
            self.unsent.extend_from_slice(output);
            self.engine.transmitted(bytes);
        }
    }

    fn receive(&mut self, mut input: &[u8], now: Instant, args: &Args, tally: &mut Tally) {
        loop {
            match self.engine.receive(&mut input, now) {
                Ok(Some(EngineEvent::Ack { id, actions, .. })) => {
                    let Some(asked) = take(&mut self.asked, id) else {
                        tally.wrong += 1;
                        continue;
                    };
                    self.answered += 1;
                    if is_right(actions, asked.byte, args.expect.as_deref()) {
                        tally.answered(asked.due, now);
                    } else {
                        tally.wrong += 1;
                    }
                }
                Ok(Some(EngineEvent::Failed { id, error })) => {
                    take(&mut self.asked, id);
                    *tally.failed.entry(error.0).or_default() += 1;
                }
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    tally.broken += 1;
                    tally.first_error.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }
}

/// Whether all actions decode, and one is the one that is expected.
fn is_right(actions: Actions<'_>, byte: u8, expect: Option<&str>) -> bool {
    let mut found = expect.is_none();
    for action in actions {
        match action {
            Ok(Action::SetVar { name, value, .. })
                if expect.is_some_and(|e| e.as_bytes() == name) =>
            {
                found = match value {
                    Value::Int32(v) => v == i32::from(byte),
                    Value::Int64(v) => v == i64::from(byte),
                    Value::Uint32(v) => v == u32::from(byte),
                    Value::Uint64(v) => v == u64::from(byte),
                    _ => false,
                };
            }
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    found
}

fn take(asked: &mut Vec<Asked>, id: NotifyId) -> Option<Asked> {
    let index = asked.iter().position(|asked| asked.id == id)?;
    Some(asked.swap_remove(index))
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(agent: &Endpoint) -> io::Result<Self> {
        match agent {
            Endpoint::Tcp(address) => {
                let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
                for address in address.to_socket_addrs()? {
                    // Blocking, so that a refusal is known here.
                    match std::net::TcpStream::connect(address) {
                        Ok(stream) => {
                            stream.set_nonblocking(true)?;
                            stream.set_nodelay(true)?;
                            return Ok(Self::Tcp(TcpStream::from_std(stream)));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Endpoint::Unix(path) => Ok(Self::Unix(UnixStream::connect(path)?)),
            other => {
                Err(io::Error::new(ErrorKind::Unsupported, format!("cannot connect to {other}")))
            }
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }
}
