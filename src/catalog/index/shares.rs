//! Whose records are how many: where there are more than there may be, whoever has most makes room.
//!
//! A record counts for its owner, one without for its service. What stays is the same in whatever order records came:
//! everyone's oldest, as many of each as fit.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::entry::Entry;
use crate::model::words::record::Text;

/// An owner, or (`false`) the path of a service whose records name none.
type Who = (bool, Text);

/// The records of everyone, counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    counts: OrdMap<Who, u32>,
    /// By who has most.
    most: OrdSet<(u32, Who)>,
    ages: OrdSet<ByAge>,
}

impl Shares {
    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        self.count(entry, 1);
        self.ages.insert(ByAge(entry.clone()));
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        self.count(entry, -1);
        let age: &dyn Age = &entry.age();
        self.ages.remove::<dyn Age>(age);
    }

    /// The record that makes room: the newest of whoever has most.
    pub(super) fn excess(&self) -> Option<Arc<Entry>> {
        let (_, (owned, name)) = self.most.get_max()?;
        let last: &dyn Age = &((*owned, &**name), i64::MAX, "\u{10ffff}");
        let mut theirs = self.ages.range::<_, dyn Age>((Bound::Unbounded, Bound::Included(last)));
        theirs.next_back().map(|age| age.0.clone())
    }

    fn count(&mut self, entry: &Entry, change: i32) {
        let (owned, name) = entry.counts_for();
        let name = entry.owner.clone().unwrap_or_else(|| name.into());
        let who = (owned, name);
        let was = self.counts.get(&who).copied().unwrap_or(0);
        let now = was.saturating_add_signed(change);
        self.most.remove(&(was, who.clone()));
        if now == 0 {
            self.counts.remove(&who);
        } else {
            self.most.insert((now, who.clone()));
            self.counts.insert(who, now);
        }
    }
}

/// Who a record counts for, its revision and its key, as they are ordered.
trait Age {
    fn age(&self) -> ((bool, &str), i64, &str);
}

impl Age for Entry {
    fn age(&self) -> ((bool, &str), i64, &str) {
        (self.counts_for(), self.revision, &self.key)
    }
}

impl Age for ((bool, &str), i64, &str) {
    fn age(&self) -> ((bool, &str), i64, &str) {
        *self
    }
}

/// A record by its age.
#[derive(Clone, Debug)]
struct ByAge(Arc<Entry>);

impl Age for ByAge {
    fn age(&self) -> ((bool, &str), i64, &str) {
        self.0.age()
    }
}

impl<'a> Borrow<dyn Age + 'a> for ByAge {
    fn borrow(&self) -> &(dyn Age + 'a) {
        self
    }
}

impl PartialEq for dyn Age + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.age() == other.age()
    }
}

impl Eq for dyn Age + '_ {}

impl PartialOrd for dyn Age + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Age + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.age().cmp(&other.age())
    }
}

impl PartialEq for ByAge {
    fn eq(&self, other: &Self) -> bool {
        self.age() == other.age()
    }
}

impl Eq for ByAge {}

impl PartialOrd for ByAge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByAge {
    fn cmp(&self, other: &Self) -> Ordering {
        self.age().cmp(&other.age())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::catalog::index::Catalog;
    use crate::model::words::key::Prefix;

    const MOST: usize = 10;

    fn empty() -> Catalog {
        Catalog::bounded(&[Prefix::parse("/services").expect("a prefix")], MOST)
    }

    /// `owner service`, or `- service` without one.
    fn put(catalog: &mut Catalog, number: usize, who: &str, revision: i64) {
        let (owner, service) = who.split_once(' ').expect("two words");
        let owner = if owner == "-" { String::new() } else { format!(r#","owner":"{owner}""#) };
        let value = format!(r#"{{"host":"10.0.0.1"{owner}}}"#);
        catalog.put(&format!("/services/{service}/{number}"), value.as_bytes(), 0, revision).expect("a record");
    }

    fn kept(catalog: &Catalog) -> Vec<String> {
        catalog.endpoints().map(|found| found.key().to_string()).collect()
    }

    #[test]
    fn whoever_has_most_makes_room() {
        let mut catalog = empty();
        for number in 0..100 {
            put(&mut catalog, number, "flood a", 1 + number as i64);
        }
        assert_eq!((catalog.counts().records, catalog.counts().left_out), (MOST, 90));
        for number in 0..3 {
            put(&mut catalog, number, "small b", 200);
            put(&mut catalog, number, "- c", 200);
        }
        assert_eq!((catalog.counts().records, catalog.counts().left_out), (MOST, 96));
        let theirs = |service: &str| kept(&catalog).iter().filter(|key| key.starts_with(service)).count();
        assert_eq!((theirs("/services/a/"), theirs("/services/b/"), theirs("/services/c/")), (4, 3, 3));
        assert!((0..4).all(|number| catalog.get(&format!("/services/a/{number}")).is_some()), "the oldest stay");
    }

    #[test]
    fn room_is_seen_and_filled_by_a_fresh_list() {
        let mut catalog = empty();
        (0..12).for_each(|number| put(&mut catalog, number, "one a", 1 + number as i64));
        assert!(!catalog.has_room_again());
        catalog.delete("/services/a/11");
        assert!(!catalog.has_room_again(), "it was left out itself");
        assert_eq!(catalog.counts().left_out, 1);
        catalog.delete("/services/a/0");
        assert!(catalog.has_room_again());
        catalog.begin_list();
        (1..11).for_each(|number| put(&mut catalog, number, "one a", 1 + number as i64));
        assert_eq!((catalog.counts().records, catalog.counts().left_out, catalog.has_room_again()), (MOST, 0, false));
    }

    proptest! {
        #[test]
        fn the_same_stay_in_whatever_order_they_came(
            all in prop::collection::vec((0..5_usize, 0..3_usize), 1..40),
            turn in any::<u64>(),
        ) {
            let who = ["one a", "two a", "- a", "- b", "three b"];
            let mut order: Vec<usize> = (0..all.len()).collect();
            let (mut ahead, mut mixed) = (empty(), empty());
            order.iter().for_each(|number| put(&mut ahead, *number, who[all[*number].0], 1 + all[*number].1 as i64));
            order.sort_by_key(|number| (turn ^ (*number as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            order.iter().for_each(|number| put(&mut mixed, *number, who[all[*number].0], 1 + all[*number].1 as i64));
            prop_assert_eq!(kept(&ahead), kept(&mixed));
            prop_assert_eq!(ahead.counts(), mixed.counts());
            prop_assert!(ahead.counts().records <= MOST);
            prop_assert_eq!(ahead.counts().records + ahead.counts().left_out, all.len());
        }
    }
}
