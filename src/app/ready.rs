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
        let mut published = self.count_published();
        loop {
            let progress = self.view.progress();
            self.ready.send_replace(Readiness { dns: true, catalog: progress == Progress::Read });
            if !told && (progress != Progress::Nothing || !patient) {
                Notify.ready();
                told = true;
            }
            self.tell(published, &mut status);
            self.welcome(!patient);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut patience, if patient => patient = false,
                Ok(()) = changed.changed() => {}
                Ok(()) = self.offer.changed() => {}
                Ok(()) = self.local.changed() => published = self.count_published(),
                else => {
                    stop.cancelled().await;
                    return Ok(());
                }
            }
        }
    }

    /// Of all that is here this is looked at for news of it alone, not whenever anything in the cluster changes.
    fn count_published(&mut self) -> usize {
        let local = self.local.borrow_and_update();
        local.instances.iter().filter(|instance| instance.published).count()
    }

    /// Tells systemd the state in a line when it differs from the last one.
    fn tell(&mut self, published: usize, last: &mut String) {
        let (local, offer) = (self.local.borrow(), self.offer.borrow_and_update());
        let engine = if offer.engine { "" } else { ", Docker away" };
        let store = if self.view.load().is_stale() { ", store away" } else { "" };
        let drained = if local.drained.is_some() { ", drained" } else { "" };
        let (found, skipped) = (offer.instances.len(), local.skipped.len());
        let now =
            format!("{published} of {found} instances published, {skipped} ports skipped{engine}{store}{drained}");
        if *last != now {
            Notify.status(&now);
            *last = now;
        }
    }

    /// Tells whoever started us what was found, once.
    fn welcome(&mut self, waited: bool) {
        let (local, offer) = (self.local.borrow(), self.offer.borrow());
        if !offer.listed && !waited {
            return;
        }
        let Some(dig) = self.welcome.take() else { return };
        // What is published already can be asked for at once.
        let (there, to_come): (Vec<_>, Vec<_>) = local.instances.iter().partition(|shown| shown.published);
        let first = there.into_iter().chain(to_come).find_map(|shown| shown.instance.services.first());
        let name = first.map_or_else(|| "memcached".to_owned(), ToString::to_string);
        let skipped: usize = offer.skipped.values().map(|ports| ports.len()).sum();
        tracing::info!(instances = offer.instances.len(), skipped, docker = offer.engine, "found on this host");
        tracing::info!("try: {}", dig.replace("NAME", &name));
    }
}
