//! Builds the agent: opens what it stands on, makes every worker and joins their channels.
//!
//! Everything that can fail does so here, before the first worker runs, and says what was tried.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

use super::drain::DrainDesk;
use super::settings;
use crate::cli::VERSION;
use crate::config::Config;
use crate::docker;
use crate::find::{http, mirror, nodes, view};
use crate::host::{self, identity};
use crate::model::health::Rules;
use crate::model::instance::Offer;
use crate::model::local::Local;
use crate::model::memory::{Here, Resumed};
use crate::model::naming;
use crate::model::node::AgentFacts;
use crate::model::zone::{BadZone, Zones};
use crate::offer::drain::Drain;
use crate::offer::{inventory, probe, registrar};
use crate::state::{StateDir, StateError};
use crate::store::Store;
use crate::store::embedded::Embedded;
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
    #[error("engine address cannot be used")]
    Docker(#[from] docker::BadEndpoint),
    #[error("HTTP cannot be served")]
    Http(#[from] http::BindError),
}

impl BuildError {
    /// Whether the settings are to blame, or the host.
    pub(super) fn is_wrong_use(&self) -> bool {
        matches!(self, Self::State(_) | Self::Zone(_) | Self::Docker(_))
    }
}

/// What the rest of the app needs of the workers.
pub(super) struct Agent {
    pub(super) inventory: watch::Sender<Arc<inventory::Settings>>,
    pub(super) offer: watch::Receiver<Arc<Offer>>,
    pub(super) local: watch::Receiver<Arc<Local>>,
    pub(super) view: view::CatalogView,
    pub(super) ready: watch::Sender<http::Readiness>,
    pub(super) drain: Drain,
    pub(super) http: Vec<std::net::SocketAddr>,
}
