//! What the embedded store has that hangs on no lease, kept so that it outlasts a restart, as etcd's would.
//!
//! The file is replaced whole at each change; a disk that cannot be written costs what was to be kept, and is told
//! once.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::file;

/// A file longer than this is garbage.
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// One key with its value, and the revisions of its last put and its first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptItem {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The revision.
    pub revision: i64,
    /// The revision of the put that made it.
    pub created: i64,
}

/// The keys, and the revision that the store had reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptStore {
    /// The revision.
    pub revision: i64,
    /// The keys.
    pub items: Vec<KeptItem>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    revision: i64,
    items: Vec<(String, String, i64)>,
    /// When each was made, in the same order. Older files lack it.
    #[serde(default)]
    created: Vec<i64>,
}

/// Where they are kept.
#[derive(Clone, Debug)]
pub struct KeptItems(PathBuf);

impl KeptItems {
    /// The file within the state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("store.json"))
    }

    /// What it holds; an error when there is something that cannot be read.
    pub fn read(&self) -> io::Result<KeptStore> {
        let Some(text) = file::read(&self.0, MAX_FILE)? else { return Ok(KeptStore::default()) };
        let written: Written = serde_json::from_slice(&text).map_err(io::Error::other)?;
        let created = written.created.into_iter().map(Some).chain(std::iter::repeat(None));
        let item = |((key, value, revision), created): ((String, String, i64), Option<i64>)| {
            let value = STANDARD.decode(value).map_err(io::Error::other)?;
            Ok(KeptItem { key, value, revision, created: created.unwrap_or(revision) })
        };
        let items = written.items.into_iter().zip(created).map(item).collect::<io::Result<_>>()?;
        Ok(KeptStore { revision: written.revision, items })
    }

    /// Replaces what it holds. Blocks for as long as the disk takes.
    pub fn write(&self, store: KeptStore) -> io::Result<()> {
        let item = |item: KeptItem| (item.key, STANDARD.encode(item.value), item.revision);
        let created = store.items.iter().map(|item| item.created).collect();
        let items = store.items.into_iter().map(item).collect();
        let written = Written { revision: store.revision, items, created };
        file::replace(&self.0, &serde_json::to_vec(&written).map_err(io::Error::other)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_again_and_what_cannot_be_read_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeptItems::new(directory.path());
        assert_eq!(file.read().unwrap(), KeptStore::default());
        let item =
            KeptItem { key: "/config/redis-1/topology".to_owned(), value: vec![0, 255, 10], revision: 4, created: 3 };
        let store = KeptStore { revision: 9, items: vec![item] };
        file.write(store.clone()).unwrap();
        assert_eq!(file.read().unwrap(), store);
        let older = r#"{"revision":9,"items":[["/config/redis-1/topology","AP8K",4]]}"#;
        std::fs::write(directory.path().join("store.json"), older).unwrap();
        assert_eq!(file.read().unwrap().items[0].created, 4);
        std::fs::write(directory.path().join("store.json"), "{").unwrap();
        assert!(file.read().is_err());
    }
}
