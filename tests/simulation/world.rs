//! The hosts of a history with their agents, the hands that meddle, and the steps as they are taken.

mod hands;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharf::follow::mirror::{self, Mirror, MirrorError};
use wharf::model::health::standing::State;
use wharf::model::offer::instance::{Instance, InstanceKey, Source};
use wharf::model::publish::memory::Memory;
use wharf::model::words::key::Prefix;
use wharf::model::words::record::Record;
use wharf::state::StateDir;
use wharf::store::{Store, Write};
use wharf::view::{CatalogView, Progress};

use crate::broken::Mischief;
use crate::cluster::Cluster;
use crate::harness::{self, Host, Setup};
use crate::link::{Link, Quality};
use crate::steps::{HOSTS, Step, What};
use crate::witness::{Broken, Invariant, Place, TTL, Witness};

const NODES: [&str; HOSTS] = ["core-01", "core-01", "core-02"];
pub const WELL: Quality = Quality { cut: false, loss: 0, slowest: 12 };
/// Revisions that a history must be longer than the one that it gives way to, for agents to be sure to notice.
const LONG: i64 = 50;

/// What is on its way has arrived.
const SOON: Duration = Duration::from_millis(300);

/// A running agent: its registrar and its mirror.
struct Agent {
    host: Host,
    view: CatalogView,
    stop: CancellationToken,
    mirror: JoinHandle<Result<(), MirrorError>>,
    watcher: JoinHandle<()>,
    /// When Docker will have been listed.
    told_at: Instant,
    told: bool,
}

/// What a host runs: each container's life, and whether it serves.
type Runs = BTreeMap<u16, (u16, bool)>;

struct Machine {
    agent: Option<Agent>,
    runs: Runs,
    drained: bool,
    memory: Memory,
}

pub struct World {
    random: StdRng,
    cluster: Arc<Cluster>,
    witness: Arc<Witness>,
    machines: Vec<Machine>,
    mischief: Option<Mischief>,
}

/// Lives through a history; what it broke, and, if it is traced, what tells this run from another.
pub async fn live(seed: u64, steps: &[Step], mischief: Option<Mischief>, traced: bool) -> (Option<Broken>, u64) {
    let mut world = World::new(seed, mischief, traced);
    world.begin().await;
    for step in steps {
        if world.witness.broken().is_some() {
            break;
        }
        world.witness.note(step);
        world.take(&step.what).await;
        world.pass(step.wait).await;
    }
    if world.witness.broken().is_none() {
        world.end().await;
    }
    (world.witness.broken(), world.witness.trace())
}

impl World {
    fn new(seed: u64, mischief: Option<Mischief>, traced: bool) -> Self {
        let machine = |_| Machine { agent: None, runs: Runs::new(), drained: false, memory: Memory::default() };
        let random = StdRng::seed_from_u64(seed ^ 0x5eed);
        let owners = (0..HOSTS).map(|host| owner(seed, host));
        let mut world = Self {
            random,
            cluster: Arc::new(Cluster::new()),
            witness: Arc::new(Witness::new(owners, traced)),
            machines: (0..HOSTS).map(machine).collect(),
            mischief,
        };
        for (host, machine) in world.machines.iter_mut().enumerate() {
            machine.memory.owner = Some(owner(seed, host).into());
        }
        world
    }

    /// Every host runs a container with a name of its own and one that all want to call `cache`.
    async fn begin(&mut self) {
        self.lengthen().await;
        for host in 0..HOSTS {
            self.machines[host].runs = Runs::from([(1, (0, true)), (2, (0, true))]);
            self.start(host, 0);
            self.tell(host);
        }
        self.pass(2_000).await;
    }

    /// Writes that concern nobody, until the history is long; the last of them is seen by all.
    async fn lengthen(&self) {
        let store = self.cluster.store();
        for number in 0..LONG {
            let put = Write::Put { key: "/elsewhere".into(), value: number.to_string().into(), lease: 0 };
            store.commit(&[], &[put]).await.unwrap();
        }
        let put = Write::Put { key: "/services/other/last".into(), value: "10.9.9.9:9".into(), lease: 0 };
        store.commit(&[], &[put]).await.unwrap();
    }

    async fn take(&mut self, what: &What) {
        match *what {
            What::Nothing => {}
            What::Up { host, number } => {
                self.machines[host].runs.entry(number).or_default().1 = true;
                self.tell(host);
            }
            What::Down { host, number } => {
                self.machines[host].runs.entry(number).or_default().1 = false;
                self.tell(host);
            }
            What::Gone { host, number } => {
                self.machines[host].runs.remove(&number);
                self.tell(host);
            }
            What::Replaced { host, number } => {
                let (life, _) = self.machines[host].runs.get(&number).copied().unwrap_or_default();
                self.machines[host].runs.insert(number, (life + 1, false));
                self.tell(host);
            }
            What::Kill { host } => self.end_agent(host, false).await,
            What::Stop { host } => self.end_agent(host, true).await,
            What::Start { host, told } => self.start(host, told),
            What::Drain { host } => self.drain(host, true),
            What::Undrain { host } => self.drain(host, false),
            What::Hang | What::Thaw => {
                let hung = *what == What::Hang;
                self.witness.hangs(hung);
                self.cluster.hang(hung);
            }
            What::Cut { host } => self.link(host, Quality { cut: true, ..WELL }),
            What::Slow { host, loss, slowest } => self.link(host, Quality { cut: false, loss, slowest }),
            What::Heal { host } => self.link(host, WELL),
            What::Wipe { same } => {
                let same = same && self.is_long(1);
                self.cluster.wipe(same).await;
                self.witness.returns();
            }
            What::BackUp => {
                self.cluster.back_up();
                if self.all_have_noticed().await {
                    self.lengthen().await;
                }
            }
            What::Restore { same } => {
                let same = same && self.is_long(self.cluster.backed_up().await);
                self.cluster.restore(same).await;
                self.witness.returns();
            }
            What::Revoke { host } => drop(self.revoke(host).await),
            What::EndLeases { but } => self.end_leases(but).await,
            What::Tamper { pick, spoil } => self.tamper(pick, spoil).await,
            What::Purge => self.purge().await,
            What::Meddle { pick } => self.meddle(pick).await,
        }
    }
}

/// Agents, their links, and what they are told.
impl World {
    fn start(&mut self, host: usize, told: u64) {
        if self.machines[host].agent.is_some() {
            return;
        }
        let (link_seed, seed) = (self.random.random(), self.random.random());
        let machine = &self.machines[host];
        let (cluster, witness) = (Arc::clone(&self.cluster), Arc::clone(&self.witness));
        let link = Link::new(host, cluster, witness, link_seed);
        let (registrars, mirrors) = Mischief::apply(self.mischief, &link);
        let setup = Setup { node: NODES[host], ttl: TTL, seed, ..Setup::default() };
        let opened = StateDir::in_memory(machine.memory.clone(), &setup.here(), "unused");
        let running = Host::start_from(registrars, opened, setup);
        let settings = mirror::Settings {
            prefixes: vec![Prefix::parse("/services").unwrap()],
            node: NODES[host].into(),
            owner: running.owner.as_str().into(),
            lease_ttl: TTL,
        };
        let overlay = running.outputs.overlay.clone();
        let (mirror, view) = Mirror::new(settings, mirrors, overlay, None, &mut Registry::default());
        let stop = CancellationToken::new();
        let mirror = tokio::spawn(mirror.run(stop.clone()));
        let watcher = tokio::spawn(watch_over(host, view.clone(), Arc::clone(&self.witness)));
        let told_at = Instant::now() + Duration::from_millis(told);
        self.machines[host].agent = Some(Agent { host: running, view, stop, mirror, watcher, told_at, told: false });
        self.witness.runs(host, true);
        self.touch(host);
        self.tell_due();
    }

    async fn end_agent(&mut self, host: usize, gently: bool) {
        let machine = &mut self.machines[host];
        let Some(agent) = machine.agent.take() else { return };
        agent.watcher.abort();
        agent.mirror.abort();
        agent.stop.cancel();
        machine.memory = agent.host.state.memory();
        self.witness.runs(host, false);
        if gently {
            agent.host.stop().await;
        } else {
            agent.host.kill().await;
        }
        self.touch(host);
    }

    fn link(&self, host: usize, quality: Quality) {
        self.cluster.bell.change(|now| now.links[host] = quality);
        self.witness.slow(host, quality != WELL && !quality.cut);
        self.touch(host);
    }

    fn touch(&self, host: usize) {
        let machine = &self.machines[host];
        let cut = self.cluster.now().links[host].cut;
        self.witness.in_touch(host, machine.agent.is_some() && !cut);
    }

    fn drain(&mut self, host: usize, drained: bool) {
        let machine = &mut self.machines[host];
        let Some(agent) = &machine.agent else { return };
        machine.drained = drained;
        let drain = &agent.host.drain;
        let remembered = if drained { drain.drain(SystemTime::UNIX_EPOCH) } else { drain.undrain() };
        remembered.unwrap();
        self.tell(host);
    }

    /// What runs has changed: the truth first, then, if Docker has been listed, the agent.
    fn tell(&mut self, host: usize) {
        let machine = &self.machines[host];
        for number in 1..=crate::steps::CONTAINERS {
            let serves = machine.runs.get(&number).is_some_and(|(_, serves)| *serves) && !machine.drained;
            self.witness.serves((host, number), serves);
        }
        self.witness.told(host);
        let Some(agent) = machine.agent.as_ref().filter(|agent| agent.told) else { return };
        let instances: Vec<(Instance, bool)> =
            machine.runs.iter().map(|(number, (life, serves))| (instance(host, *number, *life), *serves)).collect();
        for (instance, serves) in &instances {
            agent.host.stands(instance, harness::standing(if *serves { State::Ready } else { State::Down }));
        }
        agent.host.offer(instances.into_iter().map(|(instance, _)| instance));
    }

    fn tell_due(&mut self) {
        for host in 0..HOSTS {
            if let Some(agent) = &mut self.machines[host].agent
                && !agent.told
                && agent.told_at <= Instant::now()
            {
                agent.told = true;
                self.tell(host);
            }
        }
    }

    fn agents(&self) -> impl Iterator<Item = (usize, &Agent)> {
        self.machines.iter().enumerate().filter_map(|(host, machine)| Some((host, machine.agent.as_ref()?)))
    }
}

/// Tells the witness of every snapshot.
async fn watch_over(host: usize, view: CatalogView, witness: Arc<Witness>) {
    let mut changed = view.changed();
    loop {
        if view.progress() == Progress::Read {
            witness.look(host, &view.load());
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

fn owner(seed: u64, host: usize) -> String {
    format!("{host:04x}{:012x}", seed & 0xffff_ffff_ffff)
}

fn instance(host: usize, number: u16, life: u16) -> Instance {
    let address = format!("10.0.0.{}", host + 1).parse().unwrap();
    let plain = match number % 2 {
        0 => harness::named("redis", number, "cache"),
        _ => harness::instance("redis", number),
    };
    let id = plain.id.replace("core-01", NODES[host]);
    let lived = u16::try_from(host).unwrap() * 10_000 + number * 1_000 + life;
    let source = Source::Container(harness::container(lived).into());
    Instance {
        key: InstanceKey { source, ..plain.key.clone() },
        label: wharf::model::words::name::Label::slug(&id).unwrap(),
        id: id.as_str().into(),
        host: address,
        ..plain
    }
}

/// What is looked at as time passes, and at the end.
impl World {
    async fn pass(&mut self, wait: u64) {
        let end = Instant::now() + Duration::from_millis(wait);
        loop {
            let told = self.agents().filter(|(_, agent)| !agent.told).map(|(_, agent)| agent.told_at).min();
            let next = (Instant::now() + Duration::from_secs(1)).min(end).min(told.unwrap_or(end));
            tokio::time::sleep_until(next).await;
            self.tell_due();
            self.witness.watch();
            if self.witness.broken().is_some() || Instant::now() >= end {
                break;
            }
        }
        self.look_round().await;
    }

    /// Where nothing has happened for a while, everything is in its place.
    async fn look_round(&self) {
        for (host, agent) in self.agents() {
            assert!(!agent.mirror.is_finished() && !agent.host.ended(), "an agent of host {host} has ended");
        }
        // Something may just be on its way, such as the end of a lease.
        if self.amiss().await.is_some() {
            tokio::time::sleep(SOON).await;
        }
        if let Some((invariant, how)) = self.amiss().await {
            self.witness.breaks(invariant, how);
        }
    }

    async fn amiss(&self) -> Option<(Invariant, String)> {
        if !self.witness.store_settled() {
            return None;
        }
        let published = self.published().await;
        let settled: Vec<usize> = (0..HOSTS).filter(|host| self.witness.settled(*host)).collect();
        for host in &settled {
            let mut places: Vec<Place> =
                published.iter().map(|(_, place, _)| *place).filter(|place| place.0 == *host).collect();
            places.sort_unstable();
            let serving: Vec<Place> = self.witness.serving().into_iter().filter(|place| place.0 == *host).collect();
            if places != serving {
                let how = format!("host {host}: {serving:?} serve and {places:?} are published");
                return Some((Invariant::NoNameVanishes, how));
            }
        }
        if !(0..HOSTS).all(|host| self.witness.is_calm(host)) {
            return None;
        }
        for host in settled {
            if let Some(how) = self.differs(host).await {
                return Some((Invariant::TheCatalogIsTheStore, how));
            }
        }
        None
    }

    /// How a host's answers differ from the store, but for what is held.
    async fn differs(&self, host: usize) -> Option<String> {
        let catalog = self.machines[host].agent.as_ref()?.view.load();
        let mut stored: BTreeMap<String, Record> = BTreeMap::new();
        for item in self.items().await {
            if let Ok(record) = Record::decode(&item.value) {
                stored.insert(item.key, record);
            }
        }
        let shown = catalog.endpoints().filter(|endpoint| !endpoint.held());
        let shown: BTreeMap<String, Record> =
            shown.map(|endpoint| (endpoint.key().to_string(), endpoint.record())).collect();
        (shown != stored || catalog.is_stale()).then(|| {
            format!(
                "host {host} (stale: {}) answers {:?}, stored are {:?}",
                catalog.is_stale(),
                brief(&shown),
                brief(&stored)
            )
        })
    }

    async fn end(&mut self) {
        self.cluster.hang(false);
        self.witness.hangs(false);
        for host in 0..HOSTS {
            self.link(host, WELL);
            self.start(host, 0);
        }
        self.pass(u64::try_from(3 * TTL.as_millis()).unwrap()).await;
        let before = crate::cluster::revision(&self.cluster.store()).await;
        self.pass(8_000).await;
        if crate::cluster::revision(&self.cluster.store()).await != before {
            self.witness.breaks(Invariant::SteadyStateIsSilent, "writes with nothing to write".to_owned());
        }
        for (host, agent) in self.agents() {
            let held = agent.view.load().counts().held;
            if held > 0 || agent.host.outputs.overlay.borrow().active {
                let how = format!("host {host} still holds {held} or lays its own over");
                self.witness.breaks(Invariant::TheCatalogIsTheStore, how);
            }
        }
        for host in 0..HOSTS {
            self.end_agent(host, true).await;
        }
    }
}

fn brief(records: &BTreeMap<String, Record>) -> Vec<(&str, &str, u16)> {
    records.iter().map(|(key, record)| (key.as_str(), &*record.host, record.port)).collect()
}
