//! Sockets of both kinds.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use socket2::Socket;
use spop_proto::Endpoint;

/// An agent that is there answers sooner.
const CONNECT: Duration = Duration::from_secs(5);

/// Where HAProxy connects to.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Endpoint),
}

impl Listener {
    pub(crate) fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => TcpListener::bind(address).map(Self::Tcp),
            Endpoint::Unix(path) => {
                remove_if_dead(path)?;
                UnixListener::bind(path).map(|listener| Self::Unix(listener, endpoint.clone()))
            }
            _ => Err(unsupported("cannot listen there")),
        }
    }

    /// Where it listens, the port known.
    pub(crate) fn address(&self) -> Endpoint {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| Endpoint::Tcp("?".to_owned()), Endpoint::from)
            }
            Self::Unix(_, endpoint) => endpoint.clone(),
        }
    }

    /// The next connection, and from where; Unix sockets have no such address.
    pub(crate) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok((stream.into(), Some(peer)))
            }
            Self::Unix(listener, _) => Ok((listener.accept()?.0.into(), None)),
        }
    }
}

/// A socket that a program has left behind is in the way.
fn remove_if_dead(path: &Path) -> io::Result<()> {
    let is_socket = path.symlink_metadata().is_ok_and(|of| of.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).is_err_and(refused) {
        return std::fs::remove_file(path);
    }
    Ok(())
}

/// Connects with the agent; and which of its addresses that was. (Once it is reset a socket does not know.)
pub(crate) fn connect(target: &Endpoint) -> io::Result<(Socket, Option<SocketAddr>)> {
    match target {
        Endpoint::Tcp(address) => {
            let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
            for address in address.to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, CONNECT) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok((stream.into(), Some(address)));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        Endpoint::Unix(path) => UnixStream::connect(path).map(|stream| (stream.into(), None)),
        _ => Err(unsupported("cannot connect there")),
    }
}

fn unsupported(what: &str) -> io::Error {
    io::Error::new(ErrorKind::Unsupported, format!("{what}: write ADDRESS:PORT or unix:PATH"))
}
