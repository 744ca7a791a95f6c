//! Builds the agent: opens what it stands on, makes every worker and joins their channels.
//!
//! Everything that can fail does so here, before the first record is written, and says what was tried.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

use super::autodiscovery::{self, Autodiscoveries};
use super::drain::DrainDesk;
use super::etcd_v2;
use super::neighbours::Neighbours;
use super::ordinal::{self, Ordinals};
use super::proxies::{self, Ambassadors};
use super::ready::Herald;
use super::shutdown::{self, Farewell};
use super::sources::Sources;
use super::topology::{self, Masters};
use super::translate;
use super::watchdog::{self, Watchdog};
use crate::answer::autodiscovery as elasticache;
use crate::answer::dns::{self, DnsServer, Insider};
use crate::answer::http::{
    self, AutodiscoverySource, ForgetSource, HttpMetrics, HttpServer, ProxySource, Readiness, RenderSource,
};
use crate::answer::sentinel::SentinelServer;
use crate::catalog::index::Laid;
use crate::cli::VERSION;
use crate::config::{Config, StoreConfig};
use crate::docker;
use crate::follow::heads::HeadKeeper;
use crate::follow::leaderless::Leaderless;
use crate::follow::locks::LockKeeper;
use crate::follow::mirror::Mirror;
use crate::follow::nodes::{Nodes, Seen};
use crate::follow::patroni::Patroni;
use crate::host::Addresses;
use crate::host::clients::Door;
use crate::host::logind::{self, ShutdownWatch};
use crate::host::sockets::Passed;
use crate::model::offer::advertise::{HostAddresses, Place};
use crate::model::offer::instance::Offer;
use crate::model::publish::local::{DrainState, Local};
use crate::model::publish::memory::Resumed;
use crate::model::words::ordinal::RoleName;
use crate::model::words::zone::{BadZone, Zones};
use crate::notify::Notify;
use crate::offer::drain::Drain;
use crate::offer::inventory::{self, Inventory};
use crate::offer::probe::Fleet;
use crate::offer::registrar::{self, Registrar};
use crate::offer::roll::{self, Roll};
use crate::proxy::Table;
use crate::state::{StateDir, StateError};
use crate::steer::Marker;
use crate::store::Store;
use crate::supervisor::{Half, Supervisor};
use crate::view::CatalogView;

/// Sightings on their way to the inventory; when it is full the engine's watch waits.
const SIGHTINGS: usize = 1024;
/// How often the host's addresses are read again.
const ADDRESSES: Duration = Duration::from_secs(2);
/// Shutdowns announced and not yet heard of.
const ANNOUNCEMENTS: usize = 4;

/// Why the agent cannot be built.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("zones cannot be served")]
    Zone(#[from] BadZone),
    #[error("the engine's address cannot be used")]
    Docker(#[from] docker::BadEndpoint),
    #[error("DNS cannot be served")]
    Dns(#[from] dns::BindError),
    #[error("HTTP cannot be served")]
    Http(#[from] http::BindError),
    #[error("--http-token-file {file} cannot be read")]
    Token { file: PathBuf, source: std::io::Error },
    #[error("--http-token-file {0} is empty")]
    EmptyToken(PathBuf),
    #[error("Sentinel's protocol cannot be spoken")]
    Sentinel(#[source] http::BindError),
    #[error("etcd's v2 API cannot be served")]
    EtcdV2(#[source] http::BindError),
    #[error("{file} of --etcd-v2-user cannot be read")]
    EtcdV2Password { file: PathBuf, source: std::io::Error },
    #[error("{0} of --etcd-v2-user is empty")]
    EmptyEtcdV2Password(PathBuf),
    #[error("--sentinel-password-file {file} cannot be read")]
    SentinelPassword { file: PathBuf, source: std::io::Error },
    #[error("--sentinel-password-file {0} is empty")]
    EmptySentinelPassword(PathBuf),
}

impl BuildError {
    /// Whether the settings are to blame, rather than the host.
    pub(super) fn is_wrong_use(&self) -> bool {
        !matches!(self, Self::Http(_) | Self::Dns(_) | Self::Sentinel(_) | Self::EtcdV2(_))
    }
}

/// What the rest of the app needs of the workers.
pub(super) struct Agent {
    pub(super) inventory: watch::Sender<Arc<inventory::Settings>>,
    pub(super) local: watch::Receiver<Arc<Local>>,
    pub(super) drain: Drain,
    pub(super) proxies: watch::Sender<Arc<Vec<Table>>>,
    pub(super) autodiscoveries: watch::Sender<Arc<Vec<elasticache::Settings>>>,
    pub(super) keeps: bool,
    pub(super) roles: watch::Sender<Arc<BTreeSet<RoleName>>>,
    masters: Masters,
}

/// Makes every worker of the agent and hands it to the supervisor.
pub(super) async fn build(config: &Config, passed: Passed, supervisor: &mut Supervisor) -> Result<Agent, BuildError> {
    let ground = Ground::open(config)?;
    let mut registry = Registry::default();
    registry.register("wharf_build", "The build that runs, by its version", Info::new([("version", VERSION)]));
    let offering = Offering::start(config, &ground, supervisor, &mut registry)?;
    let finding = Finding::start(config, &ground, &offering, passed, supervisor, registry).await?;
    let (announce, announcements) = mpsc::channel(ANNOUNCEMENTS);
    let farewell = Farewell {
        announcements,
        switch: offering.drain.clone(),
        masters: finding.masters.clone(),
        local: offering.published.local.clone(),
        dns_ttl: config.dns.ttl,
    };
    let stop = supervisor.stop_of(Half::Offer);
    let logind = ShutdownWatch::new(logind::Settings::default(), announce);
    supervisor.spawn("logind", Half::Offer, logind.run(stop.clone()));
    supervisor.spawn("farewell", Half::Offer, farewell.run(stop));
    let masters = finding.masters.clone();
    let (proxies, autodiscoveries) = (finding.proxies.clone(), finding.autodiscoveries.clone());
    finding.watch_over(config, &offering, supervisor);
    Ok(Agent {
        inventory: offering.settings,
        local: offering.published.local,
        drain: offering.drain,
        proxies,
        autodiscoveries,
        keeps: ground.state.writable(),
        roles: offering.ordinals.roles,
        masters,
    })
}

impl Agent {
    /// Where no logind tells of a shutdown, a stop while the system goes down is one: withdraws first.
    pub(super) async fn leave_with_host(&self, dns_ttl: Duration) {
        let over = match *self.drain.watch().borrow() {
            DrainState::Offering => false,
            DrainState::Drained { .. } => self.local.borrow().awaits().is_none(),
            DrainState::ShuttingDown { .. } => true,
        };
        if !over && logind::system_is_stopping().await {
            shutdown::leave(&self.drain, &self.masters, &mut self.local.clone(), dns_ttl).await;
        }
    }
}

/// What both halves stand on.
pub(super) struct Ground {
    pub(super) zones: Zones,
    pub(super) state: Arc<StateDir>,
    pub(super) resumed: Resumed,
    pub(super) store: Arc<dyn Store>,
}

impl Ground {
    fn open(config: &Config) -> Result<Self, BuildError> {
        let zones = translate::zones(config)?;
        let (state, resumed) = StateDir::open(&config.store.state_dir, &translate::here(config))?;
        let store = translate::store(config, &resumed, state.writable());
        Ok(Self { zones, state: Arc::new(state), resumed, store })
    }
}

/// The half that offers what serves on this host.
struct Offering {
    settings: watch::Sender<Arc<inventory::Settings>>,
    offer: watch::Receiver<Arc<Offer>>,
    place: watch::Receiver<Arc<Place>>,
    published: registrar::Outputs,
    drain: Drain,
    ordinals: Ordinals,
}

impl Offering {
    fn start(
        config: &Config,
        ground: &Ground,
        supervisor: &mut Supervisor,
        registry: &mut Registry,
    ) -> Result<Self, BuildError> {
        let stop = supervisor.stop_of(Half::Offer);
        let (settings, inventory::Outputs { offer, place }) =
            watch_host(config, &ground.resumed, supervisor, registry)?;
        let sources = Sources { place: place.clone(), state: Arc::clone(&ground.state) };
        supervisor.spawn("sources", Half::Offer, sources.run(stop.clone()));
        let (standings_in, standings) = watch::channel(Arc::default());
        let drain = Drain::new(Arc::clone(&ground.state));
        let ordinals = ordinal::start(config, ground, supervisor, registry);
        let inputs = registrar::Inputs {
            offer: offer.clone(),
            standings,
            drain: drain.watch(),
            parts: drain.parts(),
            place: place.clone(),
            ordinals: ordinals.standings.clone(),
        };
        let (registrar, published) = Registrar::new(
            translate::registrar(config, &ground.resumed, ground.state.writable()),
            Arc::clone(&ground.store),
            Arc::clone(&ground.state),
            inputs,
            registry,
        );
        let adopted = published.adopted.clone();
        let fleet = Fleet::new(translate::probe(config), offer.clone(), adopted, standings_in, registry);
        supervisor.spawn("probes", Half::Offer, fleet.run(stop.clone()));
        supervisor.spawn("registrar", Half::Offer, registrar.run(stop));
        Ok(Self { settings, offer, place, published, drain, ordinals })
    }
}

/// The settings that the inventory goes by, and what it makes of the host.
type Watched = (watch::Sender<Arc<inventory::Settings>>, inventory::Outputs);

/// The workers that see what runs here, and where "here" is.
fn watch_host(
    config: &Config,
    resumed: &Resumed,
    supervisor: &mut Supervisor,
    registry: &mut Registry,
) -> Result<Watched, BuildError> {
    let stop = supervisor.stop_of(Half::Offer);
    let (sightings_in, sightings) = mpsc::channel(SIGHTINGS);
    match translate::docker(config)? {
        Some(settings) => {
            let watch = docker::Watch::new(settings, sightings_in, registry);
            supervisor.spawn("docker", Half::Offer, watch.run(stop.clone()));
        }
        None => supervisor.spawn("docker", Half::Offer, docker::no_engine(sightings_in, stop.clone())),
    }
    let before = HostAddresses::remembered(resumed.source_v4, resumed.source_v6);
    let (addresses, addresses_seen) = Addresses::new(ADDRESSES, &before);
    supervisor.spawn("addresses", Half::Offer, addresses.run(stop.clone()));
    let (settings, settings_seen) = watch::channel(Arc::new(translate::inventory(config)));
    let (inventory, outputs) = Inventory::new(settings_seen, addresses_seen, sightings, registry);
    supervisor.spawn("inventory", Half::Offer, inventory.run(stop));
    Ok((settings, outputs))
}

/// The workers that follow what Patroni keeps, and what they find.
pub(super) fn patroni(
    config: &Config,
    store: &Arc<dyn Store>,
    supervisor: &mut Supervisor,
) -> Vec<watch::Receiver<Arc<Laid>>> {
    let StoreConfig { patroni, prefix, lease_ttl, .. } = &config.store;
    let follow = |namespace| {
        let (worker, seen) = Patroni::new(Arc::clone(store), namespace, prefix, *lease_ttl);
        let stop = supervisor.stop_of(Half::Find);
        supervisor.spawn("patroni", Half::Find, worker.run(stop));
        seen
    };
    patroni.iter().map(follow).collect()
}

/// The half that finds what serves in the cluster, and answers.
struct Finding {
    view: CatalogView,
    ready: watch::Sender<Readiness>,
    dns: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    sentinel: Vec<SocketAddr>,
    autodiscovery: Vec<SocketAddr>,
    exhibitor: Vec<SocketAddr>,
    etcd_v2: Vec<SocketAddr>,
    door: Option<Door>,
    insider: Insider,
    proxies: watch::Sender<Arc<Vec<Table>>>,
    autodiscoveries: watch::Sender<Arc<Vec<elasticache::Settings>>>,
    masters: Masters,
}

impl Finding {
    async fn start(
        config: &Config,
        ground: &Ground,
        offering: &Offering,
        mut passed: Passed,
        supervisor: &mut Supervisor,
        mut registry: Registry,
    ) -> Result<Self, BuildError> {
        let stop = supervisor.stop_of(Half::Find);
        let settings = translate::mirror(config, &ground.zones, &ground.resumed);
        let keep = ground.state.writable().then(|| translate::kept_catalog(config));
        let overlay = offering.published.overlay.clone();
        let (mirror, view) = Mirror::new(settings, Arc::clone(&ground.store), overlay, keep, &mut registry);
        let (heads, heads_seen) = HeadKeeper::new(Arc::clone(&ground.store), &config.store.prefix);
        let mirror = mirror.at_most(config.store.max_records as usize);
        let (nodes, Seen { nodes: node_list, known }) = Nodes::new(Arc::clone(&ground.store), &config.store.prefix);
        let mirror = mirror.naming(config.store.prefix.clone(), heads_seen, nodes.hosts());
        let left = proxies::taken_up(std::mem::take(&mut passed.left));
        let mirror = mirror.laying(patroni(config, &ground.store, supervisor));
        let settings = translate::dns(config, ground.zones.clone(), passed);
        let dns = DnsServer::bind(settings, view.clone(), &mut registry)?;
        let inputs = roll::Inputs { nodes: node_list.clone(), known };
        let (key, own) = translate::known(config, &ground.resumed, &offering.place.borrow());
        let (roll, forgets) = Roll::new(Arc::clone(&ground.store), key, own, inputs, &mut registry);
        supervisor.spawn("roll", Half::Offer, roll.run(supervisor.stop_of(Half::Offer)));
        let (ready, ready_seen) = watch::channel(Readiness::default());
        let neighbours =
            Neighbours { nodes: node_list.clone(), place: offering.place.clone(), owner: ground.resumed.owner.clone() };
        supervisor.spawn("neighbours", Half::Find, neighbours.run(stop.clone()));
        let leaderless = Leaderless::new(view.clone(), Arc::new(ground.zones.clone()));
        supervisor.spawn("leaderless", Half::Find, leaderless.run(stop.clone()));
        let sentinel = translate::sentinel(config, &ground.resumed.owner)?;
        let sentinel = SentinelServer::bind_all(sentinel, &view, &ground.zones, &node_list, &mut registry).await;
        let sentinel = sentinel.map_err(BuildError::Sentinel)?;
        let (topology, masters) = topology::start(config, ground, &view, &node_list, supervisor, &mut registry);
        let Autodiscoveries { tables: autodiscoveries, handle: discoveries } =
            autodiscovery::start(config, ground, &view, &node_list, supervisor, &mut registry).await;
        let autodiscovery = discoveries.addresses();
        let etcd_v2 = etcd_v2::start(config, ground, supervisor, &mut registry).await?;
        let inputs = proxies::Inputs {
            view: &view,
            zones: &ground.zones,
            nodes: &node_list,
            local: Some(offering.published.local.clone()),
            etcd_names: proxies::etcd_names(config),
            etcd: config.etcd_addresses().unwrap_or_default(),
        };
        let Ambassadors { tables: proxies, handle } =
            proxies::start(proxies::of_agent(config), left, inputs, supervisor, &mut registry);
        let reported = handle.clone();
        let (desk, drain_requests) = DrainDesk::new(offering.drain.clone(), masters.clone());
        let (lock_keeper, locks) = LockKeeper::new(Arc::clone(&ground.store), &config.store.prefix);
        supervisor.spawn("locks", Half::Find, lock_keeper.run(stop.clone()));
        let sources = http::Sources {
            catalog: view.clone(),
            zones: Arc::new(ground.zones.clone()),
            local: offering.published.local.clone(),
            nodes: node_list,
            forget: ForgetSource::new(move |node| roll::asked(forgets.clone(), node).boxed()),
            ordinals: offering.ordinals.standings.clone(),
            etcd_v2: etcd_v2.standing,
            ordinal: offering.ordinals.asked.clone(),
            locks,
            ready: ready_seen,
            drain: drain_requests,
            topology,
            proxies: ProxySource::new(move || handle.told(), move |told| reported.mirror(told)),
            autodiscovery: AutodiscoverySource::new(move || discoveries.told()),
            renders: RenderSource::register(&mut registry),
            metrics: HttpMetrics::register(&mut registry),
            registry: Arc::new(registry),
        };
        let http = HttpServer::bind(translate::http(config)?, sources).await?;
        let found = Self {
            view,
            ready,
            dns: dns.addresses(),
            http: http.addresses(),
            sentinel: sentinel.as_ref().and_then(SentinelServer::address).into_iter().collect(),
            autodiscovery,
            exhibitor: http.exhibitor_address().into_iter().collect(),
            etcd_v2: etcd_v2.address.into_iter().collect(),
            door: http.door(),
            insider: dns.insider(),
            proxies,
            autodiscoveries,
            masters,
        };
        supervisor.spawn("mirror", Half::Find, mirror.run(stop.clone()));
        supervisor.spawn("nodes", Half::Find, nodes.run(stop.clone()));
        let (store, prefix) = (Arc::clone(&ground.store), config.store.prefix.clone());
        let owner = ground.resumed.owner.to_string();
        let marker = Marker::new(store, prefix, owner, found.view.clone(), heads.switches());
        supervisor.spawn("marker", Half::Find, marker.run(stop.clone()));
        supervisor.spawn("heads", Half::Find, heads.run(stop.clone()));
        supervisor.spawn("dns", Half::Find, dns.run(stop.clone()));
        supervisor.spawn("drain", Half::Find, desk.run(stop.clone()));
        if let Some(sentinel) = sentinel {
            supervisor.spawn("sentinel", Half::Find, sentinel.run(stop.clone()));
        }
        supervisor.spawn("http", Half::Find, http.run(stop));
        Ok(found)
    }

    /// Starts what watches the agent as a whole.
    fn watch_over(self, config: &Config, offering: &Offering, supervisor: &mut Supervisor) {
        let stop = supervisor.stop_of(Half::Find);
        let (dns, http, sentinel) = (&self.dns, &self.http, &self.sentinel);
        let (autodiscovery, exhibitor, etcd_v2) = (&self.autodiscovery, &self.exhibitor, &self.etcd_v2);
        tracing::info!(
            version = VERSION,
            node = config.node,
            store = translate::store_name(config),
            ?dns,
            ?http,
            ?sentinel,
            ?autodiscovery,
            ?exhibitor,
            ?etcd_v2,
            "serving"
        );
        if let Some(period) = Notify.watchdog_period() {
            let settings = watchdog::Settings {
                period,
                dns: self.dns.clone(),
                domain: config.dns.domain.clone(),
                insider: self.insider,
                http: self.door,
            };
            let watchdog = Watchdog::new(settings, supervisor.pulses(), Notify);
            supervisor.spawn("watchdog", Half::Find, watchdog.run(stop.clone()));
        }
        let herald = Herald {
            welcome: self.dns.first().map(|at| translate::dig_line(*at, &config.dns.domain)),
            view: self.view,
            offer: offering.offer.clone(),
            local: offering.published.local.clone(),
            ready: self.ready,
        };
        supervisor.spawn("herald", Half::Find, herald.run(stop));
    }
}
