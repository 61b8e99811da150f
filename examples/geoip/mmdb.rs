//! The least that makes a MaxMind database (format 2.0): a binary tree over the bits of IPv6 addresses,
//! in which IPv4 is `::/96`, and a record with two codes for each network.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "for tests")]

use std::net::{IpAddr, Ipv6Addr};

/// A database of networks (`192.0.2.0/24`), each with the codes of its country and its continent. None
/// may lie in another.
pub(crate) fn write(networks: &[(&str, &str, &str)]) -> Vec<u8> {
    // A node is where a 0 and where a 1 lead to.
    let mut nodes = vec![[Branch::Empty; 2]];
    let mut data = Vec::new();
    for (network, country, continent) in networks {
        let (bits, length) = parse(network);
        let mut node = 0;
        for nth in 0..length {
            let bit = usize::from(bits >> (127 - nth) & 1 == 1);
            if nth + 1 == length {
                nodes[node][bit] = Branch::Data(data.len());
            } else if let Branch::Node(next) = nodes[node][bit] {
                node = next;
            } else {
                nodes.push([Branch::Empty; 2]);
                nodes[node][bit] = Branch::Node(nodes.len() - 1);
                node = nodes.len() - 1;
            }
        }
        let country = Item::Map(vec![("iso_code", Item::Text(country))]);
        let continent = Item::Map(vec![("code", Item::Text(continent))]);
        Item::Map(vec![("country", country), ("continent", continent)]).encode(&mut data);
    }

    let count = nodes.len();
    let mut out = Vec::new();
    for branch in nodes.into_iter().flatten() {
        let value = match branch {
            Branch::Node(node) => node,
            Branch::Empty => count,
            Branch::Data(offset) => count + 16 + offset,
        };
        out.extend(u32::try_from(value).unwrap().to_be_bytes());
    }
    out.extend([0; 16]);
    out.extend(data);
    out.extend(b"\xab\xcd\xefMaxMind.com");
    Item::Map(vec![
        ("binary_format_major_version", Item::Number(NUMBER_16, 2)),
        ("binary_format_minor_version", Item::Number(NUMBER_16, 0)),
        ("build_epoch", Item::Number(NUMBER_64, 1)),
        ("database_type", Item::Text("Test-Country")),
        ("description", Item::Map(vec![("en", Item::Text("for tests"))])),
        ("ip_version", Item::Number(NUMBER_16, 6)),
        ("languages", Item::Empty),
        ("node_count", Item::Number(NUMBER_32, u32::try_from(count).unwrap())),
        ("record_size", Item::Number(NUMBER_16, 32)),
    ])
    .encode(&mut out);
    out
}

/// The bits of an address, and how many count.
fn parse(network: &str) -> (u128, u32) {
    let (address, length) = network.split_once('/').unwrap();
    let length: u32 = length.parse().unwrap();
    match address.parse().unwrap() {
        IpAddr::V4(address) => (u32::from(address).into(), 96 + length),
        IpAddr::V6(address) => (Ipv6Addr::to_bits(address), length),
    }
}

#[derive(Clone, Copy)]
enum Branch {
    Empty,
    Node(usize),
    /// An offset in the data.
    Data(usize),
}

/// Types of numbers.
const NUMBER_16: u8 = 5;
const NUMBER_32: u8 = 6;
const NUMBER_64: u8 = 9;

enum Item<'a> {
    Text(&'a str),
    Number(u8, u32),
    Map(Vec<(&'a str, Self)>),
    /// An array without elements.
    Empty,
}

impl Item<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                header(2, text.len(), out);
                out.extend(text.as_bytes());
            }
            Self::Number(kind, number) => {
                header(*kind, 4, out);
                // One of 16 bits takes two bytes at most.
                if *kind == NUMBER_16 {
                    *out.last_mut().unwrap() -= 2;
                    out.extend(&number.to_be_bytes()[2..]);
                } else {
                    out.extend(number.to_be_bytes());
                }
            }
            Self::Map(entries) => {
                header(7, entries.len(), out);
                for (key, value) in entries {
                    Self::Text(key).encode(out);
                    value.encode(out);
                }
            }
            Self::Empty => header(11, 0, out),
        }
    }
}

/// Types up to 7 stand beside the size; the others in a byte of their own behind it.
fn header(kind: u8, size: usize, out: &mut Vec<u8>) {
    let size = u8::try_from(size).unwrap();
    assert!(size < 29, "no text here is that long");
    if kind <= 7 {
        out.push(kind << 5 | size);
    } else {
        out.extend([size, kind - 7]);
    }
}
