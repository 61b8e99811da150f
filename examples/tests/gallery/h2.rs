//! As much of an HTTP/2 client as it takes to send a body without its length, which HTTP/1.1 cannot.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::haproxy::DEADLINE;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Posts a body of less than 64 KiB to `/` and returns the status of the answer.
pub(crate) fn post(to: SocketAddr, body: &[u8]) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&to, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let mut out =
        b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 80\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(SETTINGS, 0, 0, &[], &mut out)?;
    let mut headers = Vec::new();
    for (name, value) in
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "test")]
    {
        // Literal, not indexed, a new name; no text here is longer than one byte can say.
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).map_err(io::Error::other)?);
            headers.extend(text.as_bytes());
        }
    }
    frame(HEADERS, END_HEADERS, 1, &headers, &mut out)?;
    // 16 KiB is the largest frame there may be.
    for part in body.chunks(8 << 10) {
        frame(DATA, 0, 1, part, &mut out)?;
    }
    frame(DATA, END_STREAM, 1, &[], &mut out)?;
    stream.write_all(&out)?;
    loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header)?;
        let [a, b, c, kind, ..] = header;
        let mut payload =
            vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).map_err(io::Error::other)?];
        stream.read_exact(&mut payload)?;
        if kind == HEADERS {
            return match payload.as_slice() {
                // Of the static table.
                [0x88, ..] => Ok(200),
                // Its name only.
                [0x48, 3, digits @ ..] => status(digits),
                other => Err(io::Error::other(format!("not a status: {other:?}"))),
            };
        }
    }
}

fn status(digits: &[u8]) -> io::Result<u16> {
    let text = String::from_utf8_lossy(digits.get(..3).unwrap_or(digits));
    text.parse().map_err(io::Error::other)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let [_, length @ ..] = u32::try_from(payload.len()).map_err(io::Error::other)?.to_be_bytes();
    out.extend(length);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    Ok(())
}
