//! `spop-send` with messages of the command line.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use spop_blocking::Agent;
use spop_proto::wire::FrameType;
use spop_proto::{AgentConfig, HandlerError, Notify, Scope};

use crate::other_end::{
    Running, Script, agent_disconnect, agent_hello, closed_port, frame, mirror, peer, scoring,
};
use crate::run::{Did, Folder, SEND, run, run_with_input};

/// Sends to what listens there, which is called AGENT in what is printed.
fn send(endpoint: &str, words: &[&str]) -> Did {
    run(SEND, &[&[endpoint], words].concat()).with(endpoint, "AGENT")
}

#[test]
fn an_answer_in_haproxys_words() {
    let agent = Running::on_tcp(scoring());
    let question = ["-m", "check-client-ip", "ip=203.0.113.66"];
    send(&agent.endpoint, &question).assert(0, "set-var txn.ip_score = int32 95\n", "");
    let prefixed = [&["--prefix", "iprep", "--dialect", "old"][..], &question].concat();
    send(&agent.endpoint, &prefixed).assert(0, "set-var txn.iprep.ip_score = int32 95\n", "");
    send(&agent.endpoint, &["-m", "unknown"]).assert(0, "# no actions\n", "");
}

#[test]
fn arguments_of_all_types() {
    let folder = Folder::new();
    let agent = Running::start(mirror(AgentConfig::new()), &folder.endpoint("agent.sock"));
    let file = folder.file("bytes", b"\x00\xffx");
    let words = [
        "-m",
        "guessed",
        "ip=192.0.2.1",
        "ip6=2001:db8::1",
        "n=-5",
        "b=true",
        "s=/x?y=z",
        "empty=",
        "-m",
        "forced",
        "fs=str:5",
        "fb=bin:00ff",
        "i32=int32:-1",
        "u32=uint32:1",
        "i64=int64:2",
        "u64=uint64:18446744073709551615",
        "fbool=bool:false",
        "f4=ipv4:1.2.3.4",
        "f6=ipv6:::1",
        "none=null:",
        &format!("file=@{file}"),
        "stdin=@-",
        "=9",
        ":10",
    ];
    let did = run_with_input(SEND, &[&[&*agent.endpoint], &words[..]].concat(), b"piped");
    let expected = "\
        set-var req.ip = ipv4 192.0.2.1\n\
        set-var req.ip6 = ipv6 2001:db8::1\n\
        set-var req.n = int64 -5\n\
        set-var req.b = bool true\n\
        set-var req.s = str /x?y=z\n\
        set-var req.empty = str \n\
        set-var req.fs = str 5\n\
        set-var req.fb = bin \\x00\\xff\n\
        set-var req.i32 = int32 -1\n\
        set-var req.u32 = uint32 1\n\
        set-var req.i64 = int64 2\n\
        set-var req.u64 = uint64 18446744073709551615\n\
        set-var req.fbool = bool false\n\
        set-var req.f4 = ipv4 1.2.3.4\n\
        set-var req.f6 = ipv6 ::1\n\
        set-var req.none = null\n\
        set-var req.file = bin \\x00\\xffx\n\
        set-var req.stdin = bin piped\n\
        set-var req.arg12 = int64 9\n\
        set-var req.arg13 = int64 10\n\
        set-var txn.asked = str guessed forced\n";
    did.assert(0, expected, "");
}

#[test]
fn messages_in_the_order_given() {
    let agent = Running::on_tcp(mirror(AgentConfig::new()));
    let asked = |words: &[&str], order: &str| {
        let did = send(&agent.endpoint, words);
        let last = did.stdout.lines().last().unwrap_or_default();
        assert_eq!(last, format!("set-var txn.asked = str {order}"), "{did:?}");
    };
    asked(&["-m", "b", "x=1", "--dialect", "old", "-m", "a", "-m", "b"], "b a b");
    asked(&["--message", "a", "--message", "b", "x=1", "-m", "c"], "a b c");
}

#[test]
fn json_for_machines() {
    let agent = Running::on_tcp(mirror(AgentConfig::new()));
    let words = ["--json", "--prefix", "p", "-m", "m", "s=x", "b=bin:00ff", "ip=::1", "n=7"];
    let did = send(&agent.endpoint, &words);
    assert_eq!((did.exit, &*did.stderr), (0, ""));
    let json = did.json();
    let set = |name: &str, kind: &str, value: serde_json::Value| {
        let variable = format!("req.p.{name}");
        json!({"op": "set-var", "scope": "req", "name": name, "variable": variable, "type": kind,
               "value": value})
    };
    let actions = json["answers"][0]["actions"].as_array().unwrap();
    assert_eq!(
        actions[..4],
        [
            set("s", "str", "x".into()),
            set("b", "bin", json!({"hex": "00ff"})),
            set("ip", "ipv6", "::1".into()),
            set("n", "int64", 7.into()),
        ]
    );
    assert_eq!(json["negotiated"]["in_use"], json!(["pipelining"]));
    assert!(json["elapsed_us"]["median"].is_u64());
    assert_eq!((&json["exit"], &json["error"]), (&0.into(), &json!(null)));

    let did = send(&closed_port(), &["--json", "-m", "m"]);
    assert_eq!((did.exit, &*did.stderr), (2, ""));
    let json = did.json();
    assert_eq!((&json["exit"], &json["reason"]), (&2.into(), &"unreachable".into()));
}

#[test]
fn the_same_question_again() {
    let count = AtomicU32::new(0);
    let agent = Agent::inline(move |_: Notify<'_>, ack: &mut spop_blocking::Ack<'_>| {
        // The fourth is another one.
        let other = count.fetch_add(1, Ordering::Relaxed) == 3;
        ack.set(Scope::Transaction, "ok", !other)?;
        Ok::<(), HandlerError>(())
    });
    let agent = Running::on_tcp(agent);
    let answers = "set-var txn.ok = bool true\n# answered 3 times\n\
                   set-var txn.ok = bool false\n# answered 1 time\n\
                   set-var txn.ok = bool true\n# answered 6 times\n";
    send(&agent.endpoint, &["--repeat", "10", "-m", "m"]).assert(0, answers, "");
}

#[test]
fn more_about_it() {
    let agent = Running::on_tcp(scoring());
    let words = ["-v", "-m", "check-client-ip", "ip=192.0.2.1", "id=x"];
    send(&agent.endpoint, &words).assert(
        0,
        "set-var txn.ip_score = int32 10\n",
        "# SPOP 2.0, max-frame-size 16380, \"pipelining\"\n\
         # 31 bytes: check-client-ip(ip=ipv4:192.0.2.1, id=str:x)\n\
         # 1 answered in T ms, median T ms, most T ms\n",
    );
}

/// HAProxy up to 3.0 cuts it, from 3.1 on it does not ask.
#[test]
fn a_payload_larger_than_a_frame() {
    let folder = Folder::new();
    let body = format!("body=@{}", folder.file("body", &[b'x'; 40_000]));
    let question = ["-m", "m", &body];
    let agent = Running::on_tcp(mirror(AgentConfig::new()));
    let old = [&["--dialect", "old"][..], &question].concat();
    let answer = "set-var req.body = uint64 40000\nset-var txn.asked = str m\n";
    send(&agent.endpoint, &old).assert(0, answer, "");
    send(&agent.endpoint, &question).assert(
        7,
        "",
        "spop-send: AGENT: not asked: the payload has 40012 bytes, and a frame has 16380 with its \
         header. HAProxy from 3.1 on does not ask then: error 3 (the payload does not fit a frame). \
         Up to 3.0 it sends fragments: --dialect old\n",
    );
    let whole = Running::on_tcp(mirror(AgentConfig::new().fragmentation(false)));
    send(&whole.endpoint, &old).assert(
        7,
        "",
        "spop-send: AGENT: not asked: the payload has 40012 bytes, a frame has 16380 with its \
         header, and the agent takes no fragments (status 10)\n",
    );
    let large = [&["--max-frame-size", "65532"][..], &question].concat();
    send(&agent.endpoint, &large).assert(0, answer, "");
}

#[test]
fn no_answer_in_time() {
    let hello = agent_hello("2.0");
    for dialect in ["old", "new"] {
        let silent = peer(Script::Say(hello.clone()));
        let words = ["--timeout", "0.2", "--dialect", dialect, "-m", "m"];
        send(&silent, &words).assert(5, "", "spop-send: AGENT: no answer in time\n");
    }
}

#[test]
fn an_agent_that_leaves_instead() {
    let hello = agent_hello("2.0");
    for dialect in ["old", "new"] {
        let words = ["--timeout", "5", "--dialect", dialect, "-m", "m"];
        let goodbye = agent_disconnect(99, "out of memory");
        send(&peer(Script::SayTwice(hello.clone(), goodbye)), &words).assert(
            6,
            "",
            "spop-send: AGENT: no answer: the agent disconnected with status 99 (an unknown error \
             occurred): \"out of memory\"\n",
        );
        send(&peer(Script::SayTwiceAndClose(hello.clone(), Vec::new())), &words).assert(
            6,
            "",
            "spop-send: AGENT: no answer: the agent closed the connection without a word\n",
        );
    }
}

#[test]
fn an_agent_that_breaks_the_protocol() {
    let hello = agent_hello("2.0");
    // set-var with two arguments.
    let bad = frame(FrameType::ACK, (0, 1), &[1, 2]);
    let words = ["--dialect", "old", "-m", "m"];
    send(&peer(Script::SayTwice(hello.clone(), bad)), &words).assert(
        6,
        "",
        "spop-send: AGENT: the agent broke the protocol: its ACK is not actions from end to end: \
         action \
         with 2 arguments instead of 3 at byte 1\n",
    );
    // An ACK for another stream.
    let other = frame(FrameType::ACK, (77, 1), &[]);
    let words = ["--dialect", "new", "--timeout", "60", "-m", "m"];
    send(&peer(Script::SayTwice(hello, other)), &words).assert(
        6,
        "",
        "spop-send: AGENT: the agent broke the protocol: ACK for stream 77, frame 1: nothing waits \
         for it\n",
    );
}

#[test]
fn no_agent_to_ask() {
    let words = ["-m", "m"];
    send(&closed_port(), &words).assert(
        2,
        "",
        "spop-send: AGENT: connection refused: nothing listens there. Is the agent running?\n",
    );
    let http = peer(Script::Say(b"HTTP/1.0 400 Bad request\r\n\r\n".to_vec()));
    send(&http, &words).assert(
        3,
        "",
        "spop-send: AGENT: answers with HTTP (\"HTTP/1.0 400 Bad request\"), not SPOP. Is this a \
         port of HAProxy itself, or of a web server?\n",
    );
    let refusing = peer(Script::Say(agent_disconnect(13, "")));
    send(&refusing, &words).assert(
        4,
        "",
        "spop-send: AGENT: refused with status 13 (resource allocation error)\n",
    );
}
