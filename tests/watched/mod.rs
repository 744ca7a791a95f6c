//! The offering half up to the offer: the watch of an engine and the inventory, as the agent runs them, without probes
//! and registrar.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharf::docker::{Endpoint, Watch};
use wharf::model::offer::advertise::{Advertise, HostAddresses};
use wharf::model::offer::instance::{DockerStanding, Instance, Offer};
use wharf::model::offer::naming;
use wharf::offer::inventory::{Inventory, Settings};

/// How long anything may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Watched {
    pub offer: watch::Receiver<Arc<Offer>>,
    pub settings: watch::Sender<Arc<Settings>>,
    pub addresses: watch::Sender<Arc<HostAddresses>>,
    registry: Registry,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

pub fn settings() -> Settings {
    Settings { naming: naming::Settings::new("node1"), advertise: vec![Advertise::Auto], services: Vec::new() }
}

pub fn addresses() -> HostAddresses {
    HostAddresses {
        interfaces: vec![("eth0".into(), "192.0.2.10".parse().unwrap())],
        source_v4: "192.0.2.10".parse().ok(),
        ..HostAddresses::default()
    }
}

impl Watched {
    pub fn start(endpoint: Endpoint) -> Self {
        Self::with(wharf::docker::Settings::new(endpoint), settings())
    }

    pub fn with(docker: wharf::docker::Settings, settings: Settings) -> Self {
        let mut registry = Registry::default();
        let stop = CancellationToken::new();
        let (sightings, seen) = mpsc::channel(1024);
        let (settings, settings_seen) = watch::channel(Arc::new(settings));
        let (addresses, addresses_seen) = watch::channel(Arc::new(addresses()));
        let watching = Watch::new(docker, sightings, &mut registry);
        let (inventory, outputs) = Inventory::new(settings_seen, addresses_seen, seen, &mut registry);
        let (one, other) = (stop.clone(), stop.clone());
        let tasks = vec![
            tokio::spawn(async move { watching.run(one).await.unwrap() }),
            tokio::spawn(async move { inventory.run(other).await.unwrap() }),
        ];
        Self { offer: outputs.offer, settings, addresses, registry, stop, tasks }
    }

    /// The offer as it is now.
    pub fn now(&self) -> Arc<Offer> {
        self.offer.borrow().clone()
    }

    /// Waits for an offer of this kind.
    pub async fn until(&mut self, what: &str, check: impl Fn(&Offer) -> bool) -> Arc<Offer> {
        self.within(PATIENCE, what, check).await
    }

    /// Waits for an offer of this kind, no longer than this.
    pub async fn within(&mut self, patience: Duration, what: &str, check: impl Fn(&Offer) -> bool) -> Arc<Offer> {
        let came = tokio::time::timeout(patience, self.offer.wait_for(|offer| check(offer))).await;
        let came = came.ok().map(|offer| offer.unwrap().clone());
        came.unwrap_or_else(|| panic!("never came true: {what}; there is {:#?}", self.now()))
    }

    pub async fn in_step(&mut self) -> Arc<Offer> {
        self.until("the engine has been listed", |offer| offer.listed && offer.engine).await
    }

    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The names of containers that have an instance which may be published.
pub fn names(offer: &Offer) -> BTreeSet<String> {
    instances(offer).map(|instance| instance.container_name.to_string()).collect()
}

pub fn instances(offer: &Offer) -> impl Iterator<Item = &Arc<Instance>> {
    let serves =
        |instance: &&Arc<Instance>| matches!(instance.docker, DockerStanding::Running | DockerStanding::Healthy);
    offer.instances.values().filter(serves)
}

/// `host:port` of each instance.
pub fn endpoints(offer: &Offer) -> BTreeSet<String> {
    instances(offer).map(|instance| format!("{}:{}", instance.host, instance.port)).collect()
}

pub fn set<T: ToString>(items: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}
