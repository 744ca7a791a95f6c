//! The journal of one file: what is owed to it, known before the file changes.

use std::fs::File;
use std::io::{Read, Seek};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The longest journal that is read: ours have a hundred bytes.
const LONGEST: u64 = 64 * 1024;

/// What the journal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Owed {
    /// The new file is being tried where it belongs.
    Check,
    /// The new file is good and not loaded.
    Load,
}

/// The journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    pub(super) owed: Owed,
    /// The digest of the new file.
    pub(super) content: String,
    /// There was a file before.
    #[serde(default)]
    pub(super) had: bool,
}

/// What a journal says; an empty one nothing. One that cannot be read is of a file that may not be loaded.
pub(super) fn read_journal(mut file: &File) -> Option<Journal> {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(LONGEST).read_to_string(&mut text));
    if read.is_ok() && text.is_empty() {
        return None;
    }
    let unknown = Journal { owed: Owed::Load, content: String::new(), had: true };
    Some(serde_json::from_str(&text).unwrap_or(unknown))
}

/// What a file's content is known by.
pub(super) fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
