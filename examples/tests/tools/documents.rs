//! The transcripts in the pages of the tools: each command is run, and prints what the page shows.

use std::fmt::Write as _;
use std::process::Command;

use crate::other_end::{Running, Script, closed_port, described, peer, scoring, scoring_as};
use crate::replay::{capture, network};
use crate::run::{CHECK, Folder, SEND, finish, run, without_times};

const CHECK_PAGE: &str = include_str!("../../spop-check/README.md");
const SEND_PAGE: &str = include_str!("../../spop-send/README.md");

/// Runs the commands of all ```` ```console ```` blocks, with what `stands_for` says in place of
/// addresses and files. A line `? N` below a command is its exit status, where that is not 0.
fn assert_transcripts(page: &str, stands_for: &[(&str, &str)]) -> usize {
    let mut commands = 0;
    let blocks = page.split("```console\n").skip(1);
    for block in blocks.map(|block| block.split("```").next().unwrap()) {
        let mut shown = String::new();
        for command in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let mut words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
            let program = match words.remove(0).as_str() {
                "spop-check" => CHECK,
                "spop-send" => SEND,
                other => panic!("{other} is none of these tools"),
            };
            for word in &mut words {
                if let Some((_, with)) = stands_for.iter().find(|(name, _)| name == word) {
                    (*with).clone_into(word);
                }
            }
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let mut did = run(program, &words);
            for (name, with) in stands_for {
                did = did.with(with, name);
            }
            writeln!(shown, "$ {command}").unwrap();
            if did.exit != 0 {
                writeln!(shown, "? {}", did.exit).unwrap();
            }
            shown.push_str(&did.stdout);
            shown.push_str(&did.stderr);
            commands += 1;
        }
        assert_eq!(without_times(block), shown);
    }
    commands
}

#[test]
fn the_page_of_spop_check() {
    let agent = Running::on_tcp(scoring());
    let leaving = Running::on_tcp(scoring());
    let takes = Running::on_tcp(described());
    leaving.health.set(spop_proto::HealthState::LameDuck);
    let http = peer(Script::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
    let commands = assert_transcripts(
        CHECK_PAGE,
        &[
            ("127.0.0.1:12345", &agent.endpoint),
            ("127.0.0.1:12346", &leaving.endpoint),
            ("127.0.0.1:12347", &takes.endpoint),
            ("127.0.0.1:80", &http),
            ("127.0.0.1:12399", &closed_port()),
        ],
    );
    assert!(commands >= 4, "{commands} commands");
}

#[test]
fn the_page_of_spop_send() {
    let folder = Folder::new();
    let file = folder
        .file("tap.1.haproxy", &capture(&[[192, 0, 2, 1], [203, 0, 113, 66], [198, 51, 100, 7]]));
    let (agent, next) = (Running::on_tcp(scoring()), Running::on_tcp(scoring_as(20)));
    let commands = assert_transcripts(
        SEND_PAGE,
        &[
            ("127.0.0.1:12345", &agent.endpoint),
            ("127.0.0.1:12346", &next.endpoint),
            ("127.0.0.1:12399", &closed_port()),
            ("tap.1.haproxy", &file),
            ("tcpdump.pcap", &network("haproxy-3.2.pcap")),
        ],
    );
    assert!(commands >= 4, "{commands} commands");
}

/// Every tool prints completions, for every shell, that know its options.
#[test]
fn completions() {
    for program in [
        CHECK,
        SEND,
        env!("CARGO_BIN_EXE_ip-reputation"),
        env!("CARGO_BIN_EXE_spop-explain"),
        env!("CARGO_BIN_EXE_spop-lint"),
        env!("CARGO_BIN_EXE_spop-load"),
        env!("CARGO_BIN_EXE_spop-soak"),
        env!("CARGO_BIN_EXE_spop-dump"),
        env!("CARGO_BIN_EXE_spop-tap"),
    ] {
        let name = program.rsplit('/').next().unwrap();
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let did = finish(Command::new(program).args(["--completions", shell]), b"");
            assert_eq!((did.exit, &*did.stderr), (0, ""), "{name} {shell}");
            assert!(did.stdout.contains(name) && did.stdout.contains("version"), "{name} {shell}");
        }
    }
}
