//! What stays on record of a host when its agent is gone: written once a start, without a lease, so that a lost host is
//! missed and not forgotten.
//!
//! A host is lost when it is known and no agent of that name lives, unless its agent said that it stops. Whoever
//! notices first writes down since when, and what it saw the host offer, so that agents which start later know it too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::node::{MAX_EACH, MAX_NODE, NodeRecord, cut_text};
use super::record::{BadRecord, Text};

/// How long a host that is lost or stopped stays on record.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// What any agent does of the chores at a time: whoever writes to the store chooses how many hosts are known.
const MOST_CHORES: usize = 32;

/// The value under `/wharf<prefix>/known/<node>/<owner>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnownHost {
    /// The host's name.
    pub node: Text,
    /// The agent's identity.
    pub owner: Text,
    /// The machine's identity, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Text>,
    /// The agent's version.
    pub version: Text,
    /// The addresses that it advertised at its start.
    pub addresses: Vec<IpAddr>,
    /// RFC 3339 time of the agent's start.
    pub started: Text,
    /// RFC 3339 time of its orderly end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Text>,
    /// RFC 3339 time since when it has been missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Text>,
    /// Services that it offered when it was last seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Text>,
}

impl KnownHost {
    /// Reads a host's value, as much of it as is shown of one.
    pub fn decode(value: &[u8]) -> Result<Self, BadRecord> {
        if value.len() > MAX_NODE {
            return Err(BadRecord::new(&format!("{} bytes, more than {MAX_NODE}", value.len())));
        }
        let mut read: Self = serde_json::from_slice(value).map_err(|error| BadRecord::new(&error.to_string()))?;
        let Self { node, owner, version, started, machine, stopped, lost, .. } = &mut read;
        [node, owner, version, started].into_iter().chain(machine).chain(stopped).chain(lost).for_each(cut_text);
        read.addresses.truncate(MAX_EACH);
        read.services.truncate(super::node::MAX_SERVICES);
        read.services.iter_mut().for_each(cut_text);
        Ok(read)
    }

    /// Writes the value that is stored.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A known host as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its key.
    pub key: Text,
    /// The revision of its last put.
    pub revision: i64,
    /// What is known.
    pub host: KnownHost,
}

/// The hosts that no living agent bears the name of: those that are missed, and those that stopped.
pub fn absent<'k>(known: &'k [Known], nodes: &[NodeRecord]) -> (Vec<&'k Known>, Vec<&'k Known>) {
    let living: HashSet<&Text> = nodes.iter().map(|node| &node.node).collect();
    let mut newest = BTreeMap::<&Text, &Known>::new();
    for one in known.iter().filter(|one| !living.contains(&one.host.node)) {
        let place = newest.entry(&one.host.node).or_insert(one);
        if (&one.host.started, one.revision) > (&place.host.started, place.revision) {
            *place = one;
        }
    }
    newest.into_values().partition(|one| one.host.stopped.is_none())
}

/// One write to what is known; `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// The key.
    pub key: Text,
    /// The revision it was seen at; none where it was not there.
    pub seen: Option<i64>,
    /// What shall stand there.
    pub host: Option<KnownHost>,
}

/// What this agent has to write now: its own record where it is not as it should be.
pub fn own(own: &KnownHost, key: &str, known: &[Known]) -> Option<Deed> {
    let there = known.iter().find(|one| *one.key == *key);
    let is_right = there.is_some_and(|one| one.host == *own);
    (!is_right).then(|| Deed { key: key.into(), seen: there.map(|one| one.revision), host: Some(own.clone()) })
}

/// What any agent may write, so that somebody does: who is lost, as `lost` has them, and whom nobody has to know of any
/// more.
pub fn chores(
    known: &[Known],
    nodes: &[NodeRecord],
    lost: &[Text],
    last: &BTreeMap<Text, NodeRecord>,
    now: SystemTime,
) -> Vec<Deed> {
    let (absent, _) = absent(known, nodes);
    let is_lost: HashSet<&Text> = lost.iter().collect();
    let lost: Vec<&Known> = absent.into_iter().filter(|one| is_lost.contains(&one.host.owner)).collect();
    let mut living = HashMap::<&Text, Vec<&NodeRecord>>::new();
    nodes.iter().for_each(|node| living.entry(&node.node).or_default().push(node));
    let deed = |one: &Known, host| Deed { key: one.key.clone(), seen: Some(one.revision), host };
    let mark = |one: &&Known| {
        let services = last.get(&one.host.owner).map(|node| node.services.clone()).unwrap_or_default();
        KnownHost { lost: Some(time(now)), services, ..one.host.clone() }
    };
    let missed = lost.iter().filter(|one| one.host.lost.is_none()).map(|one| deed(one, Some(mark(one))));
    let none = Vec::new();
    let named = |one: &Known| living.get(&one.host.node).unwrap_or(&none);
    let over = known.iter().filter(|one| is_over(one, named(one), now)).map(|one| deed(one, None));
    over.chain(missed).take(MOST_CHORES).collect()
}

/// Whether nobody has to know of it: its time is over, or another agent of that name lives, as after the host's state
/// was lost. `named` are the agents that live under that name.
fn is_over(one: &Known, named: &[&NodeRecord], now: SystemTime) -> bool {
    if !named.is_empty() {
        return named.iter().all(|node| node.owner != one.host.owner && node.started > one.host.started);
    }
    let since = one.host.stopped.as_deref().or(one.host.lost.as_deref());
    let since = since.and_then(|since| humantime::parse_rfc3339(since).ok());
    since.is_some_and(|since| now.duration_since(since).is_ok_and(|passed| passed >= KEPT))
}

/// The time as these records have it.
pub fn time(now: SystemTime) -> Text {
    humantime::format_rfc3339_seconds(now).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(node: &str, owner: &str, change: fn(&mut KnownHost)) -> Known {
        let mut host = KnownHost {
            node: node.into(),
            owner: owner.into(),
            started: "2026-01-01T00:00:00Z".into(),
            ..KnownHost::default()
        };
        change(&mut host);
        Known { key: format!("/wharf/services/known/{node}/{owner}").into(), revision: 7, host }
    }

    fn living(node: &str, owner: &str) -> NodeRecord {
        let started = "2026-01-02T00:00:00Z".into();
        NodeRecord { node: node.into(), owner: owner.into(), started, ..NodeRecord::default() }
    }

    fn at(time: &str) -> SystemTime {
        humantime::parse_rfc3339(time).expect("a time")
    }

    #[test]
    fn who_is_known_and_does_not_live_is_lost_unless_it_stopped() {
        let all = [
            known("a", "1", |_| {}),
            known("b", "2", |_| {}),
            known("c", "3", |host| host.stopped = Some("2026-01-01T01:00:00Z".into())),
        ];
        let (lost, stopped) = absent(&all, &[living("a", "1")]);
        assert_eq!((&*lost[0].host.node, lost.len(), &*stopped[0].host.node, stopped.len()), ("b", 1, "c", 1));
        let (lost, _) = absent(&all, &[living("a", "1"), living("b", "9")]);
        assert!(lost.is_empty(), "a host that is back with another identity is back");
    }

    #[test]
    fn who_is_missed_is_marked_once_with_what_it_offered() {
        let all = [known("b", "2", |_| {})];
        let last = NodeRecord { services: vec!["redis".into()], ..living("b", "2") };
        let last = BTreeMap::from([("2".into(), last)]);
        let now = at("2026-01-03T00:00:00Z");
        let deeds = chores(&all, &[], &["2".into()], &last, now);
        let marked = deeds[0].host.clone().expect("a mark");
        assert_eq!(
            (marked.lost.as_deref(), &*marked.services[0], deeds[0].seen),
            (Some("2026-01-03T00:00:00Z"), "redis", Some(7))
        );
        let marked = [Known { host: marked, ..all[0].clone() }];
        assert_eq!(chores(&marked, &[], &["2".into()], &last, now), []);
    }

    #[test]
    fn after_a_day_and_behind_a_newer_agent_of_that_name_it_is_forgotten() {
        let all = [known("b", "2", |host| host.lost = Some("2026-01-03T00:00:00Z".into()))];
        let none = BTreeMap::new();
        assert_eq!(chores(&all, &[], &[], &none, at("2026-01-03T23:59:59Z")), []);
        let gone = Deed { key: all[0].key.clone(), seen: Some(7), host: None };
        assert_eq!(chores(&all, &[], &[], &none, at("2026-01-04T00:00:00Z")), std::slice::from_ref(&gone));
        assert_eq!(chores(&all, &[living("b", "9")], &[], &none, at("2026-01-03T00:00:01Z")), [gone]);
        assert_eq!(chores(&all, &[living("b", "2")], &[], &none, at("2026-02-03T00:00:01Z")), [], "it lives");
    }

    #[test]
    fn ten_thousand_records_of_others_are_a_few_chores_at_a_time() {
        let all: Vec<Known> =
            (0..10_000).map(|number| known(&format!("n{number}"), &format!("o{number}"), |_| {})).collect();
        let living: Vec<NodeRecord> =
            (0..5_000).map(|number| living(&format!("n{number}"), &format!("o{number}"))).collect();
        let (lost, _) = absent(&all, &living);
        let lost: Vec<Text> = lost.iter().map(|one| one.host.owner.clone()).collect();
        assert_eq!(lost.len(), 5_000);
        assert_eq!(chores(&all, &living, &lost, &BTreeMap::new(), at("2026-01-03T00:00:00Z")).len(), 32);
    }

    #[test]
    fn the_own_record_is_written_where_it_differs() {
        let mine = known("a", "1", |_| {});
        let other = known("a", "1", |host| host.lost = Some("2026-01-03T00:00:00Z".into()));
        assert_eq!(own(&mine.host, &mine.key, std::slice::from_ref(&mine)), None);
        assert_eq!(own(&mine.host, &mine.key, &[other]).map(|deed| deed.seen), Some(Some(7)));
        assert_eq!(own(&mine.host, &mine.key, &[]).map(|deed| deed.seen), Some(None));
    }

    #[test]
    fn values_of_others_are_read_within_bounds() {
        let long = KnownHost { node: "ä".repeat(900).into(), services: vec!["s".into(); 99], ..KnownHost::default() };
        let read = KnownHost::decode(long.encode().as_bytes()).expect("a host");
        assert_eq!((read.node.chars().count(), read.services.len()), (255, 32));
        assert!(KnownHost::decode(b"7").is_err());
    }
}
