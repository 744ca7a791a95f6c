//! The masters that a Sentinel would watch, read off one snapshot.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::catalog::index::{Catalog, Endpoint, Led};
use crate::model::steer::names::Steered;
use crate::model::words::node::NodeRecord;
use crate::model::words::record::Text;
use crate::model::words::zone::Zones;

/// Masters that are told of; the names of further ones are not known here.
const MOST: usize = 10_000;
/// Replicas that are told of each: a topology names no more.
const MOST_REPLICAS: usize = 64;
/// Other Sentinels that are told of.
const MOST_SENTINELS: usize = 256;
/// Whose image this is, after the last slash and before the tag, speaks Redis' protocol and has roles.
const IMAGES: [&str; 4] = ["redis", "valkey", "redis-stack", "redis-stack-server"];
/// Redis' own port tells it of servers whose image nobody knows.
const PORT: u16 = 6379;
/// How long one that asks for a master that is being switched waits for the new one.
pub const HOLD: Duration = Duration::from_secs(2);

/// A server as clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenServer {
    /// Its address, or a name.
    pub host: Text,
    /// Its port.
    pub port: u16,
    /// What stands for its run id: the same as long as the same record names it.
    pub run_id: Text,
    /// The revision of its record.
    pub revision: i64,
}

/// A master and those who follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenMaster {
    /// The name that clients ask for.
    pub name: Text,
    /// The one that is master; nobody, while another one is being made master.
    pub server: Option<SeenServer>,
    /// Since when another one is being made master.
    pub switching: Option<Duration>,
    /// Its replicas.
    pub replicas: Vec<SeenServer>,
}

/// Another agent that serves this protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSentinel {
    /// Where it is reached.
    pub at: SocketAddr,
    /// Its id.
    pub id: Text,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masters {
    by_name: BTreeMap<Text, SeenMaster>,
    /// The other agents that serve this protocol.
    pub sentinels: Vec<SeenSentinel>,
    /// Where each master was last, also of those that are gone now.
    pub(super) last: BTreeMap<Text, SeenServer>,
}

impl Masters {
    /// Those of a snapshot, under the names of their services and under aliases (by alias, the service).
    pub fn of(catalog: &Catalog, zones: &Zones, aliases: &BTreeMap<String, String>) -> Self {
        let mut by_name = BTreeMap::new();
        for master in catalog.led(MOST_REPLICAS).filter_map(|led| SeenMaster::of(&led, zones)).take(MOST) {
            by_name.entry(master.name.clone()).or_insert(master);
        }
        for (alias, service) in aliases {
            if let (Some(master), false) = (by_name.get(service.as_str()), by_name.contains_key(alias.as_str())) {
                let name: Text = alias.as_str().into();
                let master = SeenMaster { name: Arc::clone(&name), ..master.clone() };
                by_name.insert(name, master);
            }
        }
        Self { by_name, ..Self::default() }
    }

    /// The same with the other agents that serve this protocol.
    #[must_use]
    pub fn beside(mut self, nodes: &[NodeRecord], own: &str) -> Self {
        let others = nodes.iter().filter(|node| *node.owner != *own).filter_map(SeenSentinel::of);
        self.sentinels = others.take(MOST_SENTINELS).collect();
        self
    }

    /// The same, knowing where each master was before.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        let settled = self.by_name.values().filter(|master| master.switching.is_none());
        let now = settled.filter_map(|master| Some((master.name.clone(), master.server.clone()?)));
        let now: BTreeMap<_, _> = now.collect();
        if before.last.len() <= MOST {
            self.last.clone_from(&before.last);
        } else {
            let is_here = |name: &Text| self.by_name.contains_key(name);
            self.last =
                before.last.iter().filter(|(name, _)| is_here(name)).map(|(n, s)| (n.clone(), s.clone())).collect();
        }
        self.last.extend(now);
        self
    }

    /// The master of this name.
    pub fn get(&self, name: &[u8]) -> Option<&SeenMaster> {
        self.by_name.get(std::str::from_utf8(name).ok()?)
    }

    /// Every master, by name.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &SeenMaster> {
        self.by_name.values()
    }

    /// Whether what is asked of one master, or of all, is to wait for a switch that is under way.
    pub fn is_held(&self, name: Option<&[u8]>, now: Duration) -> bool {
        match name {
            Some(name) => self.get(name).is_some_and(|master| master.is_held(now)),
            None => self.all().any(|master| master.is_held(now)),
        }
    }
}

impl SeenMaster {
    fn of(led: &Led, zones: &Zones) -> Option<Self> {
        let switching = match led.steered {
            Some(Steered::Switching(since)) => Some(since),
            Some(Steered::Named) | None => None,
        };
        let is_wanted = led.steered.is_some() || led.primary.as_ref().is_some_and(speaks_redis);
        let server = led.primary.as_ref().and_then(SeenServer::of);
        if !is_wanted || (server.is_none() && switching.is_none()) {
            return None;
        }
        let name = zones.service_name(&led.path)?.into();
        Some(Self { name, server, switching, replicas: led.replicas.iter().filter_map(SeenServer::of).collect() })
    }

    fn is_held(&self, now: Duration) -> bool {
        self.switching.is_some_and(|since| now < since.saturating_add(HOLD))
    }

    /// The master, unless another one is being made master: then it is not known who is.
    pub fn settled(&self) -> Option<&SeenServer> {
        self.server.as_ref().filter(|_| self.switching.is_none())
    }
}

/// Whether a record with a role is one of Redis' kind: as its image says, else its port or its service's name.
fn speaks_redis(endpoint: &Endpoint) -> bool {
    let record = endpoint.record();
    if let Some(image) = &record.image {
        let name = image.rsplit('/').next().unwrap_or_default();
        return IMAGES.contains(&name.split([':', '@']).next().unwrap_or_default());
    }
    let service = endpoint.key().rsplit('/').nth(1).unwrap_or_default();
    endpoint.port() == PORT || service.starts_with("redis") || service.starts_with("valkey")
}

impl SeenServer {
    fn of(endpoint: &Endpoint) -> Option<Self> {
        let host = endpoint.host();
        let is_reachable = !host.is_empty() && endpoint.port() > 0;
        let run_id = || hex_id(&[endpoint.key(), &host, &endpoint.port().to_string()]);
        is_reachable.then(|| Self {
            host: host.as_ref().into(),
            port: endpoint.port(),
            run_id: run_id(),
            revision: endpoint.revision(),
        })
    }

    /// Whether clients reach both in the same place.
    pub fn is_at(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }
}

impl fmt::Display for SeenServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl SeenSentinel {
    fn of(node: &NodeRecord) -> Option<Self> {
        let usable = |address: &&IpAddr| !address.is_unspecified();
        let address = node.addresses.iter().find(usable)?;
        Some(Self { at: SocketAddr::new(*address, node.sentinel?), id: hex_id(&[&node.owner]) })
    }
}

/// Forty hexadecimal digits, as Redis' ids are.
pub(super) fn hex_id(parts: &[&str]) -> Text {
    let digest = Sha256::digest(parts.join("\0").as_bytes());
    let digits = digest.iter().take(20).fold(String::with_capacity(40), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}"); // a String takes all
        digits
    });
    digits.into()
}
