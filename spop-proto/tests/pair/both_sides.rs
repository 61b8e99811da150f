//! An agent, HAProxy's side, and the bytes on their way between them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use spop_proto::wire::{Frame, FrameType, NotifyPayload};
use spop_proto::{
    Action, AgentConnection, Dialect, EngineConnection, EngineEvent, Event, Interest, NotifyId,
    Outcome, Peer, ProtocolError, Scope, Status, Ticket, Value, When,
};

use crate::setup::{Answer, Setup, Step};

/// Bytes on their way.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) bytes: VecDeque<u8>,
    /// All that was ever sent, to look for whole frames in.
    pub(crate) sent: Vec<u8>,
    pub(crate) eof: bool,
}

impl Wire {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.sent.extend_from_slice(bytes);
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Vec<u8> {
        self.bytes.drain(..bytes.min(self.bytes.len())).collect()
    }
}

pub(crate) struct Pair {
    pub(crate) setup: Setup,
    pub(crate) now: Instant,
    pub(crate) agent: AgentConnection,
    pub(crate) haproxy: EngineConnection,
    pub(crate) to_agent: Wire,
    pub(crate) to_haproxy: Wire,
    pub(crate) tickets: Vec<(i64, Ticket)>,
    /// What each NOTIFY carries, last; before it what those carried whose ids it repeats.
    pub(crate) asked: HashMap<NotifyId, Vec<i64>>,
    pub(crate) ended: HashSet<NotifyId>,
    /// Streams whose last event has ended, and how.
    pub(crate) over: Vec<(NotifyId, Outcome)>,
    pub(crate) next: i64,
    /// Set once HAProxy timed out on a NOTIFY that the agent may still answer.
    pub(crate) late: bool,
}

impl Pair {
    pub(crate) fn new(setup: Setup) -> Self {
        let now = Instant::now();
        Self {
            agent: AgentConnection::new(setup.agent(), Peer::Unknown, now),
            haproxy: EngineConnection::new(setup.engine(), now),
            setup,
            now,
            to_agent: Wire::default(),
            to_haproxy: Wire::default(),
            tickets: Vec::new(),
            asked: HashMap::new(),
            ended: HashSet::new(),
            over: Vec::new(),
            next: 0,
            late: false,
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match *step {
            Step::Notify { bytes, answer } => self.notify(None, bytes, answer),
            Step::Again { which, answer } => {
                if !self.over.is_empty() {
                    let previous = self.over.swap_remove(which % self.over.len());
                    self.notify(Some(previous), which, answer);
                }
            }
            Step::ToAgent(bytes) => self.carry_to_agent(bytes),
            Step::ToHaproxy(bytes) => self.carry_to_haproxy(bytes),
            Step::Answer { which } => self.answer(which),
            Step::Tick { ms } => self.tick(Duration::from_millis(ms)),
            Step::AgentLeaves => self.agent.shutdown(self.now),
            Step::HaproxyLeaves => self.haproxy.shutdown(self.now),
            Step::AgentCloses => self.agent.close(Status(77), "so be it", self.now),
            Step::HaproxyCloses => self.haproxy.close(Status(78), "so be it", self.now),
            Step::Cut => {
                self.agent.peer_closed(self.now);
                self.haproxy.peer_closed(self.now);
            }
        }
        self.check();
    }

    pub(crate) fn notify(
        &mut self,
        previous: Option<(NotifyId, Outcome)>,
        bytes: usize,
        answer: Answer,
    ) {
        let number = self.next;
        let text = vec![b'x'; bytes];
        let payload = NotifyPayload::new("m")
            .arg("n", number)
            .arg("answer", answer as i64)
            .arg("text", &text)
            .message("last");
        let payload = payload.as_bytes().unwrap();
        let room = self.haproxy.window_left();
        let result = match previous {
            None => self.haproxy.notify(payload, self.now),
            Some((id, outcome)) => self.haproxy.notify_again(id, outcome, payload, self.now),
        };
        if let Ok(id) = result {
            assert!(room > 0);
            self.next += 1;
            // HAProxy <= 3.0 takes a late answer to the first of two NOTIFYs with the same ids for
            // one to the second.
            let mut numbers = match previous {
                Some((id, Outcome::Failed)) => self.asked[&id].clone(),
                _ => Vec::new(),
            };
            numbers.push(number);
            assert!(self.asked.insert(id, numbers).is_none(), "an id given twice");
        }
    }

    /// Bytes reach the agent: what HAProxy has to write, as far as they go.
    pub(crate) fn carry_to_agent(&mut self, bytes: usize) {
        let part = self.haproxy.transmit();
        let len = part.len().min(bytes);
        self.to_agent.send(&part[..len]);
        self.haproxy.transmitted(len);
        let want = self.agent.interest();
        if want.read || want.ready {
            let chunk = if want.read { self.to_agent.take(bytes) } else { Vec::new() };
            self.agent_receives(&chunk);
        }
    }

    pub(crate) fn agent_receives(&mut self, chunk: &[u8]) {
        let mut input = chunk;
        loop {
            match self.agent.receive(&mut input, self.now) {
                Ok(None) => break,
                Ok(Some(Event::Notify(notify, mut ack))) => {
                    let message = notify.message("m").expect("the message");
                    let number = match message.arg("n") {
                        Some(Value::Int64(number)) => number,
                        other => panic!("{other:?}"),
                    };
                    assert!(notify.message("last").is_some());
                    match message.arg("answer").and_then(|value| value.as_int()) {
                        Some(0) => ack.set(Scope::Transaction, "n", number).unwrap(),
                        Some(1) => {}
                        Some(2) => ack.fall_back(spop_proto::Cause::Error),
                        Some(3) => self.tickets.push((number, ack.defer())),
                        Some(4) => core::mem::forget(ack),
                        other => panic!("{other:?}"),
                    }
                }
                Ok(Some(_)) => {}
                Err(error) => Self::agent_fails(&error),
            }
        }
        assert!(input.is_empty());
    }

    pub(crate) fn carry_to_haproxy(&mut self, bytes: usize) {
        let part = self.agent.transmit();
        let len = part.len().min(bytes);
        self.to_haproxy.send(&part[..len]);
        self.agent.transmitted(len);
        let want = self.haproxy.interest();
        if want.read || want.ready {
            let chunk = if want.read { self.to_haproxy.take(bytes) } else { Vec::new() };
            self.haproxy_receives(&chunk);
        }
    }

    pub(crate) fn haproxy_receives(&mut self, chunk: &[u8]) {
        let mut input = chunk;
        loop {
            let (id, error) = match self.haproxy.receive(&mut input, self.now) {
                Ok(None) => break,
                Ok(Some(EngineEvent::Ack { id, actions, .. })) => {
                    let numbers = &self.asked[&id];
                    for action in actions {
                        let action = action.unwrap();
                        let is = |n: &i64| action == Action::set(Scope::Transaction, "n", *n);
                        let fallback = Action::set(Scope::Transaction, "fallback", true);
                        let right = action == fallback || numbers.iter().any(is);
                        assert!(right, "{action} for {numbers:?}");
                    }
                    (id, None)
                }
                Ok(Some(EngineEvent::Failed { id, error })) => (id, Some(error)),
                Ok(Some(_)) => continue,
                Err(error) => {
                    self.haproxy_fails(&error);
                    continue;
                }
            };
            assert!(self.asked.contains_key(&id), "an event for nothing");
            assert!(self.ended.insert(id), "a second event for one NOTIFY");
            self.late |= error.is_some();
            let outcome = if error.is_none() { Outcome::Acked } else { Outcome::Failed };
            self.over.push((id, outcome));
        }
        assert!(input.is_empty());
    }

    /// Between two sides that keep the rules, time is the only reason to fail, and what follows
    /// from it.
    pub(crate) fn agent_fails(error: &ProtocolError) {
        assert!(matches!(error, ProtocolError::Timeout { .. }), "agent: {error}");
    }

    pub(crate) fn haproxy_fails(&self, error: &ProtocolError) {
        let alone = !(self.setup.pipelining.0 && self.setup.pipelining.1);
        let allowed = match error {
            ProtocolError::Timeout { .. } => true,
            // HAProxy from 3.1 reads no goodbye before the handshake.
            ProtocolError::Unexpected { frame, when: When::BeforeHello } => {
                *frame == FrameType::AGENT_DISCONNECT && self.setup.dialect == Dialect::New
            }
            // The answer to a NOTIFY that timed out while the next one is out.
            ProtocolError::UnknownAck { .. } => {
                alone && self.late && self.setup.dialect == Dialect::Old
            }
            _ => false,
        };
        assert!(allowed, "haproxy: {error}");
    }

    pub(crate) fn answer(&mut self, which: usize) {
        if self.tickets.is_empty() {
            return;
        }
        let (number, ticket) = self.tickets.swap_remove(which % self.tickets.len());
        let owed = self.agent.owes(&ticket);
        match self.agent.answer(ticket, self.now) {
            Ok(mut ack) => {
                assert!(owed);
                ack.set(Scope::Transaction, "n", number).unwrap();
            }
            Err(_) => assert!(!owed),
        }
    }

    pub(crate) fn tick(&mut self, time: Duration) {
        self.now += time;
        if let Err(error) = self.agent.handle_timeout(self.now) {
            Self::agent_fails(&error);
        }
        if let Err(error) = self.haproxy.handle_timeout(self.now) {
            self.haproxy_fails(&error);
        }
    }

    pub(crate) fn check(&self) {
        for want in [self.agent.interest(), self.haproxy.interest()] {
            let waits = want.read || want.write || want.ready || want.deadline.is_some();
            assert!(want.done != waits, "{want:?}");
        }
        let stats = self.agent.stats();
        let known = stats.acks() + stats.superseded + stats.abandoned;
        assert_eq!(stats.notifies, known + u64::from(self.agent.in_flight()), "{stats:?}");
        let ended = self.ended.len() + self.haproxy.in_flight();
        assert!(ended <= self.asked.len());
        // A side that is over may leave a frame half written.
        let lives = |want: Interest| want.read || want.write;
        if lives(self.agent.interest()) {
            whole_frames(&self.to_haproxy.sent, self.agent.transmit());
        }
        if lives(self.haproxy.interest()) {
            whole_frames(&self.to_agent.sent, self.haproxy.transmit());
        }
    }

    /// Does what both sides ask for until neither asks for anything but the other's bytes.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            let moved = self.pass_on();
            self.check();
            if moved {
                continue;
            }
            let all = [self.agent.interest(), self.haproxy.interest()];
            let next = all.iter().filter_map(|want| want.deadline).min();
            match next {
                Some(at) => self.tick(at.saturating_duration_since(self.now)),
                None => return,
            }
            // Nothing but an idle connection is left.
            if self.asked.len() == self.ended.len() && self.tickets.is_empty() {
                return;
            }
        }
        panic!("no end: {:?} {:?}", self.agent.interest(), self.haproxy.interest());
    }

    /// Moves all bytes that can be moved; false if there were none.
    pub(crate) fn pass_on(&mut self) -> bool {
        let moves = |want: Interest, wire: &Wire| {
            want.write || want.ready || (want.read && !wire.bytes.is_empty())
        };
        let before = (self.agent.interest(), self.haproxy.interest());
        let mut moved = moves(before.0, &self.to_agent) || moves(before.1, &self.to_haproxy);
        self.carry_to_agent(usize::MAX);
        self.carry_to_haproxy(usize::MAX);
        if self.haproxy.interest().done && self.to_agent.bytes.is_empty() && !self.to_agent.eof {
            self.to_agent.eof = true;
            self.agent.peer_closed(self.now);
            moved = true;
        }
        if self.agent.interest().done && self.to_haproxy.bytes.is_empty() && !self.to_haproxy.eof {
            self.to_haproxy.eof = true;
            self.haproxy.peer_closed(self.now);
            moved = true;
        }
        moved
    }
}

pub(crate) fn whole_frames(sent: &[u8], rest: &[u8]) {
    let all = [sent, rest].concat();
    let mut left = &all[..];
    while let Some((frame, after)) = Frame::split(left).unwrap() {
        assert!(frame.header.kind.name().is_some());
        left = after;
    }
    assert!(left.is_empty(), "half a frame: {left:?}");
}
