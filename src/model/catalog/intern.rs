//! Shares equal texts, so that 100,000 records hold `redis` once.
//!
//! Only writers come here. What nothing else holds any more is swept when the pool has doubled, so churn does not
//! make it grow.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::record::Text;

const FIRST_SWEEP: usize = 1_024;

/// A pool of texts and short lists, each kept once.
#[derive(Debug)]
pub(super) struct Interner {
    texts: HashSet<Text>,
    lists: HashSet<Arc<[Text]>>,
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self { texts: HashSet::new(), lists: HashSet::new(), sweep_at: FIRST_SWEEP }
    }
}

impl Interner {
    /// The shared form of `text`.
    pub(super) fn text(&mut self, text: &str) -> Text {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        self.sweep();
        let fresh: Text = text.into();
        self.texts.insert(fresh.clone());
        fresh
    }

    /// The shared form of a text that may be absent.
    pub(super) fn option(&mut self, text: Option<&Text>) -> Option<Text> {
        text.map(|text| self.text(text))
    }

    /// The shared form of a list, each of its texts shared too.
    pub(super) fn list<'t>(&mut self, items: impl Iterator<Item = &'t Text>) -> Arc<[Text]> {
        let items: Vec<Text> = items.map(|item| self.text(item)).collect();
        if let Some(known) = self.lists.get(items.as_slice()) {
            return known.clone();
        }
        let fresh: Arc<[Text]> = items.into();
        self.lists.insert(fresh.clone());
        fresh
    }

    fn sweep(&mut self) {
        if self.texts.len() + self.lists.len() < self.sweep_at {
            return;
        }
        self.lists.retain(|list| Arc::strong_count(list) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.sweep_at = (2 * (self.texts.len() + self.lists.len())).max(FIRST_SWEEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_unused_ones_go() {
        let mut pool = Interner::default();
        let one = pool.text("redis");
        assert!(Arc::ptr_eq(&one, &pool.text("redis")));
        let list = pool.list([one.clone(), "blue".into()].iter());
        assert!(Arc::ptr_eq(&list, &pool.list([one, "blue".into()].iter())));
        for number in 0..100_000 {
            pool.text(&number.to_string());
        }
        assert!(pool.texts.len() <= 2 * FIRST_SWEEP, "{} texts kept", pool.texts.len());
        assert!(pool.texts.contains("redis"));
    }
}
