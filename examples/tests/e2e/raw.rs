//! An agent written by hand on plain sockets: for what the library never does, and as a witness of its
//! own. No byte here comes from the library.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::haproxy::{DEADLINE, wait_until};

// Types of frames.
const UNSET: u8 = 0;
const HAPROXY_HELLO: u8 = 1;
const HAPROXY_DISCONNECT: u8 = 2;
const NOTIFY: u8 = 3;
const AGENT_HELLO: u8 = 101;
const AGENT_DISCONNECT: u8 = 102;
const ACK: u8 = 103;

/// The flag of a frame that ends a payload.
pub(crate) const FIN: u32 = 1;
/// The flag of a frame that gives a payload up.
pub(crate) const ABORT: u32 = 2;

// ---------------------------------------------------------------------------------------- bytes

/// An unsigned number, as SPOP writes all of them.
pub(crate) fn varint(value: u64) -> Vec<u8> {
    let low = |value: u64, bits: u8| value.to_le_bytes()[0] | bits;
    if value < 240 {
        return vec![low(value, 0)];
    }
    let mut bytes = vec![low(value, 0xf0)];
    let mut rest = (value - 240) >> 4;
    while rest >= 128 {
        bytes.push(low(rest, 0x80));
        rest = (rest - 128) >> 7;
    }
    bytes.push(low(rest, 0));
    bytes
}

/// Takes a number off the front of `bytes`.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut next = || {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        Some(u64::from(*first))
    };
    let mut value = next()?;
    let mut shift = 4;
    if value >= 240 {
        loop {
            let byte = next()?;
            value = value.checked_add(byte.checked_shl(shift)?)?;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
    }
    Some(value)
}

/// Bytes with their length in front.
pub(crate) fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&varint(bytes.len() as u64), bytes].concat()
}

/// A whole frame.
fn frame(kind: u8, flags: u32, (stream, frame): (u64, u64), payload: &[u8]) -> Vec<u8> {
    let header = [&[kind], &flags.to_be_bytes()[..], &varint(stream), &varint(frame)].concat();
    let length = u32::try_from(header.len() + payload.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), header.as_slice(), payload].concat()
}

/// An ACK with any ids.
pub(crate) fn ack(ids: (u64, u64), actions: &[u8]) -> Vec<u8> {
    frame(ACK, FIN, ids, actions)
}

/// An ACK with any flags.
pub(crate) fn ack_with_flags(ids: (u64, u64), flags: u32, actions: &[u8]) -> Vec<u8> {
    frame(ACK, flags, ids, actions)
}

/// AGENT-DISCONNECT.
pub(crate) fn disconnect(status: u64) -> Vec<u8> {
    let status = [string("status-code"), vec![3], varint(status)].concat();
    let message = [string("message"), vec![8], string("by hand")].concat();
    frame(AGENT_DISCONNECT, FIN, (0, 0), &[status, message].concat())
}

/// The action that sets an integer of the scope `txn`.
pub(crate) fn set_number(name: &str, value: u64) -> Vec<u8> {
    [vec![1, 3, 2], string(name), vec![4], varint(value)].concat()
}

/// The action that sets a string of the scope `txn`.
pub(crate) fn set_string(name: &str, value: &[u8]) -> Vec<u8> {
    [vec![1, 3, 2], string(name), vec![8], string(value)].concat()
}

/// A frame of HAProxy's, after the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Which of the agent's connections it came on, from 0.
    pub(crate) connection: usize,
    kind: u8,
    /// Its flags.
    pub(crate) flags: u32,
    /// Its stream-id and its frame-id.
    pub(crate) ids: (u64, u64),
    /// What follows them.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Whether it is a NOTIFY, whole or the first fragment of one.
    pub(crate) fn is_notify(&self) -> bool {
        self.kind == NOTIFY
    }

    /// Whether it gives a fragmented payload up: UNSET with FIN and ABORT, and nothing in it.
    pub(crate) fn is_abort(&self) -> bool {
        self.kind == UNSET && self.flags == FIN | ABORT && self.payload.is_empty()
    }

    fn read(from: &mut impl Read, connection: usize) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut body = Vec::new();
        let length = u64::from(u32::from_be_bytes(length));
        from.take(length).read_to_end(&mut body)?;
        if body.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::parse(&body, connection).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(body: &[u8], connection: usize) -> Option<Self> {
        let (kind, rest) = body.split_first()?;
        let (flags, mut rest) = rest.split_first_chunk()?;
        let ids = (take_varint(&mut rest)?, take_varint(&mut rest)?);
        let (flags, payload) = (u32::from_be_bytes(*flags), rest.to_vec());
        Some(Self { connection, kind: *kind, flags, ids, payload })
    }

    /// The number of that name in a HELLO or DISCONNECT. HAProxy writes both of them as UINT32.
    fn number(&self, name: &str) -> Option<u64> {
        let key = [string(name), vec![3]].concat();
        let at = self.payload.windows(key.len()).position(|bytes| bytes == key)?;
        take_varint(&mut self.payload.get(at + key.len()..)?)
    }
}

// ---------------------------------------------------------------------------------------- agent

/// Listens on an address from [`port`](crate::bench::port).
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // The socket that found the port free may live on for a moment, in a child of another case that
    // was forked just then and has not begun its program yet.
    wait_until(&format!("{address} to be free"), || match TcpListener::bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    })
}

/// What the agent says of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hello {
    /// Its `capabilities`.
    pub(crate) capabilities: &'static str,
    /// The largest `max-frame-size` it takes.
    pub(crate) max_frame_size: u64,
}

impl Hello {
    /// With these capabilities, and whatever size HAProxy offers.
    pub(crate) const fn new(capabilities: &'static str) -> Self {
        Self { capabilities, max_frame_size: u32::MAX as u64 }
    }

    fn answer(self, hello: &Frame) -> Vec<u8> {
        let size = hello.number("max-frame-size").unwrap_or(256).min(self.max_frame_size);
        let pairs = [
            [string("version"), vec![8], string("2.0")].concat(),
            [string("max-frame-size"), vec![3], varint(size)].concat(),
            [string("capabilities"), vec![8], string(self.capabilities)].concat(),
        ];
        frame(AGENT_HELLO, FIN, (0, 0), &pairs.concat())
    }
}

/// A running agent. Dropped, it closes everything.
#[derive(Debug)]
pub(crate) struct RawAgent {
    wire: Wire,
    address: SocketAddr,
}

impl RawAgent {
    /// Starts an agent. Each connection has a thread, which reads, says hello and calls `script` with
    /// each frame that comes after that: while `script` is busy, its connection is not read.
    pub(crate) fn start(
        address: SocketAddr,
        hello: Hello,
        script: impl Fn(&Frame, &Wire) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::start_on(listen(address)?, hello, script)
    }

    /// The same with a listener that was made elsewhere.
    pub(crate) fn start_on(
        listener: TcpListener,
        hello: Hello,
        script: impl Fn(&Frame, &Wire) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (wire, script) = (Wire::default(), Arc::new(script));
        let accepting = wire.clone();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let Some(number) = accepting.accepted(&stream) else { return };
                let (wire, script) = (accepting.clone(), Arc::clone(&script));
                thread::spawn(move || {
                    // However it ends, the connection does so with it.
                    let _ = wire.serve(stream, number, hello, &*script);
                    wire.close(number);
                });
            }
        });
        Ok(Self { wire, address })
    }

    /// Its connections.
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }
}

impl Drop for RawAgent {
    fn drop(&mut self) {
        self.wire.0.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        for stream in self.wire.lock().open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The connections of a [`RawAgent`], for its script and for the case. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

/// What the agent has seen so far.
#[derive(Debug, Default)]
pub(crate) struct State {
    open: BTreeMap<usize, TcpStream>,
    capabilities: Option<&'static str>,
    /// How many connections were accepted.
    pub(crate) connections: usize,
    /// How many of them said hello.
    pub(crate) hellos: usize,
    /// The status of each HAPROXY-DISCONNECT.
    pub(crate) goodbyes: Vec<Option<u64>>,
    /// All frames but those of handshakes and goodbyes.
    pub(crate) frames: Vec<Frame>,
}

impl State {
    /// Whether nobody has closed that connection yet.
    pub(crate) fn is_open(&self, connection: usize) -> bool {
        self.open.contains_key(&connection)
    }
}

impl Wire {
    /// Writes to a connection at once.
    pub(crate) fn send(&self, connection: usize, bytes: &[u8]) -> io::Result<()> {
        let state = self.lock();
        let stream = state.open.get(&connection).ok_or(io::ErrorKind::NotConnected)?;
        let mut stream = stream.try_clone()?;
        drop(state);
        stream.write_all(bytes)
    }

    /// From now on the agent says that it has these capabilities.
    pub(crate) fn announce(&self, capabilities: &'static str) {
        self.lock().capabilities = Some(capabilities);
    }

    /// Closes a connection.
    pub(crate) fn close(&self, connection: usize) {
        if let Some(stream) = self.lock().open.remove(&connection) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.0.changed.notify_all();
    }

    /// Resets a connection. Always an error: the script has to end with it, because its thread still
    /// holds the socket.
    pub(crate) fn reset(&self, connection: usize) -> io::Result<()> {
        if let Some(stream) = self.lock().open.remove(&connection) {
            // Closed by whoever drops it last, with a reset and not in the ordinary way.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// Looks at what was seen so far.
    pub(crate) fn seen<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Waits until `look` finds something.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        look: impl Fn(&State) -> Option<T>,
    ) -> io::Result<T> {
        let end = Instant::now() + DEADLINE;
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&state) {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let error = format!("the agent waited in vain for {what}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, error));
            }
            let woken = self.0.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Its number, unless it only comes to wake this up.
    fn accepted(&self, stream: &TcpStream) -> Option<usize> {
        if self.0.stop.load(Ordering::Relaxed) {
            return None;
        }
        let _ = stream.set_nodelay(true);
        let clone = stream.try_clone().ok()?;
        let mut state = self.lock();
        let number = state.connections;
        state.connections += 1;
        state.open.insert(number, clone);
        Some(number)
    }

    fn serve(
        &self,
        mut stream: TcpStream,
        number: usize,
        hello: Hello,
        script: &impl Fn(&Frame, &Self) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            let frame = Frame::read(&mut stream, number)?;
            match frame.kind {
                HAPROXY_HELLO => {
                    // One write: some HAProxy drop a connection whose AGENT-HELLO comes in parts.
                    let now = self.lock().capabilities.unwrap_or(hello.capabilities);
                    let hello = Hello { capabilities: now, ..hello };
                    stream.write_all(&hello.answer(&frame))?;
                    self.lock().hellos += 1;
                    self.0.changed.notify_all();
                }
                HAPROXY_DISCONNECT => {
                    self.lock().goodbyes.push(frame.number("status-code"));
                    self.0.changed.notify_all();
                    return stream.write_all(&disconnect(0));
                }
                _ => {
                    self.lock().frames.push(frame.clone());
                    self.0.changed.notify_all();
                    script(&frame, self)?;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
