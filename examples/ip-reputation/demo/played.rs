//! HAProxy's part, played by spop-proto over a real socket: for those who have no HAProxy.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use spop_proto::wire::{Actions, NotifyPayload};
use spop_proto::{
    Action, Dialect, EngineConfig, EngineConnection, EngineEvent, Scope, StreamError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::{DemoError, Outcome, ROUNDS, context, median};

/// `timeout processing` of spoe.conf.
const PROCESSING: Duration = Duration::from_millis(100);

/// HAProxy with one connection to the agent.
#[derive(Debug)]
pub(super) struct Player {
    agent: SocketAddr,
    connection: Option<Connection>,
}

/// A socket, and what HAProxy does with it.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    haproxy: EngineConnection,
}

/// What asking came to: the score if one was set, or the error HAProxy tells its rules.
type Answer = Result<Option<i128>, StreamError>;

impl Player {
    /// Connects and asks once.
    pub(super) async fn connect(agent: SocketAddr) -> Result<Self, DemoError> {
        let mut player = Self { agent, connection: None };
        match player.answer(IpAddr::V4(Ipv4Addr::LOCALHOST)).await? {
            Ok(_) => Ok(player),
            Err(error) => Err(context(agent)(error)),
        }
    }

    /// Asks about `client` as spoe.conf does, and acts on the answer as haproxy.cfg does.
    pub(super) async fn ask(&mut self, client: IpAddr) -> Result<Outcome, DemoError> {
        let first = self.answer(client).await?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let answer = self.answer(client).await?;
            times.push(start.elapsed());
            if answer != first {
                return Err(DemoError::new(format!("{client} got {first:?}, then {answer:?}")));
            }
        }
        let error = first.err().map(|error| error.0);
        Ok(Outcome { status: status(first), error, added: median(times) })
    }

    /// Until the agent has said goodbye.
    pub(super) async fn goodbye(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            while !connection.haproxy.interest().done {
                // Nothing is owed, so the only answer there can be is the end.
                if connection.turn().await.is_err() {
                    return;
                }
            }
        }
    }

    async fn answer(&mut self, client: IpAddr) -> Result<Answer, DemoError> {
        let payload = NotifyPayload::new("check-client-ip")
            .arg("ip", client)
            .arg("path", "/")
            .arg("id", "demo");
        let payload = payload.as_bytes().map_err(context(self.agent))?;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => match Connection::new(self.agent).await.map_err(context(self.agent))? {
                Some(connection) => empty.insert(connection),
                None => return Ok(Err(StreamError::CONNECTION_LOST)),
            },
        };
        connection.haproxy.notify(payload, Instant::now()).map_err(context(self.agent))?;
        let answer = loop {
            if let Some(answer) = connection.turn().await.map_err(context(self.agent))? {
                break answer;
            }
        };
        if answer.is_err() {
            self.connection = None;
        }
        Ok(answer)
    }
}

impl Connection {
    /// `None` where nobody listens.
    async fn new(agent: SocketAddr) -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let config = EngineConfig::new(Dialect::New).processing_timeout(PROCESSING)?;
        match TcpStream::connect(agent).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                let haproxy = EngineConnection::new(config, Instant::now());
                Ok(Some(Self { stream, haproxy }))
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// One turn of the run loop: writes, or waits for the agent; then sees what came of it.
    async fn turn(&mut self) -> io::Result<Option<Answer>> {
        let Self { stream, haproxy } = self;
        let want = haproxy.interest();
        let mut scratch = [0; 4096];
        let mut input = &[][..];
        if want.done {
            return Err(io::ErrorKind::ConnectionAborted.into());
        } else if want.write {
            let written = stream.write(haproxy.transmit()).await?;
            haproxy.transmitted(written);
        } else if !want.ready {
            let deadline = want.deadline.unwrap_or_else(|| Instant::now() + PROCESSING);
            match timeout_at(deadline.into(), stream.read(&mut scratch)).await {
                Ok(Ok(0) | Err(_)) => haproxy.peer_closed(Instant::now()),
                Ok(Ok(read)) => input = scratch.get(..read).unwrap_or_default(),
                Err(_) => {}
            }
        }
        let now = Instant::now();
        // An error says why the connection ends; the request that waits is told by an event.
        _ = haproxy.handle_timeout(now);
        while let Ok(Some(event)) = haproxy.receive(&mut input, now) {
            match event {
                EngineEvent::Ack { actions, .. } => return Ok(Some(Ok(score(actions)))),
                EngineEvent::Failed { error, .. } => return Ok(Some(Err(error))),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// `txn.iprep.ip_score`, as HAProxy would set it: up to the first bad action, the last one counts.
fn score(actions: Actions<'_>) -> Option<i128> {
    let scores = actions.map_while(Result::ok).filter_map(|action| match action {
        Action::SetVar { scope: Scope::Transaction, name: b"ip_score", value } => value.as_int(),
        _ => None,
    });
    scores.last()
}

/// The three rules of haproxy.cfg.
fn status(answer: Answer) -> u16 {
    match answer {
        Ok(Some(score)) if score > 80 => 403,
        Err(_) | Ok(None) => 503,
        Ok(Some(_)) => 200,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        assert_eq!(status(Ok(Some(80))), 200);
        assert_eq!(status(Ok(Some(81))), 403);
        assert_eq!(status(Ok(None)), 503);
        assert_eq!(status(Err(StreamError::TIMEOUT)), 503);
    }

    #[test]
    fn score_is_that_of_the_transaction() {
        let mut payload = Vec::new();
        assert_eq!(score(Actions::new(&payload)), None);
        Action::set(Scope::Session, "ip_score", 1).encode(&mut payload);
        Action::set(Scope::Transaction, "score", 2).encode(&mut payload);
        assert_eq!(score(Actions::new(&payload)), None);
        Action::set(Scope::Transaction, "ip_score", 3).encode(&mut payload);
        assert_eq!(score(Actions::new(&payload)), Some(3));
    }
}
