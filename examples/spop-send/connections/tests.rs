use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::PacketBuilder;
use proptest::prelude::*;
use spop_proto::Dialect;
use spop_proto::wire::{Flags, Frame, FrameHeader, FrameType, HaproxyHello};

use super::*;

/// An address: that port.
fn at(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), port)
}

const AGENT: u16 = 12345;

/// A pcap file of IP packets without anything in front.
struct Trace {
    file: Vec<u8>,
    /// What each side sends next, by its port and the other.
    next: HashMap<(u16, u16), u32>,
}

impl Trace {
    fn new() -> Self {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0];
        file.extend(101_u32.to_le_bytes());
        Self { file, next: HashMap::new() }
    }

    /// Both sides say that they begin.
    fn begin(self, haproxy: u16) -> Self {
        self.packet(haproxy, AGENT, true, &[]).packet(AGENT, haproxy, true, &[])
    }

    /// HAProxy sends, from that port.
    fn haproxy(self, port: u16, bytes: &[u8]) -> Self {
        self.packet(port, AGENT, false, bytes)
    }

    fn agent(self, port: u16, bytes: &[u8]) -> Self {
        self.packet(AGENT, port, false, bytes)
    }

    /// Bytes that HAProxy sends, and nobody captures.
    fn lost(mut self, port: u16, bytes: u32) -> Self {
        *self.next.get_mut(&(port, AGENT)).unwrap() += bytes;
        self
    }

    fn packet(mut self, from: u16, to: u16, syn: bool, payload: &[u8]) -> Self {
        let sequence = self.next.entry((from, to)).or_insert_with(|| u32::from(from) << 16);
        let ip = PacketBuilder::ipv4(at(from).ip().octets(), at(to).ip().octets(), 64);
        let mut tcp = ip.tcp(from, to, *sequence, 1000);
        if syn {
            tcp = tcp.syn();
        }
        *sequence += u32::try_from(payload.len()).unwrap() + u32::from(syn);
        let mut packet = Vec::new();
        tcp.write_to_vec(&mut packet, payload).unwrap();
        let length = u32::try_from(packet.len()).unwrap().to_le_bytes();
        self.file.extend([[0; 4], [0; 4], length, length].concat());
        self.file.extend(packet);
        self
    }

    fn read(&self) -> Result<Capture, String> {
        read(self.file.as_slice(), None)
    }

    /// Why nothing of it can be sent.
    fn error(&self) -> String {
        self.read().unwrap_err()
    }
}

fn hello(engine: &str) -> Vec<u8> {
    let hello = HaproxyHello {
        supported_versions: Some(b"2.0"),
        max_frame_size: Some(1000),
        capabilities: Some(b"pipelining"),
        engine_id: Some(engine.as_bytes()),
        ..HaproxyHello::default()
    };
    let mut payload = Vec::new();
    hello.encode(&mut payload);
    frame(FrameType::HAPROXY_HELLO, Flags::FIN, 0, &payload)
}

fn frame(kind: FrameType, flags: Flags, stream_id: u64, payload: &[u8]) -> Vec<u8> {
    let frame_id = u64::from(stream_id > 0);
    let header = FrameHeader { kind, flags, stream_id, frame_id };
    let mut bytes = Vec::new();
    Frame { header, payload }.encode(&mut bytes);
    bytes
}

fn notify(stream: u64, payload: &str) -> Vec<u8> {
    frame(FrameType::NOTIFY, Flags::FIN, stream, payload.as_bytes())
}

fn agent_hello() -> Vec<u8> {
    frame(FrameType::AGENT_HELLO, Flags::FIN, 0, b"")
}

/// Connection and payload of each NOTIFY.
fn asked(capture: &Capture) -> Vec<(u64, &str)> {
    let asked = |notify: &'_ crate::capture::Captured| notify.connection.unwrap();
    let text = |payload| str::from_utf8(payload).unwrap();
    capture.notifies.iter().map(|one| (asked(one), text(&one.payload))).collect()
}

#[test]
fn connections_in_the_order_of_the_file() {
    let part = |kind, flags, payload: &str| frame(kind, flags, 5, payload.as_bytes());
    let trace = Trace::new()
        .begin(40_001)
        .begin(40_000)
        .haproxy(40_001, &hello("a"))
        .haproxy(40_000, &hello("a"))
        .agent(40_000, &agent_hello())
        .haproxy(40_001, &part(FrameType::NOTIFY, Flags(0), "fra"))
        .haproxy(40_000, &notify(1, "one"))
        .agent(40_001, &agent_hello())
        .haproxy(40_001, &part(FrameType::UNSET, Flags(0), "gmen"))
        .haproxy(40_000, &[notify(3, "two"), notify(5, "three")].concat())
        .haproxy(40_001, &part(FrameType::UNSET, Flags::FIN, "ts"))
        .haproxy(40_000, &notify(7, "four"));
    let capture = trace.read().unwrap();
    assert_eq!(
        asked(&capture),
        [(2, "one"), (2, "two"), (2, "three"), (1, "fragments"), (2, "four")]
    );
    assert_eq!(capture.left_out, <[String; 0]>::default());
    // What one connection shows of HAProxy counts for all of its engine-id.
    let [engine] = capture.engines.as_slice() else { panic!("{:?}", capture.engines) };
    assert_eq!((engine.dialect(), engine.max_frame_size), (Dialect::Old, 1000));
}

#[test]
fn engines_are_told_apart() {
    let trace = Trace::new()
        .begin(1)
        .begin(2)
        .haproxy(1, &[hello("old"), notify(2, "even")].concat())
        .haproxy(2, &[hello("new"), notify(1, "odd")].concat());
    let capture = trace.read().unwrap();
    let dialects: Vec<_> = capture.engines.iter().map(crate::capture::Engine::dialect).collect();
    assert_eq!(dialects, [Dialect::Old, Dialect::New]);
    let engines: Vec<_> = capture.notifies.iter().map(|notify| notify.engine).collect();
    assert_eq!(engines, [0, 1]);
}

/// HAProxy's side is all that is sent again.
#[test]
fn without_the_agent() {
    let trace = Trace::new()
        .packet(1, AGENT, true, &[])
        .haproxy(1, &hello("a"))
        .haproxy(1, &notify(1, "x"));
    assert_eq!(asked(&trace.read().unwrap()), [(1, "x")]);
}

#[test]
fn without_haproxy() {
    let trace = Trace::new().packet(AGENT, 1, true, &[]).agent(1, &agent_hello());
    assert_eq!(
        trace.error(),
        "no NOTIFY to use in it: #1 HAProxy 192.0.2.1:1 -> agent 192.0.2.1:12345: only what the \
         agent sent was captured, and not what HAProxy sent"
    );
}

#[test]
fn no_spop() {
    let trace = Trace::new();
    assert_eq!(trace.error(), "no SPOP in it: no connection begins with a HELLO");
    let trace = trace.begin(1).haproxy(1, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(trace.error(), "no SPOP in it: no connection begins with a HELLO");
    // Not even where it was there before.
    let trace = Trace::new().haproxy(1, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(trace.error(), "no SPOP in it: no connection begins with a HELLO");
    let other_port = read(trace.file.as_slice(), Some(9000)).unwrap_err();
    assert_eq!(other_port, "no SPOP in it: no connection to port 9000");
    let trace = Trace::new().begin(1).haproxy(1, &hello("a")).agent(1, &agent_hello());
    assert_eq!(trace.error(), "no NOTIFY in it");
}

#[test]
fn from_the_middle_on() {
    let advice = ". Begin the capture before HAProxy connects, or reload HAProxy while it runs";
    let ends = "#1 HAProxy 192.0.2.1:1 -> agent 192.0.2.1:12345";
    let middle = "it begins in its middle, with NOTIFY: it was there before the capture";
    let trace = Trace::new().haproxy(1, &notify(3, "x"));
    assert_eq!(
        trace.error(),
        format!(
            "no NOTIFY to use in it: a connection was there before the capture, without \
             HAPROXY-HELLO: left out{advice}"
        )
    );
    // With the port it is known who is who.
    assert_eq!(
        read(trace.file.as_slice(), Some(AGENT)).unwrap_err(),
        format!("no NOTIFY to use in it: {ends}: {middle}{advice}")
    );
    // AGENT-HELLO is there, HAPROXY-HELLO is not.
    let trace = Trace::new().agent(1, &agent_hello()).haproxy(1, &notify(1, "x"));
    assert_eq!(trace.error(), format!("no NOTIFY to use in it: {ends}: {middle}{advice}"));
    // One that is whole is used all the same.
    let trace = trace
        .haproxy(3, &notify(3, "y"))
        .begin(2)
        .haproxy(2, &[hello("a"), notify(1, "z")].concat());
    let capture = trace.read().unwrap();
    assert_eq!(asked(&capture), [(2, "z")]);
    assert_eq!(
        capture.left_out,
        [
            format!("{ends}: {middle}"),
            "a connection was there before the capture, without HAPROXY-HELLO: left out".to_owned()
        ]
    );
}

#[test]
fn used_up_to_a_gap() {
    let start = hello("a");
    let trace = Trace::new()
        .begin(1)
        .haproxy(1, &start)
        .haproxy(1, &notify(1, "one"))
        .lost(1, 20)
        .haproxy(1, &notify(5, "three"));
    let capture = trace.read().unwrap();
    assert_eq!(asked(&capture), [(1, "one")]);
    let at = start.len() + notify(1, "one").len();
    assert_eq!(
        capture.left_out,
        [format!(
            "#1 HAProxy 192.0.2.1:1 -> agent 192.0.2.1:12345: 20 bytes from byte {at} on were not \
             captured: what follows is left out"
        )]
    );
    // Of the agent nothing is needed.
    let trace = Trace::new().begin(1).haproxy(1, &start).agent(1, &agent_hello());
    let mut trace = trace.haproxy(1, &notify(1, "one"));
    *trace.next.get_mut(&(AGENT, 1)).unwrap() += 7;
    let capture = trace.agent(1, b"more").read().unwrap();
    assert_eq!((asked(&capture), capture.left_out.len()), (vec![(1, "one")], 0));
}

#[test]
fn ends_that_are_not_whole() {
    let mut bytes = [hello("a"), notify(1, "one")].concat();
    bytes.extend(frame(FrameType::NOTIFY, Flags(0), 3, b"half"));
    bytes.extend(&notify(5, "x")[..6]);
    let mut trace = Trace::new().begin(1).haproxy(1, &bytes).begin(2);
    trace.file.extend([0; 16 + 3]);
    let length = trace.file.len();
    trace.file[length - 11] = 40;
    let capture = trace.read().unwrap();
    assert_eq!((asked(&capture), capture.cut), (vec![(1, "one")], 6));
    let ends = "#1 HAProxy 192.0.2.1:1 -> agent 192.0.2.1:12345";
    assert_eq!(
        capture.left_out,
        [
            "it ends within a packet, which is left out".to_owned(),
            format!("{ends}: the last 6 bytes are not a whole frame, and are left out"),
            format!(
                "{ends}: the last fragments of stream 3, frame 1 are not there: it is left out"
            ),
        ]
    );
}

/// What is no frame ends the use of its connection, and of no other.
#[test]
fn a_frame_that_is_none() {
    let trace = Trace::new()
        .begin(1)
        .begin(2)
        .haproxy(1, &[hello("a"), notify(1, "one"), vec![0, 0, 0, 1, 3]].concat())
        .haproxy(2, &[hello("a"), notify(1, "two")].concat())
        .haproxy(1, &notify(3, "three"));
    let capture = trace.read().unwrap();
    assert_eq!(asked(&capture), [(1, "one"), (2, "two")]);
    let [why] = capture.left_out.as_slice() else { panic!("{:?}", capture.left_out) };
    assert!(why.contains(": the frame at byte ") && why.ends_with("what follows is left out"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No bytes make it panic, and what it finds can be asked.
    #[test]
    fn damaged_captures(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        port in any::<bool>(),
    ) {
        let part = |kind, flags| frame(kind, flags, 5, b"part");
        let mut bytes = Trace::new()
            .begin(1)
            .haproxy(1, &[hello("a"), notify(1, "one")].concat())
            .haproxy(1, &part(FrameType::NOTIFY, Flags(0)))
            .agent(1, &agent_hello())
            .haproxy(2, &hello("b"))
            .haproxy(1, &part(FrameType::UNSET, Flags::FIN))
            .file;
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()) / 8);
        if let Ok(capture) = read(bytes.as_slice(), port.then_some(AGENT)) {
            prop_assert!(!capture.notifies.is_empty());
            for notify in &capture.notifies {
                prop_assert!(notify.engine < capture.engines.len());
            }
        }
    }
}
