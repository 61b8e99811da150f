//! An agent and HAProxy with each other: whatever either does in whatever order, each question has one
//! end, an answer is for its question, and neither finds fault with the other.

use std::collections::VecDeque;

use spop_proto::wire::FrameType;
use spop_proto::{ProtocolError, Status};

use crate::engine::Engine;
use crate::rig::Rig;
use crate::script::Script;
use crate::settings::{Settings, ms};

/// What arrives in one read.
const CHUNK: usize = 4096;

struct Pair<'a> {
    agent: Rig<'a>,
    engine: Engine,
    to_agent: VecDeque<u8>,
    to_engine: VecDeque<u8>,
    agent_closed: bool,
    engine_closed: bool,
    /// HAProxy knows that the agent closed.
    told: bool,
}

/// One input: a script.
pub fn run(data: &[u8]) {
    let mut script = Script::whole(data);
    let how = script.byte();
    let settings = Settings::read(&mut script);
    let config = Engine::config(&mut script, true);
    let answers = script.byte();
    let answers = script.take(usize::from(answers % 16));
    let mut pair = Pair {
        agent: Rig::new(&settings, answers, CHUNK, how & 0xe0 == 0xe0),
        engine: Engine::new(config),
        to_agent: VecDeque::new(),
        to_engine: VecDeque::new(),
        agent_closed: false,
        engine_closed: false,
        told: false,
    };
    // In a prompt one nothing lies on the way when time passes: then pacing must prevent the worst.
    let prompt = how & 1 == 0;
    if prompt {
        pair.deliver_all();
    }
    let mut stalled = false;
    while !script.spent() {
        let op = script.byte();
        let much = usize::from(op >> 4);
        match op & 0x0f {
            0 | 1 => {
                pair.engine.ask(much * 4, op & 1 == 1);
            }
            2 => {
                pair.engine.ask(much * much * 80, false);
            }
            3 if !prompt => pair.carry_forth(if much == 0 { CHUNK } else { much * 20 }),
            4 if !prompt => pair.carry_back(if much == 0 { CHUNK } else { much * 20 }),
            5 | 6 => pair.agent.answer(much),
            7 => pair.pass([0, 1, 3, 5, 20, 50, 100, 120, 500, 2000][much % 10]),
            8 => pair.engine.abandon(much),
            9 if !prompt => {
                stalled = true;
                pair.engine.conn.stall_until(pair.engine.now + ms(much as u64 * 10));
            }
            10 => pair.hop(),
            11 => pair.deliver_all(),
            12 if much == 1 => pair.agent.conn.shutdown(pair.agent.now),
            13 if much == 1 => pair.engine.conn.shutdown(pair.engine.now),
            14 if much == 1 => pair.agent.conn.close(Status::UNKNOWN, "the script", pair.agent.now),
            14 if much == 2 => {
                pair.engine.conn.close(Status::UNKNOWN, "the script", pair.engine.now);
            }
            15 if much == 1 => pair.close(),
            _ => {}
        }
        if prompt {
            pair.deliver_all();
        }
    }
    let paced = settings.paces_for(pair.engine.conn.info());
    if prompt && !stalled && paced {
        assert!(!pair.engine.conn.is_wedged(), "HAProxy's buffer was filled");
    }
    pair.end();
}

impl Pair<'_> {
    /// Time passes for both.
    fn pass(&mut self, time: u64) {
        self.agent.pass(ms(time));
        self.engine.now = self.agent.now;
    }

    /// The next deadline of either comes.
    fn hop(&mut self) {
        let deadlines = [self.agent.conn.interest(), self.engine.conn.interest()];
        if let Some(at) = deadlines.into_iter().filter_map(|want| want.deadline).min() {
            self.agent.now = self.agent.now.max(at);
            self.engine.now = self.agent.now;
        }
        self.agent.timeout();
        self.engine.timeout();
    }

    /// HAProxy's output on its way, and what has come of it to the agent.
    fn carry_forth(&mut self, bytes: usize) {
        self.to_agent.extend(self.engine.take(bytes));
        self.agent.settle(false);
        if self.agent.conn.interest().read {
            let count = bytes.min(CHUNK).min(self.to_agent.len());
            let chunk: Vec<_> = self.to_agent.drain(..count).collect();
            self.agent.feed(&chunk);
        }
    }

    /// The same the other way.
    fn carry_back(&mut self, bytes: usize) {
        let before = self.agent.written.len();
        self.agent.take(bytes);
        self.to_engine.extend(&self.agent.written[before..]);
        let count = bytes.min(self.to_engine.len());
        let chunk: Vec<_> = self.to_engine.drain(..count).collect();
        self.engine.feed(&chunk, &mut |_| {});
    }

    /// Everything that can move at this instant moves.
    fn deliver_all(&mut self) {
        for _ in 0..10_000 {
            self.agent.settle(false);
            self.engine.settle(false);
            let (agent, engine) = (self.agent.conn.interest(), self.engine.conn.interest());
            if agent.done {
                self.agent_closed = true;
            }
            if engine.done && !engine.write {
                self.engine_closed = true;
            }
            let forth = engine.write || (!self.to_agent.is_empty() && agent.read);
            let back = agent.write || !self.to_engine.is_empty();
            if forth {
                self.carry_forth(CHUNK);
            }
            if back {
                self.carry_back(usize::MAX);
            }
            let mut news = forth || back;
            // The end of a stream comes after its last byte.
            if self.agent_closed && self.to_engine.is_empty() && !self.told {
                self.told = true;
                self.engine.conn.peer_closed(self.engine.now);
                news = true;
            }
            if self.engine_closed && (self.to_agent.is_empty() || !agent.read) && !agent.done {
                self.to_agent.clear();
                self.agent.conn.peer_closed(self.agent.now);
            }
            if agent.done {
                self.to_agent.clear();
            }
            if !news {
                return;
            }
            if self.agent_closed && self.engine_closed {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// The connection breaks.
    fn close(&mut self) {
        self.agent.conn.peer_closed(self.agent.now);
        self.engine.conn.peer_closed(self.engine.now);
    }

    /// From here to the end of both.
    fn end(&mut self) {
        for _ in 0..50 {
            self.deliver_all();
            if self.agent.conn.interest().done && self.engine.conn.interest().done {
                break;
            }
            self.hop();
        }
        self.agent.finish(true);
        self.engine.settle(true);
        self.engine.finish(true);
        for error in &self.engine.errors {
            // An answer that comes when its stream has gone is a fault to HAProxy <= 3.0 without
            // pipelining; and time may be up.
            // And HAProxy >= 3.1 knows no agent that leaves before it has said HELLO.
            let known = match error {
                ProtocolError::UnknownAck { .. } | ProtocolError::Timeout { .. } => true,
                ProtocolError::Unexpected { frame, .. } => *frame == FrameType::AGENT_DISCONNECT,
                _ => false,
            };
            assert!(known, "HAProxy finds fault: {error}");
        }
        if let Some(spop_proto::CloseReason::Protocol(error)) = self.agent.conn.close_reason() {
            let known = matches!(
                error,
                ProtocolError::TooManyIgnored { .. } | ProtocolError::Timeout { .. }
            );
            assert!(known, "the agent finds fault: {error}");
        }
    }
}
