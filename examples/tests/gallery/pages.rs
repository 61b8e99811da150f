//! What the pages and their agents say without a HAProxy.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use libtest_mimic::{Failed, Trial};

use crate::agents::{self, Agent, geoip::mmdb, jwt_auth::tests::SECRET};
use crate::haproxy::{Directory, Process};
use crate::site::shipped;

pub(crate) const PAGES: &[&str] =
    &["raw-loop", "jwt-auth", "geoip", "body-inspect", "mirror", "rate-limit"];

/// What an agent of the gallery cannot start without.
const NEEDED: &[(&str, &[&str])] = &[
    ("jwt-auth", &["--key", "KEY"]),
    ("geoip", &["--database", "DATABASE"]),
    ("mirror", &["--to", "127.0.0.1:9"]),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("pages::what_is_sent_is_what_is_taken", || shown(expected)),
        Trial::test("pages::what_can_be_used_is_checked", || shown(checked)),
        Trial::test("pages::completions", || shown(completions)),
        Trial::test("pages::all_listen_on_unix_sockets", || shown(unix_sockets)),
    ];
    for page in PAGES {
        trials.push(Trial::test(format!("pages::transcript_of_{page}"), move || {
            Ok(transcript(page)?)
        }));
    }
    trials
}

fn shown(test: fn() -> std::io::Result<()>) -> Result<(), Failed> {
    Ok(test()?)
}

/// The arguments of all messages in a spoe.conf.
pub(crate) fn arguments(spoe_conf: &str) -> Vec<&str> {
    let lines = spoe_conf.lines().filter_map(|line| line.trim().strip_prefix("args "));
    lines.flat_map(str::split_whitespace).collect()
}

/// `TRYCMD=overwrite cargo test --test gallery pages` writes them anew.
fn transcript(page: &str) -> std::io::Result<()> {
    let directory = Directory::new()?;
    // Under the name that its usage is to tell.
    let program = directory.path().join(page);
    std::os::unix::fs::symlink(env::current_exe()?, &program)?;
    let cases = trycmd::TestCases::new();
    cases
        // What help is wrapped at where there is no terminal.
        .env("COLUMNS", "100")
        .env(agents::VARIABLE, page)
        .register_bin(page, program)
        .case(format!("tests/transcripts/gallery/{page}.trycmd"));
    // Now they run.
    drop(cases);
    Ok(())
}

/// spop-lint finds nothing in the files of a page and in what its agent says.
fn expected() -> std::io::Result<()> {
    for page in PAGES {
        let directory = Directory::new()?;
        let says = directory.path().join("agent.txt");
        let output = Agent::command(page)?.arg("--describe").output()?;
        assert_right(&output);
        fs::write(&says, output.stdout)?;
        let lint = |files: &OsStr| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_spop-lint"));
            let output = command.arg("--expect").arg(&says).arg(files).output()?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let found = lint(shipped(page, "haproxy.cfg").as_os_str())?;
        assert!(found.starts_with("nothing found: 1 SPOE"), "{page}: {found}");

        // And it would find something: but for what an agent can do without.
        let spoe = fs::read_to_string(shipped(page, "spoe.conf"))?;
        let sent = arguments(&spoe).first().copied().unwrap_or_default();
        let other = directory.path().join("spoe.conf");
        fs::write(other, spoe.replacen(&format!(" {sent}"), " other=bool(true)", 1))?;
        let haproxy = directory.path().join("haproxy.cfg");
        fs::copy(shipped(page, "haproxy.cfg"), &haproxy)?;
        let found = lint(haproxy.as_os_str())?;
        assert!(found.contains("L19") || *page == "jwt-auth", "{page}: {found}");
    }
    Ok(())
}

/// `--check` says what was found, or what is wrong, with the status that the help names.
fn checked() -> std::io::Result<()> {
    let directory = Directory::new()?;
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).map(|()| path.display().to_string())
    };
    let key = write("key", SECRET.as_bytes())?;
    let short = write("short", b"too short")?;
    let database = mmdb::write(&[("192.0.2.0/24", "FR", "EU")]);
    let countries = write("countries", &database)?;
    let cut = write("cut", database.get(..database.len() / 2).unwrap_or_default())?;
    let rules = write("rules", b"path /admin\nbody a\nbody b\n")?;
    let wrong = write("wrong", b"body (\n")?;
    let server = TcpListener::bind("127.0.0.1:0")?;
    let there = server.local_addr()?.to_string();
    let nobody = crate::haproxy::free_port()?.to_string();
    let found = |file: &str, what: &str| format!("{file}: {what}\n");
    for (page, options, status, says) in [
        ("jwt-auth", ["--key", &key], 0, found(&key, "a key for hs256")),
        ("jwt-auth", ["--key", &short], 1, found(&short, "9 bytes are no secret: HS256 wants 32")),
        ("geoip", ["--database", &countries], 0, found(&countries, "Test-Country, IPv6, ")),
        ("geoip", ["--database", &cut], 1, format!("geoip: --database {cut}: ")),
        (
            "body-inspect",
            ["--rules", &rules],
            0,
            found(&rules, "3 rules (path 1, query 0, headers 0, body 2)"),
        ),
        ("body-inspect", ["--rules", &wrong], 1, format!("body-inspect: {wrong}: line 1: ")),
        ("mirror", ["--to", &there], 0, found(&there, "takes connections")),
        ("mirror", ["--to", &nobody], 1, format!("mirror: --to {nobody}: ")),
        ("rate-limit", ["--limit", "5"], 0, "no --redis: ".to_owned()),
        ("rate-limit", ["--redis", "redis://"], 1, "rate-limit: --redis: ".to_owned()),
    ] {
        let output = Agent::command(page)?.arg("--check").args(options).output()?;
        let said = if status == 0 { &output.stdout } else { &output.stderr };
        let said = String::from_utf8_lossy(said);
        assert_eq!(output.status.code(), Some(status), "{page} {options:?}: {output:?}");
        assert!(said.contains(says.trim_end()), "{page} {options:?}: {said}");
    }
    Ok(())
}

fn completions() -> std::io::Result<()> {
    for page in PAGES {
        let output = Agent::command(page)?.args(["--completions", "bash"]).output()?;
        assert_right(&output);
        let script = String::from_utf8_lossy(&output.stdout);
        for word in [page, "--describe", "--print-haproxy-config", "--listen"] {
            assert!(script.contains(word), "{page}: {word}");
        }
    }
    Ok(())
}

/// A socket of a program that was killed is no obstacle, and that of one that has ended is gone.
fn unix_sockets() -> std::io::Result<()> {
    let directory = Directory::new()?;
    let file = |name: &str| directory.path().join(name).display().to_string();
    fs::write(file("KEY"), SECRET)?;
    fs::write(file("DATABASE"), mmdb::write(&[]))?;
    let mut agents = Vec::new();
    for page in PAGES {
        let path = file(page);
        drop(std::os::unix::net::UnixListener::bind(&path)?);
        let mut command = Agent::command(page)?;
        command.current_dir(directory.path()).arg("--listen").arg(format!("unix:{path}"));
        let needed =
            NEEDED.iter().find(|(name, _)| name == page).map_or(&[][..], |needed| needed.1);
        let agent = Process::start(page, command.args(needed))?;
        agent.log().wait_for(0, "agent listening")?;
        let mut check = Command::new(env!("CARGO_BIN_EXE_spop-check"));
        let output = check.arg(format!("unix:{path}")).output()?;
        assert_right(&output);
        agents.push((page, path, agent));
    }
    // All at once: each takes its time to leave.
    for (_, _, agent) in &mut agents {
        agent.signal("TERM")?;
    }
    for (page, path, mut agent) in agents {
        assert_eq!(agent.wait()?.code(), Some(0), "{page}");
        assert!(!fs::exists(&path)?, "{page}");
    }
    Ok(())
}

#[track_caller]
fn assert_right(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
