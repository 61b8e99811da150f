//! Answers still owed: the NOTIFYs whose answer was deferred.

use std::time::Instant;

/// The two numbers that name a NOTIFY on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) stream: u64,
    pub(crate) frame: u64,
}

/// A place in the table; good as long as its generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    slot: u32,
    generation: u32,
}

const NONE: u32 = u32::MAX;

/// A slot is either owed (in the list from `oldest` to `newest`) or free (in the list from `free`).
#[derive(Debug)]
struct Slot {
    ids: Ids,
    deadline: Option<Instant>,
    /// Counts the uses of the slot; a key of an earlier use is stale.
    generation: u32,
    owed: bool,
    older: u32,
    newer: u32,
}

/// The table: slots are reused, and linked in the order of arrival. Every answer has the same time,
/// so the oldest one is always the next to be late.
#[derive(Debug)]
pub(crate) struct InFlight {
    slots: Vec<Slot>,
    oldest: u32,
    newest: u32,
    free: u32,
    len: u32,
    /// Generation of slots yet to be made; above that of any slot there ever was.
    first_generation: u32,
}

impl Default for InFlight {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            oldest: NONE,
            newest: NONE,
            free: NONE,
            len: 0,
            first_generation: 0,
        }
    }
}

impl InFlight {
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an owed answer.
    pub(crate) fn insert(&mut self, ids: Ids, deadline: Option<Instant>) -> Key {
        let older = self.newest;
        let (slot, generation) = match self.slot_mut(self.free) {
            Some(reused) => {
                reused.ids = ids;
                reused.deadline = deadline;
                reused.owed = true;
                reused.older = older;
                let next_free = core::mem::replace(&mut reused.newer, NONE);
                let generation = reused.generation;
                (core::mem::replace(&mut self.free, next_free), generation)
            }
            None => {
                // The caller's limit on answers in flight is a u32 below NONE.
                let slot = u32::try_from(self.slots.len()).unwrap_or(NONE);
                let generation = self.first_generation;
                self.slots.push(Slot { ids, deadline, generation, owed: true, older, newer: NONE });
                (slot, generation)
            }
        };
        match self.slot_mut(older) {
            Some(older) => older.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        self.len += 1;
        Key { slot, generation }
    }

    /// The NOTIFY of a key, unless the key is stale.
    pub(crate) fn get(&self, key: Key) -> Option<Ids> {
        let slot = self.slot(key.slot)?;
        (slot.owed && slot.generation == key.generation).then_some(slot.ids)
    }

    /// Takes an answer out of the table; false where the key is stale.
    pub(crate) fn remove(&mut self, key: Key) -> bool {
        if self.get(key).is_none() {
            return false;
        }
        let free = self.free;
        let Some(slot) = self.slot_mut(key.slot) else { return false };
        slot.owed = false;
        slot.generation = slot.generation.wrapping_add(1);
        let (older, newer) = (slot.older, slot.newer);
        slot.newer = free;
        self.free = key.slot;
        match self.slot_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.slot_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.len -= 1;
        true
    }

    /// The answer owed for these ids. Walks the list: HAProxy keeps at most 20 in flight.
    pub(crate) fn find(&self, ids: Ids) -> Option<Key> {
        let mut at = self.oldest;
        while let Some(slot) = self.slot(at) {
            if slot.ids == ids {
                return Some(Key { slot: at, generation: slot.generation });
            }
            at = slot.newer;
        }
        None
    }

    /// The oldest answer, which is the first to be late.
    pub(crate) fn oldest(&self) -> Option<(Key, Ids, Option<Instant>)> {
        let slot = self.slot(self.oldest)?;
        let key = Key { slot: self.oldest, generation: slot.generation };
        Some((key, slot.ids, slot.deadline))
    }

    /// Makes every key stale; returns how many answers were owed.
    pub(crate) fn clear(&mut self) -> u32 {
        let owed = self.len;
        while let Some((key, ..)) = self.oldest() {
            self.remove(key);
        }
        owed
    }

    /// Gives memory back if nothing is owed; keys handed out before stay stale.
    pub(crate) fn trim(&mut self) {
        if self.is_empty() {
            let used = self.slots.iter().map(|slot| slot.generation).max();
            let first_generation = used.map_or(self.first_generation, |used| used.wrapping_add(1));
            *self = Self { first_generation, ..Self::default() };
        }
    }

    /// Memory held.
    pub(crate) const fn capacity(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
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
        assert_eq!(table.slots.len(), 2, "slots are reused");
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
