//! The reputation list: which score belongs to which address.
//!
//! One `CIDR SCORE` per line, `#` starts a comment, the longest prefix wins. A file is taken whole
//! or not at all: half a block list is worse than the old one.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// The score of an address that no line of the list covers.
pub(crate) const DEFAULT_SCORE: i32 = 10;

/// Scores by prefix, for both address families.
#[derive(Debug, Default)]
pub(crate) struct List {
    v4: PrefixMap<Ipv4Net, Entry>,
    v6: PrefixMap<Ipv6Net, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    score: i32,
    /// Where it was written, for the message about a second line with the same prefix.
    line: usize,
}

impl List {
    /// Reads and parses the file at `path`.
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        let fault = |fault| LoadError { path: path.to_owned(), fault };
        let bytes = std::fs::read(path).map_err(|error| fault(LoadFault::Unreadable(error)))?;
        Self::parse(&bytes).map_err(|line| fault(LoadFault::BadLine(line)))
    }

    /// Parses the contents of a list file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BadLine> {
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let mut list = Self::default();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let number = index + 1;
            list.add_line(line, number).map_err(|reason| BadLine {
                number,
                text: String::from_utf8_lossy(line).trim().to_owned(),
                reason,
            })?;
        }
        Ok(list)
    }

    /// The score of `ip`. An IPv4 address written as IPv6 (`::ffff:192.0.2.1`, what HAProxy sends
    /// for an IPv4 client of a `v4v6` listener) is the IPv4 address.
    pub(crate) fn score(&self, ip: IpAddr) -> i32 {
        let entry = match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.get_lpm(&Ipv4Net::from(ip)).map(|(_, entry)| entry),
            IpAddr::V6(ip) => self.v6.get_lpm(&Ipv6Net::from(ip)).map(|(_, entry)| entry),
        };
        entry.map_or(DEFAULT_SCORE, |entry| entry.score)
    }

    /// How many prefixes the list holds.
    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    fn add_line(&mut self, line: &[u8], number: usize) -> Result<(), Reason> {
        // The comment goes first: it may be in any encoding.
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let line = str::from_utf8(line).map_err(|_| Reason::NotUtf8)?;
        let mut words = line.split_whitespace();
        let Some(prefix) = words.next() else {
            return Ok(());
        };
        let prefix = parse_prefix(prefix)?;
        let score = words.next().ok_or(Reason::NoScore)?;
        let score = score.parse().map_err(|_| Reason::Score(score.to_owned()))?;
        if let Some(word) = words.next() {
            return Err(Reason::Surplus(word.to_owned()));
        }
        let entry = Entry { score, line: number };
        let earlier = match prefix {
            IpNet::V4(prefix) => self.v4.insert(prefix, entry),
            IpNet::V6(prefix) => self.v6.insert(prefix, entry),
        };
        match earlier {
            Some(Entry { line, .. }) => Err(Reason::Duplicate { prefix, first: line }),
            None => Ok(()),
        }
    }
}

/// The line `--check` prints: what a wrong file would show first.
impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (v4, v6) = (self.v4.len(), self.v6.len());
        let prefixes = if self.len() == 1 { "prefix" } else { "prefixes" };
        write!(f, "{} {prefixes} ({v4} IPv4, {v6} IPv6)", self.len())?;
        let scores = || self.v4.values().chain(self.v6.values()).map(|entry| entry.score);
        if let (Some(lowest), Some(highest)) = (scores().min(), scores().max()) {
            write!(f, ", scores from {lowest} to {highest}")?;
        }
        write!(f, ", {DEFAULT_SCORE} where nothing matches")
    }
}

/// What some Windows editors put at the start of a UTF-8 file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// `192.0.2.0/24`, `2001:db8::/32`, or an address alone, which stands for itself only.
fn parse_prefix(text: &str) -> Result<IpNet, Reason> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| Reason::Address(address.to_owned()))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bad_length = |text: &str| Reason::Length { text: text.to_owned(), most };
    let length = match length {
        None => most,
        Some(text) => text.parse().map_err(|_| bad_length(text))?,
    };
    let prefix = IpNet::new(address, length).map_err(|_| bad_length(&length.to_string()))?;
    if prefix.trunc() != prefix {
        return Err(Reason::HostBits { prefix });
    }
    match mapped_ipv4(&prefix) {
        Some(ipv4) => Err(Reason::Mapped { ipv4 }),
        None => Ok(prefix),
    }
}

/// The IPv4 prefix that an IPv6 prefix within `::ffff:0:0/96` means.
fn mapped_ipv4(prefix: &IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(prefix) = prefix else {
        return None;
    };
    let length = prefix.prefix_len().checked_sub(96)?;
    let address: Ipv4Addr = prefix.addr().to_ipv4_mapped()?;
    Ipv4Net::new(address, length).ok()
}

/// A list file that was not taken, and why.
#[derive(Debug)]
pub(crate) struct LoadError {
    path: PathBuf,
    fault: LoadFault,
}

#[derive(Debug)]
enum LoadFault {
    Unreadable(io::Error),
    BadLine(BadLine),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            LoadFault::Unreadable(error) => write!(f, "{path}: {error}"),
            LoadFault::BadLine(line) => write!(f, "{path}:{line}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// The first line of a list that cannot be taken as it stands.
#[derive(Debug)]
pub(crate) struct BadLine {
    number: usize,
    text: String,
    reason: Reason,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: {}", self.number, self.text, self.reason)
    }
}

#[derive(Debug)]
enum Reason {
    NotUtf8,
    Address(String),
    Length { text: String, most: u8 },
    HostBits { prefix: IpNet },
    Mapped { ipv4: Ipv4Net },
    NoScore,
    Score(String),
    Surplus(String),
    Duplicate { prefix: IpNet, first: usize },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => write!(f, "not UTF-8 (only a comment may be)"),
            Self::Address(text) => write!(f, "{text:?} is not an IPv4 or IPv6 address"),
            Self::Length { text, most } => {
                write!(f, "prefix length {text:?} is not a number from 0 to {most}")
            }
            Self::HostBits { prefix } => write!(
                f,
                "{prefix} has bits set behind its prefix: write {} (or {} for that address alone)",
                prefix.trunc(),
                prefix.addr(),
            ),
            Self::Mapped { ipv4 } => write!(
                f,
                "IPv4 written as IPv6, which is looked up as IPv4 and would never match: write {ipv4}"
            ),
            Self::NoScore => write!(f, "no score: write CIDR SCORE"),
            Self::Score(text) => {
                write!(f, "score {text:?} is not an integer from {} to {}", i32::MIN, i32::MAX)
            }
            Self::Surplus(word) => {
                write!(f, "{word:?} after the score: write CIDR SCORE, comments start with #")
            }
            Self::Duplicate { prefix, first } => {
                write!(f, "{prefix} has its score in line {first} already")
            }
        }
    }
}

#[cfg(test)]
mod tests;
