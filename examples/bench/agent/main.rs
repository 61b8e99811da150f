//! One small agent six times over: as [`minimal`] as an agent can be, on each adapter, and on the crate
//! `spop` (feature `bench`). What the scripts in `bench/` compare.
//!
//! Each answers `check-client-ip` with `txn.ip_score`, the last byte of the IPv4 address `ip`.

mod minimal;
#[cfg(feature = "bench")]
mod spop_crate;

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use spop_proto::{Ack, Endpoint, HandlerError, Limits, Notify, Scope};

/// An agent to be measured: answers check-client-ip with the last byte of its address.
#[derive(Debug, Parser)]
#[command(name = "bench-agent", version)]
struct Args {
    /// What answers.
    #[arg(value_enum)]
    kind: Kind,

    /// Where HAProxy or spop-load finds it: ADDRESS:PORT; a port of 0 is chosen and printed.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:12345")]
    listen: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// One epoll loop by hand that looks at lengths, ids and one byte of the address
    Minimal,
    /// spop-tokio on the runtime that #[tokio::main] makes
    Tokio,
    /// spop-tokio on a runtime of one thread
    TokioCurrentThread,
    /// spop-asyncstd
    AsyncStd,
    /// spop-blocking
    Blocking,
    /// The crate spop on tokio, on a runtime of one thread
    #[cfg(feature = "bench")]
    SpopCrate,
}

fn main() -> ExitCode {
    let Args { kind, listen } = Args::parse();
    let result = match kind {
        Kind::Minimal => minimal::run(&listen),
        Kind::Tokio => {
            tokio::runtime::Runtime::new().and_then(|runtime| on_tokio(&runtime, listen))
        }
        Kind::TokioCurrentThread => one_thread().and_then(|runtime| on_tokio(&runtime, listen)),
        Kind::AsyncStd => on_async_std(listen),
        Kind::Blocking => on_threads(listen),
        #[cfg(feature = "bench")]
        Kind::SpopCrate => {
            one_thread().and_then(|runtime| runtime.block_on(spop_crate::run(&listen)))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(notify: Notify<'_>, ack: &mut Ack<'_>) -> Result<(), HandlerError> {
    let ip: Ipv4Addr = notify.require("check-client-ip")?.get("ip")?;
    let [.., last] = ip.octets();
    ack.set(Scope::Transaction, "ip_score", i32::from(last))?;
    Ok(())
}

/// Room for as many connections as are measured, and for those of a load before that are not yet gone.
fn limits() -> Limits {
    const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(32_768).unwrap();
    Limits::new().connections(CONNECTIONS)
}

/// Tells whoever started this where it listens.
fn listening(endpoint: &Endpoint) {
    println!("{endpoint}");
}

fn one_thread() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn on_tokio(runtime: &tokio::runtime::Runtime, listen: String) -> io::Result<()> {
    runtime.block_on(async {
        let server =
            spop_tokio::Agent::inline(answer).limits(limits()).bind(parsed(&listen)?).await?;
        listening(server.local_addr());
        server.run().await
    })
}

fn on_async_std(listen: String) -> io::Result<()> {
    async_std::task::block_on(async {
        let server =
            spop_asyncstd::Agent::inline(answer).limits(limits()).bind(parsed(&listen)?).await?;
        listening(server.local_addr());
        server.run().await
    })
}

fn on_threads(listen: String) -> io::Result<()> {
    let server = spop_blocking::Agent::inline(answer).limits(limits()).bind(parsed(&listen)?)?;
    listening(server.local_addr());
    server.run().map(drop)
}

fn parsed(listen: &str) -> io::Result<Endpoint> {
    let invalid =
        |error: Box<dyn Error + Send + Sync>| io::Error::new(io::ErrorKind::InvalidInput, error);
    listen.parse().map_err(|error: spop_proto::ParseEndpointError| invalid(error.into()))
}
