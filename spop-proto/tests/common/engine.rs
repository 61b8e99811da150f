//! HAProxy's side over any blocking stream, so that each wait is for the one thing that a test is
//! about: for adapters.

#![allow(dead_code, reason = "every adapter uses its own part")]

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use spop_proto::wire::NotifyPayload;
use spop_proto::{Dialect, EngineConfig, EngineConnection, EngineEvent, NotifyId};

/// An event in words, and the NOTIFY that it answers.
type Told = (Option<NotifyId>, String);

pub(crate) struct Engine<S> {
    stream: S,
    conn: EngineConnection,
    /// What was read and not taken yet.
    input: Vec<u8>,
}

impl<S: Read + Write> Engine<S> {
    /// Shakes hands.
    pub(crate) fn ready(stream: S, dialect: Dialect) -> Self {
        // Long enough for nothing in these tests to be late by accident.
        let patient = Duration::from_secs(3600);
        let config = EngineConfig::new(dialect).processing_timeout(patient).unwrap();
        let conn = EngineConnection::new(config, Instant::now());
        let mut engine = Self { stream, conn, input: Vec::new() };
        let hello = engine.next().unwrap();
        assert!(hello.starts_with("Hello"), "{hello}");
        engine
    }

    /// Asks: the message `m` with that `number`.
    pub(crate) fn send(&mut self, number: i64) -> NotifyId {
        let payload = NotifyPayload::new("m").arg("number", number);
        let id = self.conn.notify(payload.as_bytes().unwrap(), Instant::now()).unwrap();
        self.flush();
        id
    }

    /// Asks, and waits for what comes next.
    pub(crate) fn ask(&mut self, number: i64) -> Option<String> {
        self.send(number);
        self.next()
    }

    /// Waits for that many answers, and takes what came with them; nothing else may come.
    pub(crate) fn answers(&mut self, count: usize) -> Vec<(NotifyId, String)> {
        let mut answers = Vec::new();
        loop {
            let told = if answers.len() < count { self.event() } else { self.held() };
            match told {
                Some((Some(id), actions)) => answers.push((id, actions)),
                None if answers.len() >= count => return answers,
                other => panic!("no answer: {other:?}"),
            }
        }
    }

    /// The next event in words; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<String> {
        self.event().map(|(_, words)| words)
    }

    /// The same, with the NOTIFY that it answers.
    fn event(&mut self) -> Option<Told> {
        let mut buffer = [0; 16 * 1024];
        loop {
            self.flush();
            if let Some(told) = self.held() {
                return Some(told);
            }
            if !self.conn.interest().ready {
                let read = self.stream.read(&mut buffer).unwrap_or(0);
                if read == 0 {
                    return None;
                }
                self.input.extend_from_slice(&buffer[..read]);
            }
        }
    }

    /// The next event of what was read already.
    fn held(&mut self) -> Option<Told> {
        let mut input = &self.input[..];
        let event = self.conn.receive(&mut input, Instant::now()).unwrap();
        let taken = self.input.len() - input.len();
        let told = event.map(|event| match event {
            EngineEvent::Ack { id, actions, .. } => {
                (Some(id), actions.map(|action| action.unwrap().to_string()).collect())
            }
            other => (None, format!("{other:?}")),
        });
        self.input.drain(..taken);
        told
    }

    fn flush(&mut self) {
        self.stream.write_all(self.conn.transmit()).unwrap();
        let all = self.conn.transmit().len();
        self.conn.transmitted(all);
    }
}
