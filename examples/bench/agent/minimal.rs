//! The least that an agent can do: the measure for all others.
//!
//! One epoll loop. Of a frame it looks at the length, the type, the FIN flag, the ids and, in a
//! NOTIFY of `check-client-ip`, at the last byte of the address; everything that a wake-up brings is
//! answered with one write. It trusts its peer to be right: never put it in front of anything.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;
use spop_proto::Endpoint;
use spop_proto::server::BACKLOG;
use spop_proto::wire::{AgentHello, Frame, FrameHeader, FrameType, encode_varint};

use crate::listening;

/// Bytes read at once.
const READ: usize = 64 * 1024;
const LISTENER: Token = Token(usize::MAX);
/// Where the last byte of the address lies in the payload of a NOTIFY: behind the name of the
/// message, the number of arguments, the argument's name and type, and three other bytes.
const LAST_BYTE: usize = 1 + "check-client-ip".len() + 1 + 1 + "ip".len() + 1 + 3;
/// set-var, three arguments, scope txn, the name, INT32; then a varint.
const SET_SCORE: &[u8] = b"\x01\x03\x02\x08ip_score\x02";
/// Frame types.
const HAPROXY_HELLO: u8 = 1;
const HAPROXY_DISCONNECT: u8 = 2;
const NOTIFY: u8 = 3;
const ACK: u8 = 103;

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// What is there of a frame that is not whole.
    rest: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
    /// Of the NOTIFY that fragments follow.
    score: u8,
}

pub(crate) fn run(listen: &str) -> io::Result<()> {
    let invalid = |_| io::Error::new(ErrorKind::InvalidInput, "an address and a port are needed");
    let mut listener = TcpListener::bind(listen.parse().map_err(invalid)?)?;
    // What std asks for is too few for thousands that connect at once.
    SockRef::from(&listener).listen(BACKLOG)?;
    listening(&Endpoint::Tcp(listener.local_addr()?.to_string()));
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut connections: HashMap<Token, Connection> = HashMap::new();
    let mut next = 0;
    let (mut input, mut output) = (vec![0; READ + (32 << 10)], Vec::new());
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() != LISTENER {
                if let Some(connection) = connections.get_mut(&event.token())
                    && !connection.turn(&mut input, &mut output)
                {
                    connections.remove(&event.token());
                }
                continue;
            }
            while let Ok((mut stream, _)) = listener.accept() {
                stream.set_nodelay(true)?;
                let both = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut stream, Token(next), both)?;
                let connection =
                    Connection { stream, rest: Vec::new(), unsent: Vec::new(), score: 0 };
                connections.insert(Token(next), connection);
                next += 1;
            }
        }
    }
}

impl Connection {
    /// Reads, answers, writes; false at the end.
    fn turn(&mut self, input: &mut [u8], output: &mut Vec<u8>) -> bool {
        if !self.unsent.is_empty() {
            std::mem::swap(output, &mut self.unsent);
            if !self.write(output) {
                return false;
            }
        }
        loop {
            let before = self.rest.len();
            if let Some(start) = input.get_mut(..before) {
                start.copy_from_slice(&self.rest);
            }
            let Some(room) = input.get_mut(before..) else { return false };
            let size = room.len();
            let read = match self.stream.read(room) {
                Ok(read @ 1..) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Ok(0) | Err(_) => return false,
            };
            let Some(mut left) = input.get(..before + read) else { return false };
            while let Some((length, rest)) = left.split_first_chunk()
                && let Some((frame, after)) =
                    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
            {
                left = after;
                if self.answer(frame, output).is_none() {
                    return false;
                }
            }
            self.rest.clear();
            self.rest.extend_from_slice(left);
            if !self.write(output) {
                return false;
            }
            // A read that does not fill the buffer has emptied the socket.
            if read < size {
                return true;
            }
        }
    }

    /// `None` ends the connection.
    fn answer(&mut self, frame: &[u8], output: &mut Vec<u8>) -> Option<()> {
        let (&[kind, .., flags], rest) = frame.split_first_chunk::<5>()?;
        match kind {
            HAPROXY_HELLO => return say_hello(output),
            HAPROXY_DISCONNECT => return None,
            _ => {}
        }
        let ids = varint(rest)?;
        let ids = ids + varint(rest.get(ids..)?)?;
        let (ids, payload) = rest.split_at_checked(ids)?;
        if kind == NOTIFY {
            self.score = *payload.get(LAST_BYTE)?;
        }
        if flags & 1 == 0 {
            return Some(());
        }
        let start = output.len();
        output.extend_from_slice(&[0, 0, 0, 0, ACK, 0, 0, 0, 1]);
        output.extend_from_slice(ids);
        output.extend_from_slice(SET_SCORE);
        encode_varint(u64::from(self.score), output);
        let length = u32::try_from(output.len() - start - 4).ok()?;
        output.get_mut(start..)?.first_chunk_mut::<4>()?.copy_from_slice(&length.to_be_bytes());
        Some(())
    }

    /// One write; false where the connection is broken.
    fn write(&mut self, output: &mut Vec<u8>) -> bool {
        if output.is_empty() {
            return true;
        }
        let written = match self.stream.write(output) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return false,
        };
        self.unsent.extend_from_slice(output.get(written..).unwrap_or_default());
        output.clear();
        true
    }
}

/// How many bytes the varint at the front takes.
fn varint(bytes: &[u8]) -> Option<usize> {
    match bytes.split_first()? {
        (0..240, _) => Some(1),
        (_, rest) => rest.iter().position(|byte| *byte < 128).map(|more| more + 2),
    }
}

fn say_hello(output: &mut Vec<u8>) -> Option<()> {
    let hello = AgentHello {
        version: Some(b"2.0"),
        max_frame_size: Some(16_380),
        capabilities: Some(b"pipelining,fragmentation"),
        ..AgentHello::default()
    };
    let mut payload = Vec::new();
    hello.encode(&mut payload);
    Frame { header: FrameHeader::connection(FrameType::AGENT_HELLO), payload: &payload }
        .encode(output);
    Some(())
}
