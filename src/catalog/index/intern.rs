//! Shares equal texts, so that 100,000 records hold `redis` once.
//!
//! Only writers come here. What nothing else holds any more is swept a shard at a time, much faster than texts are
//! released: no change waits for all of it, and churn does not make it grow. Long texts are hardly ever equal, and are
//! not shared, so that they go at once.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use crate::model::words::record::Text;

/// So many that sweeping one of them takes a fraction of a millisecond in the largest catalog.
const SHARDS: usize = 256;
/// How many texts are looked at for each that is released: what is left behind stays a small part of all.
const PACE: usize = 8;
/// The longest text that is shared.
const LONGEST: usize = 128;

/// A pool of texts and short lists, each kept once.
#[derive(Debug, Default)]
pub(super) struct Interner {
    /// None until there is a text.
    shards: Vec<Shard>,
    choose: RandomState,
    /// The shard to be swept next.
    hand: usize,
    /// Texts that may be looked at for those that were released.
    credit: usize,
    /// Shards that have not been swept since the last release.
    unswept: usize,
}

#[derive(Debug, Default)]
struct Shard {
    texts: HashSet<Text>,
    lists: HashSet<Arc<[Text]>>,
}

impl Interner {
    /// The shared form of `text`.
    pub(super) fn text(&mut self, text: &Text) -> Text {
        if text.len() > LONGEST {
            return text.clone();
        }
        let texts = &mut self.shard(text).texts;
        if let Some(known) = texts.get(text) {
            return known.clone();
        }
        // A copy: a text taken out of a value may hold more than itself.
        let fresh: Text = (**text).into();
        texts.insert(fresh.clone());
        fresh
    }

    /// The shared form of a text that may be absent.
    pub(super) fn option(&mut self, text: Option<&Text>) -> Option<Text> {
        text.map(|text| self.text(text))
    }

    /// The shared form of a list, each of its texts shared too.
    pub(super) fn list<'t>(&mut self, items: impl Iterator<Item = &'t Text>) -> Arc<[Text]> {
        let items: Vec<Text> = items.map(|item| self.text(item)).collect();
        let lists = &mut self.shard(&items).lists;
        if let Some(known) = lists.get(items.as_slice()) {
            return known.clone();
        }
        let fresh: Arc<[Text]> = items.into();
        lists.insert(fresh.clone());
        fresh
    }

    /// So many texts may be held by nobody else any more: sweeps as much as that allows.
    pub(super) fn released(&mut self, texts: usize) {
        self.unswept = self.shards.len();
        self.credit = self.credit.saturating_add(PACE * (texts + 1));
        while let Some(shard) = self.shards.get(self.hand) {
            let cost = 1 + shard.texts.len() + shard.lists.len();
            if self.credit < cost {
                return;
            }
            self.credit -= cost;
            self.sweep_next();
        }
    }

    /// Sweeps one more shard, for one who has time; whether there are more to sweep.
    pub(super) fn tidy(&mut self) -> bool {
        if self.unswept == 0 {
            return false;
        }
        self.unswept -= 1;
        self.sweep_next();
        self.unswept > 0
    }

    fn sweep_next(&mut self) {
        let Some(shard) = self.shards.get_mut(self.hand) else { return };
        self.hand = (self.hand + 1) % SHARDS;
        if shard.sweep() {
            // The texts of its lists may be in shards that were swept before.
            self.unswept = self.shards.len();
        }
    }

    fn shard(&mut self, item: &(impl Hash + ?Sized)) -> &mut Shard {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Shard::default);
        }
        let place = self.choose.hash_one(item) as usize % SHARDS;
        &mut self.shards[place]
    }
}

impl Shard {
    /// Lets go of what nobody else holds; whether there was a list among it.
    fn sweep(&mut self) -> bool {
        let lists = self.lists.len();
        self.lists.retain(|list| Arc::strong_count(list) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        shrink(&mut self.lists);
        shrink(&mut self.texts);
        self.lists.len() < lists
    }
}

/// Leaves room for half as many again: what has grown once may do so again.
fn shrink<T: Eq + Hash>(set: &mut HashSet<T>) {
    if set.capacity() > 3 * set.len() {
        set.shrink_to(set.len() + set.len() / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pool: &Interner) -> usize {
        pool.shards.iter().map(|shard| shard.texts.len()).sum()
    }

    #[test]
    fn equal_texts_are_one_and_unused_ones_go() {
        let mut pool = Interner::default();
        let one = pool.text(&"redis".into());
        assert!(Arc::ptr_eq(&one, &pool.text(&"redis".into())));
        let list = pool.list([one.clone(), "blue".into()].iter());
        assert!(Arc::ptr_eq(&list, &pool.list([one, "blue".into()].iter())));
        for number in 0..100_000 {
            drop(pool.text(&number.to_string().into()));
            pool.released(1);
        }
        assert!(texts(&pool) <= 2 * SHARDS, "{} texts kept", texts(&pool));
        while pool.tidy() {}
        assert_eq!((texts(&pool), &*pool.text(&"redis".into())), (2, "redis"));
    }

    #[test]
    fn long_texts_are_not_kept() {
        let mut pool = Interner::default();
        drop(pool.text(&"x".repeat(LONGEST + 1).into()));
        assert_eq!(texts(&pool), 0);
    }
}
