//! What the bytes of a server are that does not speak SPOP.

use std::fmt;

/// Of a line of text, that much is shown.
const SHOWN: usize = 60;

/// Another protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// The first line of the response.
    Http(String),
    /// SETTINGS, as gRPC servers send them too.
    Http2,
    /// An alert, as a server sends it that got no ClientHello, or another record.
    Tls,
    /// The first line.
    Text(String),
}

impl Foreign {
    /// `None` where it may be SPOP. A frame of an agent's handshake begins with the two zeros of its
    /// length.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..4).unwrap_or(bytes);
        let printable = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
        match bytes {
            [] => None,
            // An UNSET frame would be as long, and no agent sends any.
            [0, 0, _, 4, 0, 0, 0, 0, 0, ..] => Some(Self::Http2),
            [0x14..=0x17, 3, ..] => Some(Self::Tls),
            _ if bytes.starts_with(b"HTTP/") => Some(Self::Http(first_line(bytes))),
            _ if head.iter().all(printable) => Some(Self::Text(first_line(bytes))),
            _ => None,
        }
    }

    /// One word for machines.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Text(_) => "text",
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(line) => write!(
                f,
                "answers with HTTP (\"{line}\"), not SPOP. Is this a port of HAProxy itself, or of a web server?"
            ),
            Self::Http2 => {
                f.write_str("answers with HTTP/2, not SPOP. Is this the port of a gRPC server?")
            }
            Self::Tls => f.write_str(
                "answers with TLS, not SPOP. An agent behind TLS is asked through a proxy that ends it",
            ),
            Self::Text(line) => write!(f, "answers with text (\"{line}\"), not SPOP"),
        }
    }
}

fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let shown = line.get(..SHOWN).unwrap_or(line);
    let more = if shown.len() < line.len() { " .." } else { "" };
    format!("{}{more}", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols() {
        let http = b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n";
        assert_eq!(Foreign::of(http), Some(Foreign::Http("HTTP/1.1 400 Bad Request".into())));
        assert_eq!(Foreign::of(&[0x15, 3, 1, 0, 2, 2, 10]), Some(Foreign::Tls));
        let settings = [0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
        assert_eq!(Foreign::of(&settings), Some(Foreign::Http2));
        let ssh = b"SSH-2.0-OpenSSH_9.2\r\n";
        assert_eq!(Foreign::of(ssh), Some(Foreign::Text("SSH-2.0-OpenSSH_9.2".into())));
        assert_eq!(Foreign::of(b"no"), Some(Foreign::Text("no".into())));
        let long = [b'x'; 100];
        let Some(Foreign::Text(line)) = Foreign::of(&long) else { panic!("text") };
        assert_eq!(line.len(), SHOWN + " ..".len());
    }

    #[test]
    fn what_may_be_spop() {
        for bytes in [&b""[..], b"\0", b"\0\0\0\x53\x65\0\0\0\x01\0\0\x07version", b"\xff\xff\0\0"]
        {
            assert_eq!(Foreign::of(bytes), None, "{bytes:?}");
        }
    }
}
