//! Nodes and replies, as v2 writes them.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::fault::Fault;
use super::path::NodePath;
use super::sight::{Held, Life};
use super::{act, index};

/// A file or a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its path; the root has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// A file's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether it is a directory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dir: bool,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// In how many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// What is in it, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Node>,
    /// The index of its last change.
    #[serde(rename = "modifiedIndex", skip_serializing_if = "is_zero")]
    pub modified: u64,
    /// The index of its making.
    #[serde(rename = "createdIndex", skip_serializing_if = "is_zero")]
    pub created: u64,
}

fn is_zero(index: &u64) -> bool {
    *index == 0
}

impl Node {
    /// A file.
    pub fn file(path: &NodePath, held: &Held) -> Self {
        Self {
            value: Some(String::from_utf8_lossy(&held.value).into_owned()),
            modified: index::of(held.modified, 0),
            created: index::of(held.created, 0),
            ..Self::at(path)
        }
    }

    /// A directory that was made at this index.
    pub fn dir(path: &NodePath, made: u64) -> Self {
        let made = if path.is_root() { 0 } else { made };
        Self { dir: true, modified: made, created: made, ..Self::at(path) }
    }

    /// A node of which nothing else is known.
    pub fn at(path: &NodePath) -> Self {
        let key = if path.is_root() { String::new() } else { path.to_string() };
        Self { key, ..Self::default() }
    }

    /// The same with an end.
    pub fn ending(self, life: Option<&Life>, now: SystemTime) -> Self {
        let Some(life) = life else { return self };
        let ttl = (life.left.as_secs() + 1).min(life.granted.as_secs());
        // No calendar has what is further away.
        let end = now
            .checked_add(life.left)
            .filter(|end| *end < SystemTime::UNIX_EPOCH + Duration::from_secs(250_000_000_000));
        Self { ttl: Some(ttl), expiration: end.map(|end| humantime::format_rfc3339_nanos(end).to_string()), ..self }
    }
}

/// What a request that is met is told, and what one who waits is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// v2's word for what was done.
    pub action: String,
    /// The node as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Node>,
    /// The node as it was.
    #[serde(rename = "prevNode", skip_serializing_if = "Option::is_none")]
    pub prev: Option<Node>,
    /// The store's index.
    #[serde(skip)]
    pub index: u64,
    /// Whether the node was made.
    #[serde(skip)]
    pub is_new: bool,
}

impl Reply {
    /// The answer to a question.
    pub fn get(node: Node, revision: i64) -> Self {
        let index = index::last_of(revision);
        Self { action: act::word::GET.to_owned(), node: Some(node), prev: None, index, is_new: false }
    }

    /// The same without nodes, where no value is asked for.
    pub fn quiet(self) -> Self {
        Self { node: None, prev: None, ..self }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        if self.is_new { 201 } else { 200 }
    }
}

/// What a request is answered.
pub type Answer = Result<Reply, Fault>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_written_as_v2_writes_them() {
        let path = NodePath::parse("/a").expect("a path");
        let held = Held { key: "/a".into(), value: b"x\xff".to_vec(), lease: 0, created: 2, modified: 3 };
        let life = Life { granted: Duration::from_secs(60), left: Duration::from_secs(58), is_alone: true };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let node = Node::file(&path, &held).ending(Some(&life), now);
        let reply = Reply::get(Node { nodes: vec![node], ..Node::dir(&NodePath::parse("/").expect("a path"), 7) }, 3);
        let expected = "{\"action\":\"get\",\"node\":{\"dir\":true,\"nodes\":[{\"key\":\"/a\",\"value\":\"x\u{fffd}\",\
                        \"expiration\":\"2001-09-09T01:47:38.000000000Z\",\"ttl\":59,\"modifiedIndex\":12288,\
                        \"createdIndex\":8192}]}}";
        assert_eq!(serde_json::to_string(&reply).expect("it has text keys"), expected);
        assert_eq!((reply.status(), reply.index), (200, 16_383));
    }

    #[test]
    fn an_end_that_no_calendar_has_is_a_number_of_seconds_only() {
        let far = Duration::from_secs(9_000_000_000_000);
        let life = Life { granted: far, left: far, is_alone: true };
        let node = Node::default().ending(Some(&life), SystemTime::UNIX_EPOCH);
        assert!(node.ttl.is_some() && node.expiration.is_none());
    }
}
