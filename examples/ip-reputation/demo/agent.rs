//! The agent of the demo: the real one, and a record of what passed through it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spop_tokio::{
    Ack, Action, Agent, HandlerError, Health, HealthState, Notify, Report, Scope, Service,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{DemoError, LIST, VAR_PREFIX, context};
use crate::list::List;
use crate::reputation::Reputation;

/// A running agent.
#[derive(Debug)]
pub(super) struct DemoAgent {
    pub(super) address: SocketAddr,
    health: Health,
    observed: Arc<Observed>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Report>,
}

/// One request, as the agent saw it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What the two sides of its connection agreed on.
    pub(super) handshake: String,
    /// The argument the agent asked for.
    pub(super) sent: String,
    /// The variables it set.
    pub(super) set: String,
}

impl DemoAgent {
    /// Starts an agent on `address`; port 0 is any that is free.
    pub(super) async fn start(address: SocketAddr) -> Result<Self, DemoError> {
        let list = List::parse(LIST.as_bytes()).map_err(context("reputation.list"))?;
        let reputation = Reputation::new(list, Scope::Transaction);
        let observed = Arc::new(Observed { reputation, last: Mutex::default() });

        let listener = TcpListener::bind(address).await.map_err(context(address))?;
        let address = listener.local_addr().map_err(context(address))?;
        let server = Agent::new(Arc::clone(&observed)).serve(listener).map_err(context(address))?;
        let health = server.health();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server.run_until(async {
            // An error means that the demo is over.
            _ = stopped.await;
        }));
        Ok(Self { address, health, observed, stop, server })
    }

    /// The latest request since this was last asked for.
    pub(super) fn seen(&self) -> Option<Seen> {
        self.observed.last().take()
    }

    /// Tells HAProxy to look for another agent, while requests are still answered.
    pub(super) fn fail_health_checks(&self) {
        self.health.set(HealthState::LameDuck);
    }

    /// Sends what is owed and ends.
    pub(super) async fn stop(self) -> Result<Report, DemoError> {
        _ = self.stop.send(());
        self.server.await.map_err(context("the agent"))
    }
}

/// The agent, and a look at the latest request it answered.
#[derive(Debug)]
struct Observed {
    reputation: Reputation,
    last: Mutex<Option<Seen>>,
}

impl Observed {
    fn last(&self) -> MutexGuard<'_, Option<Seen>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Observed {
    fn notify(&self, notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
        let mut set = Vec::new();
        for message in notify.messages() {
            if let Some(action) = self.reputation.verdict(&message)? {
                ack.action(&action)?;
                set.push(in_haproxy(&action));
            }
        }
        let seen = Seen { handshake: handshake(notify), sent: sent(notify), set: set.join(" ") };
        *self.last() = Some(seen);
        Ok(())
    }
}

fn handshake(notify: Notify<'_>) -> String {
    let connection = notify.connection();
    format!("{} offered → {}", connection.offered(), connection.capabilities())
}

fn sent(notify: Notify<'_>) -> String {
    let addresses = notify.messages().filter_map(|message| message.arg("ip"));
    addresses.map(|ip| format!("ip={ip}")).collect::<Vec<_>>().join(" ")
}

/// The variable as HAProxy's rules see it.
fn in_haproxy(action: &Action<'_>) -> String {
    let name = format!("{}.{VAR_PREFIX}.{}", action.scope(), action.name().escape_ascii());
    match action {
        Action::SetVar { value, .. } => format!("{name}={value}"),
        Action::UnsetVar { .. } => format!("{name} unset"),
    }
}
