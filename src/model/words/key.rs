//! Keys of the tree: `<prefix>/<service, reversed>/<instance>`, which is SkyDNS's tree.
//!
//! Service `cache.prod` with instance `core-01` is `/services/prod/cache/core-01`: a name's labels reversed below the
//! prefix. What is no service lives under `/wharf<prefix>/`.

use std::borrow::Cow;
use std::fmt;

use super::name::{Label, MAX_LABEL, ServiceName, short_hash};

/// The longest key behind its prefix, in bytes: a DNS name has no more.
pub const MAX_BELOW: usize = 255;
/// The most labels of a key behind its prefix.
pub const MAX_LABELS: usize = 127;
/// How much of an unusable key is kept and told.
const MAX_SHOWN: usize = 256;

/// Why the part of a key behind its prefix is no DNS name below the zone, if it is none. A dot within a segment parts
/// labels as the slash does.
pub fn flaw(below: &str) -> Option<&'static str> {
    if below.len() > MAX_BELOW {
        return Some("its key has more than 255 bytes behind the prefix");
    }
    if below.chars().any(char::is_control) {
        return Some("its key holds a control character, or is no UTF-8");
    }
    let labels = || below.split(['/', '.']);
    if labels().any(|label| label.len() > MAX_LABEL) {
        return Some("its key has a segment of more than 63 bytes");
    }
    if labels().any(str::is_empty) {
        return Some("its key has an empty segment");
    }
    (labels().count() > MAX_LABELS).then_some("its key has more than 127 segments")
}

/// The key, or what stands for one that is too long to be kept: its beginning, and a hash that tells it from others.
pub fn shown(key: &str) -> Cow<'_, str> {
    if key.len() <= MAX_SHOWN {
        return Cow::Borrowed(key);
    }
    let begin = &key[..key.floor_char_boundary(MAX_SHOWN / 2)];
    Cow::Owned(format!("{begin}…{}", short_hash(key)))
}

/// A key as text. Other programs' keys may be any bytes; one that is no UTF-8, or holds NUL, becomes a text that no
/// record has for its key: as far as it can be read, NUL, and all of its bytes in hex.
pub fn text(key: Vec<u8>) -> String {
    match String::from_utf8(key) {
        Ok(text) if !text.contains('\0') => text,
        Ok(text) => hidden(text.as_bytes()),
        Err(error) => hidden(error.as_bytes()),
    }
}

fn hidden(key: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(key).replace('\0', "\u{fffd}");
    text.push('\0');
    key.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
    text
}

/// The bytes of a key that [`text`] made a text of.
pub fn bytes(text: &str) -> Cow<'_, [u8]> {
    let Some((_, hex)) = text.split_once('\0') else { return Cow::Borrowed(text.as_bytes()) };
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    bytes.map_or(Cow::Borrowed(text.as_bytes()), Cow::Owned)
}

/// The path of the name that `key` reads as behind `prefix`, when it is not the key itself.
pub(crate) fn alias(prefix: &str, key: &str) -> Option<String> {
    let own = key.strip_prefix(prefix)?;
    let plain = !own.bytes().any(|byte| byte == b'.' || byte.is_ascii_uppercase());
    if plain {
        return None;
    }
    let mut path = String::with_capacity(key.len());
    for segment in own.split('/').skip(1) {
        for label in segment.rsplit('.') {
            path.push('/');
            path.push_str(label);
        }
    }
    path.make_ascii_lowercase();
    path.insert_str(0, prefix);
    Some(path)
}

/// The root of a tree of records, such as `/services`: begins with `/`, never ends with one, no empty part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(String);

impl Prefix {
    /// Takes `text` when it is a prefix; a final `/` is forgiven.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let inner = text.strip_prefix('/')?;
        let fits = inner
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control));
        fits.then(|| Self(text.to_owned()))
    }

    /// The prefix's text, without a final slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What every key below this prefix begins with.
    pub fn below(&self) -> String {
        format!("{}/", self.0)
    }

    /// The key of one instance of a service.
    pub fn record_key(&self, service: &ServiceName, instance: &Label) -> String {
        let mut key = self.0.clone();
        for label in service.labels().iter().rev() {
            key.push('/');
            key.push_str(label.as_str());
        }
        key.push('/');
        key.push_str(instance.as_str());
        key
    }

    /// The key of a node's own record, which is no service.
    pub fn node_key(&self, node: &str, owner: &str) -> String {
        format!("{}{node}/{owner}", self.nodes())
    }

    /// What the key of every node record begins with.
    pub fn nodes(&self) -> String {
        format!("/wharf{}/nodes/", self.0)
    }

    /// The key of what stays on record of a host.
    pub fn known_key(&self, node: &str, owner: &str) -> String {
        format!("{}{node}/{owner}", self.known())
    }

    /// What the key of everything that stays on record of a host begins with.
    pub fn known(&self) -> String {
        format!("/wharf{}/known/", self.0)
    }

    /// What every key of a lock begins with.
    pub fn locks(&self) -> String {
        format!("/wharf{}/locks/", self.0)
    }

    /// What every key of a topology begins with.
    pub fn topologies(&self) -> String {
        format!("/wharf{}/topology/", self.0)
    }

    /// What every key of a service's topology begins with: its journal, its hold, what was brought about.
    pub fn topology(&self, service: &str) -> String {
        format!("{}{service}/", self.topologies())
    }

    /// What the key of every agent's mark of a service's switch begins with.
    pub fn marks(&self, service: &str) -> String {
        format!("/wharf{}/marks/{service}/", self.0)
    }

    /// What the key of every member list begins with.
    pub fn members(&self) -> String {
        format!("/wharf{}/members/", self.0)
    }

    /// The key of a service's member list.
    pub fn member_list(&self, service: &str) -> String {
        format!("{}{service}", self.members())
    }

    /// What the key of every number of a role begins with.
    pub fn ordinals(&self, role: &str) -> String {
        format!("/wharf{}/ordinals/{role}/", self.0)
    }

    /// What every key begins with that serves etcd's v2 API.
    pub fn etcd_v2(&self) -> String {
        format!("/wharf{}/v2/", self.0)
    }

    /// The parts of `key` below this prefix, outermost first; `None` when it is not below it.
    pub fn parts<'k>(&self, key: &'k str) -> Option<std::str::Split<'k, char>> {
        Some(key.strip_prefix(&self.0)?.strip_prefix('/')?.split('/'))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_labels_reversed() {
        let prefix = Prefix::parse("/services/").expect("a prefix");
        let service = ServiceName::parse("cache.prod").expect("a name");
        let instance = Label::parse("core-01").expect("a label");
        assert_eq!(prefix.record_key(&service, &instance), "/services/prod/cache/core-01");
        assert_eq!(prefix.node_key("core-01", "ab12"), "/wharf/services/nodes/core-01/ab12");
    }

    #[test]
    fn what_is_no_name_below_its_zone_says_why() {
        let long = "a".repeat(64);
        let (deep, wide) = (["a"; 127].join("/"), ["a".repeat(63).as_str(); 4].join("/"));
        for good in ["redis/core-01", "redis/core-01.example.com:redis:6379", "größe/東", "_tcp/x", &deep, &wide] {
            assert_eq!(flaw(good), None, "{good}");
        }
        let dotted = format!("redis/{}", ["a".repeat(40), "b".repeat(40)].join("."));
        assert_eq!(flaw(&dotted), None, "a segment's own labels count");
        let (deeper, wider) = (format!("{deep}/a"), format!("{wide}a"));
        for bad in [
            "",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a/.b",
            "a\0b",
            "a\u{7f}",
            "a\u{9b}",
            &long,
            &deeper,
            &wider,
            &"x/".repeat(12_000),
            &text(b"caf\xe9".to_vec()),
        ] {
            assert!(flaw(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn keys_that_are_no_text_are_told_apart_and_long_ones_cut() {
        assert_eq!(text(b"/services/a".to_vec()), "/services/a");
        for key in
            [&b"/services/\xff"[..], b"/services/\xfe", b"/s/\0", b"/s/a\0b", b"\0", b"/s/\xef\xbf\xbd\0ff", b"/s/a"]
        {
            assert_eq!(*bytes(&text(key.to_vec())), *key);
            assert_eq!(text(key.to_vec()).contains('\0'), key != b"/s/a");
        }
        assert_eq!(shown("/services/a"), "/services/a");
        let (one, other) = (format!("/s/{}1", "ä".repeat(40_000)), format!("/s/{}2", "ä".repeat(40_000)));
        assert!(shown(&one).len() <= MAX_SHOWN && shown(&one) != shown(&other));
    }

    #[test]
    fn a_prefix_is_rooted_and_has_no_empty_part() {
        for bad in ["", "/", "services", "//", "/a//b", "/a/../b", "/a\n"] {
            assert_eq!(Prefix::parse(bad), None, "{bad:?}");
        }
        let prefix = Prefix::parse("/skydns/local").expect("a prefix");
        assert!(prefix.parts("/skydns/localhost/x").is_none());
        assert_eq!(prefix.parts("/skydns/local/a/b").expect("below").collect::<Vec<_>>(), ["a", "b"]);
    }
}
