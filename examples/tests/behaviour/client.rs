//! HAProxy's side over a real socket: `EngineConnection` driven by plain reads and writes.

use std::collections::VecDeque;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use spop_proto::wire::NotifyPayload;
use spop_proto::{
    Dialect, Endpoint, EngineConfig, EngineConnection, EngineEvent, NotifyError, NotifyId,
    StreamError,
};

use crate::PATIENCE;
use crate::stream::{self, Stream};

/// An [`EngineEvent`] that borrows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// What is in use, such as `pipelining`, and the max-frame-size.
    Hello(String, u32),
    /// Actions in words, such as `set-var txn.score int32:20`.
    Ack(NotifyId, Vec<String>),
    Failed(NotifyId, StreamError),
    /// The agent's status.
    Goodbye(u32),
    /// The health check, and what HAProxy would show where it failed.
    Check(Result<(), String>),
    /// What the agent did wrong.
    Broken(String),
}

/// A connection to an agent.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    conn: EngineConnection,
    told: VecDeque<Told>,
    /// The agent's end was seen.
    over: bool,
    /// It was an error, such as a reset.
    cut_off: bool,
    /// This side's end was said.
    finished: bool,
}

/// A configuration in which nothing is late: this side's own times are not what is tested.
pub(crate) fn patient(dialect: Dialect) -> EngineConfig {
    let hour = Duration::from_secs(3600);
    let config = EngineConfig::new(dialect).processing_timeout(hour).unwrap();
    config.hello_timeout(None).unwrap().idle_timeout(None).unwrap()
}

impl Client {
    /// HAProxy's side of that stream; HAPROXY-HELLO is said with the first read.
    pub(crate) fn new(stream: Box<dyn Stream>, config: EngineConfig) -> Self {
        let conn = EngineConnection::new(config, Instant::now());
        Self { stream, conn, told: VecDeque::new(), over: false, cut_off: false, finished: false }
    }

    /// Connects and says HAPROXY-HELLO.
    pub(crate) fn connect(endpoint: &Endpoint, config: EngineConfig) -> io::Result<Self> {
        let mut client = Self::new(stream::connect(endpoint)?, config);
        client.flush();
        Ok(client)
    }

    /// Connects and shakes hands.
    #[track_caller]
    pub(crate) fn ready(endpoint: &Endpoint, dialect: Dialect) -> Self {
        let mut client = Self::connect(endpoint, patient(dialect)).unwrap();
        client.hello();
        client
    }

    /// The handshake: what is in use, and the max-frame-size.
    #[track_caller]
    pub(crate) fn hello(&mut self) -> (String, u32) {
        match self.next() {
            Some(Told::Hello(capabilities, size)) => (capabilities, size),
            other => panic!("{other:?} instead of the handshake"),
        }
    }

    /// What the agent said of itself, if it was asked to.
    pub(crate) fn description(&self) -> Option<String> {
        self.conn.description().map(|text| String::from_utf8(text.to_vec()).unwrap())
    }

    /// Asks.
    #[track_caller]
    pub(crate) fn send(&mut self, payload: &NotifyPayload) -> NotifyId {
        let id = self.queue(payload);
        self.flush();
        id
    }

    /// Asks with the next write.
    #[track_caller]
    pub(crate) fn queue(&mut self, payload: &NotifyPayload) -> NotifyId {
        self.try_queue(payload).unwrap()
    }

    /// Asks with the next write, unless the agent has said goodbye.
    pub(crate) fn try_queue(&mut self, payload: &NotifyPayload) -> Result<NotifyId, NotifyError> {
        self.conn.notify(payload.as_bytes().unwrap(), Instant::now())
    }

    /// Asks with a payload that may be wrong.
    #[track_caller]
    pub(crate) fn send_bytes(&mut self, payload: &[u8]) -> NotifyId {
        let id = self.conn.notify(payload, Instant::now()).unwrap();
        self.flush();
        id
    }

    /// Asks, and waits for the answer to that.
    #[track_caller]
    pub(crate) fn ask(&mut self, payload: &NotifyPayload) -> Vec<String> {
        let asked = self.send(payload);
        match self.next() {
            Some(Told::Ack(id, actions)) if id == asked => actions,
            other => panic!("{other:?} instead of the answer to {asked:?}"),
        }
    }

    /// The next event, which has to be an answer.
    #[track_caller]
    pub(crate) fn ack(&mut self) -> (NotifyId, Vec<String>) {
        match self.next() {
            Some(Told::Ack(id, actions)) => (id, actions),
            other => panic!("{other:?} instead of an answer"),
        }
    }

    /// Writes what there is.
    #[track_caller]
    pub(crate) fn flush(&mut self) {
        while !self.conn.transmit().is_empty() {
            let output = self.conn.transmit();
            let length = output.len();
            // Where the agent has gone, reading says so.
            if !stream::write(&mut *self.stream, output) {
                return;
            }
            self.conn.transmitted(length);
        }
    }

    /// The next event; `None` at the end of the connection.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Told> {
        let mut scratch = vec![0; 64 * 1024];
        loop {
            if let Some(told) = self.told.pop_front() {
                return Some(told);
            }
            if self.over {
                return None;
            }
            self.flush();
            if self.conn.interest().done {
                self.finish();
            }
            let mut input = &[][..];
            if !self.conn.interest().ready {
                let read = stream::read(&mut *self.stream, &mut scratch);
                self.cut_off = read.is_err();
                let read = read.unwrap_or(0);
                input = &scratch[..read];
                if read == 0 {
                    self.over = true;
                    self.conn.peer_closed(Instant::now());
                }
            }
            self.receive(input);
        }
    }

    /// Says that this side is done, and waits for the agent to close: by then it has noticed.
    #[track_caller]
    pub(crate) fn hang_up(mut self) {
        self.finish();
        let mut scratch = vec![0; 64 * 1024];
        while !self.over && stream::read(&mut *self.stream, &mut scratch).unwrap_or(0) > 0 {}
    }

    /// Waits, without a read, until the agent has closed and left unread what this side wrote: that
    /// resets the connection, which is seen although all that the agent wrote is still here.
    #[track_caller]
    pub(crate) fn wait_until_given_up(&self) {
        let end = Instant::now() + PATIENCE;
        while !self.stream.was_reset() {
            assert!(Instant::now() < end, "the agent goes on, or had read everything");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end of the connection; nothing else may come.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.next(), None, "this came instead of the end of the connection");
    }

    /// Whether the connection ended with an error, such as a reset or, under TLS, without a word.
    pub(crate) fn was_cut_off(&self) -> bool {
        self.cut_off
    }

    /// Leaves as HAProxy does on SIGUSR1.
    pub(crate) fn shutdown(&mut self) {
        self.conn.shutdown(Instant::now());
    }

    fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            self.stream.finish();
        }
    }

    fn receive(&mut self, mut input: &[u8]) {
        loop {
            let told = match self.conn.receive(&mut input, Instant::now()) {
                Ok(None) => return,
                Ok(Some(EngineEvent::Hello(info))) => {
                    Told::Hello(info.capabilities().to_string(), info.max_frame_size())
                }
                Ok(Some(EngineEvent::Ack { id, actions, .. })) => {
                    Told::Ack(id, actions.map(|action| action.unwrap().to_string()).collect())
                }
                Ok(Some(EngineEvent::Failed { id, error })) => Told::Failed(id, error),
                Ok(Some(EngineEvent::Disconnected { status })) => Told::Goodbye(status.0),
                Ok(Some(EngineEvent::HealthCheck(result))) => {
                    Told::Check(result.map_err(|failure| failure.to_string()))
                }
                Ok(Some(other)) => Told::Broken(format!("an event no test knows: {other:?}")),
                Err(error) => Told::Broken(error.to_string()),
            };
            self.told.push_back(told);
        }
    }
}
