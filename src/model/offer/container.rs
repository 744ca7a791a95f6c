//! A container as far as naming cares: plain facts, whatever engine told them.
//!
//! Nothing here is required to make sense. Text is as the container's owner wrote it; a fact that could not be read is
//! absent. Environment entries are secrets until proven otherwise, so `Debug` shows only how many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::model::words::record::Text;

/// One container at one moment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// The engine's full id.
    pub id: Text,
    /// Its name, without the leading slash.
    pub name: Text,
    /// The image as its owner named it.
    pub image: Text,
    /// The image's own id (`sha256:…`), when told.
    pub image_id: Text,
    /// The environment, `KEY=value` as given, in order; only what naming may ask for needs to be here.
    pub env: Vec<Text>,
    /// The labels.
    pub labels: BTreeMap<Text, Text>,
    /// Ports of the image or of `--expose`, as written: `6379/tcp`.
    pub exposed: BTreeSet<Text>,
    /// What the engine says of ports at run time: an empty list is exposed, yet not published.
    pub ports: BTreeMap<Text, Vec<Binding>>,
    /// `default`, `host`, `none`, `container:ID`, or a network's name or id.
    pub network_mode: Text,
    /// The networks it is attached to, by name.
    pub networks: BTreeMap<Text, Network>,
    /// What it does now.
    pub state: RunState,
    /// What its HEALTHCHECK says, when it has one.
    pub health: Option<Health>,
    /// The first process, in the engine's process namespace.
    pub pid: Option<i32>,
    /// When it was started, as the engine writes it; tells one life of a container from the next.
    pub started_at: Text,
    /// The number of the signal that asks it to stop.
    pub stop_signal: Option<u32>,
    /// How long it is given to stop.
    pub stop_timeout: Option<Duration>,
}

/// One published port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// The host's address, or empty, `0.0.0.0`, `::`.
    pub host_ip: Text,
    /// The host's port as the engine writes it.
    pub host_port: Text,
}

/// One attachment to a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// The network's id.
    pub id: Text,
    /// The container's addresses there, IPv4 before IPv6.
    pub addresses: Vec<IpAddr>,
    /// Who can reach them.
    pub scope: Scope,
}

/// Who can reach a container's address on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// This host alone, as far as is known: a bridge of the engine's.
    #[default]
    Host,
    /// Other hosts, too: macvlan and ipvlan put the container onto the network that the host is on.
    Beyond,
    /// The engine does not tell, for this reason.
    Untold(Text),
}

/// What a container does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunState {
    /// Its process runs.
    Running,
    /// Its process is frozen.
    Paused,
    /// Created, exited, between two starts, or being removed.
    #[default]
    Stopped,
}

/// What a HEALTHCHECK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing yet.
    Starting,
    /// Content.
    Healthy,
    /// Failed often enough.
    Unhealthy,
}

impl Container {
    /// Whether it has a process, frozen or not.
    pub fn runs(&self) -> bool {
        self.state != RunState::Stopped
    }

    /// Whether it matters how far its networks reach: it exposes a port that the engine does not publish, on a network
    /// that may have a way of its own.
    pub fn asks_for_networks(&self) -> bool {
        let mode = &*self.network_mode;
        let routed = !matches!(mode, "" | "default" | "bridge" | "host" | "none") && !mode.starts_with("container:");
        routed && self.exposed.iter().any(|port| !self.ports.contains_key(port))
    }

    /// What people are shown: the name, or the short id of one without a name.
    pub fn shown(&self) -> Text {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        self.id.get(..12).unwrap_or(&self.id).into()
    }

    /// The value of an environment entry; the last one counts.
    pub fn env(&self, key: &str) -> Option<&str> {
        let entries = self.env.iter().rev();
        entries.filter_map(|entry| entry.split_once('=')).find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("image", &self.image)
            .field("env", &self.env.len())
            .field("labels", &self.labels.len())
            .field("ports", &self.ports.len())
            .field("network_mode", &self.network_mode)
            .field("networks", &self.networks)
            .field("state", &self.state)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

/// What the engine's watch tells the inventory, in the order in which it must be believed.
#[derive(Clone, Debug)]
pub enum Sighting {
    /// A container was looked at.
    Seen(std::sync::Arc<Container>),
    /// A container stopped, died or was removed.
    Gone(Text),
    /// A container was sent a signal that asks it to stop.
    Stopping(Text),
    /// A container that was asked to stop has outlived its time.
    Survived(Text),
    /// A container runs, and cannot be looked at: the words say why.
    Unseen(Text, String),
    /// These are all the containers that run; others are gone.
    Listed(BTreeSet<Text>),
    /// Every container of the last list has been looked at.
    InStep,
    /// The engine answers, or does not.
    Engine(bool),
}
