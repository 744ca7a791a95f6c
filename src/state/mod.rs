//! The state directory: one small file that survives restarts, locked while the agent runs.
//!
//! The file is 0600 and replaced whole (written beside, synced, renamed), so a crash leaves the old or the new one. A
//! second agent on the same directory is refused, also while its disk is full: the lock is the directory's own. A
//! directory that cannot be written is no reason not to serve: then nothing is remembered until it can, which
//! [`StateDir::writable`] tells. A file that is there and cannot be read is left as it is.

mod file;
pub mod items;
pub mod members;
pub mod ordinal;
pub mod topology;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::RngExt;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::model::publish::memory::{Here, Memory, Resumed};

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
    kept: Mutex<Kept>,
    place: Place,
    /// Held, never read: a lock lives as long as its file is open.
    _locks: Vec<File>,
}

#[derive(Debug)]
struct Kept {
    memory: Memory,
    /// It differs from what the disk has.
    unwritten: bool,
}

/// Where what is remembered is written.
#[derive(Debug)]
enum Place {
    Disk(PathBuf),
    /// Nothing can be written: it ends with the agent.
    Nowhere,
    /// In the hands of the caller, who asks for it.
    Memory,
}

impl StateDir {
    /// Opens and locks the directory, making it where it is missing, and says what an agent goes on from.
    pub fn open(path: &Path, here: &Here) -> Result<(Self, Resumed), StateError> {
        let (locks, mut place) = match lock(path) {
            Ok(Some(locks)) => (locks, Place::Disk(path.to_owned())),
            Ok(None) => return Err(StateError::InUse(path.to_owned())),
            Err(error) => {
                tracing::warn!(directory = ?path, %error, "state directory cannot be used, nothing will be remembered");
                (Vec::new(), Place::Nowhere)
            }
        };
        let before = read(&path.join(FILE)).unwrap_or_else(|error| {
            tracing::warn!(directory = ?path, %error, "state file cannot be read, it is left alone and nothing will be remembered");
            place = Place::Nowhere;
            Memory::default()
        });
        let (memory, resumed) = before.resume(here, &new_owner());
        let state = Self { kept: Mutex::new(Kept { memory, unwritten: true }), place, _locks: locks };
        if let Err(error) = state.remember(|_| ())
            && !matches!(state.place, Place::Nowhere)
        {
            tracing::warn!(directory = ?path, %error, "state file cannot be written, nothing is remembered until it can");
        }
        Ok((state, resumed))
    }

    /// The same without a disk, for runs in which nothing may depend on one: it goes on from `before`, and what is
    /// remembered then is [`StateDir::memory`]. `fresh` is the owner for one who has none.
    pub fn in_memory(before: Memory, here: &Here, fresh: &str) -> (Self, Resumed) {
        let (memory, resumed) = before.resume(here, fresh);
        let kept = Mutex::new(Kept { memory, unwritten: false });
        (Self { kept, place: Place::Memory, _locks: Vec::new() }, resumed)
    }

    /// Whether what is remembered reaches the disk.
    pub fn writable(&self) -> bool {
        !self.kept().unwritten
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered now.
    pub fn memory(&self) -> Memory {
        self.kept().memory.clone()
    }

    /// Changes what is remembered, on disk too, with all that could not be written before. Blocks for as long as the
    /// disk takes. An error says that it ends with the agent.
    pub fn remember(&self, change: impl FnOnce(&mut Memory)) -> io::Result<()> {
        let mut kept = self.kept();
        let mut changed = kept.memory.clone();
        change(&mut changed);
        if changed == kept.memory && !kept.unwritten {
            return Ok(());
        }
        kept.memory = changed;
        let written = self.write(&kept.memory);
        kept.unwritten = written.is_err();
        written
    }

    /// The same for those who must not wait for a slow disk: it is written aside.
    pub async fn remember_aside(self: Arc<Self>, change: impl FnOnce(&mut Memory) + Send + 'static) -> io::Result<()> {
        if !matches!(self.place, Place::Disk(_)) {
            return self.remember(change);
        }
        let written = tokio::task::spawn_blocking(move || self.remember(change)).await;
        written.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
    }

    fn write(&self, memory: &Memory) -> io::Result<()> {
        let path = match &self.place {
            Place::Disk(path) => path,
            Place::Memory => return Ok(()),
            Place::Nowhere => return Err(io::Error::other("the state directory cannot be used")),
        };
        file::replace(&path.join(FILE), &memory.encode())
    }
}

/// Locks the directory itself, for which no disk is ever too full, and the file that earlier builds lock; none when
/// another agent has either. Where only one of them can be locked, that one must do.
fn lock(path: &Path) -> io::Result<Option<Vec<File>>> {
    if !path.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    }
    let file = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK));
    let (mut locks, mut problem) = (Vec::new(), None);
    for opened in [File::open(path), file()] {
        let locked = opened.and_then(|file| match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        });
        match locked {
            Ok(Some(file)) => locks.push(file),
            Ok(None) => return Ok(None),
            Err(error) => problem = Some(error),
        }
    }
    problem.filter(|_| locks.is_empty()).map_or(Ok(Some(locks)), Err)
}

/// What the file says, nothing when there is none; an error when that cannot be told.
fn read(path: &Path) -> io::Result<Memory> {
    let Some(text) = file::read(path, MAX_FILE)? else { return Ok(Memory::default()) };
    let (memory, problems) = Memory::decode(&text);
    if !problems.is_empty() {
        tracing::warn!(file = ?path, ?problems, "state file is damaged, going on with what can be read");
    }
    Ok(memory)
}

/// A random identity: 16 hex digits.
fn new_owner() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
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
        assert!(state.remember(|memory| memory.lease = Some(3)).is_err(), "it is said that nothing outlasts the agent");
        assert_eq!(state.memory().lease, Some(3));
    }

    /// A directory in the way of the new file does what a full disk does.
    fn fill(directory: &Path) -> PathBuf {
        let obstacle = directory.join("state.json.new");
        fs::create_dir(&obstacle).unwrap();
        obstacle
    }

    #[test]
    fn a_full_disk_lets_no_second_agent_in() {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path());
        let (first, _) = StateDir::open(directory.path(), &here()).unwrap();
        assert!(!first.writable());
        assert!(matches!(StateDir::open(directory.path(), &here()), Err(StateError::InUse(_))));
        // Nor does one without room for the file that is locked.
        drop(first);
        fs::remove_file(directory.path().join(LOCK)).unwrap();
        fs::create_dir(directory.path().join(LOCK)).unwrap();
        let (_first, _) = StateDir::open(directory.path(), &here()).unwrap();
        assert!(matches!(StateDir::open(directory.path(), &here()), Err(StateError::InUse(_))));
    }

    #[test]
    fn what_could_not_be_written_is_written_with_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let (state, first) = StateDir::open(directory.path(), &here()).unwrap();
        let obstacle = fill(directory.path());
        let drain = |memory: &mut Memory| memory.drained = Some(std::time::SystemTime::UNIX_EPOCH);
        assert!(state.remember(drain).is_err() && state.remember(drain).is_err(), "asked again it says the same");
        assert!(!state.writable());
        fs::remove_dir(obstacle).unwrap();
        state.remember(drain).unwrap();
        assert!(state.writable());
        drop(state);
        let (_state, again) = StateDir::open(directory.path(), &here()).unwrap();
        assert_eq!((again.owner, again.drained), (first.owner, Some(std::time::SystemTime::UNIX_EPOCH)));
    }

    #[test]
    fn a_file_of_anything_is_survived_and_one_that_cannot_be_read_is_left_alone() {
        let huge = [b"{\"owner\":\"".to_vec(), vec![b'a'; 3 << 20], b"\"}".to_vec()].concat();
        for text in [
            &b""[..],
            b"{",
            b"[]",
            b"null",
            b"{\"owner\":7,\"lease\":{},\"drained\":\"never\",\"cluster\":-1}",
            b"{\"owner\":\"abcdef0123456789\",\"lease\":\"7fffffffffffffff\",\"drained\":\"9999-12-31T23:59:59Z\"}",
            b"\xff\xfe\x00",
            &huge,
        ] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(FILE), text).unwrap();
            let (state, resumed) = StateDir::open(directory.path(), &here()).unwrap();
            assert!(state.writable() && resumed.owner.len() == 16, "{:?}", &text[..text.len().min(80)]);
            drop(state);
            let (_state, again) = StateDir::open(directory.path(), &here()).unwrap();
            assert_eq!(again.owner, resumed.owner);
        }
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(FILE)).unwrap();
        let (state, _) = StateDir::open(directory.path(), &here()).unwrap();
        assert!(!state.writable() && directory.path().join(FILE).is_dir());
    }
}
