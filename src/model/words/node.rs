//! The node record: what one agent tells the cluster of itself, beside its services' records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::ordinal::{HIGHEST, RoleName};
use super::record::{BadRecord, Text};

/// How many instances that are not ready a node record names; the rest are counted.
pub const MAX_WAITING: usize = 32;
/// How much of a reason is told.
pub const MAX_REASON: usize = 120;
/// The reason of a ZooKeeper that answers and does not serve.
pub const NO_QUORUM: &str = "not serving requests: no quorum";
/// The longest value that is read, in bytes: all that a node may tell takes less.
pub const MAX_NODE: usize = 64 * 1024;
/// How many addresses, and how many states, of a node are read.
pub(super) const MAX_EACH: usize = 16;
/// How many services of a node are named.
pub const MAX_SERVICES: usize = 32;
/// How much of any other text is read.
const MAX_TEXT: usize = 255;
/// More instances than this no host has.
const MAX_COUNT: usize = 1_000_000;

/// The value under `/wharf<prefix>/nodes/<node>/<owner>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRecord {
    /// The host's name.
    pub node: Text,
    /// The agent's identity.
    pub owner: Text,
    /// The agent's version.
    pub version: Text,
    /// The addresses it advertises.
    pub addresses: Vec<IpAddr>,
    /// The port on which it speaks Sentinel's protocol at these addresses.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "port")]
    pub sentinel: Option<u16>,
    /// Where the host is, from large to small.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "super::site::lenient")]
    pub site: Option<Text>,
    /// The machine, by an identity that wharf derives from it: two hosts of one name are told apart by it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "text")]
    pub machine: Option<Text>,
    /// The host's numbers by role.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "ordinals")]
    pub ordinals: BTreeMap<Text, u32>,
    /// RFC 3339 time of the agent's start.
    pub started: Text,
    /// RFC 3339 time since when it has been drained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drained: Option<Text>,
    /// Instances by state.
    pub states: BTreeMap<Text, usize>,
    /// Services that it offers, as many as are named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Text>,
    /// Instances that are not ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
    /// How many more are not ready than are named.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
}

/// An instance that is not ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Its id.
    pub id: Text,
    /// The service it would be found under, the first when there are several.
    pub service: Text,
    /// The address it is at: one who steers it has to reach it although it is not found.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "host")]
    pub host: Option<IpAddr>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "port")]
    pub port: Option<u16>,
    /// Its state.
    pub state: Text,
    /// RFC 3339 time since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Text>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
}

/// An address; what is none costs itself, not the node's record.
fn host<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    Ok(Value::deserialize(from)?.as_str().and_then(|text| text.parse().ok()))
}

fn port<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    Ok(Value::deserialize(from)?.as_u64().and_then(|number| u16::try_from(number).ok()))
}

/// A text; what is none costs itself.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Text>, D::Error> {
    Ok(Value::deserialize(from)?.as_str().filter(|text| text.len() <= MAX_TEXT).map(Into::into))
}

/// Numbers by role; what is no role or no number costs itself.
fn ordinals<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Text, u32>, D::Error> {
    let Value::Object(fields) = Value::deserialize(from)? else { return Ok(BTreeMap::new()) };
    let read = fields.into_iter().filter_map(|(role, number)| {
        let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
        Some((RoleName::parse(&role).ok()?.text(), number.filter(|number| (1..=HIGHEST).contains(number))?))
    });
    Ok(read.take(MAX_EACH).collect())
}

impl Waiting {
    fn cut(&mut self) {
        for text in [&mut self.id, &mut self.service, &mut self.state] {
            cut(text, MAX_TEXT);
        }
        self.since.iter_mut().for_each(|text| cut(text, MAX_TEXT));
        self.reason.iter_mut().for_each(|text| cut(text, MAX_REASON));
    }
}

/// Leaves so many characters of a text.
fn cut(text: &mut Text, most: usize) {
    if let Some((end, _)) = text.char_indices().nth(most) {
        *text = text[..end].into();
    }
}

/// Leaves of a text what is read of one.
pub(super) fn cut_text(text: &mut Text) {
    cut(text, MAX_TEXT);
}

fn take_cut(text: &mut Text) -> Text {
    cut(text, MAX_TEXT);
    text.clone()
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Addresses of this host that nodes of other owners advertise too, with their names.
pub fn shared_addresses(nodes: &[NodeRecord], owner: &str, own: &[IpAddr]) -> BTreeSet<(IpAddr, Text)> {
    let others = nodes.iter().filter(|node| *node.owner != *owner);
    let theirs = others.flat_map(|node| node.addresses.iter().map(|address| (*address, node.node.clone())));
    theirs.filter(|(address, _)| own.contains(address)).collect()
}

/// Names that several living agents bear.
pub fn twins(nodes: &[NodeRecord]) -> BTreeSet<Text> {
    let mut owners = BTreeMap::<&Text, &Text>::new();
    let mut twins = BTreeSet::new();
    for node in nodes {
        if *owners.entry(&node.node).or_insert(&node.owner) != &node.owner {
            twins.insert(node.node.clone());
        }
    }
    twins
}

impl NodeRecord {
    /// Reads a node's value, as much of it as is shown of one; what is none says why.
    pub fn decode(value: &[u8]) -> Result<Self, BadRecord> {
        if value.len() > MAX_NODE {
            return Err(BadRecord::new(&format!("{} bytes, more than {MAX_NODE}", value.len())));
        }
        let read: Self = serde_json::from_slice(value).map_err(|error| BadRecord::new(&error.to_string()))?;
        Ok(read.within_bounds())
    }

    /// Leaves of it what may be told.
    pub fn within_bounds(mut self) -> Self {
        for text in [&mut self.node, &mut self.owner, &mut self.version, &mut self.started] {
            cut(text, MAX_TEXT);
        }
        self.drained.iter_mut().for_each(|text| cut(text, MAX_TEXT));
        self.addresses.truncate(MAX_EACH);
        self.addresses.shrink_to_fit();
        let states = std::mem::take(&mut self.states).into_iter().take(MAX_EACH);
        self.states = states.map(|(mut state, count)| (take_cut(&mut state), count.min(MAX_COUNT))).collect();
        self.services.truncate(MAX_SERVICES);
        self.services.shrink_to_fit();
        self.services.iter_mut().for_each(cut_text);
        self.more = self.more.saturating_add(self.waiting.len().saturating_sub(MAX_WAITING)).min(MAX_COUNT);
        self.waiting.truncate(MAX_WAITING);
        self.waiting.shrink_to_fit();
        self.waiting.iter_mut().for_each(Waiting::cut);
        self
    }

    /// Writes the value that is stored.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text, numbers and string maps always encode")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, owner: &str, addresses: &[&str]) -> NodeRecord {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        NodeRecord { node: name.into(), owner: owner.into(), addresses, ..NodeRecord::default() }
    }

    #[test]
    fn of_a_node_is_read_what_is_shown_of_one() {
        let waiting =
            vec![
                Waiting { id: "i".repeat(300).into(), reason: Some("r".repeat(300).into()), ..Waiting::default() };
                40
            ];
        let states: BTreeMap<Text, usize> = (0..40).map(|state| (state.to_string().into(), usize::MAX)).collect();
        let addresses = ["10.0.0.1"; 40];
        let huge =
            NodeRecord {
                node: "ä".repeat(900).into(), waiting, states, more: usize::MAX, ..node("", "1", &addresses)
            };
        let read = NodeRecord::decode(&huge.encode()).expect("a node record");
        assert_eq!((read.node.chars().count(), read.addresses.len(), read.waiting.len()), (255, 16, 32));
        assert_eq!((read.states.len(), read.states.values().max(), read.more), (16, Some(&1_000_000), 1_000_000));
        assert_eq!(
            (read.waiting[0].id.len(), read.waiting[0].reason.as_ref().map(|text| text.len())),
            (255, Some(120))
        );
        assert!(NodeRecord::decode(&vec![b' '; MAX_NODE + 1]).is_err());
        for number in ["-1", "1e99", "1.5", "99999999999999999999", "\"1\"", "null"] {
            let value = format!(r#"{{"node":"a","more":{number},"states":{{"ready":{number}}}}}"#);
            assert!(NodeRecord::decode(value.as_bytes()).is_err(), "{value}");
        }
    }

    #[test]
    fn where_an_instance_waits_is_told_or_not_and_costs_no_record() {
        for (host, port, expected) in [
            (r#""10.0.0.1""#, "6379", (Some("10.0.0.1"), Some(6379))),
            (r#""a b""#, "70000", (None, None)),
            ("7", r#""x""#, (None, None)),
            ("null", "null", (None, None)),
        ] {
            let value = format!(r#"{{"node":"a","waiting":[{{"id":"x","host":{host},"port":{port}}}]}}"#);
            let read = NodeRecord::decode(value.as_bytes()).expect(&value);
            let address = expected.0.map(|host| host.parse().expect("an address"));
            assert_eq!((read.waiting[0].host, read.waiting[0].port), (address, expected.1), "{value}");
        }
    }

    #[test]
    fn a_number_that_is_none_costs_itself() {
        let value = br#"{"node":"a","machine":7,"ordinals":{"nucleus":2,"a.b":1,"x":0,"y":"1","z":70000,"7":7}}"#;
        let read = NodeRecord::decode(value).expect("a node record");
        assert_eq!((read.ordinals, read.machine), (BTreeMap::from([("nucleus".into(), 2)]), None));
        assert!(NodeRecord::decode(br#"{"node":"a","ordinals":[]}"#).is_ok_and(|read| read.ordinals.is_empty()));
    }

    #[test]
    fn a_node_keeps_its_own_record() {
        let own = NodeRecord { more: 3, waiting: vec![Waiting::default(); 32], ..node("core-01", "1", &["10.0.0.1"]) };
        assert_eq!(NodeRecord::decode(&own.encode()), Ok(own));
    }

    #[test]
    fn an_address_of_ours_that_another_owner_advertises_is_shared() {
        let nodes = [node("a", "1", &["10.0.0.1"]), node("b", "2", &["10.0.0.1", "10.0.0.2"]), node("c", "3", &[])];
        let own = ["10.0.0.1".parse().expect("an address")];
        let shared = shared_addresses(&nodes, "1", &own);
        assert_eq!(shared, BTreeSet::from([(own[0], Text::from("b"))]));
        assert!(shared_addresses(&nodes, "2", &["10.0.0.2".parse().expect("an address")]).is_empty());
    }
}
