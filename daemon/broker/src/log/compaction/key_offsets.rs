//! The offset of the last record of each key, in bounded memory.
//!
//! Keys are not kept but 128 bits of hash: SipHash-1-3 of the standard library under a random key, once with 0 and once
//! with 1 before the key's bytes. Among a billion records looked up in a million keys the chance that two different keys
//! look the same, and one is lost for it, is below 10^-22; and without the random key nobody can make such a pair.
//!
//! The table grows with the keys it meets: few keys among many records stay in the processor's cache.

use std::hash::{BuildHasher, Hasher, RandomState};

/// An open-addressed table with linear probing.
pub(crate) struct KeyOffsets {
    hash: RandomState,
    slots: Vec<Slot>,
    used: usize,
    /// The most slots there may be.
    most: usize,
}

/// By how much the table grows. While it does, the smaller one is there besides.
const GROWTH: usize = 4;
/// Slots to begin with.
const FIRST_SLOTS: usize = 1 << 10;

#[derive(Clone, Copy)]
struct Slot {
    hash: [u64; 2],
    /// The offset after the record; 0 in a free slot.
    next: u64,
}

const FREE: Slot = Slot {
    hash: [0; 2],
    next: 0,
};

impl KeyOffsets {
    /// Room for `keys` keys, or for as many as fit into `bytes`; for one at least.
    pub(crate) fn new(keys: u64, bytes: usize) -> Self {
        let fit = bytes / size_of::<Slot>() * GROWTH / (GROWTH + 1);
        // A third more slots than keys.
        let wanted = usize::try_from(keys.saturating_add(keys / 3).saturating_add(2)).unwrap_or(fit);
        let most = wanted.min(fit).max(2);
        let mut first = most;
        while first / GROWTH >= FIRST_SLOTS {
            first /= GROWTH;
        }
        Self {
            hash: RandomState::new(),
            slots: vec![FREE; first],
            used: 0,
            most,
        }
    }

    /// Notes that a record of `key` is at `offset`. `false`, and nothing is noted, if the key is new and there is no
    /// room for it.
    pub(crate) fn note(&mut self, key: &[u8], offset: u64) -> bool {
        let hash = self.hash(key);
        let mut at = self.find(hash);
        if self.slots[at].next == 0 {
            if self.is_full() {
                if self.slots.len() == self.most {
                    return false;
                }
                self.grow();
                at = self.find(hash);
            }
            self.used += 1;
            self.slots[at].hash = hash;
        }
        let slot = &mut self.slots[at];
        slot.next = slot.next.max(offset + 1);
        true
    }

    /// Whether a later record than that at `offset` has this key.
    pub(crate) fn has_later(&self, key: &[u8], offset: u64) -> bool {
        self.slots[self.find(self.hash(key))].next > offset + 1
    }

    /// Whether another key would leave too few free slots.
    fn is_full(&self) -> bool {
        (self.used + 1) * 4 > self.slots.len() * 3 && self.used > 0
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * GROWTH).min(self.most);
        let before = std::mem::replace(&mut self.slots, vec![FREE; slots]);
        for slot in before.into_iter().filter(|slot| slot.next != 0) {
            let at = self.find(slot.hash);
            self.slots[at] = slot;
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        [0, 1].map(|half| {
            let mut hasher = self.hash.build_hasher();
            hasher.write_u8(half);
            hasher.write(key);
            hasher.finish()
        })
    }

    /// The slot of a key, or the free one where it belongs.
    fn find(&self, hash: [u64; 2]) -> usize {
        let slots = self.slots.len();
        // The upper part of the product is evenly spread over the slots.
        let mut at = ((u128::from(hash[0]) * slots as u128) >> 64) as usize;
        // There is always a free one: the table is at most three quarters full, or holds one key in two slots.
        while self.slots[at].next != 0 && self.slots[at].hash != hash {
            at = if at + 1 == slots { 0 } else { at + 1 };
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_last_offset_of_each_key() {
        // Some tables never grow, some grow more than once.
        for count in [100, 1_000, 30_000] {
            let mut keys = KeyOffsets::new(count, usize::MAX);
            for offset in 0..3 * count {
                assert!(keys.note(&(offset % count).to_be_bytes(), offset));
            }
            for offset in 0..3 * count {
                let key = (offset % count).to_be_bytes();
                assert_eq!(keys.has_later(&key, offset), offset < 2 * count, "{offset}");
            }
            assert!(!keys.has_later(b"another", 0));
            assert!(keys.slots.len() <= keys.most);
        }
    }

    #[test]
    fn takes_no_more_keys_than_there_is_memory_for_and_always_one() {
        let mut keys = KeyOffsets::new(1_000_000, 125 * size_of::<Slot>());
        let taken = (0..1_000_u64)
            .take_while(|n| keys.note(&n.to_be_bytes(), *n))
            .count();
        assert_eq!((taken, keys.slots.len()), (75, 100));
        assert!(
            keys.note(&0_u64.to_be_bytes(), 2_000),
            "a key that is there needs no room"
        );
        assert!(!keys.note(&75_u64.to_be_bytes(), 2_001));
        assert!(!keys.has_later(&75_u64.to_be_bytes(), 0));

        let mut large = KeyOffsets::new(1_000_000, 10_000 * size_of::<Slot>());
        let taken = (0..1_000_000)
            .take_while(|n: &u64| large.note(&n.to_be_bytes(), n + 1))
            .count();
        assert_eq!((taken, large.slots.len()), (6_000, 8_000));
        assert!((0..6_000_u64).all(|n| large.has_later(&n.to_be_bytes(), n)));

        let mut least = KeyOffsets::new(10, 0);
        assert!(least.note(b"a", 0) && least.note(b"a", 1) && !least.note(b"b", 2));
        assert!(least.has_later(b"a", 0) && !least.has_later(b"a", 1));
    }
}
