//! What HAProxy sends otherwise than the routes declare.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::declared::Declared;
use crate::request::{ArgError, found, text};
use crate::wire::Message;

/// How many messages of a route are looked at.
pub(super) const LOOKED_AT: u32 = 1_000;

type Tell = dyn Fn(&ArgError) + Send + Sync;

/// What was seen of a route's arguments, of the first 64 of them: a bit for each.
#[derive(Debug, Default)]
pub(super) struct Watch {
    messages: AtomicU32,
    /// Had a value of the declared type.
    fine: AtomicU64,
    /// Was told of.
    told: AtomicU64,
}

impl Watch {
    /// Looks at one more message, if it is one of the first; `tell` hears of each argument once.
    #[inline]
    pub(super) fn look(&self, declared: &[Declared], message: &Message<'_>, tell: &Tell) {
        if self.messages.load(Ordering::Relaxed) < LOOKED_AT {
            self.look_closely(declared, message, tell);
        }
    }

    #[cold]
    fn look_closely(&self, declared: &[Declared], message: &Message<'_>, tell: &Tell) {
        let last = self.messages.fetch_add(1, Ordering::Relaxed) == LOOKED_AT - 1;
        for (bit, arg) in (0..u64::BITS).map(|bit| 1_u64 << bit).zip(declared) {
            let wrong = match message.arg(&arg.name) {
                // It may be left out of the configuration on purpose.
                None if arg.optional => continue,
                None => ArgError::missing(message, &arg.name),
                Some(value) if value.is_null() => {
                    if !last || self.fine.load(Ordering::Relaxed) & bit != 0 {
                        continue;
                    }
                    ArgError::AlwaysNull {
                        message: text(message.name()),
                        arg: arg.name.clone(),
                        times: LOOKED_AT,
                    }
                }
                Some(value) if arg.kind.takes(&value) => {
                    self.fine.fetch_or(bit, Ordering::Relaxed);
                    continue;
                }
                Some(value) => ArgError::Mismatch {
                    message: text(message.name()),
                    arg: arg.name.clone(),
                    found: found(value),
                    expected: arg.kind.to_string().into(),
                },
            };
            if self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
                tell(&wrong);
            }
        }
    }
}
