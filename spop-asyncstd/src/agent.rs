//! What a user configures before anything is served.

use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use spop_proto::handler::{Concurrent, Dispatch, HandlerFn, Inline, ServiceFn};
use spop_proto::server::{Closed, Overrides, Warnings};
use spop_proto::{
    Ack, AgentConfig, AgentConnection, Endpoint, Exchange, Handler, HandlerError, Health, Limits,
    Notify, Peer, Service, Stats,
};

use crate::connection;
use crate::listener::{Bound, Listener};
use crate::server::Server;
use crate::timer::Timer;

/// A handler, the configuration it runs under, and the ways to serve it.
#[must_use = "an agent does nothing until it is bound or given a listener"]
pub struct Agent<D> {
    pub(crate) dispatch: Arc<D>,
    pub(crate) config: AgentConfig,
    own: Overrides,
    pub(crate) lame_duck: Duration,
    pub(crate) warnings: Arc<Warnings>,
}

impl<F> Agent<Inline<ServiceFn<F>>>
where
    F: Fn(Notify<'_>, &mut Ack<'_>) -> Result<(), HandlerError> + Send + Sync + 'static,
{
    /// Answers with a closure that does not wait, on the task that reads.
    ///
    /// ```
    /// use spop_asyncstd::{Agent, Scope};
    ///
    /// let agent = Agent::inline(|notify, ack| {
    ///     let host: &str = notify.require("check-host")?.get("host")?;
    ///     ack.set(Scope::Request, "internal", host.ends_with(".internal"))?;
    ///     Ok(())
    /// });
    /// # let _ = agent;
    /// ```
    pub fn inline(closure: F) -> Self {
        Self::new(ServiceFn::new(closure))
    }
}

impl<S: Service> Agent<Inline<S>> {
    /// Answers with a type that implements [`Service`]; a closure goes to
    /// [`inline`](Agent::inline) or [`concurrent`](Agent::concurrent).
    pub fn new(service: S) -> Self {
        Self::with(Inline::new(service))
    }
}

impl<F, Fut> Agent<Concurrent<HandlerFn<F>>>
where
    F: Fn(Exchange) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Exchange, HandlerError>> + Send,
{
    /// Answers with a closure whose futures may wait, many at once on each connection.
    ///
    /// ```
    /// use async_std::net::ToSocketAddrs;
    /// use spop_asyncstd::{Agent, Scope};
    ///
    /// let agent = Agent::concurrent(|mut x| async move {
    ///     let host: &str = x.require("check-host")?.get("host")?;
    ///     let found = (host, 443).to_socket_addrs().await.is_ok();
    ///     x.set(Scope::Transaction, "host_known", found)?;
    ///     Ok(x)
    /// });
    /// # let _ = agent;
    /// ```
    pub fn concurrent(closure: F) -> Self {
        Self::with_handler(HandlerFn::new(closure))
    }
}

impl<H: Handler> Agent<Concurrent<H>> {
    /// Answers with a type that implements [`Handler`].
    pub fn with_handler(handler: H) -> Self {
        Self::with(Concurrent::new(handler))
    }
}

impl<D: Dispatch> Agent<D> {
    /// Answers with what decides for each request whether it takes a future.
    pub fn with(dispatch: D) -> Self {
        let stats = Stats::new("async-std").with_messages(dispatch.message_counts());
        dispatch.tell_mismatches(crate::log::mismatches());
        let config = AgentConfig::new().count_in(stats);
        Self {
            config: config.description_or(dispatch.describe()),
            dispatch: Arc::new(dispatch),
            own: Overrides::default(),
            lame_duck: Duration::ZERO,
            warnings: Arc::default(),
        }
    }

    /// Replaces the configuration: fallback, health switch and all else but what this agent was told, or
    /// is told later, by [`limits`](Self::limits) and [`request_id`](Self::request_id). Of the old health
    /// switch nothing is left: handles that [`health`](Self::health) gave before do nothing.
    pub fn config(mut self, config: AgentConfig) -> Self {
        let described = config.description_or(self.dispatch.describe());
        self.config = self.own.apply(described.count_in(self.stats()));
        self
    }

    /// Replaces the limits alone, those of a [configuration](Self::config) that comes later too.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.own.limits = Some(limits);
        self.config = self.own.apply(self.config);
        self
    }

    /// Puts HAProxy's `unique-id` into log lines about requests: the argument that carries it. See
    /// [`AgentConfig::request_id`].
    pub fn request_id(mut self, argument: &str) -> Self {
        self.own.request_id = Some(argument.into());
        self.config = self.own.apply(self.config);
        self
    }

    /// For that long after a stop was asked for, requests are still served while health checks
    /// fail, so that HAProxy stops sending first. Worth a little more than `inter` times `fall` of
    /// its `server` line; zero, the default, loses the few requests that cross the goodbye.
    pub fn lame_duck(mut self, time: Duration) -> Self {
        self.lame_duck = time;
        self
    }

    /// What `option spop-check` is told; clones share it. It is the configuration's, so give that
    /// [first](Self::config), or take the server's.
    #[must_use]
    pub fn health(&self) -> Health {
        self.config.health()
    }

    /// What the agent has counted at any time; clones share it. See [`Stats`].
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.config.stats().cloned().unwrap_or_default()
    }

    /// Listens on `127.0.0.1:12345`, `[::1]:12345` or `unix:/run/agent.sock`; with port 0 the
    /// system chooses one. The grammar is [`Endpoint`]'s.
    ///
    /// # Errors
    /// The text is not an endpoint, or the system does not let it listen there.
    pub async fn bind<E>(self, endpoint: E) -> io::Result<Server<D, Bound>>
    where
        E: TryInto<Endpoint>,
        E::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let endpoint = endpoint.try_into().map_err(invalid)?;
        self.serve(Bound::bind(&endpoint).await?)
    }

    /// Serves what a listener accepts: async-std's own, or any other [`Listener`].
    ///
    /// # Errors
    /// The listener cannot say where it listens.
    pub fn serve<L: Listener>(self, listener: L) -> io::Result<Server<D, L>> {
        Server::new(self, listener)
    }

    /// Serves one stream to its end, whatever accepted it: TCP, TLS, a pipe in memory. The future
    /// borrows nothing of the agent and runs under any executor; deadlines are kept by async-io, as
    /// in async-std and smol.
    ///
    /// It takes any number of them: [`Limits::connections`] holds for a [`Server`], and here it is for the
    /// program to count what it accepts, handshakes of TLS included.
    pub fn serve_connection<S>(
        &self,
        stream: S,
        peer: Peer,
    ) -> impl Future<Output = Closed> + use<D, S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.serve_connection_until(stream, peer, pending())
    }

    /// As [`serve_connection`](Self::serve_connection), until `stop` is ready: the connection then
    /// sends what it owes, says goodbye and ends. It is not counted either.
    pub fn serve_connection_until<S, Stop>(
        &self,
        stream: S,
        peer: Peer,
        stop: Stop,
    ) -> impl Future<Output = Closed> + use<D, S, Stop>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        Stop: Future<Output = ()>,
    {
        self.serve_connection_with(stream, peer, stop, async_io::Timer::at)
    }

    /// As [`serve_connection_until`](Self::serve_connection_until), with deadlines kept by a
    /// [`Timer`] of the caller's: for a runtime that has its own, or a test that has its own clock.
    pub fn serve_connection_with<S, Stop, T>(
        &self,
        stream: S,
        peer: Peer,
        stop: Stop,
        timer: T,
    ) -> impl Future<Output = Closed> + use<D, S, Stop, T>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        Stop: Future<Output = ()>,
        T: Timer,
    {
        let config = self.config.clone();
        let begin = move |now| AgentConnection::new(config, peer, now);
        connection::serve(self, (stream, peer), begin, Some(Box::pin(stop)), timer)
    }
}

impl<D> fmt::Debug for Agent<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("config", &self.config).finish_non_exhaustive()
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
