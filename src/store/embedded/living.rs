//! What others have of an embedded store while it lives: a watch, and a lease that they keep.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{IDLE, Shared};
use crate::store::{Batch, Item, LeaseId, Page, Revision, StoreError, Watch};

/// Items of one page.
const PAGE: usize = 500;

pub(super) struct EmbeddedWatch {
    pub(super) shared: Arc<Shared>,
    pub(super) prefix: String,
    pub(super) from: Revision,
    /// When it is to say that it is in step, however often it is asked until then.
    pub(super) idle: Instant,
}

impl EmbeddedWatch {
    async fn next_batch(&mut self) -> Result<Batch, StoreError> {
        let idle = self.idle;
        loop {
            // Enlisted before it looks, so that nothing falls between.
            let mut changed = pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let batch = self.shared.events(&self.prefix, self.from)?;
            self.from = self.from.max(batch.revision + 1);
            if !batch.events.is_empty() || Instant::now() >= idle {
                self.idle = Instant::now() + IDLE;
                return Ok(batch);
            }
            let wake = self.shared.next_end().map_or(idle, |end| end.min(idle));
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }
}

impl Watch for EmbeddedWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StoreError>> {
        self.next_batch().boxed()
    }
}

/// A lease that does not end before this is dropped.
pub(super) struct Kept {
    pub(super) shared: Arc<Shared>,
    pub(super) lease: LeaseId,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(lease) = state.leases.get_mut(&self.lease) {
            lease.keepers -= 1;
            lease.ends = (lease.keepers == 0).then(|| Instant::now() + lease.granted);
        }
        drop(state);
        // Running watches look again when the lease will end.
        self.shared.changed.notify_waiters();
    }
}

/// A page of what stands below a prefix.
pub(super) fn page_of(items: &BTreeMap<String, Item>, prefix: &str, after: Option<&str>, revision: Revision) -> Page {
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let below = items.range::<str, _>((from, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
    let mut items: Vec<Item> = below.take(PAGE + 1).map(|(_, item)| item.clone()).collect();
    let more = items.len() > PAGE;
    items.truncate(PAGE);
    Page { items, revision, more }
}
