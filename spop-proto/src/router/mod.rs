//! A handler for each message.

mod declared;
mod description;
mod unknown;
mod waiting;
mod watch;

use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use thiserror::Error;

pub use self::declared::{Declared, Kind};
pub use self::description::{Description, ParseDescriptionError};
use self::unknown::Unknown;
use self::waiting::{Waiting, alone};
use self::watch::Watch;
use crate::ack::Ack;
use crate::config::{ConfigError, encode_fallback};
use crate::exchange::{Exchange, Seed};
use crate::handler::{Dispatch, HandlerError, Service, TellMismatch, Turn};
use crate::request::{ArgError, Notify};
use crate::shown;
use crate::stats::{MessageCounts, Striped};
use crate::tasks::{Failure, panic_text};
use crate::wire::{Action, Message, Messages};

/// A [`Router`] whose routes all answer at once: a [`Service`], for every adapter.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "there is no value of it")]
pub enum AtOnce {}

/// A [`Router`] with a route that waits: for the asynchronous adapters.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "there is no value of it")]
pub enum Mixed {}

/// A handler for each message, by its name: that of its `spoe-message` section.
///
/// ```
/// use spop_proto::{Action, Router, Scope, Var};
/// use std::net::IpAddr;
///
/// const IP_SCORE: Var<'_> = Var::transaction("ip_score");
///
/// fn router() -> Result<Router, spop_proto::ConfigError> {
///     Ok(Router::new()
///         .on("check-client-ip", |message, ack| {
///             let ip: IpAddr = message.get("ip")?;
///             ack.set_var(IP_SCORE, if ip.is_loopback() { 0 } else { 20 })?;
///             Ok(())
///         })
///         .fallback([Action::set(Scope::Transaction, "ip_score", 100)])?
///         .on("log-only", |_, _| Ok(())))
/// }
/// # use spop_proto::{testing, Value};
/// # let answer = testing::message("check-client-ip").message("log-only").ask(&router()?);
/// # assert_eq!(answer.get(Scope::Transaction, "ip_score"), Some(Value::Int32(100)));
/// # Ok::<(), spop_proto::ConfigError>(())
/// ```
///
/// It is a [`Service`]: `Agent::new(router()?)`. With [`concurrent`](Self::concurrent) it is a
/// [`Dispatch`] instead, `Agent::with(router()?)` of the asynchronous adapters: a NOTIFY none of whose
/// messages waits is answered at once all the same, without allocation.
///
/// # Several messages in a NOTIFY
/// Their handlers run in the order of the messages, and their actions stand in that order in the one
/// ACK. (Those that answer at once do so before the first that waits is begun.)
///
/// # When a handler fails
/// An error or a panic of a route with a [`fallback`](Self::fallback) replaces the actions of that
/// message, and no others. Without one it is the agent's fallback
/// ([`AgentConfig::fallback`](crate::AgentConfig::fallback)) that is the answer to the whole NOTIFY, as
/// it is at the deadline and under overload, which no route sees. Logs and counters tell both.
///
/// # Messages without a route
/// They get an empty answer, unless [`otherwise`](Self::otherwise) says something else. They are counted
/// ([`unknown_messages`](Self::unknown_messages)), and [`on_unknown`](Self::on_unknown) hears of each
/// name once.
#[must_use = "a router does nothing until an agent has it"]
pub struct Router<M = AtOnce> {
    routes: Vec<Route>,
    otherwise: Option<Inline>,
    unknown: Unknown,
    /// How often messages without a route came.
    other: Arc<Striped>,
    mismatch: OnceLock<TellMismatch>,
    mode: PhantomData<fn() -> M>,
}

type Inline =
    Box<dyn Fn(Message<'_>, &mut Ack<'_>) -> Result<(), HandlerError> + Send + Sync + 'static>;

struct Route {
    message: Box<str>,
    work: Work,
    /// Encoded actions.
    fallback: Option<Box<[u8]>>,
    declared: Vec<Declared>,
    watch: Watch,
    /// How often it came.
    asked: Arc<Striped>,
}

enum Work {
    Inline(Inline),
    Waiting(Waiting),
}

impl Router {
    /// A router without routes.
    pub fn new() -> Self {
        Self {
            routes: Vec::new(),
            otherwise: None,
            unknown: Unknown::new(),
            other: Arc::default(),
            mismatch: OnceLock::new(),
            mode: PhantomData,
        }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Router<M> {
    /// Answers that message at once. A second handler for the same name replaces the first.
    ///
    /// What follows up to the next route ([`fallback`](Self::fallback), [`declares`](Self::declares),
    /// `args`) is about this one.
    pub fn on<F>(self, message: &str, handler: F) -> Self
    where
        F: Fn(Message<'_>, &mut Ack<'_>) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        self.route(message, Work::Inline(Box::new(handler)))
    }

    /// Answers that message in a future. The exchange has this message alone, whatever else the NOTIFY
    /// had; its future's memory is used again.
    ///
    /// ```
    /// use spop_proto::{Router, Scope, handler::Mixed};
    ///
    /// # async fn look_up(_: std::net::IpAddr) -> std::io::Result<i32> { Ok(1) }
    /// let router: Router<Mixed> = Router::new().concurrent("check-client-ip", |mut x| async move {
    ///     let ip = x.require("check-client-ip")?.get("ip")?;
    ///     let score = look_up(ip).await?;
    ///     x.set(Scope::Transaction, "ip_score", score)?;
    ///     Ok(x)
    /// });
    /// # let _ = router;
    /// ```
    pub fn concurrent<F, Fut>(self, message: &str, handler: F) -> Router<Mixed>
    where
        F: Fn(Exchange) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Exchange, HandlerError>> + Send + 'static,
    {
        let Self { routes, otherwise, unknown, other, mismatch, mode: _ } = self;
        let router = Router { routes, otherwise, unknown, other, mismatch, mode: PhantomData };
        router.route(message, Work::Waiting(Waiting::new(handler)))
    }

    fn route(mut self, message: &str, work: Work) -> Self {
        self.routes.retain(|route| *route.message != *message);
        self.routes.push(Route {
            message: message.into(),
            work,
            fallback: None,
            declared: Vec::new(),
            watch: Watch::default(),
            asked: Arc::default(),
        });
        self
    }

    /// The actions HAProxy gets for the message of the route before this when its handler fails; with
    /// none, that message sets nothing. The other messages of the NOTIFY keep theirs.
    ///
    /// # Errors
    /// When there is no route before; when a name is one HAProxy would drop, or the actions take more
    /// than the 230 bytes that fit the smallest frame SPOP allows.
    pub fn fallback<'a>(
        mut self,
        actions: impl IntoIterator<Item = Action<'a>>,
    ) -> Result<Self, ConfigError> {
        let encoded = encode_fallback(actions, None)?;
        let route = self.routes.last_mut().ok_or(ConfigError::FallbackWithoutRoute)?;
        route.fallback = Some(encoded);
        Ok(self)
    }

    /// Says which arguments the route before this takes, in the words of an `args` line: `ip=src`, or
    /// `ip` alone; `id?=unique-id` may be missing. It changes no answer: it is for tools, see [`description`](Self::description), and for
    /// [`on_mismatch`](Self::on_mismatch). What `args` already said stays and gets the fetch.
    pub fn declares<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        if let Some(route) = self.routes.last_mut() {
            for arg in args {
                declared::add(&mut route.declared, Declared::parse(arg));
            }
        }
        self
    }

    /// Says that the route before this takes the fields of `T` as arguments. See
    /// [`declares`](Self::declares).
    ///
    /// ```
    /// # use spop_proto::Router;
    /// #[derive(serde::Deserialize)]
    /// struct Check<'a> { ip: std::net::IpAddr, path: Option<&'a str> }
    ///
    /// let router = Router::new()
    ///     .on("check", |message, _| { let _: Check<'_> = message.deserialize()?; Ok(()) })
    ///     .args::<Check<'_>>();
    /// let (name, args) = router.declared().next().unwrap();
    /// let args: Vec<_> = args.iter().map(ToString::to_string).collect();
    /// assert_eq!((name, args.join(", ").as_str()), ("check", "ip: an address, path: a string, optional"));
    /// ```
    #[cfg(feature = "serde")]
    pub fn args<T: serde::Deserialize<'static>>(mut self) -> Self {
        if let Some(route) = self.routes.last_mut() {
            for arg in crate::deserialize::fields::<T>() {
                declared::add(&mut route.declared, arg);
            }
        }
        self
    }

    /// Answers messages without a route, at once; they are not counted as unknown then. (The
    /// [`fallback`](Self::fallback) is another thing: for handlers that fail.)
    pub fn otherwise<F>(mut self, handler: F) -> Self
    where
        F: Fn(Message<'_>, &mut Ack<'_>) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        self.otherwise = Some(Box::new(handler));
        self
    }

    /// Tells of a message without a route: once for each name, and of no more than 64. Meant for a log.
    ///
    /// ```
    /// # use spop_proto::Router;
    /// let router = Router::new().on_unknown(|name| eprintln!("HAProxy sends {name}: no handler"));
    /// # let _ = router;
    /// ```
    pub fn on_unknown(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.unknown.tell_by(tell);
        self
    }

    /// Tells of an argument that HAProxy sends otherwise than its route declares
    /// ([`declares`](Self::declares), `args`): not at all although it is not optional, as another type, or
    /// as nothing but NULL in 1000 messages. Once for each argument, of the first 64 of a route, and
    /// only about the first 1000 messages of it: then nothing is looked at any more. The text says what to
    /// change in HAProxy's configuration. No answer is changed.
    ///
    /// Without this the adapters log it (see [`logging`](crate::logging)); `on_mismatch(|_| {})` for silence.
    ///
    /// ```
    /// # use spop_proto::{Router, testing};
    /// # use std::sync::{Arc, Mutex};
    /// # let log = Arc::new(Mutex::new(Vec::new()));
    /// # let lines = Arc::clone(&log);
    /// # let tell = move |text: String| lines.lock().unwrap().push(text);
    /// let router = Router::new()
    ///     .on("check", |_, _| Ok(()))
    ///     .declares(["ip=src"])
    ///     .on_mismatch(move |mismatch| tell(mismatch.to_string()));
    /// testing::message("check").arg("src", "192.0.2.1").ask(&router);
    /// # assert_eq!(
    /// #     log.lock().unwrap().concat(),
    /// #     "message check: argument ip is missing; HAProxy sent src. In the spoe-message section: args ip=…"
    /// # );
    /// ```
    pub fn on_mismatch(mut self, tell: impl Fn(&ArgError) + Send + Sync + 'static) -> Self {
        self.mismatch = OnceLock::from(Box::new(tell) as TellMismatch);
        self
    }

    /// How many messages had neither a route nor [`otherwise`](Self::otherwise). (An `Arc` of a router
    /// is as good to an agent as the router.)
    #[must_use]
    pub fn unknown_messages(&self) -> u64 {
        self.unknown.count()
    }

    /// How often each message with a route came, and all others together as `other`: what agents publish
    /// as `spop_agent_messages_total`.
    #[must_use]
    pub fn message_counts(&self) -> MessageCounts {
        let routes = self.routes.iter();
        let routes: Vec<_> =
            routes.map(|route| (route.message.clone(), Arc::clone(&route.asked))).collect();
        let other = Arc::clone(&self.other);
        MessageCounts::new(move |tell| {
            routes.iter().for_each(|(message, asked)| tell(message, asked.get()));
            tell("other", other.get());
        })
    }

    /// The messages with a route, and the arguments that were declared for each.
    pub fn declared(&self) -> impl Iterator<Item = (&str, &[Declared])> {
        self.routes.iter().map(|route| (&*route.message, route.declared.as_slice()))
    }

    /// The same as a value of its own, which can be printed and read again. It is also what the agent says
    /// of itself to `spop-lint --agent` ([`AgentConfig::description`](crate::AgentConfig::description)).
    #[must_use]
    pub fn description(&self) -> Description {
        Description::new(self.declared())
    }

    /// Few names, short ones: nothing is faster than to look.
    #[inline]
    fn find(&self, message: &[u8]) -> Option<&Route> {
        self.routes.iter().find(|route| route.message.as_bytes() == message)
    }

    fn waiting(&self, message: &[u8]) -> Option<(&Route, &Waiting)> {
        match self.find(message) {
            Some(route @ Route { work: Work::Waiting(waiting), .. }) => Some((route, waiting)),
            _ => None,
        }
    }

    /// Answers all messages that do so at once; `waits` is told where the others' actions belong.
    #[inline]
    fn answer(
        &self,
        notify: &Notify<'_>,
        ack: &mut Ack<'_>,
        mut waits: impl FnMut(usize),
    ) -> Result<Option<HandlerError>, HandlerError> {
        let mut failed = None;
        let mut acks = ack.one_by_one();
        for message in notify.messages() {
            let ack = acks.next();
            let route = self.find(message.name());
            route.map_or(&self.other, |route| &route.asked).count(ack.connection());
            if let (Some(tell), Some(route)) = (self.mismatch.get(), route) {
                route.watch.look(&route.declared, &message, tell);
            }
            let failure = match route {
                Some(Route { work: Work::Inline(handler), fallback, .. }) => match fallback {
                    None => handler(message, ack).map(|()| None),
                    Some(fallback) => guarded(handler, fallback, message, ack),
                },
                Some(_) => {
                    waits(ack.len());
                    continue;
                }
                None => match &self.otherwise {
                    Some(handler) => handler(message, ack).map(|()| None),
                    None => {
                        self.unknown.met(message.name());
                        continue;
                    }
                },
            };
            if let Some(failure) = failure? {
                failed.get_or_insert(failure);
            }
        }
        Ok(failed)
    }

    /// Answers in a future what did not answer at once.
    async fn wait(&self, mut exchange: Exchange, begun: Begun) -> Result<Exchange, HandlerError> {
        let Begun { inline, first, rest, mut failed } = begun;
        let marks = || core::iter::once(first).chain(rest.iter().copied());
        let seed = exchange.seed();
        if exchange.messages().nth(1).is_none() {
            let name = exchange.messages().next().map_or(&b""[..], |message| message.name());
            let Some((route, waiting)) = self.waiting(name) else { return Ok(exchange) };
            let Some(fallback) = &route.fallback else { return waiting.run(exchange).await };
            return match waiting.run_guarded(&route.message, exchange).await {
                Ok(exchange) => Ok(exchange),
                Err(error) => {
                    let mut exchange = seed.exchange(Vec::new());
                    exchange.append(fallback)?;
                    exchange.set_failure(Failure::of(error));
                    Ok(exchange)
                }
            };
        }
        // Looked through once, while actions are added to the exchange.
        let payload = exchange.take_payload();
        let mut parts = Messages::checked(&payload)
            .filter_map(|message| Some((self.waiting(message.name())?, message)));
        let mut from = 0;
        for at in marks() {
            exchange.append(inline.get(from..at).unwrap_or_default())?;
            from = at;
            let Some(((route, waiting), message)) = parts.next() else { break };
            let part = seed.exchange(alone(&message));
            let Some(fallback) = &route.fallback else {
                let part = waiting.run(part).await?;
                exchange.join(&seed, &part)?;
                continue;
            };
            let part = waiting.run_guarded(&route.message, part).await;
            let joined = part.and_then(|part| exchange.join(&seed, &part));
            if let Err(error) = joined {
                exchange.append(fallback)?;
                failed.get_or_insert(error);
            }
        }
        exchange.append(inline.get(from..).unwrap_or_default())?;
        if let Some(error) = failed {
            exchange.set_failure(Failure::of(error));
        }
        exchange.put_payload(payload);
        Ok(exchange)
    }
}

/// What a NOTIFY with messages that wait has got so far.
struct Begun {
    /// The actions of the messages that did not wait.
    inline: Vec<u8>,
    /// Where among them those of the messages that wait belong. Mostly there is one.
    first: usize,
    rest: Vec<usize>,
    failed: Option<HandlerError>,
}

/// Runs a handler whose failure is replaced by its fallback; says what it was.
fn guarded(
    handler: &Inline,
    fallback: &[u8],
    message: Message<'_>,
    ack: &mut Ack<'_>,
) -> Result<Option<HandlerError>, HandlerError> {
    let error = match catch_unwind(AssertUnwindSafe(|| handler(message, ack))) {
        Ok(Ok(())) => return Ok(None),
        Ok(Err(error)) => error,
        Err(panic) => RoutePanicked::new(message.name(), &panic_text(panic)).into(),
    };
    ack.clear();
    ack.append(fallback)?;
    Ok(Some(error))
}

impl Exchange {
    /// Adds the actions of a part.
    fn join(&mut self, seed: &Seed, part: &Self) -> Result<(), HandlerError> {
        if !seed.made(part) {
            return Err(HandlerError::new("returned the exchange of another request"));
        }
        self.refuse(part.refused());
        Ok(self.append(part.actions())?)
    }
}

/// That a handler of a router panicked: a [`Failure::Panic`] on its way through a [`HandlerError`].
#[derive(Debug, Error)]
#[error("panicked: {0}")]
pub(crate) struct RoutePanicked(pub(crate) Box<str>);

impl RoutePanicked {
    fn new(message: &[u8], text: &str) -> Self {
        Self(format!("message {}: {text}", shown::name(message)).into())
    }
}

impl<M> Router<M> {
    /// Without routes there is nothing to say.
    fn described(&self) -> Option<Description> {
        (!self.routes.is_empty()).then(|| self.description())
    }
}

impl Service for Router {
    fn message_counts(&self) -> Option<MessageCounts> {
        Some(Self::message_counts(self))
    }

    fn tell_mismatches(&self, tell: TellMismatch) {
        // Whoever was told to tell first does.
        let _ = self.mismatch.set(tell);
    }

    fn describe(&self) -> Option<Description> {
        self.described()
    }

    #[inline]
    fn notify(&self, notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
        match self.answer(&notify, ack, |_| {})? {
            None => Ok(()),
            Some(failure) => {
                ack.stand();
                Err(failure)
            }
        }
    }
}

impl<M: 'static> Dispatch for Router<M> {
    fn message_counts(&self) -> Option<MessageCounts> {
        Some(Self::message_counts(self))
    }

    fn tell_mismatches(&self, tell: TellMismatch) {
        // Whoever was told to tell first does.
        let _ = self.mismatch.set(tell);
    }

    fn describe(&self) -> Option<Description> {
        self.described()
    }

    #[inline]
    fn serve<'s>(
        &'s self,
        notify: Notify<'_>,
        ack: &mut Ack<'_>,
        own: &mut dyn FnMut() -> Exchange,
    ) -> Turn<impl Future<Output = Result<Exchange, HandlerError>> + Send + use<'s, M>> {
        let mut first = None;
        let mut rest = Vec::new();
        let answered = self.answer(&notify, ack, |at| match first {
            None => first = Some(at),
            Some(_) => rest.push(at),
        });
        let failed = match answered {
            Ok(failed) => failed,
            Err(error) => return Turn::Done(Err(error)),
        };
        let Some(first) = first else {
            return Turn::Done(failed.map_or(Ok(()), |failure| {
                ack.stand();
                Err(failure)
            }));
        };
        let mut exchange = own();
        let (inline, refused) = ack.held();
        exchange.refuse(refused);
        let begun = Begun { inline: inline.to_vec(), first, rest, failed };
        Turn::Later(self.wait(exchange, begun))
    }
}

impl<M> fmt::Debug for Router<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.routes.iter().map(|route| &route.message);
        f.debug_list().entries(names).finish()
    }
}
