//! What an agent prints for HAProxy is what its page has, and works.

use std::ffi::OsStr;
use std::fs;
use std::io;

use super::{Case, Outcome};
use crate::agents::{Agent, geoip::mmdb, jwt_auth::tests::SECRET};
use crate::haproxy::{Directory, Program, Request};
use crate::pages::{PAGES, arguments};
use crate::site::{Site, shipped};

pub(super) const CASES: &[Case] =
    &[("printed_configurations_are_accepted", accepted), ("printed_configurations_work", work)];

/// `--haproxy` of that very version.
fn own(program: &Program) -> String {
    let version = program.version.to_string();
    version.split(['.', '-']).take(2).collect::<Vec<_>>().join(".")
}

/// For any HAProxy and for that one, without a warning, and with the arguments of the page's spoe.conf.
fn accepted(program: &Program) -> io::Result<Outcome> {
    let version = own(program);
    for page in PAGES {
        for of in [&[][..], &["--haproxy", &version]] {
            let directory = Directory::new()?;
            let folder = directory.path();
            Agent::print_configuration(page, folder, of)?;
            let said = program.warnings(&folder.join("haproxy.cfg"))?;
            assert_eq!(said, "", "warnings of HAProxy about what {page} prints");
            let printed = fs::read_to_string(folder.join("spoe.conf"))?;
            let page_has = fs::read_to_string(shipped(page, "spoe.conf"))?;
            assert!(!arguments(&printed).is_empty());
            assert_eq!(arguments(&printed), arguments(&page_has), "{page}");
        }
    }
    Ok(Outcome::Shown)
}

/// In front of the agent, a request that passes and one that does not.
fn work(program: &Program) -> io::Result<Outcome> {
    let directory = Directory::new()?;
    let (key, database) = (directory.path().join("key"), directory.path().join("countries"));
    fs::write(&key, SECRET)?;
    fs::write(&database, mmdb::write(&[("192.0.2.0/24", "FR", "EU")]))?;
    let answers = |page: &str, options: &[&OsStr], requests: &[(Request, u16, &str)]| {
        let agent = Agent::start(page, options)?;
        let site = Site::printed(page, agent.address, &own(program))?.start(program)?;
        for (request, status, body) in requests {
            let answer = site.send(request)?;
            assert_eq!(answer.status, *status, "{page}: {answer:?}");
            if *status == 200 {
                assert_eq!(answer.text(), *body, "{page}");
            }
        }
        agent.stop()
    };
    let get = Request::get;
    answers("raw-loop", &[], &[(get("/"), 200, "served\n"), (get("/.env"), 404, "")])?;
    answers("jwt-auth", &["--key".as_ref(), key.as_ref()], &[(get("/"), 401, "")])?;
    let options = ["--database".as_ref(), database.as_os_str()];
    answers("geoip", &options, &[(get("/"), 200, "FR EU\n")])?;
    let bodies = [
        (Request::post("/", "harmless"), 200, "served\n"),
        (Request::post("/", "<script>"), 403, ""),
    ];
    answers("body-inspect", &[], &bodies)?;
    // Nobody takes the copies.
    let options = ["--to", "127.0.0.1:9"].map(OsStr::new);
    answers("mirror", &options, &[(get("/"), 200, "served\n")])?;
    let options = ["--limit", "1", "--window", "3600"].map(OsStr::new);
    answers("rate-limit", &options, &[(get("/"), 200, "request 1\n"), (get("/"), 429, "")])?;
    Ok(Outcome::Shown)
}
