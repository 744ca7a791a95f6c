//! Steering: what the agent tells the servers of a service that has a `[[topology]]` table, and nobody else, ever.
//!
//! The decisions are `model::steer`'s; here they are carried out. Between operations there is no lease, no keepalive
//! and no write.
//!
//! | task | does | is told by |
//! |---|---|---|
//! | [`Follow`](follow::Follow), one a service | keeps what the store has of its topology | the store's watch |
//! | [`Show`](show::Show), one a service | shows it, and keeps a copy in the state directory | [`Follow`](follow::Follow) |
//! | [`Glance`](glance::Glance), one a service | looks at the servers | whoever wants to see them |
//! | [`Desk`], one a service | asks for operations, one after the other | requests, [`Follow`](follow::Follow), the registry |
//!
//! | channel | from | to | when full |
//! |---|---|---|---|
//! | [`Request`] | HTTP, the command line, a drain | [`Desk`] | the next request is told that an operation is at work |
//! | [`Handle::looks`] | HTTP, the command line | [`Glance`](glance::Glance) | whoever asks waits, and gives up |
//!
//! On every agent, whether it may steer or not, the [`Marker`] tells those who switch that who asks here is kept.
//!
//! The numbers of hosts ([`ordinal`]) are a matter of their own, in a folder of its own.

mod desk;
mod follow;
mod glance;
mod hold;
mod late;
mod lookup;
mod marker;
mod metrics;
mod operation;
pub mod ordinal;
mod servers;
mod show;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};

use crate::host::Secrets;
use crate::model::steer::roster::Roster;
use crate::model::steer::told::{Shown, Sights};
use crate::model::steer::topology::Desired;
use crate::model::words::key::Prefix;
use crate::state::topology::KeptTopology;
use crate::store::Store;
use servers::Access;

pub use desk::Desk;
pub use marker::Marker;
pub use metrics::Metrics;
pub use operation::Outcome;

pub(crate) use lookup::places;

/// One `[[topology]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The service.
    pub service: String,
    /// Where its servers may be; nothing is sent elsewhere.
    pub servers: Vec<IpNet>,
    /// The ACL user to be.
    pub user: Option<String>,
    /// The file with the password, a bare name within `secrets`.
    pub password_file: Option<String>,
    /// Where password files are.
    pub secrets: Option<PathBuf>,
    /// How long writes may be held.
    pub max_pause: Duration,
    /// Whether the servers speak TLS.
    pub tls: bool,
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A topology.
    Apply {
        /// Which one.
        desired: Desired,
        /// Whether he overrules what a person may overrule.
        force: bool,
        /// Whether he only wants to know.
        dry_run: bool,
    },
    /// That nothing be done to it any more, or again.
    Pause(bool),
    /// That a master on this host give way to a replica on another one.
    GiveAway,
}

/// Something to be done about a topology. One whose asker has gone before its turn is not begun.
#[derive(Debug)]
pub struct Request {
    /// What.
    pub ask: Ask,
    /// Told what came of it.
    pub reply: oneshot::Sender<Outcome>,
}

/// Where a topology is asked for and read.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The table.
    pub settings: Arc<Settings>,
    /// Where requests are handed in.
    pub requests: mpsc::Sender<Request>,
    /// What is known.
    pub shown: watch::Receiver<Arc<Shown>>,
    /// Where it is asked how the servers stand, now.
    pub looks: mpsc::Sender<oneshot::Sender<Arc<Sights>>>,
}

/// The registry's word on a service, now.
pub type Registry = Arc<dyn Fn(&str) -> Roster + Send + Sync>;

/// The agents whose marks a switch waits for, now.
pub type Agents = Arc<dyn Fn() -> BTreeSet<String> + Send + Sync>;

/// What a desk stands on.
#[derive(Clone)]
pub struct Inputs {
    /// Where journals are kept.
    pub store: Arc<dyn Store>,
    /// The root of the tree of records.
    pub prefix: Prefix,
    /// This agent's identity.
    pub owner: String,
    /// This host's name.
    pub node: String,
    /// Where a copy of what the store has is kept.
    pub kept: Option<KeptTopology>,
    /// What is counted.
    pub metrics: Option<Metrics>,
    /// The registry.
    pub registry: Registry,
    /// The agents that keep whoever asks them for the master.
    pub agents: Agents,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("prefix", &self.prefix).field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// How one logs in, with the password as the file has it now.
async fn access(settings: &Settings) -> Result<Access, String> {
    let password = match &settings.password_file {
        None => None,
        Some(name) => {
            let read = Secrets::new(settings.secrets.clone()).read(Path::new(name)).await;
            Some(read.map_err(|error| error.to_string())?.to_string())
        }
    };
    Ok(Access { service: settings.service.clone(), user: settings.user.clone(), password, tls: settings.tls })
}
