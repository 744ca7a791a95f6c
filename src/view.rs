//! The catalog as readers see it: the latest snapshot at once, and a sign when there is another.
//!
//! Readers never wait for the mirror, nor it for them. What flows back is only which foreign leases are being served,
//! so that the mirror knows whose remainder to ask for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::catalog::index::{Catalog, LeaseId};

/// Leases that readers may name before the mirror has listened; what does not fit is named again with the next answer.
const NAMED: usize = 256;

/// Where the catalog's contents come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// Nowhere yet: there is nothing to answer from.
    #[default]
    Nothing,
    /// This host's own knowledge, and nothing of others.
    Own,
    /// The file kept by the last run.
    Kept,
    /// The store has been read whole.
    Read,
}

impl Progress {
    const ALL: [Self; 4] = [Self::Nothing, Self::Own, Self::Kept, Self::Read];
}

/// What has become of the catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The snapshot's own number: equal numbers, equal answers.
    pub generation: u64,
    /// Where it comes from.
    pub progress: Progress,
}

/// The clock of lease times, holds and staleness: the time since the agent started.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts it.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// What it shows.
    pub fn now(self) -> Duration {
        self.0.elapsed()
    }
}

/// A cheap reader of the catalog.
#[derive(Clone, Debug)]
pub struct CatalogView {
    current: Arc<ArcSwap<Catalog>>,
    changed: watch::Receiver<Change>,
    progress: Arc<AtomicU8>,
    served: mpsc::Sender<LeaseId>,
    clock: Clock,
}

impl CatalogView {
    /// The latest snapshot.
    pub fn load(&self) -> Arc<Catalog> {
        self.current.load_full()
    }

    /// A reader that pays for a change only.
    pub fn cache(&self) -> arc_swap::Cache<Arc<ArcSwap<Catalog>>, Arc<Catalog>> {
        arc_swap::Cache::new(self.current.clone())
    }

    /// Tells of every new snapshot, latest wins.
    pub fn changed(&self) -> watch::Receiver<Change> {
        self.changed.clone()
    }

    /// Where the snapshot comes from.
    pub fn progress(&self) -> Progress {
        Progress::ALL[usize::from(self.progress.load(Ordering::Acquire))]
    }

    /// The time on the clock that the catalog's times are given in.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Says that records on these foreign leases have been answered.
    pub fn serving(&self, leases: &[LeaseId]) {
        for lease in leases {
            if self.served.try_send(*lease).is_err() {
                return;
            }
        }
    }

    /// A view with its writing end.
    pub fn open() -> (Outlet, Self, mpsc::Receiver<LeaseId>) {
        let current = Arc::new(ArcSwap::from_pointee(Catalog::default()));
        let (announce, changed) = watch::channel(Change::default());
        let (served, named) = mpsc::channel(NAMED);
        let clock = Clock::start();
        let progress = Arc::new(AtomicU8::new(0));
        let outlet = Outlet { current: current.clone(), announce, progress: progress.clone(), clock };
        (outlet, Self { current, changed, progress, served, clock }, named)
    }

    /// A view of a catalog that never changes.
    pub fn fixed(catalog: Catalog) -> Self {
        let (outlet, view, _) = Self::open();
        outlet.publish(catalog, Progress::Read);
        view
    }
}

/// The writing end of a view.
#[derive(Debug)]
pub struct Outlet {
    current: Arc<ArcSwap<Catalog>>,
    announce: watch::Sender<Change>,
    progress: Arc<AtomicU8>,
    clock: Clock,
}

impl Outlet {
    /// Shows another snapshot.
    pub fn publish(&self, catalog: Catalog, progress: Progress) {
        let change = Change { generation: catalog.generation(), progress };
        self.current.store(Arc::new(catalog));
        self.progress.store(progress as u8, Ordering::Release);
        self.announce.send_if_modified(|shown| std::mem::replace(shown, change) != change);
    }

    /// The clock that readers go by.
    pub fn clock(&self) -> Clock {
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_once_loaded_stays_as_it_was() {
        let (outlet, view, _named) = CatalogView::open();
        assert_eq!(view.progress(), Progress::Nothing);
        let before = view.load();
        let mut catalog = Catalog::default();
        catalog.put("/services/redis/a", b"10.0.0.1:6379", 0, 1).expect("a record");
        let mut changed = view.changed();
        outlet.publish(catalog, Progress::Read);
        assert!(changed.has_changed().expect("open") && changed.borrow_and_update().progress == Progress::Read);
        assert_eq!((before.counts().records, view.load().counts().records), (0, 1));
    }

    #[test]
    fn naming_leases_never_waits() {
        let (_outlet, view, mut named) = CatalogView::open();
        view.serving(&vec![7; 2 * NAMED]);
        assert_eq!(named.try_recv(), Ok(7));
    }
}
