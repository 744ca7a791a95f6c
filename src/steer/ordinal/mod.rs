//! This host's numbers: claimed, kept, and told. What is decided is `model::steer::ordinal`'s.
//!
//! | task | does | is told by |
//! |---|---|---|
//! | [`Desk`], one a role | claims, writes again what a store lost, sees that it lost | the store's watch |
//! | [`Ordinals`] | begins and ends desks, writes the file for units | the settings, the desks |
//!
//! While nothing changes nothing is written or asked. A role that leaves the settings is told no longer; its number
//! stays the host's, until a person frees it.

mod desk;
mod release;
mod word;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

pub use desk::{Desk, Looked, Place};
pub use release::{Release, Released};
pub use word::claim;

use crate::model::steer::ordinal::told::{Standing, Standings};
use crate::model::words::ordinal::RoleName;
use crate::state::ordinal::{EnvironmentFile, KeptOrdinal};

/// Pause before a store that is away is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// What is counted. Roles come from the settings, so the labels are a closed set.
#[derive(Clone, Debug)]
pub struct Metrics {
    numbers: Family<RoleLabels, Gauge>,
    troubles: Family<RoleLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabels {
    role: String,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let own = Self { numbers: Family::default(), troubles: Family::default() };
        registry.register("wharf_ordinal", "This host's number, by role; 0 while it has none", own.numbers.clone());
        registry.register(
            "wharf_ordinal_trouble",
            "Whether its number is another's, or another machine bears its name, by role",
            own.troubles.clone(),
        );
        own
    }

    fn told(&self, role: &RoleName, standing: &Standing) {
        let labels = RoleLabels { role: role.to_string() };
        self.numbers.get_or_create(&labels).set(standing.number().unwrap_or_default().into());
        self.troubles.get_or_create(&labels).set(standing.is_trouble().into());
    }

    fn forget(&self, role: &RoleName) {
        let labels = RoleLabels { role: role.to_string() };
        self.numbers.remove(&labels);
        self.troubles.remove(&labels);
    }
}

/// How it is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who claims, and where.
    pub place: Place,
    /// Where copies are kept; none where nothing can be.
    pub state_dir: Option<PathBuf>,
    /// The file for units.
    pub environment: Option<EnvironmentFile>,
}

/// The worker that has a desk for each role of the settings.
#[derive(Debug)]
pub struct Ordinals {
    settings: Settings,
    roles: watch::Receiver<Arc<BTreeSet<RoleName>>>,
    standings: watch::Sender<Arc<Standings>>,
    metrics: Metrics,
    desks: JoinSet<()>,
    running: BTreeMap<RoleName, AbortHandle>,
    begun_anew: mpsc::Receiver<RoleName>,
}

/// Has desks begin anew, by what the store and the state directory have now.
#[derive(Clone, Debug)]
pub struct Anew(mpsc::Sender<RoleName>);

impl Anew {
    /// The desk of this role, if there is one.
    pub async fn begin(&self, role: &RoleName) {
        let _ = self.0.send(role.clone()).await; // nobody takes it when the agent stops
    }
}

/// Desks that may wait to begin anew.
const WAITING: usize = 8;

impl Ordinals {
    /// One for these roles, where it is read how the host stands, and what has desks begin anew.
    pub fn new(
        settings: Settings,
        roles: watch::Receiver<Arc<BTreeSet<RoleName>>>,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<Arc<Standings>>, Anew) {
        let (standings, seen) = watch::channel(Arc::default());
        let (desks, running) = (JoinSet::new(), BTreeMap::new());
        let (anew, begun_anew) = mpsc::channel(WAITING);
        (Self { settings, roles, standings, metrics, desks, running, begun_anew }, seen, Anew(anew))
    }

    /// Works until `stop`. Numbers stay claimed.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut standings = self.standings.subscribe();
        standings.mark_changed();
        loop {
            self.follow_settings();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Ok(()) = self.roles.changed() => {}
                Some(role) = self.begun_anew.recv() => {
                    if let Some(desk) = self.running.remove(&role) {
                        desk.abort();
                    }
                }
                Ok(()) = standings.changed() => {
                    let now = Arc::clone(&standings.borrow_and_update());
                    self.tell_units(&now).await;
                }
            }
        }
    }

    fn follow_settings(&mut self) {
        let wanted = Arc::clone(&self.roles.borrow_and_update());
        let gone: Vec<RoleName> = self.running.keys().filter(|role| !wanted.contains(role)).cloned().collect();
        for role in gone {
            if let Some(desk) = self.running.remove(&role) {
                desk.abort();
            }
            self.metrics.forget(&role);
            self.standings.send_modify(|told| {
                Arc::make_mut(told).remove(role.as_str());
            });
        }
        for role in wanted.iter() {
            if !self.running.contains_key(role) {
                let desk = self.begin(role);
                self.running.insert(role.clone(), desk);
            }
        }
    }

    fn begin(&mut self, role: &RoleName) -> AbortHandle {
        let kept = self.settings.state_dir.as_ref().map(|dir| KeptOrdinal::new(dir, role));
        let desk = Desk::new(self.settings.place.clone(), role.clone(), kept);
        let teller = Teller { role: role.clone(), standings: self.standings.clone(), metrics: self.metrics.clone() };
        teller.tell(&Standing::Claiming { reason: None });
        self.desks.spawn(serve(desk, teller).instrument(info_span!("ordinal", %role)))
    }

    async fn tell_units(&self, standings: &Standings) {
        // Without roles there is nothing to tell, nor a directory for it.
        let Some(file) = self.settings.environment.as_ref().filter(|_| !self.running.is_empty()) else { return };
        if let Err(error) = file.write(standings).await {
            tracing::warn!(%error, "units cannot be told this host's numbers: ordinals.env cannot be written");
        }
    }
}

/// Keeps one number for as long as it is polled.
async fn serve(mut desk: Desk, teller: Teller) {
    let mut is_away = false;
    loop {
        match desk.look().await {
            Ok(looked) => {
                is_away = false;
                teller.tell(&looked.standing);
                if looked.standing == Standing::Released {
                    return std::future::pending().await; // until the agent starts again
                }
                desk.wait(&looked).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut is_away, true) {
                    tracing::debug!(error = &error as &dyn std::error::Error, "the host's number cannot be looked at");
                }
                teller.tell_away(&error.to_string());
                sleep(AGAIN).await;
            }
        }
    }
}

/// Where one role's standing is told.
struct Teller {
    role: RoleName,
    standings: watch::Sender<Arc<Standings>>,
    metrics: Metrics,
}

impl Teller {
    fn tell(&self, standing: &Standing) {
        self.metrics.told(&self.role, standing);
        let is_new = self.standings.send_if_modified(|told| {
            let is_new = told.get(self.role.as_str()) != Some(standing);
            if is_new {
                Arc::make_mut(told).insert(self.role.text(), standing.clone());
            }
            is_new
        });
        if is_new && standing.is_trouble() {
            tracing::error!(role = %self.role, "this host's number {standing}");
        } else if is_new {
            tracing::info!(role = %self.role, "this host's number {standing}");
        }
    }

    /// What is known stands; only who has nothing says why.
    fn tell_away(&self, why: &str) {
        let told = Arc::clone(&self.standings.borrow());
        if matches!(told.get(self.role.as_str()), Some(Standing::Claiming { .. })) {
            self.tell(&Standing::Claiming { reason: Some(why.into()) });
        }
    }
}
