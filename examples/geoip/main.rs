//! An SPOE agent that tells HAProxy which country an address belongs to, by a MaxMind database.
//!
//! See README.md beside it.

#[cfg(test)]
pub(crate) mod mmdb;
#[path = "../shared/serve.rs"]
mod serve;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;
use spop_tokio::{Agent, Router, Var};

/// The `spoe-message`.
const MESSAGE: &str = "locate";
/// STR: two capital letters by ISO 3166-1, or [`UNKNOWN`].
const COUNTRY: Var<'_> = Var::transaction("country");
/// STR: two capital letters of a continent, or [`UNKNOWN`].
const CONTINENT: Var<'_> = Var::transaction("continent");
/// Never nothing: a variable that is not there says that nobody looked.
const UNKNOWN: &str = "--";

const SITE: serve::Site<'_> = serve::Site {
    engine: "geo",
    rules: &[
        "# Without a verdict nothing passes; put your rules behind this one.",
        "http-request deny deny_status 503 unless { var(txn.geo.country) -m found }",
    ],
    passes: "%[var(txn.geo.country)] %[var(txn.geo.continent)]",
};

/// Tell HAProxy which country its clients are in: an SPOE agent.
#[derive(Debug, Parser)]
#[command(name = "geoip", version, max_term_width = 100, after_help = serve::AFTER_HELP)]
struct Args {
    #[command(flatten)]
    options: serve::Options,

    /// A database in MaxMind's format with countries: GeoLite2-Country.mmdb, or one with cities.
    #[arg(long, value_name = "FILE")]
    database: PathBuf,
}

pub(crate) fn main() -> ExitCode {
    let args: Args = serve::parse(&SITE, MESSAGE, takes);
    serve::run("geoip", async {
        // Read, not mapped: the file may be replaced meanwhile.
        let wrong = |error| format!("--database {}: {error}", args.database.display());
        let database = Reader::open_readfile(&args.database).map_err(wrong)?;
        if args.options.check {
            database.verify().map_err(wrong)?;
            let about = database.metadata();
            let (path, kind) = (args.database.display(), &about.database_type);
            println!("{path}: {kind}, IPv{}, {} nodes", about.ip_version, about.node_count);
            return Ok(());
        }
        args.options.serve(Agent::new(router(database))).await?;
        Ok(())
    })
}

#[derive(Deserialize)]
struct Locate {
    ip: IpAddr,
}

/// The part of a record that is of use here; borrowed from the database.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Record<'a> {
    #[serde(borrow)]
    country: Place<'a>,
    #[serde(borrow)]
    continent: Place<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Place<'a> {
    #[serde(alias = "iso_code")]
    code: Option<&'a str>,
}

/// An address that is in no country (a private one, say) is told as such. An error, in the arguments
/// or in the database, sets nothing: the rules of haproxy.cfg decide.
fn router(database: Reader<Vec<u8>>) -> Router {
    takes(Router::new().on(MESSAGE, move |message, ack| {
        let Locate { ip } = message.deserialize()?;
        let Record { country, continent } = look_up(&database, ip)?;
        ack.set_var(COUNTRY, country.code.unwrap_or(UNKNOWN))?;
        Ok(ack.set_var(CONTINENT, continent.code.unwrap_or(UNKNOWN))?)
    }))
}

/// The arguments, as spoe.conf has them.
fn takes(route: Router) -> Router {
    route.args::<Locate>().declares(["ip=src"])
}

fn look_up(database: &Reader<Vec<u8>>, ip: IpAddr) -> Result<Record<'_>, MaxMindDbError> {
    // A listener on :: shows IPv4 clients as ::ffff:192.0.2.1.
    Ok(database.lookup(ip.to_canonical())?.decode()?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use spop_tokio::testing;

    use super::*;

    fn country_of(ip: IpAddr) -> String {
        let database = mmdb::write(&[("192.0.2.0/24", "FR", "EU"), ("2001:db8::/32", "JP", "AS")]);
        let router = router(Reader::from_source(database).unwrap());
        let question = testing::message("locate").prefix("geo");
        match ip {
            IpAddr::V4(ip) => question.arg("ip", ip),
            IpAddr::V6(ip) => question.arg("ip", ip),
        }
        .ask(&router)
        .to_string()
    }

    #[test]
    fn addresses_have_countries() {
        let france = "txn.geo.country = str FR\ntxn.geo.continent = str EU\n";
        let (inside, last) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 255));
        assert_eq!(country_of(inside.into()), france);
        assert_eq!(country_of(last.into()), france);
        assert_eq!(country_of(inside.to_ipv6_mapped().into()), france);
        let japan = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
        assert!(country_of(japan.into()).contains("country = str JP\n"));
    }

    #[test]
    fn an_unknown_address_is_told_as_such() {
        let unknown = "txn.geo.country = str --\ntxn.geo.continent = str --\n";
        assert_eq!(country_of(Ipv4Addr::new(192, 0, 3, 0).into()), unknown);
        assert_eq!(country_of(Ipv6Addr::LOCALHOST.into()), unknown);
    }

    #[test]
    fn what_is_no_address_is_not_located() {
        let router = router(Reader::from_source(mmdb::write(&[])).unwrap());
        let answer = testing::message("locate").arg("ip", spop_tokio::Value::Null).ask(&router);
        assert_eq!(answer.actions().count(), 0);
        assert!(answer.error().unwrap().contains("ip"), "{answer}");
    }
}
