//! The gate: how many instructions an answer takes, counted by valgrind.
//!
//! ```text
//! cargo bench -p spop-proto --bench instructions             compares with instructions.txt
//! cargo bench -p spop-proto --bench instructions -- --record writes it anew
//! ```
//!
//! Each case runs in a process of its own, once for `ROUNDS` rounds and once for `MORE` times as
//! many: what the difference costs is free of the start and of the first rounds' allocations. It
//! fails where a case takes more than [`TOLERANCE`] over what is recorded, or more than its limit.
//! A limit that even the record exceeds is a goal: how far it is off is printed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "a measurement: it reads files, starts processes, and a panic is its way to fail"
)]

mod common;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use common::*;
use spop_proto::handler::{Concurrent, HandlerFn, Inline, ServiceFn};
use spop_proto::wire::{Frame, Messages};
use spop_proto::{AgentConfig, AgentConnection, Event, Router, Stats, answer_inline};

/// Rounds of the short run.
const ROUNDS: u64 = 200;
/// The long run is that many times as long.
const MORE: u64 = 11;
/// By how much a case may exceed its record: 3 %, in thousandths.
const TOLERANCE: u64 = 30;
/// Connections that take turns.
const CROWD: usize = 10_000;
/// What pacing may add to an answer while answers are small, in instructions.
const PACING: u64 = 10;

struct Case {
    name: &'static str,
    what: &'static str,
    /// Answers in a round: the count is for one of them.
    answers: u64,
    limit: Option<u64>,
    /// The function in which alone instructions are counted, where that is not everything.
    only: Option<&'static str>,
    run: fn(u64),
}

const CASES: &[Case] = &[
    Case {
        name: "inline",
        what: "NOTIFY of 3 arguments, ACK with 2 set-var: from receive to transmit",
        answers: 1,
        limit: Some(1_000),
        only: Some("*receive_to_transmit*"),
        run: inline,
    },
    Case {
        name: "round",
        what: "the same, until there is nothing to read and nothing to write",
        answers: 1,
        limit: None,
        only: None,
        run: |rounds| answers(&connected(OLD), 1, rounds),
    },
    Case {
        name: "round-new",
        what: "the same with HAProxy from 3.1 on: paced",
        answers: 1,
        limit: None,
        only: None,
        run: |rounds| answers(&connected(NEW), 1, rounds),
    },
    Case {
        name: "round-unpaced",
        what: "the same with HAProxy from 3.1 on, pacing off",
        answers: 1,
        limit: None,
        only: None,
        run: |rounds| answers(&(AgentConfig::new().pacing(None), NEW), 1, rounds),
    },
    Case {
        name: "round-20",
        what: "the same, 20 frames in a read",
        answers: WINDOW as u64,
        limit: None,
        only: None,
        run: |rounds| answers(&connected(OLD), WINDOW, rounds),
    },
    Case {
        name: "round-20-new",
        what: "the same, 20 frames in a read, HAProxy from 3.1 on",
        answers: WINDOW as u64,
        limit: None,
        only: None,
        run: |rounds| answers(&connected(NEW), WINDOW, rounds),
    },
    Case {
        name: "driver",
        what: "inline through a Driver, each a wake-up",
        answers: 1,
        limit: None,
        only: None,
        run: driver,
    },
    Case {
        name: "crowd",
        what: "the same, each time another one of 10 000 connections",
        answers: 1,
        limit: None,
        only: None,
        run: crowd,
    },
    Case {
        name: "router",
        what: "through a Driver and a Router whose one route sets nothing",
        answers: 1,
        limit: None,
        only: None,
        run: router,
    },
    Case {
        name: "suspend",
        what: "a future that suspends once, 20 in flight",
        answers: WINDOW as u64,
        limit: Some(2_600),
        only: None,
        run: suspend,
    },
    Case {
        name: "defer",
        what: "answered by ticket, 20 in flight",
        answers: WINDOW as u64,
        limit: None,
        only: None,
        run: defer,
    },
    Case {
        name: "decode",
        what: "split the frame, check it, look at its 3 arguments",
        answers: 1,
        limit: Some(350),
        only: None,
        run: |rounds| {
            let input = notify(1, &arguments(3));
            for _ in 0..rounds {
                assert_eq!(decode(black_box(&input)), 3);
            }
        },
    },
    Case {
        name: "check",
        what: "split the frame and check it: all that is decoded before a handler runs",
        answers: 1,
        limit: Some(350),
        only: None,
        run: |rounds| {
            let input = notify(1, &arguments(3));
            for _ in 0..rounds {
                let (frame, _) = Frame::split(black_box(&input)).unwrap().unwrap();
                black_box(Messages::check(frame.payload).unwrap());
            }
        },
    },
    Case {
        name: "split",
        what: "inline, a NOTIFY of 900 bytes in two reads",
        answers: 1,
        limit: None,
        only: None,
        run: split,
    },
    Case {
        name: "fragments",
        what: "inline, a payload of 64 KiB in fragments",
        answers: 1,
        limit: None,
        only: None,
        run: |rounds| reassembly(64 << 10, rounds),
    },
    Case {
        name: "fragments-1m",
        what: "inline, 64 KiB of a payload of 1 MiB in fragments",
        answers: 16,
        limit: None,
        only: None,
        run: |rounds| reassembly(1 << 20, rounds),
    },
];

fn connected(capabilities: &'static [u8]) -> (AgentConfig, &'static [u8]) {
    (AgentConfig::new(), capabilities)
}

fn answers((config, capabilities): &(AgentConfig, &[u8]), frames: usize, rounds: u64) {
    let now = Instant::now();
    let mut conn = connection(config.clone(), capabilities, now);
    let input = notifies(frames, &arguments(3));
    for _ in 0..rounds {
        assert_ne!(one(&mut conn, &input, now), 0);
    }
}

fn inline(rounds: u64) {
    let now = Instant::now();
    let mut conn = connection(AgentConfig::new(), OLD, now);
    let input = notify(1, &arguments(3));
    for _ in 0..rounds {
        let mut left = black_box(&input[..]);
        assert_ne!(receive_to_transmit(&mut conn, &mut left, now), 0);
        take(&mut conn);
        assert!(matches!(conn.receive(&mut left, now), Ok(None)));
    }
}

/// How much there is to write.
#[inline(never)]
fn receive_to_transmit(conn: &mut AgentConnection, input: &mut &[u8], now: Instant) -> usize {
    if let Ok(Some(Event::Notify(notify, ack))) = conn.receive(input, now) {
        let _ = answer_inline(notify, ack, answer);
    }
    conn.transmit().len()
}

/// A function of its own, as in a program that knows nothing of what will come.
#[inline(never)]
fn one(conn: &mut AgentConnection, input: &[u8], now: Instant) -> usize {
    round(conn, input, now, answer)
}

/// As adapters do it.
fn counted() -> AgentConfig {
    AgentConfig::new().count_in(Stats::new("bench"))
}

fn router(rounds: u64) {
    let now = Instant::now();
    // Not `answer`: what is called twice in a program is compiled in another way, and this is one.
    let router = Router::new().on("check-client-ip", |_, _| Ok(()));
    let mut turn = driven(&router, connection(counted(), OLD, now), now);
    let input = notify(1, &arguments(3));
    for _ in 0..rounds {
        assert_ne!(turn(&input), 0);
    }
}

fn driver(rounds: u64) {
    let now = Instant::now();
    let dispatch = Inline::new(ServiceFn::new(answer));
    let mut turn = driven(&dispatch, connection(counted(), OLD, now), now);
    let input = notify(1, &arguments(3));
    for _ in 0..rounds {
        assert_ne!(turn(black_box(&input)), 0);
    }
}

fn crowd(rounds: u64) {
    let now = Instant::now();
    let dispatch = Inline::new(ServiceFn::new(answer));
    let config = counted();
    let mut turns: Vec<_> =
        (0..CROWD).map(|_| driven(&dispatch, connection(config.clone(), OLD, now), now)).collect();
    let input = notify(1, &arguments(3));
    // Each has its buffer then.
    turns.iter_mut().for_each(|turn| assert_ne!(turn(&input), 0));
    for round in 0..rounds {
        let turn = &mut turns[usize::try_from(round).unwrap() % CROWD];
        assert_ne!(turn(black_box(&input)), 0);
    }
}

fn suspend(rounds: u64) {
    let now = Instant::now();
    let dispatch = Concurrent::new(HandlerFn::new(answer_later));
    let mut turn = driven(&dispatch, connection(counted(), OLD, now), now);
    let input = notifies(WINDOW, &arguments(3));
    for _ in 0..rounds {
        assert_ne!(turn(black_box(&input)), 0);
    }
}

fn defer(rounds: u64) {
    let now = Instant::now();
    let mut conn = connection(AgentConfig::new(), OLD, now);
    let mut tickets = Vec::with_capacity(WINDOW);
    let input = notifies(WINDOW, &arguments(3));
    for _ in 0..rounds {
        assert_ne!(deferred_round(&mut conn, black_box(&input), &mut tickets, now), 0);
    }
}

fn split(rounds: u64) {
    let now = Instant::now();
    let mut conn = connection(AgentConfig::new(), OLD, now);
    let input = notify(1, &sized(900));
    let (first, second) = input.split_at(500);
    for _ in 0..rounds {
        read(&mut conn, black_box(first), now, answer);
        assert_ne!(round(&mut conn, black_box(second), now, answer), 0);
    }
}

fn reassembly(bytes: usize, rounds: u64) {
    let now = Instant::now();
    // The default limit is 1 MiB, and takes the largest of them.
    let mut conn = connection(AgentConfig::new(), OLD, now);
    let input = fragments(&sized(bytes));
    for _ in 0..rounds {
        assert_ne!(round(&mut conn, black_box(&input), now, answer), 0);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run", name, rounds] => {
            let case = CASES.iter().find(|case| case.name == *name).expect("a case's name");
            (case.run)(rounds.parse().expect("a number of rounds"));
            ExitCode::SUCCESS
        }
        // As `cargo test` calls it, unlike `cargo bench`: do they run at all?
        words if !words.contains(&"--bench") => {
            CASES.iter().for_each(|case| (case.run)(2));
            ExitCode::SUCCESS
        }
        words => gate(words.contains(&"--record")),
    }
}

/// Counts everything and compares.
fn gate(record: bool) -> ExitCode {
    if cfg!(debug_assertions) || cfg!(target_feature = "avx2") {
        eprintln!("counts are for an optimised build, without target-cpu in RUSTFLAGS");
        return ExitCode::FAILURE;
    }
    let counts: Vec<u64> = CASES.iter().map(count).collect();
    if record {
        fs::write(record_path(), recorded_text(&counts)).expect("the record can be written");
    }
    let text = fs::read_to_string(record_path()).expect("a record: make one with --record");
    let toolchain = toolchain();
    let mut failures = Vec::new();
    println!("{:15} {:>9} {:>9} {:>9}", "instructions", "now", "record", "limit");
    for (case, &now) in CASES.iter().zip(&counts) {
        let recorded = recorded(&text, case.name);
        let (verdict, failed) = verdict(now, recorded, case.limit);
        let limit = case.limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        let old = recorded.map_or_else(|| "-".to_owned(), |old| old.to_string());
        println!("{:15} {now:9} {old:>9} {limit:>9}  {verdict}", case.name);
        if failed {
            failures.push(format!("{}: {now} instructions, {verdict}", case.name));
        }
    }
    let of = |name| counts[CASES.iter().position(|case| case.name == name).expect("a case")];
    let pacing = of("round-new").abs_diff(of("round-unpaced"));
    println!("pacing of small answers: {pacing} instructions, limit {PACING}");
    if pacing > PACING {
        failures.push(format!("pacing of small answers takes {pacing} instructions"));
    }
    let crowd = of("driver").abs_diff(of("crowd")) * 1000 / of("driver");
    println!("10 000 connections and one differ by {crowd} ‰, limit {TOLERANCE}");
    if crowd > TOLERANCE {
        failures.push(format!("an answer's cost depends on the number of connections: {crowd} ‰"));
    }
    // Less the answer, which each payload costs once: 16 pieces of the large one share it.
    let small = of("fragments") - of("round");
    let large = of("fragments-1m") - of("round") / 16;
    let linear = small.abs_diff(large) * 1000 / small;
    println!("64 KiB of a large payload and a small one differ by {linear} ‰, limit {TOLERANCE}");
    if linear > TOLERANCE {
        failures.push(format!("reassembly is not linear: {linear} ‰"));
    }
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    let made_with = text.lines().next().unwrap_or_default();
    eprintln!("\n{}\nthe record: {made_with}\nthis run:   # {toolchain}", failures.join("\n"));
    ExitCode::FAILURE
}

/// What is to be said of a count, and whether that is a failure.
fn verdict(now: u64, recorded: Option<u64>, limit: Option<u64>) -> (String, bool) {
    let Some(recorded) = recorded else { return ("not recorded".to_owned(), true) };
    // A goal that the record does not reach yet cannot be lost.
    if let Some(limit) = limit.filter(|limit| recorded <= *limit && now > *limit) {
        return (format!("over the limit by {}", now - limit), true);
    }
    if now * 1000 > recorded * (1000 + TOLERANCE) {
        return ("more than 3 % over the record".to_owned(), true);
    }
    if now * (1000 + TOLERANCE) < recorded * 1000 {
        return ("more than 3 % under the record: record it".to_owned(), false);
    }
    match limit {
        Some(limit) if now > limit => (format!("over the goal by {}", now - limit), false),
        _ => ("ok".to_owned(), false),
    }
}

/// Instructions for one answer.
fn count(case: &Case) -> u64 {
    let few = instructions(case, ROUNDS);
    let many = instructions(case, ROUNDS * MORE);
    (many - few) / (ROUNDS * (MORE - 1) * case.answers)
}

/// Instructions of a whole process, or of all calls of one function.
fn instructions(case: &Case, rounds: u64) -> u64 {
    let name = case.name;
    let out =
        env::temp_dir().join(format!("spop-callgrind-{}-{name}-{rounds}", std::process::id()));
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .args(case.only.map(|function| format!("--toggle-collect={function}")))
        .arg(env::current_exe().expect("the path of this program"))
        .args(["run", name, &rounds.to_string()])
        .output()
        .expect("valgrind starts: it has to be installed");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let counted = total(&out);
    let _ = fs::remove_file(&out);
    counted
}

fn total(out: &Path) -> u64 {
    let text = fs::read_to_string(out).expect("callgrind writes its file");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).expect("a line with totals")
}

fn record_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

fn recorded(text: &str, name: &str) -> Option<u64> {
    let count = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    count.split_whitespace().next()?.parse().ok()
}

fn recorded_text(counts: &[u64]) -> String {
    let mut text = format!("# {}\n", toolchain());
    text.push_str("# cargo bench -p spop-proto --bench instructions -- --record\n");
    for (case, count) in CASES.iter().zip(counts) {
        let _ = writeln!(text, "{} {count} # {}", case.name, case.what);
    }
    text
}

/// What counts depend on besides the code.
fn toolchain() -> String {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.unwrap_or_else(|_| format!("{program} unknown"))
    };
    format!("{}, {}, {}", env::consts::ARCH, version("rustc"), version("valgrind"))
}
