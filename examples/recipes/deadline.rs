//! The deadline of an answer, taken from an argument: when that time is over the agent answers with what
//! it knows by then.
//!
//! ```haproxy
//! # spoe.conf: HAProxy waits for 100 ms, and says so to the agent, less what the way there and back takes.
//! spoe-agent iprep
//!     timeout processing 100ms
//! spoe-message check
//!     args  ip=src  budget=int(80)
//!     event on-frontend-http-request
//! ```
//!
//! So the number is in one file, the operator's, and each message can have its own. An answer that is late is
//! worth nothing to HAProxy, a half one often is: here each source that answered in time sets its variable,
//! and `complete` says whether all did.
//!
//! `Limits::answer_timeout` stays behind it as the bound for everything: past it the fallback is sent.
//! The time that a request waited in HAProxy is not in it; it counts from when the agent has the request.

use std::net::IpAddr;
use std::time::Duration;
use std::{env, io};

use spop_proto::HandlerError;
use spop_proto::handler::{Handler, HandlerFn};
use spop_tokio::{Agent, Scope};
use tokio::signal::ctrl_c;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

/// Without an argument.
const USUAL: u64 = 50;
/// Whatever the argument says.
const MOST: u64 = 1_000;

/// Somebody who is asked about an address. In place of yours: it takes its time and knows one score.
#[derive(Clone, Debug)]
struct Source {
    name: &'static str,
    takes: Duration,
    score: i32,
}

impl Source {
    async fn ask(self, _: IpAddr) -> (&'static str, i32) {
        sleep(self.takes).await;
        (self.name, self.score)
    }
}

fn handler(sources: Vec<Source>) -> impl Handler {
    HandlerFn::new(move |mut exchange| {
        let (began, sources) = (Instant::now(), sources.clone());
        async move {
            let message = exchange.require("check")?;
            let ip = message.get("ip")?;
            let budget = message.get::<Option<u64>>("budget")?.unwrap_or(USUAL).min(MOST);
            let deadline = began + Duration::from_millis(budget);

            let mut missing = sources.len();
            let mut asked: JoinSet<_> = sources.into_iter().map(|source| source.ask(ip)).collect();
            // Ends when all have answered, or at the deadline. Dropped, the set ends those that still ask.
            while let Ok(Some(answer)) = timeout_at(deadline, asked.join_next()).await {
                // A source that panicked is one that does not answer.
                if let Ok((name, score)) = answer {
                    exchange.set(Scope::Transaction, name, score)?;
                    missing -= 1;
                }
            }
            exchange.set(Scope::Transaction, "complete", missing == 0)?;
            Ok::<_, HandlerError>(exchange)
        }
    })
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let endpoint = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:12345".to_owned());
    let source = |name, takes, score| Source { name, takes: Duration::from_millis(takes), score };
    let sources =
        vec![source("cache", 1, 10), source("database", 20, 30), source("abroad", 90, 80)];
    let server = Agent::with_handler(handler(sources)).bind(endpoint.as_str()).await?;
    eprintln!("listening on {}", server.local_addr());
    server.run_until(async { _ = ctrl_c().await }).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use spop_tokio::testing;

    use super::*;

    /// What is set, and after how many milliseconds of a clock that only goes on when all wait.
    async fn ask(budget: Option<i64>) -> (String, u128) {
        let source =
            |name, takes, score| Source { name, takes: Duration::from_millis(takes), score };
        let agent = handler(vec![source("slow", 90, 80), source("fast", 10, 20)]);
        let mut question = testing::message("check").arg("ip", Ipv4Addr::LOCALHOST);
        if let Some(budget) = budget {
            question = question.arg("budget", budget);
        }
        let began = Instant::now();
        let answer = question.ask_async(&agent).await;
        (answer.to_string(), began.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_argument_says_how_long() {
        let fast = "txn.fast = int32 20\n";
        let (answer, took) = ask(Some(80)).await;
        assert_eq!(answer, format!("{fast}txn.complete = bool false\n"));
        assert!((80..=82).contains(&took), "{took} ms");

        let (answer, took) = ask(Some(100)).await;
        assert_eq!(answer, format!("{fast}txn.slow = int32 80\ntxn.complete = bool true\n"));
        assert!((90..=92).contains(&took), "{took} ms: it does not wait for the deadline");

        let (answer, _) = ask(Some(0)).await;
        assert_eq!(answer, "txn.complete = bool false\n");
    }

    #[tokio::test(start_paused = true)]
    async fn without_one_it_is_the_usual() {
        let (answer, took) = ask(None).await;
        assert_eq!(answer, "txn.fast = int32 20\ntxn.complete = bool false\n");
        assert!((50..=52).contains(&took), "{took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_negative_one_is_an_error() {
        let (answer, _) = ask(Some(-1)).await;
        assert!(
            answer.starts_with("error: message check: argument budget is int64 -1"),
            "{answer}"
        );
    }
}
