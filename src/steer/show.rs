//! Shows what the store has of a topology while it changes, and keeps a copy of it beside the store.

use std::sync::Arc;

use tokio::sync::watch;

use super::Metrics;
use super::hold::Found;
use crate::model::steer::told::Shown;
use crate::state::topology::{Kept, KeptTopology};

/// The one who shows one topology.
pub(super) struct Show {
    service: String,
    found: watch::Receiver<Arc<Found>>,
    shown: watch::Sender<Arc<Shown>>,
    file: Option<KeptTopology>,
    metrics: Option<Metrics>,
    kept: Kept,
}

impl Show {
    /// One who begins with what the file has, until the store is read.
    pub(super) fn new(
        service: String,
        found: watch::Receiver<Arc<Found>>,
        file: Option<KeptTopology>,
        metrics: Option<Metrics>,
    ) -> (Self, watch::Sender<Arc<Shown>>) {
        let kept = file.as_ref().map(KeptTopology::read).unwrap_or_default();
        let (applied, journal) = (kept.applied.clone(), kept.journal.clone());
        let first = Shown { applied, journal, stale: true, ..Shown::default() };
        let shown = watch::Sender::new(Arc::new(first));
        let own = Self { service, found, shown: shown.clone(), file, metrics, kept };
        (own, shown)
    }

    pub(super) async fn run(mut self) {
        loop {
            let found = Arc::clone(&self.found.borrow_and_update());
            self.show(&found);
            if !found.is_away {
                self.keep(&found).await;
            }
            if self.found.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn show(&self, found: &Found) {
        let with = found.clone().or_kept(&self.kept);
        self.shown.send_modify(|shown| {
            *shown = Arc::new(Shown {
                desired: with.desired.map(|item| item.value.to_vec()),
                applied: with.applied,
                journal: with.journal.map(|(journal, _)| journal),
                paused: with.paused,
                stale: with.is_away,
                last: shown.last.clone(),
            });
        });
        if let Some(metrics) = &self.metrics {
            metrics.show(&self.service, &self.shown.borrow());
        }
    }

    /// What a store that was emptied has not is kept.
    async fn keep(&mut self, found: &Found) {
        let kept = Kept { applied: found.applied.clone(), journal: found.journal.as_ref().map(|(it, _)| it.clone()) };
        if kept == self.kept || kept == Kept::default() {
            return;
        }
        if let Some(file) = &self.file
            && let Err(error) = file.write(&kept).await
        {
            tracing::warn!(service = self.service, %error, "the copy of a topology cannot be written");
        }
        self.kept = kept;
    }
}
