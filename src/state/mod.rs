//! The state directory: one small file that survives restarts, locked while the agent runs.
//!
//! The file is 0600 and replaced whole (written beside, synced, renamed), so a crash leaves the old or the new one. A
//! second agent on the same directory is refused. A directory that cannot be written is no reason not to serve: then
//! nothing is remembered, which [`StateDir::writable`] tells.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt;
use rustix::fs::{FlockOperation, flock};

use crate::model::memory::{Here, Memory, Resumed};
use crate::model::record::Text;

const FILE: &str = "state.json";
const LOCK: &str = "lock";
/// A state file longer than this is garbage.
const MAX_FILE: u64 = 1024 * 1024;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent has it.
    #[error("state directory {0} is in use by another agent")]
    InUse(PathBuf),
}

/// The open state directory. The lock goes with it.
#[derive(Debug)]
pub struct StateDir {
    memory: Mutex<Memory>,
    place: Place,
}

/// Where what is remembered is written.
#[derive(Debug)]
enum Place {
    Disk {
        path: PathBuf,
        /// Held, never read: the lock lives as long as the file is open.
        _lock: File,
    },
    /// Nothing can be written: it ends with the agent.
    Nowhere,
    /// In the hands of the caller, who asks for it.
    Memory,
}

impl StateDir {
    /// Opens and locks the directory, making it where it is missing, and says what an agent goes on from.
    pub fn open(path: &Path, here: &Here) -> Result<(Self, Resumed), StateError> {
        let place = match lock(path) {
            Ok(Some(lock)) => Place::Disk { path: path.to_owned(), _lock: lock },
            Ok(None) => return Err(StateError::InUse(path.to_owned())),
            Err(error) => {
                tracing::warn!(directory = ?path, %error, "state directory cannot be written, nothing will be remembered");
                Place::Nowhere
            }
        };
        let (memory, resumed) = read(&path.join(FILE)).resume(here, &new_owner());
        let mut state = Self { memory: Mutex::new(memory.clone()), place };
        if let Err(error) = state.write(&memory) {
            tracing::warn!(directory = ?path, %error, "state file cannot be written, nothing will be remembered");
            state.place = Place::Nowhere;
        }
        Ok((state, resumed))
    }

    /// The same without a disk, for runs in which nothing may depend on one: it goes on from `before`, and what is
    /// remembered then is [`StateDir::memory`]. `fresh` is the owner for one who has none.
    pub fn in_memory(before: Memory, here: &Here, fresh: &str) -> (Self, Resumed) {
        let (memory, resumed) = before.resume(here, fresh);
        (Self { memory: Mutex::new(memory), place: Place::Memory }, resumed)
    }

    /// Whether what is remembered reaches the disk.
    pub fn writable(&self) -> bool {
        !matches!(self.place, Place::Nowhere)
    }

    /// What is remembered now.
    pub fn memory(&self) -> Memory {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is remembered, on disk too where that can be written. Blocks for as long as the disk takes.
    pub fn remember(&self, change: impl FnOnce(&mut Memory)) -> io::Result<()> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = memory.clone();
        change(&mut changed);
        if changed == *memory {
            return Ok(());
        }
        *memory = changed;
        self.write(&memory)
    }

    /// The same for those who must not wait for a slow disk: it is written aside.
    pub async fn remember_aside(self: Arc<Self>, change: impl FnOnce(&mut Memory) + Send + 'static) -> io::Result<()> {
        if !matches!(self.place, Place::Disk { .. }) {
            return self.remember(change);
        }
        let written = tokio::task::spawn_blocking(move || self.remember(change)).await;
        written.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
    }

    fn write(&self, memory: &Memory) -> io::Result<()> {
        let Place::Disk { path, .. } = &self.place else { return Ok(()) };
        let beside = path.join(format!("{FILE}.new"));
        // What a crash left there may have other rights: begin with a file of our own making.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&memory.encode())?;
        file.sync_all()?;
        fs::rename(&beside, path.join(FILE))?;
        File::open(path)?.sync_all()
    }
}

fn lock(path: &Path) -> io::Result<Option<File>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read(path: &Path) -> Memory {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Memory::default(),
        Err(error) => {
            tracing::warn!(file = ?path, %error, "state file cannot be read, starting afresh");
            return Memory::default();
        }
        Ok(_) => {}
    }
    let (memory, problems) = Memory::decode(&text);
    if !problems.is_empty() {
        tracing::warn!(file = ?path, ?problems, "state file is damaged, going on with what can be read");
    }
    memory
}

/// A random identity: 16 hex digits.
fn new_owner() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}

/// The machine's and this boot's identity, where the host tells them.
pub fn machine_and_boot() -> (Option<Text>, Option<Text>) {
    let read = |path: &str| {
        let text = fs::read_to_string(path).ok()?;
        let text = text.trim();
        (!text.is_empty() && text != "uninitialized").then(|| text.into())
    };
    (read("/etc/machine-id"), read("/proc/sys/kernel/random/boot_id"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn here() -> Here {
        Here { node: "core-01".into(), prefix: "/services".into(), machine: Some("m".into()), boot: Some("b".into()) }
    }

    #[test]
    fn owner_and_lease_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wharf");
        let (state, first) = StateDir::open(&path, &here()).unwrap();
        state.remember(|memory| (memory.lease, memory.cluster) = (Some(7), Some(9))).unwrap();
        drop(state);
        let (_state, again) = StateDir::open(&path, &here()).unwrap();
        assert_eq!((again.owner, again.lease, again.cluster), (first.owner, Some(7), Some(9)));
    }

    #[test]
    fn a_second_agent_is_refused_while_the_first_runs() {
        let directory = tempfile::tempdir().unwrap();
        let (first, _) = StateDir::open(directory.path(), &here()).unwrap();
        assert!(matches!(StateDir::open(directory.path(), &here()), Err(StateError::InUse(_))));
        drop(first);
        assert!(StateDir::open(directory.path(), &here()).is_ok());
    }

    #[test]
    fn nobody_else_can_read_it_and_a_crash_leaves_no_half() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("state.json.new"), b"{\"owner\"").unwrap();
        let (state, _) = StateDir::open(directory.path(), &here()).unwrap();
        assert!(state.writable());
        let mode = fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn garbage_is_ignored_and_unknown_fields_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), b"\x7fELF garbage").unwrap();
        let (state, resumed) = StateDir::open(directory.path(), &here()).unwrap();
        assert_eq!(resumed.owner.len(), 16);
        drop(state);
        fs::write(directory.path().join(FILE), br#"{"owner":"abcdef0123456789","lease":"5","newer":{"a":1}}"#).unwrap();
        let (state, resumed) = StateDir::open(directory.path(), &here()).unwrap();
        assert_eq!((&*resumed.owner, resumed.lease), ("abcdef0123456789", Some(5)));
        state.remember(|memory| memory.lease = None).unwrap();
        let text = fs::read_to_string(directory.path().join(FILE)).unwrap();
        assert!(text.contains("newer"), "{text}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_survived() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, b"").unwrap();
        let (state, resumed) = StateDir::open(&file.join("below"), &here()).unwrap();
        assert!(!state.writable() && !resumed.owner.is_empty());
        state.remember(|memory| memory.lease = Some(3)).unwrap();
        assert_eq!(state.memory().lease, Some(3));
    }
}
