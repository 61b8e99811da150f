//! The NOTIFYs of a capture: what HAProxy sent on one connection, as it stands on the wire, or on several.

use spop_proto::Dialect;
use spop_proto::wire::{Capabilities, Frame, FrameType, HaproxyHello};

/// What of a capture can be sent again.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    /// In the order of their ends, of all connections.
    pub(crate) notifies: Vec<Captured>,
    /// The HAProxys that sent them.
    pub(crate) engines: Vec<Engine>,
    /// Why some of it cannot be sent again: of which connection what.
    pub(crate) left_out: Vec<String>,
    /// Bytes of last frames that are not whole.
    pub(crate) cut: usize,
}

/// Whom one `engine-id` stands for. Ids of streams are of such a one: with HAProxy up to 3.0 of all its
/// connections together.
#[derive(Debug)]
pub(crate) struct Engine {
    /// `None` is one connection, of whoever does not say it.
    id: Option<Vec<u8>>,
    /// What it offered.
    pub(crate) max_frame_size: u32,
    /// Something was seen that only HAProxy up to 3.0 does.
    old: bool,
}

/// A NOTIFY, its fragments put together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Its number, in a capture of the network.
    pub(crate) connection: Option<u64>,
    /// Index of [`Capture::engines`].
    pub(crate) engine: usize,
    pub(crate) stream_id: u64,
    pub(crate) frame_id: u64,
    pub(crate) payload: Vec<u8>,
}

impl Capture {
    /// Reads the bytes of one direction of one connection, from HAPROXY-HELLO on.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut capture = Self::default();
        let mut direction = Direction::new(None);
        direction.receive(bytes, &mut capture).map_err(|wrong| match wrong {
            Wrong::NoHello(kind) => {
                format!("it begins with {kind}, not with HAPROXY-HELLO: is it the other direction?")
            }
            Wrong::Other(wrong) => wrong,
        })?;
        if direction.engine.is_none() {
            return Err(
                "no SPOP frame in it: it wants the bytes that HAProxy sent on a connection, \
                        from HAPROXY-HELLO on, or a capture of the network (pcap, pcapng)"
                    .to_owned(),
            );
        }
        capture.left_out = direction.end(&mut capture);
        Ok(capture)
    }

    /// The HAProxy of a HELLO: one that is known, or another one.
    fn engine(&mut self, hello: Hello) -> usize {
        let Hello { id, offers_async, max_frame_size } = hello;
        let known = |known: &Engine| known.id == id && known.max_frame_size == max_frame_size;
        let index = match self.engines.iter().position(known).filter(|_| id.is_some()) {
            Some(index) => index,
            None => {
                self.engines.push(Engine { id, max_frame_size, old: false });
                self.engines.len() - 1
            }
        };
        if offers_async {
            self.is_old(index);
        }
        index
    }

    fn is_old(&mut self, engine: usize) {
        if let Some(engine) = self.engines.get_mut(engine) {
            engine.old = true;
        }
    }

    fn add(&mut self, notify: Captured) {
        // From 3.1 on ids count from 1 on each connection, and each event is a stream of its own.
        if notify.stream_id.is_multiple_of(2) || notify.frame_id != 1 {
            self.is_old(notify.engine);
        }
        self.notifies.push(notify);
    }
}

impl Engine {
    /// Which HAProxy it is.
    pub(crate) const fn dialect(&self) -> Dialect {
        if self.old { Dialect::Old } else { Dialect::New }
    }
}

/// What HAProxy sent on a connection, as it comes.
#[derive(Debug)]
pub(crate) struct Direction {
    connection: Option<u64>,
    /// Bytes of a frame that is not whole yet, and where it begins.
    buffer: Vec<u8>,
    at: usize,
    /// Index of [`Capture::engines`], from HAPROXY-HELLO on.
    engine: Option<usize>,
    /// A payload of which fragments are to come.
    open: Option<Captured>,
}

/// Why the rest of a direction is of no use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The type of its first frame is not that of HAPROXY-HELLO.
    NoHello(FrameType),
    /// In words.
    Other(String),
}

impl Direction {
    /// Of the connection with that number, if it is one of several.
    pub(crate) const fn new(connection: Option<u64>) -> Self {
        Self { connection, buffer: Vec::new(), at: 0, engine: None, open: None }
    }

    /// How many bytes came.
    pub(crate) fn received(&self) -> usize {
        self.at.saturating_add(self.buffer.len())
    }

    /// What HAProxy sent next; NOTIFYs that are whole by it are added to the capture.
    pub(crate) fn receive(&mut self, bytes: &[u8], capture: &mut Capture) -> Result<(), Wrong> {
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        loop {
            let split = Frame::split(rest)
                .map_err(|error| Wrong::Other(format!("the frame at byte {}: {error}", self.at)))?;
            let Some((frame, after)) = split else { break };
            self.at = self.at.saturating_add(rest.len() - after.len());
            rest = after;
            self.frame(&frame, capture)?;
        }
        let taken = buffer.len() - rest.len();
        self.buffer = buffer;
        self.buffer.drain(..taken);
        Ok(())
    }

    fn frame(&mut self, frame: &Frame<'_>, capture: &mut Capture) -> Result<(), Wrong> {
        let Some(engine) = self.engine else {
            self.engine = Some(capture.engine(Hello::read(frame)?));
            return Ok(());
        };
        let header = frame.header;
        let (stream_id, frame_id) = (header.stream_id, header.frame_id);
        match header.kind {
            FrameType::NOTIFY => {
                let (connection, payload) = (self.connection, frame.payload.to_vec());
                let notify = Captured { connection, engine, stream_id, frame_id, payload };
                if header.flags.fin() {
                    self.open = None;
                    capture.add(notify);
                } else {
                    capture.is_old(engine);
                    self.open = Some(notify);
                }
            }
            FrameType::UNSET => {
                let same =
                    |open: &mut Captured| (open.stream_id, open.frame_id) == (stream_id, frame_id);
                let Some(mut open) = self.open.take_if(same) else { return Ok(()) };
                open.payload.extend_from_slice(frame.payload);
                match (header.flags.abort(), header.flags.fin()) {
                    (true, _) => {}
                    (false, true) => capture.add(open),
                    (false, false) => self.open = Some(open),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// HAProxy sent no more, or what it sent was not captured: why the end of it is of no use.
    pub(crate) fn end(self, capture: &mut Capture) -> Vec<String> {
        let mut left_out = Vec::new();
        let cut = self.buffer.len();
        if cut > 0 {
            capture.cut = capture.cut.saturating_add(cut);
            left_out.push(format!("the last {cut} bytes are not a whole frame, and are left out"));
        }
        if let Some(Captured { stream_id, frame_id, .. }) = self.open {
            left_out.push(format!(
                "the last fragments of stream {stream_id}, frame {frame_id} are not there: it is left out"
            ));
        }
        left_out
    }
}

/// What of a HAPROXY-HELLO counts here.
struct Hello {
    id: Option<Vec<u8>>,
    offers_async: bool,
    max_frame_size: u32,
}

impl Hello {
    fn read(frame: &Frame<'_>) -> Result<Self, Wrong> {
        let kind = frame.header.kind;
        if kind != FrameType::HAPROXY_HELLO {
            return Err(Wrong::NoHello(kind));
        }
        let hello = HaproxyHello::decode(frame.payload)
            .map_err(|error| Wrong::Other(format!("its HAPROXY-HELLO: {error}")))?;
        let offered = Capabilities::parse(hello.capabilities.unwrap_or_default());
        let size = hello.max_frame_size.and_then(|size| u32::try_from(size).ok());
        let size = size
            .ok_or_else(|| Wrong::Other("its HAPROXY-HELLO has no max-frame-size to use".into()))?;
        Ok(Self {
            id: hello.engine_id.map(<[u8]>::to_vec),
            offers_async: offered.contains(Capabilities::ASYNC),
            max_frame_size: size,
        })
    }
}

#[cfg(test)]
mod tests {
    use spop_proto::wire::{Flags, FrameHeader};

    use super::*;

    fn hello(capabilities: &str) -> Vec<u8> {
        let hello = HaproxyHello {
            supported_versions: Some(b"2.0"),
            max_frame_size: Some(1000),
            capabilities: Some(capabilities.as_bytes()),
            ..HaproxyHello::default()
        };
        let mut payload = Vec::new();
        hello.encode(&mut payload);
        frame(FrameType::HAPROXY_HELLO, Flags::FIN, (0, 0), &payload)
    }

    fn frame(kind: FrameType, flags: Flags, ids: (u64, u64), payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader { kind, flags, stream_id: ids.0, frame_id: ids.1 };
        let mut bytes = Vec::new();
        Frame { header, payload }.encode(&mut bytes);
        bytes
    }

    #[test]
    fn fragments_are_put_together_and_aborted_ones_left_out() {
        let part = |kind, flags, ids, payload: &str| frame(kind, flags, ids, payload.as_bytes());
        let aborted = Flags::FIN.with(Flags::ABORT);
        let mut bytes = [
            hello("pipelining"),
            part(FrameType::NOTIFY, Flags(0), (5, 1), "ab"),
            part(FrameType::UNSET, Flags(0), (5, 1), "cd"),
            part(FrameType::UNSET, Flags::FIN, (5, 1), "ef"),
            part(FrameType::NOTIFY, Flags(0), (7, 1), "xx"),
            part(FrameType::UNSET, aborted, (7, 1), ""),
            part(FrameType::NOTIFY, Flags::FIN, (9, 1), "g"),
        ]
        .concat();
        bytes.extend([0, 0, 0, 9, 3]);
        let capture = Capture::read(&bytes).unwrap();
        let payloads: Vec<_> = capture.notifies.iter().map(|notify| &*notify.payload).collect();
        assert_eq!(payloads, [&b"abcdef"[..], b"g"]);
        assert_eq!(capture.cut, 5);
        let [engine] = capture.engines.as_slice() else { panic!("{:?}", capture.engines) };
        assert_eq!(engine.max_frame_size, 1000);
        assert_eq!(engine.dialect(), Dialect::Old, "fragments");
    }

    /// The last fragment of another payload does not end one.
    #[test]
    fn a_fragment_of_nothing_is_passed_over() {
        let bytes = [
            hello("pipelining"),
            frame(FrameType::NOTIFY, Flags(0), (5, 1), b"ab"),
            frame(FrameType::UNSET, Flags::FIN, (7, 1), b"xx"),
            frame(FrameType::UNSET, Flags::FIN, (5, 1), b"cd"),
        ];
        let capture = Capture::read(&bytes.concat()).unwrap();
        let payloads: Vec<_> = capture.notifies.iter().map(|notify| &*notify.payload).collect();
        assert_eq!(payloads, [b"abcd"]);
    }

    /// Pieces of any size, as a network brings them.
    #[test]
    fn bytes_come_in_pieces() {
        let bytes = [
            hello("pipelining"),
            frame(FrameType::NOTIFY, Flags::FIN, (1, 1), b"one"),
            frame(FrameType::NOTIFY, Flags::FIN, (3, 1), b"two"),
        ]
        .concat();
        for size in 1..bytes.len() {
            let mut capture = Capture::default();
            let mut direction = Direction::new(None);
            for piece in bytes.chunks(size) {
                direction.receive(piece, &mut capture).unwrap();
            }
            assert_eq!(direction.received(), bytes.len());
            assert!(direction.end(&mut capture).is_empty());
            assert_eq!(capture.notifies, Capture::read(&bytes).unwrap().notifies);
            assert_eq!(capture.notifies.len(), 2);
        }
    }

    #[test]
    fn which_haproxy_it_was() {
        let dialect = |capabilities: &str, ids: &[(u64, u64)]| {
            let mut bytes = hello(capabilities);
            for &ids in ids {
                bytes.extend(frame(FrameType::NOTIFY, Flags::FIN, ids, b""));
            }
            Capture::read(&bytes).unwrap().engines[0].dialect()
        };
        assert_eq!(dialect("pipelining", &[(1, 1), (3, 1)]), Dialect::New);
        assert_eq!(dialect("pipelining,async", &[(1, 1)]), Dialect::Old);
        assert_eq!(dialect("pipelining", &[(0, 1)]), Dialect::Old);
        assert_eq!(dialect("pipelining", &[(1, 1), (1, 2)]), Dialect::Old);
    }

    #[test]
    fn what_is_no_capture_of_haproxy() {
        let error = |bytes: &[u8]| Capture::read(bytes).unwrap_err();
        assert!(error(b"").contains("no SPOP frame"));
        assert!(error(b"GET / HTTP/1.1\r\n").contains("no SPOP frame"));
        assert!(error(&[0, 0, 0, 3, 1, 0, 0]).starts_with("the frame at byte 0: "));
        let ack = frame(FrameType::ACK, Flags::FIN, (1, 1), b"");
        assert!(error(&ack).contains("is it the other direction?"));
    }
}
