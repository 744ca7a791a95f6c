//! What other programs keep in layouts of their own, as the mirror lays it over its catalog: presence, whose keys are
//! among the records', and whatever is followed elsewhere.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_all;
use tokio::sync::watch;

use super::source::ListPage;
use crate::catalog::index::{Catalog, Laid};
use crate::catalog::layouts::presence::Presence;
use crate::model::words::key::Prefix;
use crate::store::{Batch, Event};

/// What is laid over the catalog, and what is under way to it.
#[derive(Debug, Default)]
pub(super) struct LayoutsHere {
    prefixes: Vec<Prefix>,
    presence: Presence,
    /// A list that is not whole yet.
    listing: Presence,
    /// What presence amounts to, until that changes.
    laid: Option<Arc<Laid>>,
    elsewhere: Vec<watch::Receiver<Arc<Laid>>>,
}

impl LayoutsHere {
    pub(super) fn new(prefixes: Vec<Prefix>) -> Self {
        Self { prefixes, ..Self::default() }
    }

    /// The same with what is followed elsewhere, too.
    pub(super) fn with(mut self, elsewhere: Vec<watch::Receiver<Arc<Laid>>>) -> Self {
        self.elsewhere = elsewhere;
        self
    }

    /// Waits for news from elsewhere; for ever when none can come. Nothing is lost when this is dropped: the newest is
    /// laid over at each turn.
    pub(super) async fn changed(&mut self) {
        self.elsewhere.retain(|seen| seen.has_changed().is_ok());
        if self.elsewhere.is_empty() {
            return std::future::pending().await;
        }
        let all = self.elsewhere.iter_mut().map(|seen| seen.changed().boxed());
        drop(select_all(all).await);
    }

    /// A list begins.
    pub(super) fn begin(&mut self) {
        self.listing = Presence::default();
    }

    /// A page of it.
    pub(super) fn page(&mut self, page: &ListPage) {
        for item in &page.items {
            self.listing.put(&self.prefixes, &item.key, &item.value, (item.lease, item.revision));
        }
    }

    /// It is whole; what it lacks is held until the time given, where one is.
    pub(super) fn listed(&mut self, until: Option<Duration>) {
        let listing = std::mem::take(&mut self.listing);
        if !(listing.is_empty() && self.presence.is_empty()) {
            self.presence.listed(listing, until);
            self.laid = None;
        }
    }

    /// What happened.
    pub(super) fn batch(&mut self, batch: &Batch) {
        for event in &batch.events {
            let of_presence = match event {
                Event::Put(item) => {
                    self.presence.put(&self.prefixes, &item.key, &item.value, (item.lease, item.revision))
                }
                Event::Delete { key, .. } => self.presence.delete(&self.prefixes, key),
            };
            if of_presence {
                self.laid = None;
            }
        }
    }

    /// When something is over next.
    pub(super) fn next(&self) -> Option<Duration> {
        self.presence.next()
    }

    /// Lets go of what has been held long enough; whether there was any.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let over = self.presence.expire(now);
        if over {
            self.laid = None;
        }
        over
    }

    /// Lays all of it over what is shown.
    pub(super) fn lay(&mut self, shown: &mut Catalog) {
        for seen in &mut self.elsewhere {
            let laid = Arc::clone(&seen.borrow_and_update());
            shown.lay_found(&laid);
        }
        if !self.presence.is_empty() {
            let laid = self.laid.get_or_insert_with(|| Arc::new(self.presence.laid()));
            shown.lay_found(laid);
        }
    }
}
