//! What a user's code implements; the same for every adapter.

use core::fmt;
use core::future::Future;
use std::sync::Arc;

use crate::ack::Ack;
pub use crate::exchange::Exchange;
use crate::request::{ArgError, Notify};
use crate::router::Description;
pub use crate::router::{AtOnce, Mixed, Router};
use crate::stats::MessageCounts;
pub use crate::swap::Swap;

/// Why a handler gave no answer; HAProxy gets the fallback answer.
///
/// `?` makes one of any type that implements [`Error`](core::error::Error). Two that are often returned do
/// not: `Box<dyn Error + Send + Sync>` and `anyhow::Error`. Both go through [`new`](Self::new):
///
/// ```
/// use spop_proto::{Ack, HandlerError, Notify, Scope};
///
/// fn look_up(path: &str) -> Result<i32, Box<dyn std::error::Error + Send + Sync>> {
///     if path.is_empty() { Err("no path")? } else { Ok(path.parse()?) }
/// }
///
/// fn answer(notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
///     let path: &str = notify.require("m")?.get("path")?;
///     let score = look_up(path).map_err(HandlerError::new)?;
///     ack.set(Scope::Request, "score", score)?;
///     Ok(())
/// }
/// # use spop_proto::handler::ServiceFn;
/// # let answer = spop_proto::testing::message("m").arg("path", "").ask(&ServiceFn::new(answer));
/// # assert!(format!("{answer:?}").contains("no path"), "{answer:?}");
/// ```
pub struct HandlerError(Box<dyn core::error::Error + Send + Sync>);

impl HandlerError {
    /// An error from a text or another error, in a box or not: whatever `Box<dyn Error + Send + Sync>` can be
    /// made from.
    pub fn new(error: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// The error inside, if it is an `E`.
    pub(crate) fn downcast<E: core::error::Error + 'static>(self) -> Result<E, Self> {
        self.0.downcast().map(|error| *error).map_err(Self)
    }

    /// The error inside.
    #[must_use]
    pub fn get_ref(&self) -> &(dyn core::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

// Like `anyhow::Error` this is no `Error` itself, or the conversion below could not exist.
impl<E: core::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The error and what caused it, joined by colons.
impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Who is told of arguments that HAProxy sends otherwise than they are taken.
pub type TellMismatch = Box<dyn Fn(&ArgError) + Send + Sync>;

/// Answers NOTIFYs at once, on the thread that reads them: nothing is copied or allocated, and
/// nothing else happens on the connection meanwhile. For work that waits, see [`Handler`].
///
/// `Ok` sends what was set; `Err`, and a panic, send the fallback answer instead.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service that answers NOTIFY frames",
    label = "not a `Service`",
    note = "a closure has a constructor of its own: `Agent::inline(|notify, ack| {{ ..; Ok(()) }})`",
    note = "for a closure that waits: `Agent::concurrent(|x| async move {{ ..; Ok(x) }})`",
    note = "for a router with routes that wait: `Agent::with(router)`"
)]
pub trait Service: Send + Sync + 'static {
    /// Answers one NOTIFY.
    ///
    /// # Errors
    /// Any error: HAProxy gets the fallback answer.
    fn notify(&self, notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError>;

    /// Where it counts messages by their names, for the agent's [`Stats`](crate::Stats): asked for once,
    /// by the agent that is made of it. Nowhere, unless it is a [`Router`] or says something else.
    fn message_counts(&self) -> Option<MessageCounts> {
        None
    }

    /// Has it tell of arguments that HAProxy sends otherwise than it takes them. Adapters do so when the
    /// agent is made, and log it; nothing comes of it, unless it is a [`Router`] that tells nobody else
    /// ([`Router::on_mismatch`]) or says something else.
    fn tell_mismatches(&self, _tell: TellMismatch) {}

    /// What it takes, for tools that ask the agent: see [`AgentConfig::description`]. An adapter asks once,
    /// when the agent is made. A [`Router`] knows; a service around one hands it on.
    ///
    /// [`AgentConfig::description`]: crate::AgentConfig::description
    fn describe(&self) -> Option<Description> {
        None
    }
}

impl<S: Service + ?Sized> Service for Arc<S> {
    fn notify(&self, notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
        (**self).notify(notify, ack)
    }

    fn message_counts(&self) -> Option<MessageCounts> {
        (**self).message_counts()
    }

    fn tell_mismatches(&self, tell: TellMismatch) {
        (**self).tell_mismatches(tell);
    }

    fn describe(&self) -> Option<Description> {
        (**self).describe()
    }
}

/// Answers NOTIFYs in futures of their own: many run at once, and a slow one holds up no other.
///
/// The exchange that is returned is the answer. One that is dropped answers nothing: an error, a
/// panic, the deadline and the end of the connection lead to the fallback answer, or to none where
/// nobody waits for it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler that answers NOTIFY frames concurrently",
    label = "not a `Handler`",
    note = "a closure has a constructor of its own: `Agent::concurrent(|x| async move {{ ..; Ok(x) }})`"
)]
pub trait Handler: Send + Sync + 'static {
    /// Answers one NOTIFY.
    fn notify(
        &self,
        exchange: Exchange,
    ) -> impl Future<Output = Result<Exchange, HandlerError>> + Send;

    /// What it takes: see [`Service::describe`].
    fn describe(&self) -> Option<Description> {
        None
    }
}

impl<H: Handler> Handler for Arc<H> {
    fn notify(
        &self,
        exchange: Exchange,
    ) -> impl Future<Output = Result<Exchange, HandlerError>> + Send {
        (**self).notify(exchange)
    }

    fn describe(&self) -> Option<Description> {
        (**self).describe()
    }
}

/// What a [`Dispatch`] did with a NOTIFY.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a NOTIFY is answered now or later")]
pub enum Turn<F> {
    /// It is answered: the driver commits the answer, or falls back.
    Done(Result<(), HandlerError>),
    /// The future answers it.
    Later(F),
}

/// The one entry that a driver calls: it lets a service answer some NOTIFYs at once and others
/// later. Users implement [`Service`] or [`Handler`] instead.
pub trait Dispatch: Send + Sync + 'static {
    /// Answers a NOTIFY in `ack`, or takes ownership of it through `own` and answers later.
    fn serve<'s>(
        &'s self,
        notify: Notify<'_>,
        ack: &mut Ack<'_>,
        own: &mut dyn FnMut() -> Exchange,
    ) -> Turn<impl Future<Output = Result<Exchange, HandlerError>> + Send + use<'s, Self>>;

    /// See [`Service::message_counts`].
    fn message_counts(&self) -> Option<MessageCounts> {
        None
    }

    /// See [`Service::tell_mismatches`].
    fn tell_mismatches(&self, _tell: TellMismatch) {}

    /// What it takes: see [`Service::describe`].
    fn describe(&self) -> Option<Description> {
        None
    }
}

/// A future that never is: what a synchronous service answers later.
type Never = core::future::Ready<Result<Exchange, HandlerError>>;

impl<D: Dispatch> Dispatch for Arc<D> {
    #[inline]
    fn serve<'s>(
        &'s self,
        notify: Notify<'_>,
        ack: &mut Ack<'_>,
        own: &mut dyn FnMut() -> Exchange,
    ) -> Turn<impl Future<Output = Result<Exchange, HandlerError>> + Send + use<'s, D>> {
        (**self).serve(notify, ack, own)
    }

    fn message_counts(&self) -> Option<MessageCounts> {
        (**self).message_counts()
    }

    fn tell_mismatches(&self, tell: TellMismatch) {
        (**self).tell_mismatches(tell);
    }

    fn describe(&self) -> Option<Description> {
        (**self).describe()
    }
}

/// A [`Service`] as a [`Dispatch`].
#[derive(Debug)]
pub struct Inline<S>(S);

impl<S: Service> Inline<S> {
    /// Wraps a service.
    pub const fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S: Service> Dispatch for Inline<S> {
    #[inline]
    fn serve<'s>(
        &'s self,
        notify: Notify<'_>,
        ack: &mut Ack<'_>,
        _: &mut dyn FnMut() -> Exchange,
    ) -> Turn<impl Future<Output = Result<Exchange, HandlerError>> + Send + use<'s, S>> {
        Turn::<Never>::Done(self.0.notify(notify, ack))
    }

    fn message_counts(&self) -> Option<MessageCounts> {
        self.0.message_counts()
    }

    fn tell_mismatches(&self, tell: TellMismatch) {
        self.0.tell_mismatches(tell);
    }

    fn describe(&self) -> Option<Description> {
        self.0.describe()
    }
}

/// A [`Handler`] as a [`Dispatch`].
#[derive(Debug)]
pub struct Concurrent<H>(H);

impl<H: Handler> Concurrent<H> {
    /// Wraps a handler.
    pub const fn new(handler: H) -> Self {
        Self(handler)
    }
}

impl<H: Handler> Dispatch for Concurrent<H> {
    fn serve<'s>(
        &'s self,
        _: Notify<'_>,
        _: &mut Ack<'_>,
        own: &mut dyn FnMut() -> Exchange,
    ) -> Turn<impl Future<Output = Result<Exchange, HandlerError>> + Send + use<'s, H>> {
        Turn::Later(self.0.notify(own()))
    }

    fn describe(&self) -> Option<Description> {
        self.0.describe()
    }
}

/// A closure as a [`Service`].
pub struct ServiceFn<F>(F);

impl<F> ServiceFn<F>
where
    F: Fn(Notify<'_>, &mut Ack<'_>) -> Result<(), HandlerError> + Send + Sync + 'static,
{
    /// Wraps a closure. The bound stands here, so that the closure's arguments are inferred.
    pub const fn new(closure: F) -> Self {
        Self(closure)
    }
}

impl<F> Service for ServiceFn<F>
where
    F: Fn(Notify<'_>, &mut Ack<'_>) -> Result<(), HandlerError> + Send + Sync + 'static,
{
    #[inline]
    fn notify(&self, notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
        (self.0)(notify, ack)
    }
}

impl<F> fmt::Debug for ServiceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceFn")
    }
}

/// A closure that returns futures as a [`Handler`].
pub struct HandlerFn<F>(F);

impl<F, Fut> HandlerFn<F>
where
    F: Fn(Exchange) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Exchange, HandlerError>> + Send,
{
    /// Wraps a closure. The bound stands here, so that the closure's arguments are inferred.
    pub const fn new(closure: F) -> Self {
        Self(closure)
    }
}

impl<F, Fut> Handler for HandlerFn<F>
where
    F: Fn(Exchange) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Exchange, HandlerError>> + Send,
{
    fn notify(
        &self,
        exchange: Exchange,
    ) -> impl Future<Output = Result<Exchange, HandlerError>> + Send {
        (self.0)(exchange)
    }
}

impl<F> fmt::Debug for HandlerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerFn")
    }
}
