//! A host's number as it has it, kept beside the store: the store may be restored from a backup, or emptied. And what
//! units are told of its numbers.
//!
//! One small file for each role, replaced whole. What cannot be read counts as not there.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::file;
use crate::model::steer::ordinal::entry::Holding;
use crate::model::steer::ordinal::told::{Standings, environment};
use crate::model::words::ordinal::RoleName;

/// A file longer than this is garbage.
const MAX_FILE: u64 = 64 * 1024;

/// Where it is kept.
#[derive(Clone, Debug)]
pub struct KeptOrdinal(PathBuf);

impl KeptOrdinal {
    /// The file of a role within the state directory.
    pub fn new(state_dir: &Path, role: &RoleName) -> Self {
        Self(state_dir.join(format!("ordinal-{role}.json")))
    }

    /// What it holds.
    pub fn read(&self) -> Option<Holding> {
        Holding::decode(&file::read(&self.0, MAX_FILE).ok().flatten()?)
    }

    /// Replaces what it holds, or takes it away.
    pub async fn write(&self, holding: Option<&Holding>) -> io::Result<()> {
        match holding {
            Some(holding) => {
                // An agent makes the directory; the command may come before the first one.
                if let Some(folder) = self.0.parent().filter(|folder| !folder.is_dir()) {
                    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                }
                file::replace_aside(self.0.clone(), holding.encode()).await
            }
            None => match fs::remove_file(&self.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            },
        }
    }
}

/// The file that units read their host's numbers from, `ordinals.env` in the runtime directory.
#[derive(Clone, Debug)]
pub struct EnvironmentFile(PathBuf);

impl EnvironmentFile {
    /// The one in this directory.
    pub fn new(runtime_dir: &Path) -> Self {
        Self(runtime_dir.join("ordinals.env"))
    }

    /// Writes the numbers that the host has.
    pub async fn write(&self, standings: &Standings) -> io::Result<()> {
        file::replace_aside(self.0.clone(), environment(standings).into_bytes()).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_read_again_and_garbage_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("wharf");
        let kept = KeptOrdinal::new(&directory, &RoleName::parse("nucleus").unwrap());
        assert_eq!(kept.read(), None);
        let holding =
            Holding { number: 2, node: "a".into(), machine: Some("m".into()), since: "x".into(), lost_to: None };
        kept.write(Some(&holding)).await.unwrap();
        assert_eq!(kept.read(), Some(holding));
        fs::write(directory.join("ordinal-nucleus.json"), "{").unwrap();
        assert_eq!(kept.read(), None);
        kept.write(None).await.unwrap();
        kept.write(None).await.unwrap();
        assert!(!directory.join("ordinal-nucleus.json").exists());
    }
}
