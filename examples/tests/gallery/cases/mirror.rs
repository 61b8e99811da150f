//! `mirror`: the copy arrives, and nobody waits for it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::{Case, Outcome};
use crate::agents::Agent;
use crate::haproxy::{DEADLINE, Program, Request, free_port};
use crate::site::Site;

pub(super) const CASES: &[Case] = &[
    ("mirror_copies_requests", copies_requests),
    ("mirror_leaves_half_requests_out", leaves_half_requests_out),
    ("mirror_holds_nobody_up", holds_nobody_up),
];

/// The server for the copies.
struct Shadow {
    listener: TcpListener,
    address: SocketAddr,
}

impl Shadow {
    fn new() -> io::Result<Self> {
        let listener = TcpListener::bind(free_port()?)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    fn agent(&self) -> io::Result<Agent> {
        let to = self.address.to_string();
        Agent::start("mirror", &["--to".as_ref(), to.as_ref()])
    }

    /// The next copy: its head, and its body.
    fn next(&self) -> io::Result<(String, Vec<u8>)> {
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Err(io::Error::other(format!("the copy ended: {head}")));
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or_default();
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        Ok((head, body))
    }
}

/// Method, target, headers and body are those of the request.
fn copies_requests(program: &Program) -> io::Result<Outcome> {
    let shadow = Shadow::new()?;
    let agent = shadow.agent()?;
    let site = Site::of("mirror", agent.address)?.start(program)?;
    let body: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    assert_eq!(site.status(&Request::post("/a?b=c", body.clone()).header("x-test", "1"))?, 200);
    let (head, copied) = shadow.next()?;
    assert!(head.starts_with("POST /a?b=c HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nx-test: 1\r\n") && head.contains("\r\nhost: test\r\n"), "{head}");
    assert!(copied == body, "the body of the copy is another one");
    assert_eq!(site.status(&Request::get("/2"))?, 200);
    assert!(shadow.next()?.0.starts_with("GET /2 HTTP/1.1\r\n"));
    agent.stop()?;
    Ok(Outcome::Shown)
}

/// A body beyond the buffer is served and not copied; the next request is.
fn leaves_half_requests_out(program: &Program) -> io::Result<Outcome> {
    let shadow = Shadow::new()?;
    let agent = shadow.agent()?;
    let site = Site::of("mirror", agent.address)?.start(program)?;
    let mark = agent.process.log().mark();
    assert_eq!(site.status(&Request::post("/large", vec![b'a'; 100_000]))?, 200);
    agent.process.log().wait_for(mark, "no copy")?;
    assert_eq!(site.status(&Request::get("/small"))?, 200);
    assert!(shadow.next()?.0.starts_with("GET /small HTTP/1.1\r\n"));
    Ok(Outcome::Shown)
}

/// A server for copies that does not answer, none at all, and no agent: requests are served.
fn holds_nobody_up(program: &Program) -> io::Result<Outcome> {
    let shadow = Shadow::new()?;
    let agent = shadow.agent()?;
    let site = Site::of("mirror", agent.address)?.start(program)?;
    // Its connections wait in the backlog until the end of this case.
    for _ in 0..5 {
        assert_eq!(site.status(&Request::get("/"))?, 200);
    }
    assert!(TcpStream::connect(shadow.address).is_ok());
    drop(shadow);
    assert_eq!(site.status(&Request::get("/"))?, 200);
    agent.process.log().wait_for(0, "a copy was not sent")?;
    drop(agent);
    assert_eq!(site.status(&Request::get("/"))?, 200);
    Ok(Outcome::Shown)
}
