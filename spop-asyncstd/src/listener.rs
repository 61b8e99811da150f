//! Where streams come from.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use async_std::net::{TcpListener, TcpStream};
use async_std::os::unix::net::{UnixListener, UnixStream};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::future::Either;
use spop_proto::server::BACKLOG;
use spop_proto::{Endpoint, Peer};

/// A source of connections: async-std's listeners, [`Bound`], or a type of your own.
pub trait Listener: Send + 'static {
    /// What it accepts.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection. The future may be dropped before it is ready, and must not lose a
    /// connection then.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;

    /// The address it listens on.
    ///
    /// # Errors
    /// The system does not tell.
    fn local_addr(&self) -> io::Result<Endpoint>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Peer)> {
        let (stream, peer) = Self::accept(self).await?;
        // Neither an answer nor the news that HAProxy's machine has gone should wait for anything.
        // A socket on which this fails is closed already; reading from it will tell.
        let socket = socket2::SockRef::from(&stream);
        let _ = socket.set_tcp_nodelay(true).and_then(|()| socket.set_keepalive(true));
        Ok((stream, Peer::Tcp(peer)))
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        Ok(Self::local_addr(self)?.into())
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<(UnixStream, Peer)> {
        Ok((Self::accept(self).await?.0, Peer::Unix))
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        let address = Self::local_addr(self)?;
        Ok(Endpoint::Unix(address.as_pathname().map(PathBuf::from).unwrap_or_default()))
    }
}

/// A listener on an [`Endpoint`] of either kind. Once dropped, it takes the file of its Unix
/// socket with it.
#[derive(Debug)]
pub struct Bound {
    listener: Either<TcpListener, UnixListener>,
    /// The file of a Unix socket, and which one it was: its device and inode.
    file: Option<(PathBuf, (u64, u64))>,
}

impl Bound {
    /// Listens; the file of a Unix socket that a dead process left behind is replaced.
    ///
    /// # Errors
    /// The system's, with the endpoint in its text.
    pub async fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let bound = match endpoint {
            Endpoint::Tcp(address) => TcpListener::bind(address.as_str())
                .await
                .map(|tcp| Self { listener: Either::Left(tcp), file: None }),
            Endpoint::Unix(path) => bind_unix(path).await,
            _ => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "take the listener that is handed over and give it to `serve`",
            )),
        };
        if let Ok(Self { listener, .. }) = &bound {
            // If that fails, the backlog is as long as it was.
            let _ = match listener {
                Either::Left(tcp) => socket2::SockRef::from(tcp).listen(BACKLOG),
                Either::Right(unix) => socket2::SockRef::from(unix).listen(BACKLOG),
            };
        }
        bound.map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {endpoint}: {e}")))
    }
}

async fn bind_unix(path: &Path) -> io::Result<Bound> {
    let mut bound = UnixListener::bind(path).await;
    if bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
        // A file that is no socket refuses connections in the same words, and is not ours.
        let is_socket = path.symlink_metadata()?.file_type().is_socket();
        let probe = UnixStream::connect(path).await;
        if is_socket && probe.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            std::fs::remove_file(path)?;
            bound = UnixListener::bind(path).await;
        }
    }
    Ok(Bound { listener: Either::Right(bound?), file: Some((path.to_path_buf(), inode(path)?)) })
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = path.symlink_metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Runs before the listener is closed: until then nobody takes the file for stale.
impl Drop for Bound {
    fn drop(&mut self) {
        if let Some((path, ours)) = &self.file
            && inode(path).is_ok_and(|found| found == *ours)
        {
            // A file that stays is found stale by the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Listener for Bound {
    type Stream = Io;

    async fn accept(&mut self) -> io::Result<(Io, Peer)> {
        match &mut self.listener {
            Either::Left(tcp) => {
                Listener::accept(tcp).await.map(|(stream, peer)| (Io(Either::Left(stream)), peer))
            }
            Either::Right(unix) => {
                Listener::accept(unix).await.map(|(stream, peer)| (Io(Either::Right(stream)), peer))
            }
        }
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        match &self.listener {
            Either::Left(tcp) => Listener::local_addr(tcp),
            Either::Right(unix) => Listener::local_addr(unix),
        }
    }
}

/// A stream that [`Bound`] accepted.
#[derive(Debug)]
pub struct Io(Either<TcpStream, UnixStream>);

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
