//! `haproxy-in-ci.rs`, the file for others to copy, works; and two recipes work behind a real HAProxy, which
//! it starts.
//!
//! Without HAProxy the trials are reported as ignored, by name; with `CI=true` that is a failure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::exhaustive_structs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::duplicate_mod, reason = "two recipes use the same helper")]

#[path = "../recipes/correlate.rs"]
#[allow(dead_code, unused_imports, reason = "its main and its tests are run elsewhere")]
mod correlate;
mod haproxy;
#[path = "../haproxy-in-ci.rs"]
mod in_ci;
#[path = "shared/programs.rs"]
mod programs;
#[path = "../recipes/tls.rs"]
#[allow(dead_code, unused_imports, reason = "its main and its tests are run elsewhere")]
mod tls;

use std::future::Future;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

use libtest_mimic::{Arguments, Trial};
use spop_tokio::{Agent, Router};
use tokio::net::TcpListener;

use crate::in_ci::Site;

const AGENT: &str = "
spoe-agent agent
    option var-prefix agent
    option set-on-error error
    timeout hello 10s
    timeout idle 2m
    timeout processing 10s
    use-backend agents
";

/// Makes this program say what it finds.
const FIND: &str = "find";

/// What is done with each HAProxy.
type Case = (&'static str, fn(&Path));

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(FIND) {
        println!("{:?}", in_ci::find().map_err(|error| error.to_string()));
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let programs = programs::find_all();
    let mut trials = vec![Trial::test("the_program_is_found", || {
        the_program_is_found();
        Ok(())
    })];
    let cases: [Case; 4] = [
        ("variables_are_read", variables_are_read),
        ("a_wrong_configuration_is_explained", a_wrong_configuration_is_explained),
        ("correlate", a_response_meets_its_request),
        ("tls", mutual_tls),
    ];
    for (name, case) in cases {
        match &programs {
            Ok(programs) => trials.extend(programs.iter().map(|program| {
                let (name, path) = (format!("{}::{name}", program.version), program.path.clone());
                Trial::test(name, move || {
                    case(&path);
                    Ok(())
                })
            })),
            Err(error) => trials.push(programs::not_found(error, name)),
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn the_program_is_found() {
    let find = |named: &str, path: &Path| {
        let mut command = Command::new(env::current_exe().unwrap());
        let output = command.arg(FIND).env("HAPROXY", named).env("PATH", path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (folder, empty) = (haproxy::Directory::new().unwrap(), haproxy::Directory::new().unwrap());
    fs::write(folder.path().join("haproxy"), "").unwrap();
    assert_eq!(find("/opt/haproxy", folder.path()), "Ok(\"/opt/haproxy\")\n");
    let on_path = format!("Ok({:?})\n", folder.path().join("haproxy"));
    assert_eq!(find("", folder.path()), on_path);
    assert!(find("", empty.path()).starts_with("Err(\"no haproxy on the PATH"));
}

/// Runs `test` with the address of an agent.
fn with_agent(router: Router, test: impl FnOnce(String)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Agent::new(router).bind("127.0.0.1:0")).unwrap();
    let address = server.local_addr().to_string();
    runtime.spawn(server.run());
    test(address);
}

fn variables_are_read(program: &Path) {
    let router = Router::new().on("ask", |message, ack| {
        let long = message.get::<&str>("path")?.len();
        ack.set(spop_tokio::Scope::Transaction, "length", i32::try_from(long)?)?;
        Ok(())
    });
    let spoe = format!(
        "[agent]{AGENT}    messages ask\nspoe-message ask\n    args path=path\n    event on-frontend-http-request\n"
    );
    with_agent(router, |agent| {
        let site = Site::new(agent, "agent", &spoe)
            .variable("txn.agent.length")
            .variable("txn.agent.error");
        let site = site.rule("http-request deny if { var(txn.agent.length) -m int gt 5 }");
        let haproxy = site.start(program).unwrap();
        let response = haproxy.get("/abc").unwrap();
        assert_eq!((response.status, response.variable("txn.agent.length")), (200, Some("4")));
        assert_eq!(response.variable("txn.agent.error"), None);
        let response = haproxy.get("/abcdef").unwrap();
        assert_eq!((response.status, response.variable("txn.agent.length")), (403, Some("7")));
        let logged = || Ok(haproxy.log().contains("GET /abcdef").then_some(()));
        haproxy::wait_until("the log's line", logged).unwrap();

        let web = haproxy.web;
        drop(haproxy);
        assert!(std::net::TcpStream::connect(web).is_err(), "it is stopped");
    });
}

fn a_wrong_configuration_is_explained(program: &Path) {
    let site = Site::new("127.0.0.1:1", "agent", "[agent]\nspoe-agnt agent\n");
    let error = site.start(program).unwrap_err().to_string();
    assert!(error.contains("HAProxy ended at once") && error.contains("spoe-agnt"), "{error}");
}

/// The recipe `correlate`: what only request and response together say.
fn a_response_meets_its_request(program: &Path) {
    let spoe = format!(
        "[agent]{AGENT}    messages request response
spoe-message request
    args id=unique-id path=path
    event on-frontend-http-request
spoe-message response
    args id=unique-id status=status
    event on-http-response
"
    );
    with_agent(correlate::router(correlate::requests()), |agent| {
        let site = Site::new(agent, "agent", &spoe).variable("txn.agent.failed_login");
        let haproxy = site.start(program).unwrap();
        for _ in 0..2 {
            let response = haproxy.get("/login").unwrap();
            assert_eq!(response.variable("txn.agent.failed_login"), Some("0"), "{}", haproxy.log());
        }
    });
}

/// The recipe `tls`: HAProxy shows its certificate and looks at the agent's. Without one of its own it gets no
/// answer, nor with an agent of another name.
fn mutual_tls(program: &Path) {
    let folder = haproxy::Directory::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let authority = tls::certificates::authority();
    let [certificate, key] = tls::certificates::issue(&authority, "agent.example");
    let ours = tls::certificates::issue(&authority, "haproxy.example").concat();
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("agent.pem", certificate),
        ("agent.key", key),
        ("haproxy.pem", ours),
    ] {
        fs::write(path(name), text).unwrap();
    }
    let spoe = format!(
        "[agent]{AGENT}    messages check-client-ip\nspoe-message check-client-ip\n    args ip=src\n    event on-frontend-http-request\n"
    );
    let config = tls::configuration(&path("agent.pem"), &path("agent.key"), &path("ca.pem"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let agent = listener.local_addr().unwrap();
    runtime.spawn(tls::serve(listener, config.unwrap(), never()));

    let verify = format!("ssl verify required ca-file {}", path("ca.pem").display());
    let shows = format!("crt {}", path("haproxy.pem").display());
    for (server, score) in [
        (format!("{verify} verifyhost agent.example {shows}"), Some("0")),
        (format!("{verify} verifyhost agent.example"), None),
        (format!("{verify} verifyhost other.example {shows}"), None),
    ] {
        // Nobody waits long for an answer that must not come.
        let patience = if score.is_some() { "processing 10s" } else { "processing 300ms" };
        let spoe = spoe.replace("processing 10s", patience);
        let site = Site::new(agent, "agent", &spoe).server(&server).variable("txn.agent.ip_score");
        let haproxy = site.variable("txn.agent.error").start(program).unwrap();
        let response = haproxy.get("/").unwrap();
        assert_eq!(response.variable("txn.agent.ip_score"), score, "{server}\n{}", haproxy.log());
        assert_eq!(response.variable("txn.agent.error").is_some(), score.is_none(), "{server}");
    }
}

fn never() -> impl Future<Output = ()> {
    std::future::pending()
}
