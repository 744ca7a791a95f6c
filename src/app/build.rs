//! Builds the agent: opens what it stands on, makes every worker and joins their channels.
//!
//! Everything that can fail does so here, before the first record is written, and says what was tried.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

use super::drain::DrainDesk;
use super::{adoption, translate};
use crate::config::Config;
use crate::docker;
use crate::find::http::{self, HttpMetrics, HttpServer, Readiness};
use crate::find::mirror::Mirror;
use crate::find::view::CatalogView;
use crate::host::{self, Addresses};
use crate::model::instance::Offer;
use crate::model::local::Local;
use crate::model::zone::BadZone;
use crate::offer::drain::Drain;
use crate::offer::inventory::{self, Inventory};
use crate::offer::probe::Fleet;
use crate::offer::registrar::{self, Registrar};
use crate::state::{StateDir, StateError};
use crate::supervisor::{Half, Supervisor};

/// Sightings on their way to the inventory; when it is full the engine's watch waits.
const SIGHTINGS: usize = 1024;
/// How often the host's addresses are read again.
const ADDRESSES: Duration = Duration::from_secs(5);

/// Why the agent cannot be built.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("zones cannot be served")]
    Zone(#[from] BadZone),
    #[error("the engine's address cannot be used")]
    Docker(#[from] docker::BadEndpoint),
    #[error("HTTP cannot be served")]
    Http(#[from] http::BindError),
    #[error("--http-token-file {file} cannot be read")]
    Token { file: PathBuf, source: std::io::Error },
    #[error("--http-token-file {0} is empty")]
    EmptyToken(PathBuf),
}

impl BuildError {
    /// Whether the settings are to blame, rather than the host.
    pub(super) fn is_wrong_use(&self) -> bool {
        !matches!(self, Self::Http(_))
    }
}

/// What the rest of the app needs of the workers.
pub(super) struct Agent {
    pub(super) inventory: watch::Sender<Arc<inventory::Settings>>,
    pub(super) offer: watch::Receiver<Arc<Offer>>,
    pub(super) local: watch::Receiver<Arc<Local>>,
    pub(super) view: CatalogView,
    pub(super) ready: watch::Sender<Readiness>,
    pub(super) drain: Drain,
    pub(super) http: Vec<SocketAddr>,
}

/// Makes every worker of the agent and hands it to the supervisor.
pub(super) async fn build(config: &Config, supervisor: &mut Supervisor) -> Result<Agent, BuildError> {
    let mut registry = Registry::default();
    let zones = translate::zones(config)?;
    let http_settings = translate::http(config)?;
    let engine = translate::docker(config)?;
    let (state, resumed) = StateDir::open(&config.store.state_dir, &translate::here(config))?;
    let state = Arc::new(state);
    let store = translate::store(config);
    let drain = Drain::new(Arc::clone(&state));

    let seen = Seen::start(config, engine, supervisor, &mut registry);
    let (adopted_in, adopted) = watch::channel(Arc::default());
    let (fleet, standings) = Fleet::new(translate::probe(config), seen.offer.clone(), adopted, &mut registry);
    supervisor.spawn("probes", Half::Offer, fleet.run(supervisor.stop_of(Half::Offer)));

    let settings = translate::registrar(config, &resumed, &host::read_addresses(), state.writable());
    let inputs = registrar::Inputs { offer: seen.offer.clone(), standings, drain: drain.watch() };
    let writable = state.writable();
    let (registrar, published) = Registrar::new(settings, Arc::clone(&store), state, inputs, &mut registry);
    supervisor.spawn("registrar", Half::Offer, registrar.run(supervisor.stop_of(Half::Offer)));
    let adoption = adoption::hand_on(published.adopted, adopted_in, supervisor.stop_of(Half::Offer));
    supervisor.spawn("adoption", Half::Offer, adoption);

    let settings = translate::mirror(config, &zones, &resumed);
    let keep = writable.then(|| config.store.state_dir.join("catalog"));
    let (mirror, view) = Mirror::new(settings, store, published.overlay, keep, &mut registry);
    supervisor.spawn("mirror", Half::Find, mirror.run(supervisor.stop_of(Half::Find)));

    let (desk, drain_requests) = DrainDesk::new(drain.clone());
    supervisor.spawn("drain", Half::Find, desk.run(supervisor.stop_of(Half::Find)));
    let (ready, ready_seen) = watch::channel(Readiness::default());
    let sources = http::Sources {
        catalog: view.clone(),
        zones: Arc::new(zones),
        local: published.local.clone(),
        ready: ready_seen,
        drain: drain_requests,
        metrics: HttpMetrics::register(&mut registry),
        registry: Arc::new(registry),
    };
    let server = HttpServer::bind(http_settings, sources).await?;
    let http = server.addresses();
    supervisor.spawn("http", Half::Find, server.run(supervisor.stop_of(Half::Find)));
    Ok(Agent { inventory: seen.settings, offer: seen.offer, local: published.local, view, ready, drain, http })
}

impl Agent {
    /// Starts what watches the agent as a whole.
    pub(super) fn watch_over(&self, config: &Config, supervisor: &mut Supervisor, ready: watch::Sender<Readiness>) {
        let (announce, announcements) = mpsc::channel(4);
        let logind = ShutdownWatch::new(logind::Settings::default(), announce);
        supervisor.spawn("logind", Half::Offer, logind.run(supervisor.stop_of(Half::Offer)));
        let farewell = self.farewell(config, announcements);
        supervisor.spawn("farewell", Half::Offer, farewell.run(supervisor.stop_of(Half::Offer)));
        let herald = Herald {
            view: self.view.clone(),
            offer: self.offer.clone(),
            local: self.local.clone(),
            ready,
            welcome: Some(welcome(config)),
        };
        supervisor.spawn("herald", Half::Find, herald.run(supervisor.stop_of(Half::Find)));
    }
}

/// What watches the host: its engine and its addresses.
struct Seen {
    settings: watch::Sender<Arc<inventory::Settings>>,
    offer: watch::Receiver<Arc<Offer>>,
}

impl Seen {
    fn start(config: &Config, engine: docker::Settings, supervisor: &mut Supervisor, registry: &mut Registry) -> Self {
        let stop = supervisor.stop_of(Half::Offer);
        let (sightings_in, sightings) = mpsc::channel(SIGHTINGS);
        let watch = docker::Watch::new(engine, sightings_in, registry);
        supervisor.spawn("docker", Half::Offer, watch.run(stop.clone()));
        let (addresses, addresses_seen) = Addresses::new(ADDRESSES);
        supervisor.spawn("addresses", Half::Offer, addresses.run(stop.clone()));
        let (settings, settings_seen) = watch::channel(Arc::new(translate::inventory(config)));
        let (inventory, outputs) = Inventory::new(settings_seen, addresses_seen, sightings, registry);
        supervisor.spawn("inventory", Half::Offer, inventory.run(stop));
        Self { settings, offer: outputs.offer }
    }
}
