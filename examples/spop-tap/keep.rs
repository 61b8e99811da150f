//! What passes is kept: as files of bytes, or as packets in one file.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::pcapng::Writer;
use crate::segments::Segments;
use crate::show::Side;

/// What `--write` asks for.
#[derive(Debug)]
pub(crate) enum Keep {
    Nothing,
    /// A file for each direction of each connection; their names begin so.
    Streams(PathBuf),
    /// One file for all connections, as long as it can be written.
    Packets {
        path: PathBuf,
        writer: Mutex<Option<Writer>>,
    },
}

impl Keep {
    /// `description` is for who reads a capture.
    pub(crate) fn open(path: Option<PathBuf>, description: &str) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self::Nothing) };
        let wrong = |what: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", what.display()))
        };
        if is_capture(&path) {
            let writer = Writer::create(&path, description).map_err(|error| wrong(&path, error))?;
            return Ok(Self::Packets { path, writer: Mutex::new(Some(writer)) });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let what = "there is no such directory to write to";
            return Err(wrong(folder, io::Error::new(io::ErrorKind::NotFound, what)));
        }
        Ok(Self::Streams(path))
    }

    /// A connection that has come about between those two, of whom Unix sockets have no address. What
    /// cannot be kept of it is told to `trouble`.
    pub(crate) fn connection<'k>(
        &'k self,
        number: u64,
        who: &str,
        ends: [Option<SocketAddr>; 2],
        mut trouble: impl FnMut(String),
    ) -> Kept<'k> {
        match self {
            Self::Nothing => Kept::Nothing,
            Self::Streams(prefix) => {
                let mut create = |side: Side| {
                    let mut name = prefix.as_os_str().to_owned();
                    name.push(format!(".{number}.{}", side.name()));
                    File::create(&name)
                        .map_err(|error| {
                            trouble(format!("{}: {error}", Path::new(&name).display()))
                        })
                        .ok()
                };
                Kept::Streams { number, haproxy: create(Side::Haproxy), agent: create(Side::Agent) }
            }
            Self::Packets { path, writer } => {
                let [haproxy, agent] = ends;
                let mut segments = Segments::new(number, haproxy, agent);
                let mut comment = format!("spop-tap #{number}: {who}");
                if ends.contains(&None) {
                    let [haproxy, agent] = segments.ends();
                    comment.push_str(&format!(
                        "; a Unix socket has no address: {haproxy} is HAProxy here, and {agent} the agent"
                    ));
                }
                let opening = segments.open();
                let packets = Packets { path, writer, segments: Mutex::new(segments) };
                if let Err(error) = packets.add(Some(&comment), |_| opening) {
                    trouble(error.to_string());
                }
                Kept::Packets(packets)
            }
        }
    }
}

/// Whether a name is that of a capture.
pub(crate) fn is_capture(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("pcapng"))
}

/// A connection that is kept. Both directions share it.
#[derive(Debug)]
pub(crate) enum Kept<'k> {
    Nothing,
    Streams { number: u64, haproxy: Option<File>, agent: Option<File> },
    Packets(Packets<'k>),
}

impl Kept<'_> {
    /// `side` has written this. An error is told once, and after it nothing is kept of that file.
    pub(crate) fn bytes(&self, side: Side, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Streams { number, haproxy, agent } => {
                let file = match side {
                    Side::Haproxy => haproxy,
                    Side::Agent => agent,
                };
                let Some(mut file) = file.as_ref() else { return Ok(()) };
                file.write_all(bytes).map_err(|error| {
                    let what = format!("#{number} is no longer written: {error}");
                    io::Error::new(error.kind(), what)
                })
            }
            Self::Packets(packets) => packets.add(None, |segments| segments.bytes(side, bytes)),
        }
    }

    /// `side` writes nothing more.
    pub(crate) fn end(&self, side: Side) -> io::Result<()> {
        let Self::Packets(packets) = self else { return Ok(()) };
        packets.add(None, |segments| segments.end(side))
    }

    /// `side` has broken it off.
    pub(crate) fn reset(&self, side: Side) -> io::Result<()> {
        let Self::Packets(packets) = self else { return Ok(()) };
        packets.add(None, |segments| segments.reset(side))
    }
}

/// A connection among those of a capture.
#[derive(Debug)]
pub(crate) struct Packets<'k> {
    path: &'k Path,
    writer: &'k Mutex<Option<Writer>>,
    segments: Mutex<Segments>,
}

impl Packets<'_> {
    /// Adds what comes next. A comment goes with the first packet.
    fn add(
        &self,
        mut comment: Option<&str>,
        next: impl FnOnce(&mut Segments) -> Vec<Vec<u8>>,
    ) -> io::Result<()> {
        // Nothing panics that holds them. One within the other: packets stand in the order of their
        // numbers.
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let packets = next(&mut segments);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = writer.as_mut() else { return Ok(()) };
        let time = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        for packet in packets {
            if let Err(error) = open.packet(time, &packet, comment.take()) {
                *writer = None;
                let what = format!("{} is no longer written: {error}", self.path.display());
                return Err(io::Error::new(error.kind(), what));
            }
        }
        Ok(())
    }
}
