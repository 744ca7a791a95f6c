//! Looks at the servers of a topology for those who want to see it, at most once a second, and only when somebody asks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::Settings;
use super::hold::Found;
use super::{Registry, access};
use crate::model::steer::roster::Listed;
use crate::model::steer::told::Sights;
use crate::model::steer::topology::MAX_SERVERS;

/// How old a look may be that is shown again.
const FRESH: Duration = Duration::from_secs(1);
/// How long a look may take; who has not answered by then is shown so.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The looker of one topology.
pub(super) struct Glance {
    settings: Settings,
    registry: Registry,
    found: watch::Receiver<Arc<Found>>,
    asked: mpsc::Receiver<oneshot::Sender<Arc<Sights>>>,
}

impl Glance {
    pub(super) fn new(
        settings: Settings,
        registry: Registry,
        found: watch::Receiver<Arc<Found>>,
        asked: mpsc::Receiver<oneshot::Sender<Arc<Sights>>>,
    ) -> Self {
        Self { settings, registry, found, asked }
    }

    pub(super) async fn run(mut self) {
        let mut last: Option<(Instant, Arc<Sights>)> = None;
        while let Some(reply) = self.asked.recv().await {
            let fresh = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, sights)| Arc::clone(sights));
            let sights = match fresh {
                Some(sights) => sights,
                None => {
                    let sights = Arc::new(timeout(PATIENCE, self.look()).await.unwrap_or_default());
                    last = Some((Instant::now(), Arc::clone(&sights)));
                    sights
                }
            };
            // Whoever asked may have gone.
            _ = reply.send(sights);
        }
    }

    async fn look(&self) -> Sights {
        let Ok(access) = access(&self.settings).await else { return Sights::new() };
        let found = Arc::clone(&self.found.borrow());
        let known = found.applied.iter().map(|applied| &applied.master);
        let roster = (self.registry)(&self.settings.service).with_known(known);
        let is_ours = |listed: &Listed| self.settings.servers.iter().any(|net| net.contains(&listed.host));
        let servers = roster.0.into_values().filter(is_ours).take(MAX_SERVERS).collect();
        access.look(servers).await
    }
}
