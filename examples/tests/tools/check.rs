//! `spop-check`.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;
use std::{fs, path::Path};

use socket2::{Domain, SockAddr, Socket, Type};
use spop_proto::{AgentConfig, HealthState, Limits};

use crate::other_end::{
    DESCRIPTION, Running, Script, agent_disconnect, agent_hello, agent_hello_that_says,
    closed_port, described, mirror, peer, scoring,
};
use crate::run::{CHECK, Did, Folder, finish, run};

const CLOSED: &str = "took the connection and closed it without a word. Has the agent as many \
                      connections as it serves, or does something in between expect another protocol?";

/// Checks what listens there, which is called AGENT in what is printed.
fn check(endpoint: &str, words: &[&str]) -> Did {
    run(CHECK, &[&[endpoint], words].concat()).with(endpoint, "AGENT")
}

#[test]
fn a_healthy_agent() {
    let agent = Running::on_tcp(scoring());
    let healthy = "healthy: AGENT\n  \
        HAProxy <= 3.0: SPOP 2.0, max-frame-size 16380, pipelining, fragmentation (T ms)\n  \
        HAProxy >= 3.1: SPOP 2.0, max-frame-size 16380, pipelining (T ms)\n";
    check(&agent.endpoint, &[]).assert(0, healthy, "");
    let new = "healthy: AGENT\n  \
        HAProxy >= 3.1: SPOP 2.0, max-frame-size 256, pipelining (T ms)\n";
    check(&agent.endpoint, &["--dialect", "new", "--max-frame-size", "256"]).assert(0, new, "");
    let option = "healthy: AGENT\n  \
        HAProxy <= 3.0: option spop-check passes, SPOP 2.0 (T ms)\n  \
        HAProxy >= 3.1: option spop-check passes, SPOP 2.0 (T ms)\n";
    check(&agent.endpoint, &["--healthcheck"]).assert(0, option, "");
    for words in [&["--quiet"][..], &["-q", "--healthcheck"], &["-q", "--json"]] {
        check(&agent.endpoint, words).assert(0, "", "");
    }
}

/// What it takes goes to standard output, and to a file as it is.
#[test]
fn an_agent_that_says_what_it_takes() {
    let agent = Running::on_tcp(described());
    check(&agent.endpoint, &["--describe"]).assert(0, DESCRIPTION, "");
    let did = check(&agent.endpoint, &["--describe", "--json"]);
    let expected = serde_json::json!({
        "check": "describe",
        "description": DESCRIPTION,
        "endpoint": "AGENT",
        "exit": 0,
        "reason": null,
        "text": null,
    });
    assert_eq!((did.exit, did.json()), (0, expected));
}

#[test]
fn agents_that_do_not_say_what_they_take() {
    const WHY: &str = "it has no `Router` of this library and no `AgentConfig::description`, or its \
                       description does not fit the frame of";
    let said = |exit: i32, agent: &str, text: &str| {
        let did = check(agent, &["--describe"]);
        did.assert(exit, "", &format!("spop-check: AGENT: {text}\n"));
    };
    let closure = Running::on_tcp(scoring());
    let nothing =
        |size| format!("healthy, and does not say what it takes: {WHY} {size} bytes agreed on");
    said(5, &closure.endpoint, &nothing(1 << 20));
    // One that does not know the question.
    said(5, &peer(Script::Say(agent_hello("2.0"))), &nothing(1000));
    // One whose answer is too large.
    let small = AgentConfig::new().max_frame_size(256).unwrap();
    let takes = DESCRIPTION.parse().unwrap();
    let long = Running::on_tcp(scoring().config(small.description(Some(&takes))));
    said(5, &long.endpoint, &nothing(256));
    let text = peer(Script::Say(agent_hello_that_says(b"\x1b[2J")));
    let wrong = "what it says it takes is no description: there is a \\u{1b} in it";
    said(5, &text, wrong);
    let did = check(&text, &["--describe", "--json"]);
    assert_eq!((did.exit, did.json()["reason"].as_str()), (5, Some("wrong-description")));
    closure.health.set(HealthState::LameDuck);
    let leaving = "refused with status 99 (an unknown error occurred): \"the agent takes no new requests\"; HAProxy shows \"an unknown error occurred\"";
    said(4, &closure.endpoint, leaving);
    said(2, &closed_port(), "connection refused: nothing listens there. Is the agent running?");
}

#[test]
fn an_agent_on_a_unix_socket() {
    let folder = Folder::new();
    let agent = Running::start(scoring(), &folder.endpoint("agent.sock"));
    let healthy = "healthy: AGENT\n  \
        HAProxy <= 3.0: SPOP 2.0, max-frame-size 16380, pipelining, fragmentation (T ms)\n";
    check(&agent.endpoint, &["--dialect", "old"]).assert(0, healthy, "");
}

#[test]
fn an_agent_that_says_less() {
    let agent = peer(Script::Say(agent_hello("2.0")));
    let healthy = "healthy: AGENT\n  \
        HAProxy <= 3.0: SPOP 2.0, max-frame-size 1000, no pipelining: one request at a time (T ms)\n";
    check(&agent, &["--dialect", "old"]).assert(0, healthy, "");
}

/// What the other tests see is not a terminal.
#[test]
fn colours_where_they_are_wanted() {
    let forced =
        |endpoint: &str| finish(Command::new(CHECK).arg(endpoint).env("CLICOLOR_FORCE", "1"), b"");
    let agent = Running::on_tcp(scoring());
    assert!(forced(&agent.endpoint).stdout.starts_with("\u{1b}[1m\u{1b}[32mhealthy\u{1b}[0m: "));
    let did = forced(&closed_port());
    assert!(did.stderr.starts_with("\u{1b}[1m\u{1b}[31munhealthy\u{1b}[0m: "), "{did:?}");
}

#[test]
fn json_for_machines() {
    let agent = Running::on_tcp(scoring());
    let did = check(&agent.endpoint, &["--json"]);
    assert_eq!((did.exit, &*did.stderr), (0, ""));
    let mut json = did.json();
    for handshake in json["handshakes"].as_array_mut().unwrap() {
        let time = handshake.as_object_mut().unwrap().remove("elapsed_us");
        assert!(time.unwrap().as_u64().unwrap() < 60_000_000);
    }
    let handshake = |dialect: &str, in_use: &[&str]| {
        serde_json::json!({
            "dialect": dialect,
            "healthy": true,
            "version": "2.0",
            "max_frame_size": 16380,
            "announced": ["pipelining", "fragmentation"],
            "in_use": in_use,
        })
    };
    let expected = serde_json::json!({
        "endpoint": "AGENT",
        "healthy": true,
        "exit": 0,
        "check": "hello",
        "handshakes": [
            handshake("old", &["pipelining", "fragmentation"]),
            handshake("new", &["pipelining"]),
        ],
    });
    assert_eq!(json, expected);

    let refusing = peer(Script::Say(agent_disconnect(8, "only 3.0")));
    let did = check(&refusing, &["--json", "--dialect", "new"]);
    assert_eq!((did.exit, &*did.stderr), (4, ""));
    let json = did.json();
    assert_eq!((&json["healthy"], &json["exit"]), (&false.into(), &4.into()));
    let handshake = &json["handshakes"][0];
    assert_eq!((&handshake["reason"], &handshake["status"]), (&"refused".into(), &8.into()));
}

/// An agent that is about to leave answers requests and fails health checks.
#[test]
fn an_agent_that_is_about_to_leave() {
    let agent = Running::on_tcp(scoring());
    agent.health.set(HealthState::LameDuck);
    assert_eq!(check(&agent.endpoint, &["--quiet"]).exit, 0);
    let refused = "refused with status 99 (an unknown error occurred): \
        \"the agent takes no new requests\"; HAProxy shows";
    let unhealthy = format!(
        "unhealthy: AGENT\n  HAProxy <= 3.0: {refused} \"an unknown error occurred\"\n  \
         HAProxy >= 3.1: {refused} \"version value not found\"\n"
    );
    check(&agent.endpoint, &["--healthcheck"]).assert(4, "", &unhealthy);
    agent.health.set(HealthState::Ready);
    check(&agent.endpoint, &["--healthcheck", "--quiet"]).assert(0, "", "");
}

#[test]
fn nobody_there() {
    let refused =
        "unhealthy: AGENT: connection refused: nothing listens there. Is the agent running?\n";
    check(&closed_port(), &[]).assert(2, "", refused);
    // Quiet is about health.
    check(&closed_port(), &["--quiet"]).assert(2, "", refused);
}

#[test]
fn unix_sockets_that_cannot_be_connected_to() {
    let folder = Folder::new();
    let of = |name: &str| check(&folder.endpoint(name), &[]);
    of("nothing").assert(
        2,
        "",
        "unhealthy: AGENT: no such socket. Is the agent running, and is this its path?\n",
    );
    folder.file("file", b"");
    of("file").assert(2, "", "unhealthy: AGENT: that file is no socket\n");
    // Its file stays.
    drop(UnixListener::bind(folder.path("left")).unwrap());
    of("left").assert(
        2,
        "",
        "unhealthy: AGENT: connection refused: the socket is there and nobody listens on it. \
         Is the agent running?\n",
    );
}

/// Nobody accepts, and as many connections wait as may.
#[test]
fn a_listener_that_does_not_accept() {
    let folder = Folder::new();
    let on_unix = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    on_unix.bind(&SockAddr::unix(folder.path("full")).unwrap()).unwrap();
    on_unix.listen(0).unwrap();
    let waiting = UnixStream::connect(folder.path("full")).unwrap();
    check(&folder.endpoint("full"), &["--timeout", "0.2"]).assert(
        2,
        "",
        "unhealthy: AGENT: the agent takes no connections: as many wait as may. Does it hang?\n",
    );
    drop((waiting, on_unix));

    let on_tcp = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    on_tcp.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    on_tcp.listen(0).unwrap();
    let address = on_tcp.local_addr().unwrap().as_socket().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let waiting: Vec<_> = std::iter::from_fn(connect).take(10).collect();
    assert!(waiting.len() < 10, "the backlog has an end");
    check(&address.to_string(), &["--timeout", "0.2"]).assert(
        2,
        "",
        "unhealthy: AGENT: no connection within 200ms: the host does not answer. Is a firewall in \
         between?\n",
    );
}

#[test]
fn a_unix_socket_of_somebody_else() {
    const NOBODY: u32 = 65_534;
    let folder = Folder::new();
    let agent = Running::start(scoring(), &folder.endpoint("agent.sock"));
    let path = folder.path("agent.sock");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let owner = fs::metadata(&path).map(|file| (owner(&file), group(&file))).unwrap();
    let did = if owner.0 == 0 {
        // To the superuser nothing is denied, so somebody else tries, with a program that may be run.
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755));
        let program = folder.path("spop-check");
        fs::copy(CHECK, &program).unwrap();
        open(&program).unwrap();
        open(program.parent().unwrap()).unwrap();
        finish(Command::new(program).arg(&agent.endpoint).uid(NOBODY).current_dir("/"), b"")
    } else {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        run(CHECK, &[&agent.endpoint])
    };
    let (mode, user) = match owner.0 {
        0 => ("srw-------", NOBODY),
        user => ("s---------", user),
    };
    let expected = format!(
        "unhealthy: AGENT: permission denied: the socket is {mode} of user {}, group {}, and this \
         is user {user}\n",
        owner.0, owner.1
    );
    did.with(&agent.endpoint, "AGENT").assert(2, "", &expected);
}

fn owner(file: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::uid(file)
}

fn group(file: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::gid(file)
}

#[test]
fn other_protocols() {
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
    check(&peer(Script::Say(http)), &[]).assert(
        3,
        "",
        "unhealthy: AGENT: answers with HTTP (\"HTTP/1.1 400 Bad Request\"), not SPOP. Is this a \
         port of HAProxy itself, or of a web server?\n",
    );
    let alert = vec![0x15, 3, 3, 0, 2, 2, 70];
    let tls = "unhealthy: AGENT: answers with TLS, not SPOP. An agent behind TLS is asked through a \
               proxy that ends it\n";
    check(&peer(Script::Say(alert.clone())), &[]).assert(3, "", tls);
    check(&peer(Script::Say(alert)), &["--healthcheck"]).assert(3, "", tls);
    let redis = b"-ERR unknown command\r\n".to_vec();
    check(&peer(Script::Say(redis)), &["--dialect", "new"]).assert(
        3,
        "",
        "unhealthy: AGENT: answers with text (\"-ERR unknown command\"), not SPOP\n",
    );
}

#[test]
fn silence() {
    let silent = "unhealthy: AGENT: took the connection and said nothing for 200ms. Does the agent \
                  hang, or is it another kind of server?\n";
    for words in [&[][..], &["--healthcheck"], &["--dialect", "new"]] {
        let words = [&["--timeout", "0.2"], words].concat();
        check(&peer(Script::Say(Vec::new())), &words).assert(3, "", silent);
    }
    // An agent with as many connections as it serves.
    let limits = Limits::new().connections(1.try_into().unwrap());
    let agent = Running::on_tcp(mirror(AgentConfig::new().limits(limits)));
    let held = TcpStream::connect(&agent.endpoint).unwrap();
    let did = check(&agent.endpoint, &["--timeout", "5", "--dialect", "new"]);
    drop(held);
    did.assert(3, "", &format!("unhealthy: AGENT\n  HAProxy >= 3.1: {CLOSED}\n"));
    // Begun and not finished.
    let half = agent_hello("2.0")[..10].to_vec();
    check(&peer(Script::Say(half)), &["--timeout", "0.2"]).assert(
        3,
        "",
        "unhealthy: AGENT: sent 10 bytes in 200ms, which are no whole frame\n",
    );
}

#[test]
fn a_connection_that_is_closed_at_once() {
    let both =
        format!("unhealthy: AGENT\n  HAProxy <= 3.0: {CLOSED}\n  HAProxy >= 3.1: {CLOSED}\n");
    check(&peer(Script::Close), &[]).assert(3, "", &both);
    check(&peer(Script::Close), &["--healthcheck"]).assert(3, "", &both);
}

#[test]
fn an_agent_that_refuses() {
    let refused = "refused with status 8 (unsupported version): \"only 3.0\"";
    let both =
        format!("unhealthy: AGENT\n  HAProxy <= 3.0: {refused}\n  HAProxy >= 3.1: {refused}\n");
    check(&peer(Script::Say(agent_disconnect(8, "only 3.0"))), &[]).assert(4, "", &both);
    // A status of the agent's own, and no message.
    let own = "unhealthy: AGENT\n  HAProxy >= 3.1: refused with status 500\n";
    check(&peer(Script::Say(agent_disconnect(500, ""))), &["--dialect", "new"]).assert(4, "", own);
}

#[test]
fn a_handshake_that_haproxy_does_not_take() {
    let wrong = "no handshake: version `1.0` is not supported: this side speaks 2.0";
    let both = format!("unhealthy: AGENT\n  HAProxy <= 3.0: {wrong}\n  HAProxy >= 3.1: {wrong}\n");
    check(&peer(Script::Say(agent_hello("1.0"))), &[]).assert(3, "", &both);
    let judged = "unhealthy: AGENT\n  HAProxy <= 3.0: no handshake: unsupported version\n  \
                  HAProxy >= 3.1: no handshake: unsupported version\n";
    check(&peer(Script::Say(agent_hello("1.0"))), &["--healthcheck"]).assert(3, "", judged);
}
