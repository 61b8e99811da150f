//! spop-asyncstd.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use async_std::channel::bounded;
use async_std::task::block_on;
use futures_rustls::TlsAcceptor;
use rustls::ServerConfig;
use spop_asyncstd::Agent;
use spop_proto::server::Closed;
use spop_proto::{Dispatch, Peer};

use crate::adapter::{Adapter, Mode, Running, Setup};
use crate::script;

#[derive(Debug)]
pub(crate) struct AsyncStd;

impl Adapter for AsyncStd {
    fn name(&self) -> &'static str {
        "asyncstd"
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

fn run<D: Dispatch>(agent: Agent<D>, setup: Setup) -> io::Result<Running> {
    let agent = agent.config(setup.config).lame_duck(setup.lame_duck);
    let server = block_on(agent.bind(setup.endpoint))?;
    let endpoint = server.local_addr().clone();
    let (stop, stopped) = bounded::<()>(1);
    let stopped = async move {
        // Dropped is as good as sent.
        let _ = stopped.recv().await;
    };
    Ok(Running::new(endpoint, move || drop(stop), || block_on(server.run_until(stopped))))
}

fn serve_tls<D: Dispatch>(
    agent: &Agent<D>,
    stream: TcpStream,
    tls: Arc<ServerConfig>,
) -> io::Result<Closed> {
    block_on(async {
        let stream = async_std::net::TcpStream::from(stream);
        let stream = TlsAcceptor::from(tls).accept(stream).await?;
        Ok(agent.serve_connection(stream, Peer::Unknown).await)
    })
}
