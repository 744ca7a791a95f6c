//! Standing: what probes and Docker say of an instance, and what of it a record shows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::offer::instance::InstanceKey;
use crate::model::words::record::Role;

/// The state that people and programs are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It serves.
    Ready,
    /// It serves, and is full (postgres at max_connections).
    Saturated,
    /// It has not served yet.
    Starting,
    /// It served and does so no longer.
    Down,
    /// Docker's HEALTHCHECK says so.
    Unhealthy,
    /// Its processes are frozen by Docker.
    Paused,
    /// It was sent its stop signal.
    Stopping,
    /// The node is drained.
    Drained,
}

impl State {
    /// The closed set, for metrics.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::Saturated,
        Self::Starting,
        Self::Down,
        Self::Unhealthy,
        Self::Paused,
        Self::Stopping,
        Self::Drained,
    ];

    /// Whether a record may stand for it.
    pub fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::Saturated)
    }

    /// The word shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Saturated => "saturated",
            Self::Starting => "starting",
            Self::Down => "down",
            Self::Unhealthy => "unhealthy",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Drained => "drained",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of one instance now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its state.
    pub state: State,
    /// Its role, when its protocol tells one.
    pub role: Option<Role>,
    /// Since when it has been in this state.
    pub since: SystemTime,
    /// What the last probe met, in words, when it was not content.
    pub error: Option<Arc<str>>,
}

/// The standing of every instance of an offer; cheap to clone.
pub type Standings = imbl::OrdMap<InstanceKey, Arc<Standing>>;

/// How an instance serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Since when it has been serving without a break.
    pub since: SystemTime,
    /// What it is among its kind, when its protocol tells.
    pub role: Option<Role>,
    /// Since when its standing says that it serves; none as long as only its record from before a restart does.
    pub told: Option<SystemTime>,
}

/// Every serving instance.
pub type ServingMap = BTreeMap<InstanceKey, Serving>;
