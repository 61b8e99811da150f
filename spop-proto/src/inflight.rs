//! Answers still owed: the NOTIFYs whose answer was deferred.

use std::time::Instant;

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
    slots: Vec<Slot>,
    oldest: u32,
    newest: u32,
    free: u32,
    len: u32,
}

/// A slot is either owed (in the list from `oldest` to `newest`) or free (in the list from `free`).
#[derive(Debug)]
struct Slot {
    ids: Ids,
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

    /// Adds an owed answer.
    pub(crate) fn insert(&mut self, ids: Ids, deadline: Option<Instant>) -> Key {
        let serial = self.next;
        self.next += 1;
        let slot = self.table.get_or_insert_default().insert(ids, deadline, serial);
        Key { slot, serial }
    }

    /// The NOTIFY of a key, unless the key is stale.
    pub(crate) fn get(&self, key: Key) -> Option<Ids> {
        let slot = self.table.as_deref()?.slot(key.slot)?;
        (slot.owed && slot.serial == key.serial).then_some(slot.ids)
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

    /// Makes every key stale; returns how many answers were owed.
    pub(crate) fn clear(&mut self) -> u32 {
        let owed = self.len();
        self.table = None;
        owed
    }

    /// Gives memory back if nothing is owed; keys handed out before stay stale.
    pub(crate) fn trim(&mut self) {
        if self.is_empty() {
            self.table = None;
        }
    }

    /// Memory held.
    pub(crate) fn capacity(&self) -> usize {
        let table = self.table.as_deref();
        table.map_or(0, |table| size_of::<Table>() + table.slots.capacity() * size_of::<Slot>())
    }
}

impl Default for Table {
    fn default() -> Self {
        Self { slots: Vec::new(), oldest: NONE, newest: NONE, free: NONE, len: 0 }
    }
}

impl Table {
    fn insert(&mut self, ids: Ids, deadline: Option<Instant>, serial: u64) -> u32 {
        let older = self.newest;
        let new = Slot { ids, deadline, serial, owed: true, older, newer: NONE };
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
        at
    }

    /// Takes an owed slot out of its list and into the one of the free.
    fn remove(&mut self, at: u32) {
        let free = self.free;
        let Some(slot) = self.slot_mut(at) else { return };
        slot.owed = false;
        let (older, newer) = (slot.older, slot.newer);
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
        let keys: Vec<_> = (0..4).map(|n| table.insert(ids(n), None)).collect();
        assert!(table.remove(keys[1]));
        assert!(!table.remove(keys[1]));
        assert!(table.remove(keys[3]));
        let reused = table.insert(ids(9), None);
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
        let key = table.insert(ids(5), None);
        table.insert(ids(6), None);
        assert_eq!(table.find(ids(5)), Some(key));
        assert_eq!(table.find(Ids { stream: 5, frame: 2 }), None);
        assert_eq!(table.clear(), 2);
        assert_eq!(table.find(ids(5)), None);
        assert_eq!(table.get(key), None);
        table.insert(ids(7), None);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn slots_are_reused() {
        let mut table = InFlight::default();
        for round in 0..100 {
            let keys: Vec<_> = (0..20).map(|n| table.insert(ids(round * 20 + n), None)).collect();
            for key in keys.into_iter().rev() {
                assert!(table.remove(key));
            }
        }
        assert_eq!(table.table.unwrap().slots.len(), 20);
    }

    #[test]
    fn keys_from_before_a_trim_are_stale() {
        let mut table = InFlight::default();
        let old = table.insert(ids(1), None);
        table.remove(old);
        table.trim();
        assert_eq!(table.capacity(), 0);
        let new = table.insert(ids(2), None);
        assert_eq!(new.slot, old.slot);
        assert_eq!(table.get(old), None);
        assert_eq!(table.get(new), Some(ids(2)));
    }
}
