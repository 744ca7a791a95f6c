//! Probes: whether what this host means to offer serves, found out by asking it.
//!
//! [`Fleet`] is the worker: it follows the offer, asks every instance that has a check, and publishes standings. *When*
//! to ask is `schedule` (pure), *what* to ask is `question`, what follows from the answers is [`crate::model::health`].

mod berths;
mod fleet;
mod metrics;
mod postgres;
mod question;
mod redis;
mod schedule;
mod secret;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::model::health::Rules;
use crate::model::record::{Role, Text};

pub use fleet::{Fleet, FleetError};

/// How probes are made where an instance's own check does not say otherwise.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From one probe's start to the next.
    pub interval: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Rise and fall.
    pub rules: Rules,
    /// Where password files are; without it none is read.
    pub secrets_dir: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            timeout: Duration::from_millis(500),
            rules: Rules::default(),
            secrets_dir: None,
        }
    }
}

/// Records that an earlier life of this agent published and this one took over, by the `id` in them. They count as
/// ready until probes say otherwise. Each is used once, and none after the first full list of Docker's containers.
pub type Adoptions = HashMap<Text, Adopted>;

/// One record taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// 12 hex digits of the container it was published for; another container with the same id is another instance.
    pub container: Option<Text>,
    /// Since when it has been serving.
    pub since: SystemTime,
    /// The role it had.
    pub role: Option<Role>,
}
