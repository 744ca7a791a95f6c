//! A member, and the list of them with its version, as it stands in the store and is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::catalog::index::Endpoint;
use crate::model::words::name::short_hash;
use crate::model::words::record::{BadRecord, Proto, Text};

/// The most members of a list: no client hashes over more, and all of them fit a reply of 40 KB.
pub const MOST_MEMBERS: usize = 1_024;
/// The longest value that is read, in bytes: the longest that may be written takes less.
const MAX_VALUE: usize = 512 * 1024;
/// The longest id and node that are kept, in bytes.
const MAX_TEXT: usize = 160;
/// The highest version: JavaScript's numbers are whole so far.
pub(super) const MAX_VERSION: u64 = (1 << 53) - 1;

/// One server of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it is known by when it comes back at another place.
    pub id: Text,
    /// The host that offers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Text>,
    /// The address that clients connect to.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
}

impl Member {
    /// What was found, as a member; none when it is nothing that a client of memcached connects to by IPv4.
    pub fn of(found: &Endpoint) -> Option<Self> {
        let record = found.record();
        let second = record.host6.as_deref().and_then(|host| host.parse().ok());
        let address = found.address().into_iter().chain(second).find_map(|address: IpAddr| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })?;
        let is_usable = found.port() > 0 && found.proto() != Some(Proto::Udp);
        is_usable.then(|| Self {
            id: cut(record.id.as_ref().filter(|id| !id.is_empty()).unwrap_or(found.key())),
            node: found.node().map(cut),
            address,
            port: found.port(),
        })
    }

    /// Where clients find it.
    pub fn place(&self) -> (Ipv4Addr, u16) {
        (self.address, self.port)
    }
}

/// A text as it is, or the beginning of a long one with its hash.
fn cut(text: &Text) -> Text {
    if text.len() <= MAX_TEXT {
        return text.clone();
    }
    let begin = &text[..text.floor_char_boundary(MAX_TEXT - 16)];
    format!("{begin}…{}", short_hash(text)).into()
}

/// What every client of a service is told: who is in the list, and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberList {
    /// It rises with each change of the list.
    pub version: u64,
    /// The members, the newest last.
    pub members: Vec<Member>,
}

/// The lists that the store has, by service, and whether that is known to be so now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberLists {
    /// The lists.
    pub lists: BTreeMap<String, MemberList>,
    /// They are followed at this moment.
    pub in_step: bool,
}

impl MemberList {
    /// Reads the value of the store; what is none says why.
    pub fn decode(value: &[u8]) -> Result<Self, BadRecord> {
        if value.len() > MAX_VALUE {
            return Err(BadRecord::new(&format!("{} bytes, more than {MAX_VALUE}", value.len())));
        }
        let list: Self = serde_json::from_slice(value).map_err(|error| BadRecord::new(&error.to_string()))?;
        let bad = |reason: &str| Err(BadRecord::new(reason));
        let places: BTreeSet<_> = list.members.iter().map(Member::place).collect();
        if list.members.is_empty() || list.members.len() > MOST_MEMBERS {
            return bad("no list of 1 to 1,024 members");
        }
        if places.len() < list.members.len() || places.iter().any(|(_, port)| *port == 0) {
            return bad("two members at one place, or one at none");
        }
        if list.version == 0 || list.version > MAX_VERSION {
            return bad("no version that may be told");
        }
        Ok(list)
    }

    /// Writes the value of the store.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers always encode")
    }

    /// Whether clients are told the same members in the same order.
    pub fn is_told_as(&self, members: &[Member]) -> bool {
        self.members.iter().map(Member::place).eq(members.iter().map(Member::place))
    }

    /// What a client is told: the version, a line feed, the members, a line feed. Both the name and the address of a
    /// member are its address, so that nobody needs the name of one that is down.
    pub fn body(&self) -> String {
        let mut body = format!("{}\n", self.version);
        for (place, Member { address, port, .. }) in self.members.iter().enumerate() {
            let space = if place > 0 { " " } else { "" };
            write!(body, "{space}{address}|{address}|{port}").expect("text takes text");
        }
        body.push('\n');
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::index::Catalog;
    use crate::model::words::key::Prefix;
    use crate::model::words::zone::Zones;

    fn member(record: &str) -> Option<Member> {
        let mut catalog = Catalog::default();
        catalog.put("/services/memcached/a", record.as_bytes(), 0, 1).expect("a record");
        let zones = Zones::new("services.internal", Prefix::parse("/services").expect("one"), []).expect("one");
        let service = catalog.service(&zones, "memcached").expect("it is there");
        Member::of(&service.endpoints[0])
    }

    #[test]
    fn who_is_reached_by_ipv4_is_a_member() {
        let told = |record: &str| member(record).map(|member| (member.address.to_string(), member.id.to_string()));
        let some = |address: &str, id: &str| Some((address.to_owned(), id.to_owned()));
        for (record, expected) in [
            (r#"{"host":"10.0.0.1","port":11211,"id":"a:m:1"}"#, some("10.0.0.1", "a:m:1")),
            (r#"{"host":"10.0.0.1","port":11211}"#, some("10.0.0.1", "/services/memcached/a")),
            (r#"{"host":"2001:db8::1","host6":"10.0.0.2","port":1,"id":"x"}"#, some("10.0.0.2", "x")),
            (r#"{"host":"2001:db8::1","port":1}"#, None),
            (r#"{"host":"cache.example.org","port":1}"#, None),
            (r#"{"host":"10.0.0.1"}"#, None),
            (r#"{"host":"10.0.0.1","port":1,"proto":"udp"}"#, None),
        ] {
            assert_eq!(told(record), expected, "{record}");
        }
        let long = member(&format!(r#"{{"host":"10.0.0.1","port":1,"id":"{}"}}"#, "ä".repeat(900))).expect("one");
        assert!(long.id.len() <= MAX_TEXT);
    }

    #[test]
    fn a_list_reads_back_and_what_may_not_be_told_is_none() {
        let member = |last: u8| Member { id: "a".into(), node: None, address: [10, 0, 0, last].into(), port: 11211 };
        let list = MemberList { version: 7, members: vec![member(1), member(2)] };
        assert_eq!(MemberList::decode(&list.encode()), Ok(list.clone()));
        assert_eq!(list.body(), "7\n10.0.0.1|10.0.0.1|11211 10.0.0.2|10.0.0.2|11211\n");
        let of = |version, members: Vec<Member>| MemberList { version, members }.encode();
        let many = (0..=MOST_MEMBERS).map(|n| Member { port: u16::try_from(n + 1).expect("small"), ..member(1) });
        for bad in [
            of(7, vec![]),
            of(0, vec![member(1)]),
            of(u64::MAX, vec![member(1)]),
            of(7, vec![member(1), member(1)]),
            of(7, vec![Member { port: 0, ..member(1) }]),
            of(7, many.collect()),
            b"{".to_vec(),
            vec![b' '; MAX_VALUE + 1],
        ] {
            assert!(MemberList::decode(&bad).is_err());
        }
    }
}
