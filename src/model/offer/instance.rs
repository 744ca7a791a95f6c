//! An instance: one port of one container (or one `[[service]]` of the config file) that this host means to offer.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::words::name::{Label, ServiceName};
use crate::model::words::record::{Proto, Role, Text};

/// Where an instance comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A container, by its full id.
    Container(Text),
    /// A `[[service]]` table, by its place among those of the same name.
    Static(Text),
}

/// What tells one instance of this host from another, for as long as its container lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey {
    /// The container or table.
    pub source: Source,
    /// The container's own port.
    pub port: u16,
    /// Stream or datagrams.
    pub proto: Proto,
}

impl InstanceKey {
    /// The 12 hex digits that a record names its container by.
    pub fn container(&self) -> Option<&str> {
        match &self.source {
            Source::Container(id) => Some(id.get(..12).unwrap_or(id)),
            Source::Static(_) => None,
        }
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Source::Container(source) | Source::Static(source)) = &self.source;
        let short = source.get(..12).unwrap_or(source);
        write!(f, "{short}:{}/{}", self.port, self.proto)
    }
}

/// One port that this host means to offer, with all that a record and a probe need to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its identity on this host.
    pub key: InstanceKey,
    /// The services it belongs to, at least one; each gets a record of its own.
    pub services: Vec<ServiceName>,
    /// registrator's id, or SERVICE_ID.
    pub id: Text,
    /// The slug of the id: the key's last label.
    pub label: Label,
    /// The address that clients connect to.
    pub host: IpAddr,
    /// The same instance's address of the other family.
    pub host6: Option<IpAddr>,
    /// The port that clients connect to.
    pub port: u16,
    /// SERVICE_ROLE, which overrides what probes say.
    pub role: Option<Role>,
    /// SRV priority, when given.
    pub priority: Option<u16>,
    /// SRV weight, when given.
    pub weight: Option<u16>,
    /// SERVICE_TTL, when given.
    pub ttl: Option<Duration>,
    /// Tags in the order given.
    pub tags: Vec<Text>,
    /// Attributes that may leave the host.
    pub attrs: BTreeMap<Text, Text>,
    /// The container's name, empty for a static one.
    pub container_name: Text,
    /// The image as named, empty for a static one.
    pub image: Text,
    /// How readiness is found out.
    pub check: Check,
    /// What Docker says of the container.
    pub docker: DockerStanding,
    /// When the container was started, as the engine writes it: tells one life of it from the next. Empty for a static
    /// one.
    pub started: Text,
}

/// What Docker says of an instance's container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DockerStanding {
    /// It runs; no HEALTHCHECK, or one that is set aside.
    #[default]
    Running,
    /// It runs and its HEALTHCHECK is content.
    Healthy,
    /// It runs and its HEALTHCHECK has not spoken yet.
    Starting,
    /// Its HEALTHCHECK has failed.
    Unhealthy,
    /// Its processes are frozen.
    Paused,
    /// It was sent its stop signal.
    Stopping,
}

/// How an instance's readiness is found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// The protocol asked.
    pub kind: CheckKind,
    /// True when nobody asked for it by a label: the image's name told.
    pub guessed: bool,
    /// Where the probe connects: an address of this host or the container's own.
    pub target: Option<SocketAddr>,
    /// The container's own address with this port, where it has one.
    pub own: Option<SocketAddr>,
    /// Whom its password may be told.
    pub confidant: Confidant,
    /// From one probe's start to the next.
    pub interval: Option<Duration>,
    /// How long one probe may take.
    pub timeout: Option<Duration>,
    /// What the protocol is told beyond its defaults.
    pub detail: CheckDetail,
    /// What was asked for and cannot be had, in words (`script` checks and the like).
    pub warning: Option<String>,
}

impl Check {
    /// What is asked, where, and how often where nothing else is said.
    pub fn asks(&self, usual: Duration) -> Option<String> {
        let target = self.target.filter(|_| self.kind != CheckKind::None)?;
        let every = humantime::format_duration(self.interval.unwrap_or(usual));
        let path = self.detail.path.as_deref().unwrap_or("/");
        let scheme = if self.detail.tls { "https" } else { "http" };
        Some(match self.kind {
            CheckKind::Http => format!("GET {scheme}://{target}{path} every {every}"),
            kind => format!("{kind} at {target} every {every}"),
        })
    }
}

/// The protocol a probe speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckKind {
    /// No probe: Docker's word is enough.
    #[default]
    None,
    /// A connection that stays open.
    Tcp,
    /// `version`, by text or binary.
    Memcached,
    /// `PING` and `INFO replication`; also valkey.
    Redis,
    /// A startup packet, or a whole login with credentials.
    Postgres,
    /// A GET with a 2xx or 3xx status.
    Http,
    /// `srvr`.
    Zookeeper,
    /// A finished handshake.
    Mysql,
    /// `hello`.
    Mongodb,
}

impl CheckKind {
    /// The name used in SERVICE_CHECK and shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tcp => "tcp",
            Self::Memcached => "memcached",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Http => "http",
            Self::Zookeeper => "zookeeper",
            Self::Mysql => "mysql",
            Self::Mongodb => "mongodb",
        }
    }
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a probe is told beyond its protocol's defaults.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CheckDetail {
    /// The path of an HTTP check.
    pub path: Option<Text>,
    /// Whether the HTTP check (or another) goes over TLS.
    pub tls: bool,
    /// The user to log in as.
    pub user: Option<Text>,
    /// The password, never shown.
    pub password: Option<Secret>,
    /// The database to log in to.
    pub database: Option<Text>,
}

impl fmt::Debug for CheckDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckDetail").field("path", &self.path).field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// Whom a password may be told. Probes without one go elsewhere, to [`Check::target`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confidant {
    /// Nobody, for this reason.
    Nobody(&'static str),
    /// Whatever serves at the target, an address of this host: a table of the configuration says so.
    Table,
    /// What serves at the container's own address, as long as its process lives.
    Own(SocketAddr, FirstProcess),
    /// What serves at the target, if it is a process of the container: it has no address of its own.
    OnHost(FirstProcess),
}

impl Default for Confidant {
    fn default() -> Self {
        Self::Nobody("it has no password")
    }
}

impl Confidant {
    /// Whether it is a container's, of which only the engine knows.
    pub fn is_container(&self) -> bool {
        matches!(self, Self::Own(..) | Self::OnHost(_))
    }
}

/// A container's first process, as the engine tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstProcess {
    /// The container's full id.
    pub container: Text,
    /// The process, if it is of this host.
    pub pid: i32,
}

/// Where a password is to be had. Its value is in no log, record, error or argument list.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// From the container's own environment.
    Value(Arc<str>),
    /// A bare file name inside `--check-secrets`.
    File(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value(_) => "Secret::Value(…)",
            Self::File(_) => "Secret::File(…)",
        })
    }
}

/// A port that is not offered, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// The container's name, or the table's.
    pub container: Text,
    /// `6379/tcp`, or empty when it is all of the container.
    pub port: String,
    /// What stands in the way, from a closed set, for counting: `loopback`, `ignored`, `no-address`, …
    pub kind: &'static str,
    /// The reason in words.
    pub reason: String,
}

/// An attribute that never leaves the host, because its key speaks of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withheld {
    /// The container's name, or the table's.
    pub container: Text,
    /// The port that it was given for: `6379/tcp`.
    pub port: String,
    /// Its key; the value is nowhere.
    pub attr: String,
}

/// What this host means to offer at one moment, whole.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// Every instance by its key; cheap to clone.
    pub instances: imbl::OrdMap<InstanceKey, Arc<Instance>>,
    /// Every port not offered.
    pub skipped: imbl::OrdMap<Text, Arc<[Skipped]>>,
    /// Every attribute withheld.
    pub withheld: imbl::OrdMap<Text, Arc<[Withheld]>>,
    /// Docker has been listed since the agent started: what is not here is not there.
    pub listed: bool,
    /// Docker answers now.
    pub engine: bool,
}
