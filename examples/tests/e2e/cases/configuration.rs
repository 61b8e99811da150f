//! The configurations people start from, as they are shipped beside the example.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::{Client, Haproxy, Request, Response, Setup, wait_until};

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case::new("example_denies_above_80", example_denies_above_80),
    Case::new("example_fails_closed_without_agent", example_fails_closed_without_agent),
    Case::new("readme_configuration", readme_configuration),
    Case::new("dotnet_configuration", dotnet_configuration),
];

pub(super) const WITHOUT_AGENT: &[Case] = &[
    Case::new("shipped_files_are_accepted", shipped_files_are_accepted),
    Case::new("printed_files_are_accepted", printed_files_are_accepted),
];

/// Its own configuration, and that of HAProxy's agent library for .NET.
const EXAMPLE: &str = "ip-reputation";
const DOTNET: &str = "ip-reputation/dotnet";

fn shipped(folder: &str, file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), folder, file].iter().collect()
}

/// A frontend of HAProxy that runs a shipped configuration.
struct Running {
    web: SocketAddr,
    _haproxy: Haproxy,
}

impl Running {
    /// Starts HAProxy with the configuration in `folder`, changed only where a test has to.
    fn start(bench: &Bench, folder: &str, agent: SocketAddr) -> Result<Self, Failure> {
        let mut config = fs::read_to_string(shipped(folder, "haproxy.cfg"))?;
        let mut spoe = fs::read_to_string(shipped(folder, "spoe.conf"))?;
        let web = port()?;
        // Clients say with the PROXY protocol which address they have.
        replace(&mut config, "bind 127.0.0.1:8080", &format!("bind {web} accept-proxy"))?;
        replace(&mut config, "agent1 127.0.0.1:12345", &format!("agent1 {agent}"))?;
        if folder == EXAMPLE {
            // Right for a user, too short for a machine that runs all these cases at once.
            replace(&mut spoe, "100ms", "5s")?;
        }
        let setup = Setup::new(config).file("spoe.conf", spoe);
        Ok(Self { web, _haproxy: bench.haproxy(&setup)? })
    }

    fn get(&self, client: &str) -> Result<Response, Failure> {
        Ok(Client::connect_as(self.web, client.parse()?)?.send(&Request::get("/"))?)
    }
}

/// A change that did not find its place would leave a case that tests something else than it says.
#[track_caller]
fn replace(text: &mut String, old: &str, new: &str) -> Result<(), Failure> {
    equal(&format!("occurrences of {old:?}"), text.matches(old).count(), 1)?;
    *text = text.replace(old, new);
    Ok(())
}

/// As they are in the repository, and in the place where they are.
fn shipped_files_are_accepted(bench: &Bench) -> Result<(), Failure> {
    for folder in [EXAMPLE, DOTNET] {
        bench.program().check(&shipped(folder, "haproxy.cfg"))?;
    }
    Ok(())
}

/// What the agent says about itself is a configuration, without a warning: for any HAProxy, and for that
/// very version.
fn printed_files_are_accepted(bench: &Bench) -> Result<(), Failure> {
    let version = bench.program().version.to_string();
    let version = version.split(['.', '-']).take(2).collect::<Vec<_>>().join(".");
    for (folder, of) in [("any", &[][..]), ("own", &["--haproxy", &version])] {
        let folder = bench.path(folder);
        fs::create_dir(&folder)?;
        let output = Command::new(env!("CARGO_BIN_EXE_ip-reputation"))
            .arg(format!("--print-haproxy-config={}", folder.display()))
            .args(of)
            .output()?;
        ensure(output.status.success(), || format!("{output:?}"))?;
        let said = bench.program().warnings(&folder.join("haproxy.cfg"))?;
        equal("warnings of HAProxy", said.as_str(), "")?;
        let spoe = fs::read_to_string(folder.join("spoe.conf"))?;
        ensure(spoe.contains("args  ip=src  path=path  id=unique-id"), || spoe.clone())?;
    }
    Ok(())
}

/// The example's rule turns away what scores above 80.
fn example_denies_above_80(bench: &Bench) -> Result<(), Failure> {
    let list = "192.0.2.80/32 80\n192.0.2.81/32 81\n192.0.2.100/32 100\n2001:db8::/32 95\n";
    let address = port()?;
    let _agent = bench.agent(address, &bench.write("list", list)?)?;
    let site = Running::start(bench, EXAMPLE, address)?;
    let expected = [
        ("192.0.2.80", 200),
        ("192.0.2.81", 403),
        ("192.0.2.100", 403),
        ("192.0.2.1", 200),
        ("2001:db8::1", 403),
    ];
    for (client, status) in expected {
        equal(&format!("status for {client}"), site.get(client)?.status, status)?;
    }
    Ok(())
}

/// The example's rules let nothing pass without a verdict; they do again once there is one.
fn example_fails_closed_without_agent(bench: &Bench) -> Result<(), Failure> {
    const CLIENT: &str = "192.0.2.1";
    let address = port()?;
    let site = Running::start(bench, EXAMPLE, address)?;
    let answer = site.get(CLIENT)?;
    equal("status without an agent", answer.status, 503)?;
    // By the rule, and not because HAProxy found no server.
    ensure(answer.text().starts_with("no verdict, error "), || format!("{answer:?}"))?;

    let _agent = bench.agent(address, &bench.write("list", "")?)?;
    // HAProxy has to notice, by a health check every second.
    let passes = wait_until("a request to pass with an agent", || {
        let status =
            site.get(CLIENT).map_err(|failure| io::Error::other(failure.to_string()))?.status;
        Ok((status == 200).then_some(()))
    });
    Ok(passes?)
}

/// README's two files work as they are printed.
fn readme_configuration(bench: &Bench) -> Result<(), Failure> {
    let readme = fs::read_to_string(shipped("..", "README.md"))?;
    let block = |file: &str| {
        let start = format!("```haproxy\n# {file}\n");
        let text = readme.split_once(&start).and_then(|(_, rest)| rest.split_once("```"));
        let text = text.map(|(text, _)| text.to_owned());
        text.ok_or_else(|| io::Error::other(format!("README has no {file}")))
    };
    let (mut config, spoe) = (block("haproxy.cfg")?, block("spoe.conf")?);
    let (web, agent) = (port()?, port()?);
    replace(&mut config, "bind 127.0.0.1:8080", &format!("bind {web}"))?;
    replace(&mut config, "agent1 127.0.0.1:12345", &format!("agent1 {agent}"))?;
    let _agent = bench.agent(agent, &bench.write("list", "127.0.0.0/8 20\n")?)?;
    let _haproxy = bench.haproxy(&Setup::new(config).file("spoe.conf", spoe))?;
    let answer = Client::connect(web)?.send(&Request::get("/"))?;
    equal("answer", answer.text().trim(), "score 20")
}

/// The configuration of HAProxy's .NET library finds its score in the scope `sess`.
fn dotnet_configuration(bench: &Bench) -> Result<(), Failure> {
    let list = bench.write("list", "192.168.50.1/32 20\n")?;
    let address = port()?;
    let _agent = bench.agent_with(address, &list, &["--scope", "sess"])?;
    let site = Running::start(bench, DOTNET, address)?;
    for (client, score) in [("192.168.50.1", "20"), ("192.168.50.2", "10")] {
        let answer = site.get(client)?;
        equal("status", answer.status, 200)?;
        equal("header at the server", answer.text().trim(), format!("ip_score: {score}"))?;
        equal("header at the client", answer.header("ip_score"), Some(score.as_bytes()))?;
    }
    Ok(())
}
