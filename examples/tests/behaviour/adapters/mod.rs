//! The adapters, one file each.

mod asyncstd;
mod blocking;
mod tokio;

use crate::adapter::Adapter;

/// All of them.
pub(crate) const ALL: &[&dyn Adapter] = &[&tokio::Tokio, &asyncstd::AsyncStd, &blocking::Blocking];
