//! The agent of `rust-for-haproxy-people.md`: scores client addresses from a table.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::time::Duration;

use spop_tokio::{Action, Agent, ConfigError, Router, Scope};
use tokio::signal::unix::{SignalKind, signal};

type Table = HashMap<IpAddr, i32>;

/// Lines of an address and its score. `#` begins a comment.
fn parse(text: &str) -> Result<Table, Box<dyn Error>> {
    let mut table = Table::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (address, score) = line
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("line {number}: {line:?} is not an address and a score"))?;
        let address = address.parse().map_err(|error| format!("line {number}: {error}"))?;
        let score = score.trim().parse().map_err(|error| format!("line {number}: {error}"))?;
        table.insert(address, score);
    }
    Ok(table)
}

/// What HAProxy's messages are answered with.
fn router(table: Table) -> Result<Router, ConfigError> {
    Router::new()
        .on("check-client-ip", move |message, ack| {
            let ip: IpAddr = message.get("ip")?;
            let path: Option<&str> = message.get("path")?;
            let mut score = table.get(&ip).copied().unwrap_or(20);
            if path.is_some_and(|path| path.starts_with("/login")) {
                score *= 2;
            }
            ack.set(Scope::Transaction, "ip_score", score)?;
            Ok(())
        })
        .fallback([Action::set(Scope::Transaction, "ip_score", 100)])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(colours).init();
    let file = std::env::args().nth(1).ok_or("usage: my-agent TABLE")?;
    let text = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    let table = parse(&text).map_err(|error| format!("{file}: {error}"))?;

    let mut terminate = signal(SignalKind::terminate())?;
    let server = Agent::new(router(table)?)
        .lame_duck(Duration::from_secs(6))
        .bind("127.0.0.1:12345")
        .await?;
    let stop = async move {
        terminate.recv().await;
    };
    server.run_until(stop).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use spop_tokio::{Value, testing};

    use super::*;

    fn agent() -> Router {
        router(parse("# our own\n192.0.2.7 45\n").unwrap()).unwrap()
    }

    #[test]
    fn scores_what_the_table_says() {
        let question = testing::message("check-client-ip").arg("ip", Ipv4Addr::new(192, 0, 2, 7));
        let answer = question.ask(&agent());
        assert_eq!(answer.get(Scope::Transaction, "ip_score"), Some(Value::Int32(45)));

        let answer = question.arg("path", "/login").ask(&agent());
        assert_eq!(answer.to_string(), "txn.ip_score = int32 90\n");
    }

    #[test]
    fn a_message_without_address_gets_the_fallback() {
        let answer = testing::message("check-client-ip").arg("src", "?").ask(&agent());
        assert_eq!(answer.get(Scope::Transaction, "ip_score"), Some(Value::Int32(100)));
        let error = answer.error().unwrap();
        assert!(error.contains("argument ip is missing"), "{error}");
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = parse("192.0.2.7 45\n192.0.2.8\n").unwrap_err().to_string();
        assert_eq!(error, "line 2: \"192.0.2.8\" is not an address and a score");
    }
}
