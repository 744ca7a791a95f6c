//! Probes: whether what this host means to offer serves, found out by asking it.
//!
//! [`Fleet`] is the worker: it follows the offer, asks every instance that has a check, and publishes standings. *When*
//! to ask is `schedule` (pure), *what* to ask is `question`, what follows from the answers is [`crate::model::health`].

mod berths;
mod confide;
mod fleet;
mod metrics;
mod postgres;
mod question;
mod redis;
mod schedule;
mod secret;
mod shares;

use std::path::PathBuf;
use std::time::Duration;

use crate::model::health::Rules;

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
