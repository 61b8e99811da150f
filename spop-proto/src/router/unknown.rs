//! Messages without a route.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::shown::{self, head};

/// Names kept: they are a peer's.
const NAMES: usize = 64;

type Tell = dyn Fn(&str) + Send + Sync;

pub(super) struct Unknown {
    count: AtomicU64,
    tell: Option<Box<Tell>>,
    told: Mutex<Vec<Box<[u8]>>>,
}

impl Unknown {
    pub(super) const fn new() -> Self {
        Self { count: AtomicU64::new(0), tell: None, told: Mutex::new(Vec::new()) }
    }

    pub(super) fn tell_by(&mut self, tell: impl Fn(&str) + Send + Sync + 'static) {
        self.tell = Some(Box::new(tell));
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    #[cold]
    pub(super) fn met(&self, name: &[u8]) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let Some(tell) = &self.tell else { return };
        if self.is_new(head(name)) {
            tell(&shown::name(name).to_string());
        }
    }

    fn is_new(&self, name: &[u8]) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= NAMES || told.iter().any(|seen| **seen == *name) {
            return false;
        }
        told.push(name.into());
        true
    }
}
