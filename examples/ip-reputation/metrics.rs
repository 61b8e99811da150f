//! `--metrics`: what the agent counts, for Prometheus to read over HTTP.
//!
//! As little HTTP as `GET /metrics` needs: one request at a time and on a connection, a second for it to
//! arrive. It is for a network of your own; put a proxy in front for anything else.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use spop_proto::Stats;
use tracing::{info, warn};

/// How long a request may take to arrive, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest request that is looked at, in bytes.
const LONGEST: usize = 8 * 1024;
/// After `accept` failed, which it does where descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the numbers can be read; nobody is answered yet.
#[derive(Debug)]
pub(crate) struct Metrics(TcpListener);

impl Metrics {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).map(Self).map_err(|error| {
            let text = format!("cannot serve metrics on {address} (--metrics): {error}");
            io::Error::new(error.kind(), text)
        })
    }

    /// Answers from a thread of its own, which ends with the process.
    pub(crate) fn serve(self, stats: Stats) -> io::Result<()> {
        info!(address = %self.0.local_addr()?, "metrics at /metrics");
        let serving = move || {
            for stream in self.0.incoming() {
                match stream {
                    // Whoever does not get an answer will ask again.
                    Ok(stream) => _ = answer(stream, &stats),
                    Err(error) => {
                        warn!(%error, "cannot accept a request for metrics");
                        thread::sleep(PAUSE);
                    }
                }
            }
        };
        thread::Builder::new().name("metrics".to_owned()).spawn(serving).map(drop)
    }
}

fn answer(mut stream: TcpStream, stats: &Stats) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = read_head(&mut stream)?;
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next(), words.next());
    let path = target.and_then(|target| target.split(|byte| *byte == b'?').next());
    let (status, kind, body) = match (method, path) {
        (Some(b"GET"), Some(b"/metrics")) => (
            "200 OK",
            "text/plain; version=0.0.4; charset=utf-8",
            stats.snapshot().prometheus().to_string(),
        ),
        (Some(b"GET"), _) => ("404 Not Found", "text/plain", "try /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed\r\nAllow: GET", "text/plain", "try GET\n".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes())
}

/// Reads to the empty line, and nothing of a body.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || head.len() > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
    }
    Ok(head)
}
