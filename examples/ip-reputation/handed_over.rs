//! Socket activation: a listener that systemd has opened and hands over, so that HAProxy's connections
//! wait in it while the agent is started, or started again.
//!
//! ```text
//! # iprep.socket                          # iprep.service
//! [Socket]                                [Service]
//! ListenStream=127.0.0.1:12345            ExecStart=/usr/bin/ip-reputation --listen systemd:spoe
//! FileDescriptorName=spoe                 Restart=always
//! ```
//!
//! Whole ones are in `../deploy`.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use spop_proto::Endpoint;

/// A listener of either kind, which somebody else has opened and may open to others.
#[derive(Debug)]
pub(crate) enum HandedOver {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl HandedOver {
    /// The listener of `systemd[:NAME]`; `None` where the agent is to open its own.
    pub(crate) fn at(endpoint: &Endpoint) -> io::Result<Option<Self>> {
        match endpoint {
            Endpoint::Systemd(name) => Self::take(name.as_deref()).map(Some).map_err(|error| {
                io::Error::new(error.kind(), format!("no listener for `{endpoint}`: {error}"))
            }),
            _ => Ok(None),
        }
    }

    fn take(name: Option<&str>) -> io::Result<Self> {
        // Looks at LISTEN_FDS and LISTEN_PID, and at what kind of socket each is.
        let mut all = ListenFd::from_env();
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let at = position(all.len(), &names, name).map_err(io::Error::other)?;
        if let Ok(Some(listener)) = all.take_tcp_listener(at) {
            return Ok(Self::Tcp(listener));
        }
        match all.take_unix_listener(at) {
            Ok(Some(listener)) => Ok(Self::Unix(listener)),
            _ => Err(io::Error::other(
                "what was handed over listens on neither TCP nor a Unix socket",
            )),
        }
    }
}

/// Which of `count` it is. systemd gives their names in the same order, with colons between them.
fn position(count: usize, names: &str, name: Option<&str>) -> Result<usize, String> {
    match (count, name) {
        (0, _) => Err("nothing was handed over (is there a .socket unit?)".to_owned()),
        (1, None) => Ok(0),
        (_, None) => Err(format!("{count} were handed over: write systemd:NAME, of `{names}`")),
        (_, Some(name)) => {
            let at = names.split(':').take(count).position(|known| known == name);
            at.ok_or_else(|| format!("none has that name; there are `{names}`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name_or_the_only_one() {
        assert_eq!(position(1, "", None), Ok(0));
        assert_eq!(position(1, "x.socket", None), Ok(0));
        assert_eq!(position(3, "a:b:c", Some("b")), Ok(1));
        assert!(position(0, "", None).unwrap_err().contains("nothing was handed over"));
        assert!(position(2, "a:b", None).unwrap_err().contains("2 were handed over"));
        assert!(position(2, "a:b", Some("c")).unwrap_err().contains("`a:b`"));
        assert!(position(1, "a:b", Some("b")).is_err(), "a name for nothing");
    }
}
