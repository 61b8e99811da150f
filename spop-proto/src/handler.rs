//! What a user's code implements; the same for every adapter.

use core::fmt;
use core::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use crate::ack::{Ack, Bounds, SetError};
use crate::inflight::Ids;
use crate::info::{ConnectionInfo, Peer};
use crate::reply::{Draft, Reply};
use crate::request::{ArgError, Notify};
use crate::router::Description;
pub use crate::router::{AtOnce, Mixed, Router};
use crate::stats::MessageCounts;
use crate::tasks::Failure;
use crate::vars::Var;
use crate::wire::{Message, Messages, Scope, Value};

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

/// A [`Service`] or [`Handler`] that can be replaced while connections are open: none of them notices.
/// Clones share it.
///
/// What was asked before is answered by the one of before; it is dropped with its last answer.
///
/// ```
/// use spop_proto::handler::Swap;
/// use spop_proto::{Ack, HandlerError, Notify, Scope, Service};
///
/// struct Threshold(i32);
///
/// impl Service for Threshold {
///     fn notify(&self, notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
///         let score: i32 = notify.require("check")?.get("score")?;
///         Ok(ack.set(Scope::Transaction, "deny", score > self.0)?)
///     }
/// }
///
/// let service = Swap::new(Threshold(80));
/// let switch = service.clone();
/// // `service` goes to `Agent::new`, `switch` to whatever reads the configuration again.
/// # let _ = service;
/// let before = switch.replace(Threshold(60));
/// assert_eq!(before.0, 80);
/// ```
///
/// For one of another type it holds a `Box` of a trait of your own. Each NOTIFY takes a lock for as long
/// as it takes to clone an `Arc`.
pub struct Swap<H>(Arc<RwLock<Arc<H>>>);

impl<H> Swap<H> {
    /// Begins with that one.
    pub fn new(handler: H) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(handler))))
    }

    /// What is asked from now on is answered by `handler`. Returns the one of before.
    pub fn replace(&self, handler: H) -> Arc<H> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        core::mem::replace(&mut current, Arc::new(handler))
    }

    /// The one that is in place.
    #[must_use]
    pub fn current(&self) -> Arc<H> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<H> Clone for Swap<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Service> Service for Swap<S> {
    fn notify(&self, notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
        self.current().notify(notify, ack)
    }

    /// Has the one that is in place tell; what takes its place later says itself whom.
    fn tell_mismatches(&self, tell: TellMismatch) {
        self.current().tell_mismatches(tell);
    }

    /// Those of the one that is in place: after a [`replace`](Swap::replace) they begin at 0 again.
    fn message_counts(&self) -> Option<MessageCounts> {
        self.current().message_counts()?;
        let switch = self.clone();
        Some(MessageCounts::new(move |tell| {
            if let Some(counts) = switch.current().message_counts() {
                counts.visit(tell);
            }
        }))
    }

    /// That of the one which is in place when the agent is made.
    fn describe(&self) -> Option<Description> {
        self.current().describe()
    }
}

impl<H: Handler> Handler for Swap<H> {
    fn notify(
        &self,
        exchange: Exchange,
    ) -> impl Future<Output = Result<Exchange, HandlerError>> + Send {
        let current = self.current();
        async move { current.notify(exchange).await }
    }

    /// That of the one which is in place when the agent is made.
    fn describe(&self) -> Option<Description> {
        self.current().describe()
    }
}

impl<H> fmt::Debug for Swap<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Swap")
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

/// A NOTIFY and its answer, owned: what a [`Handler`] gets and gives back.
///
/// Returned it is the answer; dropped it answers nothing. The memory behind it goes back to its
/// connection and serves the next NOTIFY.
#[derive(Debug)]
#[must_use = "return it: an exchange that is dropped answers nothing"]
pub struct Exchange(Box<Owned>);

#[derive(Debug)]
struct Owned {
    payload: Vec<u8>,
    info: Arc<ConnectionInfo>,
    draft: Draft,
    /// One message of several failed, and `draft` holds its fallback.
    failure: Option<Failure>,
}

impl Exchange {
    /// Copies what a NOTIFY borrows.
    pub(crate) fn new(notify: &Notify<'_>, bounds: Bounds, spare: Option<Self>) -> Self {
        let mut owned = match spare {
            Some(Self(mut owned)) => {
                owned.payload.clear();
                owned.draft.actions.clear();
                owned.draft.ids = notify.ids();
                owned.draft.bounds = bounds;
                owned.draft.refused = false;
                owned.failure = None;
                if !Arc::ptr_eq(&owned.info, notify.connection()) {
                    owned.info = Arc::clone(notify.connection());
                }
                owned
            }
            None => {
                Self::empty(notify.ids(), Arc::clone(notify.connection()), bounds, Vec::new()).0
            }
        };
        owned.payload.extend_from_slice(notify.payload());
        Self(owned)
    }

    fn empty(ids: Ids, info: Arc<ConnectionInfo>, bounds: Bounds, payload: Vec<u8>) -> Self {
        let draft = Draft::new(ids, bounds);
        Self(Box::new(Owned { payload, info, draft, failure: None }))
    }

    /// What makes another exchange of the same NOTIFY.
    pub(crate) fn seed(&self) -> Seed {
        let Draft { ids, bounds, .. } = self.0.draft;
        Seed { ids, info: Arc::clone(&self.0.info), bounds }
    }

    /// The NOTIFY's bytes, for whoever reads them while actions are added.
    pub(crate) fn take_payload(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.0.payload)
    }

    /// Puts them back.
    pub(crate) fn put_payload(&mut self, payload: Vec<u8>) {
        self.0.payload = payload;
    }

    /// Adds actions that are encoded already.
    pub(crate) fn append(&mut self, actions: &[u8]) -> Result<(), SetError> {
        self.0.draft.add(actions.len(), |out| out.extend_from_slice(actions))
    }

    /// Actions were refused elsewhere.
    pub(crate) fn refuse(&mut self, refused: bool) {
        self.0.draft.refused |= refused;
    }

    pub(crate) fn set_failure(&mut self, failure: Failure) {
        self.0.failure = Some(failure);
    }

    pub(crate) fn take_failure(&mut self) -> Option<Failure> {
        self.0.failure.take()
    }

    /// Whether this is the exchange of that NOTIFY.
    pub(crate) fn is_of(&self, ids: Ids, connection: u64) -> bool {
        self.0.draft.ids == ids && self.0.draft.bounds.connection == connection
    }

    pub(crate) fn actions(&self) -> &[u8] {
        &self.0.draft.actions
    }

    pub(crate) const fn refused(&self) -> bool {
        self.0.draft.refused
    }

    pub(crate) const fn bounds(&self) -> &Bounds {
        &self.0.draft.bounds
    }

    /// The NOTIFY, and where its answer goes.
    pub(crate) fn parts(&mut self) -> (Notify<'_>, Ids, &mut Vec<u8>, &mut bool) {
        let Owned { payload, info, draft, .. } = &mut *self.0;
        let notify = Notify::new(Messages::checked(payload), draft.ids, info);
        (notify, draft.ids, &mut draft.actions, &mut draft.refused)
    }

    /// Memory held.
    pub(crate) const fn capacity(&self) -> usize {
        self.0.payload.capacity() + self.0.draft.actions.capacity()
    }

    /// The NOTIFY, borrowed.
    #[must_use]
    pub const fn notify(&self) -> Notify<'_> {
        Notify::new(Messages::checked(self.0.payload.as_slice()), self.0.draft.ids, &self.0.info)
    }

    /// The messages, in order.
    #[must_use]
    pub const fn messages(&self) -> Messages<'_> {
        self.notify().messages()
    }

    /// The first message of that name; `None` where HAProxy did not send it.
    #[must_use]
    pub fn message(&self, name: &str) -> Option<Message<'_>> {
        self.notify().message(name)
    }

    /// The first message of that name.
    ///
    /// # Errors
    /// When there is none; the error says which messages there are.
    pub fn require(&self, name: &str) -> Result<Message<'_>, ArgError> {
        self.notify().require(name)
    }

    /// See [`Notify::stream_id`].
    #[must_use]
    pub const fn stream_id(&self) -> u64 {
        self.0.draft.ids.stream
    }

    /// See [`Notify::frame_id`].
    #[must_use]
    pub const fn frame_id(&self) -> u64 {
        self.0.draft.ids.frame
    }

    /// Who asks.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.0.info.peer()
    }

    /// HAProxy's `engine-id`.
    #[must_use]
    pub fn engine_id(&self) -> Option<&[u8]> {
        self.0.info.engine_id()
    }

    /// The NOTIFY, borrowed, and the answer beside it: what was asked can go into the answer without a
    /// copy of its own.
    ///
    /// ```
    /// use spop_proto::{Exchange, HandlerError, Scope};
    ///
    /// # async fn look_up(_: &str) -> std::io::Result<i32> { Ok(1) }
    /// async fn rate(mut x: Exchange) -> Result<Exchange, HandlerError> {
    ///     let (notify, mut reply) = x.split();
    ///     let path: &str = notify.require("check-request")?.get("path")?;
    ///     reply.set(Scope::Transaction, "score", look_up(path).await?)?;
    ///     reply.set(Scope::Transaction, "rated", path)?;
    ///     Ok(x)
    /// }
    /// # use spop_proto::{Router, testing};
    /// # let router = Router::new().concurrent("check-request", rate);
    /// # let answer = testing::message("check-request").arg("path", "/login").ask(&router);
    /// # assert_eq!(answer.to_string(), "txn.score = int32 1\ntxn.rated = str /login\n");
    /// ```
    ///
    /// [`set`](Self::set) would have the exchange as a whole, and the compiler refuses that while something
    /// of it is borrowed (E0502):
    ///
    /// ```compile_fail
    /// # use spop_proto::{Exchange, HandlerError, Scope};
    /// # fn rate(mut x: Exchange) -> Result<Exchange, HandlerError> {
    /// let path: &str = x.require("check-request")?.get("path")?;
    /// x.set(Scope::Transaction, "rated", path)?;
    /// # Ok(x)
    /// # }
    /// ```
    pub fn split(&mut self) -> (Notify<'_>, Reply<'_>) {
        let Owned { payload, info, draft, .. } = &mut *self.0;
        (Notify::new(Messages::checked(payload), draft.ids, info), Reply::new(draft))
    }

    /// Sets a variable. See [`Ack::set`]; for a value borrowed from this exchange see
    /// [`split`](Self::split).
    ///
    /// # Errors
    /// When HAProxy would drop the name, or when the action does not fit the frame.
    pub fn set<'v>(
        &mut self,
        scope: Scope,
        name: &str,
        value: impl Into<Value<'v>>,
    ) -> Result<(), SetError> {
        self.reply().set(scope, name, value)
    }

    /// Sets a variable whose name was checked before.
    ///
    /// # Errors
    /// When the name is too long with the configured prefix, or the action does not fit.
    pub fn set_var<'v>(
        &mut self,
        var: Var<'_>,
        value: impl Into<Value<'v>>,
    ) -> Result<(), SetError> {
        self.reply().set_var(var, value)
    }

    /// Removes a variable.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn unset(&mut self, scope: Scope, name: &str) -> Result<(), SetError> {
        self.reply().unset(scope, name)
    }

    /// Removes a variable whose name was checked before.
    ///
    /// # Errors
    /// As [`set_var`](Self::set_var).
    pub fn unset_var(&mut self, var: Var<'_>) -> Result<(), SetError> {
        self.reply().unset_var(var)
    }

    /// Takes back all actions.
    pub fn clear(&mut self) {
        self.reply().clear();
    }

    fn reply(&mut self) -> Reply<'_> {
        Reply::new(&mut self.0.draft)
    }
}

/// What an [`Exchange`] is made of, without what HAProxy asked.
pub(crate) struct Seed {
    ids: Ids,
    info: Arc<ConnectionInfo>,
    bounds: Bounds,
}

impl Seed {
    /// An exchange of the same NOTIFY that holds these messages.
    pub(crate) fn exchange(&self, payload: Vec<u8>) -> Exchange {
        Exchange::empty(self.ids, Arc::clone(&self.info), self.bounds, payload)
    }

    /// Whether it is one of the same NOTIFY.
    pub(crate) fn made(&self, exchange: &Exchange) -> bool {
        exchange.is_of(self.ids, self.bounds.connection)
    }
}
