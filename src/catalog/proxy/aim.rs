//! What one table sees in a snapshot: the endpoints that new connections may take, and what is claimed of the others.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::reports::Reports;
use crate::catalog::index::{Catalog, Endpoint};
use crate::model::steer::names::Steered;
use crate::model::words::record::{Proto, Role, Text};
use crate::model::words::site::Standpoint;
use crate::model::words::zone::Zones;

/// Which endpoints of which service a table is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The service, by its exact name.
    pub(crate) service: String,
    /// Only those of this role.
    pub(crate) role: Option<Role>,
    /// Only those with this tag, compared as a name would.
    pub(crate) tag: Option<String>,
    /// Only those on this node, compared as a name would.
    pub(crate) node: Option<String>,
    /// Those that are nearer to here are taken before all others.
    pub(crate) near: Option<Standpoint>,
}

/// What this host itself listens on: never a target, or connections would go round for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnListeners {
    /// Where ambassadors of this host listen.
    pub(crate) listeners: Vec<SocketAddr>,
    /// The host's addresses, which a listener on all of them means.
    pub(crate) here: Vec<IpAddr>,
}

/// An endpoint that connections may run to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Where it is by the other family of addresses: tried when it cannot be reached.
    pub(crate) also: Option<SocketAddr>,
    /// Whose word on it counts.
    pub(crate) owner: Option<Text>,
    /// The smaller, the earlier it is taken: how far it is, and its priority.
    pub(crate) tier: (u8, u16),
}

/// Why there is no endpoint for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Nothing is found that fits.
    Nothing,
    /// Several claim the role.
    Contested,
    /// The store lost what there was, and its owner has not published it again.
    Held,
    /// The master is about to be another one.
    Switching,
}

/// What a table sees in one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Aim {
    /// Those that new connections may take, in the order of their keys.
    pub(crate) open: Vec<Found>,
    /// Why there are none, if so.
    pub(crate) closed: Option<Closed>,
    /// The store has been read, and what nodes say: from here on a word that is not there has not been given.
    pub(crate) is_known: bool,
    /// The role that is wanted.
    pub(super) role: Option<Role>,
    /// What living records of the service say of their places.
    pub(super) claims: BTreeMap<SocketAddr, Option<Role>>,
    /// The one primary, where there is exactly one.
    pub(super) holder: Option<SocketAddr>,
    /// What nodes say of the rest.
    pub(super) reports: Arc<Reports>,
}

impl Closed {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "no endpoint",
            Self::Contested => "contested",
            Self::Held => "held",
            Self::Switching => "switching",
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl OwnListeners {
    fn has(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let is_here = || ip.is_loopback() || self.here.contains(&ip);
        let is_own = |listener: &SocketAddr| {
            let family = listener.is_ipv4() == ip.is_ipv4();
            listener.port() == address.port()
                && (listener.ip() == ip || (listener.ip().is_unspecified() && family && is_here()))
        };
        self.listeners.iter().any(is_own)
    }
}

impl Aim {
    /// Addresses that are always right.
    pub(crate) fn fixed(addresses: &[SocketAddr], own: &OwnListeners) -> Self {
        Self::members(addresses, &HashSet::new(), own)
    }

    /// The same, where those that say that they are not well are taken last.
    pub(crate) fn members(addresses: &[SocketAddr], unwell: &HashSet<SocketAddr>, own: &OwnListeners) -> Self {
        let found = |address: &SocketAddr| Found {
            address: *address,
            also: None,
            owner: None,
            tier: (u8::from(unwell.contains(address)), 0),
        };
        let open: Vec<Found> = addresses.iter().filter(|address| !own.has(**address)).map(found).collect();
        let closed = open.is_empty().then_some(Closed::Nothing);
        Self { open, closed, is_known: true, ..Self::default() }
    }

    /// What a snapshot has for a table.
    pub(crate) fn of(
        wanted: &Wanted,
        catalog: &Catalog,
        zones: &Zones,
        reports: &Arc<Reports>,
        own: &OwnListeners,
    ) -> Self {
        let service = catalog.service(zones, &wanted.service);
        let endpoints = service.map(|service| service.endpoints).unwrap_or_default();
        let steered = zones.service_paths(&wanted.service).iter().find_map(|path| catalog.steered(path));
        let mut aim = Self { role: wanted.role, reports: Arc::clone(reports), ..Self::default() };
        let mut primaries: Vec<SocketAddr> = Vec::new();
        for (address, endpoint) in placed(&endpoints).filter(|(_, endpoint)| !endpoint.held()) {
            aim.claims.insert(address, endpoint.role());
            if endpoint.role() == Some(Role::Primary) && !primaries.contains(&address) {
                primaries.push(address);
            }
        }
        aim.holder = primaries.first().copied().filter(|_| primaries.len() == 1);
        let fits = |(address, endpoint): &(SocketAddr, &Endpoint)| wanted.takes(endpoint) && !own.has(*address);
        let fitting: Vec<(SocketAddr, &Endpoint)> = placed(&endpoints).filter(fits).collect();
        aim.closed = wanted.closed(&fitting, primaries.len(), steered);
        if aim.closed.is_none() {
            let living = fitting.iter().filter(|(_, endpoint)| !endpoint.held());
            aim.open = living.map(|(address, endpoint)| wanted.found(*address, endpoint, own)).collect();
        }
        aim
    }
}

/// Those that a stream can be opened to.
fn placed(endpoints: &[Endpoint]) -> impl Iterator<Item = (SocketAddr, &Endpoint)> {
    endpoints.iter().filter_map(|endpoint| {
        let is_stream = endpoint.proto().unwrap_or_default() == Proto::Tcp && endpoint.port() > 0;
        let address = endpoint.address().filter(|address| is_stream && !address.is_unspecified())?;
        Some((SocketAddr::new(address.to_canonical(), endpoint.port()), endpoint))
    })
}

/// How far an endpoint is: 0 on this host, then by site as names have it.
fn distance(here: &Standpoint, endpoint: &Endpoint) -> u8 {
    let is_here = here.node().is_some_and(|node| endpoint.is_on(node));
    if is_here { 0 } else { here.distance_to(endpoint.site().map(|site| &**site)) }
}

impl Wanted {
    fn takes(&self, endpoint: &Endpoint) -> bool {
        self.role.is_none_or(|role| endpoint.role() == Some(role))
            && self.tag.as_deref().is_none_or(|tag| endpoint.is_tagged(tag))
            && self.node.as_deref().is_none_or(|node| endpoint.is_on(node))
    }

    /// Why nobody is to be taken. During a switch a role belongs to nobody, as in names.
    fn closed(
        &self,
        fitting: &[(SocketAddr, &Endpoint)],
        primaries: usize,
        steered: Option<Steered>,
    ) -> Option<Closed> {
        if self.role.is_some() && matches!(steered, Some(Steered::Switching(_))) {
            return Some(Closed::Switching);
        }
        if self.role == Some(Role::Primary) && primaries > 1 {
            return Some(Closed::Contested);
        }
        if fitting.iter().any(|(_, endpoint)| !endpoint.held()) {
            return None;
        }
        Some(if fitting.is_empty() { Closed::Nothing } else { Closed::Held })
    }

    fn found(&self, address: SocketAddr, endpoint: &Endpoint, own: &OwnListeners) -> Found {
        let also = endpoint.other_address().map(|other| SocketAddr::new(other.to_canonical(), address.port()));
        let also = also.filter(|also| !also.ip().is_unspecified() && !own.has(*also));
        let distance = self.near.as_ref().map_or(0, |here| distance(here, endpoint));
        Found { address, also, owner: endpoint.owner().cloned(), tier: (distance, endpoint.priority()) }
    }
}
