//! The member list that clients were told last, kept beside the store: the store may be restored from a backup, or
//! emptied, and no client is told a lower version than before.
//!
//! One small file for each service, replaced whole. What cannot be read counts as not there.

use std::io;
use std::path::{Path, PathBuf};

use super::file;
use crate::catalog::facade::autodiscovery::MemberList;

/// A file longer than this is garbage: the longest list takes half of it.
const MAX_FILE: u64 = 1024 * 1024;

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct KeptMembers(PathBuf);

impl KeptMembers {
    /// The file of `service` within the state directory.
    pub fn new(state_dir: &Path, service: &str) -> Self {
        Self(state_dir.join(format!("members-{service}.json")))
    }

    /// What it holds.
    pub fn read(&self) -> Option<MemberList> {
        MemberList::decode(&file::read(&self.0, MAX_FILE).ok().flatten()?).ok()
    }

    /// Replaces what it holds.
    pub async fn write(&self, list: &MemberList) -> io::Result<()> {
        file::replace_aside(self.0.clone(), list.encode()).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_read_again_and_garbage_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeptMembers::new(directory.path(), "cache.prod");
        assert_eq!(file.read(), None);
        let list = br#"{"version":7,"members":[{"id":"a","address":"10.0.0.1","port":11211}]}"#;
        let list = MemberList::decode(list).unwrap();
        file.write(&list).await.unwrap();
        assert_eq!(file.read(), Some(list));
        std::fs::write(directory.path().join("members-cache.prod.json"), "{").unwrap();
        assert_eq!(file.read(), None);
    }
}
