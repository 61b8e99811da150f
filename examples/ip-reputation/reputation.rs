//! The agent itself: an address in, a score out.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use spop_proto::{Ack, Action, ArgError, HandlerError, Message, Router, Scope};

use crate::list::List;

/// The message of spoe.conf. One of another name is answered like it, if it has the argument.
pub(crate) const MESSAGE: &str = "check-client-ip";
/// The argument that makes a message ours: `args ip=src` in spoe.conf.
const IP: &str = "ip";
/// The argument that finds the request in HAProxy's log, `%ID`: `id=unique-id` in spoe.conf.
pub(crate) const REQUEST_ID: &str = "id";
/// The variable we set. HAProxy puts the scope and its `var-prefix` in front.
pub(crate) const IP_SCORE: &str = "ip_score";

/// What a message asks.
#[derive(Debug, Deserialize)]
struct Asked {
    ip: IpAddr,
}

/// Answers with the score of the address asked about.
#[derive(Debug)]
pub(crate) struct Reputation {
    /// Replaced whole on SIGHUP: a message sees the old list or the new one, never a mixture.
    list: RwLock<Arc<List>>,
    scope: Scope,
}

impl Default for Reputation {
    fn default() -> Self {
        Self::new(List::default(), Scope::Transaction)
    }
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

    /// What HAProxy is to set; nothing where the message has no argument `ip`.
    pub(crate) fn verdict(
        &self,
        message: &Message<'_>,
    ) -> Result<Option<Action<'static>>, ArgError> {
        if message.arg(IP).is_none() {
            return Ok(None);
        }
        // NULL, or something else than an address: the error names the message and what HAProxy
        // sent, the request gets no verdict, and rule 3 of haproxy.cfg decides.
        let Asked { ip } = message.deserialize()?;
        Ok(Some(Action::set(self.scope, IP_SCORE, self.list().score(ip))))
    }

    fn answer(&self, message: &Message<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
        if let Some(action) = self.verdict(message)? {
            ack.action(&action)?;
        }
        Ok(())
    }
}

/// The agent: what it answers, and what it wants to be sent.
pub(crate) fn router(reputation: Arc<Reputation>) -> Router {
    let others = Arc::clone(&reputation);
    Router::new()
        .on(MESSAGE, move |message, ack| reputation.answer(&message, ack))
        // We need `ip`; `path` and `id` are there to find the request in a log.
        .args::<Asked>()
        .declares(["ip=src", "path?=path", "id?=unique-id"])
        .otherwise(move |message, ack| others.answer(&message, ack))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use spop_proto::Value;
    use spop_proto::testing::{self, Question};

    use super::*;

    fn agent() -> Router {
        let list = List::parse(&b"192.0.2.0/24 95\n2001:db8::/32 20\n"[..]).unwrap();
        router(Arc::new(Reputation::new(list, Scope::Transaction)))
    }

    fn question() -> Question {
        testing::message(MESSAGE).prefix("iprep")
    }

    #[test]
    fn an_address_gets_its_score() {
        let listed = question().arg("ip", Ipv4Addr::new(192, 0, 2, 7)).ask(&agent());
        assert_eq!(listed.to_string(), "txn.iprep.ip_score = int32 95\n");
        let listed = question().arg("ip", Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
        assert_eq!(listed.ask(&agent()).to_string(), "txn.iprep.ip_score = int32 20\n");
        let other = question().arg("ip", Ipv4Addr::LOCALHOST).ask(&agent());
        assert_eq!(other.get(Scope::Transaction, IP_SCORE), Some(Value::Int32(10)));
    }

    #[test]
    fn messages_of_other_names_count_if_they_have_an_address() {
        let question = testing::message("my-message-name").arg("ip", Ipv4Addr::LOCALHOST);
        assert_eq!(question.ask(&agent()).to_string(), "txn.ip_score = int32 10\n");
        let answer = testing::message("log-only").arg("path", "/").ask(&agent());
        assert!(answer.is_handled());
        assert_eq!(answer.actions().count(), 0);
    }

    #[test]
    fn what_is_no_address_gets_no_score() {
        for (ip, text) in [(Value::Null, "is NULL"), (Value::Str(b"localhost"), "is str")] {
            let answer = question().arg("ip", ip).ask(&agent());
            assert_eq!(answer.actions().count(), 0);
            assert!(answer.error().unwrap().contains(text), "{answer}");
        }
    }
}
