//! Marks for those who switch: this agent keeps whoever asks it for the master.
//!
//! A mark is written when the catalog that this agent answers from says that a switch is under way, and not when it is
//! heard of.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::model::steer::marks::{Coming, Switches, WAIT, mark};
use crate::model::words::key::Prefix;
use crate::store::{Store, Write};
use crate::view::CatalogView;

/// Marks that are written at once: who writes journals to the store chooses how many switches there are.
const MOST: usize = 64;

/// The worker.
#[derive(Debug)]
pub struct Marker {
    store: Arc<dyn Store>,
    prefix: Prefix,
    owner: String,
    view: CatalogView,
    switches: watch::Receiver<Arc<Switches>>,
    /// What was marked last, by service.
    marked: BTreeMap<String, Coming>,
}

impl Marker {
    /// One that marks for the agent `owner`, which answers from `view`.
    pub fn new(
        store: Arc<dyn Store>,
        prefix: Prefix,
        owner: String,
        view: CatalogView,
        switches: watch::Receiver<Arc<Switches>>,
    ) -> Self {
        Self { store, prefix, owner, view, switches, marked: BTreeMap::new() }
    }

    /// Works until told to stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        stop.run_until_cancelled(self.work()).await;
        Ok(())
    }

    async fn work(&mut self) {
        let mut answers = self.view.changed();
        loop {
            answers.mark_unchanged();
            let switches = Arc::clone(&self.switches.borrow_and_update());
            self.marked.retain(|service, _| switches.contains_key(service));
            self.mark(&switches).await;
            // Nothing is lost where one of these is dropped: each only says that it is time to look.
            let seen = tokio::select! {
                seen = self.switches.changed() => seen,
                seen = answers.changed(), if !switches.is_empty() => seen,
            };
            if seen.is_err() {
                return std::future::pending().await; // the keeper is gone, and soon we are
            }
        }
    }

    /// Marks what this agent's answers know of by now.
    async fn mark(&mut self, switches: &Switches) {
        let catalog = self.view.load();
        let is_due = |(service, coming): &(&String, &Coming)| {
            self.marked.get(*service) != Some(*coming) && catalog.is_switching(&self.prefix, service)
        };
        let due: Vec<_> =
            switches.iter().filter(is_due).take(MOST).map(|(name, coming)| (name.clone(), *coming)).collect();
        join_all(due.iter().map(|(service, coming)| self.write(service, *coming))).await;
        self.marked.extend(due);
    }

    /// A mark that comes too late, or not at all, costs somebody an error at most.
    async fn write(&self, service: &str, coming: Coming) {
        let key = format!("{}{}", self.prefix.marks(service), self.owner);
        let write = Write::Put { key, value: mark(coming.number).into(), lease: coming.hold };
        match timeout(WAIT, self.store.commit(&[], &[write])).await {
            Ok(Ok(_)) => tracing::debug!(service, number = coming.number, "a switch is marked"),
            Ok(Err(error)) => tracing::debug!(service, %error, "a switch is not marked"),
            Err(_) => tracing::debug!(service, "a switch is not marked in time"),
        }
    }
}
