//! A tree of etcd's v2 store, read from replies of its API. A reply may be the whole tree or, where that is too much,
//! one directory; whoever wrote the tree chose its size and depth, so both are bounded.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::model::words::key::Prefix;
use crate::model::words::record::MAX_RECORD;

/// The most keys and directories that are read: as many as an agent takes records from its store by default.
const MOST_NODES: usize = 1_000_000;
/// What their keys and values may take in memory.
const MOST_BYTES: usize = 256 << 20;
/// What a node takes beside them.
const NODE: usize = 96;

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its name.
    pub key: String,
    /// Its value; empty where that is longer than a record may be.
    pub value: String,
    /// How long the value is.
    pub size: usize,
    /// The seconds that it has left, itself or by a directory that it is in; none when it stays.
    pub left: Option<u64>,
}

/// What has been read so far.
#[derive(Debug)]
pub struct Tree {
    from: String,
    below: String,
    leaves: Vec<Leaf>,
    /// Directories that end, with the seconds that each has left.
    ending: BTreeMap<String, u64>,
    nodes: usize,
    bytes: usize,
    most: (usize, usize),
}

/// What became of a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Everything in it was read; these directories were only named.
    Read(Vec<String>),
    /// It is nested deeper than is read at once: it has to be asked for in pieces.
    TooDeep,
    /// There is no such key.
    Nothing,
}

/// Why a reply cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// The tree is larger than is taken.
    #[error("the tree has more than {0}")]
    TooMuch(String),
    /// etcd refuses.
    #[error("etcd says: {message} ({code})")]
    Refused {
        /// Its number for that.
        code: u32,
        /// Its words.
        message: String,
    },
    /// It is no reply of etcd's v2 API.
    #[error("that is no reply of etcd's v2 API: {0}")]
    Strange(String),
}

/// etcd's number for a key that is not there.
const NO_KEY: u32 = 100;

/// How much of a reply is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Everything below the key.
    Whole,
    /// What is in it, and nothing that is in its directories.
    Directory,
}

impl Tree {
    /// A tree of which nothing has been read.
    pub fn new(from: &Prefix) -> Self {
        let (leaves, ending) = (Vec::new(), BTreeMap::new());
        let from = from.as_str().to_owned();
        Self { below: format!("{from}/"), from, leaves, ending, nodes: 0, bytes: 0, most: (MOST_NODES, MOST_BYTES) }
    }

    /// Takes in the body of a reply.
    pub fn take(&mut self, body: &[u8], asked: Asked) -> Result<Taken, Unread> {
        let before = (self.leaves.len(), self.nodes, self.bytes);
        let mut reading = Reading { tree: self, asked, unread: Vec::new(), why: None, fault: None, found: false };
        let mut reader = serde_json::Deserializer::from_slice(body);
        let done = ReplySeed(&mut reading).deserialize(&mut reader).and_then(|()| reader.end());
        let Reading { unread, why, fault, found, .. } = reading;
        match (done, why, fault) {
            (_, Some(why), _) => Err(why),
            // What comes of it is asked for once more, in pieces.
            (Err(error), ..) if error.to_string().contains("recursion limit") => {
                self.leaves.truncate(before.0);
                (self.nodes, self.bytes) = (before.1, before.2);
                Ok(Taken::TooDeep)
            }
            (Err(error), ..) => Err(Unread::Strange(error.to_string())),
            (Ok(()), _, Some((NO_KEY, _))) => Ok(Taken::Nothing),
            (Ok(()), _, Some((code, message))) => Err(Unread::Refused { code, message }),
            (Ok(()), ..) if !found => Err(Unread::Strange("it has no node".to_owned())),
            (Ok(()), ..) => Ok(Taken::Read(unread)),
        }
    }

    /// Every key in order, each with the time that it has left.
    pub fn into_leaves(self) -> Vec<Leaf> {
        let Self { from, mut leaves, ending, .. } = self;
        for leaf in &mut leaves {
            leaf.left = shortest(&ending, &from, leaf);
        }
        leaves.sort_by(|a, b| a.key.cmp(&b.key));
        leaves.dedup_by(|a, b| a.key == b.key);
        leaves
    }

    fn add(&mut self, node: Node, asked: Asked, depth: usize, unread: &mut Vec<String>) -> Result<(), Unread> {
        let Node { key, value, dir, ttl } = node;
        if key != self.from && !key.starts_with(&self.below) {
            return Err(Unread::Strange(format!("it tells of {key:?}, which is not below {}", self.from)));
        }
        let size = value.as_ref().map_or(0, String::len);
        self.count(key.len() + size.min(MAX_RECORD) + NODE)?;
        let left = ttl.map(|ttl| u64::try_from(ttl).unwrap_or(0));
        if !dir {
            let value = value.filter(|value| value.len() <= MAX_RECORD).unwrap_or_default();
            self.leaves.push(Leaf { key, value, size, left });
            return Ok(());
        }
        if let Some(left) = left {
            self.ending.insert(key.clone(), left);
        }
        if asked == Asked::Directory && depth > 0 {
            unread.push(key);
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), Unread> {
        self.nodes += 1;
        self.bytes += bytes;
        let (nodes, most) = self.most;
        if self.nodes > nodes {
            return Err(Unread::TooMuch(format!("{nodes} keys")));
        }
        if self.bytes > most { Err(Unread::TooMuch(format!("{} MiB", most >> 20))) } else { Ok(()) }
    }
}

/// A key ends with the first of the directories that it is in.
fn shortest(ending: &BTreeMap<String, u64>, from: &str, leaf: &Leaf) -> Option<u64> {
    if ending.is_empty() {
        return leaf.left;
    }
    let ends = leaf.key.match_indices('/').map(|(at, _)| at).filter(|at| *at >= from.len());
    let above = ends.filter_map(|at| ending.get(&leaf.key[..at]).copied());
    above.chain(leaf.left).min()
}

/// A node as a reply has it.
#[derive(Default)]
struct Node {
    key: String,
    value: Option<String>,
    dir: bool,
    ttl: Option<i64>,
}

/// A reply on its way into the tree.
struct Reading<'t> {
    tree: &'t mut Tree,
    asked: Asked,
    unread: Vec<String>,
    why: Option<Unread>,
    fault: Option<(u32, String)>,
    found: bool,
}

/// The whole reply: a node, or what is wrong.
struct ReplySeed<'r, 't>(&'r mut Reading<'t>);

impl<'de> DeserializeSeed<'de> for ReplySeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReplySeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut code, mut message) = (None, String::new());
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "node" => {
                    self.0.found = true;
                    map.next_value_seed(NodeSeed { reading: self.0, depth: 0 })?;
                }
                "errorCode" => code = Some(map.next_value()?),
                "message" => message = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        self.0.fault = code.map(|code| (code, message));
        Ok(())
    }
}

/// A node and all below it.
struct NodeSeed<'r, 't> {
    reading: &'r mut Reading<'t>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { reading, depth } = self;
        let mut node = Node::default();
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "key" => node.key = map.next_value()?,
                "value" => node.value = map.next_value()?,
                "dir" => node.dir = map.next_value()?,
                "ttl" => node.ttl = map.next_value()?,
                "nodes" => map.next_value_seed(NodesSeed { reading, depth: depth + 1 })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        reading.tree.add(node, reading.asked, depth, &mut reading.unread).map_err(|why| {
            let error = A::Error::custom(&why);
            reading.why = Some(why);
            error
        })
    }
}

/// The nodes of a directory.
struct NodesSeed<'r, 't> {
    reading: &'r mut Reading<'t>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for NodesSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for NodesSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of nodes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut nodes: A) -> Result<(), A::Error> {
        let Self { reading, depth } = self;
        while nodes.next_element_seed(NodeSeed { reading: &mut *reading, depth })?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree() -> Tree {
        Tree::new(&Prefix::parse("/skydns").expect("a prefix"))
    }

    fn whole(body: &str) -> Result<Vec<Leaf>, Unread> {
        let mut tree = tree();
        match tree.take(body.as_bytes(), Asked::Whole)? {
            Taken::Read(_) => Ok(tree.into_leaves()),
            taken => panic!("{taken:?}"),
        }
    }

    #[test]
    fn a_reply_is_a_list_of_keys_with_the_time_that_each_has_left() {
        let body = r#"{"action":"get","node":{"key":"/skydns","dir":true,"nodes":[
            {"key":"/skydns/b","dir":true,"ttl":50,"nodes":[
                {"key":"/skydns/b/x","value":"1","ttl":90,"modifiedIndex":7},{"key":"/skydns/b/y","value":"2","ttl":9},
                {"key":"/skydns/b/z","value":"3"}],"createdIndex":4},
            {"key":"/skydns/a","value":"0"},{"key":"/skydns/empty","dir":true}]}}"#;
        let told: Vec<_> = whole(body).expect("a tree").into_iter().map(|it| (it.key, it.value, it.left)).collect();
        let expect = |key: &str, value: &str, left| (key.to_owned(), value.to_owned(), left);
        assert_eq!(
            told,
            [
                expect("/skydns/a", "0", None),
                expect("/skydns/b/x", "1", Some(50)),
                expect("/skydns/b/y", "2", Some(9)),
                expect("/skydns/b/z", "3", Some(50)),
            ]
        );
    }

    #[test]
    fn a_directory_names_those_in_it() {
        let body = r#"{"node":{"key":"/skydns","dir":true,"nodes":[
            {"key":"/skydns/b","dir":true,"ttl":5},{"key":"/skydns/a","value":"0"}]}}"#;
        let mut tree = tree();
        assert_eq!(tree.take(body.as_bytes(), Asked::Directory), Ok(Taken::Read(vec!["/skydns/b".to_owned()])));
        let rest = r#"{"node":{"key":"/skydns/b","dir":true,"nodes":[{"key":"/skydns/b/c","value":"1"}]}}"#;
        assert_eq!(tree.take(rest.as_bytes(), Asked::Whole), Ok(Taken::Read(vec![])));
        let left: Vec<_> = tree.into_leaves().into_iter().map(|leaf| (leaf.key, leaf.left)).collect();
        assert_eq!(left, [("/skydns/a".to_owned(), None), ("/skydns/b/c".to_owned(), Some(5))]);
    }

    fn nested(depth: usize) -> String {
        let mut body = r#"{"node":"#.to_owned();
        (0..depth).for_each(|_| body.push_str(r#"{"key":"/skydns/a","dir":true,"nodes":["#));
        (0..depth).for_each(|_| body.push_str("]}"));
        body + "}"
    }

    #[test]
    fn what_is_too_deep_is_asked_for_in_pieces() {
        assert!(whole(&nested(60)).is_ok());
        for depth in [64, 1_000, 100_000] {
            assert_eq!(tree().take(nested(depth).as_bytes(), Asked::Whole), Ok(Taken::TooDeep), "{depth}");
        }
    }

    #[test]
    fn what_is_no_reply_says_so() {
        let none = r#"{"errorCode":100,"message":"Key not found","cause":"/skydns","index":3}"#;
        assert_eq!(tree().take(none.as_bytes(), Asked::Whole), Ok(Taken::Nothing));
        let denied = r#"{"errorCode":110,"message":"The request requires user authentication"}"#;
        assert!(matches!(whole(denied), Err(Unread::Refused { code: 110, .. })));
        for strange in [
            "404 page not found\n",
            "{}",
            "[]",
            "",
            "{",
            r#"{"node":7}"#,
            r#"{"node":{"key":"/other","value":"1"}}"#,
            r#"{"node":{"key":"/skydnsx","value":"1"}}"#,
            r#"{"node":{"key":"/skydns","dir":true,"nodes":[{"value":"no key"}]}}"#,
            r#"{"node":{"key":"/skydns"}} {}"#,
        ] {
            assert!(matches!(whole(strange), Err(Unread::Strange(_))), "{strange}");
        }
    }

    #[test]
    fn nobody_makes_it_hold_more_than_its_bounds() {
        let mut tree = tree();
        tree.most = (3, 1_000_000);
        let nodes = [r#"{"key":"/skydns/a","value":""}"#; 3].join(",");
        let body = format!(r#"{{"node":{{"key":"/skydns","dir":true,"nodes":[{nodes}]}}}}"#);
        assert_eq!(tree.take(body.as_bytes(), Asked::Whole), Err(Unread::TooMuch("3 keys".to_owned())));
        let long = format!(r#"{{"node":{{"key":"/skydns","value":"{}"}}}}"#, "v".repeat(1 << 20));
        let leaves = whole(&long).expect("a tree");
        assert_eq!((leaves[0].size, leaves[0].value.len()), (1 << 20, 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let body = [br#"{"node":{"key":"/skydns","#.as_slice(), &bytes].concat();
            drop(tree().take(&body, Asked::Whole));
            drop(tree().take(&bytes, Asked::Directory));
        }
    }
}
