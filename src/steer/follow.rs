//! Keeps what the store has of one topology: six keys, read once and then watched.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::hold::{Found, Keys};
use crate::store::{Revision, Store, StoreError, Watch, watch_since};

/// Pause before the store is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// A watch that is silent for longer is not in step any more.
const SILENCE: Duration = Duration::from_secs(10);

/// The keeper of one topology's keys.
pub(super) struct Follow {
    store: Arc<dyn Store>,
    keys: Keys,
    found: watch::Sender<Arc<Found>>,
}

impl Follow {
    /// A keeper, and where what it keeps is read.
    pub(super) fn new(store: Arc<dyn Store>, keys: Keys) -> (Self, watch::Receiver<Arc<Found>>) {
        let (found, seen) = watch::channel(Arc::new(Found { is_away: true, ..Found::default() }));
        (Self { store, keys, found }, seen)
    }

    /// Follows the store, whatever it does.
    pub(super) async fn run(self) {
        loop {
            if let Err(error) = self.once().await {
                tracing::debug!(%error, "a topology is not in step with the store");
                self.found.send_modify(|found| *found = Arc::new(Found { is_away: true, ..Found::clone(found) }));
            }
            sleep(AGAIN).await;
        }
    }

    /// Reads, and reads again at each change: the keys are six and seldom change.
    async fn once(&self) -> Result<(), StoreError> {
        let generation = self.store.history().borrow().generation;
        let revision = self.read().await?;
        let below = self.keys.hold.trim_end_matches("hold");
        let mut own = watch_since(&*self.store, generation, below, revision + 1).await?;
        let mut desired = watch_since(&*self.store, generation, &self.keys.desired, revision + 1).await?;
        loop {
            // Watches are cancel-safe: the one that is dropped loses no event.
            let changed = tokio::select! {
                changed = next(&mut *own) => changed?,
                changed = next(&mut *desired) => changed?,
            };
            if changed {
                self.read().await?;
            }
        }
    }

    async fn read(&self) -> Result<Revision, StoreError> {
        let page = self.store.get(&self.keys.all()).await?;
        let history = *self.store.history().borrow();
        let begun = (history.generation > 0).then_some(history.begun);
        let revision = page.revision;
        self.found.send_replace(Arc::new(Found::of(page.items, &self.keys, begun)));
        Ok(revision)
    }
}

/// Whether the next batch brings a change.
async fn next(watch: &mut dyn Watch) -> Result<bool, StoreError> {
    let silent = |_| StoreError::Away { tried: "watching a topology".into(), source: None };
    Ok(!timeout(SILENCE, watch.next()).await.map_err(silent)??.events.is_empty())
}
