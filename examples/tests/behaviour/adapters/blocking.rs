//! spop-blocking.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use spop_blocking::Agent;
use spop_proto::server::Closed;
use spop_proto::{Peer, Service};

use crate::adapter::{Adapter, Mode, Running, Setup};
use crate::script;

#[derive(Debug)]
pub(crate) struct Blocking;

impl Adapter for Blocking {
    fn name(&self) -> &'static str {
        "blocking"
    }

    fn modes(&self) -> &'static [Mode] {
        &[Mode::Inline, Mode::Workers]
    }

    fn cannot(&self, behaviour: &str, mode: Mode) -> Option<&'static str> {
        match behaviour {
            "tls" if mode == Mode::Workers => Some("a stream that is no socket is served inline"),
            "tls_close_notify" => Some("`Read + Write` has no way to say that nothing more comes"),
            _ => None,
        }
    }

    fn start(&self, setup: Setup) -> io::Result<Running> {
        if setup.router {
            return run(Agent::new(script::router()).config(setup.config.clone()), setup);
        }
        run(agent(&setup), setup)
    }

    fn serve_tls(
        &self,
        setup: Setup,
        stream: TcpStream,
        tls: Arc<ServerConfig>,
    ) -> io::Result<Closed> {
        // Deadlines are looked at when a read returns.
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let session = ServerConnection::new(tls).map_err(io::Error::other)?;
        let stream = StreamOwned::new(session, stream);
        Ok(agent(&setup).serve_connection(stream, Peer::Unknown))
    }
}

fn run<S: Service>(agent: Agent<S>, setup: Setup) -> io::Result<Running> {
    let agent = agent.lame_duck(setup.lame_duck);
    let agent = match setup.mode {
        Mode::Workers => agent.workers(setup.workers),
        _ => agent,
    };
    let server = agent.bind(setup.endpoint)?;
    let (endpoint, stop) = (server.local_addr().clone(), server.stop_handle());
    Ok(Running::new(endpoint, move || stop.stop(), move || server.run().unwrap()))
}

fn agent(setup: &Setup) -> Agent<impl Service + use<>> {
    let script = setup.script.clone();
    let agent = Agent::inline(move |notify, ack| script.answer(&notify, ack));
    agent.config(setup.config.clone())
}
