//! What the mirror does beside keeping step, a little at a time: giving back what deleted records leave behind, saying
//! that there are too many records, and asking for a fresh list once there is room for those that were left out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::fold::Fold;
use crate::catalog::index::Catalog;

/// From one bit of tidying to the next.
const TIDY: Duration = Duration::from_millis(50);
/// How long records that are left out wait for what else goes, before there is a list for them.
const SOON: Duration = Duration::from_secs(1);
/// From one such list to the next: there may be a coming and going at the bound.
const SELDOM: Duration = Duration::from_secs(10);

/// When these are due.
#[derive(Debug, Default)]
pub(super) struct Chores {
    tidy: Option<Duration>,
    list: Option<Duration>,
    not_before: Duration,
    again: Arc<Notify>,
    /// Records were left out when that was last said.
    full: bool,
}

impl Chores {
    /// Tells when a fresh list is wanted.
    pub(super) fn list_again(&self) -> Arc<Notify> {
        self.again.clone()
    }

    /// The catalog is another one than it was.
    pub(super) fn changed(&mut self, catalog: &Catalog, now: Duration) {
        self.tidy.get_or_insert(now + TIDY);
        if !catalog.has_room_again() {
            self.list = None;
        } else if self.list.is_none() {
            self.list = Some((now + SOON).max(self.not_before));
        }
        self.say(catalog);
    }

    /// Does what is due.
    pub(super) fn turn(&mut self, fold: &mut Fold, now: Duration) {
        if self.tidy.is_some_and(|due| due <= now) {
            self.tidy = fold.tidy().then_some(now + TIDY);
        }
        if self.list.is_some_and(|due| due <= now) {
            self.not_before = now + SELDOM;
            // Once more, should this one come to nothing.
            self.list = Some(self.not_before);
            self.again.notify_one();
        }
    }

    /// When something is due next.
    pub(super) fn due(&self) -> Option<Duration> {
        self.tidy.into_iter().chain(self.list).min()
    }

    fn say(&mut self, catalog: &Catalog) {
        let counts = catalog.counts();
        let full = counts.left_out > 0;
        if full && !self.full {
            let (left_out, records) = (counts.left_out, counts.records);
            tracing::warn!(
                left_out,
                records,
                "more records than --max-records: the newest of whoever has most are left out"
            );
        } else if !full && self.full {
            tracing::info!(records = counts.records, "no record is left out any more");
        }
        self.full = full;
    }
}
