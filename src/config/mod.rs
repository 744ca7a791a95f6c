//! Settings: from what people write ([`raw`]) to what the workers are built with ([`Config`]).
//!
//! A flag wins over its `WHARF_*` variable, which wins over the file. Every problem is found in one pass and told with
//! its place, before anything is opened or written.

mod autodiscovery;
mod conflicts;
mod etcd_v2;
mod exhibitor;
mod file;
mod ordinal;
pub(crate) mod parse;
mod proxy;
pub mod raw;
mod render;
mod service;
mod text;
mod topology;
mod validate;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::offer::advertise::Advertise;
use crate::model::offer::naming::{AllowNames, ChecksMode, SecretRule, StaticService};
use crate::model::words::key::Prefix;
use crate::model::words::ordinal::RoleName;
use crate::model::words::site::Site;
pub use autodiscovery::AutodiscoveryConfig;
pub use etcd_v2::EtcdV2Config;
pub use exhibitor::ExhibitorConfig;
use file::Origins;
pub use proxy::{ProxyConfig, ProxyUpstream};
pub use raw::Raw;
pub use render::{RawRender, RenderConfig, RenderFrom};
pub use topology::TopologyConfig;

/// The agent's settings, all of them valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The settings as they were written, joined.
    pub written: Raw,
    /// Where they were written.
    origins: Origins,
    /// This host's name among the nodes.
    pub node: String,
    /// Where this host is.
    pub site: Option<Site>,
    /// What to offer and how.
    pub offer: OfferConfig,
    /// How to probe.
    pub probe: ProbeConfig,
    /// Where records are kept.
    pub store: StoreConfig,
    /// How DNS is answered.
    pub dns: DnsConfig,
    /// How HTTP is served.
    pub http: HttpConfig,
    /// How Sentinel's protocol is spoken, if it is.
    pub sentinel: Option<SentinelConfig>,
    /// How etcd's v2 API is served, if it is.
    pub etcd_v2: Option<EtcdV2Config>,
    /// What is logged and how.
    pub log: LogConfig,
    /// `[[topology]]` tables.
    pub topologies: Vec<TopologyConfig>,
    /// `[[proxy]]` tables.
    pub proxies: Vec<ProxyConfig>,
    /// Whether these are left to a process of their own.
    pub proxy_apart: bool,
    /// `[[autodiscovery]]` tables.
    pub autodiscoveries: Vec<AutodiscoveryConfig>,
    /// The roles of `[[ordinal]]` tables.
    pub ordinals: BTreeSet<RoleName>,
    /// How Exhibitor's API is served, if it is.
    pub exhibitor: Option<ExhibitorConfig>,
    /// The directory for what lives no longer than the agent.
    pub runtime_dir: Option<PathBuf>,
    /// `[[render]]` tables.
    pub renders: Vec<RenderConfig>,
}

/// What this host offers.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferConfig {
    /// How the advertised address is chosen, one per family at most.
    pub advertise: Vec<Advertise>,
    /// The engine's address.
    pub docker: String,
    /// Containers' own addresses instead of published ports.
    pub internal: bool,
    /// Only ports with a SERVICE_NAME.
    pub explicit: bool,
    /// Tags that every instance gets.
    pub tags: Vec<String>,
    /// Network to take addresses from.
    pub network: Option<String>,
    /// Label that holds an address.
    pub address_label: Option<String>,
    /// Names that containers may claim.
    pub allow_names: AllowNames,
    /// `[[service]]` tables.
    pub services: Vec<StaticService>,
}

impl OfferConfig {
    /// The engine's address; none on a host without an engine.
    pub fn engine(&self) -> Option<&str> {
        (self.docker != "none").then_some(self.docker.as_str())
    }
}

/// How instances are probed.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeConfig {
    /// Which ones.
    pub checks: ChecksMode,
    /// Where password files are.
    pub secrets: Option<PathBuf>,
    /// `[[secret]]` tables.
    pub rules: Vec<SecretRule>,
    /// From one start to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Failures in a row that take an instance down.
    pub fall: u32,
    /// Successes in a row that bring it up.
    pub rise: u32,
}

/// Where records are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where Patroni keeps its scopes.
    pub patroni: Vec<Prefix>,
    /// etcd, or the embedded store.
    pub etcd: Option<EtcdConfig>,
    /// The root of the tree.
    pub prefix: Prefix,
    /// How long records outlive their agent.
    pub lease_ttl: Duration,
    /// The most records that are taken from it.
    pub max_records: u32,
    /// Where the owner, the lease and the last catalog are kept.
    pub state_dir: PathBuf,
    /// Withdraw at SIGTERM instead of keeping the records for the rest of the lease.
    pub withdraw_on_stop: bool,
}

/// How etcd is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `http://…` or `https://…`, each with a port.
    pub endpoints: Vec<String>,
    /// PEM of the authorities.
    pub ca: Option<PathBuf>,
    /// PEM of our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// User, and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

/// How DNS is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The name of the prefix.
    pub domain: String,
    /// Further zones with their prefixes.
    pub zones: Vec<(String, Prefix)>,
    /// Sockets to answer on.
    pub listen: Vec<SocketAddr>,
    /// Time an answer may be kept.
    pub ttl: Duration,
    /// Time a negative answer may be kept.
    pub negative_ttl: Duration,
    /// Resolvers for foreign names.
    pub forward: Vec<Forward>,
    /// Who may have names forwarded.
    pub forward_allow: Vec<IpNet>,
    /// Who may ask; empty is everyone.
    pub allow: Vec<IpNet>,
    /// Every SRV answer prefers what is near.
    pub near_priority: bool,
    /// UDP answers a second to one network; 0 is no limit.
    pub rate_limit: u32,
}

/// A resolver for foreign names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// What this host uses.
    System,
    /// This one.
    Server(SocketAddr),
}

/// How HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// TCP.
    pub listen: SocketAddr,
    /// A unix socket too.
    pub socket: Option<PathBuf>,
    /// File with the token for drain.
    pub token_file: Option<PathBuf>,
    /// Host names that requests may name.
    pub hosts: Vec<String>,
}

/// How Sentinel's protocol is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelConfig {
    /// Where.
    pub listen: SocketAddr,
    /// File with the password that clients have to know.
    pub password_file: Option<PathBuf>,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// tracing's filter.
    pub filter: String,
    /// JSON lines instead of text.
    pub json: bool,
}

/// What the settings' defaults come from, read once by `main`'s side.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The host's name.
    pub hostname: String,
    /// In a container that has a network of its own.
    pub contained: bool,
    /// The environment: DOCKER_HOST, STATE_DIRECTORY, RUNTIME_DIRECTORY.
    pub environment: HashMap<String, String>,
}

/// One thing wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where: `--lease-ttl`, `wharf.toml: service[2].port`.
    pub at: String,
    /// What, and what would be right.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// Every problem of a set of settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Each of them once, in the order of their places.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(problem, f)?;
        }
        Ok(())
    }
}

impl Config {
    /// The keys of the settings that were written differently.
    pub fn changed_keys(&self, other: &Self) -> Vec<String> {
        file::differing(&self.written, &other.written)
    }

    /// Joins flags (with their variables) and the file's text, if there is one, and reads them.
    pub fn load(flags: &Raw, file: Option<(&str, &str)>, surroundings: &Surroundings) -> Result<Self, Problems> {
        let (merged, origins, problems) = file::merge(flags, file, &surroundings.environment);
        Self::read(&merged, &origins, surroundings, problems)
    }

    /// These settings with those of `new` whose keys are `live`; all others stay as they are.
    pub fn taking(&self, new: &Self, live: &[&str], surroundings: &Surroundings) -> Result<Self, Problems> {
        let written = file::taking(&self.written, &new.written, live);
        Self::read(&written, &new.origins, surroundings, Vec::new())
    }

    /// Where the store is; none where that is not told by addresses.
    pub fn etcd_addresses(&self) -> Option<Vec<SocketAddr>> {
        conflicts::etcd_addresses(self)
    }

    /// A problem of a setting, with the place where it is written.
    pub fn problem(&self, key: &str, what: impl Into<String>) -> Problem {
        Problem { at: self.origins.place(key), what: what.into() }
    }

    fn read(
        raw: &Raw,
        origins: &Origins,
        surroundings: &Surroundings,
        mut problems: Vec<Problem>,
    ) -> Result<Self, Problems> {
        let config = validate::validate(raw, origins, surroundings, &mut problems);
        let conflicts = config.as_ref().map(conflicts::all).unwrap_or_default();
        problems.extend(conflicts.into_iter().map(|(key, what)| Problem { at: origins.place(key), what }));
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Problems::new(problems)),
        }
    }
}

#[cfg(test)]
mod tests;
