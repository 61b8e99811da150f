//! `geoip`: rules by country.

use std::fs;
use std::io;

use super::{Case, Outcome};
use crate::agents::{Agent, geoip::mmdb};
use crate::haproxy::{Directory, Program, Request};
use crate::site::Site;

pub(super) const CASES: &[Case] = &[("geoip_tells_countries", tells_countries)];

/// The server behind learns the country; one country is shut out; without the agent everybody is.
fn tells_countries(program: &Program) -> io::Result<Outcome> {
    let directory = Directory::new()?;
    let database = directory.path().join("countries.mmdb");
    let networks = [
        ("192.0.2.0/24", "FR", "EU"),
        ("203.0.113.0/24", "XX", "EU"),
        ("2001:db8::/32", "JP", "AS"),
    ];
    fs::write(&database, mmdb::write(&networks))?;
    let agent = Agent::start("geoip", &["--database".as_ref(), database.as_os_str()])?;
    let site = Site::of("geoip", agent.address)?.start(program)?;
    for (client, status, body) in [
        ("192.0.2.7", 200, "FR EU\n"),
        ("2001:db8::1", 200, "JP AS\n"),
        ("10.0.0.1", 200, "-- --\n"),
        ("203.0.113.1", 451, "not in your country\n"),
    ] {
        let answer = site.send_from(client, &Request::get("/").header("x-country", "ZZ"))?;
        assert_eq!((answer.status, answer.text().as_ref()), (status, body), "{client}");
    }
    drop(agent);
    let answer = site.send_from("192.0.2.7", &Request::get("/"))?;
    assert_eq!((answer.status, answer.text().as_ref()), (503, "country not known\n"));
    Ok(Outcome::Shown)
}
