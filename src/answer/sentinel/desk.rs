//! Reads the masters off each snapshot, and tells what changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{broadcast, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::catalog::facade::api::Nodes;
use crate::catalog::facade::sentinel::{Masters, SentinelEvent, difference};
use crate::model::words::record::Text;
use crate::model::words::zone::Zones;
use crate::view::CatalogView;

/// Events that a client may be behind by: twice what one change tells at most.
const RING: usize = 2_048;
/// The share of one core that reading may take is one in so many: under a flood of changes several become one.
const SHARE: u32 = 10;

/// What conversations go by.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) masters: watch::Receiver<Arc<Masters>>,
    events: broadcast::Sender<SentinelEvent>,
}

impl Shown {
    /// Tells an event, as the worker does.
    #[cfg(test)]
    pub(super) fn tell(&self, event: SentinelEvent) {
        let _ = self.events.send(event);
    }

    /// The events from now on.
    pub(super) fn events(&self) -> broadcast::Receiver<SentinelEvent> {
        self.events.subscribe()
    }
}

/// The worker.
#[derive(Debug)]
pub(super) struct Desk {
    view: CatalogView,
    zones: Arc<Zones>,
    nodes: watch::Receiver<Arc<Nodes>>,
    aliases: Arc<BTreeMap<String, String>>,
    owner: Text,
    shown: watch::Sender<Arc<Masters>>,
    events: broadcast::Sender<SentinelEvent>,
}

impl Desk {
    pub(super) fn new(
        view: CatalogView,
        zones: Zones,
        nodes: watch::Receiver<Arc<Nodes>>,
        aliases: BTreeMap<String, String>,
        owner: Text,
    ) -> (Self, Shown) {
        let (shown, masters) = watch::channel(Arc::default());
        let (events, _) = broadcast::channel(RING);
        let told = Shown { masters, events: events.clone() };
        (Self { view, zones: Arc::new(zones), nodes, aliases: Arc::new(aliases), owner, shown, events }, told)
    }

    /// Works as long as it is polled.
    pub(super) async fn run(mut self) {
        let mut changed = self.view.changed();
        loop {
            let begun = Instant::now();
            changed.mark_unchanged();
            self.nodes.mark_unchanged();
            self.look().await;
            sleep(begun.elapsed() * SHARE).await;
            // Neither branch takes anything: what is dropped is seen by the next look.
            let seen = tokio::select! {
                seen = changed.changed() => seen,
                seen = self.nodes.changed() => seen,
            };
            if seen.is_err() {
                return std::future::pending().await; // the mirror is gone, and soon we are
            }
        }
    }

    /// Shows the masters of now, and then tells of changes: who hears of a new master and asks gets that one.
    async fn look(&self) {
        let (catalog, zones, aliases) = (self.view.load(), Arc::clone(&self.zones), Arc::clone(&self.aliases));
        let (nodes, owner) = (Arc::clone(&self.nodes.borrow()), Arc::clone(&self.owner));
        let before = Arc::clone(&self.shown.borrow());
        // Beside the event loop: there may be very many services.
        let read = spawn_blocking(move || {
            let masters = Masters::of(&catalog, &zones, &aliases).beside(&nodes.nodes, &owner).after(&before);
            let events = difference(&before, &masters);
            (masters, events)
        });
        let Ok((masters, events)) = read.await else {
            tracing::error!("the masters cannot be read from this catalog, and are told of as they were");
            return;
        };
        self.shown.send_replace(Arc::new(masters));
        for event in events {
            tracing::debug!(channel = event.channel, payload = &*event.payload, "told");
            // Nobody listens: then nobody is told.
            let _ = self.events.send(event);
        }
    }
}
