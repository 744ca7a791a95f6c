//! Redis Sentinel's protocol: to its clients each agent is a Sentinel.
//!
//! | task | from | to |
//! |---|---|---|
//! | [`desk::Desk::run`] | snapshots, node records | the masters (latest wins), events (a ring: who is too slow is closed) |
//! | `Clients::serve` | the socket | one [`conversation`] per client |
//!
//! No command waits for the store or for a server. One that asks for a master while another one is being made master
//! waits for that, 2 s at most.

mod conversation;
mod desk;
mod metrics;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use crate::catalog::facade::api::Nodes;
use crate::catalog::facade::sentinel::{SentinelFacts, SentinelPassword};
use crate::host::clients::{BindError, Bounds, Clients, Listener};
use crate::model::words::record::Text;
use crate::model::words::zone::Zones;
use crate::view::CatalogView;
use conversation::Surroundings;
use desk::Desk;
use metrics::SentinelMetrics;

/// Clients at a time, shared by peer: Redis' own number. They wait for events and say little.
const BOUNDS: Bounds = Bounds { clients: 10_000, drain: Duration::from_secs(1) };

/// Where and as what Sentinel's protocol is spoken.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address.
    pub listen: SocketAddr,
    /// What clients have to know.
    pub password: Option<SentinelPassword>,
    /// The agent's identity.
    pub owner: Text,
    /// The agent's version.
    pub version: Text,
    /// Further names of services, by name.
    pub aliases: BTreeMap<String, String>,
}

/// The socket, bound and not yet serving.
#[derive(Debug)]
pub struct SentinelServer {
    clients: Clients,
    desk: Desk,
    surroundings: Surroundings,
}

/// Why it is served no longer.
#[derive(Debug, thiserror::Error)]
pub enum SentinelError {
    /// One of its loops ended.
    #[error("a loop of Sentinel's protocol ended")]
    Ended(#[from] tokio::task::JoinError),
}

impl SentinelServer {
    /// Binds the socket, where there is to be one.
    pub async fn bind_all(
        settings: Option<Settings>,
        view: &CatalogView,
        zones: &Zones,
        nodes: &watch::Receiver<Arc<Nodes>>,
        registry: &mut Registry,
    ) -> Result<Option<Self>, BindError> {
        let Some(settings) = settings else { return Ok(None) };
        let listener = Listener::tcp(settings.listen).await?;
        let metrics = SentinelMetrics::register(registry);
        let port = listener.address().map_or(0, |address| address.port());
        let facts = SentinelFacts::new(&settings.owner, &settings.version, port, settings.password);
        let (desk, shown) = Desk::new(view.clone(), zones.clone(), nodes.clone(), settings.aliases, settings.owner);
        let (clients, _no_door) = Clients::new(listener, BOUNDS, metrics.clients.clone());
        let surroundings = Surroundings { shown, facts: Arc::new(facts), view: view.clone(), metrics };
        Ok(Some(Self { clients, desk, surroundings }))
    }

    /// The address bound, with the port that was chosen.
    pub fn address(&self) -> Option<SocketAddr> {
        self.clients.listener().address()
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), SentinelError> {
        let span = info_span!("sentinel", socket = %self.clients.listener());
        let (surroundings, numbers, stopping) = (self.surroundings, Arc::new(AtomicI64::new(1)), stop.clone());
        let converse = move |link, guest| {
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            conversation::serve(link, guest, number, surroundings.clone(), stopping.clone())
        };
        let mut loops = JoinSet::new();
        let desk = stop.clone().run_until_cancelled_owned(self.desk.run());
        loops.spawn(
            async move {
                let _stopped = desk.await;
            }
            .instrument(info_span!("sentinel-masters")),
        );
        loops.spawn(self.clients.serve(stop, converse).instrument(span));
        while let Some(ended) = loops.join_next().await {
            ended?;
        }
        Ok(())
    }
}
