//! The lines of the log are an interface: the same of every adapter, and as `spop_proto::logging` lists
//! them.

use std::net::TcpStream;
use std::time::Duration;

use spop_proto::Dialect::New;
use spop_proto::wire::NotifyPayload;
use spop_proto::{Endpoint, Value};

use crate::bench::Bench;
use crate::client::{Client, patient};
use crate::log::{self, Line};
use crate::script::{Word, echo, fallback, limits};
use crate::stream;

/// Where the lines are listed.
const PAGE: &str = include_str!("../../../../spop-proto/src/logging.rs");

/// A value that no line may tell.
const SECRET: &str = "a-value-of-a-request";

/// An address that the log can be searched for. Another trial may have had it before: lines up to
/// then are not about this one.
struct Peer {
    address: String,
    lines_before: usize,
}

fn connect(endpoint: &Endpoint) -> (TcpStream, Peer) {
    let lines_before = log::count(|_| true);
    let stream = TcpStream::connect(endpoint.to_string()).unwrap();
    let address = stream.local_addr().unwrap().to_string();
    (stream::patient(stream).unwrap(), Peer { address, lines_before })
}

fn ready(endpoint: &Endpoint) -> (Client, Peer) {
    let (stream, peer) = connect(endpoint);
    let mut client = Client::new(Box::new(stream), patient(New));
    client.hello();
    (client, peer)
}

/// The line that was meant, with exactly these fields besides.
#[track_caller]
fn expect(bench: &Bench, line: &Line, message: &str, fields: &[&str]) {
    let of = format!("spop_{}", bench.adapter.name().replace('-', ""));
    let of = of.as_str();
    assert_eq!((line.message.as_str(), line.names().as_slice()), (message, fields), "{line:?}");
    let row = if fields.contains(&"suppressed") {
        assert_eq!((line.level.as_str(), line.from.as_str()), ("WARN", of), "{line:?}");
        assert_eq!(line.field("suppressed"), "0", "{line:?}");
        format!("//! | `{message}` |")
    } else {
        assert_eq!((line.level.as_str(), line.from.as_str()), ("INFO", of), "{line:?}");
        format!("//! | info | `{message}` |")
    };
    let row = PAGE.lines().find(|line| line.starts_with(&row)).unwrap();
    for field in fields.iter().filter(|field| **field != "suppressed") {
        assert!(row.contains(&format!("`{field}`")), "{field}: {row}");
    }
}

fn about(id: &str) -> Line {
    log::line(id, |line| line.field("request_id").starts_with(id))
}

fn about_peer(message: &str, peer: &Peer) -> Line {
    let is_it = |line: &Line| line.message == message && line.field("peer") == peer.address;
    log::line_after(peer.lines_before, message, is_it)
}

/// Lines about a request have its id, and nothing else of it.
pub(super) fn about_requests(bench: &Bench) {
    let mut setup = bench.setup();
    let limits = limits().answer_timeout(Duration::from_millis(150)).unwrap();
    setup.config = setup.config.request_id("id").limits(limits);
    let agent = bench.adapter.start(setup).unwrap();
    let (mut client, peer) = ready(agent.endpoint());
    let id = |what: &str| format!("{}-{}-{what}", bench.adapter.name(), bench.mode);
    let with_id = |word: Word, id: &str| -> NotifyPayload {
        word.number(50_000).arg("secret", SECRET).arg("id", id)
    };

    const NO_ANSWER: &str = "no answer: HAProxy got the fallback";
    let fields = ["failure", "request_id", "suppressed"];
    let whole = id("error");
    assert_eq!(client.ask(&with_id(Word::Fail, &whole)), fallback());
    let line = about(&whole);
    expect(bench, &line, NO_ANSWER, &fields);
    assert_eq!((line.field("failure"), line.field("request_id")), ("on purpose", whole.as_str()));

    // Each kind has a line of its own, and what is odd in an id cannot break it.
    let odd = format!("{}\n\u{1b}[2J\"{}", id("panic"), "x".repeat(200));
    assert_eq!(client.ask(&with_id(Word::Panic, &odd)), fallback());
    let line = about(&id("panic"));
    expect(bench, &line, NO_ANSWER, &fields);
    assert!(line.field("failure").contains("panicked"), "{line:?}");
    let told = line.field("request_id");
    assert!(told.contains(r#"panic\n\x1b[2J\"xxx"#) && told.ends_with("x..."), "{told}");

    let too_big = id("too-big");
    assert_eq!(client.ask(&with_id(Word::FillOrFail, &too_big)), fallback());
    expect(bench, &about(&too_big), NO_ANSWER, &fields);

    if bench.mode.overtakes() {
        const LATE: &str = "late answer: HAProxy got the fallback";
        let late = id("late");
        let asked = Word::Echo.behind(1).arg("secret", SECRET).arg("id", late.as_str());
        assert_eq!(client.ask(&asked), fallback());
        let line = about(&late);
        expect(bench, &line, LATE, &["peer", "request_id", "suppressed"]);
        assert_eq!((line.field("request_id"), line.field("peer")), (&*late, &*peer.address));
        bench.script.gate.open_all();
    }
    client.hang_up();
    agent.stop();
    assert!(!log::tells(SECRET), "a value of a request is in the log");
}

/// Without an argument that is named, or that is there, a line has no such field.
pub(super) fn without_an_id(bench: &Bench) {
    for named in [false, true] {
        let mut setup = bench.setup();
        if named {
            setup.config = setup.config.request_id("another");
        }
        let agent = bench.adapter.start(setup).unwrap();
        let mut client = Client::ready(agent.endpoint(), New);
        // The only thing of a request that is in such a line is what the handler says.
        let word = format!("nobody-knows-{}-{}-{named}", bench.adapter.name(), bench.mode);
        let asked = NotifyPayload::new("echo").arg(&word, 1_i64).arg("id", "no-id-was-asked-for");
        assert_eq!(client.ask(&asked), fallback());
        let line = log::line(&word, |line| line.field("failure").contains(&word));
        expect(bench, &line, "no answer: HAProxy got the fallback", &["failure", "suppressed"]);
        client.hang_up();
        agent.stop();
    }
    assert!(!log::tells("no-id-was-asked-for"));
}

pub(super) fn about_connections(bench: &Bench) {
    let mut setup = bench.setup();
    setup.config = setup.config.limits(limits().connections(1.try_into().unwrap()));
    let agent = bench.adapter.start(setup).unwrap();
    let (mut client, _) = ready(agent.endpoint());
    let (second, peer) = connect(agent.endpoint());
    let line = about_peer("too many connections", &peer);
    expect(bench, &line, "too many connections", &["peer", "suppressed"]);
    drop(second);
    assert_eq!(client.ask(&Word::Echo.number(1)), echo(1));
    client.hang_up();
    agent.stop();

    let agent = bench.start();
    let (mut stream, peer) = connect(agent.endpoint());
    assert!(stream::write(&mut stream, b"GET / HTTP/1.1\r\n\r\n"));
    let line = about_peer("refused", &peer);
    expect(bench, &line, "refused", &["error", "peer", "status", "suppressed"]);
    assert!(line.field("error").contains("an HTTP request"), "{line:?}");
    assert_eq!(line.field("status"), "3 (frame is too big)");
    drop(stream);
    agent.stop();
}

pub(super) fn about_overload(bench: &Bench) {
    let agent = bench.start();
    let (mut client, peer) = ready(agent.endpoint());
    for _ in 0..4 {
        client.queue(&Word::Fill.number(7_000));
    }
    for _ in 0..4 {
        client.ack();
    }
    const HELD: &str = "answers held back: they would fill HAProxy's receive buffer";
    let line = about_peer(HELD, &peer);
    expect(bench, &line, HELD, &["answers", "peer", "suppressed"]);
    client.hang_up();
    let held = agent.stop().stats.held;
    assert!(held > 0, "nothing was held back");

    if bench.mode.overtakes() {
        let agent = bench.start_with(limits().in_flight(1.try_into().unwrap()));
        let (mut client, peer) = ready(agent.endpoint());
        client.queue(&Word::Echo.behind(1));
        for _ in 0..2 {
            client.queue(&Word::Echo.number(2));
        }
        assert_eq!((client.ack().1, client.ack().1), (fallback(), fallback()));
        const SHED: &str = "too many requests: HAProxy got the fallback";
        let line = about_peer(SHED, &peer);
        expect(bench, &line, SHED, &["peer", "requests", "suppressed"]);
        bench.script.gate.open(1);
        assert_eq!(client.ack().1, echo(1));
        client.hang_up();
        assert_eq!(agent.stop().stats.shed, 2);
    }
}

/// Once, and of what may be cut alone.
pub(super) fn about_cut_bodies(bench: &Bench) {
    const CUT: &str = "argument may be a body cut at HAProxy's buffer, without an error: add length=req.hdr_val(content-length) to args and compare";
    let agent = bench.start();
    let (mut client, _) = ready(agent.endpoint());
    // Lines of all trials are together; this argument's name is of this one.
    let name = format!("body-{}-{}", bench.adapter.name(), bench.mode);
    let mut ask = |bytes: usize| {
        let body = vec![b'x'; bytes];
        let asked = Word::Echo.number(1).arg(&name, Value::Bin(&body));
        assert_eq!(client.ask(&asked), echo(1));
    };
    ask(2_000);
    ask(15_214);
    ask(11_054);
    client.hang_up();
    // Another connection of the same agent.
    let (mut client, _) = ready(agent.endpoint());
    let body = vec![b'x'; 15_214];
    assert_eq!(client.ask(&Word::Echo.number(1).arg(&name, Value::Bin(&body))), echo(1));
    client.hang_up();
    agent.stop();
    let about = |line: &Line| line.field("argument") == name;
    let line = log::line(CUT, about);
    expect(bench, &line, CUT, &["argument", "bufsize", "bytes", "spoe_message"]);
    assert_eq!((line.field("spoe_message"), line.field("bytes")), ("echo", "15214"));
    assert_eq!(line.field("bufsize"), "16384");
    assert_eq!(log::count(about), 1);
}
