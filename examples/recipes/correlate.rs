//! What an agent learned from a request, found again at its response: by HAProxy's `unique-id`, in a cache
//! that forgets.
//!
//! ```haproxy
//! # haproxy.cfg, in the frontend              # spoe.conf
//! unique-id-format %[uuid()]                  spoe-message request
//!                                                 args  id=unique-id  path=path
//!                                                 event on-frontend-http-request
//!                                             spoe-message response
//!                                                 args  id=unique-id  status=status
//!                                                 event on-http-response
//! ```
//!
//! Without `unique-id-format` the agent gets NULL, and the error that the library logs says so.
//!
//! The ids of the protocol do not do it. From HAProxy 3.1 on each event is a stream of its own (1, 3, 5 … on each
//! connection, and the next connection begins at 1 again), so the two events of a request have different
//! stream-ids and those of different requests have the same. Up to 3.0 the stream-id is the same for both, but
//! two HAProxy processes count alike, and a reload begins again. The tests below show it.
//!
//! Not every request has a response: clients leave, rules deny, and the response's event may go to another
//! agent of the backend (then the cache has to be a shared one). So what is kept is bounded twice, in number
//! and in time.

use std::env;
use std::io;
use std::time::Duration;

use moka::sync::Cache;
use spop_tokio::{Agent, Router, Scope};
use tokio::signal::ctrl_c;

/// What is known of a request that has no response yet.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    login: bool,
}

/// Longer than the servers' slowest response, `timeout server` of haproxy.cfg.
const KEPT: Duration = Duration::from_secs(60);
/// Requests under way at once, at most; some 100 bytes each.
const MOST: u64 = 100_000;

pub(crate) fn requests() -> Cache<Box<str>, Seen> {
    Cache::builder().max_capacity(MOST).time_to_live(KEPT).build()
}

/// Tells at the response whether it is that of a failed login, which only both together say.
pub(crate) fn router(requests: Cache<Box<str>, Seen>) -> Router {
    let responses = requests.clone();
    Router::new()
        .on("request", move |message, _| {
            let login = message.get::<&str>("path")? == "/login";
            requests.insert(message.get::<&str>("id")?.into(), Seen { login });
            Ok(())
        })
        .on("response", move |message, ack| {
            // Removed: a response comes once. One whose request is not known gets no verdict.
            if let Some(seen) = responses.remove(message.get::<&str>("id")?) {
                let failed = seen.login && message.get::<i32>("status")? == 401;
                ack.set(Scope::Transaction, "failed_login", failed)?;
            }
            Ok(())
        })
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let endpoint = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:12345".to_owned());
    let server = Agent::new(router(requests())).bind(endpoint.as_str()).await?;
    eprintln!("listening on {}", server.local_addr());
    server.run_until(async { _ = ctrl_c().await }).await;
    Ok(())
}

#[cfg(test)]
mod engine;

#[cfg(test)]
mod tests {
    use spop_proto::wire::NotifyPayload;
    use spop_proto::{Dialect, Peer};
    use spop_tokio::{Value, testing};

    use super::*;

    fn request(router: &Router, id: &str, path: &str) -> String {
        testing::message("request").arg("id", id).arg("path", path).ask(router).to_string()
    }

    fn response(router: &Router, id: &str, status: i32) -> String {
        testing::message("response").arg("id", id).arg("status", status).ask(router).to_string()
    }

    #[test]
    fn a_response_meets_its_request() {
        let router = router(requests());
        // Side by side, answered the other way round.
        assert_eq!(request(&router, "a", "/login"), "");
        assert_eq!(request(&router, "b", "/"), "");
        assert_eq!(response(&router, "b", 401), "txn.failed_login = bool false\n");
        assert_eq!(response(&router, "a", 401), "txn.failed_login = bool true\n");
        assert_eq!(response(&router, "a", 401), "", "nothing is kept of it");
        assert_eq!(response(&router, "c", 401), "", "a request that was never seen");
    }

    #[test]
    fn without_an_id_the_error_says_so() {
        let question = testing::message("request").arg("id", Value::Null).arg("path", "/");
        assert!(question.ask(&router(requests())).error().unwrap().contains("id is NULL"));
    }

    /// The stream-ids of both events of one request.
    async fn stream_ids(dialect: Dialect) -> Vec<String> {
        let agent = Agent::inline(|notify, ack| {
            Ok(ack.set(Scope::Transaction, "stream", notify.stream_id())?)
        });
        let (haproxy, ours) = tokio::io::duplex(65_536);
        let serving = agent.serve_connection(ours, Peer::Unix);
        let events = ["request", "response"].map(NotifyPayload::new);
        let asking = engine::ask(haproxy, dialect, &events);
        let (asked, _) = tokio::join!(asking, serving);
        asked.unwrap()
    }

    #[tokio::test]
    async fn the_stream_id_does_not_say_it() {
        let new = stream_ids(Dialect::New).await;
        assert_eq!(new, ["set-var txn.stream uint64:1", "set-var txn.stream uint64:3"]);
        let old = stream_ids(Dialect::Old).await;
        assert_eq!(old.first(), old.last());
        // And another connection, from the next process, has the same again.
        assert_eq!(old, stream_ids(Dialect::Old).await);
        assert_eq!(new, stream_ids(Dialect::New).await);
    }
}
