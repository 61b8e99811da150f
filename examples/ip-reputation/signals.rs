//! Signals, received on plain threads: the same under every runtime.

use std::ffi::c_int;
use std::io;
use std::process;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator;

/// Signals of some kinds. One that comes before anybody looks is not lost.
#[derive(Debug)]
pub(crate) struct Signals(iterator::Signals);

impl Signals {
    /// SIGHUP.
    pub(crate) fn hangup() -> io::Result<Self> {
        Self::install(&[SIGHUP])
    }

    /// SIGTERM and Ctrl-C.
    pub(crate) fn stop() -> io::Result<Self> {
        Self::install(&[SIGTERM, SIGINT])
    }

    fn install(kinds: &[c_int]) -> io::Result<Self> {
        iterator::Signals::new(kinds).map(Self)
    }

    /// Calls `act` for each, on a thread of its own, until the process ends.
    pub(crate) fn on_each(mut self, mut act: impl FnMut() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || self.0.forever().for_each(|_| act())).map(drop)
    }

    /// Calls `stop` for the first and ends the process at the second.
    pub(crate) fn on_first(self, stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut stop = Some(stop);
        self.on_each(move || match stop.take() {
            Some(stop) => stop(),
            None => {
                eprintln!("ip-reputation: told to stop a second time: connections cut");
                process::exit(1);
            }
        })
    }
}
