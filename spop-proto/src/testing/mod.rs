//! Ask a handler what HAProxy would ask, without HAProxy: for unit tests.
//!
//! ```
//! use spop_proto::{Router, Scope, Value, testing};
//! use std::net::Ipv4Addr;
//!
//! let router = Router::new().on("check-client-ip", |message, ack| {
//!     let ip: std::net::IpAddr = message.get("ip")?;
//!     ack.set(Scope::Transaction, "ip_score", if ip.is_loopback() { 0 } else { 20 })?;
//!     Ok(())
//! });
//!
//! let answer = testing::message("check-client-ip").arg("ip", Ipv4Addr::LOCALHOST).ask(&router);
//! assert_eq!(answer.get(Scope::Transaction, "ip_score"), Some(Value::Int32(0)));
//!
//! // What HAProxy has then, in its words: for snapshots.
//! let answer = testing::message("check-client-ip").arg("ip", Ipv4Addr::BROADCAST).prefix("iprep").ask(&router);
//! assert_eq!(answer.to_string(), "txn.iprep.ip_score = int32 20\n");
//!
//! // And what went wrong.
//! let answer = testing::message("check-client-ip").ask(&router);
//! assert!(answer.error().unwrap().contains("argument ip is missing"));
//! ```
//!
//! The question goes through both state machines, [`EngineConnection`](crate::EngineConnection) and
//! [`AgentConnection`](crate::AgentConnection), byte by byte as it would between HAProxy and an adapter:
//! the handshake, the largest frame, the fallback, fragments with [`Dialect::Old`]. There is no runtime,
//! no port and no waiting in it.
//!
//! # Handlers that wait
//! [`ask`](Question::ask) polls a future as long as it wakes itself. Once it waits for something from
//! outside, a clock made up for the test goes on to the deadline at once ([`Outcome::Deadline`]). For
//! handlers that need a runtime (sockets, timers) there is [`ask_async`](Question::ask_async), to be
//! awaited in it; no deadline ends that.
//!
//! It is always there and behind no feature: it brings no dependency, and a program that does not test
//! itself has nothing of it.

mod answer;
mod run;

use core::future::Future;

pub use self::answer::{Answer, Outcome};
use self::run::{ask_now, ask_until_answered};
use crate::handler::{Concurrent, Handler, Mixed, Router, Service};
use crate::wire::{NotifyPayload, Value};
use crate::{AgentConfig, Dialect, Dispatch, Turn};

/// A NOTIFY whose first message has that name.
pub fn message(name: impl AsRef<[u8]>) -> Question {
    Question {
        payload: NotifyPayload::new(name),
        dialect: Dialect::New,
        config: AgentConfig::new(),
        prefix: None,
        max_frame_size: None,
    }
}

/// What HAProxy is to ask. See [`message`].
#[derive(Clone, Debug)]
#[must_use = "ask somebody"]
pub struct Question {
    payload: NotifyPayload,
    dialect: Dialect,
    config: AgentConfig,
    prefix: Option<Box<str>>,
    max_frame_size: Option<u32>,
}

impl Question {
    /// Adds an argument to the message begun last; an empty name is an argument without one.
    pub fn arg<'v>(mut self, name: impl AsRef<[u8]>, value: impl Into<Value<'v>>) -> Self {
        self.payload = self.payload.arg(name, value);
        self
    }

    /// Begins a further message of the same NOTIFY.
    pub fn message(mut self, name: impl AsRef<[u8]>) -> Self {
        self.payload = self.payload.message(name);
        self
    }

    /// Which generation of HAProxy asks. Default [`Dialect::New`].
    pub const fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// HAProxy's `option var-prefix`: names are checked and printed with it.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// The agent's configuration: fallback, limits. Default [`AgentConfig::new`].
    pub fn config(mut self, config: AgentConfig) -> Self {
        self.config = config;
        self
    }

    /// The largest frame that HAProxy offers. Default 16 380 bytes.
    pub const fn max_frame_size(mut self, bytes: u32) -> Self {
        self.max_frame_size = Some(bytes);
        self
    }

    /// Asks a [`Service`], a [`Router`] of either mode, or a [`Handler`] in [`Concurrent`]; for
    /// closures see [`ServiceFn`](crate::handler::ServiceFn) and
    /// [`HandlerFn`](crate::handler::HandlerFn).
    pub fn ask<A: Ask>(&self, agent: &A) -> Answer {
        agent.ask(self)
    }

    /// Asks a [`Handler`], or a [`Router`] with routes that wait, in the runtime that this is awaited in.
    pub fn ask_async<A: AskAsync>(&self, agent: &A) -> impl Future<Output = Answer> {
        agent.ask_async(self)
    }
}

/// What can be asked at once. There is nothing to implement.
pub trait Ask {
    #[doc(hidden)]
    fn ask(&self, question: &Question) -> Answer;
}

/// What can be asked in a runtime. There is nothing to implement.
pub trait AskAsync {
    #[doc(hidden)]
    fn ask_async(&self, question: &Question) -> impl Future<Output = Answer>;
}

impl<S: Service> Ask for S {
    fn ask(&self, question: &Question) -> Answer {
        ask_now(question, |notify, ack, _| {
            Turn::<core::future::Pending<_>>::Done(self.notify(notify, ack))
        })
    }
}

impl Ask for Router<Mixed> {
    fn ask(&self, question: &Question) -> Answer {
        ask_now(question, |notify, ack, own| self.serve(notify, ack, own))
    }
}

impl<H: Handler> Ask for Concurrent<H> {
    fn ask(&self, question: &Question) -> Answer {
        ask_now(question, |notify, ack, own| self.serve(notify, ack, own))
    }
}

impl AskAsync for Router<Mixed> {
    fn ask_async(&self, question: &Question) -> impl Future<Output = Answer> {
        ask_until_answered(question, |notify, ack, own| self.serve(notify, ack, own))
    }
}

impl<H: Handler> AskAsync for H {
    fn ask_async(&self, question: &Question) -> impl Future<Output = Answer> {
        ask_until_answered(question, |_, _, own| Turn::Later(self.notify(own())))
    }
}
