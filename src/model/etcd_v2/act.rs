//! What a commit was: it stands beside the tree, in the same revision, for those who watch.

use serde::{Deserialize, Serialize};

use super::path::NodePath;

/// The longest that is read: anybody may write there.
const LONGEST: usize = 16 * 1024;

/// What a request did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// v2's word for it.
    pub action: String,
    /// To which node.
    pub key: String,
    /// Whether that is a directory.
    #[serde(default)]
    pub dir: bool,
    /// Whether only its time was new, which nobody is told.
    #[serde(default)]
    pub refresh: bool,
    /// The index of a directory that was there before.
    #[serde(default)]
    pub before: Option<u64>,
}

impl Act {
    /// As it is written.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("it has text keys")
    }

    /// As it is read; what cannot be read says nothing.
    pub fn decode(value: &[u8]) -> Option<Self> {
        (value.len() <= LONGEST).then(|| serde_json::from_slice(value).ok())?
    }

    /// The node.
    pub fn path(&self) -> Option<NodePath> {
        NodePath::of_key(&self.key)
    }
}

/// v2's words.
pub mod word {
    /// A question.
    pub const GET: &str = "get";
    /// It was made.
    pub const CREATE: &str = "create";
    /// It was made or replaced.
    pub const SET: &str = "set";
    /// It has another value.
    pub const UPDATE: &str = "update";
    /// It was as it should have been, and has another value.
    pub const SWAP: &str = "compareAndSwap";
    /// It went.
    pub const DELETE: &str = "delete";
    /// It was as it should have been, and went.
    pub const COMPARE_DELETE: &str = "compareAndDelete";
    /// Its time was over.
    pub const EXPIRE: &str = "expire";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_says_nothing() {
        let act = Act { action: "set".into(), key: "/a".into(), dir: false, refresh: false, before: None };
        assert_eq!(Act::decode(act.encode().as_bytes()), Some(act));
        for bad in ["", "{}", "7", &"x".repeat(20_000)] {
            assert_eq!(Act::decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
