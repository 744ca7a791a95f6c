//! The keys of numbers, and what stands there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::words::key::Prefix;
use crate::model::words::ordinal::{HIGHEST, RoleName, number};
use crate::model::words::record::Text;

/// The longest value that is read, in bytes.
const LONGEST: usize = 4 * 1024;
/// The longest text within one.
const MAX_TEXT: usize = 255;

/// The key of a number.
pub fn key(prefix: &Prefix, role: &RoleName, number: u32) -> String {
    format!("{}{number}", prefix.ordinals(role.as_str()))
}

/// What stands at a number's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// The host.
    pub node: Text,
    /// Its machine, by an identity that wharf derives from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Text>,
    /// RFC 3339 time since when it stands there.
    pub since: Text,
    /// It is claimed, and does not count yet.
    #[serde(skip_serializing_if = "is_false")]
    pub tentative: bool,
    /// A person has freed it, and its host has not seen that yet.
    #[serde(skip_serializing_if = "is_false")]
    pub released: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Entry {
    /// Reads a value; none when nobody can be told from it.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let entry: Self = (value.len() <= LONGEST).then(|| serde_json::from_slice(value).ok())??;
        let texts = [&entry.node, &entry.since, entry.machine.as_ref().unwrap_or(&entry.node)];
        let fits = !entry.node.is_empty() && texts.iter().all(|text| text.len() <= MAX_TEXT);
        fits.then_some(entry)
    }

    /// Writes the value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts always encode")
    }
}

/// A number as a host has it: what it remembers beside the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holding {
    /// The number.
    pub number: u32,
    /// The host's name then.
    pub node: Text,
    /// The machine then.
    pub machine: Option<Text>,
    /// RFC 3339 time since when.
    pub since: Text,
    /// It is another host's now: this one has none until a person says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_to: Option<Text>,
}

impl Holding {
    /// Reads a file's text.
    pub fn decode(text: &[u8]) -> Option<Self> {
        let holding: Self = serde_json::from_slice(text).ok()?;
        (1..=HIGHEST).contains(&holding.number).then_some(holding)
    }

    /// Writes a file's text.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always encode")
    }
}

/// A number's key as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The revision of its last put.
    pub revision: i64,
    /// What stands there; none when that cannot be read.
    pub entry: Option<Entry>,
}

/// The numbers of a role by the rest of their keys; what is no number is nobody's.
pub fn numbers<'k>(keys: impl IntoIterator<Item = (&'k str, Stored)>) -> BTreeMap<u32, Stored> {
    keys.into_iter().filter_map(|(rest, stored)| Some((number(rest)?, stored))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_a_key() {
        let prefix = Prefix::parse("/services").expect("a prefix");
        let role = RoleName::parse("nucleus").expect("a role");
        assert_eq!(key(&prefix, &role, 2), "/wharf/services/ordinals/nucleus/2");
    }

    #[test]
    fn a_value_of_anything_is_an_entry_or_nobodys() {
        let entry = Entry { node: "a".into(), since: "2026-01-01T00:00:00Z".into(), ..Entry::default() };
        assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        let long = format!(r#"{{"node":"{}"}}"#, "a".repeat(256));
        let huge = format!(r#"{{"node":"a","x":"{}"}}"#, "a".repeat(LONGEST));
        for text in ["", "{", "{}", "7", r#"{"node":7}"#, r#"{"node":""}"#, &long, &huge] {
            assert_eq!(Entry::decode(text.as_bytes()), None, "{text:.40}");
        }
        for text in ["", r#"{"number":0}"#, r#"{"number":70000}"#, r#"{"number":-1}"#] {
            assert_eq!(Holding::decode(text.as_bytes()), None, "{text}");
        }
    }
}
