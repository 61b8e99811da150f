//! An SPOE agent that counts the requests of each client, for several HAProxys together: in Redis, or,
//! where one agent is enough, in its own memory.
//!
//! See README.md beside it. [`Store`] counts, `router` compares.

mod memory;
#[path = "../shared/serve.rs"]
mod serve;

use std::error::Error;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use serde::Deserialize;
use spop_tokio::spop_proto::handler::Mixed;
use spop_tokio::{Agent, Exchange, HandlerError, Router, Var};
use tokio::time::timeout;

use self::memory::Memory;

/// The `spoe-message`.
const MESSAGE: &str = "count";
/// BOOL: more requests than allowed.
const LIMITED: Var<'_> = Var::transaction("limited");
/// How many requests the client has made in its window, this one included.
const COUNT: Var<'_> = Var::transaction("count");

const SITE: serve::Site<'_> = serve::Site {
    engine: "rate",
    rules: &[
        "# Without a count requests pass.",
        "http-request deny deny_status 429 if { var(txn.rate.limited) -m bool }",
    ],
    passes: "request %[var(txn.rate.count)]",
};

/// Count the requests of HAProxy's clients against a limit: an SPOE agent.
#[derive(Debug, Parser)]
#[command(name = "rate-limit", version, max_term_width = 100, after_help = serve::AFTER_HELP)]
struct Args {
    #[command(flatten)]
    options: serve::Options,

    /// How many requests a client may make in a window.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,

    /// How long a window is, in seconds. It begins with a client's first request.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,

    /// The Redis that all agents share: redis://HOST:PORT/ [default: none, this agent counts alone]
    #[arg(long, value_name = "URL")]
    redis: Option<String>,

    /// How long to wait for Redis, in milliseconds; less than `timeout processing` of spoe.conf.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 50)]
    timeout: u64,
}

pub(crate) fn main() -> ExitCode {
    let Args { options, limit, window, redis, timeout } = serve::parse(&SITE, MESSAGE, takes);
    let (window, timeout) = (Duration::from_secs(window.into()), Duration::from_millis(timeout));
    serve::run("rate-limit", async move {
        let store = match &redis {
            None => Store::Memory(Memory::new(window)),
            // Without the URL in the error: there may be a password in it.
            Some(url) => {
                Store::redis(url, window, timeout).map_err(|error| format!("--redis: {error}"))?
            }
        };
        if options.check {
            println!("{}", store.reach().await.map_err(|error| format!("--redis: {error}"))?);
            return Ok(());
        }
        options.serve(Agent::with(router(store, limit))).await?;
        Ok(())
    })
}

#[derive(Deserialize)]
struct Count {
    ip: IpAddr,
}

/// A count that failed is an error: it sets nothing, and the rules of haproxy.cfg decide.
fn router(store: Store, limit: u64) -> Router<Mixed> {
    let store = Arc::new(store);
    let count = move |mut x: Exchange| {
        let store = Arc::clone(&store);
        async move {
            let Count { ip } = x.require(MESSAGE)?.deserialize()?;
            // One client has one count, by whatever listener it comes.
            let count = store.count(ip.to_canonical()).await?;
            x.set_var(COUNT, count)?;
            x.set_var(LIMITED, count > limit)?;
            Ok(x)
        }
    };
    takes(Router::new().concurrent(MESSAGE, count))
}

/// The arguments, as spoe.conf has them.
fn takes<M>(route: Router<M>) -> Router<M> {
    route.args::<Count>().declares(["ip=src,ipmask(32,64)"])
}

/// Where the counts are.
enum Store {
    Memory(Memory),
    Redis {
        connection: ConnectionManager,
        script: redis::Script,
        window: Duration,
        timeout: Duration,
    },
}

/// In one step, so that no agent counts between the two, and no key is left without an end.
const SCRIPT: &str = "\
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return count";

impl Store {
    /// Connects with the first request, and anew whenever the connection is lost.
    fn redis(url: &str, window: Duration, timeout: Duration) -> Result<Self, Box<dyn Error>> {
        // `timeout` stands for all of it; what goes on behind it is for the requests after this one.
        let config = ConnectionManagerConfig::new().set_max_delay(Duration::from_secs(1));
        let connection =
            ConnectionManager::new_lazy_with_config(redis::Client::open(url)?, config)?;
        Ok(Self::Redis { connection, script: redis::Script::new(SCRIPT), window, timeout })
    }

    /// Asks it for nothing. What it is, if it answers in time.
    async fn reach(&self) -> Result<&'static str, Box<dyn Error>> {
        let Self::Redis { connection, timeout: most, .. } = self else {
            return Ok("no --redis: this agent counts in its own memory");
        };
        let (ping, mut connection) = (redis::cmd("PING"), connection.clone());
        let pong = timeout(*most, ping.query_async(&mut connection)).await;
        let () = pong.map_err(|_| format!("no answer within {most:?}"))??;
        Ok("--redis: it answers")
    }

    /// Counts a request, and tells how many there are.
    async fn count(&self, ip: IpAddr) -> Result<u64, HandlerError> {
        match self {
            Self::Memory(memory) => Ok(memory.count(ip, Instant::now())?),
            Self::Redis { connection, script, window, timeout: most } => {
                let mut script = script.key(format!("rate-limit:{ip}"));
                let milliseconds = u64::try_from(window.as_millis())?;
                let mut connection = connection.clone();
                let counted = script.arg(milliseconds).invoke_async(&mut connection);
                Ok(timeout(*most, counted).await??)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use spop_tokio::{Scope, Value, testing};

    use super::*;

    #[test]
    fn the_request_after_the_last_is_limited() {
        let agent = router(Store::Memory(Memory::new(Duration::from_secs(3600))), 2);
        let ask = |ip: Ipv4Addr| testing::message("count").arg("ip", ip).ask(&agent).to_string();
        let (one, other) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        for (ip, count, limited) in
            [(one, 1, false), (one, 2, false), (other, 1, false), (one, 3, true), (other, 2, false)]
        {
            assert_eq!(
                ask(ip),
                format!("txn.count = uint64 {count}\ntxn.limited = bool {limited}\n")
            );
        }
    }

    #[test]
    fn a_client_has_one_count_as_ipv4_and_as_ipv6() {
        let agent = router(Store::Memory(Memory::new(Duration::from_secs(3600))), 2);
        let ip = Ipv4Addr::new(192, 0, 2, 1);
        testing::message("count").arg("ip", ip).ask(&agent);
        let answer = testing::message("count").arg("ip", ip.to_ipv6_mapped()).ask(&agent);
        assert_eq!(answer.get(Scope::Transaction, "count"), Some(Value::Uint64(2)));
    }

    #[test]
    fn without_an_address_nothing_is_set() {
        let agent = router(Store::Memory(Memory::new(Duration::from_secs(3600))), 2);
        let answer = testing::message("count").arg("ip", Value::Null).ask(&agent);
        assert!(!answer.is_handled());
        assert_eq!(answer.actions().count(), 0);
    }
}
