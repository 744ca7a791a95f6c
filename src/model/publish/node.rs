//! What the cluster is told of this host: its node record.

use std::net::IpAddr;
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
    /// When it started.
    pub started: SystemTime,
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
