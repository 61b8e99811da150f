//! What is counted: by a connection, by an agent, and how a monitoring system reads it.

mod counters;
mod histogram;
mod kinds;
mod messages;
mod page;
#[cfg(feature = "metrics")]
mod publisher;
mod shared;
mod snapshot;
mod tally;
mod visit;

use core::ops::AddAssign;

pub(crate) use self::counters::{Counted, Counters};
pub use self::histogram::Histogram;
pub use self::kinds::{CloseKind, ConnectionKind};
pub use self::messages::MessageCounts;
pub(crate) use self::messages::Striped;
#[cfg(feature = "metrics")]
pub use self::publisher::Publisher;
pub(crate) use self::shared::Held;
pub use self::shared::Stats;
pub use self::snapshot::Snapshot;
pub use self::tally::Tally;

macro_rules! stats {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Counters of one connection, or the sum of many.
        ///
        /// `notifies` is what HAProxy asked; it equals the answers of all causes plus `superseded`,
        /// `abandoned` and what is in flight. (Where `async` is in use, that holds for the sum of an
        /// engine's connections.)
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ConnectionStats {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl AddAssign<&Self> for ConnectionStats {
            fn add_assign(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
            }
        }

        impl ConnectionStats {
            /// How many counters there are.
            pub(crate) const COUNTERS: usize = [$(stringify!($field)),*].len();

            /// The counters in their order.
            pub(crate) const fn to_array(self) -> [u64; Self::COUNTERS] {
                [$(self.$field),*]
            }

            pub(crate) const fn from_array(counters: [u64; Self::COUNTERS]) -> Self {
                let [$($field),*] = counters;
                Self { $($field),* }
            }
        }
    };
}

stats! {
    /// Frames received, ignored ones included.
    frames,
    /// Whole NOTIFY payloads received.
    notifies,
    /// Answered as the handler wanted.
    answered,
    /// Answered with the fallback: the handler returned an error, that an action did not fit included.
    errors,
    /// Answered with the fallback: the handler panicked.
    panics,
    /// Answered with the fallback: the answer was late.
    deadlines,
    /// Answered with the fallback: too many answers were in flight, or held back.
    shed,
    /// Answered with the fallback: nobody gave an answer (it was dropped or forgotten).
    unanswered,
    /// Answers of which an action was refused because it did not fit the ACK's frame.
    too_big,
    /// Answers held back for a while: HAProxy >= 3.1 must not be sent more at once than its receive
    /// buffer takes. See [`Pacing`](crate::Pacing).
    held,
    /// Answered on another connection of the same engine
    /// ([`AgentConnection::answer_on`](crate::AgentConnection::answer_on)), which counts the answer.
    elsewhere,
    /// Answers given up because HAProxy asked anew with the same ids.
    superseded,
    /// Answers given up because the connection ended first.
    abandoned,
    /// Fragmented payloads given up by HAProxy.
    aborted,
    /// Fragmented payloads refused: too large, or the next fragment did not come.
    refused,
    /// Frames that meant nothing here and were skipped.
    ignored,
}

impl ConnectionStats {
    /// ACKs written for whole NOTIFYs, whatever the cause.
    #[must_use]
    pub const fn acks(&self) -> u64 {
        self.answered + self.fallbacks()
    }

    /// NOTIFYs that are in nobody's hands any more: answered, superseded, or given up with their
    /// connection.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.acks() + self.superseded + self.abandoned
    }

    /// ACKs that carried the fallback answer.
    #[must_use]
    pub const fn fallbacks(&self) -> u64 {
        self.errors + self.panics + self.deadlines + self.shed + self.unanswered
    }
}
