//! Both sides and the socket from the agent to HAProxy.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use spop_proto::wire::NotifyPayload;
use spop_proto::{
    AgentConfig, AgentConnection, ConnectionStats, Dialect, EngineConfig, EngineConnection,
    EngineEvent, Event, NotifyError, NotifyId, Peer, Scope, Ticket,
};

pub(crate) const BUFFER: u32 = 16_384;
/// What an answer with one string has beside that and its length: the frame's own length and header,
/// the action's head, name and type.
pub(crate) const OVERHEAD: usize = 4 + 7 + (3 + 2 + 1);

/// A string that makes an answer of that size.
pub(crate) fn value_for(size: usize) -> String {
    let text = size.saturating_sub(OVERHEAD);
    // The length takes one byte up to 239, two up to 2 287, then three.
    let length = match text {
        0..=240 => 1,
        241..=2_289 => 2,
        _ => 3,
    };
    "x".repeat(text.saturating_sub(length))
}

pub(crate) fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// Both sides and the socket from the agent to HAProxy, which takes whatever is written.
pub(crate) struct Pair {
    pub(crate) agent: AgentConnection,
    pub(crate) engine: EngineConnection,
    pub(crate) socket: Vec<u8>,
    pub(crate) now: Instant,
    pub(crate) tickets: Vec<(usize, Ticket)>,
    /// When each NOTIFY was asked, and when it was answered.
    pub(crate) asked: HashMap<NotifyId, Instant>,
    pub(crate) waits: Vec<Duration>,
    /// Answers without the variable.
    pub(crate) shed: usize,
    pub(crate) failed: usize,
}

impl Pair {
    /// After the handshake.
    pub(crate) fn new(config: AgentConfig, engine: EngineConfig) -> Self {
        let mut pair = Self::before_hello(config, engine);
        pair.exchange();
        pair
    }

    pub(crate) fn before_hello(config: AgentConfig, engine: EngineConfig) -> Self {
        let now = Instant::now();
        Self {
            agent: AgentConnection::new(config, Peer::Unknown, now),
            engine: EngineConnection::new(engine, now),
            socket: Vec::new(),
            now,
            tickets: Vec::new(),
            asked: HashMap::new(),
            waits: Vec::new(),
            shed: 0,
            failed: 0,
        }
    }

    /// Asks so many times for an answer of that size, and gives all of them in one write.
    pub(crate) fn ask_and_answer(&mut self, times: usize, size: usize) {
        for _ in 0..times {
            self.ask(size).unwrap();
        }
        self.exchange();
        self.answer();
    }

    /// Asks for an answer whose frame takes `size` bytes of the buffer.
    pub(crate) fn ask(&mut self, size: usize) -> Result<NotifyId, NotifyError> {
        let payload = NotifyPayload::new("m").arg("size", size as u64);
        let id = self.engine.notify(payload.as_bytes().unwrap(), self.now)?;
        self.asked.insert(id, self.now);
        Ok(id)
    }

    /// Both sides do what they want to do at this moment.
    pub(crate) fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            let asked = self.engine.transmit().to_vec();
            self.engine.transmitted(asked.len());
            let mut input = &asked[..];
            while let Some(event) = self.agent.receive(&mut input, self.now).unwrap() {
                quiet = false;
                if let Event::Notify(notify, ack) = event {
                    let size: usize = notify.require("m").unwrap().get("size").unwrap();
                    self.tickets.push((size, ack.defer()));
                }
            }
            self.write();
            if self.engine.interest().read || self.engine.interest().ready {
                let read = std::mem::take(&mut self.socket);
                let mut input = &read[..];
                while let Some(event) = self.engine.receive(&mut input, self.now).unwrap() {
                    quiet = false;
                    match event {
                        EngineEvent::Ack { id, actions, .. } => match actions.count() {
                            0 => self.shed += 1,
                            _ => self.waits.push(self.now - self.asked[&id]),
                        },
                        EngineEvent::Failed { .. } => self.failed += 1,
                        _ => {}
                    }
                }
            }
            if quiet {
                break;
            }
        }
    }

    pub(crate) fn write(&mut self) {
        self.socket.extend_from_slice(self.agent.transmit());
        let written = self.agent.transmit().len();
        self.agent.transmitted(written);
    }

    /// Gives all answers, in one write.
    pub(crate) fn answer(&mut self) {
        for (size, ticket) in std::mem::take(&mut self.tickets) {
            let Ok(mut ack) = self.agent.answer(ticket, self.now) else { continue };
            ack.set(Scope::Transaction, "v", value_for(size).as_str()).unwrap();
        }
    }

    /// Lets time pass, with all that is due on the way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            let deadlines = [self.agent.interest().deadline, self.engine.interest().deadline];
            match deadlines.into_iter().flatten().min() {
                Some(deadline) if deadline <= end => self.now = self.now.max(deadline),
                _ => break,
            }
            let _ = self.agent.handle_timeout(self.now);
            let _ = self.engine.handle_timeout(self.now);
        }
        self.now = end;
        self.exchange();
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        self.agent.stats()
    }

    pub(crate) fn slowest(&self) -> Duration {
        self.waits.iter().copied().max().unwrap()
    }
}

pub(crate) fn haproxy() -> EngineConfig {
    EngineConfig::new(Dialect::New).receive_buffer(BUFFER.try_into().ok())
}

/// Twenty answers at once, and then silence.
pub(crate) fn burst(config: AgentConfig, size: usize) -> Pair {
    let mut pair = Pair::new(config, haproxy());
    pair.ask_and_answer(20, size);
    pair.pass(ms(990));
    pair
}
