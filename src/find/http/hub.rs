//! What changed, and in which order: the memory behind `/v1/watch`.
//!
//! The catalog tells that it changed, not what. The hub compares each snapshot with the one before, service by service,
//! and keeps the last changes, so that a client that comes back gets what it missed. It works only while somebody
//! follows, and takes one twentieth of one core at most: under a flood of changes several become one.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{json, shape};
use crate::find::view::CatalogView;
use crate::model::api;
use crate::model::catalog::{Catalog, Service};
use crate::model::record::Text;
use crate::model::zone::Zones;

/// Changes kept for clients that come back.
const KEPT: usize = 256;
/// The most text kept for them.
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// The share of one core that comparing may take is one in so many.
const SHARE: u32 = 20;
/// How long the memory outlives its last reader.
const LINGER: Duration = Duration::from_secs(60);

/// A point among the changes; `epoch` tells one agent's run (and one stretch of being followed) from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) epoch: u32,
    pub(super) seq: u64,
}

impl Cursor {
    /// Reads an event's id.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let (epoch, seq) = id.split_once('-')?;
        Some(Self { epoch: u32::from_str_radix(epoch, 16).ok()?, seq: seq.parse().ok()? })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}-{}", self.epoch, self.seq)
    }
}

/// The last changes, and the snapshot that they lead to.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    pub(super) at: Cursor,
    pub(super) catalog: Arc<Catalog>,
    pub(super) stale: bool,
    events: VecDeque<Bytes>,
}

impl Ring {
    /// The changes after `cursor`; `None` when it is too old, or of another time.
    pub(super) fn after(&self, cursor: Cursor) -> Option<impl Iterator<Item = (Cursor, &Bytes)>> {
        let missed = usize::try_from(self.at.seq.checked_sub(cursor.seq)?).ok()?;
        let known = cursor.epoch == self.at.epoch && missed <= self.events.len();
        let first = self.at.seq + 1 - missed as u64;
        let events = self.events.iter().skip(self.events.len().saturating_sub(missed));
        let epoch = self.at.epoch;
        known.then(|| events.zip(first..).map(move |(event, seq)| (Cursor { epoch, seq }, event)))
    }
}

/// What followers hold: the ring once there is one, and the sign that they are there.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    ring: watch::Receiver<Option<Arc<Ring>>>,
    followers: watch::Sender<usize>,
}

/// One follower, as long as it lives.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) ring: watch::Receiver<Option<Arc<Ring>>>,
    followers: watch::Sender<usize>,
}

impl Followed {
    pub(super) fn follow(&self) -> Seat {
        self.followers.send_modify(|count| *count += 1);
        Seat { ring: self.ring.clone(), followers: self.followers.clone() }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.followers.send_modify(|count| *count -= 1);
    }
}

/// Compares snapshots while somebody follows.
#[derive(Debug)]
pub(super) struct Hub {
    view: CatalogView,
    zones: Arc<Zones>,
    shown: watch::Sender<Option<Arc<Ring>>>,
    followers: watch::Receiver<usize>,
    marks: Marks,
    epoch: u32,
}

/// What each service looked like.
type Marks = BTreeMap<String, u64>;

impl Hub {
    pub(super) fn new(view: CatalogView, zones: Arc<Zones>) -> (Self, Followed) {
        let (shown, ring) = watch::channel(None);
        let (count, followers) = watch::channel(0);
        let hub = Self { view, zones, shown, followers, marks: Marks::new(), epoch: rand::random() };
        (hub, Followed { ring, followers: count })
    }

    /// Works as long as it is polled.
    pub(super) async fn run(mut self) {
        loop {
            if self.followers.wait_for(|count| *count > 0).await.is_err() {
                return;
            }
            self.follow().await;
            self.forget();
        }
    }

    /// Until nobody has followed for a while.
    async fn follow(&mut self) {
        let mut changed = self.view.changed();
        loop {
            let begun = Instant::now();
            changed.mark_unchanged();
            self.compare();
            sleep(begun.elapsed() * SHARE).await;
            tokio::select! {
                told = changed.changed() => if told.is_err() {
                    return std::future::pending().await; // the mirror is gone, and soon we are
                },
                () = deserted(&mut self.followers) => return,
            }
        }
    }

    fn forget(&mut self) {
        self.marks.clear();
        self.epoch = self.epoch.wrapping_add(1);
        self.shown.send_replace(None);
    }

    /// Takes in the snapshot of now.
    fn compare(&mut self) {
        let catalog = self.view.load();
        let stale = shape::is_stale(&self.view, &catalog);
        let before = self.shown.borrow().clone();
        let same = |ring: &Arc<Ring>| ring.catalog.generation() == catalog.generation() && ring.stale == stale;
        if before.as_ref().is_some_and(same) {
            return;
        }
        let services = catalog.services(&self.zones);
        let marks: Marks = services.iter().map(|service| (service.name.clone(), mark(service))).collect();
        let old = std::mem::replace(&mut self.marks, marks);
        let Some(ring) = before else {
            let at = Cursor { epoch: self.epoch, seq: 0 };
            self.shown.send_replace(Some(Arc::new(Ring { at, catalog, stale, events: VecDeque::new() })));
            return;
        };
        let change = api::Change { stale, ..difference(&old, &self.marks, &services, &catalog) };
        let silent = change.changed.is_empty() && change.removed.is_empty() && stale == ring.stale;
        let mut ring = Ring::clone(&ring);
        (ring.catalog, ring.stale) = (catalog, stale);
        if !silent {
            ring.at.seq += 1;
            ring.events.push_back(json::bytes(&change).into());
            let mut size: usize = ring.events.iter().map(Bytes::len).sum();
            while ring.events.len() > KEPT || (size > KEPT_BYTES && ring.events.len() > 1) {
                size -= ring.events.pop_front().map_or(0, |event| event.len());
            }
        }
        self.shown.send_replace(Some(Arc::new(ring)));
    }
}

/// Ends when nobody has followed for a while.
async fn deserted(followers: &mut watch::Receiver<usize>) {
    loop {
        if followers.wait_for(|count| *count == 0).await.is_err() {
            return;
        }
        if timeout(LINGER, followers.wait_for(|count| *count > 0)).await.is_err() {
            return;
        }
    }
}

fn difference(old: &Marks, new: &Marks, services: &[Service], catalog: &Catalog) -> api::Change {
    let differs = |service: &&Service| old.get(&service.name) != new.get(&service.name);
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    api::Change {
        revision: catalog.revision(),
        stale: catalog.is_stale(),
        changed: services.iter().filter(differs).map(shape::service).collect(),
        removed: gone.map(|name| Text::from(name.as_str())).collect(),
    }
}

/// A number that stands for all that is shown of a service.
pub(super) fn mark(service: &Service) -> u64 {
    let mut hasher = DefaultHasher::new();
    service.contested.hash(&mut hasher);
    for endpoint in &service.endpoints {
        (endpoint.key(), endpoint.revision(), endpoint.held()).hash(&mut hasher);
        if endpoint.revision() == 0 {
            // Laid over by this host while the store is away: no revision tells its states apart.
            endpoint.record().encode().hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(seq: u64, kept: usize) -> Ring {
        let events = (0..kept).map(|back| Bytes::from(format!("{}", seq - (kept - 1 - back) as u64))).collect();
        Ring { at: Cursor { epoch: 7, seq }, catalog: Arc::default(), stale: false, events }
    }

    fn after(ring: &Ring, epoch: u32, seq: u64) -> Option<Vec<String>> {
        let events = ring.after(Cursor { epoch, seq })?;
        Some(events.map(|(at, event)| format!("{}={}", at.seq, String::from_utf8_lossy(event))).collect())
    }

    #[test]
    fn who_comes_back_gets_what_was_missed_or_is_told_to_begin_anew() {
        let ring = ring(10, 3);
        assert_eq!(after(&ring, 7, 10), Some(vec![]));
        assert_eq!(after(&ring, 7, 8), Some(vec!["9=9".into(), "10=10".into()]));
        assert_eq!(after(&ring, 7, 7).map(|events| events.len()), Some(3));
        assert_eq!(after(&ring, 7, 6), None, "too long ago");
        assert_eq!(after(&ring, 7, 11), None, "never was");
        assert_eq!(after(&ring, 8, 10), None, "another run");
    }

    #[test]
    fn ids_read_back() {
        let cursor = Cursor { epoch: 0xab, seq: 12 };
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        for bad in ["", "12", "x-1", "ab-", "ab--1", "1ffffffff-1"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }
}
