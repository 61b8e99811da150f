//! The same agent under each runtime, and all that differs: who runs it, and how it hears of a stop.
//!
//! Each function listens, serves until told to stop, and returns when the drain is over. How it went
//! is in the log: the library's last line is its report.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spop_proto::{Dispatch, Endpoint, Router, Service, Stats};

use crate::handed_over::HandedOver;
use crate::metrics::Metrics;
use crate::reputation::REQUEST_ID;
use crate::service_manager::ServiceManager;
use crate::signals::Signals;

/// What the process hears and says, whoever runs it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) stop: Signals,
    pub(crate) manager: Arc<ServiceManager>,
    /// Where the page for Prometheus is, if it is wanted.
    pub(crate) metrics: Option<Metrics>,
    /// The file of a Unix socket and its permissions, if the umask is not to decide.
    pub(crate) socket_mode: Option<(PathBuf, u32)>,
}

impl Process {
    /// Shows what the agent counts, if that is wanted.
    fn show(&mut self, stats: Stats) -> io::Result<()> {
        self.metrics.take().map_or(Ok(()), |metrics| metrics.serve(stats))
    }

    /// There is a listener. From now on the first signal to stop calls `stop`, and the second is the end.
    fn serving(self, stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let Self { stop: signals, manager, metrics: _, socket_mode } = self;
        if let Some((path, mode)) = socket_mode {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        manager.ready();
        signals.on_first(move || {
            manager.stopping();
            stop();
        })
    }
}

/// How long health checks fail before the agent leaves: more than `inter` times `fall` of the
/// `server` line in haproxy.cfg, so that HAProxy has gone elsewhere by then.
const LAME_DUCK: Duration = Duration::from_secs(3);

/// Tasks of tokio, on a thread for each processor.
pub(crate) fn tokio(router: Router, listen: Endpoint, mut process: Process) -> io::Result<()> {
    async fn run(
        server: spop_tokio::Server<impl Dispatch, impl spop_tokio::Listener>,
        process: Process,
    ) -> io::Result<()> {
        let (tell, told) = tokio::sync::oneshot::channel();
        process.serving(|| _ = tell.send(()))?;
        server.run_until(async { _ = told.await }).await;
        Ok(())
    }
    let agent = spop_tokio::Agent::new(router).request_id(REQUEST_ID).lame_duck(LAME_DUCK);
    process.show(agent.stats())?;
    tokio::runtime::Runtime::new()?.block_on(async {
        match HandedOver::at(&listen)? {
            None => run(agent.bind(listen).await?, process).await,
            Some(HandedOver::Tcp(listener)) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                run(agent.serve(listener)?, process).await
            }
            Some(HandedOver::Unix(listener)) => {
                listener.set_nonblocking(true)?;
                let listener = tokio::net::UnixListener::from_std(listener)?;
                run(agent.serve(listener)?, process).await
            }
        }
    })
}

/// Tasks of async-std, on a thread for each processor.
pub(crate) fn async_std(router: Router, listen: Endpoint, mut process: Process) -> io::Result<()> {
    async fn run(
        server: spop_asyncstd::Server<impl Dispatch, impl spop_asyncstd::Listener>,
        process: Process,
    ) -> io::Result<()> {
        let (tell, told) = async_std::channel::bounded(1);
        process.serving(move || _ = tell.try_send(()))?;
        server.run_until(async { _ = told.recv().await }).await;
        Ok(())
    }
    let agent = spop_asyncstd::Agent::new(router).request_id(REQUEST_ID).lame_duck(LAME_DUCK);
    process.show(agent.stats())?;
    async_std::task::block_on(async {
        match HandedOver::at(&listen)? {
            None => run(agent.bind(listen).await?, process).await,
            Some(HandedOver::Tcp(listener)) => {
                run(agent.serve(async_std::net::TcpListener::from(listener))?, process).await
            }
            Some(HandedOver::Unix(listener)) => {
                let listener = async_std::os::unix::net::UnixListener::from(listener);
                run(agent.serve(listener)?, process).await
            }
        }
    })
}

/// A thread for each connection. Answers are computed there, or by so many `workers` that all
/// connections share.
pub(crate) fn blocking(
    router: Router,
    listen: Endpoint,
    mut process: Process,
    workers: usize,
) -> io::Result<()> {
    fn run(
        server: spop_blocking::Server<impl Service, impl spop_blocking::Listener>,
        process: Process,
    ) -> io::Result<()> {
        let tell = server.stop_handle();
        process.serving(move || tell.stop())?;
        server.run().map(drop)
    }
    let agent = spop_blocking::Agent::new(router)
        .request_id(REQUEST_ID)
        .lame_duck(LAME_DUCK)
        .workers(workers);
    process.show(agent.stats())?;
    match HandedOver::at(&listen)? {
        None => run(agent.bind(listen)?, process),
        Some(HandedOver::Tcp(listener)) => {
            listener.set_nonblocking(false)?;
            run(agent.serve(listener)?, process)
        }
        Some(HandedOver::Unix(listener)) => {
            listener.set_nonblocking(false)?;
            run(agent.serve(listener)?, process)
        }
    }
}
