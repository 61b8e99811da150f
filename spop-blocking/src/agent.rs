//! An agent: a service and how it is served.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spop_proto::handler::ServiceFn;
use spop_proto::server::{Closed, Overrides, Warnings};
use spop_proto::{
    Ack, AgentConfig, AgentConnection, Endpoint, HandlerError, Health, Limits, Notify, Peer,
    Service, Stats,
};

use crate::connection;
use crate::listener::{Bound, Listener};
use crate::server::Server;

/// Requests that wait for a worker.
const WAITING: usize = 1024;

/// An agent: what answers HAProxy, and under which limits.
#[must_use = "an agent does nothing until it is bound or given a listener"]
pub struct Agent<S> {
    pub(crate) service: Arc<S>,
    pub(crate) config: AgentConfig,
    own: Overrides,
    pub(crate) workers: usize,
    pub(crate) waiting: usize,
    pub(crate) lame_duck: Duration,
    pub(crate) warnings: Arc<Warnings>,
}

impl<F> Agent<ServiceFn<F>>
where
    F: Fn(Notify<'_>, &mut Ack<'_>) -> Result<(), HandlerError> + Send + Sync + 'static,
{
    /// An agent that answers with a closure.
    ///
    /// ```
    /// use spop_blocking::{Agent, Scope};
    ///
    /// let agent = Agent::inline(|notify, ack| {
    ///     let path: &[u8] = notify.require("request")?.get("path")?;
    ///     ack.set(Scope::Request, "admin", path.starts_with(b"/admin"))?;
    ///     Ok(())
    /// });
    /// # let _ = agent.workers(4);
    /// ```
    pub fn inline(closure: F) -> Self {
        Self::new(ServiceFn::new(closure))
    }
}

impl<S: Service> Agent<S> {
    /// An agent that answers with a [`Service`]: a [`Router`](crate::Router), or a type of your own.
    /// For closures see
    /// [`inline`](Agent::inline).
    pub fn new(service: S) -> Self {
        let stats = Stats::new("blocking").with_messages(service.message_counts());
        service.tell_mismatches(crate::log::mismatches());
        let config = AgentConfig::new().count_in(stats);
        Self {
            config: config.description_or(service.describe()),
            service: Arc::new(service),
            workers: 0,
            waiting: WAITING,
            own: Overrides::default(),
            lame_duck: Duration::ZERO,
            warnings: Arc::default(),
        }
    }

    /// Runs handlers on that many threads, which all connections share; 0, the default, runs each
    /// on the thread of its connection.
    pub fn workers(mut self, threads: usize) -> Self {
        self.workers = threads;
        self
    }

    /// How many requests of all connections together may wait for a worker; beyond that they get
    /// the fallback answer. Default 1 024. With 0 a request needs a worker that is free.
    pub fn waiting(mut self, requests: usize) -> Self {
        self.waiting = requests;
        self
    }

    /// Sets the configuration: all of it, but for what [`limits`](Self::limits) and
    /// [`request_id`](Self::request_id) say of this agent, before or after. The health switch is then the
    /// configuration's: a handle that [`health`](Self::health) gave before switches nothing any more.
    pub fn config(mut self, config: AgentConfig) -> Self {
        let described = config.description_or(self.service.describe());
        self.config = self.own.apply(described.count_in(self.stats()));
        self
    }

    /// Sets the limits, whatever those of the [configuration](Self::config) are.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.own.limits = Some(limits);
        self.config = self.own.apply(self.config);
        self
    }

    /// Names the argument in which HAProxy sends its `unique-id`, for the log: see
    /// [`AgentConfig::request_id`].
    pub fn request_id(mut self, argument: &str) -> Self {
        self.own.request_id = Some(argument.into());
        self.config = self.own.apply(self.config);
        self
    }

    /// How long to go on serving after a stop was asked for, while health checks already fail, so
    /// that HAProxy takes the agent out first: a bit more than `inter` times `fall` of its
    /// `server` line. Default zero; with zero a few requests that cross the goodbye are lost.
    pub fn lame_duck(mut self, time: Duration) -> Self {
        self.lame_duck = time;
        self
    }

    /// The switch that health checks (`option spop-check`) are answered from. Ask for it after
    /// [`config`](Self::config), which brings one of its own, or ask the server.
    #[must_use]
    pub fn health(&self) -> Health {
        self.config.health()
    }

    /// What the agent counts, for a monitoring system: see [`Stats`].
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.config.stats().cloned().unwrap_or_default()
    }

    /// Listens on `127.0.0.1:12345`, `[::1]:12345`, `unix:/run/agent.sock`; port 0 lets the system
    /// choose. See [`Endpoint`] for the grammar.
    ///
    /// # Errors
    /// When the text is no endpoint, or the system refuses.
    pub fn bind<E>(self, endpoint: E) -> io::Result<Server<S, Bound>>
    where
        E: TryInto<Endpoint>,
        E::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let listener = Bound::bind(&endpoint.try_into().map_err(invalid)?)?;
        self.serve(listener)
    }

    /// Serves a listener: one of `std`, or anything else that accepts.
    ///
    /// # Errors
    /// When the listener does not know its address.
    pub fn serve<L: Listener>(self, listener: L) -> io::Result<Server<S, L>> {
        Server::new(self, listener)
    }

    /// Serves one connection of any kind, TLS included, to its end: on this thread, handlers
    /// inline. Deadlines are checked whenever a read or write returns, so give the stream time
    /// limits of its own; errors of kind `WouldBlock` and `TimedOut` are taken for such a limit.
    ///
    /// Such connections are not counted against [`Limits::connections`], which a [`Server`] keeps: a program
    /// that accepts by itself has to have a limit of its own, from before any TLS handshake on.
    pub fn serve_connection(&self, stream: impl Read + Write, peer: Peer) -> Closed {
        let conn = AgentConnection::new(self.config.clone(), peer, Instant::now());
        connection::serve_stream(stream, conn, &*self.service, &self.warnings)
    }
}

impl<S> fmt::Debug for Agent<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("config", &self.config)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    /// What is set on an agent stands, whether its configuration comes before or after.
    #[test]
    fn the_order_of_setters_is_free() {
        let agent = Agent::inline(|_, _| Ok(())).limits(limits(7));
        let agent = agent.config(AgentConfig::new().limits(limits(5))).request_id("id");
        let config = agent.config(AgentConfig::new().request_id("other")).config;
        assert_eq!(config.current_limits().max_connections(), 7);
        assert_eq!(config.request_id_argument().map(|id| &**id), Some("id"));
    }

    fn limits(connections: usize) -> Limits {
        Limits::new().connections(NonZeroUsize::new(connections).unwrap())
    }
}
