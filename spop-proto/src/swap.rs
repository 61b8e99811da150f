//! A handler that is replaced while connections are open.

use core::fmt;
use core::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use crate::ack::Ack;
use crate::exchange::Exchange;
use crate::handler::{Handler, HandlerError, Service, TellMismatch};
use crate::request::Notify;
use crate::router::Description;
use crate::stats::MessageCounts;

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
