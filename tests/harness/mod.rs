//! One host's registrar without Docker and probes: a test says what is offered and how it stands, and looks at the
//! store.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharf::model::health::standing::{Standing, Standings, State};
use wharf::model::offer::advertise::{Advertised, Place};
use wharf::model::offer::instance::{Check, DockerStanding, Instance, InstanceKey, Offer, Source};
use wharf::model::publish::memory::{Here, Resumed};
use wharf::model::publish::node::AgentFacts;
use wharf::model::words::key::Prefix;
use wharf::model::words::name::{Label, ServiceName};
use wharf::model::words::record::{Proto, Record, Role};
use wharf::offer::drain::Drain;
use wharf::offer::registrar::{Inputs, OnStop, Outputs, Registrar, RegistrarError, Settings};
use wharf::state::StateDir;
use wharf::store::{Item, Store};

/// How long anything may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `check` says so, looking every 10 ms.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An instance of `service` in container number `number`, on a port of its own.
pub fn instance(service: &str, number: u16) -> Instance {
    let id = format!("core-01:{service}-{number}:6379");
    Instance {
        key: InstanceKey { source: Source::Container(container(number).into()), port: 6379, proto: Proto::Tcp },
        services: vec![ServiceName::parse(service).unwrap()],
        label: Label::slug(&id).unwrap(),
        id: id.into(),
        host: "10.0.0.1".parse().unwrap(),
        host6: None,
        port: 20_000 + number,
        role: None,
        priority: None,
        weight: None,
        ttl: None,
        tags: vec!["blue".into()],
        attrs: BTreeMap::new(),
        container_name: format!("{service}-{number}").into(),
        image: "redis:7".into(),
        check: Check::default(),
        docker: DockerStanding::Running,
        started: "".into(),
    }
}

/// The same with SERVICE_ID.
pub fn named(service: &str, number: u16, id: &str) -> Instance {
    Instance { id: id.into(), label: Label::slug(id).unwrap(), ..instance(service, number) }
}

/// An instance of a `[[service]]` table.
pub fn table(service: &str, number: u16) -> Instance {
    let source = Source::Static(format!("{service}#{number}").into());
    let of_table = instance(service, number);
    Instance { key: InstanceKey { source, ..of_table.key.clone() }, image: "".into(), ..of_table }
}

pub fn container(number: u16) -> String {
    format!("{number:08x}{}", "ab".repeat(28))
}

/// What a host is set up with.
#[derive(Clone)]
pub struct Setup {
    pub node: &'static str,
    pub prefix: &'static str,
    pub machine: &'static str,
    pub boot: &'static str,
    pub ttl: Duration,
    pub on_stop: OnStop,
    pub kept: Vec<Record>,
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            node: "core-01",
            prefix: "/services",
            machine: "m1",
            boot: "b1",
            ttl: Duration::from_secs(3),
            on_stop: OnStop::Keep,
            kept: Vec::new(),
            seed: 0,
        }
    }
}

impl Setup {
    /// Where such a host's agent finds itself.
    pub fn here(&self) -> Here {
        Here {
            node: self.node.into(),
            prefix: self.prefix.into(),
            machine: Some(self.machine.into()),
            boot: Some(self.boot.into()),
        }
    }
}

/// A running registrar with its inputs in hand.
pub struct Host {
    pub store: Arc<dyn Store>,
    pub setup: Setup,
    pub owner: String,
    pub outputs: Outputs,
    pub drain: Drain,
    pub state: Arc<StateDir>,
    offer: watch::Sender<Arc<Offer>>,
    standings: watch::Sender<Arc<Standings>>,
    place: watch::Sender<Arc<Place>>,
    /// Held: without it the registrar would think its agent gone.
    _ordinals: watch::Sender<Arc<wharf::model::steer::ordinal::told::Standings>>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RegistrarError>>,
}

fn at(address: &str) -> Place {
    Place { v4: Some(Advertised { address: address.parse().unwrap(), explicit: true }), ..Place::default() }
}

impl Host {
    /// Starts a registrar on `store` with its state in `directory`; Docker has not been listed yet.
    pub fn start(store: Arc<dyn Store>, directory: &Path, setup: Setup) -> Self {
        let opened = StateDir::open(directory, &setup.here()).unwrap();
        Self::start_from(store, opened, setup)
    }

    /// The same from state that is open already.
    pub fn start_from(store: Arc<dyn Store>, (state, resumed): (StateDir, Resumed), setup: Setup) -> Self {
        let state = Arc::new(state);
        let owner = resumed.owner.to_string();
        let drain = Drain::new(Arc::clone(&state));
        let (offer, offer_out) = watch::channel(Arc::default());
        let (standings, standings_out) = watch::channel(Arc::default());
        let settings = Settings {
            node: setup.node.into(),
            prefix: Prefix::parse(setup.prefix).unwrap(),
            lease_ttl: setup.ttl,
            on_stop: setup.on_stop,
            agent: AgentFacts {
                site: None,
                version: "test".into(),
                addresses: Vec::new(),
                sentinel: None,
                machine: None,
                ordinals: Default::default(),
                started: SystemTime::UNIX_EPOCH,
            },
            resumed,
            kept: setup.kept.clone(),
            seed: setup.seed,
        };
        let (place, place_out) = watch::channel(Arc::new(at("10.0.0.1")));
        let (ordinals, ordinals_out) = watch::channel(Arc::default());
        let inputs = Inputs {
            offer: offer_out,
            standings: standings_out,
            drain: drain.watch(),
            parts: drain.parts(),
            place: place_out,
            ordinals: ordinals_out,
        };
        let mut registry = prometheus_client::registry::Registry::default();
        let (registrar, outputs) =
            Registrar::new(settings, Arc::clone(&store), Arc::clone(&state), inputs, &mut registry);
        let stop = CancellationToken::new();
        let task = tokio::spawn(registrar.run(stop.clone()));
        Self { store, setup, owner, outputs, drain, state, offer, standings, place, _ordinals: ordinals, stop, task }
    }

    /// The host advertises another address.
    pub fn moves(&self, address: &str) {
        self.place.send_replace(Arc::new(at(address)));
    }

    /// Docker has been listed: this runs, and nothing else.
    pub fn offer(&self, instances: impl IntoIterator<Item = Instance>) {
        let instances = instances.into_iter().map(|instance| (instance.key.clone(), Arc::new(instance))).collect();
        self.offer.send_replace(Arc::new(Offer { instances, listed: true, engine: true, ..Offer::default() }));
    }

    /// This runs, as far as is known: Docker has not been listed yet.
    pub fn sees(&self, instances: impl IntoIterator<Item = Instance>) {
        let instances = instances.into_iter().map(|instance| (instance.key.clone(), Arc::new(instance))).collect();
        self.offer.send_replace(Arc::new(Offer { instances, ..Offer::default() }));
    }

    /// All of it is ready, and nothing else has a standing.
    pub fn ready(&self, instances: impl IntoIterator<Item = Instance>) {
        let instances: Vec<Instance> = instances.into_iter().collect();
        let standings = instances.iter().map(|it| (it.key.clone(), Arc::new(standing(State::Ready)))).collect();
        self.standings.send_replace(Arc::new(standings));
        self.offer(instances);
    }

    /// One instance's standing changes.
    pub fn stands(&self, instance: &Instance, standing: Standing) {
        self.standings.send_modify(|standings| {
            *standings = Arc::new(standings.update(instance.key.clone(), Arc::new(standing)));
        });
    }

    /// Whether the registrar has ended.
    pub fn ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops as SIGTERM does, and frees the state directory.
    pub async fn stop(self) {
        self.stop.cancel();
        let Self { task, state, drain, .. } = self;
        task.await.unwrap().unwrap();
        drop(drain);
        freed(state).await;
    }

    /// Stops as SIGKILL does.
    pub async fn kill(self) {
        let Self { task, state, drain, .. } = self;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        drop(drain);
        freed(state).await;
    }

    /// Keys and records below the prefix.
    pub async fn records(&self) -> BTreeMap<String, Record> {
        records(&*self.store, self.setup.prefix).await
    }

    /// The keys below the prefix that this owner holds.
    pub async fn own_keys(&self) -> Vec<String> {
        let records = self.records().await;
        records.into_iter().filter(|(_, it)| it.owner.as_deref() == Some(&*self.owner)).map(|(key, _)| key).collect()
    }

    /// Waits until exactly these keys are held by this owner.
    pub async fn publishes(&self, keys: &[&str]) {
        eventually(&format!("{keys:?} are published"), || async { self.own_keys().await == keys }).await;
    }
}

/// Waits until a write of the state file that was under way lets go of the directory.
async fn freed(state: Arc<StateDir>) {
    let last = Arc::downgrade(&state);
    drop(state);
    while last.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

pub fn standing(state: State) -> Standing {
    Standing { state, role: None, since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000), error: None }
}

pub fn role(role: Role) -> Standing {
    Standing { role: Some(role), ..standing(State::Ready) }
}

/// Everything below a prefix; nothing while the store is away.
pub async fn items(store: &dyn Store, prefix: &str) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut at = None;
    loop {
        let after = items.last().map(|item| item.key.clone());
        let Ok(page) = store.read(&format!("{prefix}/"), after.as_deref(), at).await else { return Vec::new() };
        at = Some(page.revision);
        items.extend(page.items);
        if !page.more {
            return items;
        }
    }
}

pub async fn records(store: &dyn Store, prefix: &str) -> BTreeMap<String, Record> {
    let items = items(store, prefix).await;
    items.into_iter().filter_map(|item| Some((item.key, Record::decode(&item.value).ok()?))).collect()
}
