//! A map by text that keeps no text: what is long costs no more than what is short.
//!
//! A text stands there as 128 bits that nobody outside can foretell, too many for two texts ever to meet. They are
//! ordered: a tree of hash digits has nodes that are nearly empty at some sizes, and of a deep key those cost most; an
//! ordered one is at least half full at any size, and a third when most is taken out of it again.

use std::hash::{BuildHasher, Hasher, RandomState};

use imbl::OrdMap;

/// Values by text. Clones share what they have in common.
#[derive(Clone, Debug)]
pub(super) struct Hashed<V: Clone> {
    map: OrdMap<Digest, V>,
    hasher: RandomState,
}

type Digest = (u64, u64);

impl<V: Clone> Hashed<V> {
    pub(super) fn get(&self, text: &str) -> Option<&V> {
        self.map.get(&self.digest(text))
    }

    pub(super) fn get_mut(&mut self, text: &str) -> Option<&mut V> {
        let digest = self.digest(text);
        self.map.get_mut(&digest)
    }

    /// Puts what `change` makes of what is there; with nothing made, nothing is there any more.
    pub(super) fn change(&mut self, text: &str, change: impl FnOnce(Option<&V>) -> Option<V>) {
        let digest = self.digest(text);
        match change(self.map.get(&digest)) {
            Some(value) => drop(self.map.insert(digest, value)),
            None => drop(self.map.remove(&digest)),
        }
    }

    fn digest(&self, text: &str) -> Digest {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text.as_bytes());
        let first = hasher.finish();
        hasher.write_u8(0);
        (first, hasher.finish())
    }
}

impl<V: Clone> Default for Hashed<V> {
    fn default() -> Self {
        Self { map: OrdMap::new(), hasher: RandomState::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_found_under_its_own_text_alone() {
        let mut map = Hashed::default();
        let texts: Vec<String> = (0..5_000).map(|number| format!("{}{number}", "/x".repeat(number % 40))).collect();
        for (number, text) in texts.iter().enumerate() {
            map.change(text, |old| old.is_none().then_some(number));
        }
        assert!(texts.iter().enumerate().all(|(number, text)| map.get(text) == Some(&number)));
        assert_eq!((map.get(""), map.get("/x"), map.map.len()), (None, None, 5_000));
        for text in &texts[1..] {
            map.change(text, |_| None);
        }
        *map.get_mut("0").expect("the first") += 1;
        assert_eq!((map.get("0"), map.get("/x1"), map.map.len()), (Some(&1), None, 1));
    }
}
