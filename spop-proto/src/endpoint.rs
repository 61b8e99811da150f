//! Where an agent listens, in one grammar for every adapter and tool.

use core::fmt;
use core::str::FromStr;
use std::path::PathBuf;

use thiserror::Error;

/// An address to listen on or to connect to: `127.0.0.1:12345`, `[::1]:12345`, `localhost:12345`,
/// or `unix:/run/agent.sock`; to listen on only, `systemd` or `systemd:NAME`.
///
/// HAProxy writes the same as `server a 127.0.0.1:12345` or `server a unix@/run/agent.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A host and a port, to be resolved by the adapter. Port 0 lets the system choose when listening.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A listener that systemd hands over (`LISTEN_FDS`): the one of that name (`FileDescriptorName=`),
    /// or the only one. To take it is up to the program, which then gives it to `Agent::serve`: it wants
    /// `unsafe` code, and there are crates for that. See `examples/ip-reputation`.
    Systemd(Option<Box<str>>),
}

/// A text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[error("`{text}` is no endpoint: {reason}; write HOST:PORT, unix:/PATH or systemd[:NAME]")]
pub struct ParseEndpointError {
    text: String,
    reason: &'static str,
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, ParseEndpointError> {
        let refuse = |reason| Err(ParseEndpointError { text: text.to_owned(), reason });
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.strip_prefix("unix@")) {
            return match path {
                "" => refuse("the path is missing"),
                path => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        if text == "systemd" {
            return Ok(Self::Systemd(None));
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            return match name {
                "" => refuse("the name is missing"),
                // They stand in a list, with colons between them.
                name if name.contains(':') => refuse("the name has a colon in it"),
                name => Ok(Self::Systemd(Some(name.into()))),
            };
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return refuse("the port is missing");
        };
        if port.parse::<u16>().is_err() || port.starts_with('+') {
            return refuse("the port is not a number from 0 to 65535");
        }
        if host.is_empty() {
            return refuse("the host is missing");
        }
        if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
            return refuse("an IPv6 address stands in brackets");
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(None) => f.write_str("systemd"),
            Self::Systemd(Some(name)) => write!(f, "systemd:{name}"),
        }
    }
}

macro_rules! try_from {
    ($($text:ty),*) => {$(
        impl TryFrom<$text> for Endpoint {
            type Error = ParseEndpointError;

            fn try_from(text: $text) -> Result<Self, ParseEndpointError> {
                text.parse()
            }
        }
    )*};
}

try_from!(&str, &String, String);

impl Endpoint {
    /// The socket address of a TCP endpoint that names one, and not a host to resolve.
    #[must_use]
    pub fn socket_addr(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Tcp(address) => address.parse().ok(),
            Self::Unix(_) | Self::Systemd(_) => None,
        }
    }
}

impl From<std::net::SocketAddr> for Endpoint {
    fn from(address: std::net::SocketAddr) -> Self {
        Self::Tcp(address.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_read_back() {
        let tcp = ["127.0.0.1:12345", "[::1]:0", "localhost:80"];
        for text in tcp.into_iter().chain(["unix:/run/a.sock", "systemd", "systemd:spoe"]) {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        let haproxys = "unix@/run/a.sock".parse::<Endpoint>().unwrap();
        assert_eq!(haproxys, Endpoint::Unix("/run/a.sock".into()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("127.0.0.1", "the port is missing"),
            ("127.0.0.1:x", "the port is not a number from 0 to 65535"),
            ("127.0.0.1:70000", "the port is not a number from 0 to 65535"),
            (":80", "the host is missing"),
            ("::1:80", "an IPv6 address stands in brackets"),
            ("unix:", "the path is missing"),
            ("systemd:", "the name is missing"),
            ("systemd:a:b", "the name has a colon in it"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(error.reason, reason, "{text}");
        }
        assert_eq!(
            "x".parse::<Endpoint>().unwrap_err().to_string(),
            "`x` is no endpoint: the port is missing; write HOST:PORT, unix:/PATH or systemd[:NAME]"
        );
    }
}
