//! Paths of v2, where they lie in the store, and which of them are served.

use std::fmt;

use crate::model::words::key::Prefix;

/// The longest path, in bytes.
const MAX_BYTES: usize = 2_048;
/// The most parts of a path: each is looked at, and held in the conditions of a commit.
const MAX_PARTS: usize = 40;
/// Below it lies what is no service: nodes, locks, the marks of directories.
const OURS: &str = "/wharf";

/// A path, clean: `/`, or `/a/b`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePath(String);

impl NodePath {
    /// The path that `text` means: empty parts and `.` are left out, `..` goes back. An error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        if parts.len() > MAX_PARTS || text.len() > MAX_BYTES {
            return Err(format!("the key has more than {MAX_PARTS} parts or {MAX_BYTES} bytes"));
        }
        if text.contains('\0') {
            return Err("the key holds NUL".to_owned());
        }
        Ok(Self(format!("/{}", parts.join("/"))))
    }

    /// The path of a key of the store, if it is one: other programs' keys may be anything.
    pub fn of_key(key: &str) -> Option<Self> {
        Self::parse(key).ok().filter(|path| path.0 == key)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// What every path below this one begins with.
    pub fn below(&self) -> String {
        if self.is_root() { self.0.clone() } else { format!("{}/", self.0) }
    }

    /// The path of a child.
    pub fn child(&self, name: &str) -> Self {
        Self(format!("{}{name}", self.below()))
    }

    /// The directory that it is in; none of the root.
    pub fn parent(&self) -> Option<Self> {
        let (parent, name) = self.0.rsplit_once('/')?;
        let parent = if parent.is_empty() { "/" } else { parent };
        (!name.is_empty()).then(|| Self(parent.to_owned()))
    }

    /// Its last part.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The directories above it, outermost first, without the root.
    pub fn ancestors(&self) -> Vec<Self> {
        let ends = self.0.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
        ends.map(|at| Self(self.0[..at].to_owned())).collect()
    }

    /// Whether it lies below the other.
    pub fn is_below(&self, other: &Self) -> bool {
        self != other && self.0.starts_with(&other.below())
    }

    /// Whether it is where this program keeps what is no service.
    pub fn is_ours(&self) -> bool {
        self.0.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether whoever lists or watches `from` is not shown it: a part behind that begins with `_`, or what is ours.
    pub fn is_hidden_from(&self, from: &Self) -> bool {
        let behind = self.0.strip_prefix(&from.below()).unwrap_or_default();
        behind.split('/').any(|part| part.starts_with('_')) || (from.is_root() && self.is_ours())
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The paths that are served: those below one of some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Vec<NodePath>);

impl Scope {
    /// Those below `roots`; one within another adds nothing.
    pub fn new(mut roots: Vec<NodePath>) -> Self {
        roots.sort();
        roots.dedup();
        let all = roots.clone();
        roots.retain(|root| !all.iter().any(|other| root.is_below(other)));
        Self(roots)
    }

    /// The outermost paths.
    pub fn roots(&self) -> &[NodePath] {
        &self.0
    }

    /// Whether a path lies below one of them.
    pub fn is_within(&self, path: &NodePath) -> bool {
        self.0.iter().any(|root| path.is_below(root))
    }

    /// Below which of them a path is, as its place among them; none when it is not served.
    pub fn root_of(&self, path: &NodePath) -> Option<usize> {
        self.0.iter().position(|root| path == root || path.is_below(root))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots: Vec<&str> = self.0.iter().map(NodePath::as_str).collect();
        f.write_str(&roots.join(", "))
    }
}

/// Where this program keeps what v2 needs beside the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    dirs: String,
    act: String,
    locks: String,
}

impl Places {
    /// Those beside the tree of this prefix.
    pub fn new(prefix: &Prefix) -> Self {
        let own = prefix.etcd_v2();
        let locks = prefix.locks().trim_end_matches('/').to_owned();
        Self { dirs: format!("{own}dirs"), act: format!("{own}act"), locks }
    }

    /// The key that remembers a directory.
    pub fn mark(&self, path: &NodePath) -> String {
        format!("{}{path}", self.dirs)
    }

    /// What every key begins with that remembers a directory below this one.
    pub fn marks_below(&self, path: &NodePath) -> String {
        format!("{}{}", self.dirs, path.below())
    }

    /// The directory that a key remembers.
    pub fn marked(&self, key: &str) -> Option<NodePath> {
        NodePath::of_key(key.strip_prefix(&self.dirs)?)
    }

    /// The key that says what the last request was.
    pub fn act(&self) -> &str {
        &self.act
    }

    /// The place in the queue of a lock that is called by the key `path`, and holds it on this lease.
    pub fn place_of_lock(&self, path: &NodePath, lease: i64) -> String {
        format!("{}{path}/queue/{lease:x}", self.locks)
    }

    /// The path that a place in a queue is for, and its lease.
    pub fn lock_of_place(&self, key: &str) -> Option<(NodePath, i64)> {
        let (path, lease) = key.strip_prefix(&self.locks)?.rsplit_once("/queue/")?;
        Some((NodePath::of_key(path)?, i64::from_str_radix(lease, 16).ok()?))
    }

    /// What every place begins with in a queue for a key below this one.
    pub fn locks_below(&self, path: &NodePath) -> String {
        format!("{}{}", self.locks, path.below())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NodePath {
        NodePath::parse(text).unwrap_or_else(|problem| panic!("{problem}"))
    }

    #[test]
    fn paths_are_made_clean() {
        for (text, clean) in
            [("", "/"), ("/", "/"), ("//a//b/", "/a/b"), ("/a/./b/../c", "/a/c"), ("/../..", "/"), ("/a/..b", "/a/..b")]
        {
            assert_eq!(path(text).as_str(), clean, "{text}");
        }
        for bad in ["/a\0", &"/a".repeat(41), &format!("/{}", "a".repeat(3_000))] {
            assert!(NodePath::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(NodePath::of_key("/a//b"), None);
    }

    #[test]
    fn above_and_below() {
        let (a, deep) = (path("/a"), path("/a/b/_c"));
        assert_eq!(deep.ancestors(), [path("/a"), path("/a/b")]);
        assert_eq!((deep.parent(), a.parent(), path("/").parent()), (Some(path("/a/b")), Some(path("/")), None));
        assert!(deep.is_below(&a) && !a.is_below(&a) && !path("/ab").is_below(&a) && a.is_below(&path("/")));
        assert!(deep.is_hidden_from(&a) && !deep.is_hidden_from(&path("/a/b/_c")));
        assert!(path("/wharf/x").is_hidden_from(&path("/")) && !path("/wharfs").is_hidden_from(&path("/")));
    }

    #[test]
    fn what_is_served_lies_below_its_roots() {
        let scope = Scope::new(vec![path("/services"), path("/services/redis"), path("/config")]);
        assert_eq!(scope.roots(), [path("/config"), path("/services")]);
        for (asked, root) in [
            ("/services", Some(1)),
            ("/services/redis/a", Some(1)),
            ("/servicesx", None),
            ("/", None),
            ("/wharf", None),
        ] {
            assert_eq!(scope.root_of(&path(asked)), root, "{asked}");
        }
        assert!(scope.is_within(&path("/services/a")) && !scope.is_within(&path("/services")));
        assert_eq!(Scope::new(vec![path("/"), path("/a")]).root_of(&path("/b")), Some(0));
    }

    #[test]
    fn marks_and_locks_lie_beside_the_tree() {
        let places = Places::new(&Prefix::parse("/services").expect("a prefix"));
        assert_eq!(places.mark(&path("/a/b")), "/wharf/services/v2/dirs/a/b");
        assert_eq!(places.marked("/wharf/services/v2/dirs/a/b"), Some(path("/a/b")));
        assert_eq!(places.marks_below(&path("/")), "/wharf/services/v2/dirs/");
        let queue = "/wharf/services/locks/services/postgres/master/queue/694d";
        assert_eq!(places.place_of_lock(&path("/services/postgres/master"), 0x694d), queue);
        assert_eq!(places.lock_of_place(queue), Some((path("/services/postgres/master"), 0x694d)));
        assert_eq!(places.lock_of_place("/wharf/services/locks/name/child"), None);
    }
}
