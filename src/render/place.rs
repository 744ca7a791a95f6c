//! Where a file is: the only code that writes it. Whatever ends this process, the file is the old one or the new one,
//! whole, and it is known afterwards whether what is there was loaded.
//!
//! Beside the file, while there is something to say, lie dot-files that no pattern of includes takes:
//!
//! | file | what | gone |
//! |---|---|---|
//! | `.wharf-new.NAME` | the candidate | when it is renamed, or refused |
//! | `.wharf-owed.NAME` | the journal: written before the file changes, and the lock of who writes | when the file is loaded |
//! | `.wharf-old.NAME` | the file before, where it may have to come back | with the journal |

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::process::{Gid, Uid};

use super::journal::{Journal, Owed, digest, read_journal};

/// The longest file that is compared; a longer one is another one.
const LONGEST: u64 = 64 * 1024 * 1024;
/// Links that lead from one to the next.
const MOST_LINKS: usize = 16;
/// The mode of a new file, where none is given: others may not read what a cluster is made of.
const USUAL_MODE: u32 = 0o640;

/// What went wrong with a file, and what was tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// Another process has it.
    #[error("another `wharf render` is at {0} now")]
    Busy(PathBuf),
    /// A file of a bind mount cannot be renamed over.
    #[error("{0} is mounted alone, so that nothing can be renamed over it: say inplace = true")]
    Mounted(PathBuf),
    /// A call failed.
    #[error("{what} {path}: {source}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Names what was tried.
trait Tried<T> {
    fn tried(self, what: &'static str, path: &Path) -> Result<T, PlaceError>;
}

impl<T> Tried<T> for io::Result<T> {
    fn tried(self, what: &'static str, path: &Path) -> Result<T, PlaceError> {
        self.map_err(|source| PlaceError::Call { what, path: path.to_owned(), source })
    }
}

/// Who may do what with a file; none is as the old file has it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Access {
    pub(super) mode: Option<u32>,
    pub(super) owner: Option<Uid>,
    pub(super) group: Option<Gid>,
}

/// A file, and the folder that it is in.
#[derive(Clone, Debug)]
pub(super) struct Place {
    file: PathBuf,
    folder: PathBuf,
    name: OsString,
    inplace: bool,
}

impl Place {
    /// The place of a destination; one that is a link leads to the file that it names.
    pub(super) fn of(destination: &Path, inplace: bool) -> Result<Self, PlaceError> {
        let mut file = destination.to_owned();
        for _ in 0..MOST_LINKS {
            let Ok(target) = fs::read_link(&file) else { break };
            file = file.parent().unwrap_or(Path::new("/")).join(target);
        }
        let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
        let folder = folder.canonicalize().tried("no folder", &folder)?;
        let name = file.file_name().map(OsStr::to_owned).unwrap_or_default();
        Ok(Self { file: folder.join(&name), folder, name, inplace })
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    fn beside(&self, what: &str) -> PathBuf {
        let mut name = OsString::from(format!(".wharf-{what}."));
        name.push(&self.name);
        self.folder.join(name)
    }

    fn candidate(&self) -> PathBuf {
        self.beside("new")
    }

    fn journal(&self) -> PathBuf {
        self.beside("owed")
    }

    fn old(&self) -> PathBuf {
        self.beside("old")
    }

    /// What is in the file; none where there is none.
    pub(super) fn content(&self) -> Result<Option<Vec<u8>>, PlaceError> {
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).tried("cannot read", &self.file),
        };
        let mut content = Vec::new();
        file.take(LONGEST).read_to_end(&mut content).tried("cannot read", &self.file)?;
        Ok(Some(content))
    }

    /// Whether the file is there.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.file).is_ok()
    }

    /// Whether what is in the file is good and not loaded.
    pub(super) fn owes_load(&self) -> bool {
        self.owed().is_some()
    }

    /// The digest of what is in the file, good and not loaded; an empty one stands for any.
    pub(super) fn owed(&self) -> Option<String> {
        read_journal(&File::open(self.journal()).ok()?).map(|journal| journal.content)
    }

    /// Clears up after a process that was ended in the middle: a file that was only being tried gives way to the one
    /// before. Nothing is done while another process is at work here.
    pub(super) fn recover(&self) -> Result<(), PlaceError> {
        let has_left =
            [self.journal(), self.candidate(), self.old()].iter().any(|path| fs::symlink_metadata(path).is_ok());
        if !has_left {
            return Ok(());
        }
        let mut work = match self.begin() {
            Err(PlaceError::Busy(_)) => return Ok(()),
            begun => begun?,
        };
        work.remove(&self.candidate())?;
        match work.read() {
            Some(Journal { owed: Owed::Check, had, .. }) => work.restore(had),
            Some(_) => Ok(()),
            None => work.end(),
        }
    }

    /// Begins to write: nobody else does until this ends.
    pub(super) fn begin(&self) -> Result<Work<'_>, PlaceError> {
        let path = self.journal();
        loop {
            let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
            let journal = options.open(&path).tried("cannot open", &path)?;
            match rustix::fs::flock(&journal, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(PlaceError::Busy(self.file.clone())),
                Err(error) => return Err(io::Error::from(error)).tried("cannot lock", &path),
            }
            // Whoever had it may have removed it between our opening and our locking.
            let ours = journal.metadata().tried("cannot look at", &path)?;
            if fs::symlink_metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Work { place: self, journal });
            }
        }
    }
}

/// A file's writing under way. What is dropped in the middle can be taken up as after a crash.
pub(super) struct Work<'p> {
    place: &'p Place,
    /// The open journal, and the lock.
    journal: File,
}

impl Drop for Work<'_> {
    /// A command that is being started elsewhere in this process has the lock for as long as it takes to become another
    /// program: closing alone would leave it locked so long.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.journal, FlockOperation::Unlock);
    }
}

/// Which journal a new file needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is tried where it belongs.
    Check,
    /// It is to be loaded.
    Load,
    /// Nothing.
    Nothing,
}

impl Work<'_> {
    /// Writes the candidate, and sees it on the disk.
    pub(super) fn write(&self, content: &[u8], access: Access) -> Result<PathBuf, PlaceError> {
        let path = self.place.candidate();
        self.remove(&path)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path).tried("cannot make", &path)?;
        file.write_all(content).tried("cannot write", &path)?;
        self.give(&file, access)?;
        file.sync_all().tried("cannot write", &path)?;
        Ok(path)
    }

    /// Mode and owner, as they are given or as the old file has them.
    fn give(&self, to: &File, access: Access) -> Result<(), PlaceError> {
        let path = self.place.file();
        let old = fs::metadata(path).ok();
        let ours = to.metadata().tried("cannot look at", path)?;
        let owner = access.owner.or(old.as_ref().map(|old| Uid::from_raw(old.uid())));
        let group = access.group.or(old.as_ref().map(|old| Gid::from_raw(old.gid())));
        let (owner, group) =
            (owner.filter(|id| id.as_raw() != ours.uid()), group.filter(|id| id.as_raw() != ours.gid()));
        if owner.is_some() || group.is_some() {
            rustix::fs::fchown(to, owner, group).map_err(io::Error::from).tried("cannot give an owner to", path)?;
        }
        let mode = access.mode.or(old.map(|old| old.mode() & 0o7777)).unwrap_or(USUAL_MODE);
        to.set_permissions(Permissions::from_mode(mode)).tried("cannot give a mode to", path)
    }

    /// Keeps a copy of the file as it is, for the case that it has to come back. A file that was never loaded does not
    /// take the place of one that was.
    pub(super) fn keep_old(&self) -> Result<(), PlaceError> {
        let old = self.place.old();
        if self.read().is_some() && fs::symlink_metadata(&old).is_ok() {
            return Ok(());
        }
        self.remove(&old)?;
        let content = match self.place.content()? {
            Some(content) => content,
            None => return Ok(()),
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut copy = options.open(&old).tried("cannot make", &old)?;
        copy.write_all(&content).tried("cannot write", &old)?;
        self.give(&copy, Access::default())?;
        copy.sync_all().tried("cannot write", &old)?;
        Ok(())
    }

    /// Puts the candidate where it belongs, after the journal says what is owed then.
    pub(super) fn put(&mut self, content: &[u8], next: Next) -> Result<(), PlaceError> {
        let owed = match next {
            Next::Check => Some(Owed::Check),
            Next::Load => Some(Owed::Load),
            Next::Nothing => None,
        };
        if let Some(owed) = owed {
            let journal = Journal { owed, content: digest(content), had: self.place.is_there() };
            self.note(&journal)?;
            self.sync_folder()?;
        }
        let candidate = self.place.candidate();
        if self.place.inplace {
            self.overwrite(content)?;
            self.remove(&candidate)?;
        } else {
            self.rename(&candidate)?;
        }
        self.sync_folder()
    }

    /// The file that was tried is good: it is to be loaded, or all is done.
    pub(super) fn good(&mut self, content: &[u8], is_loaded_later: bool) -> Result<(), PlaceError> {
        if is_loaded_later {
            self.note(&Journal { owed: Owed::Load, content: digest(content), had: true })
        } else {
            self.end()
        }
    }

    /// Puts the file back that was there before.
    pub(super) fn restore(&mut self, had: bool) -> Result<(), PlaceError> {
        let old = self.place.old();
        match fs::read(&old) {
            Ok(content) if self.place.inplace => self.overwrite(&content)?,
            Ok(_) => self.rename(&old)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !had => self.remove(self.place.file())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).tried("cannot read", &old),
        }
        self.end()
    }

    /// Puts the old file back because the new one could not be loaded; the old one is owed to be loaded then.
    pub(super) fn roll_back(&mut self) -> Result<(), PlaceError> {
        let had = self.read().is_none_or(|journal| journal.had);
        let content = fs::read(self.place.old()).unwrap_or_default();
        self.note(&Journal { owed: Owed::Load, content: String::new(), had: true })?;
        let old = self.place.old();
        if fs::symlink_metadata(&old).is_err() {
            if !had {
                self.remove(self.place.file())?;
            }
        } else if self.place.inplace {
            self.overwrite(&content)?;
            self.remove(&old)?;
        } else {
            self.rename(&old)?;
        }
        self.sync_folder()
    }

    /// The file is loaded, unless it is another one by now.
    pub(super) fn loaded(mut self, content: &str) -> Result<(), PlaceError> {
        match self.read() {
            Some(journal) if journal.content != content && !journal.content.is_empty() => Ok(()),
            _ => self.end(),
        }
    }

    /// Whether a load is owed.
    pub(super) fn owes(&self) -> bool {
        self.read().is_some()
    }

    /// Nothing is owed: what lies beside the file goes.
    pub(super) fn end(&mut self) -> Result<(), PlaceError> {
        self.remove(&self.place.old())?;
        self.remove(&self.place.candidate())?;
        self.remove(&self.place.journal())?;
        self.sync_folder()
    }

    /// The candidate was refused: it goes, and what was owed before stays so.
    pub(super) fn give_up(&mut self) -> Result<(), PlaceError> {
        self.remove(&self.place.candidate())?;
        if self.read().is_none() { self.end() } else { Ok(()) }
    }

    fn read(&self) -> Option<Journal> {
        read_journal(&self.journal)
    }

    fn note(&self, journal: &Journal) -> Result<(), PlaceError> {
        let text = serde_json::to_vec(journal).expect("text and truth values always encode");
        let mut file = &self.journal;
        let written = file.rewind().and_then(|()| file.write_all(&text));
        let written = written.and_then(|()| file.set_len(text.len() as u64)).and_then(|()| file.sync_all());
        written.tried("cannot write", &self.place.journal())
    }

    fn rename(&self, from: &Path) -> Result<(), PlaceError> {
        let to = self.place.file();
        match fs::rename(from, to) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                Err(PlaceError::Mounted(to.to_owned()))
            }
            renamed => renamed.tried("cannot rename to", to),
        }
    }

    /// Writes over the file itself.
    fn overwrite(&self, content: &[u8]) -> Result<(), PlaceError> {
        let path = self.place.file();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(USUAL_MODE);
        let mut file = options.open(path).tried("cannot open", path)?;
        let written = file.write_all(content).and_then(|()| file.set_len(content.len() as u64));
        written.and_then(|()| file.sync_all()).tried("cannot write", path)
    }

    fn remove(&self, path: &Path) -> Result<(), PlaceError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).tried("cannot remove", path),
            _ => Ok(()),
        }
    }

    fn sync_folder(&self) -> Result<(), PlaceError> {
        let folder = &self.place.folder;
        File::open(folder).and_then(|folder| folder.sync_all()).tried("cannot sync", folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(place: &Place, content: &str, next: Next) {
        let mut work = place.begin().expect("nobody else");
        work.keep_old().expect("a copy");
        work.write(content.as_bytes(), Access::default()).expect("a candidate");
        work.put(content.as_bytes(), next).expect("it is put");
        if next == Next::Nothing {
            work.end().expect("it ends");
        }
    }

    fn files(folder: &Path) -> Vec<String> {
        let name =
            |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = fs::read_dir(folder).expect("a folder").map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_is_0640_and_another_keeps_what_the_old_one_had() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::of(&folder.path().join("x.cfg"), false).expect("a place");
        let mode = || fs::metadata(place.file()).expect("it is there").mode() & 0o7777;
        written(&place, "one", Next::Nothing);
        assert_eq!((mode(), files(folder.path())), (0o640, vec!["x.cfg".to_owned()]));
        fs::set_permissions(place.file(), Permissions::from_mode(0o604)).expect("ours");
        written(&place, "two", Next::Nothing);
        assert_eq!((mode(), fs::read_to_string(place.file()).expect("text")), (0o604, "two".to_owned()));
    }

    #[test]
    fn what_is_owed_is_known_after_a_crash_until_it_is_loaded() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::of(&folder.path().join("x.cfg"), false).expect("a place");
        written(&place, "one", Next::Load);
        fs::write(folder.path().join(".wharf-new.x.cfg"), "half").expect("litter");
        place.recover().expect("it recovers");
        assert!(place.owes_load() && !folder.path().join(".wharf-new.x.cfg").exists());
        place.begin().expect("nobody else").loaded(&digest(b"another")).expect("it is another one");
        assert!(place.owes_load());
        place.begin().expect("nobody else").loaded(&digest(b"one")).expect("it is loaded");
        assert_eq!(files(folder.path()), ["x.cfg"]);
    }

    #[test]
    fn a_file_that_was_only_tried_gives_way_to_the_one_before() {
        for inplace in [false, true] {
            let folder = tempfile::tempdir().expect("a folder");
            let place = Place::of(&folder.path().join("x.cfg"), inplace).expect("a place");
            written(&place, "bad", Next::Check);
            place.recover().expect("it recovers");
            assert_eq!(files(folder.path()), Vec::<String>::new(), "there was none");
            written(&place, "good", Next::Nothing);
            written(&place, "bad", Next::Check);
            place.recover().expect("it recovers");
            assert_eq!(fs::read_to_string(place.file()).expect("text"), "good");
            written(&place, "bad", Next::Load);
            place.begin().expect("nobody else").roll_back().expect("it rolls back");
            assert_eq!(fs::read_to_string(place.file()).expect("text"), "good");
            assert!(place.owes_load(), "nobody knows what is loaded");
            assert_eq!(files(folder.path()), [".wharf-owed.x.cfg", "x.cfg"]);
        }
    }

    #[test]
    fn one_at_a_time_and_links_lead_to_their_file() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("real")).expect("ours");
        std::os::unix::fs::symlink("real/x.cfg", folder.path().join("link")).expect("ours");
        let place = Place::of(&folder.path().join("link"), false).expect("a place");
        let work = place.begin().expect("nobody else");
        assert!(matches!(place.begin(), Err(PlaceError::Busy(_))));
        drop(work);
        written(&place, "one", Next::Nothing);
        assert_eq!(files(folder.path()), ["link", "real"]);
        assert_eq!(files(&folder.path().join("real")), ["x.cfg"]);
        assert!(matches!(Place::of(Path::new("/nowhere/x"), false), Err(PlaceError::Call { what: "no folder", .. })));
    }
}
