//! etcd's v2 API, for programs that were written for it: `/v2/keys` over the store, with what clients ask beside it.
//!
//! | task | from | to |
//! |---|---|---|
//! | [`hub::Hub::run`], one for each tree that is served | a watch of the store | what happened lately (latest wins) |
//! | `Clients::serve` | the socket | one connection per client |
//!
//! A request asks the store, and is told when that does not answer. What is to be decided is decided in
//! [`crate::model::etcd_v2`].

mod access;
mod desk;
mod hub;
mod ledger;
mod look;
mod metrics;
mod router;
mod surroundings;
mod trace;
mod waiter;

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use ipnet::IpNet;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use super::http::connection;
use crate::catalog::facade::etcd_v2::Standing;
use crate::host::clients::{BindError, Bounds, Clients, Listener};
use crate::model::etcd_v2::{Places, Scope};
use crate::model::words::key::Prefix;
use crate::store::Store;
use access::Access;
pub use access::User;
use desk::Desk;
use hub::Hub;
use ledger::Ledger;
use metrics::EtcdV2Metrics;
use router::Context;
use surroundings::Surroundings;

/// Clients at a time, shared by peer: many of them only wait.
const BOUNDS: Bounds = Bounds { clients: 2_048, drain: connection::FINISH };

/// Where, what and for whom it is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address.
    pub listen: SocketAddr,
    /// What is served.
    pub scope: Scope,
    /// Who may ask; empty is everyone.
    pub allow: Vec<IpNet>,
    /// Whom one has to be.
    pub user: Option<User>,
    /// Host names, besides addresses and localhost, that requests may name.
    pub hosts: Vec<String>,
    /// The root of the tree of records, beside which v2 keeps what it needs.
    pub prefix: Prefix,
    /// This host's name.
    pub node: String,
}

/// The socket, bound and not yet serving.
#[derive(Debug)]
pub struct EtcdV2Server {
    clients: Clients,
    hubs: Vec<Hub>,
    context: Context,
}

/// Why it is served no longer.
#[derive(Debug, thiserror::Error)]
pub enum EtcdV2Error {
    /// One of its loops ended.
    #[error("a loop of etcd's v2 API ended")]
    Ended(#[from] tokio::task::JoinError),
}

impl EtcdV2Server {
    /// Binds the socket; how it stands is told to `standing`.
    pub async fn bind(
        settings: Settings,
        store: Arc<dyn Store>,
        standing: watch::Sender<Standing>,
        registry: &mut Registry,
    ) -> Result<Self, BindError> {
        let Settings { listen, scope, allow, user, hosts, prefix, node } = settings;
        let metrics = EtcdV2Metrics::register(registry);
        let listener = Listener::tcp(listen).await?;
        let ledger = Ledger::new(standing, metrics.clone());
        ledger.listens(listener.address());
        let (clients, _no_door) = Clients::new(listener, BOUNDS, metrics.clients.clone());
        let places = Arc::new(Places::new(&prefix));
        let desk = Desk::new(Arc::clone(&store), Arc::clone(&places), scope.clone());
        let hub = |root| Hub::new(Arc::clone(&store), Arc::clone(&places), root, ledger.clone());
        let (hubs, logs) = scope.roots().iter().cloned().map(hub).unzip();
        let surroundings = Surroundings::new(node, store);
        let access = Access { allow, user, hosts };
        let context = Context::new(desk, scope, access, logs, surroundings, metrics, ledger);
        Ok(Self { clients, hubs, context })
    }

    /// The address bound, with the port that was chosen.
    pub fn address(&self) -> Option<SocketAddr> {
        self.clients.listener().address()
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), EtcdV2Error> {
        let mut loops = JoinSet::new();
        for hub in self.hubs {
            let span = info_span!("etcd-v2-changes", below = %hub.root());
            loops.spawn(stop.clone().run_until_cancelled_owned(hub.run()).map(|_| ()).instrument(span));
        }
        let span = info_span!("etcd-v2", socket = %self.clients.listener());
        let (router, stopping) = (router::router(self.context, stop.clone()), stop.clone());
        let converse = move |link, guest| connection::serve(link, guest, router.clone(), stopping.clone());
        loops.spawn(self.clients.serve(stop, converse).instrument(span));
        while let Some(ended) = loops.join_next().await {
            ended?;
        }
        Ok(())
    }
}
