//! An ordered set that does not keep what was taken out of it.
//!
//! The tree below leaves a key that was removed as a mark between two of its leaves, and with it the record that the
//! key leads to: of a record under forty terms, several dead ones stay for each that lives. So a hand goes through the
//! set when much was removed, takes some keys out and puts them in again: marks between leaves that vanish, vanish.

use std::borrow::Borrow;
use std::ops::{Bound, Deref};

use imbl::OrdSet;

/// Keys that are made anew at once, a fraction of a millisecond's work: many leaves.
const CHUNK: usize = 192;
/// Those of them that the next ones begin with: a leaf, since the mark at the end of what was made anew may be an old
/// one.
const AGAIN: usize = 32;
/// The hand sets out when one key was removed for so many that are there: a key in so many may keep a dead record.
const FEW: usize = 512;

/// A sorted set whose dead keys are cleared away bit by bit.
#[derive(Clone, Debug)]
pub(super) struct Ordered<K: Ord> {
    set: OrdSet<K>,
    /// How many were removed since the hand set out.
    removed: usize,
    /// How many of them the hand has not moved for.
    owed: usize,
    /// Where the hand is, while it goes through the set: nowhere is before the first.
    passing: bool,
    hand: Option<K>,
}

impl<K: Ord + Clone> Ordered<K> {
    pub(super) fn insert(&mut self, key: K) {
        self.set.insert(key);
    }

    /// Removes a key. For so many that go, so many are made anew.
    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if self.set.remove(key).is_none() {
            return;
        }
        (self.removed, self.owed) = (self.removed + 1, self.owed + 1);
        if self.owed >= CHUNK - AGAIN {
            self.tidy();
        }
    }

    /// Makes a few keys anew if much was removed; whether there is more to do.
    pub(super) fn tidy(&mut self) -> bool {
        self.owed = 0;
        if !self.passing {
            if !self.is_worn() {
                return false;
            }
            (self.removed, self.passing) = (0, true);
        }
        let from = self.hand.take().map_or(Bound::Unbounded, Bound::Excluded);
        let chunk: Vec<K> = self.set.range((from, Bound::Unbounded)).take(CHUNK).cloned().collect();
        chunk.iter().for_each(|key| drop(self.set.remove(key)));
        self.passing = chunk.len() == CHUNK;
        self.hand = chunk.get(CHUNK - AGAIN).filter(|_| self.passing).cloned();
        self.set.extend(chunk);
        self.passing || self.is_worn()
    }

    fn is_worn(&self) -> bool {
        self.removed > 0 && self.removed >= self.set.len() / FEW
    }
}

impl<K: Ord> Default for Ordered<K> {
    fn default() -> Self {
        Self { set: OrdSet::default(), removed: 0, owed: 0, passing: false, hand: None }
    }
}

impl<K: Ord> Deref for Ordered<K> {
    type Target = OrdSet<K>;

    fn deref(&self) -> &OrdSet<K> {
        &self.set
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Weak};

    use proptest::prelude::*;

    use super::*;

    type Key = (u16, Arc<u16>);

    fn key(number: u16) -> Key {
        (number, Arc::new(number))
    }

    #[test]
    fn what_was_removed_is_not_kept() {
        let keys: Vec<Key> = (0..20_000).map(key).collect();
        let known: Vec<Weak<u16>> = keys.iter().map(|(_, kept)| Arc::downgrade(kept)).collect();
        let mut set = Ordered::default();
        keys.iter().rev().for_each(|key| set.insert(key.clone()));
        keys.iter().filter(|(number, _)| number % 11 != 0).for_each(|key| set.remove(key));
        drop(keys);
        let living = || known.iter().filter(|kept| kept.strong_count() > 0).count();
        assert!(living() < 2 * set.len(), "{} for {}", living(), set.len());
        while set.tidy() {}
        assert!(living() < set.len() + set.len() / 50, "{} for {}", living(), set.len());
        assert!(!set.tidy(), "and nothing more to do");
    }

    proptest! {
        #[test]
        fn it_is_a_set_all_the_while(steps in prop::collection::vec((0..600_u16, 0..4_u8), 0..3_000)) {
            let (mut set, mut expected) = (Ordered::default(), std::collections::BTreeSet::new());
            for (number, what) in steps {
                match what {
                    0 | 1 => {
                        set.insert(key(number));
                        expected.insert(number);
                    }
                    2 => {
                        set.remove(&key(number));
                        expected.remove(&number);
                    }
                    _ => drop(set.tidy()),
                }
            }
            prop_assert!(set.iter().map(|(number, _)| *number).eq(expected));
        }
    }
}
