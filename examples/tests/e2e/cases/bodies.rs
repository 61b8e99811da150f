//! The page `bodies.md`: how much of a body reaches an agent, in a table that is written here, and its
//! configuration, with which a body arrives whole or the request is turned away.

#[path = "../../gallery/h2.rs"]
mod h2;
mod rows;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::path::Path;
use std::{fs, thread};

use crate::bench::{Bench, Failure, ensure, equal, port, replace};
use crate::haproxy::{Client, DEADLINE, Haproxy, Request, Response, Setup, wait_until};
use crate::spy::{Seen, Spy, Value};

use self::rows::{BUFFERED, LARGE, Row, TABLE, Waits};
use super::Case;

pub(crate) use self::rows::names as rows;

pub(super) const CASES: &[Case] = &[
    Case::new("bodies_that_reach_an_agent", reach_an_agent),
    Case::new("bodies_that_just_fit", just_fit),
    Case::new("bodies_that_do_not_come", do_not_come),
    Case::new("bodies_of_unknown_length", of_unknown_length),
    Case::new("bodies_of_known_length", of_known_length),
    Case::new("bodies_of_unknown_length_in_chunks", in_chunks),
    Case::new("bodies_are_whole_or_denied", whole_or_denied),
    Case::new("bodies_that_are_cut_are_told_of", told_of),
];

/// What is posted.
const SIZE: usize = 40_000;
/// What is left of it in a buffer of the default size, beside few headers.
const CUT: RangeInclusive<usize> = 15_000..=15_360;

/// A running HAProxy, its agent and what they do with requests.
struct Site {
    web: SocketAddr,
    haproxy: Haproxy,
    spy: Spy,
}

impl Site {
    #[track_caller]
    fn start(bench: &Bench, row: &Row) -> Result<Self, Failure> {
        let (web, agent) = (port()?, port()?);
        let haproxy = bench.haproxy(&row.setup(web, agent))?;
        Ok(Self { web, haproxy, spy: spy(agent)? })
    }

    /// Posts that many bytes at once, and tells what came of them.
    #[track_caller]
    fn at_once(&self, size: usize) -> Result<Outcome, Failure> {
        let response = Client::connect(self.web)?.send(&Request::post("/", vec![b'x'; size]))?;
        Outcome::of(&response, &self.spy.take())
    }

    /// Posts a body later than the headers: when the agent has been asked, or, where HAProxy waits, when
    /// HAProxy has read the headers.
    #[track_caller]
    fn later(&self, size: usize, waits: Waits) -> Result<Outcome, Failure> {
        let requests = || self.haproxy.stat("web", "FRONTEND", "req_tot");
        let (before, mut seen) = (requests()?, Vec::new());
        let request = Request::post("/", vec![b'x'; size]);
        let response = Client::connect(self.web)?.send_body_later(&request, || {
            wait_until(
                "HAProxy to read the headers",
                || Ok((requests()? != before).then_some(())),
            )?;
            wait_until("the agent to be asked", || {
                seen.extend(self.spy.take());
                Ok((matches!(waits, Waits::Yes) || !seen.is_empty()).then_some(()))
            })
        })?;
        let early = matches!(waits, Waits::Yes) && !seen.is_empty();
        ensure(!early, || "the agent was asked before the body came".to_owned())?;
        seen.extend(self.spy.take());
        Outcome::of(&response, &seen)
    }
}

fn spy(agent: SocketAddr) -> Result<Spy, Failure> {
    Ok(Spy::start(agent, |_| vec![("verdict", Value::Str("allow".into()))])?)
}

/// What became of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// So much of it arrived; what `req.body_size` said.
    Asked(usize, Option<i64>),
    /// The agent was not asked: the error.
    Error(i64),
}

impl Outcome {
    #[track_caller]
    fn of(response: &Response, seen: &[Seen]) -> Result<Self, Failure> {
        equal("status", response.status, 200)?;
        let text = response.text();
        let error = text.trim_start_matches("error=");
        let Some(first) = seen.first() else {
            return Ok(Self::Error(error.parse()?));
        };
        equal("error", error, "")?;
        equal("messages", seen.len(), 1)?;
        let Some(Value::Bin(body)) = first.arg("body") else {
            return Err(Failure::new(format!("no body in {first:?}")));
        };
        equal("its length as HAProxy sees it", first.arg("len"), Some(&integer(body.len())?))?;
        let size = match first.arg("size") {
            Some(Value::Int64(size)) => Some(*size),
            _ => None,
        };
        Ok(Self::Asked(body.len(), size))
    }

    /// As a cell has it. A number that depends on headers and on what HAProxy happened to read at once
    /// is a class, whose bounds are checked.
    #[track_caller]
    fn text(self, waits: Waits) -> Result<String, Failure> {
        match (self, waits) {
            (Self::Error(error), _) => return Ok(format!("error {error}, not asked")),
            (Self::Asked(_, size), _) => {
                equal("the length told", size, Some(i64::try_from(SIZE)?))?
            }
        }
        match (self, waits) {
            (Self::Asked(0, _), _) => Ok("0".to_owned()),
            (Self::Asked(SIZE, _), _) => Ok("40 000".to_owned()),
            (Self::Asked(body, _), Waits::No) if body <= *CUT.end() => Ok("a part".to_owned()),
            (Self::Asked(body, _), Waits::Yes) if CUT.contains(&body) => Ok("15 200".to_owned()),
            _ => Err(Failure::new(format!("a class of its own: {self:?}"))),
        }
    }
}

fn integer(number: usize) -> Result<Value, Failure> {
    Ok(Value::Int64(i64::try_from(number)?))
}

/// Each configuration, with a body that comes at once and with one that comes later.
fn reach_an_agent(bench: &Bench) -> Result<(), Failure> {
    for row in &TABLE {
        let (web, agent) = (port()?, port()?);
        let Ok(haproxy) = row.setup(web, agent).start(bench.program()) else {
            // One row is about words that came with 3.4.
            let new_words = row.global.contains("tune.bufsize.large");
            ensure(new_words && !knows_large_buffers(bench), || {
                format!("{}: HAProxy does not start", row.name)
            })?;
            bench.cell(row.name, "not accepted".to_owned());
            continue;
        };
        let site = Site { web, haproxy, spy: spy(agent)? };
        let at_once = site.at_once(SIZE)?.text(row.waits)?;
        let later = site.later(SIZE, row.waits)?.text(row.waits)?;
        let cell = if at_once == later { at_once } else { format!("{at_once}; later {later}") };
        bench.cell(row.name, cell);
    }
    Ok(())
}

/// The line in which an agent tells that a body may have been cut: of one that is, with small headers and
/// with large ones, once; of a short one never.
fn told_of(bench: &Bench) -> Result<(), Failure> {
    let list = bench.write("list", "10.0.0.0/8 30\n")?;
    for headers in [0, 4_000] {
        let (web, address) = (port()?, port()?);
        let agent = bench.agent(address, &list)?;
        let row = Row::new("", Waits::Yes, "", BUFFERED, "");
        let haproxy = bench.haproxy(&row.setup(web, address))?;
        let post = |size: usize| -> Result<(), Failure> {
            let request =
                Request::post("/", vec![b'x'; size]).header("x-large", "x".repeat(headers));
            equal("status", Client::connect(web)?.send(&request)?.status, 200)
        };
        let log = agent.log().clone();
        post(2_000)?;
        post(SIZE)?;
        // The line comes before the answer, and from there through a pipe.
        let line = log.wait_for(0, "argument may be a body cut")?;
        let cut = CUT.start() - headers..=CUT.end() - headers;
        let bytes = line.split("bytes=").nth(1).and_then(|rest| rest.split(' ').next());
        let bytes: usize = bytes.unwrap_or_default().parse()?;
        ensure(cut.contains(&bytes), || format!("{bytes} bytes, not {cut:?}: {line}"))?;
        ensure(line.contains("spoe_message=body argument=body"), || line.clone())?;
        ensure(line.contains("bufsize=16384"), || line.clone())?;
        post(SIZE)?;
        drop(haproxy);
        agent.stop()?;
        let told = log.lines(0).iter().filter(|line| line.contains("may be a body cut")).count();
        equal("lines", told, 1)?;
    }
    Ok(())
}

/// What a buffer holds: its size less 1 024 bytes (`tune.maxrewrite`), less the headers.
fn just_fit(bench: &Bench) -> Result<(), Failure> {
    let cases = [
        ("", 15_000, 15_360),
        ("tune.maxrewrite 4096", 12_000, 12_288),
        (LARGE, 64_000, 64_512),
        ("tune.bufsize 1048576", 1_047_000, 1_047_552),
    ];
    for (global, whole, cut) in cases {
        let site = Site::start(bench, &Row::new("", Waits::Yes, global, BUFFERED, ""))?;
        let told = |size: usize| i64::try_from(size).map(Some);
        let fits = site.at_once(whole)?;
        equal(global, fits, Outcome::Asked(whole, told(whole)?))?;
        let Outcome::Asked(body, size) = site.at_once(cut)? else {
            return Err(Failure::new(format!("{global}: {cut} bytes: not asked")));
        };
        equal(global, size, told(cut)?)?;
        ensure((whole..cut).contains(&body), || format!("{global}: {body} of {cut} bytes"))?;
    }
    Ok(())
}

/// A client that sends headers and no body: 408, and the agent is not asked.
fn do_not_come(bench: &Bench) -> Result<(), Failure> {
    let buffered = "option http-buffer-request\n    timeout http-request 300ms";
    let wait = "http-request wait-for-body time 300ms\n    http-request send-spoe-group e2e bodies";
    for front in [buffered, wait] {
        let site = Site::start(bench, &Row::new("", Waits::Yes, "", front, ""))?;
        for part in ["", "the first bytes"] {
            let mut client = TcpStream::connect(site.web)?;
            client.set_read_timeout(Some(DEADLINE))?;
            let headers = "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 40000\r\n\r\n";
            client.write_all([headers, part].concat().as_bytes())?;
            let mut answer = [0; 12];
            client.read_exact(&mut answer)?;
            equal("status line", &answer[..], &b"HTTP/1.1 408"[..])?;
        }
        equal("what the agent was asked", site.spy.take(), [])?;
    }
    Ok(())
}

/// Posts that many bytes by HTTP/2, with that `content-length`.
fn post_h2(to: SocketAddr, length: Option<usize>, size: usize) -> io::Result<u16> {
    h2::post(to, b"", length, &vec![b'x'; size])
}

/// HTTP/2 needs no `content-length`. `req.body_size` is then what is there, from 3.4 on 0: nothing tells
/// that the body is cut.
fn of_unknown_length(bench: &Bench) -> Result<(), Failure> {
    for (global, cut) in [("", CUT), (LARGE, 64_000..=64_512)] {
        let row = Row::new("", Waits::Yes, global, BUFFERED, "");
        let (web, agent) = (port()?, port()?);
        let _haproxy = bench.haproxy(&row.setup(format!("{web} proto h2"), agent))?;
        let spy = spy(agent)?;
        let size = if global.is_empty() { SIZE } else { 65_000 };

        equal("status", post_h2(web, None, size)?, 200)?;
        let (len, told) = lengths(&spy.take())?;
        ensure(usize::try_from(len).is_ok_and(|len| cut.contains(&len)), || {
            format!("{len} bytes")
        })?;
        equal("req.body_size", told, if knows_large_buffers(bench) { 0 } else { len })?;
    }
    Ok(())
}

/// HTTP/2 with a `content-length`. Up to 3.2 `req.body_size` is nevertheless what is there where HAProxy
/// has received the rest, which did not fit. The header is always what the client said.
fn of_known_length(bench: &Bench) -> Result<(), Failure> {
    const A_LITTLE_MORE: usize = 16_000;
    let row = Row::new("", Waits::Yes, "", BUFFERED, "");
    let (web, agent) = (port()?, port()?);
    let _haproxy = bench.haproxy(&row.setup(format!("{web} proto h2"), agent))?;
    let spy = spy(agent)?;
    let said = i64::try_from(A_LITTLE_MORE)?;
    let post = || -> Result<bool, Failure> {
        equal("status", post_h2(web, Some(A_LITTLE_MORE), A_LITTLE_MORE)?, 200)?;
        let seen = spy.take();
        let header = seen.first().and_then(|seen| seen.arg("header"));
        equal("the header", header, Some(&Value::Int64(said)))?;
        let (len, told) = lengths(&seen)?;
        ensure(usize::try_from(len).is_ok_and(|len| CUT.contains(&len)), || {
            format!("{len} bytes")
        })?;
        ensure(told == said || told == len, || format!("{told} for {len} of {said} bytes"))?;
        Ok(told == len)
    };
    if knows_large_buffers(bench) {
        return equal("a length that hides the cut", post()?, false);
    }
    // Whether the rest has come in time is not for the case to say.
    Ok(wait_until("a length that hides the cut", || {
        let hidden = post().map_err(|failure| io::Error::other(failure.to_string()))?;
        Ok(hidden.then_some(()))
    })?)
}

/// HTTP/1.1, in chunks: `req.body_size` counts the chunks whose heads were read. A client that fills the
/// buffer with the first one, and waits, gets the agent asked as if that were all.
fn in_chunks(bench: &Bench) -> Result<(), Failure> {
    let site = Site::start(bench, &Row::new("", Waits::Yes, "", BUFFERED, ""))?;
    // Which size does it depends on the version: HAProxy waits where it is too small.
    let clients = (15_170..15_230).map(|size| {
        let mut client = TcpStream::connect(site.web)?;
        let head = "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = format!("{head}{size:x}\r\n{}\r\n", "x".repeat(size));
        client.write_all(chunk.as_bytes())?;
        Ok(client)
    });
    let _clients = clients.collect::<io::Result<Vec<_>>>()?;
    wait_until("the agent to be asked about the first chunk", || {
        let same = |seen: &Seen| {
            matches!(seen.arg("len"), Some(Value::Int64(15_000..)))
                && seen.arg("len") == seen.arg("size")
        };
        Ok(site.spy.take().iter().any(same).then_some(()))
    })?;
    Ok(())
}

/// `req.body_len` and `req.body_size` of the one message.
#[track_caller]
fn lengths(seen: &[Seen]) -> Result<(i64, i64), Failure> {
    equal("messages", seen.len(), 1)?;
    let arg = |name| seen.first().and_then(|seen| seen.arg(name));
    match (arg("len"), arg("size")) {
        (Some(Value::Int64(len)), Some(Value::Int64(size))) => Ok((*len, *size)),
        other => Err(Failure::new(format!("lengths: {other:?}"))),
    }
}

/// 3.4 and later.
fn knows_large_buffers(bench: &Bench) -> bool {
    (bench.program().version.major, bench.program().version.minor) >= (3, 4)
}

/// The page's configuration: the agent gets the whole body, or the request ends before the agent is
/// asked. Nothing of another kind.
fn whole_or_denied(bench: &Bench) -> Result<(), Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bodies.md");
    let page = fs::read_to_string(path)?;
    let block = |file: &str| {
        let text = page.split_once(&format!("```haproxy all\n# {file}\n"));
        let text = text.and_then(|(_, rest)| rest.split_once("```"));
        let none = || io::Error::other(format!("the page has no {file}"));
        text.map(|(text, _)| text.to_owned()).ok_or_else(none)
    };
    let (web, h2, agent) = (port()?, port()?, port()?);
    let (mut config, mut spoe) = (block("haproxy.cfg")?, block("spoe.conf")?);
    bench.write("spoe.conf", &spoe)?;
    let file = bench.write("haproxy.cfg", &config)?;
    equal("warnings", bench.program().warnings(&file)?, "")?;
    let bind = format!("bind {web}\n    bind {h2} proto h2");
    replace(&mut config, "bind 127.0.0.1:8080", &bind)?;
    replace(&mut config, "agent1 127.0.0.1:12345", &format!("agent1 {agent}"))?;
    replace(&mut config, "timeout check   1s", "timeout check 10s")?;
    replace(&mut spoe, "processing    100ms", "processing    20s")?;
    let setup = Setup::new(config).file("spoe.conf", spoe);
    let spy = spy(agent)?;
    let haproxy = bench.haproxy(&setup)?;
    haproxy.wait_for_server("agents", "agent1", "UP")?;

    let bodies = |seen: &[Seen]| {
        let each = seen.iter().filter_map(|seen| match seen.arg("body") {
            Some(Value::Bin(body)) => Some(body.len()),
            _ => None,
        });
        each.collect::<Vec<_>>()
    };
    for (size, status, asked) in
        [(0, 200, &[0][..]), (SIZE, 200, &[SIZE]), (64_000, 200, &[64_000]), (65_000, 413, &[])]
    {
        let request = Request::post("/", vec![b'x'; size]);
        let got = Client::connect(web)?.send(&request)?.status;
        equal(&format!("status of {size} bytes"), got, status)?;
        equal(&format!("bodies, of {size} bytes"), bodies(&spy.take()), asked)?;
        equal(&format!("status of {size} bytes, HTTP/2"), post_h2(h2, Some(size), size)?, status)?;
        equal(&format!("bodies, of {size} bytes, HTTP/2"), bodies(&spy.take()), asked)?;
    }
    equal("status of a GET", Client::connect(web)?.send(&Request::get("/"))?.status, 200)?;
    equal("bodies of a GET", bodies(&spy.take()), [0])?;

    // Without a length, or with two: short ones, too.
    for size in [1_000, SIZE, 65_000] {
        equal("status without a length, HTTP/2", post_h2(h2, None, size)?, 411)?;
        for headers in ["", "content-length: 5\r\n"] {
            equal("status of chunks", chunked(web, headers, size)?, 411)?;
        }
    }
    // More than the length says.
    ensure(post_h2(h2, Some(5), 1_000).is_err(), || "a body beyond its length".to_owned())?;
    equal("bodies without a length", bodies(&spy.take()), [])
}

/// The status of a body in chunks, with more headers.
fn chunked(web: SocketAddr, headers: &str, size: usize) -> io::Result<u16> {
    let mut client = TcpStream::connect(web)?;
    client.set_read_timeout(Some(DEADLINE))?;
    let mut sends = client.try_clone()?;
    let head =
        format!("POST / HTTP/1.1\r\nhost: test\r\n{headers}transfer-encoding: chunked\r\n\r\n");
    let body = format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
    // HAProxy need not take all of it before it answers.
    let sending = thread::spawn(move || sends.write_all([head, body].concat().as_bytes()));
    let mut line = [0; 12];
    client.read_exact(&mut line)?;
    drop(client);
    let _ = sending.join();
    let status = String::from_utf8_lossy(&line[9..]).into_owned();
    status.parse().map_err(|_| io::Error::other(format!("status {status:?}")))
}
