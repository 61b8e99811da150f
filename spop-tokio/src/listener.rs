//! Sockets: where connections come from.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use spop_proto::server::BACKLOG;
use spop_proto::{Endpoint, Peer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Something that accepts connections: tokio's listeners, [`Bound`], or one of your own.
pub trait Listener: Send + 'static {
    /// The stream of a connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Accepts the next connection.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Peer)>>;

    /// Where it listens.
    fn local_addr(&self) -> io::Result<Endpoint>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, Peer)>> {
        let (stream, peer) = ready!(Self::poll_accept(self, cx))?;
        // An ACK waits for nothing, and a HAProxy that vanished without a word is found out. Where
        // this fails the connection is dead already, and the first read will say so.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_keepalive(true);
        Poll::Ready(Ok((stream, Peer::Tcp(peer))))
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        Self::local_addr(self).map(Endpoint::from)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, Peer)>> {
        let (stream, _) = ready!(Self::poll_accept(self, cx))?;
        Poll::Ready(Ok((stream, Peer::Unix)))
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        let address = Self::local_addr(self)?;
        Ok(Endpoint::Unix(address.as_pathname().map(Path::to_path_buf).unwrap_or_default()))
    }
}

/// A listener on either kind of [`Endpoint`]. The file of a Unix socket is removed when this is
/// dropped.
#[derive(Debug)]
pub struct Bound(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    /// The file goes before the listener: after it, the file could be somebody else's.
    Unix {
        #[expect(dead_code, reason = "removes the file when dropped")]
        file: SocketFile,
        listener: UnixListener,
    },
}

/// What a program reads that leaves this to the adapter.
const HANDED_OVER: &str = "a listener that is handed over has to be taken, and given to `serve`";

impl Bound {
    /// Listens there. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// When the system refuses; the text says where.
    pub async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let bound = match endpoint {
            Endpoint::Tcp(address) => TcpListener::bind(address.as_str()).await.map(Kind::Tcp),
            Endpoint::Unix(path) => bind_unix(path),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, HANDED_OVER)),
        };
        if let Ok(kind) = &bound {
            // If that fails, the backlog is as long as it was.
            let _ = match kind {
                Kind::Tcp(listener) => SockRef::from(listener).listen(BACKLOG),
                Kind::Unix { listener, .. } => SockRef::from(listener).listen(BACKLOG),
            };
        }
        bound.map(Self).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {endpoint}: {error}"))
        })
    }
}

fn bind_unix(path: &Path) -> io::Result<Kind> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    Ok(Kind::Unix { file: SocketFile::new(path)?, listener })
}

/// A socket that refuses connections belongs to a process that is gone. One that neither refuses
/// nor takes them has a full backlog, and somebody behind it: that is not waited for.
fn is_stale(path: &Path) -> bool {
    let refuses = || -> io::Result<()> {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        probe.set_nonblocking(true)?;
        probe.connect(&SockAddr::unix(path)?)
    };
    let is_socket = path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket());
    is_socket && refuses().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The file of a Unix socket; removed at the end, unless another one has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), inode: inode(path)? })
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    path.symlink_metadata().map(|meta| (meta.dev(), meta.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // Nothing is lost if it fails: the next start replaces a stale file.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener for Bound {
    type Stream = Io;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Io, Peer)>> {
        Poll::Ready(match &mut self.0 {
            Kind::Tcp(listener) => {
                let (stream, peer) = ready!(Listener::poll_accept(listener, cx))?;
                Ok((Io(Stream::Tcp(stream)), peer))
            }
            Kind::Unix { listener, .. } => {
                let (stream, peer) = ready!(Listener::poll_accept(listener, cx))?;
                Ok((Io(Stream::Unix(stream)), peer))
            }
        })
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

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().0 {
            Stream::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Stream::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
