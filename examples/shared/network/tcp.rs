//! Streams out of TCP segments: in order, each byte once, and what is missing named.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use spop_proto::wire::{Flags, FrameType};

use super::packet::Segment;
use super::{Ends, LeftOut, Sink};
use crate::side::Side;

/// What one side may have sent ahead of bytes that are waited for. Beyond it they are given up.
const AHEAD: usize = 4 << 20;
/// Connections that are neither SPOP nor anything else yet, at most. Those without any bytes stay here.
const UNDECIDED: usize = 65_536;

/// All connections of a capture.
#[derive(Debug)]
pub(crate) struct Connections {
    /// The agent's port, where it is known.
    port: Option<u16>,
    open: HashMap<Pair, Connection>,
    /// Of those of SPOP.
    count: u64,
    /// Those that are not SPOP.
    others: HashSet<Pair>,
    other: u64,
    /// Those of them that could be, seen from their middle.
    joined_late: u64,
    fragments: u64,
}

/// Both ends, the smaller first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Pair(SocketAddr, SocketAddr);

impl Pair {
    fn of(segment: &Segment<'_>) -> Self {
        let (a, b) = (segment.from, segment.to);
        if a <= b { Self(a, b) } else { Self(b, a) }
    }
}

/// One of them.
#[derive(Debug)]
struct Connection {
    halves: [Half; 2],
    known: Option<Known>,
}

/// One that is SPOP.
#[derive(Debug)]
struct Known {
    number: u64,
    /// Where HAProxy is.
    haproxy: SocketAddr,
}

/// What one end sent.
#[derive(Debug)]
struct Half {
    from: Option<SocketAddr>,
    to: Option<SocketAddr>,
    /// Its SYN was captured, so what follows begins with the first byte.
    whole: bool,
    /// The sequence number of the first byte.
    first: Option<u32>,
    /// How many bytes were passed on.
    done: u64,
    /// Bytes that came before others, by their place in the stream.
    ahead: BTreeMap<u64, Piece>,
    ahead_bytes: usize,
    /// Where the stream ends.
    end: Option<u64>,
    ended: bool,
    /// In order and not yet decided on.
    early: Vec<Chunk>,
}

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    missing: u64,
    time: Option<Duration>,
}

/// What comes next in a stream.
#[derive(Debug)]
enum Chunk {
    Bytes(Vec<u8>, Option<Duration>),
    Missing(u64),
    End,
}

impl Connections {
    /// `port` is the agent's; without it a connection is one of SPOP if it begins with a HELLO.
    pub(crate) fn new(port: Option<u16>) -> Self {
        Self {
            port,
            open: HashMap::new(),
            count: 0,
            others: HashSet::new(),
            other: 0,
            joined_late: 0,
            fragments: 0,
        }
    }

    /// A fragment of an IP packet.
    pub(crate) fn fragment(&mut self) {
        self.fragments = self.fragments.saturating_add(1);
    }

    /// The next segment.
    pub(crate) fn segment<S: Sink>(
        &mut self,
        segment: &Segment<'_>,
        sink: &mut S,
    ) -> io::Result<()> {
        let pair = Pair::of(segment);
        if self.port.is_some_and(|port| segment.from.port() != port && segment.to.port() != port) {
            return Ok(());
        }
        // The same ports again.
        if segment.syn && !segment.ack {
            self.others.remove(&pair);
            if self.open.get(&pair).is_some_and(|open| open.is_over(segment))
                && let Some(mut old) = self.open.remove(&pair)
            {
                self.finish(pair, &mut old, sink)?;
            }
        }
        if self.others.contains(&pair) {
            return Ok(());
        }
        if self.open.len() >= UNDECIDED {
            self.open.retain(|_, open| open.known.is_some());
        }
        let mut connection = self.open.remove(&pair).unwrap_or_else(Connection::new);
        connection.receive(segment);
        if self.tell(pair, &mut connection, sink)? {
            self.open.insert(pair, connection);
        }
        Ok(())
    }

    /// The capture ends here.
    pub(crate) fn end<S: Sink>(&mut self, sink: &mut S) -> io::Result<()> {
        let mut open: Vec<_> = self.open.drain().collect();
        open.sort_by_key(|(_, open)| open.known.as_ref().map(|known| known.number));
        for (pair, mut connection) in open {
            self.finish(pair, &mut connection, sink)?;
        }
        if self.other > 0 {
            let Self { other: all, joined_late, .. } = *self;
            sink.left_out(LeftOut::Connections { all, joined_late })?;
        }
        if self.fragments > 0 {
            sink.left_out(LeftOut::Fragments(self.fragments))?;
        }
        Ok(())
    }

    fn finish<S: Sink>(
        &mut self,
        pair: Pair,
        connection: &mut Connection,
        sink: &mut S,
    ) -> io::Result<()> {
        for half in &mut connection.halves {
            half.give_up();
            half.early.push(Chunk::End);
        }
        self.tell(pair, connection, sink)?;
        connection.known.as_ref().map_or(Ok(()), |known| sink.closed(known.number))
    }

    /// Tells what is new; whether more of it is wanted.
    fn tell<S: Sink>(
        &mut self,
        pair: Pair,
        connection: &mut Connection,
        sink: &mut S,
    ) -> io::Result<bool> {
        if connection.known.is_none() {
            match connection.haproxy(self.port) {
                Verdict::Unknown => return Ok(true),
                Verdict::Other { joined_late } => {
                    self.other = self.other.saturating_add(1);
                    self.joined_late = self.joined_late.saturating_add(u64::from(joined_late));
                    self.others.insert(pair);
                    return Ok(false);
                }
                Verdict::Spop { haproxy, late } => {
                    self.count = self.count.saturating_add(1);
                    let number = self.count;
                    let agent = if pair.0 == haproxy { pair.1 } else { pair.0 };
                    sink.opened(number, Ends { haproxy, agent, late })?;
                    connection.known = Some(Known { number, haproxy });
                }
            }
        }
        let Connection { halves, known: Some(known) } = connection else { return Ok(true) };
        let number = known.number;
        for half in halves {
            let side = if half.from == Some(known.haproxy) { Side::Haproxy } else { Side::Agent };
            for chunk in half.early.drain(..) {
                match chunk {
                    Chunk::Bytes(bytes, time) => sink.bytes(number, side, &bytes, time)?,
                    Chunk::Missing(bytes) => sink.missing(number, side, bytes)?,
                    Chunk::End => sink.ended(number, side)?,
                }
            }
        }
        Ok(true)
    }
}

/// What a connection is.
enum Verdict {
    Unknown,
    Other {
        joined_late: bool,
    },
    /// From its start, or from its middle.
    Spop {
        haproxy: SocketAddr,
        late: bool,
    },
}

impl Connection {
    fn new() -> Self {
        Self { halves: [Half::new(), Half::new()], known: None }
    }

    /// Whether this SYN is of a new connection, and not the first one again.
    fn is_over(&self, syn: &Segment<'_>) -> bool {
        let first = syn.sequence.wrapping_add(1);
        let half = self.halves.iter().find(|half| half.from == Some(syn.from));
        half.is_some_and(|half| half.first.is_some_and(|known| known != first))
    }

    fn receive(&mut self, segment: &Segment<'_>) {
        let [a, b] = &mut self.halves;
        let half = if a.from.is_none_or(|from| from == segment.from) { a } else { b };
        half.from = Some(segment.from);
        half.to = Some(segment.to);
        half.receive(segment);
    }

    /// Where HAProxy is, by the agent's port or a HELLO.
    fn haproxy(&self, port: Option<u16>) -> Verdict {
        let mut verdict = Verdict::Unknown;
        for half in &self.halves {
            let mut start = Vec::new();
            for chunk in &half.early {
                match chunk {
                    Chunk::Bytes(bytes, _) if start.len() < 9 => start.extend_from_slice(bytes),
                    Chunk::Missing(_) if start.is_empty() => start.extend_from_slice(&[0xff; 9]),
                    _ => {}
                }
            }
            let greeting = greets(&start);
            let (Some(from), Some(to)) = (half.from, half.to) else { continue };
            match (greeting, port) {
                (Some(Some(side)), _) => {
                    let haproxy = if side == Side::Haproxy { from } else { to };
                    return Verdict::Spop { haproxy, late: false };
                }
                (Some(None), Some(port)) => {
                    let haproxy = if from.port() == port { to } else { from };
                    return Verdict::Spop { haproxy, late: !half.whole };
                }
                (Some(None), None) => {
                    let joined_late = !half.whole && may_be_frame(&start);
                    verdict = Verdict::Other { joined_late };
                }
                (None, _) => {}
            }
        }
        verdict
    }
}

impl Half {
    const fn new() -> Self {
        Self {
            from: None,
            to: None,
            whole: false,
            first: None,
            done: 0,
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            end: None,
            ended: false,
            early: Vec::new(),
        }
    }

    fn receive(&mut self, segment: &Segment<'_>) {
        let mut sequence = segment.sequence;
        if segment.syn {
            sequence = sequence.wrapping_add(1);
            self.whole = true;
        }
        // Without its SYN a stream begins with what was captured first, and not with a bare ACK.
        if self.first.is_none() && !segment.syn && segment.payload.is_empty() {
            return;
        }
        let first = *self.first.get_or_insert(sequence);
        let Some(mut at) = self.place(first, sequence) else { return };
        let mut bytes = segment.payload;
        let end = at.saturating_add(wide(bytes.len())).saturating_add(segment.missing.into());
        if segment.fin {
            self.end = Some(end);
        }
        if segment.rst && self.end.is_none() {
            self.end = Some(self.done.max(at));
        }
        // What came before is not taken again.
        if at < self.done {
            let known = self.done.saturating_sub(at).min(wide(bytes.len()));
            bytes = usize::try_from(known).ok().and_then(|n| bytes.get(n..)).unwrap_or_default();
            at = at.saturating_add(known);
        }
        // A reset behind a FIN stands one further, and is no byte.
        if end > self.done && end > at {
            let piece = Piece {
                bytes: bytes.to_vec(),
                missing: segment.missing.into(),
                time: segment.time,
            };
            let longer = self.ahead.get(&at).is_none_or(|known| {
                known.bytes.len() < bytes.len() || known.missing > piece.missing
            });
            if longer {
                self.ahead_bytes = self.ahead_bytes.saturating_add(bytes.len());
                if let Some(old) = self.ahead.insert(at, piece) {
                    self.ahead_bytes = self.ahead_bytes.saturating_sub(old.bytes.len());
                }
            }
        }
        self.advance();
        while self.ahead_bytes > AHEAD {
            self.skip();
        }
        self.close();
    }

    /// Where a sequence number stands in the stream; `None` before its start.
    fn place(&self, first: u32, sequence: u32) -> Option<u64> {
        // The low half of what was passed on; the difference says whether it is before or behind.
        let [.., a, b, c, d] = self.done.to_be_bytes();
        let now = first.wrapping_add(u32::from_be_bytes([a, b, c, d]));
        let distance = i64::from(sequence.wrapping_sub(now).cast_signed());
        self.done.checked_add_signed(distance)
    }

    /// Passes on what is in order now.
    fn advance(&mut self) {
        while let Some(entry) = self.ahead.first_entry() {
            let at = *entry.key();
            if at > self.done {
                return;
            }
            let Piece { bytes, missing, time } = entry.remove();
            self.ahead_bytes = self.ahead_bytes.saturating_sub(bytes.len());
            let known = usize::try_from(self.done.saturating_sub(at)).unwrap_or(usize::MAX);
            if let Some(new) = bytes.get(known..)
                && !new.is_empty()
            {
                self.done = self.done.saturating_add(wide(new.len()));
                self.early.push(Chunk::Bytes(new.to_vec(), time));
            }
            let end = at.saturating_add(wide(bytes.len())).saturating_add(missing);
            self.give(end);
        }
    }

    /// What is before `end` and did not come is missing.
    fn give(&mut self, end: u64) {
        if end > self.done {
            self.early.push(Chunk::Missing(end.saturating_sub(self.done)));
            self.done = end;
        }
    }

    /// Goes on behind a hole.
    fn skip(&mut self) {
        if let Some((&at, _)) = self.ahead.first_key_value() {
            self.give(at);
        }
        self.advance();
    }

    /// Nothing that is missing will come any more.
    fn give_up(&mut self) {
        while !self.ahead.is_empty() {
            self.skip();
        }
        self.close();
    }

    fn close(&mut self) {
        if !self.ended && self.end.is_some_and(|end| end <= self.done) {
            self.ended = true;
            self.early.push(Chunk::End);
        }
    }
}

/// Whether a stream begins with a HELLO, and whose; `None` while too few bytes are there.
fn greets(bytes: &[u8]) -> Option<Option<Side>> {
    let (length, kind, flags) = head(bytes)?;
    let plausible = LENGTHS.contains(&length) && flags.fin();
    Some(match kind {
        FrameType::HAPROXY_HELLO if plausible => Some(Side::Haproxy),
        FrameType::AGENT_HELLO if plausible => Some(Side::Agent),
        _ => None,
    })
}

/// Whether a frame that is no HELLO could begin there.
fn may_be_frame(bytes: &[u8]) -> bool {
    head(bytes).is_some_and(|(length, kind, flags)| {
        let known = matches!(
            kind,
            FrameType::UNSET
                | FrameType::NOTIFY
                | FrameType::ACK
                | FrameType::HAPROXY_DISCONNECT
                | FrameType::AGENT_DISCONNECT
        );
        LENGTHS.contains(&length) && known && flags.0 & !3 == 0
    })
}

/// What a frame's length may be before anything was said of it.
const LENGTHS: std::ops::Range<u32> = 7..1 << 24;

fn head(bytes: &[u8]) -> Option<(u32, FrameType, Flags)> {
    let (length, frame) = bytes.split_first_chunk::<4>()?;
    let (&kind, rest) = frame.split_first()?;
    let (flags, _) = rest.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*length), FrameType(kind), Flags(u32::from_be_bytes(*flags))))
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
