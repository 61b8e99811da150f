//! Sockets of mio, of either kind.

use std::io::{self, ErrorKind, Read, Write};
use std::net::ToSocketAddrs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use spop_proto::{Endpoint, Peer};

/// The socket of a connection.
pub(crate) trait Stream: Read + Write + Source {}

impl<S: Read + Write + Source> Stream for S {}

/// Where connections come from.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    pub(crate) fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let mut last = io::Error::new(ErrorKind::NotFound, "that host has no address");
                for address in address.to_socket_addrs()? {
                    match TcpListener::bind(address) {
                        Ok(listener) => return Ok(Self::Tcp(listener)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Endpoint::Unix(path) => {
                remove_if_dead(path)?;
                Ok(Self::Unix(UnixListener::bind(path)?, path.clone()))
            }
            _ => Err(io::Error::new(ErrorKind::Unsupported, "write ADDRESS:PORT or unix:PATH")),
        }
    }

    /// With the port that the system chose, if it was to.
    pub(crate) fn address(&self) -> io::Result<Endpoint> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Endpoint::from),
            Self::Unix(_, path) => Ok(Endpoint::Unix(path.clone())),
        }
    }

    /// The next connection that waits.
    pub(crate) fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                // It fails where the peer has gone already, which the first read tells.
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), Peer::Tcp(peer)))
            }
            Self::Unix(listener, _) => Ok((Box::new(listener.accept()?.0), Peer::Unix)),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(listener) => listener,
            Self::Unix(listener, _) => listener,
        }
    }
}

impl Source for Listener {
    fn register(&mut self, at: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().register(at, token, interests)
    }

    fn reregister(&mut self, at: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().reregister(at, token, interests)
    }

    fn deregister(&mut self, at: &Registry) -> io::Result<()> {
        self.source().deregister(at)
    }
}

/// A socket that a program has left behind is in the way.
fn remove_if_dead(path: &Path) -> io::Result<()> {
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).is_err_and(refused) {
        return std::fs::remove_file(path);
    }
    Ok(())
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Where it fails, the next start does it.
            let _ = std::fs::remove_file(path);
        }
    }
}
