//! Which HAProxy to be.

use clap::ValueEnum;
use spop_proto::Dialect;

/// A generation of HAProxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Generation {
    /// HAProxy up to 3.0: fragments, and stream-ids of the whole process (2.6, 2.8, 3.0 mean it, too)
    #[value(aliases = ["2.6", "2.8", "3.0"])]
    Old,
    /// HAProxy from 3.1 on (3.1, 3.2, 3.3, 3.4 mean it, too)
    #[value(aliases = ["3.1", "3.2", "3.3", "3.4"])]
    New,
}

impl From<Generation> for Dialect {
    fn from(generation: Generation) -> Self {
        match generation {
            Generation::Old => Self::Old,
            Generation::New => Self::New,
        }
    }
}
