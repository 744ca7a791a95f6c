//! What HTTP says and the command line reads: one definition of every JSON shape for both sides.
//!
//! Readers ignore fields that they do not know, so an older command understands a newer agent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::catalog::index;
use crate::model::steer::lock::told::Status;
use crate::model::steer::ordinal::told::Standings;
use crate::model::words::known::{Known, absent};
use crate::model::words::node::NodeRecord;
use crate::model::words::place::place;
use crate::model::words::record::{Proto, Record, Role, Text};

/// `GET /v1/services`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Services {
    /// The store's revision that the catalog has seen.
    pub revision: i64,
    /// The store is away: this is what was last known.
    pub stale: bool,
    /// Every service by name.
    pub services: Vec<Service>,
}

/// `GET /v1/services/NAME`, and one of [`Services`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// The dotted name.
    pub name: Text,
    /// Several endpoints say that they are the primary; `primary.NAME` names none until one is left.
    #[serde(skip_serializing_if = "is_false")]
    pub contested: bool,
    /// The catalog's revision; only where a service is asked for alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Whether the catalog is stale; only where a service is asked for alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<bool>,
    /// Keys of endpoints that are gone; only in changes that are told by endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Text>,
    /// Its endpoints in the order of their keys.
    pub endpoints: Vec<Endpoint>,
}

/// A record as found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Every field of the record.
    #[serde(flatten)]
    pub record: Record,
    /// Its key in the store.
    pub key: Text,
    /// It vanished when the store came back and is still answered until its owner publishes it again.
    #[serde(skip_serializing_if = "is_false")]
    pub held: bool,
}

/// One event of `GET /v1/watch`: services that changed, whole or by their endpoints that did, and those that went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// The store's revision that the catalog has seen.
    pub revision: i64,
    /// The store is away.
    pub stale: bool,
    /// Names of services that have no endpoint any more.
    pub removed: Vec<Text>,
    /// Services that are new or changed, each with all its endpoints; by endpoint: with those that are new or changed.
    pub changed: Vec<Service>,
}

/// `GET /v1/ordinals`: this host's numbers, and those of the hosts that are up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ordinals {
    /// How this host stands, by role of its settings.
    pub ordinals: Standings,
    /// The store is away: these are the hosts that were last known to be up.
    pub stale: bool,
    /// The hosts that are up, by role and number.
    pub hosts: BTreeMap<Text, BTreeMap<u32, Text>>,
}

/// `GET /v1/etcd-v2`: how etcd's v2 API stands on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EtcdV2 {
    /// Where it is served; null where it is not.
    pub listen: Option<Text>,
    /// What its clients met lately.
    pub troubles: Vec<EtcdV2Trouble>,
}

/// What clients of etcd's v2 API met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EtcdV2Trouble {
    /// `away`, `refused` or `failed`.
    pub kind: Text,
    /// RFC 3339 time since when the store is away, or when the last request met it.
    pub since: Text,
    /// How many requests met it since the agent began.
    pub count: u64,
    /// Whose the last one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Text>,
    /// What the last one asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Text>,
    /// The reason in words.
    pub why: Text,
}

/// `DELETE /v1/ordinals/NAME`: a number that was freed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Freed {
    /// The host that had it.
    pub node: Text,
    /// The number.
    pub number: u32,
    /// Whether it is free now; else it is as soon as the host's agent has seen that.
    pub free: bool,
}

/// `GET /v1/locks`: the locks of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Locks {
    /// Those that somebody has, or whose last program is not known to be dead.
    pub locks: Vec<Status>,
    /// The store is away: this was known last.
    pub stale: bool,
}

/// `GET /v1/local`: what this host shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Local {
    /// The host's name.
    pub node: Text,
    /// The agent's identity.
    pub owner: Text,
    /// The agent's version.
    pub version: Text,
    /// RFC 3339 time since when the host has been drained.
    pub drained: Option<Text>,
    /// What a person has withdrawn, by whose word and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<Maintained>,
    /// RFC 3339 time since when the host's addresses could not be read again: what was known of them stands.
    pub addresses_unread: Option<Text>,
    /// Addresses of this host that are known from before a restart alone: no default route has told them since.
    pub addresses_remembered: Vec<Text>,
    /// How Docker is reached.
    pub docker: DockerReach,
    /// How publication stands.
    pub store: Publication,
    /// Every port that this host means to offer.
    pub instances: Vec<LocalInstance>,
    /// Every port that is not offered, with its reason.
    pub skipped: Vec<LocalSkipped>,
    /// Attributes that never leave this host because their keys speak of secrets; their values are nowhere.
    pub withheld: Vec<LocalWithheld>,
}

/// Something that a person has withdrawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Maintained {
    /// A service, an instance's id or a container's name; absent for the whole host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<Text>,
    /// RFC 3339 time since when.
    pub since: Text,
    /// By whose word.
    pub who: Text,
    /// Why; empty where nobody said.
    pub reason: Text,
}

/// How this host's Docker engine is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DockerReach {
    /// It answers now.
    pub reachable: bool,
    /// Its containers have been listed since the agent started.
    pub listed: bool,
}

/// How this host's publication stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Publication {
    /// `none`, `alive` or `doubtful`.
    pub session: Text,
    /// The lease in hexadecimal, as etcdctl shows it; absent without one.
    pub lease: Option<Text>,
    /// Keys of this host in the store.
    pub records: usize,
    /// Keys whose change the store has not confirmed yet.
    pub unconfirmed: usize,
    /// Why the store does not answer; absent while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<StoreTrouble>,
    /// What the withdrawal of a drained host still waits for, in words.
    pub awaits: Option<Text>,
}

/// What stands between this host and the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreTrouble {
    /// Who was asked last.
    pub endpoint: Text,
    /// What came of it.
    pub why: Text,
    /// RFC 3339 time since when nobody has answered.
    pub since: Text,
}

/// One port that this host means to offer, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalInstance {
    /// registrator's id, or SERVICE_ID.
    pub id: Text,
    /// The first of its services.
    pub service: Text,
    /// All of its services.
    pub services: Vec<Text>,
    /// Its keys, as far as it has some.
    pub keys: Vec<Text>,
    /// Address that clients connect to.
    pub host: Text,
    /// The same instance's address of the other family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host6: Option<Text>,
    /// Port that clients connect to.
    pub port: u16,
    /// Stream or datagrams.
    pub proto: Proto,
    /// The container's own port.
    pub exposed: u16,
    /// Primary, replica, or neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Tags in the order given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Text>,
    /// Attributes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<Text, Text>,
    /// 12 hex digits of the container's id; absent for what runs outside Docker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Text>,
    /// The container's name; empty for what runs outside Docker.
    pub container_name: Text,
    /// The image as named; empty for what runs outside Docker.
    pub image: Text,
    /// `ready`, `saturated`, `starting`, `down`, `unhealthy`, `paused`, `stopping` or `drained`.
    pub state: Text,
    /// Its records stand in the store.
    pub published: bool,
    /// The protocol that is asked for its readiness.
    pub check: Text,
    /// Nobody asked for that check: the image's name told.
    pub guessed: bool,
    /// Where the probe connects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Text>,
    /// What is asked, where and how often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asks: Option<Text>,
    /// A check that was asked for and cannot be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<Text>,
    /// What the last probe met, or why it cannot be published.
    pub error: Option<Text>,
    /// RFC 3339 time since when it has been in this state.
    pub since: Option<Text>,
}

/// A port that is not offered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalSkipped {
    /// The container's name, or the table's.
    pub container: Text,
    /// `6379/tcp`, or empty when it is all of the container.
    pub port: Text,
    /// What stands in the way, in one word of a closed set.
    pub kind: Text,
    /// The reason in words.
    pub reason: Text,
}

/// An attribute that is in no record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalWithheld {
    /// The container's name, or the table's.
    pub container: Text,
    /// The port that it was given for: `6379/tcp`.
    pub port: Text,
    /// Its key.
    pub attr: Text,
}

/// A host that is known, and whose agent does not live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Absent {
    /// The host's name.
    pub node: Text,
    /// The agent's identity.
    pub owner: Text,
    /// The agent's version.
    pub version: Text,
    /// The addresses that it advertised.
    pub addresses: Vec<IpAddr>,
    /// RFC 3339 time since when; absent where nobody has written it down yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Text>,
    /// Services that it offered when it was last seen.
    pub services: Vec<Text>,
}

impl Absent {
    fn of(known: &Known) -> Self {
        let host = &known.host;
        Self {
            node: host.node.clone(),
            owner: host.owner.clone(),
            version: host.version.clone(),
            addresses: host.addresses.clone(),
            since: host.stopped.clone().or_else(|| host.lost.clone()),
            services: host.services.clone(),
        }
    }
}

/// `DELETE /v1/nodes/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Forgotten {
    /// The host's name.
    pub forgotten: Text,
}

impl Nodes {
    /// What is shown of the nodes that live and of the hosts that are known.
    pub fn of(stale: bool, nodes: Vec<NodeRecord>, known: &[Known]) -> Self {
        let (lost, stopped) = absent(known, &nodes);
        let [lost, stopped] = [lost, stopped].map(|hosts| hosts.into_iter().map(Absent::of).collect());
        Self { stale, nodes, lost, stopped }
    }

    /// The same without those lost ones that have not been missed for long enough.
    #[must_use]
    pub fn missing(mut self, is_missed: impl Fn(&Absent) -> bool) -> Self {
        self.lost.retain(is_missed);
        self
    }
}

/// `GET /v1/nodes`: what every agent of the cluster tells of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nodes {
    /// The store is away, or has not been read yet: this is what was last known.
    pub stale: bool,
    /// Every node by name.
    pub nodes: Vec<NodeRecord>,
    /// Hosts whose agents have gone without a word.
    pub lost: Vec<Absent>,
    /// Hosts whose agents have stopped.
    pub stopped: Vec<Absent>,
}

/// The answer to `POST /v1/drain` and `DELETE /v1/drain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drain {
    /// The host is drained from now on.
    pub drained: bool,
    /// The service or instance that was meant; absent for the whole host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<Text>,
    /// What the withdrawal still waits for, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Text>,
    /// The services whose master stays on this host although it was to be given away, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stays: Vec<Text>,
}

/// What an unmet request is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub hint: String,
}

impl From<&index::Endpoint> for Endpoint {
    fn from(found: &index::Endpoint) -> Self {
        Self { record: found.record(), key: found.key().clone(), held: found.held() }
    }
}

impl From<&index::Service> for Service {
    fn from(found: &index::Service) -> Self {
        Self { endpoints: found.endpoints.iter().map(Endpoint::from).collect(), ..Self::head(found) }
    }
}

impl Service {
    /// All of a service but its endpoints.
    pub fn head(found: &index::Service) -> Self {
        Self { name: found.name.as_str().into(), contested: found.contested, ..Self::default() }
    }

    /// How many endpoints say that they have this role.
    pub fn with_role(&self, role: Role) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.record.role == Some(role)).count()
    }
}

/// `host:port` as a client takes it; an IPv6 address in brackets.
pub fn hostport(record: &Record) -> String {
    place(&record.host, record.port)
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_its_record_plus_its_key() {
        let json = r#"{"host":"10.0.0.1","port":6379,"role":"primary","key":"/services/redis/a"}"#;
        let endpoint: Endpoint = serde_json::from_str(json).expect("an endpoint");
        assert_eq!(
            (&*endpoint.record.host, endpoint.record.port, &*endpoint.key),
            ("10.0.0.1", 6379, "/services/redis/a")
        );
        assert_eq!(serde_json::to_string(&endpoint).expect("JSON"), json);
    }
}
