//! `spop-send --replay`: real captures, and one made here.

use std::path::PathBuf;

use serde_json::json;
use spop_proto::wire::{FrameType, HaproxyHello, NotifyPayload};
use spop_proto::{AgentConfig, Scope};

use crate::other_end::{Running, closed_port, frame, mirror, scoring, scoring_as};
use crate::run::{Did, Folder, SEND, run};

/// What HAProxy >= 3.1 sends that asks about these addresses.
pub(crate) fn capture(addresses: &[[u8; 4]]) -> Vec<u8> {
    let hello = HaproxyHello {
        supported_versions: Some(b"2.0"),
        max_frame_size: Some(16_380),
        capabilities: Some(b"pipelining"),
        engine_id: Some(b"tests"),
        ..HaproxyHello::default()
    };
    let mut payload = Vec::new();
    hello.encode(&mut payload);
    let mut bytes = frame(FrameType::HAPROXY_HELLO, (0, 0), &payload);
    for (stream, &address) in (1..).step_by(2).zip(addresses) {
        let ip = std::net::Ipv4Addr::from(address);
        let payload = NotifyPayload::new("check-client-ip").arg("ip", ip);
        bytes.extend(frame(FrameType::NOTIFY, (stream, 1), payload.as_bytes().unwrap()));
    }
    bytes
}

fn replay(file: &str, against: &str, and: &str, words: &[&str]) -> Did {
    let task = ["--replay", file, "--against", against, "--and", and];
    let did = run(SEND, &[&task, words].concat());
    did.with(against, "A").with(and, "B").with(file, "FILE")
}

/// A file of the captures of spop-proto.
fn real(name: &str) -> String {
    let folder =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../spop-proto/tests/captures"));
    folder.join(name).to_str().unwrap().to_owned()
}

/// A capture of the network, by tcpdump.
pub(crate) fn network(name: &str) -> String {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dump"));
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn the_same_agent_twice() {
    let agents = [(); 2].map(|()| Running::on_tcp(mirror(AgentConfig::new())));
    for (name, notifies) in [
        ("2.6.12_events-one-stream_c1.from-haproxy.bin", 12),
        ("2.6.12_frag-body_c1.from-haproxy.bin", 2),
        ("2.6.12_multi-msg_c1.from-haproxy.bin", 2),
        ("3.2.26_multi-msg_c1.from-haproxy.bin", 2),
        ("3.2.26_notify-types_c1.from-haproxy.bin", 3),
    ] {
        let did =
            replay(&real(name), &agents[0].endpoint, &agents[1].endpoint, &["--timeout", "5"]);
        let alike =
            format!("{notifies} NOTIFYs: {notifies} answered alike, 0 differently, 0 by neither\n");
        did.assert(0, &alike, "");
    }
}

#[test]
fn what_two_agents_do_not_agree_on() {
    let folder = Folder::new();
    let file = folder.file(
        "tap.1.haproxy",
        &capture(&[[192, 0, 2, 1], [203, 0, 113, 66], [192, 0, 2, 1], [203, 0, 113, 7]]),
    );
    let (strict, lax) = (Running::on_tcp(scoring()), Running::on_tcp(scoring_as(20)));
    let differences = "--- A\n+++ B\n\
        @@ NOTIFY 2, stream 3, frame 1: check-client-ip(ip=ipv4:203.0.113.66)\n\
        -set-var txn.iprep.ip_score = int32 95\n\
        +set-var txn.iprep.ip_score = int32 20\n\
        @@ NOTIFY 4, stream 7, frame 1: check-client-ip(ip=ipv4:203.0.113.7)\n\
        -set-var txn.iprep.ip_score = int32 95\n\
        +set-var txn.iprep.ip_score = int32 20\n\
        4 NOTIFYs: 2 answered alike, 2 differently, 0 by neither\n";
    let words = ["--prefix", "iprep"];
    replay(&file, &strict.endpoint, &lax.endpoint, &words).assert(8, differences, "");

    let did = replay(&file, &strict.endpoint, &lax.endpoint, &["--json"]);
    assert_eq!((did.exit, &*did.stderr), (8, ""));
    let json = did.json();
    assert_eq!((&json["alike"], &json["different"]), (&2.into(), &2.into()));
    let first = &json["differences"][0];
    assert_eq!((&first["notify"], &first["stream_id"]), (&2.into(), &3.into()));
    assert_eq!(first["against"]["actions"][0]["value"], 95);
    assert_eq!(first["and"]["actions"][0]["value"], 20);
    assert_eq!((&json["exit"], &json["error"]), (&8.into(), &json!(null)));
}

/// Integers of other widths, another order of other variables: HAProxy has the same afterwards.
#[test]
fn what_makes_no_difference_to_haproxy() {
    use spop_blocking::{Ack, Agent};
    use spop_proto::{HandlerError, Notify};

    let folder = Folder::new();
    let file = folder.file("f", &capture(&[[192, 0, 2, 1]]));
    let one = Running::on_tcp(Agent::inline(|_: Notify<'_>, ack: &mut Ack<'_>| {
        ack.set(Scope::Transaction, "a", 1_i32)?;
        ack.set(Scope::Transaction, "b", true)?;
        Ok::<(), HandlerError>(())
    }));
    let other = Running::on_tcp(Agent::inline(|_: Notify<'_>, ack: &mut Ack<'_>| {
        ack.set(Scope::Transaction, "b", true)?;
        ack.set(Scope::Transaction, "a", 1_u64)?;
        Ok::<(), HandlerError>(())
    }));
    let alike = "1 NOTIFY: 1 answered alike, 0 differently, 0 by neither\n";
    replay(&file, &one.endpoint, &other.endpoint, &[]).assert(0, alike, "");
}

/// One agent takes fragments, the other does not: HAProxy <= 3.0 gives up on the second, connects
/// again, and the next one is answered by both.
#[test]
fn an_agent_that_cannot_be_asked() {
    let takes = Running::on_tcp(mirror(AgentConfig::new()));
    let refuses = Running::on_tcp(mirror(AgentConfig::new().fragmentation(false)));
    let file = real("2.6.12_frag-body_c1.from-haproxy.bin");
    let did = replay(&file, &takes.endpoint, &refuses.endpoint, &[]);
    assert_eq!(did.exit, 8, "{did:?}");
    assert!(did.stdout.contains("+# not asked: the payload has "), "{did:?}");
    assert!(did.stdout.ends_with("2 NOTIFYs: 1 answered alike, 1 differently, 0 by neither\n"));
    let both = replay(&file, &refuses.endpoint, &refuses.endpoint, &[]);
    both.assert(7, "2 NOTIFYs: 1 answered alike, 0 differently, 1 by neither\n", "");
}

/// What tcpdump wrote of HAProxys of both generations.
#[test]
fn captures_of_the_network() {
    let agents = [(); 2].map(|()| Running::on_tcp(mirror(AgentConfig::new())));
    let [one, other] = agents.each_ref().map(|agent| agent.endpoint.as_str());
    for name in ["haproxy-2.6.pcap", "haproxy-3.2.pcap"] {
        let file = network(name);
        replay(&file, one, other, &[]).assert(
            0,
            "1 NOTIFY: 1 answered alike, 0 differently, 0 by neither\n",
            "",
        );
        replay(&file, one, other, &["--port", "9000"]).assert(
            1,
            "",
            "spop-send: FILE: no SPOP in it: no connection to port 9000\n",
        );
        let did = replay(&file, one, other, &["--port", "12345", "--json"]);
        assert_eq!((did.exit, &*did.stderr), (0, ""));
        assert_eq!((&did.json()["notifies"], &did.json()["left_out"]), (&1.into(), &json!([])));
    }
    // Which connection it was is told as spop-dump numbers them.
    let scoring = Running::on_tcp(scoring());
    let did = replay(&network("haproxy-3.2.pcap"), &scoring.endpoint, other, &["--json"]);
    assert_eq!(did.exit, 8);
    assert_eq!(did.json()["differences"][0]["connection"], 1);
}

/// A capture that stops in a packet is used up to there; of one that stops before the first NOTIFY it is said
/// what there is.
#[test]
fn captures_that_stop() {
    let folder = Folder::new();
    let agent = Running::on_tcp(mirror(AgentConfig::new()));
    let with = |file: &str| replay(file, &agent.endpoint, &agent.endpoint, &[]);
    let bytes = std::fs::read(network("haproxy-3.2.pcap")).unwrap();
    with(&folder.file("stopped.pcap", &bytes[..bytes.len() - 7])).assert(
        0,
        "1 NOTIFY: 1 answered alike, 0 differently, 0 by neither\n",
        "spop-send: FILE: it ends within a packet, which is left out\n",
    );
    // The file's header, and three packets without payload.
    let did = with(&folder.file("begun.pcap", &bytes[..24 + 3 * 16]));
    assert_eq!((did.exit, &*did.stdout), (1, ""), "{did:?}");
    assert_eq!(
        did.stderr,
        "spop-send: FILE: no NOTIFY to use in it: it ends within a packet, which is left out\n"
    );
    with(&folder.file("empty.pcap", &bytes[..24])).assert(
        1,
        "",
        "spop-send: FILE: no SPOP in it: no connection begins with a HELLO\n",
    );
    with(&folder.file("header.pcap", &bytes[..10])).assert(
        1,
        "",
        "spop-send: FILE: the capture ends within its header\n",
    );
    let raw = folder.file("raw", &capture(&[[192, 0, 2, 1]]));
    replay(&raw, &agent.endpoint, &agent.endpoint, &["--port", "12345"]).assert(
        1,
        "",
        "spop-send: FILE: --port is for captures of the network, and this is neither pcap nor pcapng\n",
    );
}

#[test]
fn what_cannot_be_replayed() {
    let folder = Folder::new();
    let agent = Running::on_tcp(scoring());
    let with = |file: &str| replay(file, &agent.endpoint, &agent.endpoint, &[]);
    let other_direction = real("2.6.12_frag-body_c1.from-agent.bin");
    with(&other_direction).assert(
        1,
        "",
        "spop-send: FILE: it begins with AGENT-HELLO, not with HAPROXY-HELLO: is it the other \
         direction?\n",
    );
    with(&folder.file("empty", b"")).assert(
        1,
        "",
        "spop-send: FILE: no SPOP frame in it: it wants the bytes that HAProxy sent on a connection, \
         from HAPROXY-HELLO on, or a capture of the network (pcap, pcapng)\n",
    );
    with(&folder.file("hello", &capture(&[]))).assert(1, "", "spop-send: FILE: no NOTIFY in it\n");
    // A capture that ends in the middle of a frame is used up to there.
    let mut cut = capture(&[[192, 0, 2, 1], [192, 0, 2, 2]]);
    cut.truncate(cut.len() - 1);
    with(&folder.file("cut", &cut)).assert(
        0,
        "1 NOTIFY: 1 answered alike, 0 differently, 0 by neither\n",
        "spop-send: FILE: the last 35 bytes are not a whole frame, and are left out\n",
    );
    let file = folder.file("whole", &capture(&[[192, 0, 2, 1]]));
    replay(&file, &agent.endpoint, &closed_port(), &[]).assert(
        2,
        "1 NOTIFY: 0 answered alike, 0 differently, 0 by neither\n",
        "spop-send: B: connection refused: nothing listens there. Is the agent running?\n",
    );
}
