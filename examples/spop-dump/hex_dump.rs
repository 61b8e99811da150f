//! Text that stands for bytes: `xxd`, `xxd -p`, `hexdump -C`, `tcpdump -X`, pairs of digits.

use std::fmt;
use std::time::Duration;

use pcap_parser::Linktype;

use crate::network::{Packet, Segment, packet};

/// What a text stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Dump {
    /// What one side wrote.
    Stream(Vec<u8>),
    /// Packets, as `tcpdump` prints them; each with a TCP segment in it.
    Packets(Vec<Captured>),
}

/// A packet with its headers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    link: i32,
    time: Option<Duration>,
    data: Vec<u8>,
}

/// A text that is no dump.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoDump {
    line: usize,
    what: &'static str,
}

impl fmt::Display for NoDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for NoDump {}

impl Captured {
    /// The segment; `None` where the packet has none.
    pub(crate) fn segment(&self) -> Option<Segment<'_>> {
        match packet(Linktype(self.link), &self.data, self.time) {
            Packet::Tcp(segment) => Some(segment),
            Packet::Fragment | Packet::Other => None,
        }
    }
}

/// Reads a dump.
pub(crate) fn parse(text: &[u8]) -> Result<Dump, NoDump> {
    // Bytes of each block: the offsets of tcpdump begin again with each packet.
    let mut blocks: Vec<(Option<Duration>, Vec<u8>)> = Vec::new();
    let mut time = None;
    let mut repeat = false;
    let mut packets = false;
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let wrong = |what| NoDump { line: number, what };
        let line = str::from_utf8(line).map_err(|_| wrong("not text"))?.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "*" {
            repeat = true;
            continue;
        }
        let done = blocks.last().map(|(_, block)| block.len());
        if let Some(end) = end(line)
            && (repeat || done == Some(end))
        {
            if let Some((_, block)) = blocks.last_mut().filter(|_| repeat) {
                repeat = false;
                fill(block, end).ok_or_else(|| wrong(NO_ROW))?;
            }
            continue;
        }
        let (offset, digits) = split(line);
        let Some(digits) = digits else {
            // The line in front of a packet.
            if let Some(at) = clock(line) {
                time = Some(at);
                packets = true;
                continue;
            }
            return Err(wrong("words of two bytes, in the order of some machine: use hexdump -C"));
        };
        let bytes = bytes(digits);
        if packets && offset.is_none() {
            // More words about the packet.
            continue;
        }
        let bytes = bytes.ok_or_else(|| wrong("no pairs of hex digits"))?;
        if offset == Some(0) || blocks.is_empty() {
            blocks.push((time.take(), Vec::new()));
        }
        let Some((_, block)) = blocks.last_mut() else { continue };
        let base = u64::try_from(block.len()).unwrap_or(u64::MAX);
        if std::mem::take(&mut repeat) {
            let until = offset.and_then(|offset| usize::try_from(offset).ok());
            until.and_then(|until| fill(block, until)).ok_or_else(|| wrong(NO_ROW))?;
        } else if offset.is_some_and(|offset| offset != base) && base > 0 {
            return Err(wrong("the offset does not follow from the lines before"));
        }
        block.extend_from_slice(&bytes);
    }
    if repeat {
        return Err(NoDump {
            line: text.split(|&b| b == b'\n').count(),
            what: "`*` is the last line",
        });
    }
    let of_packets = packets || blocks.len() > 1;
    let captured: Vec<_> = blocks.iter().map(|(time, data)| captured(*time, data)).collect();
    if of_packets && captured.iter().any(|packet| packet.segment().is_some()) {
        return Ok(Dump::Packets(captured));
    }
    match <[_; 1]>::try_from(captured) {
        // One packet without a line in front of it.
        Ok([packet]) if packet.segment().is_some() => Ok(Dump::Packets(vec![packet])),
        _ => Ok(Dump::Stream(blocks.into_iter().flat_map(|(_, data)| data).collect())),
    }
}

/// `-X` begins with IP, `-XX` with the link.
fn captured(time: Option<Duration>, data: &[u8]) -> Captured {
    let raw = matches!(data.first(), Some(0x45..=0x4f | 0x60..=0x6f));
    let link = if raw { Linktype::RAW } else { Linktype::ETHERNET };
    Captured { link: link.0, time, data: data.to_vec() }
}

const NO_ROW: &str = "`*` stands for rows that are repeated, up to an offset in the next line";

/// The line with which hexdump and od end: the offset alone.
fn end(line: &str) -> Option<usize> {
    let alone = (6..=8).contains(&line.len()) && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    if alone { usize::from_str_radix(line, 16).ok() } else { None }
}

/// The offset, if there is one, and the part of a line that has the digits; `None` for a line that has none.
fn split(line: &str) -> (Option<u64>, Option<&str>) {
    let text = line.trim_start();
    let word = text.split([' ', '\t']).next().unwrap_or_default();
    let rest = text.get(word.len()..).unwrap_or_default();
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    // xxd `00000010: ..`, tcpdump `0x0010:  ..`: the characters stand behind two spaces.
    if let Some(digits) = word.strip_suffix(':')
        && let Some(offset) = number(digits.strip_prefix("0x").unwrap_or(digits))
    {
        return (Some(offset), rest.trim_start().split("  ").next());
    }
    // hexdump -C `00000010  .. |..|`, od -A x -t x1z `000010 .. >..<`.
    let is_od = word.len() == 6 && rest.contains('>');
    if ((6..=16).contains(&word.len()) && rest.starts_with("  ") || is_od)
        && let Some(offset) = number(word)
    {
        let end = rest.find(['|', '>']).unwrap_or(rest.len());
        return (Some(offset), rest.get(..end));
    }
    if word.len() == 7 && number(word).is_some() && !rest.is_empty() {
        return (None, None);
    }
    if clock(line).is_some() {
        return (None, None);
    }
    (None, Some(text))
}

/// Pairs of digits, with or without `0x`, spaces and commas.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for word in text.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let digits = word.strip_prefix("0x").unwrap_or(word).as_bytes();
        let (pairs, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        for pair in pairs {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            let byte = high?.checked_mul(16)?.checked_add(low?)?;
            bytes.push(u8::try_from(byte).ok()?);
        }
    }
    Some(bytes)
}

/// `12:00:00.000000`, with which tcpdump begins a packet. The day is not told.
fn clock(line: &str) -> Option<Duration> {
    let word = line.split(' ').find(|word| word.contains(':'))?;
    let mut parts = word.split(':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let (seconds, part) = parts.next()?.split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    let micros: u64 = part.get(..6)?.parse().ok()?;
    let in_order = parts.next().is_none() && hours < 24 && minutes < 60 && seconds < 61;
    let whole = hours
        .saturating_mul(3600)
        .saturating_add(minutes.saturating_mul(60))
        .saturating_add(seconds);
    in_order.then(|| Duration::from_secs(whole).saturating_add(Duration::from_micros(micros)))
}

/// Repeats the last row up to `offset`: what `*` stands for.
fn fill(block: &mut Vec<u8>, until: usize) -> Option<()> {
    const MOST: usize = 64 << 20;
    if until > MOST {
        return None;
    }
    let row = block.get(block.len().checked_sub(16)?..)?.to_vec();
    while block.len() < until {
        let left = until.saturating_sub(block.len());
        block.extend(row.iter().take(left));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(text: &str) -> Vec<u8> {
        match parse(text.as_bytes()) {
            Ok(Dump::Stream(bytes)) => bytes,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_usual_forms() {
        let bytes: Vec<u8> = (0..18).collect();
        for text in [
            // xxd, xxd -g1, xxd -p
            "00000000: 0001 0203 0405 0607 0809 0a0b 0c0d 0e0f  ................\n00000010: 1011                                     ..\n",
            "00000000: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  ................\n00000010: 10 11                                            ..\n",
            "000102030405060708090a0b0c0d0e0f1011\n",
            // hexdump -C
            "00000000  00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  |................|\n00000010  10 11                                             |..|\n00000012\n",
            // od -A x -t x1z
            "000000 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  >................<\n000010 10 11                                            >..<\n000012\n",
            "\t0x0000:  0001 0203 0405 0607 0809 0a0b 0c0d 0e0f  ................\n\t0x0010:  1011                                     ..\n",
            "# by hand\n00 01 02 03 04 05 06 07 08 09 0a 0b 0c\n0x0d, 0x0e, 0x0f, 1011\n",
        ] {
            assert_eq!(stream(text), bytes, "{text}");
        }
    }

    /// Characters that are hex digits themselves.
    #[test]
    fn what_stands_beside_is_not_read() {
        assert_eq!(stream("00000000: 6162 6364                                abcd\n"), b"abcd");
        assert_eq!(stream("00000000  61 62  |ab|\n"), b"ab");
    }

    #[test]
    fn squeezed_rows() {
        let text = "00000000  61 61 61 61 61 61 61 61  61 61 61 61 61 61 61 61  |aaaaaaaaaaaaaaaa|\n*\n00000030  62  |b|\n00000031\n";
        assert_eq!(stream(text), [vec![b'a'; 48], vec![b'b']].concat());
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in [
            ("00 01\nGET / HTTP/1.1\n", 2),
            ("0000000 0001 0203\n", 1),
            ("00000000: 0001\n00000010: 02\n", 2),
            ("*\n", 2),
            ("00000000  61  |a|\n*\n00000020\n", 3),
            ("0 1 2", 1),
        ] {
            assert_eq!(parse(text.as_bytes()).map_err(|error| error.line), Err(line), "{text}");
        }
    }
}
