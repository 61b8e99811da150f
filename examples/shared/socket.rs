//! Connecting, and what to say where that fails.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use spop_proto::Endpoint;

/// Connects within `time`, apart from what looking up the name of a host takes.
///
/// # Errors
/// Why it cannot, for people.
pub(crate) fn connect(agent: &Endpoint, time: Duration) -> Result<Socket, String> {
    match agent {
        Endpoint::Tcp(address) => {
            let addresses = address
                .to_socket_addrs()
                .map_err(|error| format!("cannot look up that host: {error}"))?;
            connect_tcp(addresses, time)
        }
        Endpoint::Unix(path) => connect_unix(path, time).map_err(|error| unix_reason(path, &error)),
        other => Err(format!("`{other}` is an address to listen on, not to connect to")),
    }
}

/// The first address that takes the connection; they share the time.
fn connect_tcp(
    addresses: impl Iterator<Item = SocketAddr>,
    time: Duration,
) -> Result<Socket, String> {
    let until = Instant::now() + time;
    let mut reason = "that host has no address".to_owned();
    for address in addresses {
        let left = until.saturating_duration_since(Instant::now());
        let connected =
            Socket::new(Domain::for_address(address), Type::STREAM, None).and_then(|socket| {
                socket.connect_timeout(&address.into(), left.max(Duration::from_millis(1)))?;
                socket.set_tcp_nodelay(true)?;
                Ok(socket)
            });
        match connected {
            Ok(socket) => return Ok(socket),
            Err(error) => reason = tcp_reason(&error, time),
        }
    }
    Err(reason)
}

fn tcp_reason(error: &io::Error, time: Duration) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            "connection refused: nothing listens there. Is the agent running?".to_owned()
        }
        ErrorKind::TimedOut | ErrorKind::WouldBlock => format!(
            "no connection within {time:?}: the host does not answer. Is a firewall in between?"
        ),
        _ => format!("cannot connect: {error}"),
    }
}

fn connect_unix(path: &Path, time: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // It bounds the connect, too, which waits where the backlog is full.
    socket.set_write_timeout(Some(time))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn unix_reason(path: &Path, error: &io::Error) -> String {
    let file = fs::metadata(path);
    let is_socket = file.as_ref().is_ok_and(|file| file.file_type().is_socket());
    match error.kind() {
        ErrorKind::NotFound => {
            "no such socket. Is the agent running, and is this its path?".to_owned()
        }
        ErrorKind::PermissionDenied => not_permitted(file.ok().as_ref(), own_user()),
        ErrorKind::ConnectionRefused if file.is_ok() && !is_socket => {
            "that file is no socket".to_owned()
        }
        ErrorKind::ConnectionRefused => {
            "connection refused: the socket is there and nobody listens on it. Is the agent running?"
                .to_owned()
        }
        ErrorKind::WouldBlock => {
            "the agent takes no connections: as many wait as may. Does it hang?".to_owned()
        }
        _ => format!("cannot connect: {error}"),
    }
}

/// Who may, and who this is.
fn not_permitted(file: Option<&Metadata>, user: Option<u32>) -> String {
    let user = user.map_or_else(String::new, |user| format!(", and this is user {user}"));
    match file {
        Some(file) => format!(
            "permission denied: the socket is {} of user {}, group {}{user}",
            permissions(file.mode()),
            file.uid(),
            file.gid()
        ),
        None => format!("permission denied: a directory on the way is closed{user}"),
    }
}

/// As `ls` writes them.
fn permissions(mode: u32) -> String {
    let bits = "rwxrwxrwx".chars().enumerate();
    let bits = bits.map(|(at, letter)| if mode & (0o400 >> at) == 0 { '-' } else { letter });
    std::iter::once('s').chain(bits).collect()
}

/// The effective user of this process, where /proc tells.
fn own_user() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|process| process.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_as_ls_writes_them() {
        assert_eq!(permissions(0o140_755), "srwxr-xr-x");
        assert_eq!(permissions(0o140_660), "srw-rw----");
        assert_eq!(permissions(0), "s---------");
    }

    #[test]
    fn who_may_and_who_this_is() {
        assert_eq!(
            not_permitted(None, Some(1000)),
            "permission denied: a directory on the way is closed, and this is user 1000"
        );
    }
}
