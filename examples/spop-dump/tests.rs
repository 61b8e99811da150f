//! Captures: links, order, repetition, gaps, and any bytes.

use std::fs;
use std::path::PathBuf;

use clap::Parser;
use proptest::prelude::*;

use crate::args::Args;
use crate::input;
use crate::show::Printer;

fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/dump");
    fs::read(folder.join(name)).unwrap()
}

/// What is printed, and whether all was right.
fn dump(bytes: &[u8], words: &[&str]) -> (String, bool) {
    let args = Args::try_parse_from([&["spop-dump", "-"], words].concat()).unwrap();
    let mut out = Vec::new();
    let plain = anstream::StripStream::new(&mut out);
    let right = input::show(&args, bytes, &mut Printer::new(plain, args.look)).unwrap();
    (String::from_utf8(out).unwrap(), right)
}

/// The packets of a pcap file in little-endian order: what stands in front of each, and its bytes.
fn packets(file: &[u8]) -> Vec<([u8; 8], Vec<u8>)> {
    let mut all = Vec::new();
    let mut rest = &file[24..];
    while let Some((head, data)) = rest.split_first_chunk::<16>() {
        let length = u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize;
        all.push((head[..8].try_into().unwrap(), data[..length].to_vec()));
        rest = &data[length..];
    }
    all
}

fn pcap<'a>(link: u32, packets: impl IntoIterator<Item = &'a ([u8; 8], Vec<u8>)>) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0];
    file.extend_from_slice(&link.to_le_bytes());
    for (time, data) in packets {
        file.extend_from_slice(time);
        let length = u32::try_from(data.len()).unwrap().to_le_bytes();
        file.extend_from_slice(&length);
        file.extend_from_slice(&length);
        file.extend_from_slice(data);
    }
    file
}

/// The same packets in a pcapng file.
fn pcapng(link: u16, packets: &[([u8; 8], Vec<u8>)]) -> Vec<u8> {
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&kind.to_le_bytes()[..], &length, body, &length].concat()
    }
    let section = [&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0][..], &[0xff; 8]].concat();
    let mut file = block(0x0a0d_0d0a, &section);
    file.extend(block(1, &[&link.to_le_bytes()[..], &[0, 0, 0, 0, 4, 0]].concat()));
    for (time, data) in packets {
        let [seconds, micros] =
            [0, 4].map(|at| u64::from(u32::from_le_bytes(time[at..at + 4].try_into().unwrap())));
        let ticks = seconds * 1_000_000 + micros;
        let high = u32::try_from(ticks >> 32).unwrap().to_le_bytes();
        let low = u32::try_from(ticks & 0xffff_ffff).unwrap().to_le_bytes();
        let length = u32::try_from(data.len()).unwrap().to_le_bytes();
        let padding = vec![0; data.len().next_multiple_of(4) - data.len()];
        let body = [&[0; 4][..], &high, &low, &length, &length, data, &padding].concat();
        file.extend(block(6, &body));
    }
    file
}

/// The headers of Ethernet, IP and TCP that HAProxy's packets have on the loopback interface.
const ETHERNET: usize = 14;

fn ip_packets() -> Vec<([u8; 8], Vec<u8>)> {
    let all = packets(&fixture("haproxy-3.2.pcap"));
    all.into_iter().map(|(time, data)| (time, data[ETHERNET..].to_vec())).collect()
}

/// Behind the headers of TCP.
fn payload_at(ip: &[u8]) -> usize {
    20 + usize::from(ip[32] >> 4) * 4
}

#[test]
fn every_kind_of_link() {
    let ethernet = fixture("haproxy-3.2.pcap");
    let (expected, right) = dump(&ethernet, &[]);
    assert!(right && expected.contains("4 frames, nothing wrong"), "{expected}");
    // pcap's number, and what stands in front of IP there.
    let links: [(u16, &[u8]); 7] = [
        (0, &[2, 0, 0, 0]),
        (108, &[0, 0, 0, 2]),
        (101, &[]),
        (12, &[]),
        (228, &[]),
        (113, &[0, 0, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0]),
        (276, &[8, 0, 0, 0, 0, 0, 0, 1, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (link, header) in links {
        let packets: Vec<_> =
            ip_packets().into_iter().map(|(time, ip)| (time, [header, &ip].concat())).collect();
        assert_eq!(dump(&pcap(link.into(), &packets), &[]).0, expected, "{link}");
        assert_eq!(dump(&pcapng(link, &packets), &[]).0, expected, "{link}");
    }
    let args = Args::try_parse_from(["spop-dump", "-"]).unwrap();
    let unknown = input::show(&args, &pcap(147, [])[..], &mut Printer::new(Vec::new(), args.look));
    assert!(unknown.unwrap_err().to_string().starts_with("link type 147: "));
}

#[test]
fn ipv6() {
    let to_v6 = |ip: &[u8]| {
        let mut v6 = vec![0x60, 0, 0, 0];
        v6.extend_from_slice(&u16::try_from(ip.len() - 20).unwrap().to_be_bytes());
        v6.extend_from_slice(&[6, 64]);
        for _ in 0..2 {
            v6.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        }
        v6.extend_from_slice(&ip[20..]);
        v6
    };
    let packets: Vec<_> = ip_packets().iter().map(|(time, ip)| (*time, to_v6(ip))).collect();
    let (text, right) = dump(&pcap(101, &packets), &[]);
    assert!(text.starts_with("#1 HAProxy [2001:db8::7]:54264 -> agent [2001:db8::7]:12345\n"));
    assert!(right && text.contains("4 frames, nothing wrong"), "{text}");
}

/// Segments cut into single bytes, twice, in any order: the same frames.
#[test]
fn order_and_repetition() {
    let packets = ip_packets();
    let (expected, _) = dump(&pcap(101, &packets), &["--json"]);
    let timeless = |text: &str| {
        let no_time = |line: &str| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            let fields = line.as_object_mut().unwrap();
            fields.remove("time");
            fields.remove("after_seconds");
            line.to_string()
        };
        let mut lines: Vec<_> = text.lines().map(no_time).collect();
        lines.sort();
        lines
    };
    let mut small = Vec::new();
    for (time, ip) in &packets {
        let at = payload_at(ip);
        if ip.len() == at {
            small.push((*time, ip.clone()));
            continue;
        }
        let sequence = u32::from_be_bytes(ip[24..28].try_into().unwrap());
        let mut pieces = Vec::new();
        for (number, piece) in ip[at..].chunks(5).enumerate() {
            let mut packet = ip[..at].to_vec();
            let length = u16::try_from(at + piece.len()).unwrap();
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            let sequence = sequence.wrapping_add(u32::try_from(number * 5).unwrap());
            packet[24..28].copy_from_slice(&sequence.to_be_bytes());
            packet.extend_from_slice(piece);
            pieces.push((*time, packet));
        }
        pieces.reverse();
        small.extend(pieces.iter().cloned().chain(pieces.iter().cloned()));
    }
    let (text, right) = dump(&pcap(101, &small), &["--json"]);
    assert!(right, "{text}");
    assert_eq!(timeless(&text), timeless(&expected));
}

/// Sequence numbers that go round.
#[test]
fn sequence_numbers_wrap() {
    let mut packets = ip_packets();
    let first = u32::from_be_bytes(packets[0].1[24..28].try_into().unwrap());
    for (_, ip) in &mut packets {
        if ip[20..22] != 12345_u16.to_be_bytes() {
            let sequence = u32::from_be_bytes(ip[24..28].try_into().unwrap());
            let wrapped = sequence.wrapping_sub(first).wrapping_sub(60);
            ip[24..28].copy_from_slice(&wrapped.to_be_bytes());
        }
    }
    let (text, right) = dump(&pcap(101, &packets), &[]);
    assert!(right && text.contains("4 frames, nothing wrong"), "{text}");
}

#[test]
fn what_the_capture_lacks() {
    let packets = ip_packets();
    let has_payload = |(_, ip): &&([u8; 8], Vec<u8>)| ip.len() > payload_at(ip);
    let number = |want: usize| {
        let with: Vec<_> = packets.iter().filter(has_payload).collect();
        packets.iter().position(|packet| std::ptr::eq(packet, with[want])).unwrap()
    };
    // Without the AGENT-HELLO: said, and the ACK is found behind it.
    let mut lacking = packets.clone();
    lacking.remove(number(1));
    let (text, right) = dump(&pcap(101, &lacking), &[]);
    assert!(!right && text.contains("82 bytes are missing here"), "{text}");
    assert!(text.contains("<- ACK FIN") && !text.contains("<- AGENT-HELLO"), "{text}");

    // A packet of which only the start was captured: the frame is lost, and not the next.
    let mut cut = packets.clone();
    let at = number(0);
    cut[at].1.truncate(payload_at(&packets[at].1) + 30);
    let (text, right) = dump(&pcap(101, &cut), &[]);
    assert!(!right && text.contains("97 bytes are missing here"), "{text}");
    assert!(text.contains("-> NOTIFY FIN stream-id 1"), "{text}");

    // From the middle on: only the agent's port tells what it is.
    let middle = &packets[number(2)..];
    let (text, right) = dump(&pcap(101, middle), &[]);
    assert!(right && text.starts_with("other connections that do not speak SPOP: 1\n"), "{text}");
    let (text, right) = dump(&pcap(101, middle), &["--port", "12345"]);
    assert!(right && text.contains("-> NOTIFY FIN") && text.contains("<- ACK FIN"), "{text}");

    let whole = pcap(101, &packets);
    let (text, right) = dump(&whole[..whole.len() - 7], &[]);
    assert!(!right && text.contains("the capture ends within a packet"), "{text}");
}

/// What xxd, hexdump and tcpdump make of the same.
#[test]
fn dumps_as_text() {
    let bytes = fixture("fragments.bin");
    let (expected, _) = dump(&bytes, &[]);
    let row = |at: usize, row: &[u8], between: &str| {
        let digits: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let ascii: String = row
            .iter()
            .map(|b| char::from(*b))
            .map(|c| if c.is_ascii_graphic() { c } else { '.' })
            .collect();
        format!("{at:08x}{between}{}  |{ascii}|\n", digits.join(" "))
    };
    for between in [": ", "  "] {
        let text: String =
            bytes.chunks(16).enumerate().map(|(n, bytes)| row(n * 16, bytes, between)).collect();
        assert_eq!(dump(text.as_bytes(), &[]).0, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No bytes make it panic: damaged captures of both forms, and text.
    #[test]
    fn damaged_captures(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        which in 0..4_usize,
        cut in any::<prop::sample::Index>(),
        port in any::<bool>(),
    ) {
        let packets = ip_packets();
        let mut bytes = match which {
            0 => pcap(101, &packets),
            1 => pcapng(101, &packets),
            2 => fixture("haproxy-2.6.pcap"),
            _ => fixture("damaged.hex"),
        };
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()) / 8);
        let words: &[&str] = if port { &["--port", "12345"] } else { &[] };
        let args = Args::try_parse_from([&["spop-dump", "-"], words].concat()).unwrap();
        let _ = input::show(&args, &bytes[..], &mut Printer::new(Vec::new(), args.look));
    }
}
