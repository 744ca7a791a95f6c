//! Which services have replicas and no primary, said when it lasts: while a master is moved it is so for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::model::words::record::Text;
use crate::model::words::zone::Zones;
use crate::view::CatalogView;

/// How long a service may be without a primary before it is said.
const GRACE: Duration = Duration::from_secs(3);
/// How often it is looked at while nothing is amiss, at most: a catalog changes more often than that.
const PAUSE: Duration = Duration::from_millis(500);
/// Services that are told of at a time: whoever writes records chooses how many there are.
const MOST: usize = 100;

/// The worker.
#[derive(Debug)]
pub struct Leaderless {
    view: CatalogView,
    zones: Arc<Zones>,
    since: BTreeMap<Text, Instant>,
    told: BTreeSet<Text>,
}

impl Leaderless {
    /// One that looks at this catalog.
    pub fn new(view: CatalogView, zones: Arc<Zones>) -> Self {
        Self { view, zones, since: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Works until told to stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut changed = self.view.changed();
        while !stop.is_cancelled() {
            let due = self.look(Instant::now());
            // Nothing is lost where one of these is dropped: each only says that it is time to look.
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = changed.changed() => {}
                () = due_at(due) => {}
            }
            stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
        }
        Ok(())
    }

    /// Says what has lasted and what is over; gives when to look again.
    fn look(&mut self, now: Instant) -> Option<Instant> {
        let catalog = self.view.load();
        let current: BTreeSet<&Text> = catalog.leaderless().take(MOST).collect();
        self.since.retain(|service, _| current.contains(service));
        for service in &current {
            self.since.entry((*service).clone()).or_insert(now);
        }
        let name = |path: &Text| self.zones.service_name(path).unwrap_or_else(|| path.to_string());
        for service in self.since.iter().filter(|(_, since)| now >= **since + GRACE).map(|(service, _)| service) {
            if self.told.insert(service.clone()) {
                let name = name(service);
                tracing::warn!("{name} has no primary, only replicas: `wharf services {name}` shows them");
            }
        }
        self.told.retain(|service| {
            let lasts = current.contains(service);
            if !lasts {
                tracing::info!("{} is no longer without a primary", name(service));
            }
            lasts
        });
        self.since.iter().filter(|(service, _)| !self.told.contains(*service)).map(|(_, since)| *since + GRACE).min()
    }
}

async fn due_at(due: Option<Instant>) {
    match due {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
