//! Just enough HTTP to be a client of HAProxy: one request on one connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any timeout of the configuration that could hold a response back.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came back, and after what time.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) took: Duration,
}

/// Sends `GET /` to `server` in the name of `client`, as a load balancer in front of HAProxy would:
/// a line of the PROXY protocol says whose connection it is.
pub(super) async fn get(server: SocketAddr, client: IpAddr) -> io::Result<Response> {
    match timeout(PATIENCE, exchange(server, client)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no response from HAProxy")),
    }
}

async fn exchange(server: SocketAddr, client: IpAddr) -> io::Result<Response> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "{}\r\nGET / HTTP/1.1\r\nHost: demo.example\r\nConnection: close\r\n\r\n",
        proxy_line(client),
    );
    let start = Instant::now();
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let took = start.elapsed();
    let (status, body) = parse(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP/1.1 response"))?;
    Ok(Response { status, body, took })
}

/// PROXY protocol, version 1. The ports and the destination are of no interest to anyone here.
fn proxy_line(client: IpAddr) -> String {
    match client {
        IpAddr::V4(ip) => format!("PROXY TCP4 {ip} {} 40000 80", Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) => format!("PROXY TCP6 {ip} {} 40000 80", Ipv6Addr::LOCALHOST),
    }
}

/// Status and body of a response that ended with its connection.
fn parse(text: &str) -> Option<(u16, String)> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body() {
        let text = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno\n";
        assert_eq!(parse(text), Some((503, "no\n".to_owned())));
        for text in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 2\r\n\r\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn proxy_lines() {
        let line = |ip: &str| proxy_line(ip.parse().unwrap());
        assert_eq!(line("192.0.2.10"), "PROXY TCP4 192.0.2.10 127.0.0.1 40000 80");
        assert_eq!(line("2001:db8::1"), "PROXY TCP6 2001:db8::1 ::1 40000 80");
    }
}
