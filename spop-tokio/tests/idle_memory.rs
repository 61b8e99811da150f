//! What an idle connection costs beyond tokio's own: beyond a task that awaits `readable()` on an
//! accepted socket.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, missing_docs, reason = "tests")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use spop_proto::{Dialect, EngineConfig, EngineConnection};
use spop_tokio::Agent;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const CONNECTIONS: u32 = 100;
const LIMIT: i64 = 1024;

fn client(address: SocketAddr) -> TcpStream {
    let haproxy = EngineConnection::new(EngineConfig::new(Dialect::New), Instant::now());
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(haproxy.transmit()).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

fn clients(address: SocketAddr) -> Vec<TcpStream> {
    (0..CONNECTIONS).map(|_| client(address)).collect()
}

/// Waits until each has its AGENT-HELLO, and for as long as it takes to be idle.
async fn greeted(clients: &mut [TcpStream]) {
    for client in clients {
        let mut answer = [0; 200];
        while let Err(error) = client.read(&mut answer) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            tokio::task::yield_now().await;
        }
        assert_eq!(answer[4], 101);
    }
    // Buffers are given back a second after the last frame.
    tokio::time::sleep(Duration::from_secs(3)).await;
}

fn runtime() -> Runtime {
    // Stopped time: it moves on as soon as all tasks wait.
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Bytes that stay allocated for each connection.
fn per_connection(measured: impl FnOnce()) -> i64 {
    let info = allocation_counter::measure(measured);
    info.bytes_current / i64::from(CONNECTIONS)
}

fn bare_task() -> i64 {
    let runtime = runtime();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let clients = clients(listener.local_addr().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    per_connection(|| {
        runtime.block_on(async {
            for _ in 0..CONNECTIONS {
                let (stream, _) = listener.accept().await.unwrap();
                tasks.spawn(async move {
                    // The HELLO is there; what follows it never comes.
                    stream.readable().await.unwrap();
                    stream.try_read(&mut [0; 1000]).unwrap();
                    stream.readable().await.unwrap();
                });
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(tasks.len(), clients.len());
        });
    })
}

fn agent() -> i64 {
    let runtime = runtime();
    let server = Agent::inline(|_, _| Ok(())).bind("127.0.0.1:0");
    let server = runtime.block_on(server).unwrap();
    let address = server.local_addr().socket_addr().unwrap();
    runtime.spawn(server.run());
    // The first connection pays for what all share, such as the buffer to read into.
    runtime.block_on(greeted(&mut [client(address)]));
    let mut clients = clients(address);
    per_connection(|| runtime.block_on(greeted(&mut clients)))
}

#[test]
fn an_idle_connection_costs_under_a_kibibyte_beyond_a_bare_task() {
    let (bare, agent) = (bare_task(), agent());
    let cost = agent - bare;
    println!("an idle connection: {cost} bytes ({agent} with, {bare} for a bare task)");
    assert!(cost > 0, "nothing was measured");
    assert!(cost < LIMIT, "{cost} bytes");
}
