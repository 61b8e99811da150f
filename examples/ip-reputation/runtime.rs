//! The same agent under each runtime, and all that differs: who runs it, and how it hears of a stop.
//!
//! Each function listens, serves until told to stop, and returns when the drain is over. How it went
//! is in the log: the library's last line is its report.

use std::io;
use std::time::Duration;

use spop_proto::{Dispatch, Endpoint, Router, Service};

use crate::handed_over::HandedOver;
use crate::metrics::Metrics;
use crate::reputation::REQUEST_ID;
use crate::signals::Signals;

/// How long health checks fail before the agent leaves: more than `inter` times `fall` of the
/// `server` line in haproxy.cfg, so that HAProxy has gone elsewhere by then.
const LAME_DUCK: Duration = Duration::from_secs(3);

/// Tasks of tokio, on a thread for each processor.
pub(crate) fn tokio(
    router: Router,
    listen: Endpoint,
    stop: Signals,
    metrics: Option<Metrics>,
) -> io::Result<()> {
    async fn run(
        server: spop_tokio::Server<impl Dispatch, impl spop_tokio::Listener>,
        stop: Signals,
    ) -> io::Result<()> {
        let (tell, told) = tokio::sync::oneshot::channel();
        stop.on_first(|| _ = tell.send(()))?;
        server.run_until(async { _ = told.await }).await;
        Ok(())
    }
    let agent = spop_tokio::Agent::new(router).request_id(REQUEST_ID).lame_duck(LAME_DUCK);
    if let Some(metrics) = metrics {
        metrics.serve(agent.stats())?;
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        match HandedOver::at(&listen)? {
            None => run(agent.bind(listen).await?, stop).await,
            Some(HandedOver::Tcp(listener)) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                run(agent.serve(listener)?, stop).await
            }
            Some(HandedOver::Unix(listener)) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::UnixListener::from_std(listener)?;
                run(agent.serve(listener)?, stop).await
            }
        }
    })
}

/// Tasks of async-std, on a thread for each processor.
pub(crate) fn async_std(
    router: Router,
    listen: Endpoint,
    stop: Signals,
    metrics: Option<Metrics>,
) -> io::Result<()> {
    async fn run(
        server: spop_asyncstd::Server<impl Dispatch, impl spop_asyncstd::Listener>,
        stop: Signals,
    ) -> io::Result<()> {
        let (tell, told) = async_std::channel::bounded(1);
        stop.on_first(move || _ = tell.try_send(()))?;
        server.run_until(async { _ = told.recv().await }).await;
        Ok(())
    }
    let agent = spop_asyncstd::Agent::new(router).request_id(REQUEST_ID).lame_duck(LAME_DUCK);
    if let Some(metrics) = metrics {
        metrics.serve(agent.stats())?;
    }
    async_std::task::block_on(async {
        match HandedOver::at(&listen)? {
            None => run(agent.bind(listen).await?, stop).await,
            Some(HandedOver::Tcp(listener)) => {
                run(agent.serve(async_std::net::TcpListener::from(listener))?, stop).await
            }
            Some(HandedOver::Unix(listener)) => {
                let listener = async_std::os::unix::net::UnixListener::from(listener);
                run(agent.serve(listener)?, stop).await
            }
        }
    })
}

/// A thread for each connection. Answers are computed there, or by so many `workers` that all
/// connections share.
pub(crate) fn blocking(
    router: Router,
    listen: Endpoint,
    stop: Signals,
    metrics: Option<Metrics>,
    workers: usize,
) -> io::Result<()> {
    fn run(
        server: spop_blocking::Server<impl Service, impl spop_blocking::Listener>,
        stop: Signals,
    ) -> io::Result<()> {
        let tell = server.stop_handle();
        stop.on_first(move || tell.stop())?;
        server.run().map(drop)
    }
    let agent = spop_blocking::Agent::new(router)
        .request_id(REQUEST_ID)
        .lame_duck(LAME_DUCK)
        .workers(workers);
    if let Some(metrics) = metrics {
        metrics.serve(agent.stats())?;
    }
    match HandedOver::at(&listen)? {
        None => run(agent.bind(listen)?, stop),
        Some(HandedOver::Tcp(listener)) => {
            listener.set_nonblocking(false)?;
            run(agent.serve(listener)?, stop)
        }
        Some(HandedOver::Unix(listener)) => {
            listener.set_nonblocking(false)?;
            run(agent.serve(listener)?, stop)
        }
    }
}
