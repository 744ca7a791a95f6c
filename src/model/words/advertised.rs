//! Which agent's host has which addresses, and where on them something is that is not ready: what tells a record that
//! another program wrote of a server from one of a server that an agent looks after itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::node::NodeRecord;
use super::record::Text;

/// The addresses that agents advertise, and what they hold back there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    owners: BTreeMap<IpAddr, BTreeSet<Text>>,
    waiting: BTreeSet<(IpAddr, u16)>,
}

impl Advertised {
    /// What the node records tell. A node speaks of what waits on its own addresses only.
    pub fn of(nodes: &[NodeRecord]) -> Self {
        let mut all = Self::default();
        for node in nodes {
            for address in node.addresses.iter().map(IpAddr::to_canonical) {
                all.owners.entry(address).or_default().insert(node.owner.clone());
            }
            let place = |waiting: &super::node::Waiting| waiting.host.map(|host| host.to_canonical()).zip(waiting.port);
            let own = |place: &(IpAddr, u16)| node.addresses.iter().any(|address| address.to_canonical() == place.0);
            all.waiting.extend(node.waiting.iter().filter_map(place).filter(own));
        }
        all
    }

    /// Whether nothing is advertised by anybody.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Whether this owner's host has the address.
    pub fn is_of(&self, address: IpAddr, owner: &str) -> bool {
        self.owners.get(&address.to_canonical()).is_some_and(|owners| owners.contains(owner))
    }

    /// Whether an agent says that what is there is not ready.
    pub fn waits(&self, address: IpAddr, port: u16) -> bool {
        self.waiting.contains(&(address.to_canonical(), port))
    }

    /// The addresses of which something else is true in another table.
    pub fn differences(&self, other: &Self) -> BTreeSet<IpAddr> {
        let owners = self.owners.keys().chain(other.owners.keys());
        let owners = owners.filter(|address| self.owners.get(*address) != other.owners.get(*address)).copied();
        let waiting = self.waiting.symmetric_difference(&other.waiting).map(|(address, _)| *address);
        owners.chain(waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::words::node::Waiting;

    fn node(owner: &str, address: &str, waits: &[(&str, u16)]) -> NodeRecord {
        let waiting = |(host, port): &(&str, u16)| Waiting {
            host: Some(host.parse().expect("an address")),
            port: Some(*port),
            ..Waiting::default()
        };
        NodeRecord {
            owner: owner.into(),
            addresses: vec![address.parse().expect("an address")],
            waiting: waits.iter().map(waiting).collect(),
            ..NodeRecord::default()
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn nobody_speaks_of_what_waits_on_anothers_host() {
        let all =
            Advertised::of(&[node("a", "10.0.0.1", &[("10.0.0.1", 80), ("10.0.0.2", 80)]), node("b", "10.0.0.2", &[])]);
        assert!(all.waits(address("10.0.0.1"), 80) && !all.waits(address("10.0.0.2"), 80));
        assert!(all.is_of(address("::ffff:10.0.0.1"), "a") && !all.is_of(address("10.0.0.1"), "b"));
    }

    #[test]
    fn only_addresses_that_changed_differ() {
        let before = Advertised::of(&[node("a", "10.0.0.1", &[("10.0.0.1", 80)]), node("b", "10.0.0.2", &[])]);
        let after =
            Advertised::of(&[node("a", "10.0.0.1", &[]), node("b", "10.0.0.2", &[]), node("c", "10.0.0.3", &[])]);
        assert_eq!(before.differences(&after), [address("10.0.0.1"), address("10.0.0.3")].into());
        assert!(after.differences(&after).is_empty());
    }
}
