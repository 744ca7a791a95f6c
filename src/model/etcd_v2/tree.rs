//! What lies below a directory, from keys in order to nodes.
//!
//! Who writes to the store chooses how much there is: beyond the bounds the answer is that it is too much.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::index;
use super::node::Node;
use super::path::{NodePath, Places};
use super::sight::{Held, Life, Sight};

/// Nodes of one answer, and the bytes of their keys and values.
const MOST: usize = 65_536;
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// More lies below than an answer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

/// What was read so far.
#[derive(Debug)]
pub struct Tree {
    path: NodePath,
    recursive: bool,
    root: Branch,
    /// The first revision that made any of it, be it shown or not.
    made: Option<i64>,
    nodes: usize,
    bytes: usize,
}

/// What is in one directory, by name.
type Branch = BTreeMap<String, Twig>;

#[derive(Debug)]
enum Twig {
    File(Held),
    Dir { mark: Option<Held>, made: i64, branch: Branch },
}

impl Tree {
    /// Nothing below this path yet; with what lies deeper, or without.
    pub fn new(path: NodePath, recursive: bool) -> Self {
        Self { path, recursive, root: Branch::new(), made: None, nodes: 0, bytes: 0 }
    }

    /// Takes in a file, or a mark of a directory. Those of one kind come in the order of their keys, files first.
    pub fn take(&mut self, path: &NodePath, held: Held, is_mark: bool) -> Result<(), TooMuch> {
        if !path.is_below(&self.path) || (self.path.is_root() && path.is_ours()) {
            return Ok(());
        }
        let behind = path.as_str()[self.path.below().len()..].to_owned();
        let parts: Vec<&str> = behind.split('/').collect();
        // What is hidden is not shown; the directories above it are.
        let shown = parts.iter().position(|part| part.starts_with('_')).unwrap_or(parts.len());
        let depth = if self.recursive { shown } else { shown.min(1) };
        let (made, is_last) = (held.created, parts.len() <= depth);
        self.made = Some(self.made.map_or(made, |first| first.min(made)));
        let (inner, name) = if is_last { parts.split_at(parts.len() - 1) } else { parts.split_at(depth) };
        let twig = match (is_last, is_mark) {
            (false, _) => None,
            (true, false) => Some(Twig::File(held)),
            (true, true) => Some(Twig::Dir { mark: Some(held), made, branch: Branch::new() }),
        };
        let Some(branch) = self.reach(inner, made)? else { return Ok(()) };
        let (Some(twig), Some(name)) = (twig, name.first()) else { return Ok(()) };
        let cost = put(branch, name, twig);
        self.count(cost.map(|value| value + path.as_str().len()))
    }

    /// The directory with these names; none where a file stands in the way.
    fn reach(&mut self, names: &[&str], made: i64) -> Result<Option<&mut Branch>, TooMuch> {
        let mut fresh = 0;
        let mut branch = &mut self.root;
        for name in names {
            let twig = branch.entry((*name).to_owned()).or_insert_with(|| {
                fresh += name.len();
                Twig::Dir { mark: None, made, branch: Branch::new() }
            });
            let Twig::Dir { made: first, branch: inner, .. } = twig else { return Ok(None) };
            *first = (*first).min(made);
            branch = inner;
        }
        self.nodes += usize::from(fresh > 0);
        self.bytes += fresh;
        if self.nodes > MOST || self.bytes > MOST_BYTES { Err(TooMuch) } else { Ok(Some(branch)) }
    }

    fn count(&mut self, cost: Option<usize>) -> Result<(), TooMuch> {
        self.nodes += usize::from(cost.is_some());
        self.bytes += cost.unwrap_or(0);
        if self.nodes > MOST || self.bytes > MOST_BYTES { Err(TooMuch) } else { Ok(()) }
    }

    /// What need not be read any more once `key` has been: everything up to what is told.
    pub fn skip(&self, below: &str, key: &str) -> Option<String> {
        let (name, _) = key.strip_prefix(below)?.split_once('/').filter(|_| !self.recursive)?;
        Some(format!("{below}{name}/\u{10ffff}"))
    }

    /// Every lease that something hangs on.
    pub fn leases(&self) -> BTreeSet<i64> {
        let mut leases = BTreeSet::new();
        collect(&self.root, &mut leases);
        leases.remove(&0);
        leases
    }

    /// The directory as a node. Whatever hangs on the lease of a directory above it has no time of its own.
    pub fn into_node(self, sight: &Sight, lives: &BTreeMap<i64, Life>, now: SystemTime) -> Node {
        let mark = sight.own.mark.as_ref();
        let outer = sight.above.iter().filter_map(|step| step.mark.as_ref()).chain(mark).map(|mark| mark.lease);
        let teller = Teller { lives, now };
        let made = mark.map(|mark| mark.created).or(self.made);
        let own = mark.and_then(|mark| sight.life(mark.lease));
        let nodes = teller.nodes(&self.path, self.root, &outer.collect());
        Node { nodes, ..Node::dir(&self.path, index::of(made.unwrap_or(0), 0)) }.ending(own, now)
    }
}

/// Puts a node in its directory; the bytes of its value when it is a new one.
fn put(branch: &mut Branch, name: &str, twig: Twig) -> Option<usize> {
    match (branch.get_mut(name), twig) {
        (None, twig) => {
            let bytes = if let Twig::File(held) = &twig { held.value.len() } else { 0 };
            branch.insert(name.to_owned(), twig);
            Some(bytes)
        }
        // It has children, and is remembered too.
        (Some(Twig::Dir { mark, made, .. }), Twig::Dir { mark: seen @ Some(_), made: marked, .. }) => {
            (*mark, *made) = (seen, marked);
            None
        }
        (Some(_), _) => None,
    }
}

fn collect(branch: &Branch, leases: &mut BTreeSet<i64>) {
    for twig in branch.values() {
        match twig {
            Twig::File(held) => drop(leases.insert(held.lease)),
            Twig::Dir { mark, branch, .. } => {
                leases.extend(mark.iter().map(|mark| mark.lease));
                collect(branch, leases);
            }
        }
    }
}

struct Teller<'a> {
    lives: &'a BTreeMap<i64, Life>,
    now: SystemTime,
}

impl Teller<'_> {
    /// The depth is that of a path, which is bounded.
    fn nodes(&self, path: &NodePath, branch: Branch, outer: &BTreeSet<i64>) -> Vec<Node> {
        branch.into_iter().map(|(name, twig)| self.node(&path.child(&name), twig, outer)).collect()
    }

    fn node(&self, path: &NodePath, twig: Twig, outer: &BTreeSet<i64>) -> Node {
        let life = |lease: i64| self.lives.get(&lease).filter(|_| !outer.contains(&lease));
        match twig {
            Twig::File(held) => Node::file(path, &held).ending(life(held.lease), self.now),
            Twig::Dir { mark, made, branch } => {
                let lease = mark.map_or(0, |mark| mark.lease);
                let inner = outer.iter().copied().chain([lease]).collect();
                let nodes = self.nodes(path, branch, &inner);
                Node { nodes, ..Node::dir(path, index::of(made, 0)) }.ending(life(lease), self.now)
            }
        }
    }
}

/// Takes in keys as they come from the store, below a path or its marks.
pub fn take_all(tree: &mut Tree, places: &Places, items: Vec<Held>) -> Result<(), TooMuch> {
    for held in items {
        let marked = places.marked(&held.key).filter(|path| path.is_below(&tree.path) || tree.path.is_root());
        match marked {
            Some(path) if !tree.path.is_ours() => tree.take(&path, held, true)?,
            _ => {
                if let Some(path) = NodePath::of_key(&held.key) {
                    tree.take(&path, held, false)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::etcd_v2::sight::Step;
    use crate::model::words::key::Prefix;

    fn path(text: &str) -> NodePath {
        NodePath::parse(text).unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn held(key: &str) -> Held {
        Held { key: key.to_owned(), value: b"v".to_vec(), lease: 0, created: 1, modified: 1 }
    }

    /// The paths told, directories with a slash.
    fn told(at: &str, recursive: bool, keys: &[&str], marks: &[&str]) -> String {
        let places = Places::new(&Prefix::parse("/services").expect("a prefix"));
        let mut tree = Tree::new(path(at), recursive);
        let marks = marks.iter().map(|dir| held(&places.mark(&path(dir))));
        let all = keys.iter().map(|key| held(key)).chain(marks).collect();
        take_all(&mut tree, &places, all).expect("little");
        let own = Step { path: path(at), file: None, mark: None, can_be_file: true };
        let sight = Sight {
            revision: 1,
            above: vec![],
            own,
            first_child: Some(1),
            missing: None,
            lives: BTreeMap::new(),
            is_locked: false,
            kept_below: None,
            below: vec![],
        };
        flat(&tree.into_node(&sight, &BTreeMap::new(), SystemTime::UNIX_EPOCH).nodes)
    }

    fn flat(nodes: &[Node]) -> String {
        let one = |node: &Node| match (node.dir, node.nodes.is_empty()) {
            (false, _) => node.key.clone(),
            (true, true) => format!("{}/", node.key),
            (true, false) => format!("{}/({})", node.key, flat(&node.nodes)),
        };
        nodes.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn keys_become_nodes() {
        let keys = ["/a/b", "/a/c/d", "/a/c/e/f", "/a/c-x"];
        assert_eq!(told("/a", false, &keys, &[]), "/a/b /a/c/ /a/c-x");
        assert_eq!(told("/a", true, &keys, &[]), "/a/b /a/c/(/a/c/d /a/c/e/(/a/c/e/f)) /a/c-x");
        assert_eq!(told("/a", true, &["/a/b"], &["/a/e", "/a/f/g"]), "/a/b /a/e/ /a/f/(/a/f/g/)");
        assert_eq!(told("/a", false, &[], &["/a/e", "/a/f/g"]), "/a/e/ /a/f/");
    }

    #[test]
    fn what_is_hidden_or_no_path_is_left_out() {
        let keys = ["/_h", "/a/_b", "/a/b//c", "/a/b", "/a/b/c", "/wharf/services/nodes/x/1", "/x"];
        assert_eq!(told("/", true, &keys, &[]), "/a/(/a/b) /x");
        assert_eq!(told("/", false, &["/a/_b"], &[]), "/a/");
        assert_eq!(told("/", true, &["/a/_b", "/c/d/_e/f"], &["/g/_h"]), "/a/ /c/(/c/d/) /g/");
        assert_eq!(told("/wharf", false, &["/wharf/services/nodes/x/1"], &[]), "/wharf/services/");
        assert_eq!(told("/_h", true, &["/_h/a"], &[]), "/_h/a");
    }

    #[test]
    fn no_more_is_held_than_an_answer_may_have() {
        let mut tree = Tree::new(path("/a"), true);
        let taken = (0..70_000).try_for_each(|number| {
            let path = path(&format!("/a/{number}"));
            tree.take(&path, held(path.as_str()), false)
        });
        assert_eq!(taken, Err(TooMuch));
        assert_eq!(tree.skip("/a/", "/a/b/c"), None);
        let flat = Tree::new(path("/a"), false);
        assert_eq!(flat.skip("/a/", "/a/b/c").as_deref(), Some("/a/b/\u{10ffff}"));
        assert_eq!(flat.skip("/a/", "/a/b"), None);
    }
}
