//! An agent in this process, which keeps what it received: for the cases that ask what arrives.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, ready};
use std::thread;

use spop_proto::handler::Dispatch;
use spop_tokio::{
    Ack, Agent, AgentConfig, Endpoint, HandlerError, Listener, Message, Notify, Peer, Report, Scope,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::oneshot;

pub(crate) use spop_tokio::OwnedValue as Value;

use crate::haproxy::DEADLINE;
use crate::raw::listen;

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

impl From<Message<'_>> for Seen {
    fn from(message: Message<'_>) -> Self {
        let args = message.args().map(|arg| (text(arg.name), arg.value.to_owned()));
        Self { message: text(message.name()), args: args.collect() }
    }
}

/// A NOTIFY as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// HAProxy's stream.
    pub(crate) stream_id: u64,
    /// The frame within the stream.
    pub(crate) frame_id: u64,
    /// Its messages in their order.
    pub(crate) messages: Vec<Seen>,
}

/// Variables of the scope `txn`, by name.
pub(crate) type Variables = Vec<(&'static str, Value)>;

/// A running agent. Dropped, it stops.
#[derive(Debug)]
pub(crate) struct Spy {
    asked: Arc<Mutex<Vec<Asked>>>,
    _serving: Serving,
}

impl Spy {
    /// Starts an agent that sets what `answer` says for each message.
    pub(crate) fn start(
        address: SocketAddr,
        answer: impl Fn(&Seen) -> Variables + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::serve(address, AgentConfig::new(), move |notify, ack| {
            for message in notify.messages() {
                for (name, value) in answer(&Seen::from(message)) {
                    ack.set(Scope::Transaction, name, &value)?;
                }
            }
            Ok(())
        })
    }

    /// Starts an agent that answers each NOTIFY itself.
    pub(crate) fn serve(
        address: SocketAddr,
        config: AgentConfig,
        answer: impl Fn(Notify<'_>, &mut Ack<'_>) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let kept = Arc::clone(&asked);
        let agent = Agent::inline(move |notify, ack| {
            let (stream_id, frame_id) = (notify.stream_id(), notify.frame_id());
            let messages = notify.messages().map(Seen::from).collect();
            let asked = Asked { stream_id, frame_id, messages };
            // Before the answer: whoever sees its effect finds the question here.
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
            answer(notify, ack)
        })
        .config(config);

        Ok(Self { asked, _serving: Serving::start(address, agent)? })
    }

    /// The messages it received since the last call.
    pub(crate) fn take(&self) -> Vec<Seen> {
        self.take_asked().into_iter().flat_map(|asked| asked.messages).collect()
    }

    /// The same, by NOTIFY.
    pub(crate) fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Any agent of the library, on a thread of its own. Dropped, it stops.
#[derive(Debug)]
pub(crate) struct Serving {
    stop: Option<oneshot::Sender<()>>,
    stopped: mpsc::Receiver<Report>,
}

impl Serving {
    /// Serves on an address.
    pub(crate) fn start<D: Dispatch>(address: SocketAddr, agent: Agent<D>) -> io::Result<Self> {
        let listener = listen(address)?;
        listener.set_nonblocking(true)?;
        Self::start_on(async move || TcpListener::from_std(listener), agent)
    }

    /// Serves on a listener, which is made within the runtime.
    pub(crate) fn start_on<D: Dispatch, L: Listener>(
        listen: impl AsyncFnOnce() -> io::Result<L> + Send + 'static,
        agent: Agent<D>,
    ) -> io::Result<Self> {
        let (stop, told) = oneshot::channel();
        let (started, ready) = mpsc::channel();
        let (ended, stopped) = mpsc::channel();
        // One thread is enough for an agent, and leaves the machine to the other cases.
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || {
            runtime.block_on(async {
                let server = match listen().await.and_then(|listener| agent.serve(listener)) {
                    Ok(server) => server,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let _ = started.send(Ok(()));
                let _ = ended.send(server.run_until(async { drop(told.await) }).await);
            });
        });
        ready.recv_timeout(DEADLINE).map_err(io::Error::other)??;
        Ok(Self { stop: Some(stop), stopped })
    }

    /// Stops it, and tells what it did.
    pub(crate) fn stop(mut self) -> io::Result<Report> {
        drop(self.stop.take());
        self.stopped.recv_timeout(DEADLINE).map_err(io::Error::other)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Bounded: an agent that cannot stop must not keep the whole run waiting.
        let _ = self.stopped.recv_timeout(DEADLINE);
    }
}

/// A listener that accepts one connection and leaves the others in the backlog: HAProxy has to do
/// everything on that one.
#[derive(Debug)]
pub(crate) struct FirstOnly {
    listener: TcpListener,
    accepted: bool,
}

impl FirstOnly {
    /// For [`Serving::start_on`].
    pub(crate) fn listen(
        listener: std::net::TcpListener,
    ) -> impl AsyncFnOnce() -> io::Result<Self> + Send + 'static {
        async move || {
            listener.set_nonblocking(true)?;
            Ok(Self { listener: TcpListener::from_std(listener)?, accepted: false })
        }
    }
}

impl Listener for FirstOnly {
    type Stream = TcpStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, Peer)>> {
        if self.accepted {
            return Poll::Pending;
        }
        let accepted = ready!(Listener::poll_accept(&mut self.listener, cx))?;
        self.accepted = true;
        Poll::Ready(Ok(accepted))
    }

    fn local_addr(&self) -> io::Result<Endpoint> {
        Listener::local_addr(&self.listener)
    }
}

/// Names come from HAProxy's configuration; only values are any bytes.
fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
