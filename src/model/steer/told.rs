//! A topology as people and programs are told of it, over HTTP and by the command line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::Mark;
use super::journal::{Journal, Stage};
use super::roster::Roster;
use super::safe::Judge;
use super::server::{Follows, ServerState, Sight};
use super::topology::{Applied, Desired, Server};
use crate::model::words::place::place;

/// The servers of a topology as they were looked at last, by name.
pub type Sights = BTreeMap<String, (Server, Sight)>;

/// What the store has of a topology, for those who show it or answer by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The desired topology, as it is written.
    pub desired: Option<Vec<u8>>,
    /// What was brought about.
    pub applied: Option<Applied>,
    /// The last journal.
    pub journal: Option<Journal>,
    /// Since when nothing may be done, and at whose word.
    pub paused: Option<Paused>,
    /// Whether the store has not been read, or is away.
    pub stale: bool,
    /// What came of this agent's last attempt.
    pub last: Option<String>,
}

/// Why nothing is done to a topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Paused {
    /// RFC 3339 time since when.
    pub since: String,
    /// The node whose agent was asked for it.
    pub by: String,
}

/// What `GET /v1/topology` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Topologies {
    /// One for each `[[topology]]` table of this agent.
    pub topologies: Vec<Topology>,
}

/// One topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Topology {
    /// The service.
    pub service: String,
    /// The desired topology, as the store has it.
    pub desired: Option<Value>,
    /// What was brought about.
    pub applied: Option<Named>,
    /// How far an operation under way has come.
    pub phase: Option<String>,
    /// What became of the last operation.
    pub last: Option<Last>,
    /// Whether another topology is desired than was brought about: nothing is done for it until it is applied.
    pub pending: bool,
    /// Since when nothing may be done.
    pub paused: Option<Paused>,
    /// What came of this agent's own last attempt.
    pub told: Option<String>,
    /// Whether the store is away or has not been read.
    pub stale: bool,
    /// Its servers.
    pub instances: Vec<Instance>,
}

/// The master that was brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Named {
    /// Its name within the service.
    pub master: String,
    /// Grows by one with every master.
    pub epoch: u64,
    /// RFC 3339 time since when.
    pub since: String,
}

/// The last operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Last {
    /// `done`, `unchanged` (given up, nothing is changed) or `stale` (the servers were not as its journal implies).
    pub result: String,
    /// Why it was given up.
    pub why: String,
    /// For how long no write was taken, in milliseconds.
    pub gap_ms: Option<u64>,
    /// RFC 3339 time of its end.
    pub at: String,
    /// Its number.
    pub number: u64,
    /// The agent that ended it.
    pub by: String,
}

/// One server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// Its name within the service.
    pub key: String,
    /// The host that offers it.
    pub node: String,
    /// Its address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What the topology has it for: `primary` or `replica`.
    pub role: Option<String>,
    /// Whom it follows: `host:port`, `nobody` or, when it is frozen, `frozen`.
    pub follows: Option<String>,
    /// How far it is in its history.
    pub offset: Option<u64>,
    /// `up` or `down`, of one that follows.
    pub link: Option<String>,
    /// How many keys it holds.
    pub keys: Option<u64>,
    /// Why it is not as the topology has it.
    pub why: Option<String>,
}

/// What a request to change a topology is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// `done`, `planned`, `paused` or `resumed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// For how long no write was taken, in milliseconds, where one master gave way to another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<u64>,
    /// What would be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Each reason by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
}

impl Topology {
    /// All that is known of the topology of `service`.
    pub fn of(service: &str, shown: &Shown, roster: &Roster, sights: &Sights) -> Self {
        let applied = shown.applied.as_ref();
        let journal = shown.journal.as_ref();
        let roster = roster.clone().with_known(applied.iter().map(|applied| &applied.master));
        Self {
            service: service.to_owned(),
            desired: shown.desired.as_deref().and_then(|text| serde_json::from_slice(text).ok()),
            applied: applied.map(named),
            phase: journal.filter(|journal| !journal.is_over()).map(|journal| journal.stage.as_str().to_owned()),
            last: journal.filter(|journal| journal.is_over()).map(last),
            pending: shown.desired.as_deref().is_some_and(|text| is_pending(service, text, applied, &roster)),
            paused: shown.paused.clone(),
            told: shown.last.clone(),
            stale: shown.stale,
            instances: roster.0.values().map(|listed| instance(listed, applied, sights)).collect(),
        }
    }
}

fn named(applied: &Applied) -> Named {
    Named { master: applied.master.name.clone(), epoch: applied.epoch, since: applied.since.clone() }
}

fn last(journal: &Journal) -> Last {
    let result = match journal.stage {
        Stage::Stale => "stale",
        _ if journal.why.is_empty() => "done",
        _ => "unchanged",
    };
    Last {
        result: result.to_owned(),
        why: journal.why.clone(),
        gap_ms: journal.gap,
        at: journal.at.clone(),
        number: journal.number,
        by: journal.operator.clone(),
    }
}

/// Whether a desired topology names another master, or others to follow it, than was brought about.
fn is_pending(service: &str, text: &[u8], applied: Option<&Applied>, roster: &Roster) -> bool {
    let (Ok(desired), Some(applied)) = (Desired::parse(text), applied) else { return true };
    let mut roster = roster.clone();
    let mut find = |address| roster.find(service, address).ok();
    let is_master = find(&desired.master).is_some_and(|name| name == applied.master.name);
    let is_counted = |name: String| name == applied.master.name || applied.has_replica(&name);
    !is_master || !desired.slaves.iter().all(|slave| find(slave).is_some_and(is_counted))
}

fn instance(listed: &super::roster::Listed, applied: Option<&Applied>, sights: &Sights) -> Instance {
    let role = applied.and_then(|applied| applied.role_of(&listed.name));
    let sight = sights.get(&listed.name);
    let state = sight.and_then(|(_, sight)| sight.state());
    let follows = state.map(|state| match &state.follows {
        Follows::NoOne => "nobody".to_owned(),
        Follows::Frozen(_) => "frozen".to_owned(),
        Follows::At { host, port, .. } => place(host, *port),
    });
    let link = state.and_then(|state| match &state.follows {
        Follows::At { up, .. } => Some(if *up { "up" } else { "down" }.to_owned()),
        Follows::NoOne | Follows::Frozen(_) => None,
    });
    Instance {
        key: listed.name.clone(),
        node: listed.node.clone(),
        host: listed.host.to_string(),
        port: listed.port,
        role: role.map(|role| role.as_str().to_owned()),
        follows,
        offset: state.map(|state| state.position.offset),
        link,
        keys: state.map(|state| state.keys),
        why: sight.and_then(|(_, sight)| astray(&listed.name, sight, applied, sights)),
    }
}

/// Why a server is not as the topology has it; nothing when it is.
pub fn astray(name: &str, sight: &Sight, applied: Option<&Applied>, sights: &Sights) -> Option<String> {
    let state = match sight {
        Sight::Unreached(why) => return Some(format!("it cannot be reached: {why}")),
        Sight::Broken => return Some("its connection broke".to_owned()),
        Sight::Answers(state) => state,
    };
    let Some(applied) = applied else {
        return Some("no topology was applied yet: `wharf topology switch` or `put` names a master".to_owned());
    };
    if name == applied.master.name {
        return master_astray(state);
    }
    let Some((at, Sight::Answers(master))) = sights.get(&applied.master.name) else {
        return Some(format!("{}, whom it is to follow, does not answer", applied.master.name));
    };
    match &state.follows {
        Follows::At { up: true, .. } if state.is_replica_of(&at.host, at.port) => return None,
        Follows::At { .. } if state.is_replica_of(&at.host, at.port) => {
            return Some("its link to the master is down".to_owned());
        }
        _ => {}
    }
    let judge = Judge { master: &applied.master.name, state: master, counted: Some(applied) };
    if judge.loses_nothing(name, state) {
        return Some(format!("it is about to be given to {}", applied.master.name));
    }
    let is = if state.is_master() { "takes writes itself and " } else { "" };
    let (keys, bytes) = (state.keys, state.bytes);
    let name = &applied.master.name;
    Some(format!(
        "it {is}has {keys} keys ({bytes} bytes) that {name} may not have: only a person may give them up, by REPLICAOF"
    ))
}

fn master_astray(state: &ServerState) -> Option<String> {
    match &state.follows {
        Follows::NoOne => None,
        Follows::Frozen(Mark::START) => Some("it was started frozen, and nobody has made it master again".to_owned()),
        Follows::Frozen(mark) => Some(format!("it was frozen by operation {}", mark.0)),
        Follows::At { host, port, .. } => Some(format!("it is to be master and follows {host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::roster::Listed;
    use super::super::server::Position;
    use super::*;

    fn server(name: &str, port: u16) -> Server {
        Server { name: name.to_owned(), host: "10.0.0.1".to_owned(), port, ..Server::default() }
    }

    fn sight(follows: Follows, id: &str, keys: u64) -> Sight {
        Sight::Answers(Box::new(ServerState {
            follows,
            position: Position { id: id.to_owned(), offset: 7, second: None },
            keys,
            ..ServerState::default()
        }))
    }

    fn at(port: u16, up: bool) -> Follows {
        Follows::At { host: "10.0.0.1".to_owned(), port, up }
    }

    fn applied() -> Applied {
        Applied { epoch: 2, master: server("a", 1), replicas: vec!["b".to_owned()], ..Applied::default() }
    }

    fn roster() -> Roster {
        let listed = |name: &str, port| {
            let (name, host) = (name.to_owned(), "10.0.0.1".parse().expect("an address"));
            (name.clone(), Listed { name, node: "n".to_owned(), host, port, role: None, agent: None })
        };
        Roster(BTreeMap::from([listed("a", 1), listed("b", 2), listed("c", 3)]))
    }

    #[test]
    fn each_server_says_why_it_is_not_as_the_topology_has_it() {
        let sights = |b: Sight| {
            Sights::from([
                ("a".to_owned(), (server("a", 1), sight(Follows::NoOne, "x", 5))),
                ("b".to_owned(), (server("b", 2), b)),
            ])
        };
        for (b, why) in [
            (sight(at(1, true), "x", 5), None),
            (sight(at(1, false), "x", 5), Some("link to the master is down")),
            (sight(Follows::Frozen(Mark::START), "x", 5), Some("about to be given to a")),
            (sight(Follows::NoOne, "y", 9), Some("takes writes itself and has 9 keys")),
            (Sight::Unreached("refused".to_owned()), Some("cannot be reached: refused")),
        ] {
            let sights = sights(b);
            let found = astray("b", &sights["b"].1, Some(&applied()), &sights);
            assert_eq!(found.is_some(), why.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(why.unwrap_or_default()), "{why:?}");
        }
        let sights = sights(sight(at(1, true), "x", 5));
        let frozen = sight(Follows::Frozen(Mark::START), "x", 5);
        assert!(astray("a", &frozen, Some(&applied()), &sights).is_some_and(|why| why.contains("started frozen")));
        assert!(astray("a", &frozen, None, &sights).is_some_and(|why| why.contains("no topology")));
    }

    #[test]
    fn another_desired_topology_is_pending_until_it_is_applied() {
        let pending = |text: &str| {
            let shown = Shown { desired: Some(text.into()), applied: Some(applied()), ..Shown::default() };
            Topology::of("redis-1", &shown, &roster(), &Sights::new()).pending
        };
        assert!(!pending(r#"{"master":{"address":"a.redis-1"},"slaves":[{"address":"b.redis-1"}]}"#));
        assert!(pending(r#"{"master":{"address":"b.redis-1"},"slaves":[{"address":"a.redis-1"}]}"#));
        assert!(pending(r#"{"master":{"address":"a.redis-1"},"slaves":[{"address":"c.redis-1"}]}"#));
        assert!(pending("{"), "what cannot be read was not applied");
    }

    #[test]
    fn an_operation_is_under_way_or_over() {
        let journal = |stage: &str| {
            let text = format!(r#"{{"number":4,"kind":"switch","stage":"{stage}","target":{{"name":"b"}},"gap":7}}"#);
            Shown { journal: Journal::decode(text.as_bytes()).ok(), ..Shown::default() }
        };
        let told = |stage| Topology::of("redis-1", &journal(stage), &roster(), &Sights::new());
        assert_eq!((told("promote").phase.as_deref(), told("promote").last), (Some("promote"), None));
        let done = told("done");
        assert_eq!(
            (done.phase, done.last.map(|last| (last.result, last.gap_ms))),
            (None, Some(("done".to_owned(), Some(7))))
        );
    }
}
