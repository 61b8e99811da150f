//! The same agent under each runtime, and all that differs: who runs it, and how it hears of a stop.
//!
//! Each function listens, serves until told to stop, and returns when the drain is over. How it went
//! is in the log: the library's last line is its report.

use std::io;
use std::time::Duration;

use spop_proto::{Endpoint, Router};

use crate::signals::Signals;

/// How long health checks fail before the agent leaves: more than `inter` times `fall` of the
/// `server` line in haproxy.cfg, so that HAProxy has gone elsewhere by then.
const LAME_DUCK: Duration = Duration::from_secs(3);

/// Tasks of tokio, on a thread for each processor.
pub(crate) fn tokio(router: Router, listen: Endpoint, stop: Signals) -> io::Result<()> {
    let agent = spop_tokio::Agent::new(router).lame_duck(LAME_DUCK);
    tokio::runtime::Runtime::new()?.block_on(async {
        let server = agent.bind(listen).await?;
        let (tell, told) = tokio::sync::oneshot::channel();
        stop.on_first(|| _ = tell.send(()))?;
        server.run_until(async { _ = told.await }).await;
        Ok(())
    })
}

/// Tasks of async-std, on a thread for each processor.
pub(crate) fn async_std(router: Router, listen: Endpoint, stop: Signals) -> io::Result<()> {
    let agent = spop_asyncstd::Agent::new(router).lame_duck(LAME_DUCK);
    async_std::task::block_on(async {
        let server = agent.bind(listen).await?;
        let (tell, told) = async_std::channel::bounded(1);
        stop.on_first(move || _ = tell.try_send(()))?;
        server.run_until(async { _ = told.recv().await }).await;
        Ok(())
    })
}

/// A thread for each connection. Answers are computed there, or by so many `workers` that all
/// connections share.
pub(crate) fn blocking(
    router: Router,
    listen: Endpoint,
    stop: Signals,
    workers: usize,
) -> io::Result<()> {
    let agent = spop_blocking::Agent::new(router).lame_duck(LAME_DUCK).workers(workers);
    let server = agent.bind(listen)?;
    let tell = server.stop_handle();
    stop.on_first(move || tell.stop())?;
    server.run()?;
    Ok(())
}
