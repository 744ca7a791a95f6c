//! What changed, and in which order: the memory behind `/v1/watch`.
//!
//! The catalog tells that it changed, not what. The hub compares each snapshot with the one before, service by service,
//! and keeps the last changes, so that a client that comes back gets what it missed. It works only while somebody
//! follows, and takes one twentieth of one core at most: under a flood of changes several become one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::difference::{ChangedService, Difference, mark};
use super::listing::Stand;
use super::{shape, work};
use crate::catalog::index::{Catalog, Service};
use crate::host::thread_time;
use crate::model::words::record::Text;
use crate::model::words::zone::Zones;
use crate::view::CatalogView;

/// Changes kept for clients that come back.
const KEPT: usize = 256;
/// The most endpoints kept for them: what was replaced stays in memory as long as a change tells of it.
const KEPT_ENDPOINTS: usize = 50_000;
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
    changes: VecDeque<Arc<Difference>>,
}

impl Ring {
    /// The changes after `cursor`; `None` when it is too old, or of another time.
    pub(super) fn after(&self, cursor: Cursor) -> Option<impl Iterator<Item = (Cursor, &Arc<Difference>)>> {
        let missed = usize::try_from(self.at.seq.checked_sub(cursor.seq)?).ok()?;
        let known = cursor.epoch == self.at.epoch && missed <= self.changes.len();
        let first = self.at.seq + 1 - missed as u64;
        let changes = self.changes.iter().skip(self.changes.len().saturating_sub(missed));
        let epoch = self.at.epoch;
        known.then(|| changes.zip(first..).map(move |(change, seq)| (Cursor { epoch, seq }, change)))
    }

    /// Takes in a change, and lets go of those that are too old or too much.
    fn push(&mut self, change: Difference) {
        self.at.seq += 1;
        self.changes.push_back(Arc::new(change));
        let mut size: usize = self.changes.iter().map(|change| change.size()).sum();
        while self.changes.len() > KEPT || (size > KEPT_ENDPOINTS && self.changes.len() > 1) {
            size -= self.changes.pop_front().map_or(0, |change| change.size());
        }
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
            self = self.follow().await;
            self.forget();
        }
    }

    /// Until nobody has followed for a while. While nobody does nothing is compared, however much changes.
    async fn follow(mut self) -> Self {
        let mut changed = self.view.changed();
        loop {
            changed.mark_unchanged();
            let took;
            // Beside the event loop: comparing 100,000 endpoints takes longer than a keepalive should wait.
            (self, took) = work::done(move || {
                let begun = thread_time();
                self.compare();
                (self, thread_time().saturating_sub(begun))
            })
            .await;
            // By what it took of a core: on a busy machine it is not to be late for having waited its turn.
            sleep(took * SHARE).await;
            if *self.followers.borrow() == 0 {
                let gone = !matches!(timeout(LINGER, self.followers.wait_for(|count| *count > 0)).await, Ok(Ok(_)));
                if gone {
                    return self;
                }
                continue;
            }
            let gone = tokio::select! {
                told = changed.changed() => told.is_err(),
                left = self.followers.wait_for(|count| *count == 0) => left.is_err(),
            };
            if gone {
                return std::future::pending().await; // the mirror is gone, and soon we are
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
            self.shown.send_replace(Some(Arc::new(Ring { at, catalog, stale, changes: VecDeque::new() })));
            return;
        };
        let at = Stand { revision: catalog.revision(), stale };
        let change = self.difference(at, &old, services, &ring.catalog);
        let silent = change.changed.is_empty() && change.removed.is_empty() && stale == ring.stale;
        let mut ring = Ring::clone(&ring);
        (ring.catalog, ring.stale) = (catalog, stale);
        if !silent {
            ring.push(change);
        }
        self.shown.send_replace(Some(Arc::new(ring)));
    }

    /// What is to be told of `services`, whose marks were `old` in the catalog `before`.
    fn difference(&self, at: Stand, old: &Marks, services: Vec<Service>, before: &Catalog) -> Difference {
        let gone = old.keys().filter(|name| !self.marks.contains_key(*name));
        let removed = gone.map(|name| Text::from(name.as_str())).collect();
        let differs = |service: &Service| old.get(&service.name) != self.marks.get(&service.name);
        let changed = services.into_iter().filter(differs).map(|service| {
            let was = old.contains_key(&service.name).then(|| before.service(&self.zones, &service.name)).flatten();
            ChangedService::new(was.as_ref(), service)
        });
        Difference { at, changed: changed.collect(), removed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64) -> Difference {
        let at = Stand { revision: i64::try_from(revision).expect("small"), stale: false };
        Difference { at, changed: Vec::new(), removed: Vec::new() }
    }

    fn ring(seq: u64, kept: usize) -> Ring {
        let changes = (seq + 1 - kept as u64..=seq).map(|seq| Arc::new(change(seq))).collect();
        Ring { at: Cursor { epoch: 7, seq }, catalog: Arc::default(), stale: false, changes }
    }

    fn after(ring: &Ring, epoch: u32, seq: u64) -> Option<Vec<String>> {
        let changes = ring.after(Cursor { epoch, seq })?;
        Some(changes.map(|(at, change)| format!("{}={}", at.seq, change.at.revision)).collect())
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut ring = ring(10, 3);
        for seq in 11..=10 + KEPT as u64 {
            ring.push(change(seq));
        }
        assert_eq!((ring.at.seq, ring.changes.len()), (10 + KEPT as u64, KEPT));
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
