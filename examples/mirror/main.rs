//! An SPOE agent that sends a copy of each request to another server. It answers at once: no request waits
//! for its copy, and none fails with it.
//!
//! See README.md beside it. `router` takes requests, [`Sender`] sends the copies.

#[path = "../shared/serve.rs"]
mod serve;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use serde::Deserialize;
use spop_tokio::{Agent, Router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::warn;

/// The `spoe-message`.
const MESSAGE: &str = "mirror";
/// Headers that belong to a connection, or to the body as it was sent: lower case.
const NOT_COPIED: [&str; 8] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// No rule looks at a variable: there is none.
const SITE: serve::Site<'_> = serve::Site { engine: "mirror", rules: &[], passes: "served" };

/// Send a copy of each of HAProxy's requests to another server: an SPOE agent.
#[derive(Debug, Parser)]
#[command(name = "mirror", version, max_term_width = 100, after_help = serve::AFTER_HELP)]
struct Args {
    #[command(flatten)]
    options: serve::Options,

    /// The server for the copies, which speaks HTTP/1.1 without TLS. What it answers is not looked at.
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: String,

    /// How many copies may wait to be sent; further ones are dropped. Each may be as large as a request.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    queue: usize,

    /// How many copies are under way at once.
    #[arg(long, value_name = "N", default_value_t = 32)]
    parallel: usize,

    /// After how long a copy is given up, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    timeout: u64,
}

pub(crate) fn main() -> ExitCode {
    let Args { options, to, queue, parallel, timeout } = serve::parse(&SITE, MESSAGE, takes);
    serve::run("mirror", async move {
        let sender = Sender { to: to.into(), timeout: Duration::from_secs(timeout) };
        if options.check {
            sender.reach().await.map_err(|error| format!("--to {}: {error}", sender.to))?;
            println!("{}: takes connections", sender.to);
            return Ok(());
        }
        let (queue, copies) = mpsc::channel(queue.max(1));
        tokio::spawn(sender.run(copies, parallel.max(1)));
        options.serve(Agent::new(router(queue))).await?;
        Ok(())
    })
}

#[derive(Deserialize)]
struct Request<'a> {
    method: &'a str,
    url: &'a str,
    #[serde(borrow)]
    headers: &'a [u8],
    /// What HAProxy's buffer held.
    body: &'a [u8],
    size: u64,
    /// `Content-Length`, where the client announced one.
    length: Option<&'a str>,
}

/// Sets nothing and never fails a request: rules have nothing to look at.
fn router(queue: mpsc::Sender<Vec<u8>>) -> Router {
    takes(Router::new().on(MESSAGE, move |message, _| {
        let request: Request<'_> = message.deserialize()?;
        let Some(copy) = request.copy() else {
            warn!(size = request.size, "no copy: it is not sure that this was the whole body");
            return Ok(());
        };
        if queue.try_send(copy).is_err() {
            warn!("no copy: too many wait");
        }
        Ok(())
    }))
}

/// The arguments, as spoe.conf has them.
fn takes(route: Router) -> Router {
    route.args::<Request<'_>>().declares([
        "method=method",
        "url=pathq",
        "headers=req.hdrs",
        "body=req.body",
        "size=req.body_size",
        "length=req.hdr(content-length)",
    ])
}

impl Request<'_> {
    /// As bytes of HTTP/1.1. `None` where a part of the body is missing, or may be: half a request is none.
    /// Where the client announced no length (HTTP/2 wants none), HAProxy's size is that of the part it has.
    fn copy(&self) -> Option<Vec<u8>> {
        let whole = u64::try_from(self.body.len()).ok()? >= self.size;
        if !whole || !self.body.is_empty() && self.length.is_none() {
            return None;
        }
        let mut copy = format!("{} {} HTTP/1.1\r\n", self.method, self.url).into_bytes();
        for line in self.headers.split_inclusive(|byte| *byte == b'\n') {
            let line = line.trim_ascii_end();
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            if !line.is_empty()
                && !NOT_COPIED.iter().any(|not| name.eq_ignore_ascii_case(not.as_bytes()))
            {
                copy.extend_from_slice(line);
                copy.extend_from_slice(b"\r\n");
            }
        }
        let end = format!("content-length: {}\r\nconnection: close\r\n\r\n", self.body.len());
        copy.extend_from_slice(end.as_bytes());
        copy.extend_from_slice(self.body);
        Some(copy)
    }
}

/// Where copies go.
#[derive(Clone)]
struct Sender {
    to: Arc<str>,
    timeout: Duration,
}

impl Sender {
    async fn run(self, mut copies: mpsc::Receiver<Vec<u8>>, parallel: usize) {
        let permits = Arc::new(Semaphore::new(parallel));
        while let Some(copy) = copies.recv().await {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let sender = self.clone();
            tokio::spawn(async move {
                let sent = timeout(sender.timeout, sender.send(&copy)).await;
                if let Err(error) = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    warn!(to = %sender.to, %error, "a copy was not sent");
                }
                drop(permit);
            });
        }
    }

    /// Whether the server is there.
    async fn reach(&self) -> io::Result<()> {
        timeout(self.timeout, TcpStream::connect(&*self.to)).await??;
        Ok(())
    }

    /// Reads the answer, too: a server that is hung up on may not do what it was asked.
    async fn send(&self, copy: &[u8]) -> io::Result<()> {
        let mut stream = TcpStream::connect(&*self.to).await?;
        stream.write_all(copy).await?;
        let mut answer = [0; 4096];
        while stream.read(&mut answer).await? > 0 {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use spop_tokio::Value;
    use spop_tokio::testing::{self, Question};

    use super::*;

    fn post(body: &str, size: u64, length: Option<&str>) -> Question {
        let headers = "Host: a\r\nTransfer-Encoding: chunked\r\nx: 1\r\nCONNECTION: x\r\n\r\n";
        let question = testing::message("mirror").arg("method", "POST").arg("url", "/a?b");
        let question = question.arg("headers", headers).arg("body", body.as_bytes());
        question.arg("size", size).arg("length", length.map_or(Value::Null, Value::from))
    }

    #[test]
    fn the_copy_is_the_request() {
        let (queue, mut copies) = mpsc::channel(1);
        let answer = post("hello", 5, Some("5")).ask(&router(queue));
        assert!(answer.is_handled() && answer.actions().count() == 0);
        let copy = String::from_utf8(copies.try_recv().unwrap()).unwrap();
        let expected = "POST /a?b HTTP/1.1\r\nHost: a\r\nx: 1\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
        assert_eq!(copy, expected);
    }

    #[test]
    fn half_a_request_is_not_copied() {
        let (queue, mut copies) = mpsc::channel(1);
        let router = router(queue);
        assert!(post("hel", 5, Some("5")).ask(&router).is_handled());
        // Without a length, that the size is that of the buffer says nothing.
        assert!(post("hello", 5, None).ask(&router).is_handled());
        assert!(copies.try_recv().is_err());
    }

    #[test]
    fn a_full_queue_holds_nobody_up() {
        let (queue, mut copies) = mpsc::channel(1);
        let router = router(queue);
        for _ in 0..3 {
            assert!(post("", 0, None).ask(&router).is_handled());
        }
        assert!(copies.try_recv().is_ok());
        assert!(copies.try_recv().is_err());
    }
}
