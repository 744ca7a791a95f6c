//! The node record: as it should be, as it stands, and when it is to be written.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::store::{Batch, Event, Item, LeaseId, Page, Revision};

/// It is written at most this often,
const PAUSE: Duration = Duration::from_secs(5);
/// but at once when someone else has deleted or spoiled it: with its lease it goes before anything else tells of that.
/// Two agents that cannot be told apart (a clone with its original's machine id) spoil each other's, and shall not do
/// so as fast as they can: so long after the last time.
const RESTORE: Duration = Duration::from_millis(200);

/// This host's node record: what it should say, and what the store has of it.
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/wharf/services/nodes/core-01/one";

    fn batch(event: Event) -> Batch {
        Batch { revision: event.revision(), events: vec![event] }
    }

    fn put(value: &'static str, revision: Revision) -> Batch {
        batch(Event::Put(Item { key: KEY.into(), value: value.into(), lease: 7, revision, created: 1 }))
    }

    fn deleted(revision: Revision) -> Batch {
        batch(Event::Delete { key: KEY.into(), revision })
    }

    /// A record that stands as it should, written a while ago.
    fn standing() -> NodeDesk {
        let mut desk = NodeDesk::new(KEY.into());
        desk.wanted = "right".into();
        desk.written("right".into(), 7, 10);
        desk
    }

    fn ms(ms: u64) -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(ms))
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_else_did_to_it_is_mended_at_once_and_five_times_a_second_at_most() {
        for foreign in [deleted(11), put("wrong", 11)] {
            let mut desk = standing();
            assert_eq!(desk.due(7), None);
            tokio::time::advance(Duration::from_secs(60)).await;
            desk.batch(&foreign);
            assert!(desk.due(7).is_some_and(|due| due <= Instant::now()));
            desk.written("right".into(), 7, 12);
            desk.batch(&deleted(13));
            assert_eq!(desk.due(7), ms(200));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_our_own_waits_for_five_seconds_to_be_over() {
        let mut desk = standing();
        desk.wanted = "newer".into();
        assert_eq!(desk.due(7), ms(5_000));
        desk.batch(&put("right", 10));
        assert_eq!(desk.due(7), ms(5_000), "the echo of what was written is nobody else's doing");
    }

    #[tokio::test(start_paused = true)]
    async fn that_it_went_counts_though_it_is_heard_before_that_it_was_written() {
        let mut desk = NodeDesk::new(KEY.into());
        desk.wanted = "right".into();
        desk.batch(&put("right", 10));
        desk.batch(&deleted(11));
        desk.written("right".into(), 7, 10);
        assert_eq!(desk.due(7), ms(200));
        desk.written("right".into(), 8, 12);
        assert_eq!(desk.due(8), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_whose_revisions_begin_anew_is_believed() {
        let mut desk = standing();
        desk.batch(&deleted(1_000));
        desk.read(&Page { items: vec![], more: false, revision: 2 });
        desk.written("right".into(), 7, 3);
        assert_eq!(desk.due(7), None);
    }
}
