//! The node record: what one agent tells the cluster of itself, beside its services' records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::local::{Local, LocalInstance};
use super::record::Text;

/// How many instances that are not ready a node record names; the rest are counted.
pub const MAX_WAITING: usize = 32;
/// How much of a reason is told.
const MAX_REASON: usize = 120;

/// The value under `/wharf<prefix>/nodes/<node>/<owner>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRecord {
    /// The host's name.
    pub node: Text,
    /// The agent's identity.
    pub owner: Text,
    /// The agent's version.
    pub version: Text,
    /// The addresses it advertises.
    pub addresses: Vec<IpAddr>,
    /// RFC 3339 time of the agent's start.
    pub started: Text,
    /// RFC 3339 time since when it has been drained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drained: Option<Text>,
    /// Instances by state.
    pub states: BTreeMap<Text, usize>,
    /// Instances that are not ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
    /// How many more are not ready than are named.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
}

/// An instance that is not ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Its id.
    pub id: Text,
    /// The service it would be found under, the first when there are several.
    pub service: Text,
    /// Its state.
    pub state: Text,
    /// RFC 3339 time since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Text>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What an agent is, apart from what runs on its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFacts {
    /// Its version.
    pub version: Text,
    /// The addresses it advertises.
    pub addresses: Vec<IpAddr>,
    /// When it started.
    pub started: SystemTime,
}

/// Addresses of this host that nodes of other owners advertise too, with their names.
pub fn shared_addresses(nodes: &[NodeRecord], owner: &str, own: &[IpAddr]) -> BTreeSet<(IpAddr, Text)> {
    let others = nodes.iter().filter(|node| *node.owner != *owner);
    let theirs = others.flat_map(|node| node.addresses.iter().map(|address| (*address, node.node.clone())));
    theirs.filter(|(address, _)| own.contains(address)).collect()
}

impl NodeRecord {
    /// What the cluster is told of this host.
    pub fn of(local: &Local, agent: &AgentFacts) -> Self {
        let not_ready = || local.instances.iter().filter(|instance| !instance.state.serves());
        Self {
            node: local.node.clone(),
            owner: local.owner.clone(),
            version: agent.version.clone(),
            addresses: agent.addresses.clone(),
            started: time(agent.started),
            drained: local.drained.map(time),
            states: local.states().into_iter().map(|(state, count)| (state.as_str().into(), count)).collect(),
            waiting: not_ready().take(MAX_WAITING).map(waiting).collect(),
            more: not_ready().count().saturating_sub(MAX_WAITING),
        }
    }

    /// Reads a node's value; what is none says why.
    pub fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// Writes the value that is stored.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text, numbers and string maps always encode")
    }
}

fn waiting(instance: &LocalInstance) -> Waiting {
    Waiting {
        id: instance.instance.id.clone(),
        service: instance.instance.services.first().map(|service| service.to_string().into()).unwrap_or_default(),
        state: instance.state.as_str().into(),
        since: instance.since.map(time),
        reason: instance.error.as_deref().map(|error| error.chars().take(MAX_REASON).collect::<String>().into()),
    }
}

fn time(time: SystemTime) -> Text {
    humantime::format_rfc3339_seconds(time).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, owner: &str, addresses: &[&str]) -> NodeRecord {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        NodeRecord { node: name.into(), owner: owner.into(), addresses, ..NodeRecord::default() }
    }

    #[test]
    fn an_address_of_ours_that_another_owner_advertises_is_shared() {
        let nodes = [node("a", "1", &["10.0.0.1"]), node("b", "2", &["10.0.0.1", "10.0.0.2"]), node("c", "3", &[])];
        let own = ["10.0.0.1".parse().expect("an address")];
        let shared = shared_addresses(&nodes, "1", &own);
        assert_eq!(shared, BTreeSet::from([(own[0], Text::from("b"))]));
        assert!(shared_addresses(&nodes, "2", &["10.0.0.2".parse().expect("an address")]).is_empty());
    }
}
