//! Says when the agent is ready: to HTTP strictly, to systemd so that units ordered after wharf never wait for what
//! wharf itself waits for.
//!
//! systemd hears READY once the sockets are bound and there is something to answer from, or a second has gone by,
//! whatever Docker and etcd do. `/readyz` waits for the store.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answer::http::Readiness;
use crate::model::offer::instance::Offer;
use crate::model::publish::local::Local;
use crate::notify::Notify;
use crate::view::{CatalogView, Progress};

/// How long systemd waits for a source of answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// The worker that watches the others become ready.
pub(super) struct Herald {
    pub(super) view: CatalogView,
    pub(super) offer: watch::Receiver<Arc<Offer>>,
    pub(super) local: watch::Receiver<Arc<Local>>,
    pub(super) ready: watch::Sender<Readiness>,
    /// Said once, when there is something to say it of.
    pub(super) welcome: Option<String>,
}

impl Herald {
    /// Works until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut changed = self.view.changed();
        let patience = tokio::time::sleep_until(Instant::now() + PATIENCE);
        tokio::pin!(patience);
        let (mut patient, mut told) = (true, false);
        let mut status = String::new();
        loop {
            let progress = self.view.progress();
            self.ready.send_replace(Readiness { dns: true, catalog: progress == Progress::Read });
            if !told && (progress != Progress::Nothing || !patient) {
                Notify.ready();
                told = true;
            }
            self.tell(&mut status, !patient);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut patience, if patient => patient = false,
                Ok(()) = changed.changed() => {}
                Ok(()) = self.offer.changed() => {}
                Ok(()) = self.local.changed() => {}
                else => {
                    stop.cancelled().await;
                    return Ok(());
                }
            }
        }
    }

    /// Tells systemd the state in a line when it differs from the last one, and whoever started us what was found.
    fn tell(&mut self, last: &mut String, waited: bool) {
        let (local, offer) = (self.local.borrow_and_update().clone(), self.offer.borrow_and_update().clone());
        let skipped: usize = offer.skipped.values().map(|ports| ports.len()).sum();
        let published = local.instances.iter().filter(|instance| instance.published).count();
        let engine = if offer.engine { "" } else { ", Docker away" };
        let store = if self.view.load().is_stale() { ", store away" } else { "" };
        let drained = if local.drained.is_some() { ", drained" } else { "" };
        let found = offer.instances.len();
        let now =
            format!("{published} of {found} instances published, {skipped} ports skipped{engine}{store}{drained}");
        if *last != now {
            Notify.status(&now);
            *last = now;
        }
        if (offer.listed || waited)
            && let Some(dig) = self.welcome.take()
        {
            // What is published already can be asked for at once.
            let (there, to_come): (Vec<_>, Vec<_>) = local.instances.iter().partition(|shown| shown.published);
            let first = there.into_iter().chain(to_come).find_map(|shown| shown.instance.services.first());
            let name = first.map_or_else(|| "memcached".to_owned(), ToString::to_string);
            tracing::info!(instances = found, skipped, docker = offer.engine, "found on this host");
            tracing::info!("try: {}", dig.replace("NAME", &name));
        }
    }
}
