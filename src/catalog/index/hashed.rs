//! A map by text, in the order of hashes that nobody outside can foretell.
//!
//! A tree of hash digits has nodes that are nearly empty at some sizes, and of a deep key they cost most; an ordered tree
//! is at least half full at any size, but compares long texts that begin alike. This one is ordered, and compares a text
//! where its hash is found.

use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};

use equivalent::{Comparable, Equivalent};
use imbl::OrdMap;

use crate::model::words::record::Text;

/// Values by text. Clones share what they have in common.
#[derive(Clone, Debug)]
pub(super) struct Hashed<V: Clone> {
    map: OrdMap<Key, V>,
    hasher: RandomState,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    hash: u64,
    text: Text,
}

/// A key to look for.
struct Wanted<'t> {
    hash: u64,
    text: &'t str,
}

impl<V: Clone> Hashed<V> {
    pub(super) fn get(&self, text: &str) -> Option<&V> {
        self.map.get(&self.wanted(text))
    }

    pub(super) fn get_mut(&mut self, text: &str) -> Option<&mut V> {
        let wanted = self.wanted(text);
        self.map.get_mut(&wanted)
    }

    pub(super) fn insert(&mut self, text: &str, value: V) {
        let hash = self.wanted(text).hash;
        self.map.insert(Key { hash, text: text.into() }, value);
    }

    pub(super) fn remove(&mut self, text: &str) -> Option<V> {
        let wanted = self.wanted(text);
        self.map.remove(&wanted)
    }

    /// All of it, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Text, &V)> {
        self.map.iter().map(|(key, value)| (&key.text, value))
    }

    fn wanted<'t>(&self, text: &'t str) -> Wanted<'t> {
        Wanted { hash: self.hasher.hash_one(text), text }
    }
}

impl<V: Clone> Default for Hashed<V> {
    fn default() -> Self {
        Self { map: OrdMap::new(), hasher: RandomState::new() }
    }
}

impl Equivalent<Key> for Wanted<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.compare(key).is_eq()
    }
}

impl Comparable<Key> for Wanted<'_> {
    fn compare(&self, key: &Key) -> Ordering {
        self.hash.cmp(&key.hash).then_with(|| self.text.cmp(&key.text))
    }
}
