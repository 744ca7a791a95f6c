//! Which servers a service has, and which of them an address means.
//!
//! A name means the instance that bears it, so that one which restarts on another port is followed. A server that is
//! not ready has no record: its node's record names its host and port.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use super::topology::{Address, Applied, Desired, MAX_SERVERS, Server};
use crate::model::words::name::Label;
use crate::model::words::node::NodeRecord;
use crate::model::words::record::Role;

/// The port of a server whose address says none.
pub(crate) const USUAL_PORT: u16 = 6379;

/// One server as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name within the service.
    pub name: String,
    /// The host that offers it.
    pub node: String,
    /// Its address.
    pub host: IpAddr,
    /// Its port.
    pub port: u16,
    /// What probes say that it is; `None` while it is not ready.
    pub role: Option<Role>,
    /// When its host's agent began, in milliseconds of that host's clock: a server that began later began on a host
    /// that has not rebooted since.
    pub agent: Option<u64>,
}

/// The servers of one service, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster(pub BTreeMap<String, Listed>);

impl Roster {
    /// What `ready` servers are found, and what node records tell of `service`: they name those that are not ready, and
    /// since when each host's agent has been there.
    pub fn of(service: &str, ready: impl IntoIterator<Item = Listed>, nodes: &[NodeRecord]) -> Self {
        let mut all = BTreeMap::new();
        let agents: BTreeMap<&str, Option<u64>> = nodes.iter().map(|node| (&*node.node, began(node))).collect();
        for node in nodes {
            for waiting in node.waiting.iter().filter(|waiting| *waiting.service == *service) {
                let (Some(label), Some(host), Some(port)) = (Label::slug(&waiting.id), waiting.host, waiting.port)
                else {
                    continue;
                };
                let name = label.as_str().to_owned();
                let (node, agent) = (node.node.to_string(), began(node));
                all.insert(name.clone(), Listed { name, node, host, port, role: None, agent });
            }
        }
        for listed in ready {
            let agent = agents.get(listed.node.as_str()).copied().flatten();
            all.insert(listed.name.clone(), Listed { agent, ..listed });
        }
        Self(all)
    }

    /// The servers that `applied` and a journal speak of, too, where they were then, unless the registry knows better.
    pub fn with_known<'a>(mut self, known: impl IntoIterator<Item = &'a Server>) -> Self {
        for server in known {
            if let (false, Ok(host)) = (self.0.contains_key(&server.name), server.host.parse()) {
                let (name, node) = (server.name.clone(), String::new());
                self.0.insert(name.clone(), Listed { name, node, host, port: server.port, role: None, agent: None });
            }
        }
        self
    }

    /// The server that `address` means; adds it when it is an IP address that nobody is registered under.
    pub fn find(&mut self, service: &str, address: &Address) -> Result<String, String> {
        let found = match address.address.parse::<IpAddr>() {
            Ok(ip) => self.at(ip, address.port),
            Err(_) => self.named(service, &address.address),
        };
        match (found.as_slice(), address.address.parse::<IpAddr>()) {
            ([one], _) => Ok(one.clone()),
            ([], Ok(host)) => {
                let port = address.port.unwrap_or(USUAL_PORT);
                let name = format!("{host}-{port}").replace([':', '.'], "-");
                let listed = Listed { name: name.clone(), node: String::new(), host, port, role: None, agent: None };
                self.0.insert(name.clone(), listed);
                Ok(name)
            }
            ([], Err(_)) => Err(format!("{} cannot be found among the servers of {service}", address.address)),
            (several, _) => Err(format!("{} may be {}", address.address, several.join(" or "))),
        }
    }

    /// Names that no server here bears: DNS may know them.
    pub(crate) fn strangers<'a>(&self, service: &str, desired: &'a Desired) -> Vec<&'a Address> {
        let all = desired.slaves.iter().chain([&desired.master]);
        let is_name = |address: &&Address| address.address.parse::<IpAddr>().is_err();
        all.filter(is_name).filter(|address| self.named(service, &address.address).is_empty()).collect()
    }

    /// Where the master that `applied` names is on `node`: the replicas on other hosts that are ready, one of which may
    /// be master in its place. Each may be tried, so there are no more than a topology has servers.
    pub fn successors<'a>(&self, applied: &'a Applied, node: &str) -> Option<Vec<&'a str>> {
        let is_here = |name: &str| self.0.get(name).is_some_and(|listed| listed.node == node);
        let is_ready = |name: &str| self.0.get(name).is_some_and(|listed| listed.role == Some(Role::Replica));
        let fit = applied.replicas.iter().map(String::as_str).filter(|name| is_ready(name) && !is_here(name));
        is_here(&applied.master.name).then(|| fit.take(MAX_SERVERS).collect())
    }

    fn at(&self, ip: IpAddr, port: Option<u16>) -> Vec<String> {
        let fits = |listed: &&Listed| listed.host == ip && port.is_none_or(|port| listed.port == port);
        self.0.values().filter(fits).map(|listed| listed.name.clone()).collect()
    }

    /// An instance's or a node's name, alone, or followed by the service's name and whatever zone comes then.
    fn named(&self, service: &str, name: &str) -> Vec<String> {
        let first = match name.split_once('.') {
            None => name,
            Some((first, rest)) if rest == service || rest.starts_with(&format!("{service}.")) => first,
            Some(_) => return vec![],
        };
        if self.0.contains_key(first) {
            return vec![first.to_owned()];
        }
        let is_on = |listed: &&Listed| Label::slug(&listed.node).is_some_and(|node| node.as_str() == first);
        self.0.values().filter(is_on).map(|listed| listed.name.clone()).collect()
    }

    /// Whether the registry shows the topology as it was brought about: a master, replicas, and nobody else.
    pub fn is_as(&self, applied: &Applied) -> bool {
        self.0.values().all(|listed| {
            let wanted = if listed.name == applied.master.name { Role::Primary } else { Role::Replica };
            listed.role == Some(wanted) && (wanted == Role::Primary || applied.has_replica(&listed.name))
        }) && self.0.contains_key(&applied.master.name)
    }
}

fn began(node: &NodeRecord) -> Option<u64> {
    let began = humantime::parse_rfc3339(&node.started).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(began.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> Roster {
        let listed = |name: &str, node: &str, last: u8, port| {
            let (name, node) = (name.to_owned(), node.to_owned());
            (name.clone(), Listed { name, node, host: IpAddr::from([10, 0, 0, last]), port, role: None, agent: None })
        };
        Roster(BTreeMap::from([
            listed("core-01", "host-a", 1, 6379),
            listed("b-1", "host-b", 2, 6379),
            listed("b-2", "host-b", 2, 6380),
        ]))
    }

    #[track_caller]
    fn found(address: &str, port: Option<u16>, expected: Result<&str, &str>) {
        let address = Address { address: address.to_owned(), port };
        let found = roster().find("redis-1", &address);
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{address:?}");
    }

    #[test]
    fn successors_are_ready_replicas_on_other_hosts() {
        let mut roster = roster();
        let master = Server { name: "core-01".to_owned(), ..Server::default() };
        let replicas = ["b-1", "b-2", "gone"].map(str::to_owned).to_vec();
        let applied = Applied { master, replicas, ..Applied::default() };
        assert_eq!(roster.successors(&applied, "host-a"), Some(vec![]), "none is ready");
        roster.0.values_mut().for_each(|listed| listed.role = Some(Role::Replica));
        assert_eq!(roster.successors(&applied, "host-a"), Some(vec!["b-1", "b-2"]));
        assert_eq!(roster.successors(&applied, "host-b"), None, "its master is elsewhere");
    }

    #[test]
    fn an_address_means_one_server() {
        found("core-01.redis-1.docker", None, Ok("core-01"));
        found("core-01.redis-1", None, Ok("core-01"));
        found("core-01", None, Ok("core-01"));
        found("host-a", None, Ok("core-01"));
        found("10.0.0.1", None, Ok("core-01"));
        found("10.0.0.2", Some(6380), Ok("b-2"));
        found("10.0.0.9", None, Ok("10-0-0-9-6379"));
    }

    #[test]
    fn one_that_means_none_or_several_says_so() {
        found("host-b", None, Err("host-b may be b-1 or b-2"));
        found("10.0.0.2", None, Err("10.0.0.2 may be b-1 or b-2"));
        found(
            "core-09.redis-1.docker",
            None,
            Err("core-09.redis-1.docker cannot be found among the servers of redis-1"),
        );
        found(
            "core-01.redis-2.docker",
            None,
            Err("core-01.redis-2.docker cannot be found among the servers of redis-1"),
        );
    }
}
