//! HAProxy's side of a connection, for the tests of recipes: what a request asks, event by event, on any
//! stream.

use std::io;
use std::time::Instant;

use spop_proto::wire::NotifyPayload;
use spop_proto::{Dialect, EngineConfig, EngineConnection, EngineEvent, Outcome};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Shakes hands and asks one question after the other, as the events of one request do. Returns what the
/// agent sets for each, in HAProxy's words.
pub(crate) async fn ask<S>(
    mut stream: S,
    dialect: Dialect,
    events: &[NotifyPayload],
) -> io::Result<Vec<String>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut engine = EngineConnection::new(EngineConfig::new(dialect), Instant::now());
    let (mut answers, mut previous) = (Vec::new(), None);
    let mut buffer = [0; 4096];
    while answers.len() < events.len() {
        let output = engine.transmit().to_vec();
        stream.write_all(&output).await?;
        stream.flush().await?;
        engine.transmitted(output.len());
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut input = buffer.get(..read).unwrap_or_default();
        let mut next = false;
        while let Some(event) =
            engine.receive(&mut input, Instant::now()).map_err(io::Error::other)?
        {
            match event {
                EngineEvent::Hello(_) => next = true,
                EngineEvent::Ack { id, actions, .. } => {
                    let actions = actions.map(|action| action.map(|action| action.to_string()));
                    let actions: Result<Vec<_>, _> = actions.collect();
                    answers.push(actions.map_err(io::Error::other)?.join("; "));
                    (previous, next) = (Some(id), true);
                }
                other => return Err(io::Error::other(format!("{other:?}"))),
            }
        }
        if let Some(question) = events.get(answers.len()).filter(|_| next) {
            let (payload, now) = (question.as_bytes().map_err(io::Error::other)?, Instant::now());
            let asked = match previous {
                None => engine.notify(payload, now),
                Some(id) => engine.notify_again(id, Outcome::Acked, payload, now),
            };
            asked.map_err(io::Error::other)?;
        }
    }
    Ok(answers)
}
