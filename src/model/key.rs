//! Keys of the tree: `<prefix>/<service, reversed>/<instance>`, which is SkyDNS's tree.
//!
//! Service `cache.prod` with instance `core-01` is `/services/prod/cache/core-01`: a name's labels reversed below the
//! prefix. What is no service lives under `/wharf<prefix>/`.

use std::fmt;

use super::name::{Label, ServiceName};

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
    fn a_prefix_is_rooted_and_has_no_empty_part() {
        for bad in ["", "/", "services", "//", "/a//b", "/a/../b", "/a\n"] {
            assert_eq!(Prefix::parse(bad), None, "{bad:?}");
        }
        let prefix = Prefix::parse("/skydns/local").expect("a prefix");
        assert!(prefix.parts("/skydns/localhost/x").is_none());
        assert_eq!(prefix.parts("/skydns/local/a/b").expect("below").collect::<Vec<_>>(), ["a", "b"]);
    }
}
