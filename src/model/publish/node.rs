//! What the cluster is told of this host: its node record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use super::local::{Local, LocalInstance};
use crate::model::offer::instance::Skipped;
use crate::model::offer::naming::kind;
use crate::model::words::node::{MAX_REASON, MAX_SERVICES, MAX_WAITING, NodeRecord, Waiting};
use crate::model::words::record::Text;

/// What stands for the state of a port that is not offered because of a slip.
const SKIPPED: &str = "skipped";

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
    /// Which machine the host is.
    pub machine: Option<Text>,
    /// The host's numbers by role.
    pub ordinals: BTreeMap<Text, u32>,
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
        let slips = || local.skipped.iter().filter(|skipped| kind::SLIPS.contains(&skipped.kind));
        let missing = not_ready().count() + slips().count();
        let mut states: BTreeMap<Text, usize> =
            local.states().into_iter().map(|(state, count)| (state.as_str().into(), count)).collect();
        if slips().next().is_some() {
            states.insert(SKIPPED.into(), slips().count());
        }
        Self {
            node: local.node.clone(),
            owner: local.owner.clone(),
            version: agent.version.clone(),
            addresses: agent.addresses.clone(),
            sentinel: agent.sentinel_port(),
            site: agent.site.clone(),
            machine: agent.machine.clone(),
            ordinals: agent.ordinals.clone(),
            started: time(agent.started),
            drained: local.drained.map(time),
            states,
            services: serving(local),
            waiting: not_ready().map(waiting).chain(slips().map(skipped)).take(MAX_WAITING).collect(),
            more: missing.saturating_sub(MAX_WAITING),
        }
        .within_bounds()
    }
}

/// The names of the services that are found here, as many as are told.
fn serving(local: &Local) -> Vec<Text> {
    let published = local.instances.iter().filter(|instance| instance.state.serves());
    let names: BTreeSet<String> =
        published.flat_map(|one| one.instance.services.iter().map(ToString::to_string)).collect();
    names.into_iter().take(MAX_SERVICES).map(Into::into).collect()
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

/// A port that somebody meant to be offered, and that is not.
fn skipped(skipped: &Skipped) -> Waiting {
    let name = skipped.container.trim_start_matches('/');
    let id = if skipped.port.is_empty() { name.to_owned() } else { format!("{name}:{}", skipped.port) };
    Waiting {
        id: id.into(),
        state: SKIPPED.into(),
        reason: Some(skipped.reason.chars().take(MAX_REASON).collect::<String>().into()),
        ..Waiting::default()
    }
}

fn time(time: SystemTime) -> Text {
    humantime::format_rfc3339_seconds(time).to_string().into()
}
