//! An agent: a handler and how it is served.

use std::fmt;
use std::future::{Future, Pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use spop_proto::handler::{Concurrent, Dispatch, HandlerFn, Inline, ServiceFn};
use spop_proto::server::{Closed, Warnings};
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
        let config = AgentConfig::new().count_in(stats);
        Self {
            config: config.description_or(dispatch.describe()),
            shared: Arc::new(Shared { dispatch, warnings: Warnings::default() }),
            lame_duck: Duration::ZERO,
        }
    }

    /// Sets the configuration, limits included. The health switch is then the configuration's.
    pub fn config(mut self, config: AgentConfig) -> Self {
        let described = config.description_or(self.shared.dispatch.describe());
        self.config = described.count_in(self.stats());
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config = self.config.limits(limits);
        self
    }

    /// Names the argument in which HAProxy sends its `unique-id`, for the log: see
    /// [`AgentConfig::request_id`].
    pub fn request_id(mut self, argument: &str) -> Self {
        self.config = self.config.request_id(argument);
        self
    }

    /// How long to go on serving after a stop was asked for, while health checks already fail, so
    /// that HAProxy takes the agent out first: a bit more than `inter` times `fall` of its
    /// `server` line. Default zero; with zero a few requests that cross the goodbye are lost.
    pub fn lame_duck(mut self, time: Duration) -> Self {
        self.lame_duck = time;
        self
    }

    /// The switch that health checks (`option spop-check`) are answered from.
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
    pub async fn serve_connection<S>(&self, stream: S, peer: Peer) -> Closed
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.connection(stream, peer, None::<Pin<Box<Pending<()>>>>).await
    }

    /// Serves one connection; when `stop` is ready the connection drains and ends.
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
