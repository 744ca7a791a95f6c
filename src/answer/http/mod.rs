//! HTTP: what programs and the status page are told, and what they may ask to be done (drain, topologies).
//!
//! It reads snapshots that others keep and asks nobody: no request waits for the store or for Docker. Loopback by
//! default. Every connection and every request is bounded; a panic costs its request only.

mod autodiscovery;
pub(in crate::answer) mod connection;
mod difference;
mod discovery;
mod drain;
pub(in crate::answer) mod error;
mod etcd_v2;
mod events;
mod exhibitor;
mod forget;
pub(in crate::answer) mod guard;
mod health;
mod hub;
pub(in crate::answer) mod json;
mod listing;
mod local;
mod locks;
mod metrics;
mod ordinals;
mod page;
mod pieces;
mod plain_metrics;
mod proxies;
mod query;
mod renders;
mod router;
mod services;
mod shape;
pub(in crate::answer) mod tickets;
mod topology;
mod work;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use futures_util::FutureExt;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use crate::catalog::facade::api::{self, Locks};
use crate::catalog::facade::etcd_v2::Standing;
use crate::host::clients::{Bounds, Clients, Door, Listener};
use crate::model::publish::local::Local;
use crate::model::steer::ordinal::told::Standings;
use crate::model::words::site::Standpoint;
use crate::model::words::zone::Zones;
use crate::view::CatalogView;
use hub::Hub;
use router::Routers;
use topology::Seed;

pub use crate::host::clients::BindError;
pub use autodiscovery::AutodiscoverySource;
pub use drain::{DrainRequest, NotDrained};
pub use exhibitor::Exhibitor;
pub use forget::ForgetSource;
pub use guard::Token;
pub use health::Readiness;
pub use metrics::HttpMetrics;
pub use ordinals::{OrdinalAsk, OrdinalDone, OrdinalSource};
pub use proxies::ProxySource;
pub use renders::RenderSource;
pub use topology::{TopologyAsk, TopologyChange};

/// Clients at a time on one socket, shared by peer.
const BOUNDS: Bounds = Bounds { clients: 256, drain: connection::FINISH };

/// Where and to whom HTTP is served.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// TCP addresses.
    pub listen: Vec<SocketAddr>,
    /// A unix socket too.
    pub socket: Option<PathBuf>,
    /// What drain and topologies ask for over TCP; without one only loopback may.
    pub token: Option<Token>,
    /// Host names, besides addresses and localhost, that requests may name.
    pub hosts: Vec<String>,
    /// The agent's version.
    pub version: String,
    /// Where this host is.
    pub standpoint: Standpoint,
    /// From one probe's start to the next, where a check does not say.
    pub probe_interval: Duration,
    /// Where the two endpoints of the programs before are served, and for which service.
    pub seeds: Vec<(SocketAddr, String)>,
    /// Where Exhibitor's API is served.
    pub exhibitor: Option<Exhibitor>,
}

/// What answers are made from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What the cluster has.
    pub catalog: CatalogView,
    /// Which names stand for which prefixes.
    pub zones: Arc<Zones>,
    /// What this host offers.
    pub local: watch::Receiver<Arc<Local>>,
    /// What every agent tells of its host.
    pub nodes: watch::Receiver<Arc<api::Nodes>>,
    /// Whom to ask to forget a lost one.
    pub forget: ForgetSource,
    /// How this host stands with its numbers.
    pub ordinals: watch::Receiver<Arc<Standings>>,
    /// How etcd's v2 API stands on this host.
    pub etcd_v2: watch::Receiver<Standing>,
    /// Whom to ask to claim or free one.
    pub ordinal: OrdinalSource,
    /// The locks of the cluster.
    pub locks: watch::Receiver<Arc<Locks>>,
    /// Whether DNS and its source of answers are there.
    pub ready: watch::Receiver<Readiness>,
    /// Where drain is asked for.
    pub drain: mpsc::Sender<DrainRequest>,
    /// Where topologies are asked for.
    pub topology: mpsc::Sender<TopologyAsk>,
    /// Who tells how ambassadors stand.
    pub proxies: ProxySource,
    /// Who tells how auto-discovery stands.
    pub autodiscovery: AutodiscoverySource,
    /// Who tells how files that follow the cluster stand.
    pub renders: RenderSource,
    /// Every metric of the process.
    pub registry: Arc<Registry>,
    /// HTTP's own metrics, registered in it.
    pub metrics: HttpMetrics,
}

/// HTTP on its sockets, bound and not yet serving.
#[derive(Debug)]
pub struct HttpServer {
    sockets: Vec<(Clients, Door)>,
    seeds: Vec<(Clients, Seed)>,
    exhibitor: Option<Clients>,
    settings: Settings,
    sources: Sources,
}

/// Why HTTP is served no longer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// A socket's loop ended.
    #[error("the loop that accepts HTTP clients ended")]
    Ended(#[from] tokio::task::JoinError),
}

impl HttpServer {
    /// Binds every socket.
    pub async fn bind(settings: Settings, sources: Sources) -> Result<Self, BindError> {
        let mut sockets = Vec::new();
        for address in &settings.listen {
            sockets.push(Listener::tcp(*address).await?);
        }
        if let Some(path) = &settings.socket {
            sockets.push(Listener::unix(path)?);
        }
        let counts = &sources.metrics.clients;
        let mut seeds = Vec::new();
        for (address, service) in &settings.seeds {
            let (clients, _) = Clients::new(Listener::tcp(*address).await?, BOUNDS, counts.clone());
            seeds.push((clients, Seed(service.as_str().into())));
        }
        let exhibitor = match &settings.exhibitor {
            Some(exhibitor) => Some(Clients::new(Listener::tcp(exhibitor.listen).await?, BOUNDS, counts.clone()).0),
            None => None,
        };
        let sockets = sockets.into_iter().map(|socket| Clients::new(socket, BOUNDS, counts.clone())).collect();
        Ok(Self { sockets, seeds, exhibitor, settings, sources })
    }

    /// The TCP addresses bound, with the ports that were chosen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|(clients, _)| clients.listener().address()).collect()
    }

    /// The addresses bound for `PUT /master` and `PUT /dns`.
    pub fn seed_addresses(&self) -> Vec<SocketAddr> {
        self.seeds.iter().filter_map(|(clients, _)| clients.listener().address()).collect()
    }

    /// The address bound for Exhibitor's API.
    pub fn exhibitor_address(&self) -> Option<SocketAddr> {
        self.exhibitor.as_ref().and_then(|clients| clients.listener().address())
    }

    /// A way in for this process itself, past every crowd: through the loop that serves the first socket.
    pub fn door(&self) -> Option<Door> {
        self.sockets.first().map(|(_, door)| door.clone())
    }

    /// Serves until `stop`; answers under way are finished, within bounds.
    pub async fn run(self, stop: CancellationToken) -> Result<(), HttpError> {
        let (hub, followed) = Hub::new(self.sources.catalog.clone(), Arc::clone(&self.sources.zones));
        let Routers { main: router, seeds, exhibitor } =
            router::routers(self.settings, self.sources, followed, stop.clone());
        let mut loops = JoinSet::new();
        loops.spawn(
            stop.clone().run_until_cancelled_owned(hub.run()).map(|_| ()).instrument(info_span!("http-changes")),
        );
        for (clients, _door) in self.sockets {
            let span = info_span!("http", socket = %clients.listener());
            let (router, stopping) = (router.clone(), stop.clone());
            let converse = move |link, guest| connection::serve(link, guest, router.clone(), stopping.clone());
            loops.spawn(clients.serve(stop.clone(), converse).instrument(span));
        }
        for (clients, seed) in self.seeds {
            let span = info_span!("seed-http", socket = %clients.listener());
            let (router, stopping) = (seeds.clone().layer(Extension(seed)), stop.clone());
            let converse = move |link, guest| connection::serve(link, guest, router.clone(), stopping.clone());
            loops.spawn(clients.serve(stop.clone(), converse).instrument(span));
        }
        if let Some(clients) = self.exhibitor {
            let span = info_span!("exhibitor", socket = %clients.listener());
            let stopping = stop.clone();
            let converse = move |link, guest| connection::serve(link, guest, exhibitor.clone(), stopping.clone());
            loops.spawn(clients.serve(stop.clone(), converse).instrument(span));
        }
        while let Some(ended) = loops.join_next().await {
            ended?;
        }
        Ok(())
    }
}
