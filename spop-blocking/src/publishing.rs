//! What the agent counts, given to the `metrics` facade.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};

use spop_proto::Stats;
use spop_proto::stats::Publisher;

/// A thread that publishes once a second until this is dropped, and then once more.
pub(crate) struct Publishing(Option<(Sender<()>, JoinHandle<()>)>);

impl Publishing {
    pub(crate) fn start(stats: Stats) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = Builder::new().name("spop-metrics".to_owned()).spawn(move || {
            let mut publisher = Publisher::new(stats);
            while stopped.recv_timeout(Publisher::EVERY) == Err(RecvTimeoutError::Timeout) {
                publisher.publish();
            }
        })?;
        Ok(Self(Some((stop, thread))))
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}
