//! The host goes down: this node withdraws first, waits until caches have let go of it, and remembers nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::topology::Masters;
use crate::host::logind::{Hold, Shutdown};
use crate::model::publish::local::Local;
use crate::offer::drain::Drain;

/// How long the withdrawal itself is waited for.
const WITHDRAWAL: Duration = Duration::from_secs(2);
/// How long a farewell takes at most, besides the time for which answers may be kept.
pub(super) const LEAVE: Duration = Duration::from_secs(6);

/// The worker between logind and the drain switch.
pub(super) struct Farewell {
    pub(super) announcements: mpsc::Receiver<Shutdown>,
    pub(super) switch: Drain,
    pub(super) masters: Masters,
    pub(super) local: watch::Receiver<Arc<Local>>,
    /// How long an answer given before may be kept.
    pub(super) dns_ttl: Duration,
}

impl Farewell {
    /// Works until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        while let Some(Some(shutdown)) = stop.run_until_cancelled(self.announcements.recv()).await {
            match shutdown {
                Shutdown::Coming(hold) => self.withdraw(hold, &stop).await,
                Shutdown::CalledOff => {
                    tracing::info!("shutdown called off, offering again");
                    self.switch.stay_up();
                }
            }
        }
        stop.cancelled().await;
        Ok(())
    }

    async fn withdraw(&mut self, hold: Hold, stop: &CancellationToken) {
        stop.run_until_cancelled(leave(&self.switch, &self.masters, &mut self.local, self.dns_ttl)).await;
        drop(hold);
    }
}

/// Gives masters away, withdraws for a shutdown, and waits until caches have let go of what they were told before.
pub(super) async fn leave(
    switch: &Drain,
    masters: &Masters,
    local: &mut watch::Receiver<Arc<Local>>,
    dns_ttl: Duration,
) {
    masters.give_away().await;
    tracing::info!(wait = ?dns_ttl, "the host goes down, withdrawing");
    switch.shut_down(SystemTime::now());
    let withdrawn = local.wait_for(|local| local.awaits().is_none());
    if tokio::time::timeout(WITHDRAWAL, withdrawn).await.is_err()
        && let Some(awaited) = local.borrow().awaits()
    {
        tracing::warn!(%awaited, "the withdrawal is not complete");
    }
    tokio::time::sleep(dns_ttl).await;
}
