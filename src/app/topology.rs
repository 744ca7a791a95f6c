//! Takes what HTTP asks about topologies to the desks that steer, and what they know back.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry as Metrics;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::build::Ground;
use crate::answer::http::{TopologyAsk, TopologyChange};
use crate::catalog::facade::api;
use crate::catalog::index::Endpoint;
use crate::config::{Config, TopologyConfig};
use crate::model::steer::roster::{Listed, Roster};
use crate::model::steer::told::{Answer, Sights, Topology};
use crate::model::steer::topology::Desired;
use crate::state::topology::KeptTopology;
use crate::steer::{self, Agents, Ask, Desk, Handle, Outcome, Registry, Request};
use crate::supervisor::{Half, Supervisor};
use crate::view::CatalogView;

/// Requests that may wait; further ones are refused at HTTP.
const WAITING: usize = 16;
/// How long the servers may be looked at for an answer; then it tells what is known without.
const LOOK: Duration = Duration::from_secs(2);

/// A server as the catalog has it.
fn listed(endpoint: &Endpoint) -> Option<Listed> {
    Some(Listed {
        name: endpoint.key().rsplit('/').next().unwrap_or_default().to_owned(),
        node: endpoint.node().map(ToString::to_string).unwrap_or_default(),
        host: endpoint.address()?,
        port: endpoint.port(),
        role: endpoint.role(),
        agent: None,
    })
}

/// How long a drain waits for masters of this host to be given away.
const GIVING_AWAY: Duration = Duration::from_secs(3);

/// The topologies whose masters leave a host that is drained or goes down.
#[derive(Clone, Debug, Default)]
pub(super) struct Masters(Vec<Handle>);

impl Masters {
    /// Gives them away, while nothing of this host is withdrawn yet; says which stay here and why.
    pub(super) async fn give_away(&self) -> Vec<String> {
        let asked = self.0.iter().map(async |handle| {
            let (reply, outcome) = oneshot::channel();
            let ask = async {
                handle.requests.send(Request { ask: Ask::GiveAway, reply }).await.ok()?;
                outcome.await.ok()
            };
            match timeout(GIVING_AWAY, ask).await {
                Ok(Some(Outcome::Done { .. })) => None,
                Ok(Some(outcome)) => Some(format!("{} keeps its master here: {outcome}", handle.settings.service)),
                Ok(None) => Some(format!("{} keeps its master here: the agent is stopping", handle.settings.service)),
                Err(_) => {
                    Some(format!("{} may keep its master here: it took longer than 3 s", handle.settings.service))
                }
            }
        });
        let kept: Vec<String> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        for why in &kept {
            tracing::warn!(why, "a master is not given away");
        }
        kept
    }
}

/// Starts a desk for each table, and one before all of them; returns where that is asked, and whose masters a drain
/// gives away.
pub(super) fn start(
    config: &Config,
    ground: &Ground,
    view: &CatalogView,
    nodes: &watch::Receiver<Arc<api::Nodes>>,
    supervisor: &mut Supervisor,
    metrics: &mut Metrics,
) -> (mpsc::Sender<TopologyAsk>, Masters) {
    let stop = supervisor.stop_of(Half::Find);
    let (view, nodes_of, zones) = (view.clone(), nodes, ground.zones.clone());
    let nodes = nodes_of.clone();
    let registry: Registry = Arc::new(move |service| {
        let found = view.load().service(&zones, service);
        let endpoints = found.map(|service| service.endpoints).unwrap_or_default();
        Roster::of(service, endpoints.iter().filter_map(listed), &nodes.borrow().nodes)
    });
    let nodes = nodes_of.clone();
    let agents: Agents = Arc::new(move || nodes.borrow().nodes.iter().map(|node| node.owner.to_string()).collect());
    let (ask, asked) = mpsc::channel(WAITING);
    let counts = (!config.topologies.is_empty()).then(|| steer::Metrics::register(metrics));
    let mut handles = BTreeMap::new();
    let mut masters = Masters::default();
    for table in &config.topologies {
        let inputs = steer::Inputs {
            store: Arc::clone(&ground.store),
            prefix: config.store.prefix.clone(),
            owner: ground.resumed.owner.to_string(),
            node: config.node.clone(),
            kept: ground.state.writable().then(|| KeptTopology::new(&config.store.state_dir, &table.service)),
            metrics: counts.clone(),
            registry: Arc::clone(&registry),
            agents: Arc::clone(&agents),
        };
        let (desk, handle) = Desk::new(settings(config, table), inputs);
        masters.0.extend(table.gives_away.then(|| handle.clone()));
        handles.insert(table.service.clone(), handle);
        supervisor.spawn("steer", Half::Find, desk.run(stop.clone()));
    }
    let front = Front { handles, registry, asked };
    supervisor.spawn("topologies", Half::Find, front.run(stop));
    (ask, masters)
}

fn settings(config: &Config, table: &TopologyConfig) -> steer::Settings {
    steer::Settings {
        service: table.service.clone(),
        servers: table.servers.clone(),
        user: table.user.clone(),
        password_file: table.password_file.clone(),
        secrets: config.probe.secrets.clone(),
        max_pause: table.max_pause,
        tls: table.tls,
    }
}

/// The worker between HTTP and the desks.
struct Front {
    handles: BTreeMap<String, Handle>,
    registry: Registry,
    asked: mpsc::Receiver<TopologyAsk>,
}

impl Front {
    /// Works until told to stop.
    async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(_) = under_way.join_next() => {}
                // What is asked for waits here while too much is under way, and is refused at HTTP then.
                ask = self.asked.recv(), if under_way.len() < WAITING => match ask {
                    Some(ask) => self.take(ask, &mut under_way),
                    None => stop.cancelled().await,
                },
            }
        }
    }

    fn take(&self, ask: TopologyAsk, under_way: &mut JoinSet<()>) {
        match ask {
            TopologyAsk::Tell(name, reply) => {
                let is_meant = |handle: &&Handle| name.as_ref().is_none_or(|name| handle.settings.service == *name);
                let handles: Vec<Handle> = self.handles.values().filter(is_meant).cloned().collect();
                let registry = Arc::clone(&self.registry);
                under_way.spawn(async move {
                    let told = handles.iter().map(|handle| tell(handle, &registry));
                    // Whoever asked may have gone.
                    _ = reply.send(futures_util::future::join_all(told).await);
                });
            }
            TopologyAsk::Change { service, change, mut reply } => {
                let handle = self.handles.get(&service).cloned();
                let registry = Arc::clone(&self.registry);
                under_way.spawn(async move {
                    // One who goes takes with him what has not begun.
                    let answer = tokio::select! {
                        answer = make(handle, &service, change, &registry) => answer,
                        () = reply.closed() => return,
                    };
                    _ = reply.send(answer);
                });
            }
        }
    }
}

async fn tell(handle: &Handle, registry: &Registry) -> Topology {
    let (reply, looked) = oneshot::channel();
    let look = async {
        handle.looks.send(reply).await.ok()?;
        looked.await.ok()
    };
    let sights: Arc<Sights> = timeout(LOOK, look).await.ok().flatten().unwrap_or_default();
    let shown = Arc::clone(&handle.shown.borrow());
    Topology::of(&handle.settings.service, &shown, &registry(&handle.settings.service), &sights)
}

/// Makes a change; a status and words for HTTP.
async fn make(handle: Option<Handle>, service: &str, change: TopologyChange, registry: &Registry) -> (u16, Answer) {
    let Some(handle) = handle else {
        let error = format!("{service} has no [[topology]] table");
        return problem(
            404,
            error,
            "GET /v1/topology lists the services that have one; every agent with it may be asked",
        );
    };
    let (ask, result) = match change {
        TopologyChange::Pause(pause) => (Ask::Pause(pause), if pause { "paused" } else { "resumed" }),
        TopologyChange::Apply { desired, force, dry_run } => match Desired::parse(&desired) {
            Ok(desired) => (Ask::Apply { desired, force, dry_run }, "done"),
            Err(error) => return problem(400, error.to_string(), SHAPE),
        },
        TopologyChange::Name(desired) => {
            return match Desired::parse(&desired) {
                Ok(desired) => name(&handle, &desired, registry).await,
                Err(error) => problem(400, error.to_string(), SHAPE),
            };
        }
    };
    let (reply, outcome) = oneshot::channel();
    let outcome = match handle.requests.try_send(Request { ask, reply }) {
        Ok(()) => outcome.await.unwrap_or_else(|_| Outcome::Failed("the agent is stopping".to_owned())),
        Err(_) => Outcome::Busy,
    };
    told(outcome, result)
}

const SHAPE: &str = r#"send {"master":{"address":A[,"port":P]},"slaves":[…]}"#;

fn problem(status: u16, error: impl Into<String>, hint: &str) -> (u16, Answer) {
    (status, Answer { error: Some(error.into()), hint: Some(hint.to_owned()), ..Answer::default() })
}

fn told(outcome: Outcome, result: &str) -> (u16, Answer) {
    let words = outcome.to_string();
    match outcome {
        Outcome::Done { gap } => (200, Answer { result: Some(result.to_owned()), gap_ms: gap, ..Answer::default() }),
        Outcome::Planned(plan) => {
            (200, Answer { result: Some("planned".to_owned()), plan: Some(plan), ..Answer::default() })
        }
        Outcome::Unfound(_) => problem(400, words, "GET /v1/topology names its instances"),
        Outcome::Refused(why) => {
            let (status, answer) =
                problem(409, words, "mend it; force=1 (--force) overrules what a person may overrule");
            (status, Answer { why, ..answer })
        }
        Outcome::Busy => problem(409, words, "ask again"),
        Outcome::Paused(_) => problem(409, words, "wharf topology resume"),
        Outcome::Unchanged(_) => problem(503, words, "ask again, or give max-pause more time"),
        Outcome::Failed(_) => {
            problem(500, words, "see GET /v1/topology: what was begun is ended by whoever looks next")
        }
    }
}

/// Names follow what was applied, so that nothing names a server that is not master.
async fn name(handle: &Handle, desired: &Desired, registry: &Registry) -> (u16, Answer) {
    let (shown, service) = (Arc::clone(&handle.shown.borrow()), &handle.settings.service);
    let known = shown.applied.iter().map(|applied| &applied.master);
    let roster = registry(service);
    let places = steer::places(&handle.settings, &shown, &roster, desired).await;
    let found = places.and_then(|places| {
        let mut roster = roster.with_known(known);
        let mut find = |address| roster.find(service, places.get(address).unwrap_or(address));
        desired.slaves.iter().try_for_each(|slave| find(slave).map(drop))?;
        find(&desired.master)
    });
    let master = match found {
        Ok(master) => master,
        Err(unfound) => return problem(400, unfound, "GET /v1/topology names its instances"),
    };
    match &shown.applied {
        Some(applied) if applied.master.name == master => {
            (200, Answer { result: Some("done".to_owned()), ..Answer::default() })
        }
        Some(applied) => {
            let error =
                format!("{} is master, and names follow that: apply another topology first", applied.master.name);
            problem(409, error, "PUT /master")
        }
        None => problem(409, "no topology was applied yet", "PUT /master"),
    }
}
