//! Ambassadors: local ports that always lead to the right server of a service.
//!
//! What is right is decided in `catalog::proxy`; here connections are taken, opened, moved and cut. A table's trouble
//! is its own: an address that cannot be listened on is tried again, and shown.
//!
//! | task | does | is told by |
//! |---|---|---|
//! | [`Proxies`] | keeps one [`AtWork`] a table | the settings |
//! | [`Follower`], one a table | says where connections go now | snapshots, nodes' words |
//! | [`AtWork`], one a table | lets in, cuts | its sockets, [`Follower`] |
//! | [`session::serve`], one a connection | waits for an endpoint, moves bytes | its sockets, whoever cuts it |
//!
//! Who comes while every place is taken displaces one of whoever has most; the same holds for those that wait.

mod board;
mod follower;
mod hall;
mod handed;
mod lines;
mod listen;
mod members;
mod metrics;
mod pump;
mod redis;
mod room;
mod session;
mod table;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use crate::catalog::proxy::{Balance, OnChange, Protocol, Reports, SendProxy, Wanted, told};
use crate::host::fdstore::{self, Left};
use crate::model::words::zone::Zones;
use crate::view::CatalogView;
use board::Board;
use follower::Follower;
use handed::{Estate, Legacy};
use members::Members;
use metrics::{Metrics, Mirror};
use pump::Pipes;
use room::Room;
use table::AtWork;

/// One `[[proxy]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// Its name.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) listen: Vec<SocketAddr>,
    /// Where connections go.
    pub(crate) upstream: Upstream,
    /// How long a connection may wait for an endpoint.
    pub(crate) wait: Duration,
    /// Which of several endpoints one takes.
    pub(crate) balance: Balance,
    /// Who may connect.
    pub(crate) allow: Vec<IpNet>,
    /// Connections on which nothing has moved for so long are closed.
    pub(crate) idle: Duration,
    /// What is spoken.
    pub(crate) protocol: Protocol,
    /// What is sent ahead of a connection's bytes.
    pub(crate) send_proxy: SendProxy,
    /// Connections at a time.
    pub(crate) max_connections: usize,
    /// What becomes of connections whose endpoint is not right any more.
    pub(crate) on_change: OnChange,
    /// How long connections may go on when the table ends.
    pub(crate) drain: Duration,
}

/// Where the connections of a table go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// To these addresses, whatever is found.
    Fixed(Vec<SocketAddr>),
    /// To members of etcd, those that are well before the others; and whether they speak TLS.
    Members(Vec<SocketAddr>, bool),
    /// To endpoints of a service.
    Service(Wanted),
}

/// What ambassadors go by.
#[derive(Clone, Debug)]
pub(crate) struct Sights {
    /// What the cluster has.
    pub(crate) view: CatalogView,
    /// Which names stand for which paths.
    pub(crate) zones: Arc<Zones>,
    /// What nodes say of their instances.
    pub(crate) reports: watch::Receiver<Arc<Reports>>,
}

/// Why they serve no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// A table's loop ended.
    #[error("the loop of an ambassador ended")]
    Ended(#[from] JoinError),
}

/// Tells how the ambassadors of this process stand.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    boards: Arc<ArcSwap<Vec<Arc<Board>>>>,
    mirror: Mirror,
}

impl Handle {
    /// Every table, as it is now.
    pub(crate) fn told(&self) -> told::Proxies {
        told::Proxies { proxies: self.boards.load().iter().map(|board| board.told()).collect() }
    }

    /// The same with all counts, for the agent of this host.
    pub(crate) fn reported(&self) -> told::Proxies {
        told::Proxies { proxies: self.boards.load().iter().map(|board| board.reported()).collect() }
    }

    /// Takes what a process apart tells into the metrics of this one.
    pub(crate) fn mirror(&self, told: &told::Proxies) {
        self.mirror.take(told);
    }
}

/// A table that is at work.
struct Running {
    table: watch::Sender<Arc<Table>>,
    board: Arc<Board>,
    stop: CancellationToken,
}

/// All ambassadors of a process.
pub(crate) struct Proxies {
    tables: watch::Receiver<Arc<Vec<Table>>>,
    sights: Sights,
    metrics: Metrics,
    pipes: Pipes,
    listeners: watch::Sender<Arc<Vec<SocketAddr>>>,
    running: HashMap<String, Running>,
    tasks: JoinSet<(String, Legacy)>,
    /// Cancelled when all is left to the next process.
    leaving: CancellationToken,
    estate: Estate,
    handle: Handle,
}

impl Proxies {
    /// Those of the tables, with their sockets bound as far as they can be, and what tells how they stand. They go on
    /// with what the process before has left.
    pub(crate) fn start(
        tables: watch::Receiver<Arc<Vec<Table>>>,
        sights: Sights,
        left: Option<Left>,
        registry: &mut Registry,
    ) -> (Self, Handle) {
        let metrics = Metrics::register(registry);
        let handle = Handle { boards: Arc::default(), mirror: Mirror::new(metrics.clone()) };
        let (listeners, _) = watch::channel(Arc::default());
        let (running, tasks) = (HashMap::new(), JoinSet::new());
        let mut proxies = Self {
            tables,
            sights,
            metrics,
            pipes: Pipes::default(),
            listeners,
            running,
            tasks,
            leaving: CancellationToken::new(),
            estate: Estate::of(left),
            handle: handle.clone(),
        };
        proxies.adopt();
        proxies.estate = Estate::default(); // what no table has asked for is over
        (proxies, handle)
    }

    /// Serves until `stop`. Connections that are there then are left to the next process where a service manager keeps
    /// them; else they have the time that their table gives them.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), ProxyError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = self.tables.changed() => self.adopt(),
                Some(ended) = self.tasks.join_next() => drop(ended?),
            }
        }
        if fdstore::is_offered() {
            return self.leave().await;
        }
        for running in self.running.values() {
            running.stop.cancel();
        }
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }

    async fn leave(mut self) -> Result<(), ProxyError> {
        self.leaving.cancel();
        let mut legacies = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            legacies.push(ended?);
        }
        match handed::leave(legacies).await {
            Ok(connections) => tracing::info!(connections, "connections are left to the next process"),
            Err(error) => tracing::error!(%error, "connections cannot be left to the next process, they are reset"),
        }
        Ok(())
    }

    /// Begins tables that are new, tells others of their settings, and ends those that are gone.
    fn adopt(&mut self) {
        let tables = Arc::clone(&self.tables.borrow_and_update());
        self.listeners.send_replace(Arc::new(tables.iter().flat_map(|table| table.listen.clone()).collect()));
        self.running.retain(|name, running| {
            let is_wanted = tables.iter().any(|table| table.name == *name);
            if !is_wanted {
                running.stop.cancel();
            }
            is_wanted
        });
        for table in tables.iter() {
            match self.running.get(&table.name) {
                Some(running) => {
                    running.table.send_if_modified(|old| {
                        let is_new = **old != *table;
                        *old = Arc::new(table.clone());
                        is_new
                    });
                }
                None => self.begin(table),
            }
        }
        let boards = tables.iter().filter_map(|table| self.running.get(&table.name));
        self.handle.boards.store(Arc::new(boards.map(|running| Arc::clone(&running.board)).collect()));
    }

    fn begin(&mut self, table: &Table) {
        let (sender, tables) = watch::channel(Arc::new(table.clone()));
        let (members, unwell) = Members::new(tables.clone());
        let (follower, aim) = Follower::new(self.sights.clone(), tables.clone(), self.listeners.subscribe(), unwell);
        let board = Board::new(&table.name, self.metrics.of(&table.name));
        let room = Room {
            table: Arc::new(table.clone()),
            aim,
            lines: Arc::default(),
            board: Arc::clone(&board),
            pipes: self.pipes.clone(),
            parking: Arc::default(),
            closing: CancellationToken::new(),
            leaving: self.leaving.clone(),
        };
        let left = self.estate.of_table(&table.name, &table.listen);
        let span = info_span!("proxy", name = table.name);
        let at_work = span.in_scope(|| AtWork::new(tables, room, left));
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let name = table.name.clone();
        let work = async move {
            let legacy = tokio::select! {
                legacy = at_work.run(ended) => legacy,
                () = follower.run() => Legacy::default(),
                () = members.run() => Legacy::default(),
            };
            (name, legacy)
        };
        self.tasks.spawn(work.instrument(span));
        self.running.insert(table.name.clone(), Running { table: sender, board, stop });
    }
}
