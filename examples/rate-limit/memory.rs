//! Counts in memory.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many clients are kept: about 100 MB.
const CLIENTS: usize = 1_000_000;
/// How often those whose window is over are looked for, at most: all are looked at, and everybody waits.
const SWEEP: Duration = Duration::from_secs(1);

/// Counts of one agent.
pub(crate) struct Memory {
    window: Duration,
    most: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    clients: HashMap<IpAddr, (Instant, u64)>,
    swept: Option<Instant>,
}

impl Memory {
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, most: CLIENTS, counts: Mutex::default() }
    }

    /// Counts a request, and tells how many there are in this client's window.
    ///
    /// # Errors
    /// When there are too many clients: better none of the new ones than all of the old ones is forgotten.
    pub(crate) fn count(&self, ip: IpAddr, now: Instant) -> Result<u64, Full> {
        let over = |begin: Instant| now.saturating_duration_since(begin) >= self.window;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { clients, swept } = &mut *counts;
        if clients.len() >= self.most && !clients.contains_key(&ip) {
            if swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
                *swept = Some(now);
                clients.retain(|_, (begin, _)| !over(*begin));
            }
            if clients.len() >= self.most {
                return Err(Full);
            }
        }
        let (begin, count) = clients.entry(ip).or_insert((now, 0));
        if over(*begin) {
            (*begin, *count) = (now, 0);
        }
        *count += 1;
        Ok(*count)
    }
}

/// There is no room for another client.
#[derive(Debug)]
pub(crate) struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CLIENTS} clients are being counted, and no more can be")
    }
}

impl Error for Full {}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[test]
    fn a_window_begins_with_the_first_request() {
        let (memory, start) = (Memory::new(Duration::from_secs(60)), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (time, count) in [(0, 1), (59, 2), (60, 1), (119, 2), (500, 1)] {
            assert_eq!(memory.count(client(1), at(time)).unwrap(), count, "{time} s");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let memory = Memory { most: 2, ..Memory::new(Duration::from_secs(60)) };
        let start = Instant::now();
        assert_eq!(memory.count(client(1), start).unwrap(), 1);
        assert_eq!(memory.count(client(2), start).unwrap(), 1);
        assert!(memory.count(client(3), start).is_err());
        assert_eq!(memory.count(client(1), start).unwrap(), 2);
        // Those whose window is over make room.
        assert_eq!(memory.count(client(3), start + Duration::from_secs(60)).unwrap(), 1);
    }

    #[test]
    fn room_is_looked_for_once_in_a_while() {
        let memory = Memory { most: 1, ..Memory::new(Duration::from_millis(100)) };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(memory.count(client(1), at(0)).unwrap(), 1);
        assert!(memory.count(client(2), at(50)).is_err());
        assert!(memory.count(client(2), at(150)).is_err(), "not looked for again so soon");
        assert_eq!(memory.count(client(2), at(1050)).unwrap(), 1);
    }
}
