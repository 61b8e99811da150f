//! HAProxy's side over any stream: `EngineConnection` driven by tokio.

use std::collections::VecDeque;
use std::time::Instant;

use spop_proto::wire::NotifyPayload;
use spop_proto::{
    Dialect, EngineConfig, EngineConnection, EngineEvent, NotifyError, NotifyId, StreamError,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// An [`EngineEvent`] that borrows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Hello {
        capabilities: String,
    },
    /// Actions in words, such as `set-var txn.score int32:20`.
    Ack(NotifyId, Vec<String>),
    Failed(NotifyId, StreamError),
    Goodbye(u32),
    Check(Result<(), String>),
}

pub(crate) struct Engine<S> {
    pub(crate) stream: S,
    pub(crate) conn: EngineConnection,
    told: VecDeque<Told>,
    ended: bool,
}

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub(crate) fn payload(message: &str, number: i64) -> NotifyPayload {
    NotifyPayload::new(message).arg("number", number)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Engine<S> {
    pub(crate) fn new(stream: S, config: EngineConfig) -> Self {
        let conn = EngineConnection::new(config, now());
        Self { stream, conn, told: VecDeque::new(), ended: false }
    }

    /// Connects and shakes hands.
    pub(crate) async fn ready(stream: S, dialect: Dialect) -> Self {
        // Long enough for nothing in these tests to be late by accident.
        let patient = std::time::Duration::from_secs(3600);
        let config = EngineConfig::new(dialect).processing_timeout(patient).unwrap();
        let mut engine = Self::new(stream, config);
        assert!(matches!(engine.next().await, Some(Told::Hello { .. })));
        engine
    }

    pub(crate) fn notify(&mut self, payload: &NotifyPayload) -> Result<NotifyId, NotifyError> {
        self.conn.notify(payload.as_bytes().unwrap(), now())
    }

    /// Writes what there is.
    pub(crate) async fn flush(&mut self) {
        while !self.conn.transmit().is_empty() {
            let written = self.stream.write(self.conn.transmit()).await.unwrap();
            self.conn.transmitted(written);
        }
    }

    /// The next event; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        let mut scratch = vec![0; 64 * 1024];
        loop {
            if let Some(told) = self.told.pop_front() {
                return Some(told);
            }
            if self.ended {
                return None;
            }
            // Where the agent has gone, writing fails and reading says so.
            while !self.conn.transmit().is_empty() {
                match self.stream.write(self.conn.transmit()).await {
                    Ok(written) => self.conn.transmitted(written),
                    Err(_) => break,
                }
            }
            let read = match self.conn.interest().ready {
                true => 0,
                false => self.stream.read(&mut scratch).await.unwrap_or(0),
            };
            if read == 0 && !self.conn.interest().ready {
                self.ended = true;
                self.conn.peer_closed(now());
            }
            let mut input = &scratch[..read];
            while let Some(event) = self.conn.receive(&mut input, now()).unwrap() {
                self.told.push_back(match event {
                    EngineEvent::Hello(info) => {
                        Told::Hello { capabilities: info.capabilities().to_string() }
                    }
                    EngineEvent::Ack { id, actions, .. } => {
                        Told::Ack(id, actions.map(|action| action.unwrap().to_string()).collect())
                    }
                    EngineEvent::Failed { id, error } => Told::Failed(id, error),
                    EngineEvent::Disconnected { status } => Told::Goodbye(status.0),
                    EngineEvent::HealthCheck(result) => {
                        Told::Check(result.map_err(|failure| failure.to_string()))
                    }
                    other => panic!("unexpected: {other:?}"),
                });
            }
        }
    }

    /// Asks, and waits for the answer to that.
    pub(crate) async fn ask(&mut self, payload: &NotifyPayload) -> Vec<String> {
        let asked = self.notify(payload).unwrap();
        match self.next().await {
            Some(Told::Ack(id, actions)) if id == asked => actions,
            other => panic!("no answer: {other:?}"),
        }
    }
}
