//! A NOTIFY that outlives its connection's turn, and its answer.

use std::sync::Arc;

use crate::ack::{Bounds, SetError};
use crate::inflight::Ids;
use crate::info::{ConnectionInfo, Peer};
use crate::reply::{Draft, Reply};
use crate::request::{ArgError, Notify};
use crate::tasks::Failure;
use crate::vars::Var;
use crate::wire::{Message, Messages, Scope, Value};

/// A NOTIFY and its answer, owned: what a [`Handler`](crate::Handler) gets and gives back.
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

    /// Sets a variable. See [`Ack::set`](crate::Ack::set); for a value borrowed from this exchange see
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
