//! What the cluster is told of this host: its node record.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use super::local::{Local, LocalInstance};
use crate::model::words::node::{MAX_REASON, MAX_WAITING, NodeRecord, Waiting};
use crate::model::words::record::Text;

/// What an agent is, apart from what runs on its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFacts {
    /// Its version.
    pub version: Text,
    /// The addresses it advertises.
    pub addresses: Vec<IpAddr>,
    /// Where it speaks Sentinel's protocol.
    pub sentinel: Option<SocketAddr>,
    /// Where the host is.
    pub site: Option<Text>,
    /// When it started.
    pub started: SystemTime,
}

impl AgentFacts {
    /// The port at which others reach its Sentinel under every address that it advertises.
    fn sentinel_port(&self) -> Option<u16> {
        let at = self.sentinel?;
        let is_reached = |address: &IpAddr| {
            let everywhere = at.ip().is_unspecified() && (at.is_ipv6() || address.is_ipv4());
            everywhere || at.ip() == *address
        };
        (!self.addresses.is_empty() && self.addresses.iter().all(is_reached)).then_some(at.port())
    }
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
            sentinel: agent.sentinel_port(),
            site: agent.site.clone(),
            started: time(agent.started),
            drained: local.drained.map(time),
            states: local.states().into_iter().map(|(state, count)| (state.as_str().into(), count)).collect(),
            waiting: not_ready().take(MAX_WAITING).map(waiting).collect(),
            more: not_ready().count().saturating_sub(MAX_WAITING),
        }
        .within_bounds()
    }
}

fn waiting(instance: &LocalInstance) -> Waiting {
    Waiting {
        id: instance.instance.id.clone(),
        service: instance.instance.services.first().map(|service| service.to_string().into()).unwrap_or_default(),
        host: Some(instance.instance.host),
        port: Some(instance.instance.port),
        state: instance.state.as_str().into(),
        since: instance.since.map(time),
        reason: instance.error.as_deref().map(|error| error.chars().take(MAX_REASON).collect::<String>().into()),
    }
}

fn time(time: SystemTime) -> Text {
    humantime::format_rfc3339_seconds(time).to_string().into()
}
