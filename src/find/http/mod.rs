//! HTTP: what programs and the status page are told, and the one thing they may ask to be done (drain).
//!
//! It reads snapshots that others keep and asks nobody: no request waits for the store or for Docker. Loopback by
//! default. Every connection and every request is bounded; a panic costs its request only.

mod connection;
mod difference;
mod discovery;
mod drain;
mod error;
mod events;
mod guard;
mod health;
mod hub;
mod json;
mod listen;
mod listing;
mod local;
mod metrics;
mod page;
mod query;
mod router;
mod services;
mod shape;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

use super::view::CatalogView;
use crate::model::api;
use crate::model::local::Local;
use crate::model::zone::Zones;
use hub::Hub;
use listen::Listener;

pub use drain::DrainRequest;
pub use guard::Token;
pub use health::Readiness;
pub use listen::BindError;
pub use metrics::HttpMetrics;

/// Clients at a time on one socket; further ones wait for their turn.
const MAX_CONNECTIONS: usize = 256;
/// Pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where and to whom HTTP is served.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// TCP addresses.
    pub listen: Vec<SocketAddr>,
    /// A unix socket too.
    pub socket: Option<PathBuf>,
    /// What drain asks for over TCP; without one only loopback may drain.
    pub token: Option<Token>,
    /// Host names, besides addresses and localhost, that requests may name.
    pub hosts: Vec<String>,
    /// The agent's version.
    pub version: String,
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
    /// Whether DNS and its source of answers are there.
    pub ready: watch::Receiver<Readiness>,
    /// Where drain is asked for.
    pub drain: mpsc::Sender<DrainRequest>,
    /// Every metric of the process.
    pub registry: Arc<Registry>,
    /// HTTP's own metrics, registered in it.
    pub metrics: HttpMetrics,
}

/// HTTP on its sockets, bound and not yet serving.
#[derive(Debug)]
pub struct HttpServer {
    listeners: Vec<Listener>,
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
        let mut listeners = Vec::new();
        for address in &settings.listen {
            listeners.push(Listener::tcp(*address).await?);
        }
        if let Some(path) = &settings.socket {
            listeners.push(Listener::unix(path)?);
        }
        Ok(Self { listeners, settings, sources })
    }

    /// The TCP addresses bound, with the ports that were chosen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(Listener::address).collect()
    }

    /// Serves until `stop`; answers under way are finished, within bounds.
    pub async fn run(self, stop: CancellationToken) -> Result<(), HttpError> {
        let metrics = self.sources.metrics.clone();
        let (hub, followed) = Hub::new(self.sources.catalog.clone(), Arc::clone(&self.sources.zones));
        let router = router::router(self.settings, self.sources, followed, stop.clone());
        let mut loops = JoinSet::new();
        loops.spawn(
            stop.clone().run_until_cancelled_owned(hub.run()).map(|_| ()).instrument(info_span!("http-changes")),
        );
        for listener in self.listeners {
            let span = info_span!("http", socket = %listener);
            let clients = Clients { listener, router: router.clone(), metrics: metrics.clone() };
            loops.spawn(clients.accept(stop.clone()).instrument(span));
        }
        while let Some(ended) = loops.join_next().await {
            ended?;
        }
        Ok(())
    }
}

/// The clients of one socket.
struct Clients {
    listener: Listener,
    router: axum::Router,
    metrics: HttpMetrics,
}

impl Clients {
    async fn accept(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let place = Arc::clone(&places).acquire_owned();
            let next = async {
                let place = place.await.expect("the semaphore is never closed");
                (self.listener.accept().await, place)
            };
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                (accepted, place) = next => match accepted {
                    Ok(client) => {
                        let served = connection::serve(client, self.router.clone(), stop.clone());
                        let open = Counted::new(self.metrics.connections.clone());
                        connections.spawn(async move {
                            served.await;
                            drop((open, place));
                        }.in_current_span());
                    }
                    Err(error) => {
                        warn!(%error, "an HTTP client could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        while connections.join_next().await.is_some() {}
    }
}

/// Something that is counted as long as it lives, however it ends.
#[derive(Debug)]
struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
