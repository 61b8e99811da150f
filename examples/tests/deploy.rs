//! What `deploy/` holds is right: systemd takes the units and finds them tight, HAProxy takes its
//! configuration and gets an answer to every request while one of two agents is away, and systemd is
//! told what it is promised.
//!
//! ```text
//! cargo test -p spop-examples --test deploy [NAME]
//! ```
//!
//! Without systemd-analyze (Debian: package `systemd`) or HAProxy the trials that need them are reported as
//! ignored, by name; with `CI=true` that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: a panic is its way to fail"
)]

#[path = "haproxy.rs"]
mod haproxy;
#[path = "shared/programs.rs"]
mod programs;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Trial};

use crate::haproxy::{Client, DEADLINE, Directory, Process, Program, Request, Setup};

const SERVICE: &str = include_str!("../deploy/spop-agent.service");
const SOCKET: &str = include_str!("../deploy/spop-agent.socket");
const HAPROXY_CFG: &str = include_str!("../deploy/haproxy.cfg");
const SPOE_CONF: &str = include_str!("../ip-reputation/spoe.conf");
const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ip-reputation/reputation.list");
const AGENT: &str = env!("CARGO_BIN_EXE_ip-reputation");

const RUNTIMES: [(&str, &[&str]); 4] = [
    ("tokio", &["--runtime", "tokio"]),
    ("async-std", &["--runtime", "async-std"]),
    ("blocking", &["--runtime", "blocking"]),
    ("blocking-workers", &["--runtime", "blocking", "--workers", "2"]),
];

/// The programs that the image is built of and started with are there.
fn the_container_has_its_programs() {
    const FILE: &str = include_str!("../deploy/Containerfile");
    let programs = [AGENT, env!("CARGO_BIN_EXE_spop-check")]
        .map(|path| Path::new(path).file_name().unwrap().to_str().unwrap());
    let built: Vec<_> =
        FILE.split("--bin ").skip(1).map(|rest| rest.split_whitespace().next().unwrap()).collect();
    assert_eq!(built, programs);
    for program in programs {
        assert!(FILE.contains(&format!(" target/release/{program} ")), "{program} is copied");
        assert!(FILE.contains(&format!("[\"/{program}\"")), "{program} is started");
    }
}

/// What is done with each HAProxy.
type Case = (&'static str, fn(&Program));

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        always("units::stop_after_the_drain", stop_after_the_drain),
        always("units::an_agent_that_cannot_start_is_tried_again", tried_again),
        always("units::try_says_what_it_lacks", try_says_what_it_lacks),
        always("container::programs", the_container_has_its_programs),
    ];
    let systemd = Command::new("systemd-analyze").arg("--version").output();
    let missing = systemd.err().map(|error| format!("systemd-analyze (package systemd): {error}"));
    let with_systemd: [(&str, fn()); 3] = [
        ("units::systemd_takes_them", systemd_takes_them),
        ("units::what_is_wrong_is_found", what_is_wrong_is_found),
        ("units::exposure", exposure),
    ];
    trials.extend(with_systemd.map(|(name, run)| needs(missing.as_deref(), name, run)));

    for (name, runtime) in RUNTIMES {
        trials.push(always(&format!("told::{name}"), move || systemd_is_told(runtime)));
        trials.push(always(&format!("socket_mode::{name}"), move || socket_mode(runtime)));
    }

    let with_haproxy: [Case; 2] =
        [("configuration", configuration), ("one_of_two_leaves", one_of_two_leaves)];
    for (name, run) in with_haproxy {
        match programs::find_all() {
            Ok(programs) => trials.extend(programs.into_iter().map(|program| {
                always(&format!("{}::{name}", program.version), move || run(&program))
            })),
            Err(error) => trials.push(programs::not_found(&error, name)),
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn always(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    needs(None, name, run)
}

/// Ignored where something is missing, failed where CI has promised it.
fn needs(missing: Option<&str>, name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    let missing = missing.map(str::to_owned);
    Trial::ignorable_test(name, move || match missing {
        Some(reason) => programs::absent(reason),
        None => {
            run();
            Ok(Completion::Completed)
        }
    })
}

/// Both units under both names that README gives them, `change`d, with a program that is there.
fn systemd_analyze(words: &[&str], units: &[&str], change: fn(&str) -> String) -> Output {
    let directory = Directory::new().unwrap();
    for name in ["spop-agent", "spop-agent@"] {
        let service = change(&SERVICE.replace("/usr/local/bin/ip-reputation", AGENT));
        fs::write(directory.path().join(format!("{name}.service")), service).unwrap();
        fs::write(directory.path().join(format!("{name}.socket")), SOCKET).unwrap();
    }
    let mut command = Command::new("systemd-analyze");
    command.args(words).current_dir(directory.path()).env("SYSTEMD_LOG_COLOR", "0");
    command.args(units.iter().map(|unit| format!("./{unit}"))).output().unwrap()
}

const VERIFY: [&str; 2] = ["verify", "--man=no"];

fn systemd_takes_them() {
    for units in [
        ["spop-agent.service", "spop-agent.socket"],
        ["spop-agent@1.service", "spop-agent@1.socket"],
    ] {
        let output = systemd_analyze(&VERIFY, &units, str::to_owned);
        let said = String::from_utf8_lossy(&output.stderr);
        // It warns about what it ignores, and that is no error to it.
        assert!(output.status.success() && said.is_empty(), "{units:?}: {said}");
    }
}

/// Or the silence above would mean nothing.
fn what_is_wrong_is_found() {
    let output = systemd_analyze(&VERIFY, &["spop-agent.service"], |service| {
        service.replace("ProtectSystem=strict", "ProtectSystm=strict")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("ProtectSystm"), "{said}");
    let output = systemd_analyze(&VERIFY, &["spop-agent.service"], |service| {
        service.replace(AGENT, "/nowhere/agent")
    });
    assert!(!output.status.success());
}

/// At most 1.0 of 10, in tenths on the command line.
fn exposure() {
    let words = ["security", "--offline=true", "--no-pager", "--threshold=10"];
    let output = systemd_analyze(&words, &["spop-agent.service"], str::to_owned);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("Overall exposure level"), "{said}");
    // What guards against a threshold that nothing could exceed.
    let output = systemd_analyze(&words, &["spop-agent.service"], |service| {
        service.lines().filter(|line| !line.starts_with("Private")).collect::<Vec<_>>().join("\n")
    });
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// systemd kills no agent that still sends answers.
fn stop_after_the_drain() {
    let limit = SERVICE.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let limit: u64 = limit.unwrap().strip_suffix('s').unwrap().parse().unwrap();
    // The example's lame duck, and the default of `Limits::drain_timeout`: its documentation is checked.
    let documented = include_str!("../../spop-proto/src/limits.rs");
    assert!(documented.contains("[`drain_timeout`](Self::drain_timeout) | 30 s |"));
    assert!(include_str!("../ip-reputation/runtime.rs").contains("Duration::from_secs(3)"));
    assert!(limit > 3 + 30, "{limit} s");
}

/// systemd's own limit is five failed starts in 10 s, and takes the socket down with the service.
fn tried_again() {
    let (unit, service) = SERVICE.split_once("[Service]").unwrap();
    assert!(unit.contains("\nStartLimitIntervalSec=0\n") && service.contains("\nRestart=always\n"));
}

/// Whoever runs it: without root, without systemd or without the unit it cannot.
fn try_says_what_it_lacks() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/try");
    let mut command = Command::new(script);
    let output = command.args(["spop-no-such-unit", env!("CARGO_BIN_EXE_spop-check")]).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("try: "), "{said}");
}

/// An agent, with what systemd or the operator gives it.
fn agent(socket: &Path, runtime: &[&str], notify: Option<&Path>) -> Process {
    let mut command = Command::new(AGENT);
    command.arg("--listen").arg(format!("unix:{}", socket.display())).args(["--list", LIST]);
    command.args(runtime).env_remove("NOTIFY_SOCKET");
    command.envs(notify.map(|path| ("NOTIFY_SOCKET", path)));
    Process::start("ip-reputation", &mut command).unwrap()
}

fn systemd_is_told(runtime: &[&str]) {
    let directory = Directory::new().unwrap();
    let (socket, notify) = (directory.path().join("agent"), directory.path().join("notify"));
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(DEADLINE)).unwrap();
    let told = || {
        let mut datagram = [0; 256];
        let length = systemd.recv(&mut datagram).unwrap();
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    };

    let mut agent = agent(&socket, runtime, Some(&notify));
    assert_eq!(told(), "READY=1\n");
    assert!(UnixStream::connect(&socket).is_ok(), "ready means that it listens");

    let mut before = 0;
    for _ in 0..2 {
        agent.signal("HUP").unwrap();
        let reloading = told();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").map(str::trim_end);
        let time: u64 = time.unwrap_or_else(|| panic!("{reloading:?}")).parse().unwrap();
        assert!(time > before, "{time} after {before}");
        before = time;
        assert_eq!(told(), "READY=1\n");
    }

    agent.signal("TERM").unwrap();
    assert_eq!(told(), "STOPPING=1\n");
    assert_eq!(agent.wait().unwrap().code(), Some(0));
    systemd.set_nonblocking(true).unwrap();
    assert_eq!(systemd.recv(&mut [0; 256]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// A HAProxy of another user connects if the mode says so, once the agent is ready.
fn socket_mode(runtime: &[&str]) {
    let directory = Directory::new().unwrap();
    for (word, mode) in [("660", 0o660), ("777", 0o777)] {
        let (socket, notify) = (directory.path().join(word), directory.path().join("notify"));
        let systemd = UnixDatagram::bind(&notify).unwrap();
        systemd.set_read_timeout(Some(DEADLINE)).unwrap();
        let runtime = [runtime, &["--socket-mode", word]].concat();
        let _agent = agent(&socket, &runtime, Some(&notify));
        assert!(systemd.recv(&mut [0; 256]).is_ok(), "it is ready");
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o7777, mode);
        fs::remove_file(notify).unwrap();
    }
}

fn configuration(program: &Program) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/haproxy.cfg");
    assert_eq!(program.warnings(&file).unwrap(), "");
}

/// While clients ask without a pause, one of the two agents is told to stop, ends, and is started again: no
/// request fails. Up to 3.0 a few may, those that HAProxy sends on a connection just as the agent
/// says goodbye on it: what each client has under way, and its next one.
fn one_of_two_leaves(program: &Program) {
    const CLIENTS: usize = 4;
    let sockets = Directory::new().unwrap();
    let socket = |number: u32| sockets.path().join(format!("spop-agent@{number}.sock"));
    let web = haproxy::free_port().unwrap();
    let here = format!("unix@{}/", sockets.path().display());
    let config = HAPROXY_CFG.replace("unix@/run/", &here).replace("127.0.0.1:8080", "\"${WEB}\"");
    let config = config.replace("../ip-reputation/spoe.conf", "spoe.conf");
    // A machine that is busy with other tests is no agent that is late.
    let spoe = SPOE_CONF.replace("processing    100ms", "processing    2s");
    assert_ne!(spoe, SPOE_CONF);
    let (mut first, _second) = (agent(&socket(1), &[], None), agent(&socket(2), &[], None));
    let site = Setup::new(config).file("spoe.conf", spoe).set("WEB", web).start(program).unwrap();
    for server in ["agent1", "agent2"] {
        site.wait_for_server("agents", server, "UP").unwrap();
    }

    let mut again = None;
    let over = AtomicBool::new(false);
    let ask = || -> io::Result<Vec<String>> {
        let (mut client, mut answers) = (Client::connect(web)?, Vec::new());
        while !over.load(Ordering::Relaxed) {
            let answer = client.send(&Request::get("/"))?;
            answers.push(format!("{} {}", answer.status, answer.text().trim()));
            if answer.header("connection").is_some() {
                client = Client::connect(web)?;
            }
            // A rate, not a wait: HAProxy, two agents and the clients share the processors.
            thread::sleep(Duration::from_millis(1));
        }
        Ok(answers)
    };
    let answers = thread::scope(|scope| {
        let clients = [(); CLIENTS].map(|()| scope.spawn(ask));
        let left = (|| {
            first.signal("TERM")?;
            site.wait_for_server("agents", "agent1", "DOWN")?;
            assert_eq!(first.wait()?.code(), Some(0));
            again = Some(agent(&socket(1), &[], None));
            site.wait_for_server("agents", "agent1", "UP")
        })();
        over.store(true, Ordering::Relaxed);
        let answers = clients.map(|client| client.join().unwrap().unwrap());
        left.unwrap();
        answers.concat()
    });
    drop(again);
    let lost: Vec<_> = answers.iter().filter(|answer| *answer != "200 score 10").collect();
    let may = if program.version.has_spop_multiplexer() { 0 } else { 2 * CLIENTS };
    assert!(lost.len() <= may, "{} of {}: {lost:?}", lost.len(), answers.len());
    assert!(answers.len() > 100, "{} answers", answers.len());
}
