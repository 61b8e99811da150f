//! The agent itself: an address in, a score out.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use spop_proto::{Ack, Action, HandlerError, Notify, Scope, Service, SetError};

use crate::list::List;

/// The argument that makes a message ours: `args ip=src` in spoe.conf.
const IP: &str = "ip";
/// The variable we set. HAProxy puts the scope and its `var-prefix` in front.
const IP_SCORE: &str = "ip_score";

/// Answers with the score of the address asked about.
#[derive(Debug)]
pub(crate) struct Reputation {
    /// Replaced whole on SIGHUP: a request sees the old list or the new one, never a mixture.
    list: RwLock<Arc<List>>,
    scope: Scope,
}

impl Reputation {
    pub(crate) fn new(list: List, scope: Scope) -> Self {
        Self { list: RwLock::new(Arc::new(list)), scope }
    }

    /// The list in use.
    pub(crate) fn list(&self) -> Arc<List> {
        // A lock that only ever guards an assignment cannot be poisoned half-way.
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on requests are answered from `list`.
    pub(crate) fn replace(&self, list: List) {
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
    }

    /// Answers every message with an argument `ip`. What to do with an answer is the caller's: the
    /// agent puts it into its ACK, the demo looks at it as well.
    pub(crate) fn answer(
        &self,
        notify: Notify<'_>,
        mut act: impl FnMut(&Action<'_>) -> Result<(), SetError>,
    ) -> Result<(), HandlerError> {
        let list = self.list();
        for message in notify.messages() {
            if message.arg(IP).is_some() {
                // NULL, or something else than an address: the error names the message and what
                // HAProxy sent, the request gets no verdict, and rule 3 of haproxy.cfg decides.
                let ip: IpAddr = message.get(IP)?;
                act(&Action::set(self.scope, IP_SCORE, list.score(ip)))?;
            }
        }
        Ok(())
    }
}

impl Service for Reputation {
    fn notify(&self, notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
        self.answer(notify, |action| ack.action(action))
    }
}
