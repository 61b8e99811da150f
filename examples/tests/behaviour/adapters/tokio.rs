//! spop-tokio.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ServerConfig;
use spop_proto::server::Closed;
use spop_proto::{Dispatch, Peer};
use spop_tokio::Agent;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::adapter::{Adapter, Mode, Running, Setup};
use crate::script;

#[derive(Debug)]
pub(crate) struct Tokio;

impl Adapter for Tokio {
    fn name(&self) -> &'static str {
        "tokio"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Inline, Mode::Concurrent]
    }

    fn start(&self, setup: Setup) -> io::Result<Running> {
        let script = setup.script.clone();
        match setup.mode {
            Mode::Inline if setup.router => run(Agent::new(script::router()), setup),
            _ if setup.router => run(Agent::with(script::router_that_waits()), setup),
            Mode::Inline => {
                let agent = Agent::inline(move |notify, ack| script.answer(&notify, ack));
                run(agent, setup)
            }
            _ => run(Agent::concurrent(move |x| script.answer_later(x)), setup),
        }
    }

    fn serve_tls(
        &self,
        setup: Setup,
        stream: TcpStream,
        tls: Arc<ServerConfig>,
    ) -> io::Result<Closed> {
        let script = setup.script.clone();
        match setup.mode {
            Mode::Inline => {
                let agent = Agent::inline(move |notify, ack| script.answer(&notify, ack));
                serve_tls(&agent.config(setup.config), stream, tls)
            }
            _ => {
                let agent = Agent::concurrent(move |x| script.answer_later(x));
                serve_tls(&agent.config(setup.config), stream, tls)
            }
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

fn run<D: Dispatch>(agent: Agent<D>, setup: Setup) -> io::Result<Running> {
    let agent = agent.config(setup.config).lame_duck(setup.lame_duck);
    let runtime = runtime()?;
    let server = runtime.block_on(agent.bind(setup.endpoint))?;
    let endpoint = server.local_addr().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        // Dropped is as good as sent.
        let _ = stopped.await;
    };
    let run = move || runtime.block_on(server.run_until(stopped));
    Ok(Running::new(endpoint, move || drop(stop), run))
}

fn serve_tls<D: Dispatch>(
    agent: &Agent<D>,
    stream: TcpStream,
    tls: Arc<ServerConfig>,
) -> io::Result<Closed> {
    stream.set_nonblocking(true)?;
    runtime()?.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let stream = TlsAcceptor::from(tls).accept(stream).await?;
        Ok(agent.serve_connection(stream, Peer::Unknown).await)
    })
}
