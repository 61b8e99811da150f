//! Time, as a connection needs it.

use std::future::Future;
use std::time::Instant;

/// What keeps the deadlines of a connection: something that waits, and the clock it goes by.
///
/// A closure that takes an instant and returns a future is one, by the system's clock:
///
/// ```
/// # use futures_io::{AsyncRead, AsyncWrite};
/// # use spop_asyncstd::{Agent, Closed, Dispatch, Peer};
/// # async fn serve<S, D>(agent: Agent<D>, stream: S) -> Closed
/// # where S: AsyncRead + AsyncWrite + Unpin, D: Dispatch {
/// use std::future::pending;
///
/// // smol's `Timer` is async-io's: `smol::Timer::at` does as well.
/// agent.serve_connection_with(stream, Peer::Unknown, pending(), async_io::Timer::at).await
/// # }
/// ```
///
/// A deadline that moves away, as most do with every frame, sets no new timer: there is about one
/// wait for each time the earliest deadline of an idle connection passes.
///
/// The future of a connection can be sent to another thread where the timer is `Send` and `Sync`,
/// and its [`Wait`](Self::Wait) is `Send`.
pub trait Timer {
    /// Waits; its output is of no interest.
    type Wait: Future;

    /// A future that is ready once [`now`](Self::now) has reached that instant.
    fn wait_until(&self, at: Instant) -> Self::Wait;

    /// The clock: the system's, where nothing else is said.
    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl<F, W> Timer for F
where
    F: Fn(Instant) -> W,
    W: Future,
{
    type Wait = W;

    fn wait_until(&self, at: Instant) -> W {
        self(at)
    }
}
