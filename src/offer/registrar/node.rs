//! The node record: as it should be, as it stands, and when it is to be written.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::store::{Batch, Event, Item, LeaseId, Page, Revision};

/// It is written at most this often,
const PAUSE: Duration = Duration::from_secs(5);
/// but at once when someone else has deleted or spoiled it: with its lease it goes before anything else tells of that. Two
/// agents that cannot be told apart (a clone with its original's machine id) spoil each other's, and shall not do so as
/// fast as they can: so long after the last time.
const RESTORE: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct NodeDesk {
    pub(super) key: String,
    pub(super) wanted: Bytes,
    stands: Option<Stands>,
    /// When it was last deleted, as far as a watch has told.
    deleted: Revision,
    /// It is not written before this,
    earliest: Instant,
    /// nor, where it was spoiled, before this.
    restore: Instant,
}

/// What the store holds.
struct Stands {
    value: Bytes,
    lease: LeaseId,
    revision: Revision,
}

impl NodeDesk {
    pub(super) fn new(key: String) -> Self {
        let now = Instant::now();
        Self { key, wanted: Bytes::new(), stands: None, deleted: 0, earliest: now, restore: now }
    }

    /// When the record is to be written, if it differs from what stands.
    pub(super) fn due(&self, lease: LeaseId) -> Option<Instant> {
        let right = self.stands.as_ref().is_some_and(|it| it.value == self.wanted && it.lease == lease);
        (!right && lease != 0).then_some(self.earliest)
    }

    /// It was written.
    pub(super) fn written(&mut self, value: Bytes, lease: LeaseId, revision: Revision) {
        let now = Instant::now();
        (self.earliest, self.restore) = (now + PAUSE, now + RESTORE);
        if revision < self.deleted {
            // That it is gone again was heard before that it was written.
            self.earliest = self.restore;
        } else if self.stands.as_ref().is_none_or(|it| it.revision < revision) {
            self.stands = Some(Stands { value, lease, revision });
        }
    }

    /// Its lease is lost, and it with it.
    pub(super) fn lost(&mut self) {
        (self.stands, self.deleted) = (None, 0);
    }

    /// Takes in what a read of its key among others found.
    pub(super) fn read(&mut self, page: &Page) {
        (self.stands, self.deleted) = (page.items.iter().find(|item| item.key == self.key).map(Stands::of), 0);
    }

    /// Takes in what a watch of its key brought.
    pub(super) fn batch(&mut self, batch: &Batch) {
        let newest = self.stands.as_ref().map_or(0, |it| it.revision);
        for event in batch.events.iter().filter(|event| event.key() == self.key) {
            match event {
                Event::Put(item) if item.revision < newest => {}
                Event::Delete { revision, .. } if *revision < newest => {}
                Event::Put(item) => self.stands = Some(Stands::of(item)),
                Event::Delete { revision, .. } => (self.stands, self.deleted) = (None, *revision),
            }
        }
        let foreign = self.stands.as_ref().is_none_or(|it| it.value != self.wanted && it.revision > newest);
        if foreign && !batch.events.is_empty() {
            self.earliest = self.earliest.min(self.restore);
        }
    }
}

impl Stands {
    fn of(item: &Item) -> Self {
        Self { value: item.value.clone(), lease: item.lease, revision: item.revision }
    }
}
