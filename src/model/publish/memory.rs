//! What an agent remembers across restarts, and what of it still holds.
//!
//! The file is read leniently: garbage is nothing remembered, a field that cannot be read is that field forgotten, and
//! fields of newer builds are kept as they are. Another machine or node name drops all of it (a cloned image must not
//! speak as its original); another boot or cluster drops the lease only; another prefix keeps the owner and has the old
//! lease revoked once the new records stand.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::maintenance::Maintenance;
use crate::model::words::record::Text;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// The agent's identity.
    pub owner: Option<Text>,
    /// The host's name then.
    pub node: Option<Text>,
    /// The root of the tree then.
    pub prefix: Option<Text>,
    /// The cluster that granted the lease.
    pub cluster: Option<u64>,
    /// The lease that the records hang on.
    pub lease: Option<i64>,
    /// The machine then.
    pub machine: Option<Text>,
    /// The boot then.
    pub boot: Option<Text>,
    /// Since when the node has been drained by command.
    pub drained: Option<SystemTime>,
    /// What is withdrawn, by whose word and why.
    pub maintenance: Maintenance,
    /// The last source address of the IPv4 default route.
    pub source_v4: Option<Ipv4Addr>,
    /// The last source address of the IPv6 default route.
    pub source_v6: Option<Ipv6Addr>,
    /// Fields of other builds, kept.
    pub rest: Map<String, Value>,
}

/// Where and what this agent is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// The host's name.
    pub node: Text,
    /// The root of the tree.
    pub prefix: Text,
    /// The machine's identity, when it has one.
    pub machine: Option<Text>,
    /// This boot's identity.
    pub boot: Option<Text>,
}

/// What an agent goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Its identity.
    pub owner: Text,
    /// The lease to take over, if the cluster is still `cluster`.
    pub lease: Option<i64>,
    /// The cluster that granted the lease.
    pub cluster: Option<u64>,
    /// A lease to revoke once the new records stand: its records are under another prefix.
    pub retire: Option<i64>,
    /// Since when the node has been drained.
    pub drained: Option<SystemTime>,
    /// The last source address of the IPv4 default route.
    pub source_v4: Option<Ipv4Addr>,
    /// The last source address of the IPv6 default route.
    pub source_v6: Option<Ipv6Addr>,
}

impl Memory {
    /// Reads the file's text; also says what could not be used.
    pub fn decode(text: &[u8]) -> (Self, Vec<String>) {
        let fields = match serde_json::from_slice::<Value>(text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return (Self::default(), vec!["not a JSON object".to_owned()]),
            Err(error) => return (Self::default(), vec![error.to_string()]),
        };
        let mut reader = Reader { fields, problems: Vec::new() };
        let memory = Self {
            owner: reader.text("owner").filter(|owner| is_owner(owner)),
            node: reader.text("node"),
            prefix: reader.text("prefix"),
            cluster: reader.hex("cluster"),
            lease: reader.hex("lease").map(u64::cast_signed).filter(|lease| (1..i64::MAX).contains(lease)),
            machine: reader.text("machine"),
            boot: reader.text("boot"),
            drained: reader.time("drained"),
            maintenance: reader.fields.remove("maintenance").map(|it| Maintenance::decode(&it)).unwrap_or_default(),
            source_v4: reader.take("source_v4", |text| text.parse().ok()),
            source_v6: reader.take("source_v6", |text| text.parse().ok()),
            rest: reader.fields,
        };
        (memory, reader.problems)
    }

    /// Writes the file's text.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = self.rest.clone();
        let hex = |number: u64| format!("{number:x}");
        let texts = [
            ("owner", self.owner.as_deref().map(str::to_owned)),
            ("node", self.node.as_deref().map(str::to_owned)),
            ("prefix", self.prefix.as_deref().map(str::to_owned)),
            ("cluster", self.cluster.map(hex)),
            ("lease", self.lease.map(i64::cast_unsigned).map(hex)),
            ("machine", self.machine.as_deref().map(str::to_owned)),
            ("boot", self.boot.as_deref().map(str::to_owned)),
            ("drained", self.drained.map(|time| humantime::format_rfc3339_seconds(time).to_string())),
            ("source_v4", self.source_v4.map(|address| address.to_string())),
            ("source_v6", self.source_v6.map(|address| address.to_string())),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                fields.insert(name.to_owned(), Value::String(value));
            }
        }
        if self.maintenance != Maintenance::default() {
            fields.insert("maintenance".to_owned(), self.maintenance.encode());
        }
        let mut text = serde_json::to_vec_pretty(&fields).expect("a map of strings always encodes");
        text.push(b'\n');
        text
    }

    /// What of it holds `here`, and what is to be remembered from now on. `fresh` is the owner for one who has none.
    pub fn resume(self, here: &Here, fresh: &str) -> (Self, Resumed) {
        let same = |then: &Option<Text>, now: &Option<Text>| then.is_none() || now.is_none() || then == now;
        let ours = same(&self.machine, &here.machine) && self.node.as_ref().is_none_or(|node| *node == here.node);
        let memory = if ours { self } else { Self { rest: self.rest, ..Self::default() } };
        let same_boot = same(&memory.boot, &here.boot);
        let same_prefix = memory.prefix.as_ref().is_none_or(|prefix| *prefix == here.prefix);
        let lease = memory.lease.filter(|_| same_boot);
        let resumed = Resumed {
            owner: memory.owner.clone().unwrap_or_else(|| fresh.into()),
            lease: lease.filter(|_| same_prefix),
            cluster: memory.cluster,
            retire: lease.filter(|_| !same_prefix),
            drained: memory.drained,
            source_v4: memory.source_v4,
            source_v6: memory.source_v6,
        };
        let memory = Self {
            owner: Some(resumed.owner.clone()),
            node: Some(here.node.clone()),
            prefix: Some(here.prefix.clone()),
            machine: here.machine.clone(),
            boot: here.boot.clone(),
            lease: resumed.lease,
            ..memory
        };
        (memory, resumed)
    }
}

fn is_owner(owner: &str) -> bool {
    (8..=64).contains(&owner.len()) && owner.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

struct Reader {
    fields: Map<String, Value>,
    problems: Vec<String>,
}

impl Reader {
    fn take<T>(&mut self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.fields.remove(name)?;
        let read = value.as_str().and_then(read);
        if read.is_none() {
            self.problems.push(format!("field {name} cannot be read"));
        }
        read
    }

    fn text(&mut self, name: &str) -> Option<Text> {
        self.take(name, |text| (!text.is_empty() && text.len() <= 1024).then(|| text.into()))
    }

    fn hex(&mut self, name: &str) -> Option<u64> {
        self.take(name, |text| u64::from_str_radix(text, 16).ok())
    }

    fn time(&mut self, name: &str) -> Option<SystemTime> {
        self.take(name, |text| humantime::parse_rfc3339(text).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(node: &str, prefix: &str, machine: &str, boot: &str) -> Here {
        Here { node: node.into(), prefix: prefix.into(), machine: Some(machine.into()), boot: Some(boot.into()) }
    }

    fn remembered() -> Memory {
        let text = br#"{"owner":"0123456789abcdef","node":"core-01","prefix":"/services","cluster":"c1","lease":"1f",
            "machine":"m1","boot":"b1","drained":"2026-01-02T03:04:05Z","source_v4":"10.0.0.5","source_v6":"2001:db8::5","later":{"kept":[1]}}"#;
        let (memory, problems) = Memory::decode(text);
        assert_eq!(problems, Vec::<String>::new());
        memory
    }

    /// What is left of (owner, lease, retire, drained) in another place.
    fn check(here: &Here, expected: (&str, Option<i64>, Option<i64>, bool)) {
        let (memory, resumed) = remembered().resume(here, "fresh-owner");
        let left = (&*resumed.owner, resumed.lease, resumed.retire, resumed.drained.is_some());
        assert_eq!(left, expected, "{here:?}");
        assert!(memory.rest.contains_key("later"), "unknown fields are kept");
        assert_eq!(memory.lease, resumed.lease);
    }

    #[test]
    fn a_lease_that_no_store_grants_is_none() {
        for lease in ["0", "7fffffffffffffff", "8000000000000000", "ffffffffffffffff", "10000000000000000", "-1"] {
            let text = format!(r#"{{"owner":"0123456789abcdef","lease":"{lease}"}}"#);
            assert_eq!(Memory::decode(text.as_bytes()).0.lease, None, "{lease}");
        }
    }

    #[test]
    fn what_still_holds_depends_on_what_changed() {
        let (owner, lease) = ("0123456789abcdef", Some(0x1f));
        check(&here("core-01", "/services", "m1", "b1"), (owner, lease, None, true));
        check(&here("core-01", "/services", "m1", "b2"), (owner, None, None, true));
        check(&here("core-01", "/other", "m1", "b1"), (owner, None, lease, true));
        check(&here("core-01", "/services", "m2", "b1"), ("fresh-owner", None, None, false));
        check(&here("core-02", "/services", "m1", "b1"), ("fresh-owner", None, None, false));
    }

    #[test]
    fn garbage_is_nothing_remembered_and_a_bad_field_costs_itself() {
        for garbage in [&b""[..], b"\0\0", b"[1]", b"{\"owner\":"] {
            let (memory, problems) = Memory::decode(garbage);
            assert_eq!((memory, problems.len()), (Memory::default(), 1), "{garbage:?}");
        }
        let (memory, problems) = Memory::decode(br#"{"owner":"0123456789abcdef","lease":7,"new":1}"#);
        assert_eq!((memory.owner.as_deref(), memory.lease, problems.len()), (Some("0123456789abcdef"), None, 1));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let memory = remembered();
        assert_eq!(Memory::decode(&memory.encode()), (memory, Vec::new()));
    }
}
