//! The worker: one loop that follows the offer, starts the probes that are due, hears their answers and publishes
//! standings. All probes run within its one task; a thousand of them are a thousand small futures.
//!
//! Nothing is polled and nothing waits to be batched: a change of the offer or of an answer is out before the loop
//! turns again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::berths::{Berths, Landed, Probe};
use super::metrics::Metrics;
use super::{Settings, question};
use crate::model::health::adopted::Adopted;
use crate::model::health::standing::Standings;
use crate::model::offer::instance::Offer;

/// Why the fleet ended.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Nobody says any more what is to be offered.
    #[error("the offer ended")]
    OfferEnded,
}

/// Follows the offer and keeps every instance's standing.
#[derive(Debug)]
pub struct Fleet {
    offer: watch::Receiver<Arc<Offer>>,
    adopted: watch::Receiver<Arc<Adopted>>,
    standings: watch::Sender<Arc<Standings>>,
    berths: Berths,
    asking: FuturesUnordered<BoxFuture<'static, Landed>>,
}

impl Fleet {
    /// A fleet that follows `offer` and tells its `standings`. `adopted` may come late, as it is read from the store;
    /// what is in it is used once, and no more after the first full list of Docker's containers.
    pub fn new(
        settings: Settings,
        offer: watch::Receiver<Arc<Offer>>,
        adopted: watch::Receiver<Arc<Adopted>>,
        standings: watch::Sender<Arc<Standings>>,
        registry: &mut Registry,
    ) -> Self {
        let berths = Berths::new(settings, Metrics::new(registry));
        Self { offer, adopted, standings, berths, asking: FuturesUnordered::new() }
    }

    /// Works until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), FleetError> {
        // What is there already counts as news; records before instances, so that none blinks.
        self.berths.take_records(&self.adopted.borrow_and_update());
        self.offer.mark_changed();
        let mut records_end = false;
        loop {
            self.start_due();
            if let Some(standings) = self.berths.news() {
                self.standings.send_replace(Arc::new(standings));
            }
            let wake = self.berths.wake(Instant::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = self.adopted.changed(), if !records_end => {
                    records_end = changed.is_err();
                    self.berths.take_records(&self.adopted.borrow_and_update());
                }
                changed = self.offer.changed() => {
                    changed.map_err(|_| FleetError::OfferEnded)?;
                    self.berths.follow(&self.offer.borrow_and_update());
                }
                Some(landed) = self.asking.next() => self.hear(landed),
                () = sleep_until(wake), if wake.is_some() => {}
            }
        }
    }

    /// Hears `landed`, and all that have landed with it before the loop turns again.
    fn hear(&mut self, landed: Landed) {
        self.berths.hear(landed);
        while let Some(Some(landed)) = self.asking.next().now_or_never() {
            self.berths.hear(landed);
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        while let Some(probe) = self.berths.next_due(now) {
            self.asking.push(make(probe));
        }
        self.berths.count_in_flight(self.asking.len());
    }
}

/// One probe, as a future that always ends and never panics.
fn make(probe: Probe) -> BoxFuture<'static, Landed> {
    let Probe { ticket, question, mut memo } = probe;
    let asking = async move {
        let answer = question::ask(&question, &mut memo).await;
        (answer, memo)
    };
    AssertUnwindSafe(asking).catch_unwind().map(move |result| Landed { ticket, result: result.ok() }).boxed()
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}
