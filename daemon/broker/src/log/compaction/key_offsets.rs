//! The offset of the last record of each key, in bounded memory.
//!
//! Keys are not kept but 128 bits of hash: SipHash-1-3 of the standard library under a random key, once with 0 and once
//! with 1 before the key's bytes. Among a billion records looked up in a million keys the chance that two different keys
//! look the same, and one is lost for it, is below 10^-22; and without the random key nobody can make such a pair.

use std::hash::{BuildHasher, Hasher, RandomState};

/// An open-addressed table with linear probing.
pub(crate) struct KeyOffsets {
    hash: RandomState,
    slots: Vec<Slot>,
    used: usize,
}

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
        let most = (bytes / size_of::<Slot>()).max(2);
        // A third more slots than keys.
        let wanted = usize::try_from(keys.saturating_add(keys / 3).saturating_add(2)).unwrap_or(most);
        Self {
            hash: RandomState::new(),
            slots: vec![FREE; wanted.min(most)],
            used: 0,
        }
    }

    /// Notes that a record of `key` is at `offset`. `false`, and nothing is noted, if the key is new and there is no
    /// room for it.
    pub(crate) fn note(&mut self, key: &[u8], offset: u64) -> bool {
        let hash = self.hash(key);
        let at = self.find(hash);
        let full = (self.used + 1) * 4 > self.slots.len() * 3 && self.used > 0;
        let slot = &mut self.slots[at];
        if slot.next == 0 {
            if full {
                return false;
            }
            self.used += 1;
            slot.hash = hash;
        }
        slot.next = slot.next.max(offset + 1);
        true
    }

    /// Whether a later record than that at `offset` has this key.
    pub(crate) fn has_later(&self, key: &[u8], offset: u64) -> bool {
        self.slots[self.find(self.hash(key))].next > offset + 1
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
        let mut keys = KeyOffsets::new(1_000, usize::MAX);
        for offset in 0..3_000_u64 {
            assert!(keys.note(&(offset % 1_000).to_be_bytes(), offset));
        }
        for offset in 0..3_000_u64 {
            let key = (offset % 1_000).to_be_bytes();
            assert_eq!(keys.has_later(&key, offset), offset < 2_000, "{offset}");
        }
        assert!(!keys.has_later(b"another", 0));
    }

    #[test]
    fn takes_no_more_keys_than_there_is_memory_for_and_always_one() {
        let mut keys = KeyOffsets::new(1_000_000, 100 * size_of::<Slot>());
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

        let mut least = KeyOffsets::new(10, 0);
        assert!(least.note(b"a", 0) && least.note(b"a", 1) && !least.note(b"b", 2));
        assert!(least.has_later(b"a", 0) && !least.has_later(b"a", 1));
    }
}
