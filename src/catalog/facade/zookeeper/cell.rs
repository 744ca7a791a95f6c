//! The members of a service: found ones, and those that node records call not ready.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::catalog::facade::api::{Endpoint, Service};
use crate::model::words::node::{NO_QUORUM, NodeRecord, Waiting};
use crate::model::words::ordinal::RoleName;
use crate::model::words::record::{Proto, Role, Text};

/// More members no ensemble has: what else is there is left out.
pub const MOST: usize = 64;

/// How a member stands, as its host tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It serves.
    Serves {
        /// It leads.
        leads: bool,
    },
    /// It serves alone, or is not asked what it is.
    Alone,
    /// It answers and does not serve.
    NotServing,
    /// It does not answer.
    Down,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where clients connect to: an address, or a name.
    pub host: Text,
    /// The port.
    pub port: u16,
    /// Its host.
    pub node: Text,
    /// That host's number.
    pub number: Option<u32>,
    /// How it stands.
    pub standing: Standing,
    /// It has a record.
    pub published: bool,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The members of a service, in the order of their hosts' numbers, then of their hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    members: Vec<Member>,
}

impl Cell {
    /// What was found of a service, and what the hosts tell of it. Hosts are numbered as this role; where none is
    /// named, as the one that the members' hosts have, if that is one.
    pub fn of(name: &str, found: Option<&Service>, nodes: &[NodeRecord], role: Option<&RoleName>) -> Self {
        let endpoints = found.into_iter().flat_map(|service| &service.endpoints).filter_map(published);
        let waiting = nodes.iter().flat_map(|node| node.waiting.iter().filter_map(|it| not_ready(name, node, it)));
        let mut places = BTreeMap::new();
        for member in endpoints.chain(waiting) {
            // A record counts before the word that was told of its instance some seconds ago.
            places.entry((member.host.clone(), member.port)).or_insert(member);
        }
        let hosts: HashSet<&Text> = places.values().map(|member| &member.node).collect();
        let role = role.map(RoleName::as_str).or_else(|| only_role(nodes.iter().filter(|it| hosts.contains(&it.node))));
        let numbers: BTreeMap<&str, u32> =
            nodes.iter().filter_map(|node| Some((&*node.node, *node.ordinals.get(role?)?))).collect();
        let numbered = |member: Member| Member { number: numbers.get(&*member.node).copied(), ..member };
        let mut members: Vec<Member> = places.into_values().map(numbered).collect();
        members.sort_by(|one, other| rank(one).cmp(&rank(other)));
        members.truncate(MOST);
        Self { members }
    }

    /// All of them.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether it serves: one that stands alone only where it is the only one.
    pub fn serves(&self, member: &Member) -> bool {
        match member.standing {
            Standing::Serves { .. } => true,
            Standing::Alone => self.members.len() == 1,
            Standing::NotServing | Standing::Down => false,
        }
    }

    /// Those that serve.
    pub fn ready(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| self.serves(member))
    }
}

/// The role of these hosts' numbers, where there is only one.
fn only_role<'n>(nodes: impl Iterator<Item = &'n NodeRecord>) -> Option<&'n str> {
    let mut roles = nodes.flat_map(|node| node.ordinals.keys());
    let first = roles.next()?;
    roles.all(|role| role == first).then_some(&**first)
}

/// `h1:2181,h2:2181`.
pub fn list<'m>(members: impl IntoIterator<Item = &'m Member>) -> String {
    members.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn rank(member: &Member) -> (u32, &str, &str, u16) {
    (member.number.unwrap_or(u32::MAX), &member.node, &member.host, member.port)
}

/// A host's text that a client can be told: in a list of them a comma would part it.
fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(plain)
}

fn published(endpoint: &Endpoint) -> Option<Member> {
    let record = &endpoint.record;
    let fits = is_host(&record.host) && record.port > 0 && record.proto != Some(Proto::Udp);
    fits.then(|| Member {
        host: record.host.clone(),
        port: record.port,
        node: record.node.clone().unwrap_or_default(),
        number: None,
        standing: match record.role {
            Some(role) => Standing::Serves { leads: role == Role::Primary },
            None => Standing::Alone,
        },
        published: true,
    })
}

fn not_ready(name: &str, node: &NodeRecord, waiting: &Waiting) -> Option<Member> {
    let is_of = waiting.service.eq_ignore_ascii_case(name.trim_end_matches('.'));
    let (host, port) = (waiting.host?, waiting.port.filter(|port| *port > 0)?);
    let answers = waiting.reason.as_ref().is_some_and(|reason| reason.starts_with(NO_QUORUM));
    is_of.then(|| Member {
        host: host.to_string().into(),
        port,
        node: node.node.clone(),
        number: None,
        standing: if answers { Standing::NotServing } else { Standing::Down },
        published: false,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::words::record::Record;

    /// `host node role`, the role `-` where there is none.
    pub(in crate::catalog::facade::zookeeper) fn service(lines: &[&str]) -> Service {
        let endpoint = |line: &&str| {
            let [host, node, role] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let record = Record {
                host: host.into(),
                port: 2181,
                node: Some(node.into()),
                role: Role::parse(role),
                ..Record::default()
            };
            Endpoint { record, key: host.into(), held: false }
        };
        Service { name: "zookeeper".into(), endpoints: lines.iter().map(endpoint).collect(), ..Service::default() }
    }

    /// `node number host reason`, the number 0 and the host `-` where there is none.
    pub(in crate::catalog::facade::zookeeper) fn nodes(lines: &[&str]) -> Vec<NodeRecord> {
        let node = |line: &&str| {
            let mut words = line.splitn(4, ' ');
            let mut word = || words.next().unwrap_or_default();
            let (node, number, host, reason) = (word(), word().parse().expect("a number"), word(), word());
            let waiting = Waiting {
                service: "zookeeper".into(),
                host: host.parse().ok(),
                port: Some(2181),
                reason: Some(reason.into()),
                ..Waiting::default()
            };
            let ordinals = [("nucleus".into(), number)].into_iter().filter(|(_, number)| *number > 0).collect();
            NodeRecord { node: node.into(), ordinals, waiting: vec![waiting], ..NodeRecord::default() }
        };
        lines.iter().map(node).collect()
    }

    fn listed(found: &[&str], told: &[&str]) -> String {
        listed_as(Some("nucleus"), found, &nodes(told))
    }

    fn listed_as(role: Option<&str>, found: &[&str], nodes: &[NodeRecord]) -> String {
        let role = role.map(|role| RoleName::parse(role).expect("a role"));
        list(Cell::of("zookeeper", Some(&service(found)), nodes, role.as_ref()).ready())
    }

    #[test]
    fn members_are_listed_by_number_then_by_host() {
        let found = ["10.0.0.1 a replica", "10.0.0.2 b primary", "10.0.0.3 c replica", "10.0.0.4 d replica"];
        assert_eq!(listed(&found, &[]), "10.0.0.1:2181,10.0.0.2:2181,10.0.0.3:2181,10.0.0.4:2181");
        let numbered = ["c 1 - -", "a 2 - -"];
        assert_eq!(listed(&found, &numbered), "10.0.0.3:2181,10.0.0.1:2181,10.0.0.2:2181,10.0.0.4:2181");
        assert_eq!(listed(&["fd00::1 a primary"], &[]), "[fd00::1]:2181");
    }

    #[test]
    fn without_a_role_the_only_one_of_the_members_hosts_counts() {
        let found = ["10.0.0.1 a replica", "10.0.0.2 b primary"];
        let mut told = nodes(&["b 1 - -", "a 2 - -", "elsewhere 3 - -"]);
        told[2].ordinals = [("body".into(), 1)].into();
        assert_eq!(listed_as(None, &found, &told), "10.0.0.2:2181,10.0.0.1:2181");
        told[0].ordinals.insert("body".into(), 2);
        assert_eq!(listed_as(None, &found, &told), "10.0.0.1:2181,10.0.0.2:2181", "nobody knows which is meant");
        assert_eq!(listed_as(Some("nucleus"), &found, &told), "10.0.0.2:2181,10.0.0.1:2181");
    }

    #[test]
    fn one_that_stands_alone_counts_where_it_is_the_only_one() {
        assert_eq!(listed(&["10.0.0.1 a -"], &[]), "10.0.0.1:2181");
        assert_eq!(listed(&["10.0.0.1 a -", "10.0.0.2 b primary"], &[]), "10.0.0.2:2181");
        assert_eq!(listed(&["10.0.0.1 a -"], &["b 0 10.0.0.2 cannot connect"]), "", "another one is on its way");
    }

    #[test]
    fn what_waits_is_known_and_not_listed() {
        let told = ["b 0 10.0.0.2 not serving requests: no quorum", "c 0 10.0.0.3 cannot connect: refused"];
        let cell = Cell::of("zookeeper", Some(&service(&["10.0.0.1 a replica"])), &nodes(&told), None);
        let standings: Vec<Standing> = cell.members().iter().map(|member| member.standing).collect();
        assert_eq!(standings, [Standing::Serves { leads: false }, Standing::NotServing, Standing::Down]);
        assert_eq!(list(cell.ready()), "10.0.0.1:2181");
    }

    #[test]
    fn what_a_list_cannot_hold_is_left_out() {
        assert_eq!(listed(&["evil,10.0.0.9:1 a replica", "10.0.0.1 a primary"], &[]), "10.0.0.1:2181");
        let many: Vec<String> =
            (0..1_000).map(|number| format!("10.0.{}.{} n replica", number / 250, number % 250)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(listed(&many, &[]).split(',').count(), MOST);
    }
}
