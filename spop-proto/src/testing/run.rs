//! Both sides of a connection, and what goes between them.

use core::future::{Future, poll_fn};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;
use std::time::{Duration, Instant};

use super::Question;
use super::answer::{Answer, Done, Outcome};
use crate::driver::{Driver, Notice};
use crate::engine::{EngineConfig, EngineConnection, EngineEvent, StreamError};
use crate::handler::{Exchange, HandlerError, Turn};
use crate::stats::Stats;
use crate::tasks::Failure;
use crate::{Ack, AgentConnection, Notify, Peer};

/// HAProxy waits longer than any agent.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// Times that a future may wake itself before it is late, and steps of the clock before it is given up.
const TURNS: usize = 10_000;
const STEPS: usize = 1_000;

/// Asks; what waits for something from outside is late.
pub(super) fn ask_now<F, S>(question: &Question, serve: S) -> Answer
where
    F: Future<Output = Result<Exchange, HandlerError>>,
    S: FnMut(Notify<'_>, &mut Ack<'_>, &mut dyn FnMut() -> Exchange) -> Turn<F>,
{
    let mut run = match Run::new(question, serve) {
        Ok(run) => run,
        Err(text) => return not_asked(question, text),
    };
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let context = Context::from_waker(&waker);
    let (mut turns, mut steps) = (0, 0);
    while run.end.is_none() && steps < STEPS {
        flag.0.store(false, Ordering::Release);
        run.turn(&context);
        turns += 1;
        if run.end.is_none() && (turns > TURNS || !flag.0.load(Ordering::Acquire)) {
            run.skip_to_deadline();
            steps += 1;
        }
    }
    run.answer(question)
}

/// Asks, and waits for the answer.
pub(super) async fn ask_until_answered<F, S>(question: &Question, serve: S) -> Answer
where
    F: Future<Output = Result<Exchange, HandlerError>>,
    S: FnMut(Notify<'_>, &mut Ack<'_>, &mut dyn FnMut() -> Exchange) -> Turn<F>,
{
    // The clock stands still, so no answer may be held back for a time.
    let question = question.clone();
    let config = question.config.clone().pacing(None);
    let question = question.config(config);
    let mut run = match Run::new(&question, serve) {
        Ok(run) => run,
        Err(text) => return not_asked(&question, text),
    };
    poll_fn(|context| {
        run.turn(context);
        if run.end.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    run.answer(&question)
}

fn not_asked(question: &Question, text: String) -> Answer {
    let prefix = question.prefix.clone();
    Answer { actions: Vec::new(), prefix, outcome: Outcome::NotAsked(text.into()) }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

struct Run<F, S> {
    haproxy: EngineConnection,
    agent: Driver<F>,
    serve: S,
    /// What HAProxy has to ask, as soon as the handshake is done.
    payload: Option<Vec<u8>>,
    now: Instant,
    failure: Option<Failure>,
    end: Option<End>,
}

enum End {
    Acked(Vec<Done>),
    Failed(StreamError),
    NotAsked(String),
}

impl<F, S> Run<F, S>
where
    F: Future<Output = Result<Exchange, HandlerError>>,
    S: FnMut(Notify<'_>, &mut Ack<'_>, &mut dyn FnMut() -> Exchange) -> Turn<F>,
{
    #[expect(clippy::disallowed_methods, reason = "an instant to count from, in a test")]
    fn new(question: &Question, serve: S) -> Result<Self, String> {
        let payload = question.payload.as_bytes().map_err(|error| error.to_string())?.to_vec();
        let mut config = question.config.clone();
        if let Some(prefix) = &question.prefix {
            config = config.var_prefix(prefix).map_err(|error| error.to_string())?;
        }
        let engine = EngineConfig::new(question.dialect).processing_timeout(PATIENCE);
        let engine = match question.max_frame_size {
            Some(bytes) => engine.and_then(|engine| engine.max_frame_size(bytes)),
            None => engine,
        };
        let engine = engine.map_err(|error| error.to_string())?;
        let now = Instant::now();
        // What is asked here is no part of what an agent counts.
        let config = config.count_in(Stats::default());
        Ok(Self {
            haproxy: EngineConnection::new(engine, now),
            agent: Driver::new(AgentConnection::new(config, Peer::Unknown, now)),
            serve,
            payload: Some(payload),
            now,
            failure: None,
            end: None,
        })
    }

    /// Carries bytes to and fro until there are none.
    fn turn(&mut self, context: &Context<'_>) {
        let Self { haproxy, agent, serve, payload, now, failure, end } = self;
        let now = *now;
        let log = &mut |notice: Notice<'_>| {
            if let Notice::Failure { failure: found, .. } = notice {
                *failure = Some(found);
            }
        };
        loop {
            agent.poll_answers(context, now, &mut agent.tally(), log);
            let mut wire = Vec::new();
            haproxy.swap_output(&mut wire);
            let said = !wire.is_empty();
            if said || agent.interest().ready {
                agent.receive(&wire, context, now, &mut *serve, log);
            }
            let answer = agent.transmit().to_vec();
            agent.transmitted(answer.len());
            let mut input = answer.as_slice();
            loop {
                match haproxy.receive(&mut input, now) {
                    Ok(Some(EngineEvent::Hello(_))) => {
                        let Some(payload) = payload.take() else { continue };
                        if let Err(error) = haproxy.notify(&payload, now) {
                            *end = Some(End::NotAsked(error.to_string()));
                        }
                    }
                    Ok(Some(EngineEvent::Ack { actions, .. })) => {
                        let actions = actions.flatten().map(|action| Done::of(&action)).collect();
                        *end = Some(End::Acked(actions));
                    }
                    Ok(Some(EngineEvent::Failed { error, .. })) => *end = Some(End::Failed(error)),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    // It fails the NOTIFY next.
                    Err(_) => {}
                }
            }
            if end.is_some() || !said && answer.is_empty() {
                return;
            }
        }
    }

    /// Lets the time pass until something is due.
    fn skip_to_deadline(&mut self) {
        let deadlines = [self.agent.interest().deadline, self.haproxy.interest().deadline];
        let next = deadlines.into_iter().flatten().min();
        self.now = next.map_or(self.now, |next| next.max(self.now));
        let failure = &mut self.failure;
        self.agent.handle_timeout(self.now, &mut |notice| {
            if let Notice::Failure { failure: found, .. } = notice {
                *failure = Some(found);
            }
        });
        // An error there ends the connection, and with it the NOTIFY.
        let _ = self.haproxy.handle_timeout(self.now);
    }

    fn answer(self, question: &Question) -> Answer {
        let stats = self.agent.finish().stats;
        let prefix = question.prefix.clone();
        let mut actions = Vec::new();
        let outcome = match self.end {
            Some(End::NotAsked(text)) => Outcome::NotAsked(text.into()),
            Some(End::Failed(error)) => Outcome::Unanswered(error),
            None => Outcome::Unanswered(StreamError::TIMEOUT),
            Some(End::Acked(acked)) => {
                actions = acked;
                match self.failure {
                    _ if stats.too_big > 0 => Outcome::TooBig,
                    Some(Failure::Panic(text)) => Outcome::Panicked(text),
                    Some(Failure::Error(error)) => Outcome::Error(error.to_string().into()),
                    Some(Failure::WrongExchange) => Outcome::WrongAnswer,
                    None if stats.deadlines > 0 => Outcome::Deadline,
                    None => Outcome::Handled,
                }
            }
        };
        Answer { actions, prefix, outcome }
    }
}
