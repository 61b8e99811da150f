//! Role against role: an agent and HAProxy's side, both of this crate, under random scripts and a
//! clock that only the test moves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test: a panic is its way to fail"
)]
#![allow(clippy::disallowed_methods, reason = "a first instant to count from")]

use core::num::{NonZeroU32, NonZeroUsize};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use spop_proto::wire::{AgentHello, Frame, FrameHeader, FrameType, NotifyPayload};
use spop_proto::{
    Action, AgentConfig, AgentConnection, Dialect, EngineConfig, EngineConnection, EngineEvent,
    Event, HealthState, Interest, Limits, NotifyId, Outcome, Overload, Peer, ProtocolError, Scope,
    Status, Ticket, Value, When,
};

/// What an agent does with a NOTIFY.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Set,
    Nothing,
    FallBack,
    Defer,
    Forget,
}

#[derive(Clone, Debug)]
enum Step {
    Notify {
        bytes: usize,
        answer: Answer,
    },
    /// The next event of a stream whose last one has ended.
    Again {
        which: usize,
        answer: Answer,
    },
    /// That many bytes travel.
    ToAgent(usize),
    ToHaproxy(usize),
    /// A deferred NOTIFY is answered.
    Answer {
        which: usize,
    },
    Tick {
        ms: u64,
    },
    AgentLeaves,
    HaproxyLeaves,
    AgentCloses,
    HaproxyCloses,
    Cut,
}

#[derive(Clone, Debug)]
struct Setup {
    dialect: Dialect,
    max_frame_size: u32,
    window: u32,
    pipelining: (bool, bool),
    fragmentation: bool,
    processing: u64,
    idle: Option<u64>,
    answer: u64,
    in_flight: u32,
    overload: Overload,
    payload: usize,
    output: usize,
}

impl Setup {
    fn engine(&self) -> EngineConfig {
        let ms = Duration::from_millis;
        let config = EngineConfig::new(self.dialect)
            .max_frame_size(self.max_frame_size)
            .and_then(|config| config.processing_timeout(ms(self.processing)))
            .unwrap()
            .window(NonZeroU32::new(self.window).unwrap())
            .pipelining(self.pipelining.0)
            .r#async(self.pipelining.0);
        match self.idle {
            Some(idle) => config.idle_timeout(Some(ms(idle))).unwrap(),
            None => config,
        }
    }

    fn agent(&self) -> AgentConfig {
        let limits = Limits::new()
            .answer_timeout(Duration::from_millis(self.answer))
            .unwrap()
            .in_flight(NonZeroU32::new(self.in_flight).unwrap())
            .overload(self.overload)
            .payload(NonZeroUsize::new(self.payload).unwrap())
            .output(NonZeroUsize::new(self.output).unwrap());
        AgentConfig::new()
            .pipelining(self.pipelining.1)
            .fragmentation(self.fragmentation)
            .fallback([Action::set(Scope::Transaction, "fallback", true)])
            .unwrap()
            .limits(limits)
    }
}

/// Bytes on their way.
#[derive(Default)]
struct Wire {
    bytes: VecDeque<u8>,
    /// All that was ever sent, to look for whole frames in.
    sent: Vec<u8>,
    eof: bool,
}

impl Wire {
    fn send(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.sent.extend_from_slice(bytes);
    }

    fn take(&mut self, bytes: usize) -> Vec<u8> {
        self.bytes.drain(..bytes.min(self.bytes.len())).collect()
    }
}

struct Pair {
    setup: Setup,
    now: Instant,
    agent: AgentConnection,
    haproxy: EngineConnection,
    to_agent: Wire,
    to_haproxy: Wire,
    tickets: Vec<(i64, Ticket)>,
    /// What each NOTIFY carries, last; before it what those carried whose ids it repeats.
    asked: HashMap<NotifyId, Vec<i64>>,
    ended: HashSet<NotifyId>,
    /// Streams whose last event has ended, and how.
    over: Vec<(NotifyId, Outcome)>,
    next: i64,
    /// Set once HAProxy timed out on a NOTIFY that the agent may still answer.
    late: bool,
}

impl Pair {
    fn new(setup: Setup) -> Self {
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

    fn step(&mut self, step: &Step) {
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

    fn notify(&mut self, previous: Option<(NotifyId, Outcome)>, bytes: usize, answer: Answer) {
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
    fn carry_to_agent(&mut self, bytes: usize) {
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

    fn agent_receives(&mut self, chunk: &[u8]) {
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

    fn carry_to_haproxy(&mut self, bytes: usize) {
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

    fn haproxy_receives(&mut self, chunk: &[u8]) {
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
    fn agent_fails(error: &ProtocolError) {
        assert!(matches!(error, ProtocolError::Timeout { .. }), "agent: {error}");
    }

    fn haproxy_fails(&self, error: &ProtocolError) {
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

    fn answer(&mut self, which: usize) {
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

    fn tick(&mut self, time: Duration) {
        self.now += time;
        if let Err(error) = self.agent.handle_timeout(self.now) {
            Self::agent_fails(&error);
        }
        if let Err(error) = self.haproxy.handle_timeout(self.now) {
            self.haproxy_fails(&error);
        }
    }

    fn check(&self) {
        for want in [self.agent.interest(), self.haproxy.interest()] {
            let waits = want.read || want.write || want.ready || want.deadline.is_some();
            assert!(want.done != waits, "{want:?}");
        }
        let stats = *self.agent.stats();
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
    fn settle(&mut self) {
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
    fn pass_on(&mut self) -> bool {
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

fn whole_frames(sent: &[u8], rest: &[u8]) {
    let all = [sent, rest].concat();
    let mut left = &all[..];
    while let Some((frame, after)) = Frame::split(left).unwrap() {
        assert!(frame.header.kind.name().is_some());
        left = after;
    }
    assert!(left.is_empty(), "half a frame: {left:?}");
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::Set),
        1 => Just(Answer::Nothing),
        1 => Just(Answer::FallBack),
        4 => Just(Answer::Defer),
        1 => Just(Answer::Forget),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![4 => 0..40_usize, 2 => 150..1500_usize, 1 => 0..20_000_usize];
    let chunk = || prop_oneof![1 => 0..30_usize, 1 => 0..300_usize, 2 => Just(usize::MAX)];
    prop_oneof![
        80 => (bytes, answers()).prop_map(|(bytes, answer)| Step::Notify { bytes, answer }),
        40 => (0..50_usize, answers()).prop_map(|(which, answer)| Step::Again { which, answer }),
        120 => chunk().prop_map(Step::ToAgent),
        120 => chunk().prop_map(Step::ToHaproxy),
        60 => (0..50_usize).prop_map(|which| Step::Answer { which }),
        30 => (0..400_u64).prop_map(|ms| Step::Tick { ms }),
        1 => Just(Step::AgentLeaves),
        1 => Just(Step::HaproxyLeaves),
        1 => prop_oneof![Just(Step::AgentCloses), Just(Step::HaproxyCloses), Just(Step::Cut)],
    ]
}

fn setups() -> impl Strategy<Value = Setup> {
    let ms = || prop_oneof![Just(200_u64), Just(1000), Just(3000)];
    (
        prop_oneof![Just(Dialect::Old), Just(Dialect::New)],
        prop_oneof![Just(256_u32), Just(700), Just(16_380)],
        prop_oneof![1..4_u32, Just(20)],
        prop_oneof![3 => Just((true, true)), 1 => any::<(bool, bool)>()],
        prop_oneof![4 => Just(true), 1 => Just(false)],
        ms(),
        proptest::option::weighted(0.3, ms()),
        ms(),
        prop_oneof![Just(1_u32), Just(3), Just(1024)],
        prop_oneof![Just(Overload::Shed), Just(Overload::Wait)],
        prop_oneof![Just(400_usize), Just(1 << 20)],
        prop_oneof![Just(40_usize), Just(1 << 20)],
    )
        .prop_map(|all| Setup {
            dialect: all.0,
            max_frame_size: all.1,
            window: all.2,
            pipelining: all.3,
            fragmentation: all.4,
            processing: all.5,
            idle: all.6,
            answer: all.7,
            in_flight: all.8,
            overload: all.9,
            payload: all.10,
            output: all.11,
        })
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_notify_ends_once(setup in setups(), script in prop::collection::vec(steps(), 0..80)) {
        let mut pair = Pair::new(setup);
        pair.check();
        for step in &script {
            pair.step(step);
        }
        pair.settle();
        prop_assert_eq!(pair.haproxy.in_flight(), 0);
        prop_assert_eq!(pair.asked.len(), pair.ended.len());
        // Both sides leave, and come to an end.
        pair.haproxy.shutdown(pair.now);
        pair.agent.shutdown(pair.now);
        for _ in 0..100 {
            pair.settle();
        }
        pair.check();
        prop_assert!(pair.haproxy.interest().done, "{:?}", pair.haproxy.interest());
        prop_assert!(pair.agent.interest().done, "{:?}", pair.agent.interest());
    }
}

#[test]
fn health_checks() {
    let now = Instant::now();
    for (dialect, refused) in [
        (Dialect::Old, "an unknown error occurred"),
        // A slip of HAProxy's: it reads no AGENT-DISCONNECT there.
        (Dialect::New, "version value not found"),
    ] {
        for ready in [true, false] {
            let config = AgentConfig::new();
            if !ready {
                config.health().set(HealthState::NotReady);
            }
            let mut agent = AgentConnection::new(config, Peer::Unknown, now);
            let check = EngineConfig::new(dialect).health_check();
            let mut haproxy = EngineConnection::new(check, now);
            let mut wire = Vec::new();
            haproxy.swap_output(&mut wire);
            let event = agent.receive(&mut &wire[..], now);
            assert!(matches!(event, Ok(Some(Event::HealthCheck { healthy })) if healthy == ready));
            drop(event);
            agent.swap_output(&mut wire);
            match haproxy.receive(&mut &wire[..], now) {
                Ok(Some(EngineEvent::HealthCheck(Ok(())))) => assert!(ready),
                Ok(Some(EngineEvent::HealthCheck(Err(failure)))) => {
                    assert!(!ready);
                    assert_eq!(failure.to_string(), refused);
                }
                other => panic!("{other:?}"),
            }
            assert!(haproxy.interest().done);
            agent.peer_closed(now);
            assert!(agent.interest().done);
        }
    }
}

/// What became of bytes: events in words, and the output.
type Traces = (Vec<String>, Vec<u8>);

fn chunks<'b>(bytes: &'b [u8], cuts: &[usize]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    let ends = cuts.iter().copied().chain([bytes.len()]);
    let begins = [0].into_iter().chain(cuts.iter().copied());
    begins.zip(ends).map(|(begin, end)| &bytes[begin..end]).collect()
}

fn agent_sees(setup: &Setup, now: Instant, parts: &[&[u8]]) -> Traces {
    let mut agent = AgentConnection::new(setup.agent(), Peer::Unknown, now);
    let mut words = Vec::new();
    for part in parts {
        let mut input = *part;
        loop {
            match agent.receive(&mut input, now) {
                Ok(None) => break,
                Ok(Some(Event::Notify(notify, mut ack))) => {
                    words.push(format!("{notify:?}"));
                    ack.set(Scope::Session, "id", notify.stream_id()).unwrap();
                }
                Ok(Some(event)) => words.push(format!("{event:?}")),
                Err(error) => words.push(error.to_string()),
            }
        }
    }
    (words, agent.transmit().to_vec())
}

/// `closes`: the agent closes after its bytes; else it falls silent.
fn haproxy_sees(setup: &Setup, now: Instant, parts: &[&[u8]], closes: bool) -> Traces {
    let mut haproxy = EngineConnection::new(setup.engine(), now);
    let mut hello = Vec::new();
    let mut keys = Vec::new();
    let capabilities = Some(&b"pipelining,fragmentation"[..]);
    let max_frame_size = Some(256);
    AgentHello { version: Some(b"2.0"), max_frame_size, capabilities }.encode(&mut keys);
    let header = FrameHeader::connection(FrameType::AGENT_HELLO);
    Frame { header, payload: &keys }.encode(&mut hello);
    let mut hello = &hello[..];
    assert!(matches!(haproxy.receive(&mut hello, now), Ok(Some(EngineEvent::Hello(_)))));
    let payload = NotifyPayload::new("m");
    let mut numbers = HashMap::new();
    while haproxy.window_left() > 0 {
        let id = haproxy.notify(payload.as_bytes().unwrap(), now).unwrap();
        numbers.insert(id, numbers.len());
    }
    let mut words = Vec::new();
    let mut see = |haproxy: &mut EngineConnection, mut input: &[u8]| loop {
        words.push(match haproxy.receive(&mut input, now) {
            Ok(None) => break,
            Ok(Some(EngineEvent::Ack { id, stream_id, frame_id, actions })) => {
                let number = numbers[&id];
                format!("ack {number} {stream_id} {frame_id} {:?}", actions.collect::<Vec<_>>())
            }
            Ok(Some(EngineEvent::Failed { id, error })) => {
                format!("failed {} {error}", numbers[&id])
            }
            Ok(Some(event)) => format!("{event:?}"),
            Err(error) => error.to_string(),
        });
    };
    for part in parts {
        see(&mut haproxy, part);
    }
    let output = haproxy.transmit().to_vec();
    if closes {
        haproxy.peer_closed(now);
        see(&mut haproxy, &[]);
    }
    for _ in 0..20 {
        let Some(deadline) = haproxy.interest().deadline else { break };
        if haproxy.handle_timeout(deadline).is_err() {
            break;
        }
        see(&mut haproxy, &[]);
    }
    let ends = words.iter().filter(|w| w.starts_with("ack ") || w.starts_with("failed ")).count();
    assert_eq!((ends, haproxy.in_flight()), (numbers.len(), 0));
    (words, output)
}

/// Frames as an agent may send them, and as it may not.
fn agent_frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![12 => Just(103_u8), 1 => Just(101), 1 => Just(102), 1 => any::<u8>()];
    let flags = prop_oneof![20 => Just(1_u8), 1 => 0..4_u8];
    let payload = prop_oneof![
        6 => Just(b"\x01\x03\x02\x01n\x04\x07".to_vec()),
        1 => Just(Vec::new()),
        1 => Just(b"\x0bstatus-code\x03\x09".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    let stream = prop_oneof![20 => 0..42_u8, 1 => Just(200)];
    let frame_id = prop_oneof![20 => Just(1_u8), 1 => 0..3_u8];
    (kind, flags, stream, frame_id, payload).prop_map(|(kind, flags, stream, frame_id, payload)| {
        let length = u8::try_from(7 + payload.len()).unwrap();
        let head = [0, 0, 0, length, kind, 0, 0, 0, flags, stream, frame_id];
        [&head[..], &payload].concat()
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_agent_does_not_see_where_reads_end(
        setup in setups(),
        sizes in prop::collection::vec(0..900_usize, 0..12),
        garbage in prop::option::weighted(0.3, any::<[u8; 12]>()),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let mut setup = setup;
        setup.pipelining = (true, true);
        setup.fragmentation = true;
        // Whether a read waits for output depends on when the output is taken.
        setup.output = 1 << 20;
        setup.overload = Overload::Shed;
        let mut pair = Pair::new(setup.clone());
        let now = pair.now;
        pair.carry_to_agent(usize::MAX);
        pair.carry_to_haproxy(usize::MAX);
        let mut bytes = pair.to_agent.sent.clone();
        for size in sizes {
            pair.notify(None, size, Answer::Set);
            while pair.haproxy.interest().write {
                let part = pair.haproxy.transmit().to_vec();
                bytes.extend_from_slice(&part);
                pair.haproxy.transmitted(part.len());
            }
        }
        bytes.extend(garbage.iter().flatten());
        let whole = agent_sees(&setup, now, &[&bytes]);
        prop_assert_eq!(&agent_sees(&setup, now, &chunks(&bytes, &cuts)), &whole);
        let single: Vec<_> = bytes.chunks(1).collect();
        prop_assert_eq!(agent_sees(&setup, now, &single), whole);
    }

    #[test]
    fn haproxy_does_not_see_where_reads_end(
        setup in setups(),
        frames in prop::collection::vec(agent_frames(), 0..30),
        closes in any::<bool>(),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes = frames.concat();
        let now = Instant::now();
        let whole = haproxy_sees(&setup, now, &[&bytes], closes);
        prop_assert_eq!(&haproxy_sees(&setup, now, &chunks(&bytes, &cuts), closes), &whole);
        let single: Vec<_> = bytes.chunks(1).collect();
        prop_assert_eq!(haproxy_sees(&setup, now, &single, closes), whole);
    }

    #[test]
    fn haproxy_survives_any_bytes(
        setup in setups(),
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), 0..12_u8, any::<u8>()], 0..200),
        cuts in prop::collection::vec(any::<usize>(), 0..4),
    ) {
        let now = Instant::now();
        for check in [false, true] {
            let config = if check { setup.engine().health_check() } else { setup.engine() };
            let mut haproxy = EngineConnection::new(config, now);
            for part in chunks(&bytes, &cuts) {
                let mut input = part;
                while !matches!(haproxy.receive(&mut input, now), Ok(None)) {}
                prop_assert!(input.is_empty());
            }
        }
    }
}
