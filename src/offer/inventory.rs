//! The inventory worker: sightings of the engine, the tables of the config file and the host's addresses go in, the
//! latest [`Offer`] comes out.
//!
//! It stands between the engine and everyone else, so it decides nothing: `model::offer::inventory` does. The
//! surprising part is the engine's absence: an instance that no probe looks at then stands as long as its process
//! lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use imbl::ordmap::DiffItem;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::host;
use crate::model::offer::advertise::{Advertise, HostAddresses, Place, choose};
use crate::model::offer::container::{Container, Sighting};
use crate::model::offer::instance::Offer;
use crate::model::offer::inventory;
use crate::model::offer::naming::{self, StaticService, kind};
use crate::model::words::record::Text;

/// Sightings that are taken in before the offer is told,
const BATCH: usize = 256;
/// unless that takes longer: what one container costs, the others do not wait for.
const TURN: Duration = Duration::from_millis(10);

/// Addresses of this host that are told where the one that is wanted is not there.
const MAX_TOLD: usize = 16;

/// What of the configuration makes the offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How containers are read; its `place` is filled in from the host's addresses.
    pub naming: naming::Settings,
    /// Every `--advertise`, in order.
    pub advertise: Vec<Advertise>,
    /// The `[[service]]` tables.
    pub services: Vec<StaticService>,
}

/// The worker.
#[derive(Debug)]
pub struct Inventory {
    settings: watch::Receiver<Arc<Settings>>,
    addresses: watch::Receiver<Arc<HostAddresses>>,
    sightings: mpsc::Receiver<Sighting>,
    offer: watch::Sender<Arc<Offer>>,
    place: watch::Sender<Arc<Place>>,
    inventory: inventory::Inventory,
    processes: BTreeMap<Text, Text>,
    metrics: Metrics,
}

/// What the worker tells.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// What this host means to offer, whole, latest wins.
    pub offer: watch::Receiver<Arc<Offer>>,
    /// The addresses that it advertises.
    pub place: watch::Receiver<Arc<Place>>,
}

/// The engine's watch has ended.
#[derive(Debug, thiserror::Error)]
#[error("the engine's watch has ended")]
pub struct WatchEnded;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug)]
struct Metrics {
    instances: Gauge,
    skipped: Vec<(&'static str, Gauge)>,
    withheld: Gauge,
}

impl Metrics {
    fn new(registry: &mut Registry) -> Self {
        let skipped = Family::<Reason, Gauge>::default();
        let metrics = Self {
            instances: Gauge::default(),
            skipped: kind::ALL.map(|reason| (reason, skipped.get_or_create_owned(&Reason { reason }))).into(),
            withheld: Gauge::default(),
        };
        registry.register("wharf_offered_ports", "Ports that this host means to offer", metrics.instances.clone());
        registry.register("wharf_skipped_ports", "Ports that are not offered, by reason", skipped);
        let help = "Attributes withheld because their keys speak of secrets";
        registry.register("wharf_withheld_attributes", help, metrics.withheld.clone());
        metrics
    }

    fn show(&self, inventory: &inventory::Inventory) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.instances.set(number(inventory.offer().instances.len()));
        self.withheld.set(number(inventory.withheld()));
        for (kind, gauge) in &self.skipped {
            gauge.set(number(inventory.skipped(kind)));
        }
    }
}

/// How containers are read at a place; how its addresses have come to be known changes nothing of that.
fn naming_at(place: &Place, settings: &Settings) -> naming::Settings {
    let place = Place { unread_since: None, remembered: Vec::new(), ..place.clone() };
    naming::Settings { place, ..settings.naming.clone() }
}

type Deaths = FuturesUnordered<BoxFuture<'static, (Text, Text)>>;

impl Inventory {
    /// A worker that turns sightings into the offer.
    pub fn new(
        settings: watch::Receiver<Arc<Settings>>,
        addresses: watch::Receiver<Arc<HostAddresses>>,
        sightings: mpsc::Receiver<Sighting>,
        registry: &mut Registry,
    ) -> (Self, Outputs) {
        let first = settings.borrow().clone();
        let chosen = choose(&first.advertise, &addresses.borrow());
        let naming = naming_at(&chosen, &first);
        let inventory = inventory::Inventory::new(naming, first.services.clone());
        let (offer, offer_seen) = watch::channel(Arc::new(inventory.offer().clone()));
        let (place, place_seen) = watch::channel(Arc::new(chosen));
        let metrics = Metrics::new(registry);
        metrics.show(&inventory);
        let processes = BTreeMap::new();
        let worker = Self { settings, addresses, sightings, offer, place, inventory, processes, metrics };
        (worker, Outputs { offer: offer_seen, place: place_seen })
    }

    /// Works until told to stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WatchEnded> {
        let mut deaths = Deaths::new();
        let mut batch = Vec::with_capacity(BATCH);
        self.tell_place(true);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Ok(()) = self.settings.changed() => self.reconfigure(),
                Ok(()) = self.addresses.changed() => self.reconfigure(),
                count = self.sightings.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return Err(WatchEnded);
                    }
                    self.take_all(&mut batch, &mut deaths).await;
                }
                Some((id, life)) = deaths.next() => self.died(&id, &life),
            }
            self.tell();
        }
    }

    async fn take_all(&mut self, batch: &mut Vec<Sighting>, deaths: &mut Deaths) {
        let mut begun = Instant::now();
        for sighting in batch.drain(..) {
            self.take(sighting, deaths);
            if begun.elapsed() > TURN {
                self.tell();
                tokio::task::yield_now().await;
                begun = Instant::now();
            }
        }
    }

    fn take(&mut self, sighting: Sighting, deaths: &Deaths) {
        let seen = if let Sighting::Seen(facts) = &sighting { Some(facts.clone()) } else { None };
        if let Sighting::Gone(id) = &sighting {
            self.processes.remove(id);
        }
        self.inventory.apply(sighting);
        if let Some(facts) = seen {
            self.watch_process(&facts, deaths);
        }
    }

    /// Watches the process of a container that has a port without a probe.
    fn watch_process(&mut self, facts: &Container, deaths: &Deaths) {
        let known = self.processes.get(&facts.id).is_some_and(|life| *life == facts.started_at);
        if known || !self.inventory.has_unprobed(&facts.id) {
            return;
        }
        let Some(process) = facts.pid.and_then(|pid| host::watch_process(pid, &facts.id)) else { return };
        let (id, life) = (facts.id.clone(), facts.started_at.clone());
        self.processes.insert(id.clone(), life.clone());
        deaths.push(Box::pin(async move {
            process.ended().await;
            (id, life)
        }));
    }

    /// A process has ended. The engine tells it too, when it is there; this is for when it is not.
    fn died(&mut self, id: &Text, life: &Text) {
        if self.processes.get(id).is_none_or(|watched| watched != life) {
            return;
        }
        self.processes.remove(id);
        let same_life = self.inventory.container(id).is_some_and(|facts| facts.started_at == *life);
        if same_life {
            tracing::info!(container = ?id.get(..12), "process has ended");
            self.inventory.apply(Sighting::Gone(id.clone()));
        }
    }

    fn reconfigure(&mut self) {
        let settings = self.settings.borrow_and_update().clone();
        let place = choose(&settings.advertise, &self.addresses.borrow_and_update());
        self.inventory.set_services(settings.services.clone());
        self.inventory.set_settings(naming_at(&place, &settings));
        let advertised = |place: &Place| place.addresses().collect::<Vec<_>>();
        let changed = advertised(&self.place.borrow()) != advertised(&place);
        self.place.send_replace(Arc::new(place));
        self.tell_place(changed);
    }

    fn tell_place(&self, changed: bool) {
        if !changed {
            return;
        }
        let place = self.place.borrow();
        let addresses: Vec<String> = place.addresses().map(|address| address.to_string()).collect();
        if addresses.is_empty() {
            let there = self.addresses.borrow();
            let there: Vec<String> =
                there.interfaces.iter().map(|(name, address)| format!("{name} {address}")).take(MAX_TOLD).collect();
            tracing::warn!(
                "no address to advertise yet, waiting for one; --advertise is {:?}, and here are {}",
                self.settings.borrow().advertise,
                there.join(", ")
            );
        } else {
            tracing::info!(?addresses, "advertising");
        }
        for address in place.public_by_auto() {
            tracing::warn!(%address, "a public address is advertised because the default route uses it");
        }
    }

    /// Tells the offer when there is anything new in it.
    fn tell(&self) {
        self.metrics.show(&self.inventory);
        let now = self.inventory.offer();
        self.offer.send_if_modified(|told| {
            let same = told.instances.ptr_eq(&now.instances)
                && told.skipped.ptr_eq(&now.skipped)
                && told.withheld.ptr_eq(&now.withheld);
            let changed = !same || (told.listed, told.engine) != (now.listed, now.engine);
            if changed {
                slips(told, now);
                *told = Arc::new(now.clone());
            }
            changed
        });
    }
}

/// One line for each container that has just been found to say something that nobody can have meant.
fn slips(before: &Offer, now: &Offer) {
    for change in before.skipped.diff(&now.skipped) {
        let (DiffItem::Add(_, skipped) | DiffItem::Update { new: (_, skipped), .. }) = change else { continue };
        let mut slips = skipped.iter().filter(|skipped| kind::SLIPS.contains(&skipped.kind));
        if let Some(slip) = slips.next() {
            let more = match slips.count() {
                0 => String::new(),
                more => format!(" (and {more} more like it)"),
            };
            let name = slip.container.trim_start_matches('/');
            tracing::warn!("{name} {} is not offered: {}{more}", slip.port, slip.reason);
        }
    }
    for change in before.instances.diff(&now.instances) {
        let DiffItem::Add(_, instance) = change else { continue };
        if let Some(warning) = &instance.check.warning {
            tracing::warn!("{}: {warning}", instance.id);
        }
    }
}
