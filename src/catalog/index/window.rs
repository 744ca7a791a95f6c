//! Where a set begins that is too large to be told whole: at another record each time, at each equally often.
//!
//! The tree knows no ranks. So one record of [`EVERY`] is a mark, and each mark knows how many records there are until
//! the next: the record of any rank is found along the marks, without a look at those between them.

use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use super::entry::Entry;
use super::{CUT, Catalog, Text, path};

/// One record of so many is a mark.
const EVERY: u64 = 64;
/// From one seed's beginning to the next: far, and evenly spread for any run of seeds.
const FAR: u64 = 0xd134_2543_de82_ef95;
/// Records whose marks are passed over in one step.
const MARKED: usize = 256;
/// Records looked at before the first mark and behind the last one, both on average.
const BESIDE: usize = 128;

/// Some records of the tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// Nobody can choose keys of which none is a mark.
    hasher: RandomState,
    /// How many records there are from each mark on, itself among them, until the next.
    lengths: OrdMap<Text, u32>,
}

impl Marks {
    fn has(&self, place: &str) -> bool {
        self.hasher.hash_one(place).is_multiple_of(EVERY)
    }

    /// A record has come into the tree.
    pub(super) fn insert(&mut self, place: &Text, tree: &OrdMap<Text, Arc<Entry>>) {
        let mut taken = 0;
        if self.has(place) {
            let after = (Bound::Excluded(&**place), Bound::Unbounded);
            let length = 1 + tree.range::<_, str>(after).take_while(|(next, _)| !self.has(next)).count();
            taken = u32::try_from(length).unwrap_or(u32::MAX);
        }
        if let Some((_, before)) = self.lengths.get_prev_mut::<str>(place) {
            *before = (*before + 1).saturating_sub(taken);
        }
        if taken > 0 {
            self.lengths.insert(place.clone(), taken);
        }
    }

    /// A record has left the tree.
    pub(super) fn remove(&mut self, place: &Text) {
        let given = self.lengths.remove::<str>(place).unwrap_or(0);
        if let Some((_, before)) = self.lengths.get_prev_mut::<str>(place) {
            *before = (*before + given).saturating_sub(1);
        }
    }
}

/// Steps that finding the window of a set of so many records takes.
pub(super) fn steps(size: usize) -> usize {
    size / MARKED + BESIDE
}

/// The rank at which a set of so many records begins: that which makes each come first equally often, when what begins
/// there is then turned by `seed`.
fn rank(seed: u64, size: usize) -> Option<usize> {
    let turned = (seed % CUT as u64).checked_rem(size as u64)?;
    let first = (u128::from(seed.wrapping_mul(FAR)) * size as u128) >> u64::BITS;
    usize::try_from((first + size as u128 - u128::from(turned)) % size as u128).ok()
}

impl Catalog {
    /// The place below `path` that `seed` chooses to begin at; `None` begins at the start.
    pub(super) fn window(&self, path: &str, seed: u64) -> Option<&str> {
        let mut rank = rank(seed, self.size(path))?;
        let (below, beyond) = (path::below(path), path::beyond(path));
        let range = (Bound::Included(below.as_str()), Bound::Excluded(beyond.as_str()));
        let unmarked = |entry: &&Arc<Entry>| !self.marks.has(entry.place());
        let (mut start, mut length) = (None, self.below(path, None).take_while(unmarked).count());
        for (mark, next) in self.marks.lengths.range::<_, str>(range) {
            if rank < length {
                break;
            }
            rank -= length;
            (start, length) = (Some(&**mark), *next as usize);
        }
        self.below(path, start).nth(rank).map(|entry| &**entry.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::index::WINDOW;

    fn catalog(keys: impl Iterator<Item = usize>) -> Catalog {
        let mut catalog = Catalog::default();
        for number in keys {
            let value = format!("10.0.{}.{}:80", number >> 8, number & 255);
            catalog.put(&format!("/services/big/i{number}"), value.as_bytes(), 0, 1).expect("a record");
        }
        catalog
    }

    #[test]
    fn every_endpoint_of_a_large_set_comes_first_equally_often() {
        const ROUNDS: u64 = 4;
        let size = WINDOW as u64 + 104;
        let catalog = catalog(0..4_200);
        // As datagrams are numbered, one after the other, and as streams are.
        for stride in [1, 0x9e37_79b9_7f4a_7c15_u64] {
            let mut firsts = std::collections::HashMap::new();
            for number in 0..ROUNDS * size {
                let seed = number.wrapping_mul(stride);
                let found = catalog.at_or_below("/services/big", seed, WINDOW);
                assert!(found.cut && found.entries.len() == CUT);
                let first = usize::try_from(seed % CUT as u64).expect("small");
                *firsts.entry(&found.entries[first].key).or_insert(0) += 1;
            }
            let (least, most) = (firsts.values().min(), firsts.values().max());
            assert!(firsts.len() == 4_200 && most <= Some(&(2 * ROUNDS)), "{least:?} to {most:?} of {}", firsts.len());
        }
    }

    #[test]
    fn marks_know_how_many_records_there_are_between_them() {
        let mut catalog = catalog((0..6_000).map(|number| number * 7_919 % 6_007));
        (0..6_007)
            .filter(|number: &usize| number.is_multiple_of(3))
            .for_each(|number| catalog.delete(&format!("/services/big/i{number}")));
        let places: Vec<&Text> = catalog.tree.keys().collect();
        let starts: Vec<usize> = (0..places.len()).filter(|at| catalog.marks.has(places[*at])).collect();
        let ends = starts.iter().skip(1).copied().chain([places.len()]);
        let wanted: Vec<(&Text, u32)> = starts
            .iter()
            .zip(ends)
            .map(|(from, to)| (places[*from], u32::try_from(to - from).expect("small")))
            .collect();
        assert_eq!(catalog.marks.lengths.iter().map(|(mark, length)| (mark, *length)).collect::<Vec<_>>(), wanted);
        assert!(wanted.len() > 20, "one of {EVERY}");
    }
}
