//! `--write FILE.pcapng`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError, PcapNGReader};
use serde_json::Value;

use crate::{Client, Tap, agent, ask, directory, dump, large_frame};

/// A TCP packet of a capture, with all there is to check in it.
struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    flags: String,
    sequence: u32,
    acknowledges: u32,
    payload: usize,
    comment: Option<String>,
}

/// All of a file, which has to be whole.
fn packets(file: &Path) -> Vec<Packet> {
    let bytes = fs::read(file).unwrap();
    let mut reader = PcapNGReader::new(1 << 20, bytes.as_slice()).unwrap();
    let (mut all, mut last) = (Vec::new(), 0);
    loop {
        let (taken, block) = match reader.next() {
            Ok(next) => next,
            Err(PcapError::Eof) => return all,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().unwrap();
                continue;
            }
            Err(error) => panic!("{error:?}"),
        };
        if let PcapBlockOwned::NG(Block::EnhancedPacket(block)) = block {
            let time = (u64::from(block.ts_high) << 32) | u64::from(block.ts_low);
            assert!(time >= last, "times go on");
            last = time;
            let data = &block.data[..usize::try_from(block.caplen).unwrap()];
            let comment = block.options.iter().find(|option| option.code.0 == 1);
            let comment = comment.map(|comment| comment.as_bytes().unwrap());
            let comment = comment.map(|text| String::from_utf8(text.to_vec()).unwrap());
            all.push(Packet::read(data, comment));
        }
        reader.consume(taken);
    }
}

impl Packet {
    fn read(data: &[u8], comment: Option<String>) -> Self {
        let packet = SlicedPacket::from_ip(data).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
        let (from, to): (IpAddr, IpAddr) = match packet.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
                assert_eq!(
                    tcp.checksum(),
                    tcp.calc_checksum_ipv4(from.octets(), to.octets()).unwrap()
                );
                (from.into(), to.into())
            }
            NetSlice::Ipv6(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            other => panic!("{other:?}"),
        };
        let flags = [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.ack(), '.')];
        Self {
            from: (from, tcp.source_port()).into(),
            to: (to, tcp.destination_port()).into(),
            flags: flags.iter().filter(|flag| flag.0).map(|flag| flag.1).collect(),
            sequence: tcp.sequence_number(),
            acknowledges: tcp.acknowledgment_number(),
            payload: tcp.payload().len(),
            comment,
        }
    }
}

/// Every packet is the next that its side can send, and acknowledges nothing that was not sent. The flags
/// of each connection, in the order in which they began.
fn connections(packets: &[Packet]) -> Vec<String> {
    let mut next: BTreeMap<(SocketAddr, SocketAddr), u32> = BTreeMap::new();
    let mut flags: Vec<((SocketAddr, SocketAddr), String)> = Vec::new();
    for packet in packets {
        let (there, back) = ((packet.from, packet.to), (packet.to, packet.from));
        if packet.flags == "S" {
            assert!(packet.comment.is_some());
            next.remove(&back);
            flags.push((there, String::new()));
        } else {
            assert_eq!(Some(&packet.acknowledges), next.get(&back), "{}", packet.flags);
        }
        if packet.flags.contains('S') {
            next.insert(there, packet.sequence);
        }
        let own = next.get_mut(&there).unwrap();
        assert_eq!(*own, packet.sequence, "{}", packet.flags);
        let counts = u32::from(packet.flags.contains(['S', 'F']));
        *own = own.wrapping_add(u32::try_from(packet.payload).unwrap()).wrapping_add(counts);
        let known = flags.iter_mut().rev().find(|(pair, _)| *pair == there || *pair == back);
        known.unwrap().1.push_str(&format!("{} ", packet.flags));
    }
    flags.into_iter().map(|(_, flags)| flags.trim_end().to_owned()).collect()
}

/// The frames of a dump as JSON, less what only a capture knows; each side's in their order.
fn frames(file: &Path) -> BTreeMap<(u64, String), Vec<Value>> {
    let mut frames: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for line in dump(&file.display().to_string(), &["--json"]).lines() {
        let mut frame: Value = serde_json::from_str(line).unwrap();
        let fields = frame.as_object_mut().unwrap();
        let connection = fields.remove("connection").and_then(|number| number.as_u64());
        for name in ["time", "after_seconds"] {
            fields.remove(name);
        }
        if let Some(side) = fields.get("from").and_then(Value::as_str) {
            let key = (connection.unwrap_or(0), side.to_owned());
            frames.entry(key).or_default().push(frame);
        }
    }
    frames
}

/// Bytes in files and packets in a capture are the same frames, whatever the sockets are.
#[test]
fn a_capture_has_the_frames_that_passed() {
    let folder = directory("tap-capture");
    let unix = |name: &str| format!("unix:{}", folder.join(name).display());
    let (prefix, outer, inner) =
        (folder.join("bytes"), folder.join("outer.pcapng"), folder.join("inner.pcapng"));
    let agent = agent(&unix("agent.sock"));
    // All three see the same bytes.
    let last = Tap::start(&unix("3.sock"), &agent, &["--write", &inner.display().to_string()]);
    let middle =
        Tap::start("127.0.0.1:0", &unix("3.sock"), &["--write", &prefix.display().to_string()]);
    let first =
        Tap::start("127.0.0.1:0", &middle.address, &["--write", &outer.display().to_string()]);
    // Open at the same time, and begun in this order.
    let mut clients: Vec<_> = (0..3).map(|_| Client::greet(first.connect())).collect();
    for (client, token) in clients.iter_mut().zip(["one", "two", "three"]) {
        assert_eq!(client.ask(token), "set-var txn.ip_score int32:20\n");
    }
    let middle_address: SocketAddr = middle.address.parse().unwrap();
    let haproxys: Vec<_> =
        clients.iter().map(|client| client.stream.local_addr().unwrap()).collect();
    clients.into_iter().for_each(Client::leave);
    for tap in [first, middle, last] {
        assert_eq!(tap.stop().1, Some(0));
    }

    for (file, unix) in [(&outer, false), (&inner, true)] {
        let captured = frames(file);
        for number in 1..=3 {
            for side in ["haproxy", "agent"] {
                let kept = frames(&folder.join(format!("bytes.{number}.{side}")));
                let kept = &kept[&(0, side.to_owned())];
                assert!(kept.len() >= 2, "{kept:?}");
                assert_eq!(&captured[&(number, side.to_owned())], kept, "{number} {side}");
            }
        }
        let packets = packets(file);
        let connections = connections(&packets);
        assert_eq!(connections.len(), 3);
        for flags in &connections {
            assert!(flags.starts_with("S S. .") && flags.matches('F').count() == 2, "{flags}");
        }
        for (number, (first, haproxy)) in
            packets.iter().filter(|packet| packet.flags == "S").zip(&haproxys).enumerate()
        {
            let comment = first.comment.as_ref().unwrap();
            assert!(comment.starts_with(&format!("spop-tap #{}: ", number + 1)), "{comment}");
            if unix {
                assert!(comment.contains("a client of unix:") && comment.contains(&agent));
                assert!(comment.contains("a Unix socket has no address"), "{comment}");
                assert_eq!(first.to, "127.0.0.1:12345".parse().unwrap());
            } else {
                assert_eq!((first.from, first.to), (*haproxy, middle_address));
            }
        }
    }
}

/// The file is whole at any time.
#[test]
fn a_tap_that_is_killed_leaves_a_capture() {
    let file = directory("tap-killed").join("a.pcapng");
    let words = ["--write", &file.display().to_string()];
    let mut tap = Tap::start("127.0.0.1:0", &agent("127.0.0.1:0"), &words);
    ask(tap.connect());
    tap.read_to("int32 20");
    // SIGKILL.
    drop(tap);
    assert_eq!(frames(&file)[&(1, "agent".to_owned())].len(), 2);
    assert_eq!(connections(&packets(&file)).len(), 1);
}

/// Whoever broke it off does so in the capture.
#[test]
fn resets_and_halves() {
    let file = directory("tap-resets").join("a.pcapng");
    let words = ["--write", &file.display().to_string()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut tap = Tap::start("127.0.0.1:0", &address.to_string(), &words);

    // The agent breaks it off, then HAProxy.
    for agents in [true, false] {
        let mut client = tap.connect();
        let mut server = listener.accept().unwrap().0;
        // Then the tap has taken notice of both.
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        let (breaks, sees) = if agents { (&server, &client) } else { (&client, &server) };
        socket2::SockRef::from(breaks).set_linger(Some(Duration::ZERO)).unwrap();
        let mut sees = sees.try_clone().unwrap();
        drop(if agents { server } else { client });
        sees.read(&mut [0]).unwrap_err();
        tap.read_to("Connection reset by peer (os error 104)");
    }

    // HAProxy is done first, and gets an answer all the same.
    let mut client = tap.connect();
    let mut server = listener.accept().unwrap().0;
    client.write_all(b"any bytes").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    server.read_to_end(&mut Vec::new()).unwrap();
    server.write_all(b"an answer").unwrap();
    drop(server);
    client.read_to_end(&mut Vec::new()).unwrap();
    tap.read_to("closed");

    drop(tap);
    let packets = packets(&file);
    assert_eq!(
        connections(&packets),
        ["S S. . . R.", "S S. . . R.", "S S. . . F. . . F. ."].map(str::to_owned)
    );
    let resets: Vec<_> = packets.iter().filter(|packet| packet.flags == "R.").collect();
    assert_eq!((resets[0].from, resets[1].to), (address, address));
}

/// The same where nobody reads what the tap prints, so that it cannot be told at once.
#[test]
fn what_went_wrong_is_told_however_late() {
    const FRAMES: usize = 3000;
    let file = directory("tap-late").join("a.pcapng");
    let words = ["--write", &file.display().to_string()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // 32 MiB of the 46 that will pass; what may wait to be shown is 16.
    let mut tap = Tap::started_by(limited(65_536), "127.0.0.1:0", &address, &words);
    let frame = large_frame();
    let all = frame.repeat(FRAMES);
    let mut client = tap.connect();
    let mut server = listener.accept().unwrap().0;
    let writer = thread::spawn(move || client.write_all(&all).map(|()| client).unwrap());
    server.read_exact(&mut vec![0; frame.len() * FRAMES]).unwrap();
    drop((writer.join().unwrap(), server));
    let text = tap.read_to("#1 closed");
    let told = format!("{} is no longer written: File too large", file.display());
    assert_eq!(text.matches(&told).count(), 1);
    assert_eq!(tap.stop().1, Some(3));
    let kept: usize = packets(&file).iter().map(|packet| packet.payload).sum();
    assert!((24 << 20..32 << 20).contains(&kept), "{kept}");
}

/// A tap that cannot write files of more than so many times 512 bytes, and gets an error beyond instead of
/// the signal.
fn limited(blocks: u32) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"")).arg("sh");
    shell.arg(env!("CARGO_BIN_EXE_spop-tap"));
    shell
}

/// A disk without room: it is said, the bytes pass all the same, and what is there can be read.
#[test]
fn a_file_that_cannot_grow() {
    let folder = directory("tap-full");
    let file = folder.join("a.pcapng");
    let words = ["--write", &file.display().to_string()];
    let mut tap = Tap::started_by(limited(8), "127.0.0.1:0", &agent("127.0.0.1:0"), &words);
    for _ in 0..10 {
        assert_eq!(ask(tap.connect()), "set-var txn.ip_score int32:20\n");
    }
    let live = tap.read_to("#10 closed");
    let told = format!("{} is no longer written: File too large", file.display());
    assert_eq!(live.matches(&told).count(), 1, "{live}");
    let (rest, status) = tap.stop();
    assert_eq!(status, Some(3), "{rest}");
    let length = fs::metadata(&file).unwrap().len();
    assert!((3000..=4096).contains(&length), "{length}");
    assert!(connections(&packets(&file)).len() > 1);
    dump(&file.display().to_string(), &[]);
}
