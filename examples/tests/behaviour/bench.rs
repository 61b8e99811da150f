//! What a behaviour is given to work with.

use spop_proto::{Endpoint, Limits};
use std::time::Duration;

use crate::adapter::{Adapter, Mode, Running, Setup};
use crate::script::{self, Script};

/// One adapter in one mode, and a handler that belongs to this trial alone.
pub(crate) struct Bench {
    pub(crate) adapter: &'static dyn Adapter,
    pub(crate) mode: Mode,
    pub(crate) script: Script,
}

impl Bench {
    pub(crate) fn new(adapter: &'static dyn Adapter, mode: Mode) -> Self {
        Self { adapter, mode, script: Script::default() }
    }

    /// An agent on a port of its own, with a fallback answer.
    pub(crate) fn setup(&self) -> Setup {
        Setup {
            mode: self.mode,
            script: self.script.clone(),
            router: false,
            config: script::config(),
            endpoint: Endpoint::Tcp("127.0.0.1:0".to_owned()),
            lame_duck: Duration::ZERO,
            workers: 4,
        }
    }

    /// Starts that agent.
    #[track_caller]
    pub(crate) fn start(&self) -> Running {
        self.adapter.start(self.setup()).unwrap()
    }

    /// Starts it with other limits.
    #[track_caller]
    pub(crate) fn start_with(&self, limits: Limits) -> Running {
        let mut setup = self.setup();
        setup.config = setup.config.limits(limits);
        self.adapter.start(setup).unwrap()
    }
}

impl Drop for Bench {
    /// Lets handlers go that a failure left at the gate.
    fn drop(&mut self) {
        self.script.gate.open_all();
    }
}
