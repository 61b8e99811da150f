//! What an adapter has to say to be put through the behaviours.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustls::ServerConfig;
use spop_proto::server::Closed;
use spop_proto::{AgentConfig, Endpoint, Report};

use crate::PATIENCE;
use crate::script::Script;

/// An adapter. A new one is a file in `adapters` with this in it, and a line in `adapters::ALL`.
pub(crate) trait Adapter: Sync {
    /// The name its trials are reported under.
    fn name(&self) -> &'static str;

    /// The ways in which it runs handlers. Every behaviour is tried in each of them that it can be
    /// seen in.
    fn modes(&self) -> &'static [Mode];

    /// Why that behaviour cannot be expected of it in that mode: the trial is ignored, with this
    /// reason.
    fn cannot(&self, _behaviour: &str, _mode: Mode) -> Option<&'static str> {
        None
    }

    /// Starts an agent. Handlers that run inline may block for a moment. What is returned listens already.
    fn start(&self, setup: Setup) -> io::Result<Running>;

    /// Serves one connection that speaks TLS with `serve_connection`, to its end. The endpoint of
    /// the setup is not used.
    fn serve_tls(
        &self,
        setup: Setup,
        stream: TcpStream,
        tls: Arc<ServerConfig>,
    ) -> io::Result<Closed>;
}

/// How handlers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// On the task or thread that reads.
    Inline,
    /// In futures.
    Concurrent,
    /// On a pool of threads, as many as [`Setup::workers`] says.
    Workers,
}

impl Mode {
    /// Whether requests of one connection are handled at the same time.
    pub(crate) fn overtakes(self) -> bool {
        self != Self::Inline
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inline => "inline",
            Self::Concurrent => "concurrent",
            Self::Workers => "workers",
        })
    }
}

/// The agent that a behaviour wants.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) mode: Mode,
    pub(crate) script: Script,
    /// Instead of the script, a router that takes the argument `number` of the message `echo`.
    pub(crate) router: bool,
    pub(crate) config: AgentConfig,
    pub(crate) endpoint: Endpoint,
    pub(crate) lame_duck: Duration,
    pub(crate) workers: usize,
}

/// An agent that runs. Dropped, it is told to stop.
pub(crate) struct Running {
    endpoint: Endpoint,
    stop: Option<Box<dyn FnOnce() + Send>>,
    report: mpsc::Receiver<Report>,
}

impl Running {
    /// Runs the agent: `run` on a thread of its own until it returns, which it does after `stop`.
    pub(crate) fn new(
        endpoint: Endpoint,
        stop: impl FnOnce() + Send + 'static,
        run: impl FnOnce() -> Report + Send + 'static,
    ) -> Self {
        let (done, report) = mpsc::channel();
        // Nobody is left to listen where the trial failed before.
        thread::spawn(move || done.send(run()).unwrap_or_default());
        Self { endpoint, stop: Some(Box::new(stop)), report }
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks it to stop.
    pub(crate) fn ask_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn report(&self) -> Report {
        match self.report.recv_timeout(PATIENCE) {
            Ok(report) => report,
            Err(error) => panic!("the agent did not end: {error}"),
        }
    }

    /// Asks it to stop, and waits for its end.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Report {
        self.ask_to_stop();
        self.report()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}
