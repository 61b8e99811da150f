//! Answers still owed: the NOTIFYs whose answer was deferred.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a connection looks whether others have answered enough for it to go on: nothing wakes it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What is owed on all connections of an agent. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owed(Arc<Sums>);

#[derive(Debug, Default)]
struct Sums {
    answers: AtomicU32,
    /// Of the NOTIFYs they are owed for, which somebody holds as long.
    bytes: AtomicUsize,
}

impl Owed {
    /// How many answers. Nothing else is decided by it than whether there are too many: no order is
    /// needed.
    #[inline]
    pub(crate) fn answers(&self) -> u32 {
        self.0.answers.load(Ordering::Relaxed)
    }

    /// How many bytes they are owed for.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.answers.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, answers: u32, bytes: usize) {
        self.0.answers.fetch_sub(answers, Ordering::Relaxed);
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The two numbers that name a NOTIFY on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) stream: u64,
    pub(crate) frame: u64,
}

/// A place in the table, and the one use of it that this is the key to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    slot: u32,
    serial: u64,
}

const NONE: u32 = u32::MAX;

/// The answers owed. The table is made for the first one: most connections never defer any.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    table: Option<Box<Table>>,
    /// Numbers the answers; never the same twice, so a key can be told from a later one of its slot.
    next: u64,
}

/// Slots are reused, and linked in the order of arrival. Every answer has the same time, so the
/// oldest one is always the next to be late.
#[derive(Debug)]
struct Table {
    /// What its agent owes, this included.
    agent: Owed,
    /// When to look whether the agent still owes too much to go on.
    look_again: Option<Instant>,
    slots: Vec<Slot>,
    oldest: u32,
    newest: u32,
    free: u32,
    len: u32,
    bytes: usize,
}

/// A slot is either owed (in the list from `oldest` to `newest`) or free (in the list from `free`).
#[derive(Debug)]
struct Slot {
    ids: Ids,
    /// Of the NOTIFY.
    bytes: usize,
    deadline: Option<Instant>,
    serial: u64,
    owed: bool,
    older: u32,
    newer: u32,
}

impl InFlight {
    pub(crate) fn len(&self) -> u32 {
        self.table.as_deref().map_or(0, |table| table.len)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Of the NOTIFYs whose answers are owed.
    pub(crate) fn bytes(&self) -> usize {
        self.table.as_deref().map_or(0, |table| table.bytes)
    }

    /// Adds an answer owed for a NOTIFY of that many bytes.
    pub(crate) fn insert(
        &mut self,
        ids: Ids,
        bytes: usize,
        deadline: Option<Instant>,
        agent: &Owed,
    ) -> Key {
        let serial = self.next;
        self.next += 1;
        let slot = self.table(agent).insert((ids, bytes), deadline, serial);
        Key { slot, serial }
    }

    fn table(&mut self, agent: &Owed) -> &mut Table {
        self.table.get_or_insert_with(|| Box::new(Table::new(agent.clone())))
    }

    /// Notes that this connection has to wait until its agent owes less.
    pub(crate) fn wait_for_agent(&mut self, agent: &Owed, now: Instant) {
        self.table(agent).look_again = now.checked_add(LOOK_AGAIN);
    }

    /// It has not to wait any more.
    pub(crate) fn go_on(&mut self) {
        if let Some(table) = &mut self.table {
            table.look_again = None;
        }
    }

    /// When to look whether it may go on; `None` while it does not wait for its agent.
    #[inline]
    pub(crate) fn look_again(&self) -> Option<Instant> {
        self.table.as_deref()?.look_again
    }

    /// The NOTIFY of a key, unless the key is stale.
    pub(crate) fn get(&self, key: Key) -> Option<Ids> {
        let slot = self.table.as_deref()?.slot(key.slot)?;
        (slot.owed && slot.serial == key.serial).then_some(slot.ids)
    }

    /// When the answer of a key is late, unless the key is stale.
    pub(crate) fn deadline(&self, key: Key) -> Option<Instant> {
        let slot = self.table.as_deref()?.slot(key.slot)?;
        slot.deadline.filter(|_| slot.owed && slot.serial == key.serial)
    }

    /// Takes an answer out of the table; false where the key is stale.
    pub(crate) fn remove(&mut self, key: Key) -> bool {
        let known = self.get(key).is_some();
        if known && let Some(table) = &mut self.table {
            table.remove(key.slot);
        }
        known
    }

    /// The answer owed for these ids. Walks the list: HAProxy keeps at most 20 in flight.
    pub(crate) fn find(&self, ids: Ids) -> Option<Key> {
        let table = self.table.as_deref()?;
        let mut at = table.oldest;
        while let Some(slot) = table.slot(at) {
            if slot.ids == ids {
                return Some(Key { slot: at, serial: slot.serial });
            }
            at = slot.newer;
        }
        None
    }

    /// The oldest answer, which is the first to be late.
    #[inline]
    pub(crate) fn oldest(&self) -> Option<(Key, Ids, Option<Instant>)> {
        let table = self.table.as_deref()?;
        let slot = table.slot(table.oldest)?;
        Some((Key { slot: table.oldest, serial: slot.serial }, slot.ids, slot.deadline))
    }

    /// When the oldest is late, or it is to be looked whether to go on.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let table = self.table.as_deref()?;
        let late = table.slot(table.oldest).and_then(|slot| slot.deadline);
        [late, table.look_again].into_iter().flatten().min()
    }

    /// Makes every key stale; returns how many answers were owed.
    pub(crate) fn clear(&mut self) -> u32 {
        let owed = self.len();
        self.table = None;
        owed
    }

    /// Gives memory back if nothing is owed; keys handed out before stay stale.
    pub(crate) fn trim(&mut self) {
        if self.is_empty() && self.look_again().is_none() {
            self.table = None;
        }
    }

    /// Memory held.
    pub(crate) fn capacity(&self) -> usize {
        let table = self.table.as_deref();
        table.map_or(0, |table| size_of::<Table>() + table.slots.capacity() * size_of::<Slot>())
    }
}

/// Whatever ends a connection, its answers are owed no more.
impl Drop for Table {
    fn drop(&mut self) {
        self.agent.subtract(self.len, self.bytes);
    }
}

impl Table {
    const fn new(agent: Owed) -> Self {
        let slots = Vec::new();
        Self {
            agent,
            look_again: None,
            slots,
            oldest: NONE,
            newest: NONE,
            free: NONE,
            len: 0,
            bytes: 0,
        }
    }

    fn insert(
        &mut self,
        (ids, bytes): (Ids, usize),
        deadline: Option<Instant>,
        serial: u64,
    ) -> u32 {
        let older = self.newest;
        let new = Slot { ids, bytes, deadline, serial, owed: true, older, newer: NONE };
        let at = self.free;
        let at = match self.slot_mut(at) {
            Some(slot) => {
                let next_free = core::mem::replace(slot, new).newer;
                core::mem::replace(&mut self.free, next_free)
            }
            None => {
                self.slots.push(new);
                // The caller's limit on answers in flight is a u32, and NONE is out of its reach:
                // that many slots do not fit a memory.
                u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
            }
        };
        match self.slot_mut(older) {
            Some(older) => older.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
        self.len += 1;
        self.bytes += bytes;
        self.agent.add(bytes);
        at
    }

    /// Takes an owed slot out of its list and into the one of the free.
    fn remove(&mut self, at: u32) {
        let free = self.free;
        let Some(slot) = self.slot_mut(at) else { return };
        slot.owed = false;
        let (older, newer, bytes) = (slot.older, slot.newer, slot.bytes);
        slot.newer = free;
        self.free = at;
        match self.slot_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.slot_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.len -= 1;
        self.bytes -= bytes;
        self.agent.subtract(1, bytes);
    }

    fn slot(&self, at: u32) -> Option<&Slot> {
        self.slots.get(usize::try_from(at).ok()?)
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(at).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(stream: u64) -> Ids {
        Ids { stream, frame: 1 }
    }

    #[test]
    fn out_of_order_and_reuse() {
        let mut table = InFlight::default();
        let keys: Vec<_> =
            (0..4).map(|n| table.insert(ids(n), 10, None, &Owed::default())).collect();
        assert!(table.remove(keys[1]));
        assert!(!table.remove(keys[1]));
        assert!(table.remove(keys[3]));
        let reused = table.insert(ids(9), 10, None, &Owed::default());
        assert_eq!(reused.slot, keys[3].slot);
        assert_eq!(table.get(keys[3]), None, "a stale key never finds the slot's next use");
        assert_eq!(table.get(reused), Some(ids(9)));
        let mut order = Vec::new();
        while let Some((key, ids, _)) = table.oldest() {
            order.push(ids.stream);
            table.remove(key);
        }
        assert_eq!(order, [0, 2, 9]);
        assert!(table.is_empty());
    }

    #[test]
    fn find_and_clear() {
        let mut table = InFlight::default();
        let key = table.insert(ids(5), 10, None, &Owed::default());
        table.insert(ids(6), 10, None, &Owed::default());
        assert_eq!(table.find(ids(5)), Some(key));
        assert_eq!(table.find(Ids { stream: 5, frame: 2 }), None);
        assert_eq!(table.clear(), 2);
        assert_eq!(table.find(ids(5)), None);
        assert_eq!(table.get(key), None);
        table.insert(ids(7), 10, None, &Owed::default());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn slots_are_reused() {
        let mut table = InFlight::default();
        for round in 0..100 {
            let keys: Vec<_> = (0..20)
                .map(|n| table.insert(ids(round * 20 + n), 10, None, &Owed::default()))
                .collect();
            for key in keys.into_iter().rev() {
                assert!(table.remove(key));
            }
        }
        assert_eq!(table.table.unwrap().slots.len(), 20);
    }

    #[test]
    fn what_an_agent_owes_is_the_sum_of_its_connections() {
        let agent = Owed::default();
        let [mut one, mut other] = [InFlight::default(), InFlight::default()];
        let keys: Vec<_> = (0..3).map(|n| one.insert(ids(n), 10, None, &agent)).collect();
        let _ = other.insert(ids(0), 10, None, &agent);
        assert_eq!((agent.answers(), agent.bytes()), (4, 40));
        assert_eq!((one.bytes(), other.bytes()), (30, 10));
        assert!(one.remove(keys[1]) && !one.remove(keys[1]), "taken off once");
        assert_eq!((agent.answers(), agent.bytes(), one.bytes()), (3, 30, 20));
        drop(other);
        assert_eq!(agent.answers(), 2);
        assert_eq!((one.clear(), agent.answers()), (2, 0));
        let _ = one.insert(ids(1), 10, None, &agent);
        drop(one);
        assert_eq!((agent.answers(), agent.bytes()), (0, 0));
    }

    #[test]
    fn keys_from_before_a_trim_are_stale() {
        let mut table = InFlight::default();
        let old = table.insert(ids(1), 10, None, &Owed::default());
        table.remove(old);
        table.trim();
        assert_eq!(table.capacity(), 0);
        let new = table.insert(ids(2), 10, None, &Owed::default());
        assert_eq!(new.slot, old.slot);
        assert_eq!(table.get(old), None);
        assert_eq!(table.get(new), Some(ids(2)));
    }
}
