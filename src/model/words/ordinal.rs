//! Numbers of hosts among those of a role, as they are written in keys and names, and where hosts are, by number and by
//! name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::name::Label;
use super::node::NodeRecord;
use super::record::Text;

/// The highest number: more hosts than that have no role together, and whoever writes keys chooses how many there are.
pub const HIGHEST: u32 = 9_999;
/// What hosts are numbered as: one label of a DNS name, such as `nucleus`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoleName(Text);

impl RoleName {
    /// Takes `text` when it is one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let label = Label::parse(text).filter(|label| number(label.as_str()).is_none());
        let bad = || format!("{text:?} is no role: lower-case letters, digits and - are, such as nucleus");
        label.map(|label| Self(label.as_str().into())).ok_or_else(bad)
    }

    /// The role as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, shared.
    pub fn text(&self) -> Text {
        self.0.clone()
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number as it is written in keys and names: from 1 on, without zeros before it.
pub fn number(text: &str) -> Option<u32> {
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| plain && (1..=HIGHEST).contains(number))
}

/// Addresses that are told of hosts of one name.
const MAX_ADDRESSES: usize = 16;

/// Where the hosts that are up are: by role and number, and by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbered {
    roles: BTreeMap<Text, BTreeMap<u32, Place>>,
    /// By the name's slug.
    hosts: BTreeMap<String, Vec<IpAddr>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    node: Text,
    addresses: Vec<IpAddr>,
    /// Hosts of other names say the same of themselves: it is nobody's until one is left.
    is_contested: bool,
}

impl Numbered {
    /// What the node records tell.
    pub fn of(nodes: &[NodeRecord]) -> Self {
        let mut numbered = Self::default();
        for node in nodes {
            if let Some(slug) = Label::slug(&node.node) {
                add_to(numbered.hosts.entry(slug.to_string()).or_default(), &node.addresses);
            }
            for (role, number) in &node.ordinals {
                numbered.add(node, role, *number);
            }
        }
        numbered
    }

    fn add(&mut self, node: &NodeRecord, role: &Text, number: u32) {
        let place = || Place { node: node.node.clone(), addresses: Vec::new(), is_contested: false };
        let place = self.roles.entry(role.clone()).or_default().entry(number).or_insert_with(place);
        place.is_contested |= place.node != node.node;
        add_to(&mut place.addresses, &node.addresses);
    }

    /// The addresses of the host of this name, as DNS writes it; of all of them where several are called so.
    pub fn host(&self, slug: &str) -> Option<&[IpAddr]> {
        self.hosts.get(slug).map(Vec::as_slice)
    }

    /// The addresses of a numbered host; none where nobody, or more than one, has that number.
    pub fn addresses(&self, role: &str, number: u32) -> Option<&[IpAddr]> {
        let place = self.roles.get(role)?.get(&number)?;
        (!place.is_contested).then_some(&*place.addresses)
    }

    /// Whether any host is numbered so.
    pub fn has(&self, role: &str) -> bool {
        self.roles.get(role).is_some_and(|numbers| numbers.values().any(|place| !place.is_contested))
    }
}

/// Adds addresses that are not there yet, as many as are told.
fn add_to(known: &mut Vec<IpAddr>, addresses: &[IpAddr]) {
    for address in addresses {
        if known.len() < MAX_ADDRESSES && !known.contains(address) {
            known.push(*address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_one_way_only() {
        for (text, expected) in [("1", Some(1)), ("42", Some(42)), ("9999", Some(9_999))] {
            assert_eq!(number(text), expected, "{text}");
        }
        for text in ["", "0", "01", "+1", "-1", "1 ", "10000", "99999999999999", "a", "1/2", "١"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn a_role_is_a_label_that_is_no_number() {
        assert_eq!(RoleName::parse("nucleus").map(|role| role.to_string()), Ok("nucleus".to_owned()));
        for bad in ["", "a.b", "Nucleus", "a/b", "..", "7", "a b", &"a".repeat(64)] {
            assert!(RoleName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_number_is_its_hosts_while_one_alone_says_so() {
        let node = |name: &str, address: &str, number| NodeRecord {
            node: name.into(),
            addresses: vec![address.parse().expect("an address")],
            ordinals: BTreeMap::from([("nucleus".into(), number)]),
            ..NodeRecord::default()
        };
        let nodes =
            [node("a", "10.0.0.1", 1), node("a", "10.0.0.9", 1), node("b", "10.0.0.2", 2), node("c", "10.0.0.3", 2)];
        let numbered = Numbered::of(&nodes);
        assert_eq!(numbered.addresses("nucleus", 1).map(<[_]>::len), Some(2), "an agent that went and one that came");
        assert_eq!((numbered.addresses("nucleus", 2), numbered.addresses("nucleus", 3)), (None, None));
        assert!(numbered.has("nucleus") && !numbered.has("body"));
        assert!(!Numbered::of(&nodes[2..]).has("nucleus"));
    }
}
