//! What is in the store and not in the catalog: values that are no record, and records for which there is no room. They
//! are counted, and known again, and cost no more than others do: keys that are too long are cut, and there is an end
//! to the number.

use std::hash::{DefaultHasher, Hash, Hasher};

use imbl::{HashSet, OrdMap};

use super::Text;
use crate::model::words::key;
use crate::model::words::record::BadRecord;

/// So many bad values are known by their key; further ones are left out all the same.
const MAX_BAD: usize = 100_000;
/// So many records without room are known; further ones are left out all the same.
const MAX_LEFT_OUT: usize = 1_000_000;

/// A value that is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Why.
    pub reason: BadRecord,
    /// The revision that brought it.
    pub revision: i64,
}

/// Values that are no record, by key.
#[derive(Clone, Debug, Default)]
pub(super) struct BadValues(OrdMap<Text, Bad>);

impl BadValues {
    pub(super) fn insert(&mut self, key: &str, bad: Bad) {
        if self.0.len() < MAX_BAD {
            self.0.insert(key::shown(key).into(), bad);
        }
    }

    pub(super) fn remove(&mut self, key: &str) -> bool {
        !self.0.is_empty() && self.0.remove(&*key::shown(key)).is_some()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Bad> {
        if self.0.is_empty() { None } else { self.0.get(&*key::shown(key)) }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Text, &Bad)> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Records for which there was no room, each by a hash of its key.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut {
    hashes: HashSet<u64>,
    /// There has been room since.
    room: bool,
}

impl LeftOut {
    pub(super) fn insert(&mut self, key: &str) {
        if self.hashes.len() < MAX_LEFT_OUT {
            self.hashes.insert(hash(key));
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        if !self.hashes.is_empty() {
            self.hashes.remove(&hash(key));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Something went, or counts for another now: a fresh list may have room for what was left out.
    pub(super) fn room(&mut self) {
        self.room = !self.hashes.is_empty();
    }

    pub(super) fn may_return(&self) -> bool {
        self.room && !self.hashes.is_empty()
    }
}

/// The same in every run.
fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
