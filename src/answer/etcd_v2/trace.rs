//! Finds out what a change was: what the commit says of itself, how the key was before, and whether its time was over.
//!
//! It is asked of the store only for what somebody waits for, and once for all who do. Where the history is gone it is
//! told as far as it is known.

use std::time::SystemTime;

use super::hub::Entry;
use super::look::{Looker, held};
use crate::model::etcd_v2::event::{self, Known, Raw, Told};
use crate::model::etcd_v2::sight::{Held, Life};
use crate::model::etcd_v2::{Act, NodePath, Wait};
use crate::store::{Revision, StoreError};

impl Looker {
    /// The first of an entry's changes that one who waits is to be told.
    pub(super) async fn first_for(&self, wait: &Wait, entry: &Entry) -> Result<Option<Told>, StoreError> {
        for (number, (raw, _)) in entry.changes.iter().enumerate() {
            if !event::may_concern(wait, raw) {
                continue;
            }
            if let Some(told) = self.told(entry, number).await?.filter(|told| event::concerns(wait, told)) {
                return Ok(Some(told.clone()));
            }
        }
        Ok(None)
    }

    async fn told<'e>(&self, entry: &'e Entry, number: usize) -> Result<Option<&'e Told>, StoreError> {
        let (raw, cell) = &entry.changes[number];
        let find = || async {
            let known = self.known(entry, number).await?;
            Ok::<_, StoreError>(event::told(raw, &known, SystemTime::now()))
        };
        Ok(cell.get_or_try_init(find).await?.as_ref())
    }

    async fn known(&self, entry: &Entry, number: usize) -> Result<Known, StoreError> {
        let (raw, _) = &entry.changes[number];
        let act = entry.act.get_or_try_init(|| self.act(entry.revision)).await?.clone();
        let before = self.at(&self.key(raw), entry.revision - 1).await?;
        let life = match raw.now.as_ref().map_or(0, |now| now.lease) {
            0 => None,
            lease => self.lives([(lease, false)].into()).await?.remove(&lease),
        };
        let mut known = Known { act, before, life, ..Known::default() };
        if raw.now.is_none() && known.act.is_none() {
            self.trace_end(entry, raw, &mut known).await?;
        }
        Ok(known)
    }

    fn key(&self, raw: &Raw) -> String {
        if raw.is_mark { self.places.mark(&raw.path) } else { raw.path.to_string() }
    }

    /// What the commit of a revision was.
    async fn act(&self, revision: Revision) -> Result<Option<Act>, StoreError> {
        let own = self.at(self.places.act(), revision).await?.filter(|held| held.modified == revision);
        Ok(own.and_then(|held| Act::decode(&held.value)))
    }

    /// A key as it stood; nothing where the history does not reach back that far.
    async fn at(&self, key: &str, revision: Revision) -> Result<Option<Held>, StoreError> {
        match self.store.first(key, Some(revision)).await {
            Ok(item) => Ok(item.filter(|item| item.key == key).map(held)),
            Err(StoreError::Compacted(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a key went with its lease, and with which directory.
    async fn trace_end(&self, entry: &Entry, raw: &Raw, known: &mut Known) -> Result<(), StoreError> {
        let lease = known.before.as_ref().map_or(0, |held| held.lease);
        let life: Option<Life> =
            if lease == 0 { None } else { self.lives([(lease, false)].into()).await?.remove(&lease) };
        known.has_expired = lease != 0 && life.is_none();
        if !known.has_expired {
            return Ok(());
        }
        let mut above = raw.path.ancestors();
        above.extend(raw.is_mark.then(|| raw.path.clone()));
        for dir in above {
            let mark = self.at(&self.places.mark(&dir), entry.revision - 1).await?;
            if let Some(mark) = mark.filter(|mark| mark.lease == lease) {
                known.is_told_already = !is_first_of(entry, raw, &dir);
                known.ended = Some((dir, mark.created));
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether this is the first change of the entry that went with the directory.
fn is_first_of(entry: &Entry, raw: &Raw, dir: &NodePath) -> bool {
    let is_of_dir = |other: &Raw| other.path == *dir || other.path.is_below(dir);
    let first = entry.changes.iter().map(|(other, _)| other).find(|other| is_of_dir(other) && other.now.is_none());
    first == Some(raw)
}
