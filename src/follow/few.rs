//! A few keys of the store below one prefix, kept as they change: read whole, then watched; when the watch breaks,
//! again.
//!
//! Anyone who may write to the store chooses how many there are and how long they are: what is beyond the bounds is
//! left out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::model::words::key;
use crate::store::{Event, Item, Revision, Store, StoreError, watch_since};

/// Pause before the store is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// A watch that is silent for longer is not in step any more.
const SILENCE: Duration = Duration::from_secs(10);
/// Keys kept; a cluster has fewer, and what else is written there is not ours.
pub(super) const MOST: usize = 10_000;
/// So many bytes of them and their values; those of a large cluster are a tenth of it.
pub(super) const MOST_BYTES: usize = 16 * 1024 * 1024;

/// What is kept of one key, read from its value.
pub(super) trait Kept: Sized {
    /// What these are, for the log.
    const NAME: &str;

    /// What a key says; why not, if it says nothing.
    fn read(item: &Item) -> Result<Self, String>;
}

/// Keeps `known` in step with what the store has below `prefix`, whatever the store does, and calls `show` after each
/// change, and with `false` when it is out of step.
pub(super) async fn follow<T: Kept>(store: Arc<dyn Store>, prefix: String, mut show: impl FnMut(&Known<T>, bool)) {
    let mut known = Known::default();
    loop {
        if let Err(error) = once(&*store, &prefix, &mut known, &mut show).await {
            debug!(%error, "{} are not in step with the store", T::NAME);
            show(&known, false);
        }
        sleep(AGAIN).await;
    }
}

/// Reads all, then takes in changes until the watch breaks.
async fn once<T: Kept>(
    store: &dyn Store,
    prefix: &str,
    known: &mut Known<T>,
    show: &mut impl FnMut(&Known<T>, bool),
) -> Result<(), StoreError> {
    let generation = store.history().borrow().generation;
    let revision = read(store, prefix, known).await?;
    show(known, true);
    let mut watch = watch_since(store, generation, prefix, revision + 1).await?;
    loop {
        let silent = |_| StoreError::Away { tried: format!("watching {}", T::NAME), source: None };
        let batch = timeout(SILENCE, watch.next()).await.map_err(silent)??;
        if batch.events.is_empty() {
            continue;
        }
        for event in batch.events {
            match event {
                Event::Put(item) => known.put(item),
                Event::Delete { key, .. } => known.remove(&key),
            }
        }
        show(known, true);
    }
}

async fn read<T: Kept>(store: &dyn Store, prefix: &str, known: &mut Known<T>) -> Result<Revision, StoreError> {
    let mut fresh = Known::default();
    let (mut after, mut at) = (None::<String>, None);
    loop {
        let page = store.read(prefix, after.as_deref(), at).await?;
        at = Some(page.revision);
        for item in page.items {
            after = Some(item.key.clone());
            fresh.put(item);
        }
        if !page.more || fresh.kept.len() >= MOST {
            *known = fresh;
            return Ok(page.revision);
        }
    }
}

/// Sends what is another one than was sent last.
pub(super) fn send_changed<V: PartialEq>(shown: &watch::Sender<Arc<V>>, now: V) {
    if **shown.borrow() != now {
        shown.send_replace(Arc::new(now));
    }
}

/// What is kept, by key, each with the size of its value.
#[derive(Debug)]
pub(super) struct Known<T> {
    kept: BTreeMap<String, (usize, T)>,
    bytes: usize,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { kept: BTreeMap::new(), bytes: 0 }
    }
}

impl<T: Kept> Known<T> {
    fn put(&mut self, item: Item) {
        self.remove(&item.key);
        let size = item.key.len() + item.value.len();
        if self.kept.len() >= MOST || self.bytes + size > MOST_BYTES {
            debug!(key = ?key::shown(&item.key), "more {} than are kept: left out", T::NAME);
            return;
        }
        match T::read(&item) {
            Ok(kept) => {
                self.bytes += size;
                self.kept.insert(item.key, (size, kept));
            }
            Err(reason) => {
                tracing::warn!(key = ?key::shown(&item.key), %reason, "one of the {} cannot be read and is left out", T::NAME);
            }
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some((size, _)) = self.kept.remove(key) {
            self.bytes -= size;
        }
    }

    /// All of it, by key.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &T)> {
        self.kept.iter().map(|(key, (_, kept))| (key.as_str(), kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Length(usize);

    impl Kept for Length {
        const NAME: &str = "lengths";

        fn read(item: &Item) -> Result<Self, String> {
            if item.value.is_empty() { Err("it is empty".to_owned()) } else { Ok(Self(item.value.len())) }
        }
    }

    fn item(number: usize, size: usize) -> Item {
        let key = format!("/wharf/services/nodes/{number}/1");
        Item { key, value: vec![b'x'; size].into(), lease: 0, revision: 1, created: 1 }
    }

    #[test]
    fn no_more_is_kept_than_so_many_keys_and_bytes() {
        let mut known = Known::<Length>::default();
        (0..MOST + 10).for_each(|number| known.put(item(number, 10)));
        assert_eq!(known.all().count(), MOST);
        (0..MOST).for_each(|number| known.remove(&item(number, 0).key));
        assert_eq!((known.all().count(), known.bytes), (0, 0));
        (0..500).for_each(|number| known.put(item(number, 60_000)));
        assert!(known.bytes <= MOST_BYTES && known.all().count() < 300);
        known.put(item(1, 10));
        assert!(known.all().any(|(_, kept)| kept.0 == 10), "a change of one of them is taken");
        known.put(item(1, 0));
        assert!(known.all().all(|(_, kept)| kept.0 != 10), "what it says no more is not kept");
    }
}
