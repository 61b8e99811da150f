//! Configuration of the agent's side.

use core::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::cut::Told;
use crate::inflight::Owed;
use crate::limits::Limits;
use crate::router::Description;
use crate::server::{Health, HealthState, LameDuck};
use crate::stats::Stats;
use crate::tx::Reason;
use crate::vars::{NameError, Var, check_name, check_prefix};
use crate::wire::{Action, Actions, Scope, Value, encode_set_var};

/// The least max-frame-size in SPOP.
pub(crate) const MIN_MAX_FRAME_SIZE: u32 = 256;
/// The largest max-frame-size that can be configured: 1 GiB.
pub(crate) const LARGEST_MAX_FRAME_SIZE: u32 = 1 << 30;
/// What fits every ACK, whatever was negotiated: the smallest frame less one byte (HAProxy >= 3.1
/// stalls on a frame that fills its buffer), less the largest header.
const FALLBACK_MAX: usize = 256 - 1 - (1 + 4 + 10 + 10);

/// How an agent behaves towards HAProxy. Cheap to clone; setters take and return it by value.
///
/// ```
/// use spop_proto::{Action, AgentConfig, Limits, Scope};
/// use std::time::Duration;
///
/// let config = AgentConfig::new()
///     .var_prefix("iprep")?
///     .fallback([Action::set(Scope::Transaction, "ip_score", 100)])?
///     .limits(Limits::new().answer_timeout(Duration::from_millis(80))?);
/// # Ok::<(), spop_proto::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AgentConfig {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    max_frame_size: u32,
    pipelining: bool,
    fragmentation: bool,
    var_prefix: Option<Box<str>>,
    fallback: Box<[u8]>,
    reason: Option<(Scope, Box<str>)>,
    r#async: bool,
    pacing: Option<Pacing>,
    expected_ack_size: u32,
    limits: Limits,
    health: Health,
    lame_duck: LameDuck,
    owed: Owed,
    stats: Option<Stats>,
    request_id: Option<Arc<str>>,
    /// Empty: not to be told.
    description: Option<Arc<str>>,
    told_of_cuts: Told,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            max_frame_size: 1 << 20,
            pipelining: true,
            fragmentation: true,
            var_prefix: None,
            fallback: Box::default(),
            reason: None,
            r#async: false,
            pacing: Some(Pacing::DEFAULT),
            expected_ack_size: 400,
            limits: Limits::default(),
            health: Health::default(),
            lame_duck: LameDuck::default(),
            owed: Owed::default(),
            stats: None,
            request_id: None,
            description: None,
            told_of_cuts: Told::default(),
        }
    }
}

impl AgentConfig {
    /// The defaults: right for every HAProxy from 2.6 on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// The largest frame this agent takes, in bytes without the length field. Default 1 MiB.
    ///
    /// HAProxy is answered with the lower of this and what it offers. Leave it above HAProxy's
    /// own (16 380 with the default `tune.bufsize`): HAProxy <= 3.0 meets an agent that lowers the
    /// size with errors and reconnects.
    ///
    /// # Errors
    /// Below 256 or above 1 GiB.
    pub fn max_frame_size(self, bytes: u32) -> Result<Self, ConfigError> {
        if !(MIN_MAX_FRAME_SIZE..=LARGEST_MAX_FRAME_SIZE).contains(&bytes) {
            return Err(ConfigError::MaxFrameSize { bytes });
        }
        Ok(self.with(|inner| inner.max_frame_size = bytes))
    }

    /// Whether to announce `pipelining` where HAProxy offers it. Default on; without it HAProxy
    /// opens a connection for each request that runs at the same time.
    #[must_use]
    pub fn pipelining(self, on: bool) -> Self {
        self.with(|inner| inner.pipelining = on)
    }

    /// Whether to announce `fragmentation` and to reassemble. Default on.
    ///
    /// HAProxy <= 3.0 sends a message larger than a frame in fragments only to agents that
    /// announce it, and disconnects and retries without end from those that do not. If it is off,
    /// write `no option send-frag-payload` in the `spoe-agent` section.
    #[must_use]
    pub fn fragmentation(self, on: bool) -> Self {
        self.with(|inner| inner.fragmentation = on)
    }

    /// Whether to announce `async` where HAProxy offers it. Default off, and no adapter has use for
    /// it: HAProxy from 3.1 on does not know it, and up to 3.0 it loses answers at a reload and keeps
    /// requests waiting for `timeout processing` when a connection breaks.
    ///
    /// For event loops of your own: where HAProxy offered it too,
    /// [`AgentConnection::answer_on`](crate::AgentConnection::answer_on) sends an answer over another
    /// connection of the same engine-id.
    #[must_use]
    pub fn r#async(self, on: bool) -> Self {
        self.with(|inner| inner.r#async = on)
    }

    /// How large this agent's larger answers usually are, in bytes of the frame. Default 400.
    ///
    /// HAProxy >= 3.1 must not be sent more at once than its receive buffer takes (see [`Pacing`]). If
    /// twenty answers of this size, twice, would fill it, `pipelining` is not announced there: HAProxy
    /// then opens a connection for each request that runs at the same time, each with a buffer of its
    /// own, and no answer has to wait.
    #[must_use]
    pub fn expected_ack_size(self, bytes: u32) -> Self {
        self.with(|inner| inner.expected_ack_size = bytes)
    }

    /// How answers are held back for HAProxy >= 3.1; `None` sends everything at once. On by default.
    #[must_use]
    pub fn pacing(self, pacing: Option<Pacing>) -> Self {
        self.with(|inner| inner.pacing = pacing)
    }

    /// HAProxy's `option var-prefix` for this agent. Never sent; with it a variable's name is
    /// checked against HAProxy's 63 bytes for scope, prefix and name exactly.
    ///
    /// # Errors
    /// When the prefix has a character that HAProxy refuses, or is empty; when a name in the
    /// fallback, or that of its reason, is too long with it.
    pub fn var_prefix(self, prefix: &str) -> Result<Self, ConfigError> {
        check_prefix(prefix)?;
        for action in Actions::new(&self.inner.fallback).flatten() {
            check_name(action.scope(), action.name(), Some(prefix.len()))?;
        }
        if let Some((scope, name)) = &self.inner.reason {
            check_name(*scope, name.as_bytes(), Some(prefix.len()))?;
        }
        Ok(self.with(|inner| inner.var_prefix = Some(prefix.into())))
    }

    /// The actions HAProxy gets when a handler gives no answer: it returned an error, panicked,
    /// missed its deadline, was shed under overload, or dropped the request; and when a payload in
    /// fragments is refused. Default none: an
    /// empty ACK, after which HAProxy goes on at once with no variable set.
    ///
    /// A router's answer to a message it does not know is another thing.
    ///
    /// # Errors
    /// When a name is one HAProxy would drop, or when the actions, and that of the
    /// [reason](Self::fallback_reason), take more than the 230 bytes that fit the smallest frame SPOP
    /// allows.
    pub fn fallback<'a>(
        self,
        actions: impl IntoIterator<Item = Action<'a>>,
    ) -> Result<Self, ConfigError> {
        let encoded = encode_fallback(actions, self.prefix_len())?;
        let config = self.with(|inner| inner.fallback = encoded);
        config.with_a_fallback_that_fits()
    }

    /// A variable that every fallback answer sets besides, to the reason for it as a string: for a log
    /// or a rule of HAProxy's. Default none.
    ///
    /// | reason | what happened | counted as |
    /// | --- | --- | --- |
    /// | `error` | the handler returned an error | `errors` |
    /// | `too-big` | the same, and the error was that an action did not fit the ACK | `errors`, `too_big` |
    /// | `panic` | the handler panicked | `panics` |
    /// | `deadline` | the answer was late ([`Limits::answer_timeout`]) | `deadlines` |
    /// | `shed` | too many answers were owed or held back, or the agent is about to leave | `shed` |
    /// | `unanswered` | the request was dropped without an answer | `unanswered` |
    /// | `refused` | a payload in fragments was refused | `refused` |
    ///
    /// The counters are those of [`ConnectionStats`](crate::ConnectionStats). A NOTIFY that HAProxy
    /// asked anew with the same ids (`superseded`) has no answer of its own, and so no reason.
    ///
    /// ```
    /// use spop_proto::{AgentConfig, Var};
    ///
    /// let config = AgentConfig::new().fallback_reason(Var::transaction("no_verdict"))?;
    /// # Ok::<(), spop_proto::ConfigError>(())
    /// ```
    /// ```text
    /// http-request set-header x-no-verdict %[var(txn.iprep.no_verdict)]
    /// ```
    ///
    /// # Errors
    /// When HAProxy would drop the name; when the longest reason and the fallback's actions together do
    /// not fit the smallest frame SPOP allows.
    pub fn fallback_reason(self, var: Var<'_>) -> Result<Self, ConfigError> {
        check_name(var.scope(), var.name().as_bytes(), self.prefix_len())?;
        let reason = Some((var.scope(), var.name().into()));
        self.with(|inner| inner.reason = reason).with_a_fallback_that_fits()
    }

    fn with_a_fallback_that_fits(self) -> Result<Self, ConfigError> {
        match self.fallback_len() {
            ..=FALLBACK_MAX => Ok(self),
            bytes => Err(ConfigError::FallbackTooBig { bytes }),
        }
    }

    /// The argument in which HAProxy sends the request's `unique-id` (`args id=unique-id`), to be in
    /// every log line about that request as `request_id`: the line in HAProxy's log (`%ID`) is then found
    /// by it. Default none. It is text of the peer: escaped, and at most 128 bytes of it are written.
    ///
    /// Name no argument whose value should not be in a log; of all others none ever is.
    #[must_use]
    pub fn request_id(self, argument: &str) -> Self {
        self.with(|inner| inner.request_id = Some(argument.into()))
    }

    /// What the agent says of itself to a tool that asks on its port (`spop-lint --agent`,
    /// `spop-check --describe`): the messages it answers and the arguments it takes. `None` keeps it to
    /// itself. Where this is not called, an agent made of a [`Router`](crate::Router) gives the router's
    /// [description](crate::Router::description), and any other none.
    ///
    /// Whoever can connect can ask. HAProxy does not: the tool says so in its HAPROXY-HELLO with an item
    /// `describe`, and the answer is an item `description` in the AGENT-HELLO, left out where the frame
    /// would be larger than agreed on with it.
    ///
    /// ```
    /// use spop_proto::{AgentConfig, Description};
    ///
    /// let takes: Description = "message check-client-ip\n    arg ip ip = src".parse()?;
    /// let config = AgentConfig::new().description(Some(&takes));
    /// # let _ = config;
    /// # Ok::<(), spop_proto::ParseDescriptionError>(())
    /// ```
    #[must_use]
    pub fn description(self, description: Option<&Description>) -> Self {
        let text = description.map(ToString::to_string).unwrap_or_default();
        self.with(|inner| inner.description = Some(text.into()))
    }

    /// The same unless it was called: for adapters, with what a handler says of itself
    /// ([`Service::describe`](crate::Service::describe)).
    #[must_use]
    pub fn description_or(self, own: Option<Description>) -> Self {
        match (own, &self.inner.description) {
            (Some(own), None) => self.description(Some(&own)),
            _ => self,
        }
    }

    /// The limits.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        self.with(|inner| inner.limits = limits)
    }

    /// The switch that health checks are answered from; all clones of the returned handle, and
    /// all clones of the configuration made from here on, share it.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner.health.clone()
    }

    /// Where the connections with this configuration are counted, all together. Default nowhere, besides
    /// in each connection; adapters give each agent counters of its own, whatever its configuration is a
    /// clone of.
    #[must_use]
    pub fn count_in(self, stats: Stats) -> Self {
        self.with(|inner| inner.stats = Some(stats))
    }

    /// What [`count_in`](Self::count_in) named.
    #[must_use]
    pub fn stats(&self) -> Option<&Stats> {
        self.inner.stats.as_ref()
    }

    /// What [`request_id`](Self::request_id) named.
    #[must_use]
    pub fn request_id_argument(&self) -> Option<&Arc<str>> {
        self.inner.request_id.as_ref()
    }

    /// The limits in force.
    #[must_use]
    pub fn current_limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// The configuration for one server, and the switch that makes this server a lame duck: its
    /// health checks fail from then on, those of others with the same configuration do not. Answers
    /// owed are counted for this server alone, too.
    #[must_use]
    pub fn for_server(&self) -> (Self, LameDuck) {
        let lame_duck = LameDuck::default();
        let switch = lame_duck.clone();
        let config = self.clone().with(|inner| {
            inner.lame_duck = lame_duck;
            inner.owed = Owed::default();
            inner.told_of_cuts = Told::default();
        });
        (config, switch)
    }

    /// The arguments of which it was told that they may have been cut.
    pub(crate) fn told_of_cuts(&self) -> &Told {
        &self.inner.told_of_cuts
    }

    /// Whether a health check is to succeed.
    pub(crate) fn is_well(&self) -> bool {
        self.inner.health.get() == HealthState::Ready && !self.inner.lame_duck.is_set()
    }

    /// What to say of itself, if there is something.
    pub(crate) fn own_description(&self) -> Option<&Arc<str>> {
        self.inner.description.as_ref().filter(|text| !text.is_empty())
    }

    pub(crate) fn own_max_frame_size(&self) -> u32 {
        self.inner.max_frame_size
    }

    /// Whether to announce pipelining to a HAProxy that reads into a buffer of that many bytes, or
    /// one that cannot be overwhelmed.
    pub(crate) fn announces_pipelining(&self, buffer: Option<u32>) -> bool {
        // 20 in flight, twice, each with its length field.
        let burst = u64::from(self.inner.expected_ack_size).saturating_add(4).saturating_mul(40);
        let fits = |buffer| burst < u64::from(buffer);
        self.inner.pipelining && buffer.is_none_or(fits)
    }

    pub(crate) fn announces_async(&self) -> bool {
        self.inner.r#async
    }

    pub(crate) fn current_pacing(&self) -> Option<&Pacing> {
        self.inner.pacing.as_ref()
    }

    pub(crate) fn announces_fragmentation(&self) -> bool {
        self.inner.fragmentation
    }

    pub(crate) fn prefix_len(&self) -> Option<usize> {
        self.inner.var_prefix.as_deref().map(str::len)
    }

    /// Writes the fallback's actions.
    pub(crate) fn encode_fallback(&self, reason: Reason, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.inner.fallback);
        if let Some((scope, name)) = &self.inner.reason {
            let reason = Value::Str(reason.0.as_bytes());
            encode_set_var(*scope, name.as_bytes(), &reason, out);
        }
    }

    /// The most bytes it takes.
    pub(crate) fn fallback_len(&self) -> usize {
        let reason = self.inner.reason.as_ref().map_or(0, |(scope, name)| {
            let longest = Value::Str(Reason::LONGEST.0.as_bytes());
            Action::SetVar { scope: *scope, name: name.as_bytes(), value: longest }.encoded_len()
        });
        self.inner.fallback.len() + reason
    }

    /// The answers that all connections owe which share this.
    pub(crate) fn owed(&self) -> &Owed {
        &self.inner.owed
    }

    /// Whether they owe as many as they may, or for as much.
    pub(crate) fn owes_all_it_may(&self) -> bool {
        let Inner { owed, limits, .. } = &*self.inner;
        owed.answers() >= limits.agent_in_flight.get()
            || owed.bytes() >= limits.agent_in_flight_bytes.get()
    }
}

/// How answers are held back so that they never fill the receive buffer of HAProxy >= 3.1.
///
/// That HAProxy reads a connection into a buffer of `tune.bufsize` bytes. A read that fills it to the
/// last byte stops the connection: all its requests, also later ones, wait for `timeout processing`,
/// and nothing is logged (seen up to 3.4.7 and 3.5-dev5). One answer of that size does it (no answer
/// gets that large here), and so do twenty of 850 bytes that arrive at once.
///
/// Small answers are sent at once, at no cost: a connection is looked after from the first answer on of
/// which 64 would fill the buffer (256 bytes with the default size). From then on an answer waits while
/// the bytes that HAProxy may not have read would fill the buffer with it. What it has read cannot be
/// known; it is taken from what HAProxy asks next ([`settle`](Self::settle)) and, when it asks nothing,
/// from the time that has passed ([`stall`](Self::stall)). An agent with large answers declares them
/// ([`AgentConfig::expected_ack_size`]), and nothing waits. `ConnectionStats::held` counts those that did.
///
/// What is left: large answers on their way to a HAProxy that stands still for longer than these times
/// just after it has asked. Then a connection may stop all the same.
///
/// Up to 3.0, HAProxy has no such limit; it is known by offering `async`.
#[derive(Clone, Debug)]
pub struct Pacing {
    pub(crate) bufsize: Option<NonZeroU32>,
    pub(crate) settle: Duration,
    pub(crate) stall: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Pacing {
    pub(crate) const DEFAULT: Self =
        Self { bufsize: None, settle: Duration::from_millis(4), stall: Duration::from_millis(100) };

    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self::DEFAULT
    }

    /// HAProxy's `tune.bufsize`, if it is neither the default of 16 384 nor what the frame size that
    /// HAProxy offers amounts to: where `max-frame-size` is set in the `spoe-agent` section and
    /// `tune.bufsize` is not the default, HAProxy does not say it.
    #[must_use]
    pub const fn bufsize(mut self, bytes: NonZeroU32) -> Self {
        self.bufsize = Some(bytes);
        self
    }

    /// How long after HAProxy has shown by asking that it is at work to believe that it has read what it
    /// had got by then. Default 4 ms.
    #[must_use]
    pub const fn settle(mut self, time: Duration) -> Self {
        self.settle = time;
        self
    }

    /// How old an answer has to be to be taken as read in any case: the longest time for which HAProxy
    /// does not get to reading. Default 100 ms, from which on HAProxy itself speaks of a stall.
    #[must_use]
    pub const fn stall(mut self, time: Duration) -> Self {
        self.stall = time;
        self
    }

    /// The size of the receive buffer of a HAProxy that offered such a frame size.
    pub(crate) fn buffer(&self, offered_max_frame_size: u64) -> u32 {
        let assumed = offered_max_frame_size.saturating_add(4).max(16_384);
        self.bufsize.map_or_else(|| u32::try_from(assumed).unwrap_or(u32::MAX), NonZeroU32::get)
    }
}

/// A configuration that cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A max-frame-size out of range.
    #[error("max-frame-size {bytes} is not within 256 and 1 073 741 824")]
    MaxFrameSize {
        /// What was asked for.
        bytes: u32,
    },
    /// A timeout of zero.
    #[error("{name} of zero would end every connection at once")]
    ZeroTimeout {
        /// The setter.
        name: &'static str,
    },
    /// Fallback actions that may not fit an ACK.
    #[error(
        "fallback actions of {bytes} bytes, the reason included: at most 230 fit every ACK whatever is negotiated"
    )]
    FallbackTooBig {
        /// Their size.
        bytes: usize,
    },
    /// [`Router::fallback`](crate::Router::fallback) before there was a route.
    #[error("a router's fallback is that of the route before it, and there is none")]
    FallbackWithoutRoute,
    /// An engine-id that is empty or too long.
    #[error("engine-id of {bytes} bytes: HAProxy's has 36, and 1 to 128 fit every HELLO")]
    EngineId {
        /// Its length.
        bytes: usize,
    },
    /// A name HAProxy would not take.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Actions that fit every ACK, encoded.
pub(crate) fn encode_fallback<'a>(
    actions: impl IntoIterator<Item = Action<'a>>,
    prefix: Option<usize>,
) -> Result<Box<[u8]>, ConfigError> {
    let mut encoded = Vec::new();
    for action in actions {
        check_name(action.scope(), action.name(), prefix)?;
        action.encode(&mut encoded);
    }
    if encoded.len() > FALLBACK_MAX {
        return Err(ConfigError::FallbackTooBig { bytes: encoded.len() });
    }
    Ok(encoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;

    #[test]
    fn numbers_that_cannot_be_right_are_refused() {
        assert_eq!(
            AgentConfig::new().max_frame_size(255).unwrap_err().to_string(),
            "max-frame-size 255 is not within 256 and 1 073 741 824"
        );
        assert!(AgentConfig::new().max_frame_size(256).is_ok());
        assert!(AgentConfig::new().max_frame_size(u32::MAX).is_err());
        assert_eq!(
            Limits::new().answer_timeout(Duration::ZERO).unwrap_err().to_string(),
            "answer_timeout of zero would end every connection at once"
        );
        assert!(AgentConfig::new().var_prefix("ip-rep").is_err());
    }

    #[test]
    fn a_fallback_fits_every_ack_or_is_refused() {
        let value = "x".repeat(223);
        // Three bytes, name with length, type byte, string with length: 3 + 2 + 1 + 1 + 223.
        let fits = [Action::set(Scope::Transaction, "a", value.as_str())];
        assert_eq!(fits[0].encoded_len(), 230);
        assert!(AgentConfig::new().fallback(fits).is_ok());
        let larger = "x".repeat(224);
        let error = AgentConfig::new()
            .fallback([Action::set(Scope::Transaction, "a", larger.as_str())])
            .unwrap_err();
        assert_eq!(error, ConfigError::FallbackTooBig { bytes: 231 });
        let error =
            AgentConfig::new().fallback([Action::set(Scope::Transaction, "a-b", 1)]).unwrap_err();
        assert!(matches!(error, ConfigError::Name(_)));
    }

    #[test]
    fn clones_share_the_health_switch() {
        let config = AgentConfig::new();
        let health = config.health();
        health.set(HealthState::NotReady);
        let changed = config.pipelining(false);
        assert_eq!(changed.health().get(), HealthState::NotReady);
    }
}
