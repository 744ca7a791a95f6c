//! The roll: writes that this host is here, and of others that they are missed.
//!
//! Each agent writes its own record once a start and at its orderly end. What concerns others every agent may write, so
//! each waits a moment of its own first, and a write that comes second is refused by the store.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::catalog::facade::api::Nodes;
use crate::model::words::known::{self, Deed, Known, KnownHost};
use crate::model::words::node::NodeRecord;
use crate::model::words::record::Text;
use crate::store::{Commit, Condition, Store, StoreError, Write};

/// How long the agents of a cluster spread what only one of them has to write.
const SPREAD: Duration = Duration::from_secs(2);
/// Pause before the store is asked again that did not take a write.
const AGAIN: Duration = Duration::from_secs(5);
/// How often it is looked whether a record's time is over.
const SWEEP: Duration = Duration::from_secs(600);
/// How long the last write may take: the agent is stopping.
const LAST: Duration = Duration::from_millis(500);
/// Hosts whose last word is remembered.
const MOST: usize = 10_000;
/// Hosts that the log names at a time; `wharf nodes` names all.
const MOST_TOLD: usize = 32;
/// Requests that may wait.
const WAITING: usize = 8;

/// Asks for a lost host to be forgotten.
#[derive(Debug)]
pub struct Forget {
    /// Its name.
    pub node: String,
    /// Told how many records of it went, or why none.
    pub reply: oneshot::Sender<Result<usize, String>>,
}

/// Asks the worker, and gives its answer.
pub async fn asked(to: mpsc::Sender<Forget>, node: String) -> Result<usize, String> {
    let (reply, answer) = oneshot::channel();
    let stopping = || "the agent is stopping".to_owned();
    to.send(Forget { node, reply }).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?
}

/// What the worker goes by.
#[derive(Debug)]
pub struct Inputs {
    /// The nodes that live.
    pub nodes: watch::Receiver<Arc<Nodes>>,
    /// The hosts that are known.
    pub known: watch::Receiver<Arc<Vec<Known>>>,
}

/// The worker.
#[derive(Debug)]
pub struct Roll {
    store: Arc<dyn Store>,
    key: String,
    own: KnownHost,
    inputs: Inputs,
    requests: mpsc::Receiver<Forget>,
    last: BTreeMap<Text, NodeRecord>,
    missed: BTreeSet<Text>,
    hosts: [Gauge; 3],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

impl Roll {
    /// A worker that keeps `own` under `key`, and where requests are handed in.
    pub fn new(
        store: Arc<dyn Store>,
        key: String,
        own: KnownHost,
        inputs: Inputs,
        registry: &mut Registry,
    ) -> (Self, mpsc::Sender<Forget>) {
        let (hand_in, requests) = mpsc::channel(WAITING);
        let (last, missed) = (BTreeMap::new(), BTreeSet::new());
        let family = Family::<StateLabel, Gauge>::default();
        let hosts = ["living", "lost", "stopped"].map(|state| family.get_or_create_owned(&StateLabel { state }));
        registry.register("wharf_nodes", "Hosts of the cluster by what is known of their agents", family);
        (Self { store, key, own, inputs, requests, last, missed, hosts }, hand_in)
    }

    /// Works until told to stop, and then writes that this host stopped.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        stop.run_until_cancelled(self.work()).await;
        self.own.stopped = Some(known::time(SystemTime::now()));
        let known = self.inputs.known.borrow().clone();
        if let Some(deed) = known::own(&self.own, &self.key, &known) {
            // Whatever comes of it, the agent ends.
            let _ = timeout(LAST, self.commit(&deed)).await;
        }
        Ok(())
    }

    async fn work(&mut self) {
        loop {
            let due = self.turn().await;
            tokio::select! {
                Ok(()) = self.inputs.nodes.changed() => {}
                Ok(()) = self.inputs.known.changed() => {}
                Some(request) = self.requests.recv() => self.forget(request).await,
                () = sleep_until(due) => {}
            }
        }
    }

    /// Writes what is due; gives when to look again.
    async fn turn(&mut self) -> Instant {
        let nodes = self.inputs.nodes.borrow_and_update().clone();
        let known = self.inputs.known.borrow_and_update().clone();
        let later = Instant::now() + AGAIN;
        // What is known is not known for sure while the store is away.
        if nodes.stale {
            return later;
        }
        let lives = nodes.nodes.iter().any(|node| node.owner == self.own.owner);
        // Known before it is seen it would be missed.
        if lives
            && let Some(deed) = known::own(&self.own, &self.key, &known)
            && let Err(error) = self.commit(&deed).await
        {
            debug!(%error, "this host's record of itself cannot be written");
            return later;
        }
        self.tell(&nodes);
        let lost: Vec<Text> = nodes.lost.iter().map(|lost| lost.owner.clone()).collect();
        let chores = known::chores(&known, &nodes.nodes, &lost, &self.last, SystemTime::now());
        self.remember(&nodes.nodes);
        if chores.is_empty() {
            return Instant::now() + SWEEP;
        }
        let spread = SPREAD.mul_f64(rand::random());
        tokio::select! {
            // Another agent was first, or the host is back.
            Ok(()) = self.inputs.known.changed() => return Instant::now(),
            Ok(()) = self.inputs.nodes.changed() => return Instant::now(),
            () = tokio::time::sleep(spread) => {}
        }
        for deed in &chores {
            if let Err(error) = self.commit(deed).await {
                debug!(%error, key = ?deed.key, "what is known of a host cannot be written");
                break;
            }
        }
        later
    }

    /// Remembers the last word of each node: it tells what was there, once it is gone.
    fn remember(&mut self, nodes: &[NodeRecord]) {
        for node in nodes {
            if self.last.len() < MOST || self.last.contains_key(&node.owner) {
                self.last.insert(node.owner.clone(), node.clone());
            }
        }
        let known = self.inputs.known.borrow();
        let known = known.iter().map(|one| &one.host.owner);
        let wanted: HashSet<&Text> = nodes.iter().map(|node| &node.owner).chain(known).collect();
        self.last.retain(|owner, _| wanted.contains(owner));
    }

    /// One line for each host that is missed from now on, and for each that is back.
    fn tell(&mut self, nodes: &Nodes) {
        for (gauge, count) in self.hosts.iter().zip([nodes.nodes.len(), nodes.lost.len(), nodes.stopped.len()]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let now: BTreeSet<Text> = nodes.lost.iter().map(|lost| lost.node.clone()).collect();
        for one in nodes.lost.iter().filter(|one| !self.missed.contains(&one.node)).take(MOST_TOLD) {
            let offered = self.last.get(&one.owner).map_or(&one.services, |node| &node.services);
            let offered: Vec<&str> = offered.iter().map(|service| &**service).collect();
            let offered = if offered.is_empty() { "nothing that is known".to_owned() } else { offered.join(", ") };
            warn!(
                "{node} is lost: its agent has gone without a word; it offered {offered}; `wharf nodes --forget {node}` \
                 once it is gone for good",
                node = one.node
            );
        }
        for node in self.missed.difference(&now).take(MOST_TOLD) {
            info!("{node} is no longer missed");
        }
        self.missed = now;
    }

    async fn commit(&self, deed: &Deed) -> Result<Commit, StoreError> {
        let key = deed.key.to_string();
        let condition = match deed.seen {
            Some(revision) => Condition::Unchanged(key.clone(), revision),
            None => Condition::Absent(key.clone()),
        };
        let write = match &deed.host {
            Some(host) => Write::Put { key, value: host.encode().into(), lease: 0 },
            None => Write::Delete(key),
        };
        self.store.commit(&[condition], &[write]).await
    }

    async fn forget(&mut self, request: Forget) {
        let answer = self.forgotten(&request.node).await;
        // Who asked may have gone.
        let _ = request.reply.send(answer);
    }

    async fn forgotten(&self, node: &str) -> Result<usize, String> {
        let nodes = self.inputs.nodes.borrow().clone();
        if nodes.stale {
            return Err("the store is away".to_owned());
        }
        if nodes.nodes.iter().any(|living| *living.node == *node) {
            return Err(format!("{node} lives"));
        }
        let known = self.inputs.known.borrow().clone();
        let mut gone = 0;
        for one in known.iter().filter(|one| *one.host.node == *node) {
            let deed = Deed { key: one.key.clone(), seen: Some(one.revision), host: None };
            match self.commit(&deed).await {
                Ok(Commit::Done(_)) => gone += 1,
                Ok(Commit::Refused(_)) => return Err(format!("{node} has just been seen again")),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(gone)
    }
}
