//! As much of an HTTP/2 client as it takes to post a body, with or without its length.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use crate::haproxy::DEADLINE;

// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
// Flags.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// What a frame holds at most unless both sides agree on more.
const LARGEST: usize = 16_384;

/// Posts a body to `/`, `before` in front of everything; `length` is the `content-length`, if there is one.
/// Returns the status, or an error where HAProxy gives the request up. For bodies up to 65 535 bytes: that
/// much may be sent without asking.
pub(crate) fn post(
    to: SocketAddr,
    before: &[u8],
    length: Option<usize>,
    body: &[u8],
) -> io::Result<u16> {
    // POST, http, / of the static table; the others name by name, without compression.
    let mut headers = [&[0x83, 0x86, 0x84, 0x41, 4][..], b"test"].concat();
    if let Some(length) = length {
        let length = length.to_string();
        // Number 28 of the static table is content-length.
        let digits = u8::try_from(length.len()).unwrap_or_default();
        headers.extend([&[0x5c, digits][..], length.as_bytes()].concat());
    }
    let mut bytes = [before, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &headers));
    for part in body.chunks(LARGEST) {
        bytes.extend(frame(DATA, 0, 1, part));
    }
    bytes.extend(frame(DATA, END_STREAM, 1, &[]));

    let mut client = TcpStream::connect(to)?;
    client.set_read_timeout(Some(DEADLINE))?;
    let mut sends = client.try_clone()?;
    // HAProxy need not take all of it before it answers.
    let sending = thread::spawn(move || sends.write_all(&bytes));
    let status = status(&mut client)?;
    drop(client);
    let _ = sending.join();
    Ok(status)
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// The status in the first frame of headers.
fn status(from: &mut impl Read) -> io::Result<u16> {
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head)?;
        let [a, b, c, kind, ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = Vec::new();
        from.take(u64::from(length)).read_to_end(&mut payload)?;
        match kind {
            HEADERS => {}
            RST_STREAM | GOAWAY => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => continue,
        }
        // It comes first: number 8 of the static table is 200, another one is spelt.
        return match payload.as_slice() {
            [0x88, ..] => Ok(200),
            [_, 3, a, b, c, ..] => {
                let text = String::from_utf8_lossy(&[*a, *b, *c]).into_owned();
                text.parse().map_err(|_| io::Error::other(format!("status {text:?}")))
            }
            other => Err(io::Error::other(format!("no status in {other:?}"))),
        };
    }
}
