//! An agent in this process, which keeps what it received: for the cases that ask what arrives.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use spop_tokio::{Agent, Scope};
use tokio::runtime;
use tokio::sync::oneshot;

pub(crate) use spop_tokio::OwnedValue as Value;

use crate::haproxy::DEADLINE;

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its name.
    pub(crate) message: String,
    /// Its arguments in their order.
    pub(crate) args: Vec<(String, Value)>,
}

impl Seen {
    /// The first argument of that name.
    pub(crate) fn arg(&self, name: &str) -> Option<&Value> {
        self.args.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }
}

/// Variables of the scope `txn`, by name.
pub(crate) type Variables = Vec<(&'static str, Value)>;

/// A running agent. Dropped, it stops.
#[derive(Debug)]
pub(crate) struct Spy {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Option<oneshot::Sender<()>>,
    stopped: mpsc::Receiver<()>,
}

impl Spy {
    /// Starts an agent that sets what `answer` says for each message.
    pub(crate) fn start(
        address: SocketAddr,
        answer: impl Fn(&Seen) -> Variables + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let kept = Arc::clone(&seen);
        let agent = Agent::inline(move |notify, ack| {
            for message in notify.messages() {
                let args = message.args().map(|arg| (text(arg.name), arg.value.to_owned()));
                let message = Seen { message: text(message.name()), args: args.collect() };
                for (name, value) in answer(&message) {
                    ack.set(Scope::Transaction, name, &value)?;
                }
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }
            Ok(())
        });

        let (stop, told) = oneshot::channel();
        let (started, ready) = mpsc::channel();
        let (ended, stopped) = mpsc::channel();
        // One thread is enough for an agent, and leaves the machine to the other cases.
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || {
            runtime.block_on(async {
                let server = match agent.bind(address).await {
                    Ok(server) => server,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let _ = started.send(Ok(()));
                // A sender that is dropped says stop, too.
                let _ = server.run_until(async { drop(told.await) }).await;
            });
            let _ = ended.send(());
        });
        ready.recv_timeout(DEADLINE).map_err(io::Error::other)??;
        Ok(Self { seen, stop: Some(stop), stopped })
    }

    /// What it received since the last call.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Spy {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Bounded: an agent that cannot stop must not keep the whole run waiting.
        let _ = self.stopped.recv_timeout(DEADLINE);
    }
}

/// Names come from HAProxy's configuration; only values are any bytes.
fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
