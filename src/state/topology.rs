//! What was last known of a topology, kept beside the store: the store may be restored from a backup, or emptied.
//!
//! One small file for each service, replaced whole. What cannot be read counts as not there.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file;
use crate::model::steer::journal::Journal;
use crate::model::steer::topology::Applied;

/// A file longer than this is garbage: 64 servers take a tenth of it.
const MAX_FILE: u64 = 1024 * 1024;

/// What is kept of one topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// What was brought about.
    pub applied: Option<Applied>,
    /// The last journal.
    pub journal: Option<Journal>,
}

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct KeptTopology(PathBuf);

impl KeptTopology {
    /// The file of `service` within the state directory.
    pub fn new(state_dir: &Path, service: &str) -> Self {
        Self(state_dir.join(format!("topology-{service}.json")))
    }

    /// What it holds.
    pub fn read(&self) -> Kept {
        let text = file::read(&self.0, MAX_FILE).ok().flatten();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Replaces what it holds.
    pub async fn write(&self, kept: &Kept) -> io::Result<()> {
        file::replace_aside(self.0.clone(), serde_json::to_vec(kept).map_err(io::Error::other)?).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_read_again_and_garbage_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeptTopology::new(directory.path(), "redis-1");
        assert_eq!(file.read(), Kept::default());
        let kept = Kept { applied: Some(Applied { epoch: 4, ..Applied::default() }), journal: None };
        file.write(&kept).await.unwrap();
        assert_eq!(file.read(), kept);
        std::fs::write(directory.path().join("topology-redis-1.json"), "{").unwrap();
        assert_eq!(file.read(), Kept::default());
    }
}
