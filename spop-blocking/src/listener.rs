//! Sockets of `std`, and where connections come from.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Socket as Socket2, Type};
use spop_proto::server::BACKLOG;
use spop_proto::{Endpoint, Peer};

use crate::connection::LOOK;

/// A stream that two threads can share, and whose reads and writes can be given a time limit.
pub trait Socket: Send + Sync + 'static {
    /// Reads what there is, at most as long as the time limit.
    ///
    /// # Errors
    /// Of kind `WouldBlock` or `TimedOut` when the time is up.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes what fits, at most as long as the time limit.
    ///
    /// # Errors
    /// Of kind `WouldBlock` or `TimedOut` when the time is up.
    fn write(&self, buf: &[u8]) -> io::Result<usize>;

    /// Ends both directions; the peer sees the end whoever still holds the socket.
    fn shutdown(&self);

    /// Limits how long a read blocks.
    ///
    /// # Errors
    /// When the system refuses.
    fn set_read_timeout(&self, time: Duration) -> io::Result<()>;

    /// Limits how long a write blocks.
    ///
    /// # Errors
    /// When the system refuses.
    fn set_write_timeout(&self, time: Duration) -> io::Result<()>;
}

macro_rules! socket {
    ($($type:ty),*) => {$(
        impl Socket for $type {
            fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
                Read::read(&mut &*self, buf)
            }

            fn write(&self, buf: &[u8]) -> io::Result<usize> {
                Write::write(&mut &*self, buf)
            }

            fn shutdown(&self) {
                // It fails where the peer was first.
                let _ = Self::shutdown(self, Shutdown::Both);
            }

            fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
                Self::set_read_timeout(self, Some(time))
            }

            fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
                Self::set_write_timeout(self, Some(time))
            }
        }
    )*};
}

socket!(TcpStream, UnixStream);

/// Something that accepts connections: the listeners of `std`, [`Bound`], or one of your own.
pub trait Listener: Send + Sync + 'static {
    /// The stream of a connection.
    type Stream: Socket;

    /// Accepts the next connection; blocks.
    ///
    /// # Errors
    /// When there is none to be had; it is asked again after a while.
    fn accept(&self) -> io::Result<(Self::Stream, Peer)>;

    /// Makes an [`accept`](Self::accept) that blocks on another thread return, with whatever
    /// result. Called once, when no more connections are wanted. The listeners of `std` connect to
    /// themselves: others may have the same socket, such as systemd, which will want to use it again.
    /// Where they may not, in a sandbox, say, their `accept` returns by itself after 250 ms.
    fn unblock(&self);

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    fn local_addr(&self) -> io::Result<Endpoint>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        for_a_while(self, || accept_tcp(self))
    }

    fn unblock(&self) {
        if let Ok(address) = Self::local_addr(self) {
            // It fails where there are so many that `accept` does not block.
            let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        }
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        Self::local_addr(self).map(Endpoint::from)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        for_a_while(self, || accept_unix(self))
    }

    fn unblock(&self) {
        let Ok(Endpoint::Unix(path)) = Listener::local_addr(self) else { return };
        let waker = || -> io::Result<()> {
            let waker = Socket2::new(Domain::UNIX, Type::STREAM, None)?;
            waker.set_nonblocking(true)?;
            waker.connect(&SockAddr::unix(path)?)
        };
        // As above.
        let _ = waker();
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        let path = Self::local_addr(self)?.as_pathname().map(Path::to_path_buf);
        Ok(Endpoint::Unix(path.unwrap_or_default()))
    }
}

fn accept_tcp(listener: &TcpListener) -> io::Result<(TcpStream, Peer)> {
    let (stream, peer) = listener.accept()?;
    // An ACK waits for nothing, and a HAProxy that vanished without a word is found out. A
    // connection on which this fails is dead already; its first read will tell.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_keepalive(true);
    Ok((stream, Peer::Tcp(peer)))
}

fn accept_unix(listener: &UnixListener) -> io::Result<(UnixStream, Peer)> {
    listener.accept().map(|(stream, _)| (stream, Peer::Unix))
}

/// Accepts on a listener that its agent may be unable to connect to: a Unix socket that is for HAProxy's
/// user only, or one of another network namespace. Fails as interrupted when nobody came.
fn for_a_while<'s, T>(
    listener: impl Into<SockRef<'s>>,
    accept: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    // Each time: who had the socket before may have left it as it was. If it fails, `unblock` is left.
    let _ = listener.into().set_read_timeout(Some(LOOK));
    let began = Instant::now();
    accept().map_err(|error| {
        // Without the wait it is a listener that does not block, and asking it again at once is no use.
        let waited = began.elapsed() >= LOOK / 2;
        match error.kind() {
            ErrorKind::WouldBlock if waited => ErrorKind::Interrupted.into(),
            _ => error,
        }
    })
}

/// A listener on either kind of [`Endpoint`]. The file of a Unix socket is removed when this is
/// dropped.
#[derive(Debug)]
pub struct Bound(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix { listener: UnixListener, path: PathBuf, inode: (u64, u64) },
}

/// What a program reads that leaves this to the adapter.
const HANDED_OVER: &str = "a listener that is handed over has to be taken, and given to `serve`";

impl Bound {
    /// Listens there. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// When the system refuses; the text says where.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let bound = match endpoint {
            Endpoint::Tcp(address) => TcpListener::bind(address).map(|listener| {
                lengthen(&listener);
                Kind::Tcp(listener)
            }),
            Endpoint::Unix(path) => bind_unix(path),
            _ => Err(io::Error::new(ErrorKind::Unsupported, HANDED_OVER)),
        };
        bound.map(Self).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {endpoint}: {error}"))
        })
    }
}

/// Asks for a longer backlog. If that fails, it is as long as it was.
fn lengthen<'s>(listener: impl Into<SockRef<'s>>) {
    let _ = listener.into().listen(BACKLOG);
}

/// Which file that is: another one may take its path.
fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let meta = path.symlink_metadata()?;
    Ok((meta.dev(), meta.ino()))
}

/// Replaces the socket of a process that is gone, and nothing else.
fn bind_unix(path: &Path) -> io::Result<Kind> {
    let mut bound = UnixListener::bind(path);
    let in_use = bound.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
    if in_use && path.symlink_metadata()?.file_type().is_socket() {
        // Asked without waiting: a listener that is only busy has a full backlog.
        let probe = Socket2::new(Domain::UNIX, Type::STREAM, None)?;
        probe.set_nonblocking(true)?;
        let answer = probe.connect(&SockAddr::unix(path)?);
        if answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            std::fs::remove_file(path)?;
            bound = UnixListener::bind(path);
        }
    }
    let listener = bound?;
    lengthen(&listener);
    Ok(Kind::Unix { listener, path: path.to_path_buf(), inode: inode(path)? })
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Before the socket closes: after that the file could be somebody else's.
        if let Kind::Unix { path, inode: own, .. } = &self.0
            && inode(path).is_ok_and(|inode| inode == *own)
        {
            // Nothing is lost if it fails: the next start replaces it.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Listener for Bound {
    type Stream = Io;

    fn accept(&self) -> io::Result<(Io, Peer)> {
        match &self.0 {
            Kind::Tcp(listener) => {
                accept_tcp(listener).map(|(stream, peer)| (Io(Stream::Tcp(stream)), peer))
            }
            Kind::Unix { listener, .. } => {
                accept_unix(listener).map(|(stream, peer)| (Io(Stream::Unix(stream)), peer))
            }
        }
    }

    fn unblock(&self) {
        // Linux ends an `accept` when its socket is shut down, and nobody else has this one; elsewhere
        // a connection does.
        match &self.0 {
            Kind::Tcp(listener) if SockRef::from(listener).shutdown(Shutdown::Both).is_err() => {
                listener.unblock();
            }
            Kind::Unix { listener, .. }
                if SockRef::from(listener).shutdown(Shutdown::Both).is_err() =>
            {
                listener.unblock();
            }
            _ => {}
        }
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        match &self.0 {
            Kind::Tcp(listener) => Listener::local_addr(listener),
            Kind::Unix { listener, .. } => Listener::local_addr(listener),
        }
    }
}

/// A connection accepted by [`Bound`].
#[derive(Debug)]
pub struct Io(Stream);

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Io {
    fn socket(&self) -> &dyn Socket {
        match &self.0 {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }
}

impl Socket for Io {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket().read(buf)
    }

    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        self.socket().write(buf)
    }

    fn shutdown(&self) {
        self.socket().shutdown();
    }

    fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        self.socket().set_read_timeout(time)
    }

    fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        self.socket().set_write_timeout(time)
    }
}
