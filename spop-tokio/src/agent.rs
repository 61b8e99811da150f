//! An agent: a handler and how it is served.

use std::fmt;
use std::future::{Future, Pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use spop_proto::handler::{Concurrent, Dispatch, HandlerFn, Inline, ServiceFn};
use spop_proto::server::{Closed, Overrides, Warnings};
use spop_proto::{
    Ack, AgentConfig, AgentConnection, Endpoint, Exchange, Handler, HandlerError, Health, Limits,
    Notify, Peer, Service, Stats,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection;
use crate::listener::{Bound, Listener};
use crate::server::Server;

/// An agent: what answers HAProxy, and under which limits.
#[must_use = "an agent does nothing until it is bound or given a listener"]
pub struct Agent<D> {
    pub(crate) shared: Arc<Shared<D>>,
    pub(crate) config: AgentConfig,
    own: Overrides,
    pub(crate) lame_duck: Duration,
}

/// What all connections of an agent refer to.
pub(crate) struct Shared<D> {
    pub(crate) dispatch: D,
    pub(crate) warnings: Warnings,
}

impl<F> Agent<Inline<ServiceFn<F>>>
where
    F: Fn(Notify<'_>, &mut Ack<'_>) -> Result<(), HandlerError> + Send + Sync + 'static,
{
    /// An agent whose closure answers at once, on the task that reads: for everything that does
    /// not wait.
    ///
    /// ```
    /// use spop_tokio::{Agent, Scope};
    ///
    /// let agent = Agent::inline(|notify, ack| {
    ///     for message in notify.messages() {
    ///         let path: &[u8] = message.get("path")?;
    ///         ack.set(Scope::Request, "admin", path.starts_with(b"/admin"))?;
    ///     }
    ///     Ok(())
    /// });
    /// # let _ = agent;
    /// ```
    pub fn inline(closure: F) -> Self {
        Self::new(ServiceFn::new(closure))
    }
}

impl<S: Service> Agent<Inline<S>> {
    /// An agent that answers with a [`Service`], at once: a [`Router`](crate::Router), or a type of
    /// your own. For closures see
    /// [`inline`](Agent::inline) and [`concurrent`](Agent::concurrent).
    pub fn new(service: S) -> Self {
        Self::with(Inline::new(service))
    }
}

impl<F, Fut> Agent<Concurrent<HandlerFn<F>>>
where
    F: Fn(Exchange) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Exchange, HandlerError>> + Send,
{
    /// An agent whose closure returns a future for each request: for answers that have to wait.
    ///
    /// ```
    /// use spop_tokio::{Agent, Scope};
    ///
    /// # async fn look_up(_: std::net::IpAddr) -> std::io::Result<i32> { Ok(1) }
    /// let agent = Agent::concurrent(|mut x| async move {
    ///     let ip = x.require("check-client-ip")?.get("ip")?;
    ///     let score = look_up(ip).await?;
    ///     x.set(Scope::Transaction, "ip_score", score)?;
    ///     Ok(x)
    /// });
    /// # let _ = agent;
    /// ```
    pub fn concurrent(closure: F) -> Self {
        Self::with_handler(HandlerFn::new(closure))
    }
}

impl<H: Handler> Agent<Concurrent<H>> {
    /// An agent that answers with a [`Handler`]: a type of your own, in futures.
    pub fn with_handler(handler: H) -> Self {
        Self::with(Concurrent::new(handler))
    }
}

impl<D: Dispatch> Agent<D> {
    /// An agent that answers some requests at once and others in futures: a [`Router`](crate::Router)
    /// with routes that wait.
    pub fn with(dispatch: D) -> Self {
        let stats = Stats::new("tokio").with_messages(dispatch.message_counts());
        dispatch.tell_mismatches(crate::log::mismatches());
        let config = AgentConfig::new().count_in(stats);
        Self {
            config: config.description_or(dispatch.describe()),
            shared: Arc::new(Shared { dispatch, warnings: Warnings::default() }),
            own: Overrides::default(),
            lame_duck: Duration::ZERO,
        }
    }

    /// Sets the configuration: all of it, but for what [`limits`](Self::limits) and
    /// [`request_id`](Self::request_id) say of this agent, before or after. The health switch is then the
    /// configuration's: a handle that [`health`](Self::health) gave before switches nothing any more.
    pub fn config(mut self, config: AgentConfig) -> Self {
        let described = config.description_or(self.shared.dispatch.describe());
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
    pub async fn bind<E>(self, endpoint: E) -> io::Result<Server<D, Bound>>
    where
        E: TryInto<Endpoint>,
        E::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let endpoint = endpoint
            .try_into()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = Bound::bind(&endpoint).await?;
        self.serve(listener)
    }

    /// Serves a listener: tokio's own, or anything else that accepts.
    ///
    /// # Errors
    /// When the listener does not know its address.
    pub fn serve<L: Listener>(self, listener: L) -> io::Result<Server<D, L>> {
        Server::new(self, listener)
    }

    /// Serves one connection that was accepted elsewhere, TLS included, to its end.
    ///
    /// [`Limits::connections`] is not looked at: it is the limit of a [`Server`]. Who accepts has to
    /// count, the connections that are still in a TLS handshake too, and to close what is too much.
    pub async fn serve_connection<S>(&self, stream: S, peer: Peer) -> Closed
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.connection(stream, peer, None::<Pin<Box<Pending<()>>>>).await
    }

    /// Serves one connection, uncounted as by [`serve_connection`](Self::serve_connection); when `stop` is
    /// ready the connection drains and ends.
    pub async fn serve_connection_until<S>(
        &self,
        stream: S,
        peer: Peer,
        stop: impl Future<Output = ()>,
    ) -> Closed
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.connection(stream, peer, Some(Box::pin(stop))).await
    }

    fn connection<S>(
        &self,
        stream: S,
        peer: Peer,
        stop: Option<Pin<Box<impl Future<Output = ()>>>>,
    ) -> impl Future<Output = Closed>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config.clone();
        let begin = move |now| AgentConnection::new(config, peer, now);
        let serving = connection::serve(stream, begin, Arc::clone(&self.shared), stop);
        connection::in_span(serving, peer)
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

    use spop_proto::HealthState;

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

    /// As documented: the switch is that of the last configuration.
    #[test]
    fn the_health_switch_is_that_of_the_configuration() {
        let agent = Agent::inline(|_, _| Ok(()));
        let early = agent.health();
        let config = AgentConfig::new();
        let of_the_config = config.health();
        let agent = agent.config(config).limits(Limits::new()).request_id("id");
        early.set(HealthState::NotReady);
        assert_eq!(agent.health().get(), HealthState::Ready, "a handle from before");
        of_the_config.set(HealthState::NotReady);
        assert_eq!(agent.health().get(), HealthState::NotReady);
    }
}
