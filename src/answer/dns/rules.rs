//! What answering depends on and does not change while the server runs: the zones, where this host is, and who may ask
//! for what.

use std::net::IpAddr;

use hickory_server::proto::rr::Name;
use ipnet::IpNet;

use crate::model::words::site::Standpoint;
use crate::model::words::zone::Zones;

/// The rules of one server.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) zones: Zones,
    /// What is near is near to this.
    pub(super) standpoint: Standpoint,
    pub(super) dns_ttl: u32,
    pub(super) negative_ttl: u32,
    /// Foreign names are forwarded, for clients in `forward_allow`.
    pub(super) forward: bool,
    pub(super) forward_allow: Vec<IpNet>,
    /// Who may ask at all; empty is everyone.
    pub(super) allow: Vec<IpNet>,
}

impl Rules {
    /// Whether foreign names are looked up for this client.
    pub(super) fn recursion_for(&self, client: IpAddr) -> bool {
        self.forward && contains(&self.forward_allow, client, false)
    }

    /// Whether a name lies in a zone that is served here: such a name is never asked for elsewhere.
    pub(super) fn serves(&self, name: &Name) -> bool {
        let labels: Vec<Vec<u8>> = name.iter().map(<[u8]>::to_ascii_lowercase).collect();
        self.zones.find(&labels).is_some()
    }

    /// Whether answers to this client are not counted: it is one of our own.
    pub(super) fn is_trusted(&self, client: IpAddr) -> bool {
        contains(&self.forward_allow, client, false)
    }

    /// Whether this client may ask at all.
    pub(super) fn allows(&self, client: IpAddr) -> bool {
        contains(&self.allow, client, true)
    }
}

fn contains(networks: &[IpNet], address: IpAddr, when_empty: bool) -> bool {
    let address = address.to_canonical();
    if networks.is_empty() { when_empty } else { networks.iter().any(|network| network.contains(&address)) }
}
