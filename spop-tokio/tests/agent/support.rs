//! Agents that run, and connections to them.

use std::net::SocketAddr;

use spop_proto::{Dialect, Dispatch};
use spop_tokio::{Action, Agent, AgentConfig, Listener, Report, Scope, Server};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::common::Engine;

/// Starts an agent on a port of its own; gives the address, the way to stop it, and its report.
pub(crate) async fn start<D: Dispatch>(
    agent: Agent<D>,
) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<Report>) {
    let server = agent.bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().socket_addr().unwrap();
    let (stop, running) = run(server);
    (address, stop, running)
}

/// Runs a server until the sender is dropped.
pub(crate) fn run<D: Dispatch, L: Listener>(
    server: Server<D, L>,
) -> (oneshot::Sender<()>, JoinHandle<Report>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run_until(async {
        let _ = stopped.await;
    }));
    (stop, running)
}

/// HAProxy's side of a new connection, after the handshake.
pub(crate) async fn ready(address: SocketAddr, dialect: Dialect) -> Engine<TcpStream> {
    Engine::ready(TcpStream::connect(address).await.unwrap(), dialect).await
}

pub(crate) fn fallback() -> AgentConfig {
    AgentConfig::new().fallback([Action::set(Scope::Transaction, "failed", true)]).unwrap()
}

pub(crate) const FALLBACK: [&str; 1] = ["set-var txn.failed bool:true"];
