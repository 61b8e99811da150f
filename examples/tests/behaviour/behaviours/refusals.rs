//! What may not be said to an agent: each refused with its status, and nothing else suffers.

use spop_proto::Dialect::{New, Old};
use spop_proto::{Status, StreamError};

use crate::adapter::Running;
use crate::bench::Bench;
use crate::client::{Client, Told};
use crate::script::{Word, echo};
use crate::wire::*;

/// Bytes and the status they are refused with.
type Case = (&'static str, Vec<u8>, u32);

pub(super) fn before_the_handshake(bench: &Bench) {
    let pairs = hello_pairs;
    let hello = |pairs: &[Vec<u8>]| frame(HAPROXY_HELLO, FIN, 0, 0, &pairs.concat());
    let [version, size, capabilities, _] = pairs();
    let changed = |at: usize, pair: Vec<u8>| {
        let mut pairs = pairs();
        pairs[at] = pair;
        hello(&pairs)
    };
    let all = pairs().concat();
    let cases: Vec<Case> = vec![
        ("a NOTIFY", notify(1), 4),
        ("an unknown frame", frame(200, FIN, 0, 0, b""), 4),
        ("a HELLO without FIN", frame(HAPROXY_HELLO, 0, 0, 0, &all), 10),
        ("a HELLO with a stream-id", frame(HAPROXY_HELLO, FIN, 1, 0, &all), 4),
        ("a HELLO with a frame-id", frame(HAPROXY_HELLO, FIN, 0, 1, &all), 4),
        ("a HELLO that ends too early", frame(HAPROXY_HELLO, FIN, 0, 0, &all[..all.len() - 1]), 4),
        ("no version", hello(&[size.clone(), capabilities.clone()]), 5),
        ("no max-frame-size", hello(&[version.clone(), capabilities]), 6),
        ("no capabilities", hello(&[version, size]), 7),
        ("another version", changed(0, pair("supported-versions", &text("1.0, 3.0"))), 8),
        ("a tiny max-frame-size", changed(1, pair("max-frame-size", SIZE_255)), 9),
        ("a frame shorter than a header", vec![0, 0, 0, 6], 4),
        ("a first frame beyond 4 KiB", vec![0, 0, 0x10, 1], 3),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 3),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], 3),
        ("PROXY", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), 3),
    ];
    let agent = bench.start();
    for (what, bytes, status) in &cases {
        let mut wire = Wire::connect(agent.endpoint());
        wire.write(bytes);
        assert_eq!(wire.goodbye(), *status, "{what}");
    }
    expect_refused(agent, cases.len());
}

pub(super) fn after_the_handshake(bench: &Bench) {
    let half = frame(NOTIFY, 0, 1, 1, ECHO_7);
    let cases: Vec<Case> = vec![
        ("HELLO again", hello(), 4),
        ("an ACK", frame(ACK, FIN, 1, 1, b""), 4),
        ("an AGENT-HELLO", agent_hello(), 4),
        ("a frame shorter than a header", vec![0, 0, 0, 6], 4),
        ("a frame beyond the agent's own limit", 1_048_577_u32.to_be_bytes().to_vec(), 3),
        ("a header that ends too early", vec![0, 0, 0, 7, 3, 0, 0, 0, 1, 1, 0xff], 4),
        ("messages that end too early", frame(NOTIFY, FIN, 1, 1, &ECHO_7[..10]), 4),
        ("a NOTIFY within another one", [half.clone(), notify(2)].concat(), 11),
        ("129 unknown frames", frame(200, FIN, 0, 0, b"").repeat(129), 4),
        ("a goodbye that ends too early", frame(2, FIN, 0, 0, b"\x06status"), 4),
    ];
    let agent = bench.start();
    for (what, bytes, status) in &cases {
        let mut wire = Wire::ready(agent.endpoint());
        wire.write(bytes);
        assert_eq!(wire.goodbye(), *status, "{what}");
    }
    // One less is let pass.
    let mut wire = Wire::ready(agent.endpoint());
    wire.write(&[frame(200, FIN, 0, 0, b"").repeat(128), notify(1)].concat());
    assert_eq!(wire.heard().payload, SAYS_7);
    wire.hang_up();
    expect_refused(agent, cases.len());

    let mut setup = bench.setup();
    setup.config = setup.config.fragmentation(false);
    let agent = bench.adapter.start(setup).unwrap();
    let mut wire = Wire::ready(agent.endpoint());
    wire.write(&half);
    assert_eq!(wire.goodbye(), 10, "a fragment that was not announced");
    expect_refused(agent, 1);
}

/// The refusal as HAProxy's side understands it.
pub(super) fn of_what_the_engine_asks(bench: &Bench) {
    let agent = bench.start();
    for dialect in [Old, New] {
        let mut client = Client::ready(agent.endpoint(), dialect);
        let id = client.send_bytes(&ECHO_7[..10]);
        assert_eq!(client.next(), Some(Told::Goodbye(4)));
        let error = StreamError::from_status(Status::INVALID_FRAME);
        assert_eq!(client.next(), Some(Told::Failed(id, error)));
        client.expect_end();
    }
    expect_refused(agent, 2);
}

/// That many were refused, and the agent serves on.
#[track_caller]
fn expect_refused(agent: Running, count: usize) {
    let mut client = Client::ready(agent.endpoint(), Old);
    assert_eq!(client.ask(&Word::Echo.number(1)), echo(1));
    drop(client);
    assert_eq!(agent.stop().protocol_errors, count as u64);
}
