//! `spop-tap` and `spop-dump` with what a real HAProxy writes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::bench::{Bench, Failure, ensure, equal, port};
use crate::haproxy::Process;
use crate::site::Site;

use super::Case;

pub(super) const CASES: &[Case] = &[Case::new("through_spop_tap", through_spop_tap)];

/// HAProxy asks through the tap and gets its answers; what passed is shown and kept, and nothing of it is wrong.
fn through_spop_tap(bench: &Bench) -> Result<(), Failure> {
    let agent = port()?;
    let _agent = bench.agent(agent, &bench.write("list", "10.0.0.0/8 30\n")?)?;
    let (listen, middle, prefix) = (port()?, port()?, bench.path("tap"));
    let start = |listen: SocketAddr, target: SocketAddr, kept: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spop-tap"));
        command.args([listen.to_string(), target.to_string()]).arg("--write").arg(kept);
        let tap = Process::start("spop-tap", &mut command)?;
        tap.log().wait_for(0, "listening on ")?;
        Ok::<_, Failure>(tap)
    };
    // One keeps the bytes, another the same as packets.
    let mut tap = start(middle, agent, &prefix)?;
    let capture = bench.path("tap.pcapng");
    let mut outer = start(listen, middle, &capture)?;
    let site = Site::new(listen).unchecked().start(bench)?;
    site.expect_scores(&[("10.1.2.3", 30), ("192.0.2.1", 10)])?;
    // Shown after it was kept.
    tap.log().wait_for(0, "set-var txn ip_score = int32 30")?;
    tap.log().wait_for(0, "set-var txn ip_score = int32 10")?;
    tap.signal("TERM")?;
    let status = tap.wait()?;
    equal("exit code of spop-tap", status.code(), Some(0))?;

    let mut asked = 0;
    let mut connections = 0;
    for number in 1.. {
        let file = |side| format!("{}.{number}.{side}", prefix.display());
        if !Path::new(&file("haproxy")).exists() {
            break;
        }
        connections += 1;
        for side in ["haproxy", "agent"] {
            let output = Command::new(env!("CARGO_BIN_EXE_spop-dump")).arg(file(side)).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure(output.status.success(), || text.clone())?;
            asked += text.matches("ip = ipv4 10.1.2.3").count();
            asked += text.matches("set-var txn ip_score = int32 30").count();
        }
    }
    ensure(connections > 0, || "no connection was kept".to_owned())?;
    equal("the question and the answer about 10.1.2.3", asked, 2)?;

    outer.signal("TERM")?;
    equal("exit code of the other spop-tap", outer.wait()?.code(), Some(0))?;
    let output = Command::new(env!("CARGO_BIN_EXE_spop-dump")).arg(&capture).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure(output.status.success(), || text.clone())?;
    let asked = text.matches("ip = ipv4 10.1.2.3").count();
    let answered = text.matches("set-var txn ip_score = int32 30").count();
    equal("the same in the capture", (asked, answered), (1, 1))
}
