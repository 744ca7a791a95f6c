//! ElastiCache's auto-discovery: each agent with an `[[autodiscovery]]` table tells clients of memcached who is there.
//!
//! | task | from | to |
//! |---|---|---|
//! | [`AutodiscoveryServer::run`] | the settings | one pair of the following for each table |
//! | [`desk::Desk::run`] | snapshots, node records, the lists of the store | the list that is told (latest wins), the store |
//! | [`table::Table::run`] | the socket | one [`conversation`] per client |
//!
//! No question waits: it is told the last list that was seen, or that there is none yet. A table's trouble is its own:
//! an address that cannot be listened on is tried again, and shown.

mod board;
mod certificate;
mod conversation;
mod desk;
mod metrics;
mod table;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use crate::catalog::facade::api::Nodes;
use crate::catalog::facade::autodiscovery::{MemberLists, told};
use crate::host::clients::Bounds;
use crate::model::words::key::Prefix;
use crate::model::words::zone::Zones;
use crate::state::members::KeptMembers;
use crate::store::Store;
use crate::view::CatalogView;
use board::{Board, Notes};
use conversation::Surroundings;
use desk::Desk;
use metrics::{AutodiscoveryMetrics, OfTable};
use table::Table;

/// Clients at a time on one endpoint, shared by peer. They ask once a minute, each in a connection of its own.
const BOUNDS: Bounds = Bounds { clients: 2_048, drain: Duration::from_secs(1) };

/// One table.
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

/// Tells how the tables of this agent stand.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<ArcSwap<Vec<Arc<Board>>>>);

impl Handle {
    /// Every table, as it is now.
    pub fn told(&self) -> told::Autodiscoveries {
        told::Autodiscoveries { autodiscoveries: self.0.load().iter().map(|board| board.told()).collect() }
    }

    /// The addresses that are listened on, with the ports that were chosen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.load().iter().filter_map(|board| board.address()).collect()
    }
}

/// Why it is served no longer.
#[derive(Debug, thiserror::Error)]
pub enum AutodiscoveryError {
    /// One of its loops ended.
    #[error("a loop of auto-discovery ended")]
    Ended(#[from] JoinError),
}

/// A table that is at work.
#[derive(Debug)]
struct Running {
    settings: watch::Sender<Arc<Settings>>,
    board: Arc<Board>,
    metrics: OfTable,
    stop: CancellationToken,
}

/// Every table of this agent.
#[derive(Debug)]
pub struct AutodiscoveryServer {
    tables: watch::Receiver<Arc<Vec<Settings>>>,
    inputs: Inputs,
    metrics: AutodiscoveryMetrics,
    running: HashMap<String, Running>,
    tasks: JoinSet<()>,
    handle: Handle,
}

impl AutodiscoveryServer {
    /// Those of the tables, with their sockets bound as far as they can be, and what tells how they stand.
    pub async fn start(
        tables: watch::Receiver<Arc<Vec<Settings>>>,
        inputs: Inputs,
        registry: &mut Registry,
    ) -> (Self, Handle) {
        let (handle, metrics) = (Handle::default(), AutodiscoveryMetrics::register(registry));
        let (running, tasks) = (HashMap::new(), JoinSet::new());
        let mut server = Self { tables, inputs, metrics, running, tasks, handle: handle.clone() };
        server.adopt().await;
        (server, handle)
    }

    /// Serves until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), AutodiscoveryError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = self.tables.changed() => self.adopt().await,
                Some(ended) = self.tasks.join_next() => ended?,
            }
        }
        for running in self.running.values() {
            running.stop.cancel();
        }
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// Ends tables that are gone, tells others of their settings, and begins those that are new. Clients of a table
    /// whose address and certificate stay keep their connections.
    async fn adopt(&mut self) {
        let tables = Arc::clone(&self.tables.borrow_and_update());
        self.running.retain(|service, running| {
            let is_wanted = tables.iter().any(|table| table.service == *service);
            if !is_wanted {
                running.stop.cancel();
                running.metrics.forget();
            }
            is_wanted
        });
        for table in tables.iter() {
            match self.running.get(&table.service) {
                Some(running) => {
                    running.settings.send_replace(Arc::new(table.clone()));
                }
                None => self.begin(table.clone()).await,
            }
        }
        let boards = tables.iter().filter_map(|table| self.running.get(&table.service));
        self.handle.0.store(Arc::new(boards.map(|running| Arc::clone(&running.board)).collect()));
    }

    async fn begin(&mut self, table: Settings) {
        let (service, metrics, stop) =
            (table.service.clone(), self.metrics.of(&table.service), CancellationToken::new());
        let (settings, seen) = watch::channel(Arc::new(table));
        let notes = Notes::default();
        let (desk, told) = Desk::new(seen.clone(), self.inputs.clone(), metrics.clone(), notes.clone());
        let board = Board::new(seen.clone(), told.clone(), metrics.clone(), &notes);
        let around = Surroundings { told, metrics: metrics.clone(), view: self.inputs.view.clone() };
        let socket = Table::new(seen, around, metrics.clients(), notes).await;
        let stopped = stop.clone();
        let members = async move {
            let _stopped = stopped.run_until_cancelled(desk.run()).await;
        };
        self.tasks.spawn(members.instrument(info_span!("autodiscovery-members", service)));
        self.tasks.spawn(socket.run(stop.clone()).instrument(info_span!("autodiscovery", service)));
        self.running.insert(service, Running { settings, board: Arc::new(board), metrics, stop });
    }
}
