//! Bytes into HAProxy's side.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::time::Instant;

use spop_proto::wire::NotifyPayload;
use spop_proto::{
    Action, Dialect, EngineConfig, EngineConnection, EngineEvent, NotifyError, NotifyId, Outcome,
    ProtocolError, Status, Value,
};

use crate::output::{Output, Writer};
use crate::script::Script;
use crate::settings::{ms, start};
use crate::{compare, naive};

/// Turns at one instant before a connection is said to spin.
const TURNS: usize = 10_000;

/// What became of a NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Ended(Outcome),
    Abandoned,
}

/// HAProxy's side in a test rig.
pub struct Engine {
    /// The connection.
    pub conn: EngineConnection,
    /// The clock.
    pub now: Instant,
    /// All output, judged.
    pub output: Output,
    /// Events and errors, in words.
    pub events: Vec<String>,
    /// Errors.
    pub errors: Vec<ProtocolError>,
    /// All output, as it is.
    pub written: Vec<u8>,
    asked: Vec<(NotifyId, Fate)>,
    index: HashMap<NotifyId, usize>,
    /// Asked with the ids of one that had failed, as HAProxy <= 3.0 does: the answer to that one, if it
    /// was on its way, is taken for theirs. Neither side can know.
    ambiguous: HashSet<usize>,
}

impl Engine {
    /// A connection that was just made.
    pub fn new(config: EngineConfig) -> Self {
        let conn = EngineConnection::new(config, start());
        let limit = (conn.info().max_frame_size() as usize).min(256);
        Self {
            output: Output::new(Writer::Haproxy, limit),
            conn,
            now: start(),
            events: Vec::new(),
            errors: Vec::new(),
            written: Vec::new(),
            asked: Vec::new(),
            index: HashMap::new(),
            ambiguous: HashSet::new(),
        }
    }

    /// A configuration out of a script.
    pub fn config(script: &mut Script<'_>, receive_buffer: bool) -> EngineConfig {
        let options = script.byte();
        let times = script.byte();
        let is = |of: u8, bit: u8| of >> bit & 1 == 1;
        let dialect = if is(options, 0) { Dialect::Old } else { Dialect::New };
        let size = if is(options, 1) { script.pick(&[256, 1024, 1 << 20]) } else { 16_380 };
        let config = EngineConfig::new(dialect)
            .max_frame_size(size)
            .and_then(|config| config.hello_timeout(is(times, 0).then_some(ms(60))))
            .and_then(|config| config.idle_timeout(is(times, 1).then_some(ms(300))))
            .and_then(|config| {
                config.processing_timeout(if is(times, 2) { ms(50) } else { ms(1000) })
            })
            .expect("within bounds")
            .pipelining(!is(options, 2))
            .r#async(!is(options, 3))
            .send_frag_payload(!is(options, 4))
            .first_stream_id(if is(options, 5) { u64::MAX - 1 } else { 0 });
        let config = if is(options, 6) { config.window(NonZeroU32::MIN) } else { config };
        let buffer = receive_buffer && is(times, 3);
        let config = config.receive_buffer(NonZeroU32::new(size + 4).filter(|_| buffer));
        if is(options, 7) { config.health_check() } else { config }
    }

    /// Asks. The payload says which question it is, and is about `size` bytes long.
    pub fn ask(&mut self, size: usize, again: bool) -> Option<usize> {
        let number = self.asked.len();
        let filler = vec![b'f'; size];
        let payload = NotifyPayload::new("ask")
            .arg("n", Value::Uint64(number as u64))
            .arg("", Value::Bin(&filler));
        let payload = payload.as_bytes().expect("two arguments").to_vec();
        let left = self.conn.window_left();
        let anew = again && matches!(self.asked.last(), Some((_, Fate::Ended(Outcome::Failed))));
        let result = match self.asked.last() {
            Some(&(id, Fate::Ended(outcome))) if again => {
                self.conn.notify_again(id, outcome, &payload, self.now)
            }
            _ => self.conn.notify(&payload, self.now),
        };
        let asked = match result {
            Ok(id) => {
                assert!(left > 0, "accepted without a window");
                self.index.insert(id, number);
                self.asked.push((id, Fate::Open));
                if anew {
                    self.ambiguous.insert(number);
                }
                Some(number)
            }
            Err(error) => {
                assert!(left == 0 || error != NotifyError::Window, "{left} left");
                self.events.push(format!("{error:?}"));
                None
            }
        };
        self.check();
        asked
    }

    /// The stream of a NOTIFY ends before its answer came.
    pub fn abandon(&mut self, which: usize) {
        let open: Vec<_> =
            (0..self.asked.len()).filter(|&n| self.asked[n].1 == Fate::Open).collect();
        let Some(&number) = open.get(which % open.len().max(1)) else { return };
        // It may have failed, and its event waits to be fetched.
        if self.conn.abandon(self.asked[number].0, self.now) {
            self.asked[number].1 = Fate::Abandoned;
        }
        self.check();
    }

    /// The agent sends that. `each` is called after each event, between two calls of `receive`.
    pub fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(&mut Self)) {
        let mut input = bytes;
        loop {
            match self.conn.receive(&mut input, self.now) {
                Ok(Some(event)) => {
                    let text = match &event {
                        EngineEvent::Ack { id, stream_id, frame_id, actions } => {
                            let number = self.index[id];
                            assert_eq!(self.asked[number].1, Fate::Open, "a second end");
                            self.asked[number].1 = Fate::Ended(Outcome::Acked);
                            if !self.ambiguous.contains(&number) {
                                for action in (*actions).flatten() {
                                    check_echo(&action, number as u64);
                                }
                            }
                            format!("Ack of {number} {stream_id}/{frame_id} {}", actions.count())
                        }
                        EngineEvent::Failed { id, error } => {
                            let number = self.index[id];
                            assert_eq!(self.asked[number].1, Fate::Open, "a second end");
                            self.asked[number].1 = Fate::Ended(Outcome::Failed);
                            format!("Failed {number} {error}")
                        }
                        EngineEvent::Hello(info) => {
                            self.output.limit = info.max_frame_size() as usize;
                            format!("{event:?}")
                        }
                        event => format!("{event:?}"),
                    };
                    self.events.push(text);
                }
                Ok(None) => break,
                Err(error) => self.error(error),
            }
            each(self);
        }
        assert!(input.is_empty(), "input is left over");
        self.check();
    }

    fn error(&mut self, error: ProtocolError) {
        assert!(self.conn.close_reason().is_some(), "{error} without a reason");
        self.events.push(format!("{error:?}"));
        self.errors.push(error);
    }

    /// The deadline, or any other time.
    pub fn timeout(&mut self) {
        if let Err(error) = self.conn.handle_timeout(self.now) {
            self.error(error);
        }
        self.check();
    }

    /// The agent takes that much; returns it.
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        let taken = bytes.min(self.conn.transmit().len());
        let output = self.conn.transmit()[..taken].to_vec();
        self.conn.transmitted(taken);
        for frame in self.output.push(&output).iter().filter(|frame| frame.kind == 3) {
            // The naive decoder is slow, and the filler of a large one is no news.
            if frame.flags == 1 && frame.payload.len() < 1000 {
                assert!(naive::messages(&frame.payload).is_some());
                compare::notifies(&frame.payload);
            }
        }
        self.written.extend_from_slice(&output);
        self.check();
        output
    }

    /// What is due at this instant, until nothing is.
    pub fn settle(&mut self, takes: bool) {
        for _ in 0..TURNS {
            let want = self.conn.interest();
            let due = want.deadline.is_some_and(|at| at <= self.now);
            if want.done || !(due || want.ready || (takes && want.write)) {
                return;
            }
            if due {
                self.timeout();
            }
            if self.conn.interest().ready {
                self.feed(&[], &mut |_| {});
            }
            if takes && self.conn.interest().write {
                self.take(usize::MAX);
            }
        }
        panic!("it spins: {:?}", self.conn.interest());
    }

    /// From here to its end: the agent closes.
    pub fn finish(&mut self, takes: bool) {
        self.conn.peer_closed(self.now);
        for _ in 0..200 {
            self.settle(takes);
            let want = self.conn.interest();
            if want.done {
                return self.check_end();
            }
            self.now = want.deadline.expect("a connection that waits for its end has a deadline");
        }
        panic!("it does not end: {:?}", self.conn);
    }

    /// It is over.
    pub fn check_end(&mut self) {
        for (number, (_, fate)) in self.asked.iter().enumerate() {
            assert_ne!(*fate, Fate::Open, "question {number} has no end");
        }
        assert!(self.conn.close_reason().is_some(), "no reason: {:?}", self.events);
        assert_eq!((self.conn.in_flight(), self.conn.window_left()), (0, 0));
    }

    fn check(&self) {
        let want = self.conn.interest();
        let waits = want.read || want.write || want.ready || want.deadline.is_some();
        // A connection that is wedged is as dead as HAProxy's is.
        assert!(want.done || waits || self.conn.is_wedged(), "waits for nothing: {:?}", self.conn);
        let open = self.asked.iter().filter(|(_, fate)| *fate == Fate::Open).count();
        assert!(self.conn.in_flight() <= open, "in flight that nobody asked");
    }
}

/// An answer that says which question it is for is for that one.
fn check_echo(action: &Action<'_>, number: u64) {
    if let Action::SetVar { name: b"echo", value, .. } = action {
        assert_eq!(*value, Value::Uint64(number), "the answer to another question");
    }
}

/// One input: what the agent sends, and a script for everything else.
pub fn run(data: &[u8]) {
    let (mut script, wire) = Script::split(data);
    let how = script.byte();
    let mut bytes = Vec::new();
    if how & 2 != 0 {
        let capabilities = script.pick(&[
            &b"\x08\x18pipelining,fragmentation"[..],
            b"\x08\x00",
            b"\x08\x15async , fragmentation",
        ]);
        let payload = [
            &b"\x07version\x08\x032.0\x0emax-frame-size\x03\xf0\x01\x0ccapabilities"[..],
            capabilities,
        ]
        .concat();
        bytes = crate::hello::frame(101, 1, (0, 0), &payload);
    }
    bytes.extend_from_slice(wire);
    if how & 1 == 0 {
        let config = Engine::config(&mut script, false);
        let questions = script.byte();
        let whole = deliver(config.clone(), questions, &bytes, None);
        let cut = deliver(config, questions, &bytes, Some(script));
        assert_eq!(whole, cut, "another cut, another end");
    } else {
        let config = Engine::config(&mut script, true);
        wild(config, &bytes, script);
    }
}

/// Everything at one instant.
fn deliver(
    config: EngineConfig,
    questions: u8,
    bytes: &[u8],
    cuts: Option<Script<'_>>,
) -> (Vec<String>, Vec<u8>, String) {
    let mut engine = Engine::new(config);
    let size = usize::from(questions >> 4) * 40;
    for _ in 0..questions % 4 {
        engine.ask(size, false);
    }
    engine.take(usize::MAX);
    let mut left = questions >> 2 & 3;
    // Questions come with events, so that they come at the same place however it is cut.
    let mut each = |engine: &mut Engine| {
        if left > 0 {
            left -= 1;
            engine.ask(size, left & 1 == 0);
            engine.take(usize::MAX);
        }
        while engine.conn.interest().write {
            engine.take(usize::MAX);
        }
    };
    match cuts {
        None => engine.feed(bytes, &mut each),
        Some(mut cuts) => {
            let mut rest = bytes;
            while !rest.is_empty() {
                let usual = 1 + bytes.len() / 64;
                let size = if cuts.spent() { usual } else { 1 + usize::from(cuts.byte()) };
                let (chunk, after) = rest.split_at(size.min(rest.len()));
                engine.feed(chunk, &mut each);
                rest = after;
            }
        }
    }
    engine.settle(true);
    engine.finish(true);
    let reason = format!("{:?}", engine.conn.close_reason());
    (engine.events, engine.written, reason)
}

/// Time passes, questions are asked, the agent reads or does not, somebody leaves.
fn wild(config: EngineConfig, bytes: &[u8], mut script: Script<'_>) {
    let mut engine = Engine::new(config);
    let mut rest = bytes;
    while !rest.is_empty() || !script.spent() {
        let op = script.byte();
        let much = usize::from(op >> 4);
        match op & 0x0f {
            0..=3 => {
                let size = if much == 0 { 2048 } else { much * much };
                let (chunk, after) = rest.split_at(size.min(rest.len()));
                engine.feed(chunk, &mut |_| {});
                rest = after;
                if rest.is_empty() && script.spent() {
                    break;
                }
            }
            4 | 5 => {
                engine.ask(much * much * 10, op & 1 == 1);
            }
            6 => engine.abandon(much),
            7 => engine.now += ms(much as u64 * 7),
            8 => engine.timeout(),
            9 => {
                engine.take(if much == 0 { usize::MAX } else { much * 9 });
            }
            10 => engine.settle(much % 2 == 0),
            11 => engine.conn.stall_until(engine.now + ms(much as u64)),
            12 => {
                if let Some(deadline) = engine.conn.interest().deadline {
                    engine.now = engine.now.max(deadline);
                }
                engine.timeout();
            }
            13 if much == 1 => engine.conn.shutdown(engine.now),
            14 if much == 1 => engine.conn.close(Status::UNKNOWN, &"x".repeat(300), engine.now),
            15 if much == 1 => engine.conn.peer_closed(engine.now),
            _ => {}
        }
    }
    engine.finish(true);
}
