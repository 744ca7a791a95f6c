//! ElastiCache's auto-discovery: each agent with an `[[autodiscovery]]` table tells clients of memcached who is there.
//!
//! | task | from | to |
//! |---|---|---|
//! | [`desk::Desk::run`] | snapshots, node records, the lists of the store | the list that is told (latest wins), the store |
//! | `Clients::serve` | the socket | one [`conversation`] per client |
//!
//! No question waits: it is told the last list that was seen, or that there is none yet.

mod certificate;
mod conversation;
mod desk;
mod metrics;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use crate::catalog::facade::api::Nodes;
use crate::catalog::facade::autodiscovery::MemberLists;
use crate::host::clients::{BindError, Bounds, Clients, Listener};
use crate::model::words::key::Prefix;
use crate::model::words::zone::Zones;
use crate::state::members::KeptMembers;
use crate::store::Store;
use crate::view::CatalogView;
use certificate::Certificate;
pub use certificate::CertificateError;
use conversation::Surroundings;
use desk::Desk;
use metrics::AutodiscoveryMetrics;

/// Clients at a time on one endpoint, shared by peer. They ask once a minute, each in a connection of its own.
const BOUNDS: Bounds = Bounds { clients: 2_048, drain: Duration::from_secs(1) };

/// One endpoint.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The service whose members are told.
    pub service: String,
    /// Where.
    pub listen: SocketAddr,
    /// How long a member may be away.
    pub leave_after: Duration,
    /// PEM of the certificate and of its key, where TLS is spoken.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Where the last list is kept.
    pub kept: Option<KeptMembers>,
}

/// What the endpoints go by.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Where the lists are kept.
    pub store: Arc<dyn Store>,
    /// The root of the tree.
    pub prefix: Prefix,
    /// What the cluster has.
    pub view: CatalogView,
    /// Which names stand for which prefixes.
    pub zones: Arc<Zones>,
    /// What every agent tells of its host.
    pub nodes: watch::Receiver<Arc<Nodes>>,
    /// The lists that the store has.
    pub lists: watch::Receiver<Arc<MemberLists>>,
}

/// Every endpoint of this agent, bound and not yet serving.
#[derive(Debug)]
pub struct AutodiscoveryServer {
    endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    service: String,
    clients: Clients,
    desk: Desk,
    certificate: Option<Arc<Certificate>>,
    surroundings: Surroundings,
}

/// Why it cannot be served, or is no longer.
#[derive(Debug, thiserror::Error)]
pub enum AutodiscoveryError {
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate is of no use.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// One of its loops ended.
    #[error("a loop of auto-discovery ended")]
    Ended(#[from] tokio::task::JoinError),
}

impl AutodiscoveryServer {
    /// Binds each endpoint.
    pub async fn bind(
        settings: Vec<Settings>,
        inputs: &Inputs,
        registry: &mut Registry,
    ) -> Result<Self, AutodiscoveryError> {
        let mut endpoints = Vec::new();
        if !settings.is_empty() {
            let metrics = AutodiscoveryMetrics::register(registry);
            for settings in settings {
                endpoints.push(Endpoint::bind(settings, inputs.clone(), metrics.clone()).await?);
            }
        }
        Ok(Self { endpoints })
    }

    /// The addresses bound, with the ports that were chosen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.clients.listener().address()).collect()
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), AutodiscoveryError> {
        let mut loops = JoinSet::new();
        for endpoint in self.endpoints {
            endpoint.start(&mut loops, &stop);
        }
        while let Some(ended) = loops.join_next().await {
            ended?;
        }
        Ok(())
    }
}

impl Endpoint {
    async fn bind(
        settings: Settings,
        inputs: Inputs,
        metrics: AutodiscoveryMetrics,
    ) -> Result<Self, AutodiscoveryError> {
        let certificate = match settings.tls.clone() {
            Some((certificate, key)) => Some(Arc::new(Certificate::read(certificate, key)?)),
            None => None,
        };
        let listener = Listener::tcp(settings.listen).await?;
        let (clients, _no_door) = Clients::new(listener, BOUNDS, metrics.clients.clone());
        let (service, view) = (settings.service.clone(), inputs.view.clone());
        let (desk, told) = Desk::new(settings, inputs, metrics.clone());
        let surroundings = Surroundings { told, metrics, view, certificate: certificate.clone() };
        Ok(Self { service, clients, desk, certificate, surroundings })
    }

    fn start(self, loops: &mut JoinSet<()>, stop: &CancellationToken) {
        let service = self.service.as_str();
        let span = info_span!("autodiscovery", service, socket = %self.clients.listener());
        let (surroundings, stopping) = (self.surroundings, stop.clone());
        let converse = move |link, guest| conversation::serve(link, guest, surroundings.clone(), stopping.clone());
        let (desk, stopped) = (self.desk, stop.clone());
        let members = async move {
            let _stopped = stopped.run_until_cancelled(desk.run()).await;
        };
        loops.spawn(members.instrument(info_span!("autodiscovery-members", service)));
        if let Some(certificate) = self.certificate {
            let stopped = stop.clone();
            let rotation = async move {
                let _stopped = stopped.run_until_cancelled(certificate.follow()).await;
            };
            loops.spawn(rotation.instrument(info_span!("autodiscovery-certificate", service)));
        }
        loops.spawn(self.clients.serve(stop.clone(), converse).instrument(span));
    }
}
