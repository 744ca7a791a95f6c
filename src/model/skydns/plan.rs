//! What is written for each key of SkyDNS's tree: nothing for what is no record, nothing over what others wrote, and
//! what is left of a key's time as the time of its copy.

use crate::model::words::key::{Prefix, flaw};
use crate::model::words::record::{MAX_RECORD, Record};

use super::tree::Leaf;

/// Longer than that no lease can be (etcd), in seconds.
const LONGEST: u64 = 9_000_000_000;
/// A time of more bits is rounded down to that many: a tree has a few hundred different ones then, a lease for each.
const BITS: u32 = 6;

/// A record that shall stand in the v3 store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// A key that is not written, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// The key.
    pub key: String,
    /// The reason.
    pub reason: String,
}

/// Records that end at about the same time, on one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// How long they live, in seconds; without end when none.
    pub ttl: Option<u64>,
    /// The records.
    pub wanted: Vec<Wanted>,
}

/// What a tree comes to.
#[derive(Debug, Default)]
pub struct Sorted {
    /// SkyDNS's own settings, where the tree has them.
    pub config: Option<String>,
    /// What is to be written, what ends first first.
    pub groups: Vec<Group>,
    /// What is not.
    pub left_out: Vec<LeftOut>,
}

/// Parts records from what is none, and groups them by the time that they have left.
pub fn sorted(leaves: Vec<Leaf>, from: &Prefix) -> Sorted {
    let config = config_key(from);
    let mut sorted = Sorted::default();
    let mut records: Vec<(Option<u64>, Wanted)> = Vec::new();
    for leaf in leaves {
        if leaf.key == config {
            sorted.config = Some(leaf.value);
            continue;
        }
        match unfit(&leaf, from) {
            Some(reason) => sorted.left_out.push(LeftOut { key: leaf.key, reason }),
            None => records.push((leaf.left.map(lease), Wanted { key: leaf.key, value: leaf.value })),
        }
    }
    // What stays comes last.
    records.sort_by(|(a, x), (b, y)| (a.is_none(), a, &x.key).cmp(&(b.is_none(), b, &y.key)));
    for (ttl, record) in records {
        match sorted.groups.last_mut() {
            Some(group) if group.ttl == ttl => group.wanted.push(record),
            _ => sorted.groups.push(Group { ttl, wanted: vec![record] }),
        }
    }
    sorted
}

/// Where SkyDNS has its settings: right below the first part of its prefix.
pub fn config_key(from: &Prefix) -> String {
    format!("{}/config", root(from))
}

/// SkyDNS's prefix: the first part of the key.
pub fn root(from: &Prefix) -> &str {
    let text = from.as_str();
    text[1..].find('/').map_or(text, |at| &text[..=at])
}

/// Why a key's value is no record that is answered, if it is none.
fn unfit(leaf: &Leaf, from: &Prefix) -> Option<String> {
    if leaf.left == Some(0) {
        return Some("its time is over".to_owned());
    }
    // A name has all labels behind SkyDNS's own prefix.
    let below = leaf.key.strip_prefix(root(from))?.strip_prefix('/').unwrap_or_default();
    if let Some(flaw) = flaw(below) {
        return Some(flaw.to_owned());
    }
    if leaf.size > MAX_RECORD {
        return Some(format!("{} bytes, more than {MAX_RECORD}", leaf.size));
    }
    Record::decode(leaf.value.as_bytes()).err().map(|bad| bad.to_string())
}

/// The time of a lease for a key that has so many seconds left: never more, at most a 32nd less.
fn lease(left: u64) -> u64 {
    let left = left.min(LONGEST);
    let shift = (u64::BITS - left.leading_zeros()).saturating_sub(BITS);
    left >> shift << shift
}

/// A key as the v3 store has it.
#[derive(Clone, Copy, Debug)]
pub struct Held<'h> {
    /// Its value.
    pub value: &'h [u8],
    /// The revision of its last put.
    pub revision: i64,
    /// Whether it hangs on a lease.
    pub leased: bool,
}

/// What becomes of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not there: written.
    New,
    /// It is there, as of this revision: written over.
    Over(i64),
    /// It is there already.
    There,
    /// Something else is there, for this reason it stays.
    Other(String),
}

/// What becomes of `wanted`, which ends or does not, where `held` is in its place.
pub fn verdict(wanted: &Wanted, ends: bool, held: Option<Held<'_>>, overwrite: bool) -> Verdict {
    let Some(held) = held else { return Verdict::New };
    let same = held.value == wanted.value.as_bytes();
    if let Some(owner) = owner(held.value) {
        return if same { Verdict::There } else { Verdict::Other(format!("it belongs to the agent of {owner}")) };
    }
    match (same, overwrite) {
        // Neither copy ends.
        (true, _) if !ends && !held.leased => Verdict::There,
        (_, true) => Verdict::Over(held.revision),
        (true, false) => Verdict::There,
        (false, false) => Verdict::Other("the v3 store has another value: --overwrite writes over it".to_owned()),
    }
}

/// The host whose agent publishes a record, if one does.
fn owner(value: &[u8]) -> Option<String> {
    let record = Record::decode(value).ok()?;
    record.owner.as_ref()?;
    Some(record.node.as_deref().unwrap_or("another host").to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix::parse(text).expect("a prefix")
    }

    fn leaf(key: &str, value: &str, left: Option<u64>) -> Leaf {
        Leaf { key: key.to_owned(), value: value.to_owned(), size: value.len(), left }
    }

    const RECORD: &str = r#"{"host":"10.0.0.1","port":80}"#;

    #[test]
    fn records_are_grouped_by_their_time_and_the_rest_says_why_not() {
        let long = "x".repeat(64);
        let leaves = vec![
            leaf("/skydns/config", "{}", None),
            leaf("/skydns/local/skydns/a", RECORD, None),
            leaf("/skydns/local/skydns/b", RECORD, Some(1_001)),
            leaf("/skydns/local/skydns/c", RECORD, Some(7)),
            leaf("/skydns/local/skydns/d", RECORD, Some(1_000)),
            leaf("/skydns/local/skydns/gone", RECORD, Some(0)),
            leaf("/skydns/local/skydns/bad", r#"{"port":70000}"#, None),
            leaf(&format!("/skydns/local/skydns/{long}"), RECORD, None),
        ];
        let sorted = sorted(leaves, &prefix("/skydns"));
        let groups: Vec<_> = sorted.groups.iter().map(|group| (group.ttl, group.wanted.len())).collect();
        assert_eq!(groups, [(Some(7), 1), (Some(992), 2), (None, 1)]);
        assert_eq!(sorted.config.as_deref(), Some("{}"));
        let why: Vec<&str> = sorted.left_out.iter().map(|left| left.reason.as_str()).collect();
        assert_eq!(why[0], "its time is over");
        assert!(why[1].contains("70000") && why[2].contains("63 bytes"), "{why:?}");
    }

    #[test]
    fn the_settings_lie_below_the_first_part_of_the_prefix() {
        for (from, config) in [
            ("/skydns", "/skydns/config"),
            ("/skydns/local/skydns", "/skydns/config"),
            ("/mydns/local", "/mydns/config"),
        ] {
            assert_eq!(config_key(&prefix(from)), config);
        }
    }

    #[test]
    fn nothing_that_others_wrote_is_written_over() {
        let wanted = Wanted { key: "/skydns/local/a".to_owned(), value: RECORD.to_owned() };
        let held = |value: &'static str, leased| Some(Held { value: value.as_bytes(), revision: 7, leased });
        let owned = r#"{"host":"10.0.0.9","owner":"ab12","node":"core-01"}"#;
        let other = r#"{"host":"10.0.0.2"}"#;
        let check = |ends, held, overwrite| verdict(&wanted, ends, held, overwrite);
        assert_eq!(check(true, None, false), Verdict::New);
        assert_eq!(check(false, held(RECORD, false), true), Verdict::There);
        assert_eq!(check(true, held(RECORD, true), false), Verdict::There);
        assert_eq!(check(true, held(RECORD, true), true), Verdict::Over(7), "it gets its new time");
        assert!(matches!(check(true, held(other, false), false), Verdict::Other(_)));
        assert_eq!(check(true, held(other, false), true), Verdict::Over(7));
        for overwrite in [false, true] {
            assert_eq!(
                check(true, held(owned, true), overwrite),
                Verdict::Other("it belongs to the agent of core-01".to_owned())
            );
        }
    }

    proptest! {
        #[test]
        fn a_lease_is_never_longer_than_what_is_left(left in any::<u64>()) {
            let lease = lease(left);
            prop_assert!(lease <= left);
            prop_assert!(left > LONGEST || lease >= left - left / 32);
        }
    }
}
