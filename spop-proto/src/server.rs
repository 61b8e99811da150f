//! Policy around connections that every adapter needs: small state machines without I/O.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{
    AgentConfig, AgentConnection, Cause, CloseReason, ConnectionStats, Failure, Limits, Peer,
};

/// Whether an agent wants requests; what health checks (`option spop-check`) are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HealthState {
    /// Health checks succeed.
    #[default]
    Ready,
    /// Health checks fail; requests are answered all the same.
    NotReady,
    /// As [`NotReady`](Self::NotReady), because the agent is about to stop.
    LameDuck,
}

/// The switch behind health checks. Clones share it.
///
/// To leave without losing a request: set [`HealthState::LameDuck`], wait until HAProxy has seen it
/// (`inter` times `fall` of its `server` line), then stop; or give the adapter's agent a lame-duck
/// time, which does the same.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    /// Sets the state; the next health check sees it.
    pub fn set(&self, state: HealthState) {
        let number = match state {
            HealthState::Ready => 0,
            HealthState::NotReady => 1,
            HealthState::LameDuck => 2,
        };
        self.0.store(number, Ordering::Relaxed);
    }

    /// The state.
    #[must_use]
    pub fn get(&self) -> HealthState {
        match self.0.load(Ordering::Relaxed) {
            0 => HealthState::Ready,
            1 => HealthState::NotReady,
            _ => HealthState::LameDuck,
        }
    }
}

/// The switch that makes one server a lame duck, beside the [`Health`] of its configuration, which
/// servers may share.
#[derive(Clone, Debug, Default)]
pub struct LameDuck(Arc<AtomicBool>);

impl LameDuck {
    /// From now on health checks of this server fail.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is set on an agent itself, and stands whatever configuration it is given, before or after.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Overrides {
    /// In place of the configuration's.
    pub limits: Option<Limits>,
    /// In place of the configuration's.
    pub request_id: Option<Box<str>>,
}

impl Overrides {
    /// That configuration with these in place.
    #[must_use]
    pub fn apply(&self, mut config: AgentConfig) -> AgentConfig {
        if let Some(limits) = &self.limits {
            config = config.limits(limits.clone());
        }
        match &self.request_id {
            Some(argument) => config.request_id(argument),
            None => config,
        }
    }
}

/// How many connections may wait to be accepted, for `listen`; the system has a limit of its own. HAProxy up
/// to 3.0 may open one for each request, all at once, and one that finds no room is tried again after a
/// second: longer than any request waits. What `std` asks for is 128.
pub const BACKLOG: i32 = 4096;

/// The connections of a server, against their limit.
#[derive(Debug)]
pub struct Seats {
    /// Cloned for each connection that is served.
    taken: Arc<()>,
    limit: usize,
}

/// What becomes of a connection that was accepted.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a server has to know both")]
pub enum Admission {
    /// It is served.
    Serve(Seat),
    /// There is no seat: a health check is answered, anything else closed 100 ms later.
    TurnAway,
}

/// A seat that is taken, until this is dropped.
#[derive(Debug)]
pub struct Seat(#[expect(dead_code, reason = "counted, never looked at")] Arc<()>);

impl Seats {
    /// As many connections as are served, but at least this number, may be there to be turned away.
    const TURNED_AWAY: usize = 64;

    /// Seats for one server.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self { taken: Arc::default(), limit: limits.max_connections() }
    }

    /// A connection was accepted while `open` others were there, served or being turned away.
    /// `None` where even those that are turned away have become too many: drop it at once.
    ///
    /// Those that are turned away take no seat, or a storm of them would keep all seats taken:
    /// HAProxy <= 3.0 comes back hundreds of times a second.
    #[must_use]
    pub fn admit(&self, open: usize) -> Option<Admission> {
        if Arc::strong_count(&self.taken) <= self.limit {
            return Some(Admission::Serve(Seat(Arc::clone(&self.taken))));
        }
        let most = self.limit.saturating_add(self.limit.max(Self::TURNED_AWAY));
        (open < most).then_some(Admission::TurnAway)
    }
}

impl Admission {
    /// The state machine for it, which keeps the seat.
    #[must_use]
    pub fn connection(self, config: AgentConfig, peer: Peer, now: Instant) -> AgentConnection {
        match self {
            Self::Serve(seat) => AgentConnection::new(config, peer, now).seated(seat),
            Self::TurnAway => AgentConnection::over_limit(config, peer, now),
        }
    }

    /// Whether it is turned away: worth a [`Warning::Connections`].
    #[must_use]
    pub const fn is_turned_away(&self) -> bool {
        matches!(self, Self::TurnAway)
    }
}

/// What to do after `accept` failed. Where resources are short (file descriptors, memory), trying
/// again at once would fail again at once: wait 5 ms, twice as long each time up to 1 s, and begin
/// anew after a success.
#[derive(Clone, Debug)]
pub struct AcceptBackoff {
    next: Duration,
}

impl AcceptBackoff {
    const FIRST: Duration = Duration::from_millis(5);
    const LAST: Duration = Duration::from_secs(1);

    /// A backoff at its start.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// `accept` failed: how long to wait; `None` where it was the one connection that failed, gone
    /// before it was accepted.
    pub fn failed(&mut self, kind: ErrorKind) -> Option<Duration> {
        use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(kind, ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return None;
        }
        let wait = self.next;
        self.next = (wait * 2).min(Self::LAST);
        Some(wait)
    }

    /// `accept` succeeded.
    pub const fn succeeded(&mut self) {
        self.next = Self::FIRST;
    }
}

impl Default for AcceptBackoff {
    fn default() -> Self {
        Self::new()
    }
}

/// Lets one line of a kind through in a while, and counts the others.
#[derive(Clone, Debug)]
pub struct LogLimiter {
    every: Duration,
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimiter {
    /// One line every ten seconds.
    #[must_use]
    pub const fn new() -> Self {
        Self { every: Duration::from_secs(10), last: None, suppressed: 0 }
    }

    /// Whether to write the line; if so, how many were held back since the last one.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        let quiet = self.last.is_some_and(|last| now.saturating_duration_since(last) < self.every);
        if quiet {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(core::mem::take(&mut self.suppressed))
    }
}

impl Default for LogLimiter {
    fn default() -> Self {
        Self::new()
    }
}

/// One [`LogLimiter`] for each kind of warning, shared by all connections of an agent: a peer that
/// fails a thousand times a second must not fill a disk.
#[derive(Debug, Default)]
pub struct Warnings {
    limiters: [Mutex<LogLimiter>; Warning::COUNT],
}

/// A kind of warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A handler gave no answer: it returned an error, or that of another request.
    Handler,
    /// A peer was refused, or broke the protocol.
    Protocol,
    /// There are too many connections.
    Connections,
    /// Connections cannot be accepted.
    Accept,
    /// An answer was late.
    Deadline,
    /// There are too many requests.
    Shed,
    /// Answers are held back.
    Held,
    /// A handler panicked.
    Panic,
    /// An answer did not fit the frame.
    TooBig,
}

impl Warning {
    const COUNT: usize = Self::TooBig as usize + 1;

    /// The kind of that failure.
    #[must_use]
    pub fn of(failure: &Failure) -> Self {
        match failure.cause() {
            Cause::Panic => Self::Panic,
            Cause::TooBig => Self::TooBig,
            _ => Self::Handler,
        }
    }
}

impl Warnings {
    /// Whether to write a line of that kind; if so, how many were held back since the last one.
    pub fn admit(&self, kind: Warning, now: Instant) -> Option<u64> {
        let limiter = self.limiters.get(kind as usize)?;
        limiter.lock().unwrap_or_else(PoisonError::into_inner).admit(now)
    }
}

/// How a connection ended, and what it counted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Closed {
    /// Why it ended.
    pub reason: CloseReason,
    /// What it counted.
    pub stats: ConnectionStats,
}

impl Closed {
    /// The end of a connection that gave that reason; without one the peer closed.
    #[must_use]
    pub fn new(reason: Option<CloseReason>, stats: ConnectionStats) -> Self {
        Self { reason: reason.unwrap_or(CloseReason::PeerClosed), stats }
    }
}

/// How a server ended, and what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Connections accepted.
    pub connections: u64,
    /// Connections turned away because of [`Limits::connections`](crate::Limits::connections).
    pub refused: u64,
    /// Health checks answered, whatever the answer.
    pub health_checks: u64,
    /// Connections that did not speak SPOP, or broke it.
    pub protocol_errors: u64,
    /// Connections open when the stop began that ended by themselves, every answer sent.
    pub drained: u64,
    /// Connections cut at the drain deadline.
    pub cut: u64,
    /// The counters of all connections.
    pub stats: ConnectionStats,
}

impl Report {
    /// A connection was accepted.
    pub const fn accepted(&mut self) {
        self.connections += 1;
    }

    /// A connection beyond the limit was dropped without a look at it.
    pub const fn turned_away(&mut self) {
        self.refused += 1;
    }

    /// A connection ended; `stopping` says whether the server is draining.
    pub fn ended(&mut self, closed: &Closed, stopping: bool) {
        self.stats += &closed.stats;
        match closed.reason {
            CloseReason::HealthCheck => self.health_checks += 1,
            CloseReason::ConnectionLimit => self.refused += 1,
            CloseReason::Protocol(_) => self.protocol_errors += 1,
            CloseReason::Cut { .. } => self.cut += 1,
            _ if stopping && closed.stats.abandoned == 0 => self.drained += 1,
            _ => {}
        }
    }
}

impl core::fmt::Display for Report {
    /// One line for a log.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let stats = &self.stats;
        write!(
            f,
            "{} connections, {} health checks; {} requests: {} answered, {} by the fallback",
            self.connections,
            self.health_checks,
            stats.notifies,
            stats.answered,
            stats.fallbacks(),
        )?;
        let causes = [
            (stats.errors, "errors"),
            (stats.panics, "panics"),
            (stats.deadlines, "late"),
            (stats.shed, "shed"),
            (stats.unanswered, "unanswered"),
        ];
        let mut between = " (";
        for (count, cause) in causes.iter().filter(|(count, _)| *count > 0) {
            write!(f, "{between}{count} {cause}")?;
            between = ", ";
        }
        let end = if stats.fallbacks() > 0 { ")" } else { "" };
        write!(
            f,
            "{end}, {} superseded, {} abandoned; {} connections drained, {} cut",
            stats.superseded, stats.abandoned, self.drained, self.cut,
        )
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a first instant to count from")]
mod tests {
    use super::*;

    #[test]
    fn what_is_overridden_is_the_agents_and_the_rest_the_configurations() {
        let config = AgentConfig::new().request_id("other").pipelining(false);
        let of = |overrides: &Overrides| {
            let config = overrides.apply(config.clone());
            assert!(!config.announces_pipelining(None));
            let argument = config.request_id_argument().map(ToString::to_string);
            (config.current_limits().max_connections(), argument)
        };
        assert_eq!(of(&Overrides::default()), (4096, Some("other".to_owned())));
        let one = std::num::NonZeroUsize::MIN;
        let limits = Some(Limits::new().connections(one));
        assert_eq!(
            of(&Overrides { limits: limits.clone(), request_id: None }),
            (1, Some("other".to_owned()))
        );
        assert_eq!(
            of(&Overrides { limits, request_id: Some("id".into()) }),
            (1, Some("id".to_owned()))
        );
    }

    #[test]
    fn backoff_doubles_and_resets() {
        let mut backoff = AcceptBackoff::new();
        let mut wait = |kind| backoff.failed(kind).map(|wait| wait.as_millis());
        for expected in [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
            assert_eq!(wait(ErrorKind::ConnectionAborted), None, "of one connection");
            assert_eq!(wait(ErrorKind::Other), Some(expected));
        }
        backoff.succeeded();
        assert_eq!(backoff.failed(ErrorKind::OutOfMemory), Some(Duration::from_millis(5)));
    }

    #[test]
    fn one_line_in_ten_seconds() {
        let mut limiter = LogLimiter::new();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limiter.admit(at(0)), Some(0));
        assert_eq!(limiter.admit(at(1)), None);
        assert_eq!(limiter.admit(at(9)), None);
        assert_eq!(limiter.admit(at(10)), Some(2));
        assert_eq!(limiter.admit(at(20)), Some(0));
    }

    #[test]
    fn seats_are_those_of_the_served() {
        let limits = Limits::new().connections(2.try_into().unwrap());
        let seats = Seats::new(&limits);
        let connection = |admission: Admission| {
            admission.connection(AgentConfig::new(), Peer::Unknown, Instant::now())
        };
        let first = connection(seats.admit(0).unwrap());
        let second = connection(seats.admit(1).unwrap());
        let storm: Vec<_> = (2..66).map(|open| seats.admit(open).unwrap()).collect();
        assert!(storm.iter().all(Admission::is_turned_away));
        assert!(seats.admit(66).is_none(), "64 are enough to be turned away");
        drop(second);
        assert!(!seats.admit(65).unwrap().is_turned_away(), "a seat is free, storm or not");
        drop((first, storm));
    }

    #[test]
    fn each_kind_of_warning_has_a_limiter() {
        let warnings = Warnings::default();
        let now = Instant::now();
        use Warning::*;
        let kinds = [Handler, Protocol, Connections, Accept, Deadline, Shed, Held, Panic, TooBig];
        assert_eq!(kinds.len(), Warning::COUNT);
        for kind in kinds {
            assert_eq!(warnings.admit(kind, now), Some(0));
            assert_eq!(warnings.admit(kind, now), None);
        }
        let later = now + Duration::from_secs(10);
        assert_eq!(warnings.admit(Protocol, later), Some(1));
    }

    #[test]
    fn a_report_tells_the_ends_apart() {
        let mut report = Report::default();
        let stats = ConnectionStats { answered: 2, ..ConnectionStats::default() };
        let reasons = [
            CloseReason::HealthCheck,
            CloseReason::ConnectionLimit,
            CloseReason::Cut { owed: 1 },
            CloseReason::PeerClosed,
            CloseReason::Drained,
        ];
        for reason in reasons {
            report.accepted();
            report.ended(&Closed { reason, stats }, true);
        }
        report.ended(&Closed { reason: CloseReason::PeerClosed, stats }, false);
        assert_eq!((report.health_checks, report.refused, report.cut), (1, 1, 1));
        assert_eq!((report.connections, report.drained, report.stats.answered), (5, 2, 12));
    }

    #[test]
    fn a_report_is_a_line_that_names_the_causes() {
        let stats =
            ConnectionStats { notifies: 9, answered: 4, errors: 3, shed: 2, ..Default::default() };
        let mut report = Report { connections: 1, stats, ..Report::default() };
        assert_eq!(
            report.to_string(),
            "1 connections, 0 health checks; 9 requests: 4 answered, 5 by the fallback (3 errors, 2 \
             shed), 0 superseded, 0 abandoned; 0 connections drained, 0 cut"
        );
        report.stats = ConnectionStats::default();
        assert!(report.to_string().contains("0 by the fallback, 0 superseded"), "{report}");
    }

    #[test]
    fn health_is_shared() {
        let health = Health::default();
        let other = health.clone();
        for state in [HealthState::LameDuck, HealthState::NotReady, HealthState::Ready] {
            health.set(state);
            assert_eq!(other.get(), state);
        }
    }
}
