//! What the store holds, as far as it concerns this owner: its own keys, and the keys it would like to have.
//!
//! The view is fed from three sides: reads, a watch, and the outcome of own commits. They come in any order, so each
//! carries its revision and an older word never replaces a newer one. Other owners' records elsewhere are not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::op::{Change, Op, same_instance};
use crate::model::words::key::Prefix;
use crate::model::words::presence::{self, Part};
use crate::model::words::record::Record;

/// So many keys are kept, and beyond them only interesting ones: what someone else writes in this owner's name is
/// deleted, and a later look finds what there was no room for.
const MOST: usize = 100_000;

/// Who holds a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Holder {
    /// This owner.
    Ours {
        /// What is published there.
        record: Arc<Record>,
        /// The lease it hangs on.
        lease: i64,
    },
    /// Nobody: what is there is no record, or was put over ours without an owner. It may be overwritten.
    Spoiled,
    /// Another owner, or someone who names none.
    Other,
}

/// A key as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The revision of its last put.
    pub revision: i64,
    /// Its value to the byte, which a write to it is conditional on; another owner's is not kept.
    pub value: Arc<[u8]>,
    /// Who holds it.
    pub holder: Holder,
}

/// One key's value as read or watched.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'v> {
    /// The key.
    pub key: &'v str,
    /// Its value.
    pub value: &'v [u8],
    /// The lease it hangs on.
    pub lease: i64,
    /// The revision of its last put.
    pub revision: i64,
    /// The revision that a read told it at; `None` when a watch did.
    pub read_at: Option<i64>,
}

/// The keys that concern one owner.
#[derive(Clone, Debug)]
pub struct View {
    owner: Arc<str>,
    held: BTreeMap<String, Held>,
    /// Keys known to be gone at a revision that the watch has not reached yet.
    gone: BTreeMap<String, i64>,
    /// Keys that the watch told to be gone, or to hold what does not concern this owner, and by when: a read under way
    /// may still bring what was there before.
    deleted: BTreeMap<String, i64>,
    /// Own keys whose layout has keys besides them that do not hold what they should.
    spoiled: BTreeSet<String>,
    /// Everything up to this revision has been seen.
    seen: i64,
}

impl View {
    /// Nothing known yet.
    pub fn new(owner: Arc<str>) -> Self {
        let (held, gone, deleted, spoiled) = Default::default();
        Self { owner, held, gone, deleted, spoiled, seen: 0 }
    }

    /// Forgets everything: the store is another one.
    pub fn clear(&mut self) {
        *self = Self::new(Arc::clone(&self.owner));
    }

    /// One key.
    pub fn held(&self, key: &str) -> Option<&Held> {
        self.held.get(key)
    }

    /// Every key that is held, by whomever.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.held.keys()
    }

    /// This owner's keys as they stand, with their records.
    pub fn ours(&self) -> impl Iterator<Item = (&String, &Held, &Arc<Record>)> {
        self.held.iter().filter_map(|(key, held)| match &held.holder {
            Holder::Ours { record, .. } => Some((key, held, record)),
            Holder::Spoiled | Holder::Other => None,
        })
    }

    /// Whether someone else holds the key.
    pub fn occupied(&self, key: &str) -> bool {
        self.held.get(key).is_some_and(|held| held.holder == Holder::Other)
    }

    /// Whether the key holds our record of the same instance.
    pub fn holds_instance(&self, key: &str, record: &Record) -> bool {
        self.held.get(key).is_some_and(
            |held| matches!(&held.holder, Holder::Ours { record: held, .. } if same_instance(held, record)),
        )
    }

    /// Whether the key holds exactly this record on this lease.
    pub fn confirms(&self, key: &str, record: &Arc<Record>, lease: i64) -> bool {
        self.held.get(key).is_some_and(
            |held| matches!(&held.holder, Holder::Ours { record: held, lease: on } if held == record && *on == lease),
        )
    }

    /// The keys that stand besides own records.
    pub fn beside(&self) -> impl Iterator<Item = String> {
        self.ours().flat_map(|(key, _, record)| presence::beside(key, record)).map(|(key, _)| key)
    }

    /// Whether a key besides this one does not hold what it should.
    pub fn is_spoiled_beside(&self, key: &str) -> bool {
        self.spoiled.contains(key)
    }

    /// Takes in what a watch told of a key that may stand besides an own record: what it holds and on which lease, or
    /// that it went. Says whether it is to be put right.
    pub fn beside_changed(&mut self, prefix: &Prefix, key: &str, now: Option<(&[u8], i64)>, revision: i64) -> bool {
        let Some(Part::Of(own, _)) = Part::of(key, prefix.as_str()) else { return false };
        let Some(Held { revision: put, holder: Holder::Ours { record, lease }, .. }) = self.held.get(&own) else {
            return false;
        };
        // The record's own commit put it; what is older than that is over.
        if revision <= *put || self.gone.contains_key(&own) {
            return false;
        }
        let right = presence::beside(&own, record)
            .into_iter()
            .any(|(beside, value)| beside == key && now.is_some_and(|now| now == (value.as_bytes(), *lease)));
        let stands = !presence::is_asked(&record.attrs) || right;
        !stands && self.spoiled.insert(own)
    }

    /// Takes in a read that `asked` for the keys besides own records.
    pub fn check_beside<'i>(&mut self, found: impl Iterator<Item = (&'i str, &'i [u8], i64)>, asked: &[String]) {
        let found: BTreeMap<&str, (&[u8], i64)> = found.map(|(key, value, lease)| (key, (value, lease))).collect();
        let asked: BTreeSet<&String> = asked.iter().collect();
        let spoiled = self.ours().filter_map(|(own, held, record)| {
            let Holder::Ours { lease, .. } = held.holder else { return None };
            let wrong = |(key, value): (String, String)| {
                asked.contains(&key) && found.get(key.as_str()) != Some(&(value.as_bytes(), lease))
            };
            presence::beside(own, record).into_iter().any(wrong).then(|| own.clone())
        });
        let spoiled: Vec<String> = spoiled.collect();
        self.spoiled.extend(spoiled);
    }

    /// The revision up to which everything has been seen.
    pub fn seen(&self) -> i64 {
        self.seen
    }

    /// Takes in a put, and says whether that changed anything. Values elsewhere than at `interesting` keys are kept
    /// only when they are ours.
    pub fn put(&mut self, seen: Seen<'_>, interesting: impl Fn(&str) -> bool) -> bool {
        match seen.read_at {
            Some(read) if self.deleted.get(seen.key).is_some_and(|gone| *gone > read) => return false,
            Some(_) => {}
            None => drop(self.deleted.remove(seen.key)),
        }
        let known = self.held.get(seen.key);
        // A read that was made later knows better, even if the store was replaced by one where all happened earlier.
        let outdated = |at: i64| at > seen.revision && seen.read_at.is_none_or(|read| read < at);
        let older = known.is_some_and(|held| outdated(held.revision))
            || self.gone.get(seen.key).is_some_and(|gone| outdated(*gone));
        if older {
            return false;
        }
        let own = || self.held.len() < MOST && names(seen.value, &self.owner);
        let concerns = known.is_some() || interesting(seen.key) || own();
        if !concerns {
            self.pass_over(seen);
            return false;
        }
        let was_ours = known.is_some_and(|held| held.holder != Holder::Other);
        let holder = self.holder(seen, was_ours);
        if !matches!(holder, Holder::Ours { .. }) && !interesting(seen.key) {
            self.pass_over(seen);
            return self.held.remove(seen.key).is_some();
        }
        let value = if holder == Holder::Other { [].into() } else { seen.value.into() };
        let held = Held { revision: seen.revision, value, holder };
        self.held.insert(seen.key.to_owned(), held.clone()) != Some(held)
    }

    /// Keeps nothing of a put but that it was made.
    fn pass_over(&mut self, seen: Seen<'_>) {
        if seen.read_at.is_none() {
            self.deleted.insert(seen.key.to_owned(), seen.revision);
        }
    }

    fn holder(&self, seen: Seen<'_>, was_ours: bool) -> Holder {
        match Record::decode(seen.value) {
            Ok(record) if record.owner.as_ref() == Some(&self.owner) => {
                Holder::Ours { record: Arc::new(record), lease: seen.lease }
            }
            Ok(record) if record.owner.is_some() => Holder::Other,
            Ok(_) if was_ours => Holder::Spoiled,
            Ok(_) => Holder::Other,
            Err(_) => Holder::Spoiled,
        }
    }

    /// Takes in a delete that a watch told, made at `revision` or before it; says whether that changed anything.
    pub fn deleted(&mut self, key: &str, revision: i64) -> bool {
        self.deleted.insert(key.to_owned(), revision);
        self.delete(key, revision)
    }

    /// A read begins now, and none is under way: it knows of every delete told so far.
    pub fn read_begins(&mut self) {
        self.deleted.clear();
    }

    /// Takes in a delete that happened at `revision` or before it, and says whether that changed anything.
    fn delete(&mut self, key: &str, revision: i64) -> bool {
        self.held.get(key).is_some_and(|held| held.revision <= revision) && self.held.remove(key).is_some()
    }

    /// The watch has brought everything up to here.
    pub fn reached(&mut self, revision: i64) {
        self.seen = self.seen.max(revision);
        self.gone.retain(|_, gone| *gone > revision);
    }

    /// The `asked` keys that a read at `revision` did not find are not there.
    pub fn absent<'k>(&mut self, asked: impl Iterator<Item = &'k String>, found: &BTreeSet<&str>, revision: i64) {
        for key in asked.filter(|key| !found.contains(key.as_str())) {
            self.delete(key, revision);
        }
    }

    /// Own operations were made at `revision`, on `lease`. Where the watch is past it already, it knows better.
    pub fn committed(&mut self, ops: &[Op], lease: i64, revision: i64) {
        if revision <= self.seen {
            return;
        }
        for op in ops {
            self.spoiled.remove(&op.key);
            if self.held.get(&op.key).is_some_and(|held| held.revision > revision) {
                continue;
            }
            match &op.change {
                Change::Put(record) => {
                    let holder = Holder::Ours { record: Arc::clone(record), lease };
                    let value = record.encode().into();
                    self.held.insert(op.key.clone(), Held { revision, value, holder });
                }
                Change::Delete => {
                    self.held.remove(&op.key);
                    self.gone.insert(op.key.clone(), revision);
                }
            }
        }
    }

    /// Keeps what is ours, and of the rest only the `interesting` keys.
    pub fn retain(&mut self, interesting: impl Fn(&str) -> bool) {
        self.held.retain(|key, held| matches!(held.holder, Holder::Ours { .. }) || interesting(key));
    }
}

/// Whether a value may name this owner: a cheap look before it is decoded.
fn names(value: &[u8], owner: &str) -> bool {
    !owner.is_empty() && value.windows(owner.len()).any(|window| window == owner.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::op::Expect;
    use super::*;

    fn ours(tag: &str) -> Arc<Record> {
        Arc::new(Record {
            host: "h".into(),
            owner: Some("owner-01".into()),
            tags: vec![tag.into()],
            ..Record::default()
        })
    }

    fn put(view: &mut View, record: &Record, revision: i64, read_at: Option<i64>) -> bool {
        view.put(Seen { key: "/s/a/b", value: &record.encode(), lease: 1, revision, read_at }, |_| true)
    }

    fn op(change: Change) -> [Op; 1] {
        [Op { key: "/s/a/b".into(), expect: Expect::Absent, change }]
    }

    #[test]
    fn an_older_word_never_replaces_a_newer_one() {
        let mut view = View::new("owner-01".into());
        view.committed(&op(Change::Put(ours("new"))), 1, 7);
        assert!(!put(&mut view, &ours("old"), 5, None));
        assert!(!view.deleted("/s/a/b", 6));
        assert!(view.confirms("/s/a/b", &ours("new"), 1));
        view.committed(&op(Change::Delete), 1, 8);
        assert!(!put(&mut view, &ours("new"), 7, None), "the watch lags behind the delete");
        assert!(view.held("/s/a/b").is_none());
    }

    #[test]
    fn a_later_read_is_believed_of_a_key_put_earlier() {
        let mut view = View::new("owner-01".into());
        view.committed(&op(Change::Put(ours("a"))), 1, 7);
        let other = Record { owner: Some("owner-02".into()), ..Record::default() };
        assert!(!put(&mut view, &other, 3, Some(6)), "before our commit");
        assert!(put(&mut view, &other, 3, Some(9)) && view.occupied("/s/a/b"), "in a store that took its place");
    }

    #[test]
    fn what_others_write_in_its_name_is_kept_up_to_a_bound() {
        let mut view = View::new("owner-01".into());
        let value = ours("a").encode();
        let mut put = |number: usize, wanted: bool| {
            let key = format!("/s/a/{number}");
            view.put(Seen { key: &key, value: &value, lease: 1, revision: 1, read_at: None }, |_| wanted)
        };
        assert!((0..MOST).all(|number| put(number, false)));
        assert!(!put(MOST, false) && put(MOST + 1, true), "only what it wants itself");
        assert!(view.deleted("/s/a/0", 2) && view.deleted("/s/a/1", 2));
        let seen = Seen { key: "/s/a/x", value: &value, lease: 1, revision: 3, read_at: Some(3) };
        assert!(view.put(seen, |_| false), "there is room again");
    }

    #[test]
    fn a_commit_that_the_watch_is_past_says_nothing_new() {
        let mut view = View::new("owner-01".into());
        put(&mut view, &ours("a"), 7, None);
        view.deleted("/s/a/b", 8);
        view.reached(8);
        view.committed(&op(Change::Put(ours("a"))), 1, 7);
        assert!(view.held("/s/a/b").is_none());
    }

    #[test]
    fn a_read_that_began_before_a_delete_does_not_bring_the_key_back() {
        let mut view = View::new("owner-01".into());
        view.deleted("/s/a/b", 9);
        assert!(!put(&mut view, &ours("a"), 5, Some(7)));
        view.read_begins();
        assert!(put(&mut view, &ours("a"), 5, Some(9)));
    }

    #[test]
    fn a_read_that_began_before_a_key_was_spoiled_does_not_bring_it_back() {
        for known in [true, false] {
            let mut view = View::new("owner-01".into());
            if known {
                put(&mut view, &ours("a"), 5, None);
            }
            let spoiled = Seen { key: "/s/a/b", value: b"garbage", lease: 0, revision: 9, read_at: None };
            assert_eq!(view.put(spoiled, |_| false), known, "nothing wants the key before Docker is listed");
            assert!(!put(&mut view, &ours("a"), 5, Some(7)));
            assert!(view.held("/s/a/b").is_none());
            view.read_begins();
            assert!(put(&mut view, &ours("a"), 12, Some(12)), "put right since");
        }
    }

    #[test]
    fn what_was_ours_and_names_no_owner_any_more_is_spoiled() {
        let mut view = View::new("owner-01".into());
        let plain = Record { host: "10.0.0.9".into(), ..Record::default() };
        put(&mut view, &plain, 3, None);
        assert!(view.occupied("/s/a/b"), "someone else's all along");
        view.clear();
        put(&mut view, &ours("a"), 4, None);
        put(&mut view, &plain, 5, None);
        assert_eq!(view.held("/s/a/b").map(|held| &held.holder), Some(&Holder::Spoiled));
    }
}
