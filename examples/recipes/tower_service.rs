//! A [`tower::Service`] behind an agent, with the layers of tower around it.
//!
//! For look-ups that exist as such a service already (an HTTP client, a gRPC stub, something with your own
//! layers). The bridge is [`handler`]: a dozen lines.
//!
//! An agent itself is no tower service, for good reasons: a NOTIFY is borrowed from the receive buffer, and
//! its answer is written where it is sent from. And what layers are used for most is there already, with the
//! fallback answer as its outcome: timeout (`Limits::answer_timeout`), concurrency limit and load shedding
//! (`Limits::in_flight`, `Limits::agent_in_flight`, `Overload`), panics. So layers here are for the service
//! behind: how many look-ups *it* may be asked at once, how often it is asked again.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::{env, io};

use spop_proto::HandlerError;
use spop_proto::handler::{Handler, HandlerFn};
use spop_tokio::{Agent, Scope};
use tokio::signal::ctrl_c;
use tower::retry::Policy;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

/// Asks `service` about the address of each NOTIFY. A clone is made for each, as tower's services expect;
/// what its layers count is shared by all clones. Its error becomes the handler's: HAProxy gets the fallback answer.
fn handler<S>(service: S) -> impl Handler
where
    S: Service<IpAddr, Response = i32, Error = BoxError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    HandlerFn::new(move |mut exchange| {
        let service = service.clone();
        async move {
            let ip: IpAddr = exchange.require("check-client-ip")?.get("ip")?;
            // Until it is ready, then the call.
            let score = service.oneshot(ip).await.map_err(HandlerError::new)?;
            exchange.set(Scope::Transaction, "ip_score", score)?;
            Ok(exchange)
        }
    })
}

/// What is around any look-up: at most `at_once` of them, more are refused; one that fails is asked once more.
fn layered<L>(
    look_up: L,
    at_once: usize,
) -> impl Service<IpAddr, Response = i32, Error = BoxError, Future: Send> + Clone + Send + Sync
where
    L: Service<IpAddr, Response = i32, Error = BoxError, Future: Send> + Clone + Send + Sync,
{
    ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(at_once)
        .retry(Again { left: 1 })
        .service(look_up)
}

#[derive(Clone)]
struct Again {
    left: u32,
}

impl<T> Policy<IpAddr, T, BoxError> for Again {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut IpAddr, outcome: &mut Result<T, BoxError>) -> Option<Ready<()>> {
        outcome.as_ref().err()?;
        self.left = self.left.checked_sub(1)?;
        Some(ready(()))
    }

    fn clone_request(&mut self, ip: &IpAddr) -> Option<IpAddr> {
        Some(*ip)
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let endpoint = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:12345".to_owned());
    // In place of your client.
    let look_up = service_fn(|ip: IpAddr| async move {
        Ok::<_, Infallible>(if ip.is_loopback() { 0 } else { 20 })
    });
    let service = layered(look_up.map_err(BoxError::from), 64);
    let server = Agent::with_handler(handler(service)).bind(endpoint.as_str()).await?;
    eprintln!("listening on {}", server.local_addr());
    server.run_until(async { _ = ctrl_c().await }).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use spop_tokio::testing::{self, Question};
    use tokio::sync::Semaphore;

    use super::*;

    fn question() -> Question {
        testing::message("check-client-ip").arg("ip", Ipv4Addr::LOCALHOST)
    }

    /// Fails so many times at first.
    fn failing(times: u32) -> (impl Handler, Arc<AtomicU32>) {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let look_up = service_fn(move |_| {
            let nth = count.fetch_add(1, Ordering::Relaxed);
            async move { if nth < times { Err(BoxError::from("no answer")) } else { Ok(7) } }
        });
        (handler(layered(look_up, 1)), asked)
    }

    #[tokio::test]
    async fn a_failed_look_up_is_asked_once_more() {
        let (agent, asked) = failing(1);
        let answer = question().ask_async(&agent).await;
        assert_eq!(answer.to_string(), "txn.ip_score = int32 7\n");
        assert_eq!(asked.load(Ordering::Relaxed), 2);

        let (agent, asked) = failing(2);
        let answer = question().ask_async(&agent).await;
        assert_eq!((answer.error(), answer.actions().count()), (Some("no answer"), 0));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_is_too_much_for_the_service_is_refused() {
        let gate = Arc::new(Semaphore::new(0));
        let waits = Arc::clone(&gate);
        let look_up = service_fn(move |_| {
            let gate = Arc::clone(&waits);
            async move {
                gate.acquire().await?.forget();
                Ok(7)
            }
        });
        let agent = handler(layered(look_up, 1));
        let (first, second) = (question(), question());
        // In this order: the first has the only place when the second asks, and opens for the first.
        let (first, second) = tokio::join!(biased; first.ask_async(&agent), async {
            let second = second.ask_async(&agent).await;
            gate.add_permits(1);
            second
        });
        assert_eq!(first.to_string(), "txn.ip_score = int32 7\n");
        assert_eq!(second.error(), Some("service overloaded"));
    }
}
