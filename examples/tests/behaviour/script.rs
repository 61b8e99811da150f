//! The handler of all behaviours: what it does is written in what it is asked.

use std::panic::panic_any;
use std::time::Duration;

use spop_proto::handler::Mixed;
use spop_proto::wire::NotifyPayload;
use spop_proto::{
    Ack, Action, AgentConfig, Exchange, HandlerError, Limits, Notify, Router, Scope, SetError,
    Value,
};

use crate::gate::Gate;

/// What a request asks for: its message's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Sets `txn.number` to the argument `number`.
    Echo,
    /// Sets `txn.length` to the length of the argument `body`.
    Length,
    /// Sets a variable to `number` bytes.
    Fill,
    /// As `Fill`, after another variable; where the bytes do not fit, sets `txn.limit` to the limit
    /// that the error names.
    FillOrTell,
    /// As `Fill`, after another variable; where the bytes do not fit, fails.
    FillOrFail,
    /// Sets a variable and fails.
    Fail,
    /// Sets a variable and panics.
    Panic,
}

/// See [`Setup::router`](crate::adapter::Setup).
pub(crate) fn router() -> Router {
    Router::new().on("echo", |_, _| Ok(())).declares(["number=fe_id"])
}

/// The same with a route that waits.
pub(crate) fn router_that_waits() -> Router<Mixed> {
    Router::new().concurrent("echo", |x| async { Ok(x) }).declares(["number=fe_id"])
}

const WORDS: [(&str, Word); 7] = [
    ("echo", Word::Echo),
    ("length", Word::Length),
    ("fill", Word::Fill),
    ("fill-or-tell", Word::FillOrTell),
    ("fill-or-fail", Word::FillOrFail),
    ("fail", Word::Fail),
    ("panic", Word::Panic),
];

impl Word {
    fn name(self) -> &'static str {
        WORDS.iter().find(|(_, word)| *word == self).map_or("", |(name, _)| name)
    }

    /// A request for it.
    pub(crate) fn number(self, number: i64) -> NotifyPayload {
        NotifyPayload::new(self.name()).arg("number", number)
    }

    /// A request for it that waits at the gate of that number first.
    pub(crate) fn behind(self, number: i64) -> NotifyPayload {
        self.number(number).arg("gate", number)
    }

    /// A request with a body.
    pub(crate) fn body(self, body: &[u8]) -> NotifyPayload {
        NotifyPayload::new(self.name()).arg("number", 0_i64).arg("body", body)
    }
}

/// The answer to [`Word::Echo`], as [`Client`](crate::client::Client) shows it.
pub(crate) fn echo(number: i64) -> Vec<String> {
    vec![format!("set-var txn.number int64:{number}")]
}

/// What a handler that fails, panics or is late leaves HAProxy with.
pub(crate) fn fallback() -> Vec<String> {
    vec!["set-var txn.failed bool:true".to_owned()]
}

/// The configuration with that fallback, and with [`limits`].
pub(crate) fn config() -> AgentConfig {
    let fallback = [Action::set(Scope::Transaction, "failed", true)];
    AgentConfig::new().fallback(fallback).unwrap().limits(limits())
}

/// Limits of time far beyond [`PATIENCE`](crate::PATIENCE): none of them may be what ends a wait,
/// unless a behaviour sets it.
pub(crate) fn limits() -> Limits {
    let long = Duration::from_secs(120);
    let limits = Limits::new().hello_timeout(long).and_then(|limits| limits.frame_timeout(long));
    let limits = limits.and_then(|limits| limits.write_timeout(long));
    limits.and_then(|limits| limits.answer_timeout(long)?.drain_timeout(long)).unwrap()
}

/// The handler, in the two forms there are. Clones share the gate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) gate: Gate,
}

impl Script {
    /// Answers on the thread that calls, which waits at the gate.
    pub(crate) fn answer(
        &self,
        notify: &Notify<'_>,
        ack: &mut Ack<'_>,
    ) -> Result<(), HandlerError> {
        let request = Request::read(notify)?;
        let _visit = request.gate.map(|number| {
            let visit = self.gate.come();
            visit.block(number);
            visit
        });
        request.play(ack)
    }

    /// Answers in a future, which waits at the gate.
    pub(crate) fn answer_later(
        &self,
        mut exchange: Exchange,
    ) -> impl Future<Output = Result<Exchange, HandlerError>> + Send + use<> {
        let gate = self.gate.clone();
        async move {
            let request = Request::read(&exchange.notify())?;
            let visit = request.gate.map(|number| (gate.come(), number));
            if let Some((visit, number)) = &visit {
                visit.pass(*number).await;
            }
            request.play(&mut exchange)?;
            Ok(exchange)
        }
    }
}

/// What a request says, owned.
struct Request {
    word: Word,
    number: i64,
    gate: Option<i64>,
    body: usize,
}

impl Request {
    fn read(notify: &Notify<'_>) -> Result<Self, HandlerError> {
        for (name, word) in WORDS {
            let Some(message) = notify.message(name) else { continue };
            let body = message.arg("body").and_then(|body| body.as_bytes().map(<[u8]>::len));
            let gate = match message.arg("gate") {
                Some(_) => Some(message.get("gate")?),
                None => None,
            };
            let number = message.get("number")?;
            return Ok(Self { word, number, gate, body: body.unwrap_or_default() });
        }
        Err(HandlerError::new("a word that is not in the script"))
    }

    fn play(&self, answer: &mut impl Answer) -> Result<(), HandlerError> {
        let bytes = vec![b'x'; usize::try_from(self.number).unwrap_or_default()];
        let large = Value::Bin(&bytes);
        match self.word {
            Word::Echo => answer.set("number", Value::Int64(self.number))?,
            Word::Length => answer.set("length", Value::Uint32(u32::try_from(self.body)?))?,
            Word::Fill => answer.set("bytes", large)?,
            Word::FillOrTell => {
                answer.set("before", Value::Bool(true))?;
                match answer.set("bytes", large) {
                    Err(SetError::TooBig { limit }) => {
                        answer.set("limit", Value::Uint32(u32::try_from(limit)?))?;
                    }
                    other => other?,
                }
            }
            Word::FillOrFail => {
                answer.set("before", Value::Bool(true))?;
                answer.set("bytes", large)?;
            }
            Word::Fail => {
                answer.set("before", Value::Bool(true))?;
                return Err(HandlerError::new(ON_PURPOSE));
            }
            Word::Panic => {
                answer.set("before", Value::Bool(true))?;
                panic_any(ON_PURPOSE);
            }
        }
        Ok(())
    }
}

/// What a failure that belongs to a behaviour says.
pub(crate) const ON_PURPOSE: &str = "on purpose";

/// What both kinds of handlers write to.
trait Answer {
    fn set(&mut self, name: &str, value: Value<'_>) -> Result<(), SetError>;
}

impl Answer for Ack<'_> {
    fn set(&mut self, name: &str, value: Value<'_>) -> Result<(), SetError> {
        Self::set(self, Scope::Transaction, name, value)
    }
}

impl Answer for Exchange {
    fn set(&mut self, name: &str, value: Value<'_>) -> Result<(), SetError> {
        Self::set(self, Scope::Transaction, name, value)
    }
}
