//! The three ledgers, and what must hold between them.
//!
//! Every request has a number of its own, which the client sends in a header, HAProxy logs and hands to
//! the agent, and the handler answers with. So ledgers are not only compared by their sums but line by
//! line, and these equations are exact:
//!
//! 1. **Client.** Every number that was given out is in the clients' book once, with one outcome:
//!    answered, fallback, error, left (the client itself reset the connection) or closed (HAProxy closed
//!    it without an answer, as HTTP allows it to do with a connection it keeps, when it leaves).
//!    Answered means: by the handler of this very request. What its handler does is what its client gets;
//!    only a request that was shed gets the fallback whatever its handler would have done.
//! 2. **Client and HAProxy.** For every request that the client saw through, HAProxy's log has one line,
//!    with the same outcome. For those left or closed there is at most one. HAProxy's `show stat` counts
//!    as many requests as the log has lines (last process; a process that was replaced does not answer
//!    any more when it has served its last request).
//! 3. **HAProxy's filter.** The SPOE agent logs a line for each event it processed, with the number of
//!    its stream and a status. Every request that the client saw through has one such line, of status 0
//!    if it was answered or got the fallback, else of its error. Those left or closed have at most one,
//!    since HAProxy need not log an event whose client has left. No line belongs to no request.
//! 4. **Client and agent.** An answered request was seen by a handler once, every other one at most once.
//!    NOTIFYs that the agents counted = requests their handlers saw + requests they shed. Those shed are
//!    the fallbacks that no handler saw, and requests left or closed. Up to 3.0 HAProxy goes on using its
//!    connections to an agent that its checks have taken out, and such a connection, never idle, is
//!    drained by shedding from half of the drain time on: an agent was leaving then. From 3.1 on none is
//!    shed.
//! 5. **Agent.** NOTIFYs = ACKs + superseded + abandoned, which is exact since nothing is in flight after
//!    the agents have stopped.
//! 6. **Client and agent, by cause.** Each cause has at least as many ACKs as clients saw; the surplus of
//!    all causes is what handlers answered of the requests that were left, closed or in error: as many of
//!    these as were seen, less the superseded and the abandoned.
//! 7. **Errors.** None from 3.1 on. Up to 3.0, for the reason in 4, a request may cross the agent's
//!    goodbye: then its error is 256 or 257, and an agent was leaving at that time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use crate::agents::AgentBook;
use crate::clients::{ClientBook, Entry, Outcome};
use crate::kind::Kind;
use crate::site::HaproxyBook;

/// A time in which an agent was away or leaving.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// When it was told to leave.
    pub(crate) from: Instant,
    /// When its successor was known to serve.
    pub(crate) to: Instant,
}

/// All three.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// HAProxy 3.1 and later.
    pub(crate) new_engine: bool,
    /// What the clients saw.
    pub(crate) clients: ClientBook,
    /// What HAProxy logged and counted.
    pub(crate) haproxy: HaproxyBook,
    /// What the agents counted.
    pub(crate) agents: AgentBook,
    /// When agents were away.
    pub(crate) windows: Vec<Window>,
}

/// How many requests had which outcome; those of kinds that are not answered apart.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    answered: u64,
    fallback: u64,
    error: u64,
    left: u64,
    closed: u64,
}

impl Books {
    /// The sums, for a reader.
    pub(crate) fn summary(&self) -> String {
        let sums = self.sums();
        let mut text = String::new();
        let Sums { answered, fallback, error, left, closed } = sums;
        let sent = self.clients.sent;
        let _ = writeln!(
            text,
            "clients: {sent} requests = {answered} answered + {fallback} by the fallback + {error} \
             errors + {left} left by the client + {closed} closed by HAProxy"
        );
        let HaproxyBook { requests, events, last, reloads, .. } = &self.haproxy;
        let mut by_status = BTreeMap::<i64, u64>::new();
        for status in events.values().flatten() {
            *by_status.entry(*status).or_default() += 1;
        }
        let _ = writeln!(
            text,
            "HAProxy: {} lines of requests, events by status {by_status:?}; last of {} processes: \
             {} requests by show stat, {} lines",
            requests.len(),
            reloads + 1,
            last.0,
            last.1,
        );
        let AgentBook { report, restarts, .. } = &self.agents;
        let stats = &report.stats;
        let _ = writeln!(
            text,
            "agents: {} NOTIFYs = {} answered + {} errors + {} panics + {} deadlines + {} shed + {} \
             unanswered + {} superseded + {} abandoned; {} connections, {} health checks, {restarts} \
             restarts, {} connections drained, {} cut",
            stats.notifies,
            stats.answered,
            stats.errors,
            stats.panics,
            stats.deadlines,
            stats.shed,
            stats.unanswered,
            stats.superseded,
            stats.abandoned,
            report.connections,
            report.health_checks,
            report.drained,
            report.cut,
        );
        text
    }

    /// What does not hold, the first few of each sort.
    pub(crate) fn differences(&self) -> Vec<String> {
        let mut found = Findings::default();
        self.of_clients(&mut found);
        self.of_haproxy(&mut found);
        self.of_agents(&mut found);
        self.of_errors(&mut found);
        found.lines()
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for entry in &self.clients.entries {
            match entry.outcome {
                Outcome::Answered => sums.answered += 1,
                Outcome::Fallback => sums.fallback += 1,
                Outcome::Error(_) => sums.error += 1,
                Outcome::Left => sums.left += 1,
                Outcome::Closed => sums.closed += 1,
                Outcome::Odd => {}
            }
        }
        sums
    }

    /// Equation 1.
    fn of_clients(&self, found: &mut Findings) {
        if let Some(broken) = &self.clients.broken {
            found.add("client", broken.clone());
        }
        found.equal("numbers given out", self.clients.entries.len() as u64, self.clients.sent);
        let mut ids: Vec<_> = self.clients.entries.iter().map(|entry| entry.id).collect();
        ids.sort_unstable();
        ids.dedup();
        found.equal("different numbers", ids.len() as u64, self.clients.sent);
        for Entry { id, outcome, .. } in &self.clients.entries {
            let answered = Kind::of(*id).is_answered();
            let wrong = match outcome {
                Outcome::Answered => !answered,
                Outcome::Fallback => answered && self.seen(*id) > 0,
                Outcome::Odd => true,
                Outcome::Error(_) | Outcome::Left | Outcome::Closed => false,
            };
            if wrong {
                found.add("outcome", format!("request {id}, {:?}: {outcome:?}", Kind::of(*id)));
            }
        }
    }

    /// Equations 2 and 3.
    fn of_haproxy(&self, found: &mut Findings) {
        let HaproxyBook { requests, unreadable, events, lost, last, ends, .. } = &self.haproxy;
        found.equal("lines of the log that were lost", *lost as u64, 0);
        for line in unreadable.iter().chain(ends) {
            found.add("HAProxy", line.clone());
        }
        found.equal("requests by show stat, against the log's lines", last.0, last.1);

        let mut logged = BTreeMap::new();
        for line in requests {
            if logged.insert(line.id, *line).is_some() {
                found.add("log", format!("two lines of request {}", line.id));
            }
        }
        let mut told = 0;
        for Entry { id, outcome, .. } in &self.clients.entries {
            let line = logged.remove(id);
            let status = line.and_then(|line| events.get(&line.stream));
            told += status.map_or(0, Vec::len);
            let wanted = match outcome {
                Outcome::Left | Outcome::Closed => {
                    if status.is_some_and(|status| status.len() > 1) {
                        found
                            .add("filter", format!("request {id}: {outcome:?}, events {status:?}"));
                    }
                    continue;
                }
                Outcome::Error(error) => *error,
                Outcome::Answered | Outcome::Fallback | Outcome::Odd => 0,
            };
            if line.is_none_or(|line| line.outcome != *outcome) {
                found.add("log", format!("request {id}: {outcome:?}, logged as {line:?}"));
            }
            if status.is_none_or(|status| status != &[wanted]) {
                found.add("filter", format!("request {id}: {outcome:?}, events {status:?}"));
            }
        }
        found.equal("lines of requests nobody sent", logged.len() as u64, 0);
        let all: usize = events.values().map(Vec::len).sum();
        found.equal("events of no request", all as u64, told as u64);
    }

    /// Equations 4 to 6.
    fn of_agents(&self, found: &mut Findings) {
        let stats = &self.agents.report.stats;
        let (mut unseen, mut unsure, mut elsewhere) = (0_u64, 0_u64, 0_u64);
        for entry @ Entry { id, outcome, .. } in &self.clients.entries {
            match (outcome, self.seen(*id)) {
                (Outcome::Answered | Outcome::Fallback, 1) => {}
                (Outcome::Fallback, 0) => {
                    unseen += 1;
                    if self.new_engine || !self.is_leaving(entry) {
                        found.add("shed", format!("request {id}, and no agent was leaving"));
                    }
                }
                (Outcome::Left | Outcome::Closed, 0) => unsure += 1,
                (Outcome::Error(_), 0) => {}
                (Outcome::Error(_) | Outcome::Left | Outcome::Closed, 1) => elsewhere += 1,
                (_, times) => {
                    found.add("agent", format!("request {id}, {outcome:?}: asked {times} times"));
                }
            }
        }
        if !(unseen..=unseen + unsure).contains(&stats.shed) {
            let shed = stats.shed;
            found.add("shed", format!("{shed}; {unseen} fallbacks unseen, {unsure} others"));
        }
        let all: u64 = self.agents.seen.iter().map(|times| u64::from(*times)).sum();
        found.equal("NOTIFYs = requests seen by handlers + shed", stats.notifies, all + stats.shed);
        let ends = stats.acks() + stats.superseded + stats.abandoned;
        found.equal("NOTIFYs = ACKs + superseded + abandoned", stats.notifies, ends);
        found.equal("broken connections", self.agents.report.protocol_errors, 0);
        found.equal("connections refused", self.agents.report.refused, 0);

        let mut wanted = [("answered", stats.answered, 0), ("errors", stats.errors, 0)]
            .into_iter()
            .chain([("panics", stats.panics, 0), ("deadlines", stats.deadlines, 0)])
            .collect::<Vec<_>>();
        for Entry { id, outcome, .. } in &self.clients.entries {
            let cause = match Kind::of(*id) {
                Kind::Plain | Kind::Slow(_) => 0,
                Kind::Fails => 1,
                Kind::Panics => 2,
                Kind::Hangs => 3,
            };
            if matches!(outcome, Outcome::Answered | Outcome::Fallback)
                && self.seen(*id) > 0
                && let Some((_, _, want)) = wanted.get_mut(cause)
            {
                *want += 1;
            }
        }
        let mut surplus = 0;
        for (cause, acks, want) in wanted {
            match acks.checked_sub(want) {
                Some(more) => surplus += more,
                None => found.add("cause", format!("{acks} ACKs {cause}, clients saw {want}")),
            }
        }
        let others = elsewhere.checked_sub(stats.superseded + stats.abandoned);
        match others {
            Some(others) => found.equal("ACKs of requests that clients did not see", surplus, others),
            None => found.add("cause", format!(
                "{} superseded and {} abandoned, of {elsewhere} requests that clients did not see",
                stats.superseded, stats.abandoned
            )),
        }
    }

    /// How often handlers saw that request.
    fn seen(&self, id: u64) -> u64 {
        let at = usize::try_from(id).ok();
        at.and_then(|at| self.agents.seen.get(at)).copied().unwrap_or_default().into()
    }

    /// Whether an agent was leaving while that request was under way.
    fn is_leaving(&self, entry: &Entry) -> bool {
        let (from, to) = entry.time;
        self.windows.iter().any(|window| window.from <= to && from <= window.to)
    }

    /// Equation 7.
    fn of_errors(&self, found: &mut Findings) {
        for entry @ Entry { id, outcome, .. } in &self.clients.entries {
            let Outcome::Error(error) = outcome else { continue };
            let leaving = self.is_leaving(entry);
            if self.new_engine || !leaving || !matches!(error, 256 | 257) {
                found
                    .add("error", format!("request {id}: error {error}, agent leaving: {leaving}"));
            }
        }
    }
}

/// What does not hold.
#[derive(Debug, Default)]
struct Findings(BTreeMap<&'static str, (u64, Vec<String>)>);

impl Findings {
    const SHOWN: usize = 5;

    fn add(&mut self, sort: &'static str, what: String) {
        let (count, lines) = self.0.entry(sort).or_default();
        *count += 1;
        if lines.len() < Self::SHOWN {
            lines.push(what);
        }
    }

    fn equal(&mut self, what: &'static str, left: u64, right: u64) {
        if left != right {
            self.add(what, format!("{left} and {right}"));
        }
    }

    fn lines(self) -> Vec<String> {
        let lines = self.0.into_iter().flat_map(|(sort, (count, lines))| {
            lines.into_iter().map(move |line| format!("{sort} ({count} in all): {line}"))
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Logged;

    /// One request that was answered, in all books.
    fn books() -> Books {
        let now = Instant::now();
        let (id, stream) = (1, (0, 5));
        let mut books = Books { new_engine: true, ..Books::default() };
        let outcome = Outcome::Answered;
        books.clients.entries.push(Entry { id, outcome, time: (now, now) });
        // Number 0 was left by its client, and nobody else knows of it.
        books.clients.entries.push(Entry { id: 0, outcome: Outcome::Left, time: (now, now) });
        books.clients.sent = 2;
        books.haproxy.requests.push(Logged { id, stream, outcome });
        books.haproxy.events.insert(stream, vec![0]);
        books.haproxy.last = (1, 1);
        books.agents.seen = vec![0, 1];
        books.agents.report.stats.notifies = 1;
        books.agents.report.stats.answered = 1;
        books
    }

    #[test]
    fn each_book_is_compared() {
        assert_eq!(books().differences(), [""; 0]);
        let changes: [fn(&mut Books); 12] = [
            |books| books.clients.sent += 1,
            |books| books.clients.entries[0].outcome = Outcome::Fallback,
            |books| books.clients.entries[0].outcome = Outcome::Error(1),
            |books| books.clients.entries[0].outcome = Outcome::Odd,
            |books| books.haproxy.requests.clear(),
            |books| books.haproxy.events.clear(),
            |books| drop(books.haproxy.events.insert((1, 5), vec![0])),
            |books| books.haproxy.last.0 += 1,
            |books| books.haproxy.lost += 1,
            |books| books.agents.seen[1] = 2,
            |books| books.agents.report.stats.notifies += 1,
            |books| books.agents.report.stats.abandoned += 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut books = books();
            change(&mut books);
            assert_ne!(books.differences(), [""; 0], "change {number} was not noticed");
        }
    }
}
