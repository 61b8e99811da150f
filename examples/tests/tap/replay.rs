//! What `spop-tap` wrote, sent again by `spop-send --replay`.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use spop_blocking::{Ack, Agent, HandlerError, Notify, Scope};

use crate::{Client, Tap, directory};

/// An agent that notes the tokens it is asked about, in their order, and gives this score to `two`.
fn noting(score: i32) -> (String, Arc<Mutex<Vec<String>>>) {
    let noted: Arc<Mutex<Vec<String>>> = Arc::default();
    let notes = Arc::clone(&noted);
    let agent = Agent::inline(move |notify: Notify<'_>, ack: &mut Ack<'_>| {
        if let Some(message) = notify.message("check-client-ip") {
            let token: String = message.get("token")?;
            ack.set(Scope::Transaction, "ip_score", if token == "two" { score } else { 1 })?;
            notes.lock().unwrap().push(token);
        }
        Ok::<(), HandlerError>(())
    });
    let server = agent.bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().to_string();
    thread::spawn(move || server.run().unwrap());
    (address, noted)
}

fn replay(file: &str, against: &str, and: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spop-send"))
        .args(["--replay", file, "--against", against, "--and", and, "--timeout", "60"])
        .output()
        .unwrap()
}

/// Connections of several clients that were open at the same time: their questions in the order in which
/// they passed, to both agents.
#[test]
fn a_capture_of_the_tap() {
    let folder = directory("tap-replay");
    let file = folder.join("tap.pcapng").display().to_string();
    let (lax, first) = noting(20);
    let (strict, second) = noting(95);
    let tap = Tap::start("127.0.0.1:0", &lax, &["--write", &file]);
    let mut clients: Vec<_> = (0..2).map(|_| Client::greet(tap.connect())).collect();
    let asked = [(0, "one"), (1, "two"), (1, "three"), (0, "four")];
    for (client, token) in asked {
        clients[client].ask(token);
    }
    clients.into_iter().for_each(Client::leave);
    assert_eq!(tap.stop().1, Some(0));
    let tokens = asked.map(|(_, token)| token);
    assert_eq!(*first.lock().unwrap(), tokens);

    let output = replay(&file, &lax, &strict);
    let expected = format!(
        "--- {lax}\n+++ {strict}\n\
         @@ NOTIFY 2, connection 2, stream 1, frame 1: \
         check-client-ip(ip=ipv4:127.0.0.1, token=str:two)\n\
         -set-var txn.ip_score = int32 20\n\
         +set-var txn.ip_score = int32 95\n\
         4 NOTIFYs: 3 answered alike, 1 differently, 0 by neither\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(8));
    assert_eq!(first.lock().unwrap()[4..], tokens);
    assert_eq!(*second.lock().unwrap(), tokens);
}

/// What HAProxy 2.6 sent, fragments among it: as a capture of the network and as bytes it asks the same.
#[test]
fn a_capture_asks_what_its_bytes_ask() {
    let file = directory("tap-replay-bytes").join("tap.pcapng").display().to_string();
    let raw = captured("2.6.12_frag-body_c1.from-haproxy.bin");
    let (agent, noted) = noting_by(messages);
    let tap = Tap::start("127.0.0.1:0", &agent, &["--write", &file]);
    pass(&tap, &raw);
    assert_eq!(tap.stop().1, Some(0));
    let passed = std::mem::take(&mut *noted.lock().unwrap());
    assert_eq!(passed.len(), 2);
    // Its frames have 512 bytes.
    assert!(passed.iter().any(|asked| asked.len() > 512), "none was in fragments");

    let (other, _) = noting_by(messages);
    for file in [raw, file] {
        let output = replay(&file, &agent, &other);
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(stdout, "2 NOTIFYs: 2 answered alike, 0 differently, 0 by neither\n");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        assert_eq!(std::mem::take(&mut *noted.lock().unwrap()), passed, "{file}");
    }
}

/// Each engine-id is another one, and none that HAProxy has: an ACK by way of another connection would go
/// there.
#[test]
fn engines_are_others() {
    let file = directory("tap-replay-engines").join("tap.pcapng").display().to_string();
    let engine = |notify: &Notify<'_>| notify.engine_id().unwrap().escape_ascii().to_string();
    let (agent, noted) = noting_by(engine);
    let tap = Tap::start("127.0.0.1:0", &agent, &["--write", &file]);
    for number in [1, 2] {
        pass(&tap, &captured(&format!("2.6.12_two-engines_c{number}.from-haproxy.bin")));
    }
    assert_eq!(tap.stop().1, Some(0));
    let passed = std::mem::take(&mut *noted.lock().unwrap());
    let (other, _) = noting_by(engine);
    assert_eq!(replay(&file, &agent, &other).status.code(), Some(0));
    let noted = noted.lock().unwrap();
    for ids in [&passed, &*noted] {
        let [a, b, c, d] = ids.as_slice() else { panic!("{ids:?}") };
        assert!(a == b && c == d && a != c, "{ids:?}");
    }
    assert!(noted.iter().all(|id| !passed.contains(id)), "{noted:?}");
}

/// A file of the captures of spop-proto.
fn captured(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../spop-proto/tests/captures");
    PathBuf::from(folder).join(name).display().to_string()
}

/// Lets what HAProxy once sent pass the tap, to the agent and all it answers.
fn pass(tap: &Tap, file: &str) {
    let mut client = tap.connect();
    client.write_all(&fs::read(file).unwrap()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
}

/// An agent that sets nothing, and notes that of each NOTIFY.
fn noting_by(what: fn(&Notify<'_>) -> String) -> (String, Arc<Mutex<Vec<String>>>) {
    let noted: Arc<Mutex<Vec<String>>> = Arc::default();
    let notes = Arc::clone(&noted);
    let agent = Agent::inline(move |notify: Notify<'_>, _: &mut Ack<'_>| {
        notes.lock().unwrap().push(what(&notify));
        Ok::<(), HandlerError>(())
    });
    let server = agent.bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().to_string();
    thread::spawn(move || server.run().unwrap());
    (address, noted)
}

/// All that is asked.
fn messages(notify: &Notify<'_>) -> String {
    let mut asked = String::new();
    for message in notify.messages() {
        asked.push_str(&message.name().escape_ascii().to_string());
        for arg in message.args() {
            asked.push_str(&format!(" {}={}", arg.name.escape_ascii(), arg.value));
        }
    }
    asked
}
