//! How the catalog is handed to those who answer from it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::model::catalog::Catalog;

/// The catalog as it stands, read without waiting.
#[derive(Clone, Debug)]
pub struct CatalogView {
    current: Arc<ArcSwap<Catalog>>,
    changed: watch::Receiver<u64>,
}

/// The writer's end.
#[derive(Debug)]
pub struct CatalogSlot {
    current: Arc<ArcSwap<Catalog>>,
    changed: watch::Sender<u64>,
}

/// An empty catalog, and how it is read.
pub fn slot() -> (CatalogSlot, CatalogView) {
    let current = Arc::new(ArcSwap::from_pointee(Catalog::default()));
    let (sender, changed) = watch::channel(0);
    (CatalogSlot { current: current.clone(), changed: sender }, CatalogView { current, changed })
}

impl CatalogSlot {
    /// Replaces the catalog.
    pub fn store(&self, catalog: Catalog) {
        self.current.store(Arc::new(catalog));
        self.changed.send_modify(|count| *count += 1);
    }
}

impl CatalogView {
    /// The snapshot of now.
    pub fn load(&self) -> Arc<Catalog> {
        self.current.load_full()
    }

    /// Changes whenever the snapshot does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}
