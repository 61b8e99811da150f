//! `spop-load` against the agents that `bench/run` measures, and against one that is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use spop_blocking::{Agent, Scope};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails where it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of the agents that are measured, and where it listens.
fn agent(kind: &str) -> (Running, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bench-agent"))
        .args([kind, "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut endpoint = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
    (Running(child), endpoint.trim().to_owned())
}

/// Whether the load found everything right, and what it printed.
fn load(endpoint: &str, words: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_spop-load"))
        .args([endpoint, "--expect", "ip_score", "--timeout", "10", "--json"])
        .args(words)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[track_caller]
fn assert_answered(endpoint: &str, words: &[&str], answers: u32) {
    let (flawless, text) = load(endpoint, words);
    assert!(flawless, "{words:?}: {text}");
    assert!(text.contains(&format!("\"answers\":{answers},")), "{words:?}: {text}");
}

fn assert_all_profiles(kind: &str) {
    let (_running, endpoint) = agent(kind);
    let shapes: [&[&str]; 6] = [
        &["-c", "1", "-i", "1"],
        &["-c", "3", "-i", "16", "-p", "900", "--threads", "2"],
        &["-c", "2", "-a", "20", "--churn", "7"],
        &["-c", "2", "-b", "8000", "--rate", "100000"],
        &["-c", "2", "--dialect", "old", "--churn", "7"],
        &["-c", "2", "--dialect", "old", "-b", "65536"],
    ];
    for shape in shapes {
        assert_answered(&endpoint, &[&["--count", "300"], shape].concat(), 300);
    }
}

#[test]
fn minimal_agent() {
    assert_all_profiles("minimal");
}

#[test]
fn tokio_agent() {
    assert_all_profiles("tokio");
    assert_all_profiles("tokio-current-thread");
}

#[test]
fn async_std_agent() {
    assert_all_profiles("async-std");
}

#[test]
fn blocking_agent() {
    assert_all_profiles("blocking");
}

/// What an agent gets wrong is found.
#[test]
fn a_wrong_answer_is_noticed() {
    // Once in a while another address's score.
    let agent = Agent::inline(|notify, ack| {
        let ip: std::net::Ipv4Addr = notify.require("check-client-ip")?.get("ip")?;
        let [.., last] = ip.octets();
        ack.set(Scope::Transaction, "ip_score", if last == 100 { 99 } else { i32::from(last) })?;
        Ok(())
    });
    let server = agent.bind("127.0.0.1:0").unwrap();
    let (endpoint, stop) = (server.local_addr().to_string(), server.stop_handle());
    let serving = std::thread::spawn(move || server.run().unwrap());
    assert_answered(&endpoint, &["--count", "100"], 100);
    let (flawless, text) = load(&endpoint, &["--count", "240"]);
    stop.stop();
    serving.join().unwrap();
    assert!(!flawless && text.contains("\"wrong\":1,"), "{text}");
}

/// Nobody there: no wait, and a word on it.
#[test]
fn no_agent_is_an_error() {
    let (running, endpoint) = agent("minimal");
    drop(running);
    let (flawless, text) = load(&endpoint, &["--count", "1"]);
    assert!(!flawless && text.contains("spop-load: "), "{text}");
}
