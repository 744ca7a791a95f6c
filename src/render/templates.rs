//! Templates' files, watched: whoever edits one need not tell anybody.
//!
//! What is watched is their folders, as editors and deployments put another file in a file's place.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;

/// Watches folders.
#[derive(Debug, Default)]
pub(super) struct Templates {
    folders: BTreeSet<PathBuf>,
    watched: Option<AsyncFd<OwnedFd>>,
}

impl Templates {
    /// Watches the folders of these files from now on.
    pub(super) fn watch<'p>(&mut self, files: impl Iterator<Item = &'p Path>) {
        let folders: BTreeSet<PathBuf> = files.flat_map(folders).collect();
        if folders == self.folders && self.watched.is_some() {
            return;
        }
        match opened(&folders) {
            Ok(watched) => self.watched = Some(watched),
            Err(error) => {
                tracing::warn!(%error, "templates are not watched: SIGHUP has them read again");
                self.watched = None;
            }
        }
        self.folders = folders;
    }

    /// Waits until something happens in one of the folders.
    pub(super) async fn changed(&self) {
        let Some(watched) = &self.watched else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = watched.readable().await else { return std::future::pending().await };
            let read = ready.try_io(|descriptor| drain(descriptor.get_ref()));
            if let Ok(Ok(())) = read {
                return;
            }
        }
    }
}

/// The folder that a file is in, and that of the file which it leads to.
fn folders(file: &Path) -> Vec<PathBuf> {
    let real = file.canonicalize().ok();
    [Some(file), real.as_deref()].into_iter().flatten().filter_map(Path::parent).map(Path::to_owned).collect()
}

#[allow(deprecated)] // the newer constructor is unsafe for types that may change their descriptor; an `OwnedFd` cannot
fn opened(folders: &BTreeSet<PathBuf>) -> io::Result<AsyncFd<OwnedFd>> {
    let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let what = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::DELETE_SELF;
    for folder in folders {
        if let Err(error) = inotify::add_watch(&descriptor, folder, what) {
            tracing::debug!(folder = %folder.display(), %error, "a folder is not watched");
        }
    }
    AsyncFd::new(descriptor)
}

/// Takes all that has happened; what it was does not matter.
fn drain(descriptor: &OwnedFd) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = Reader::new(descriptor, &mut buffer);
    events.next()?;
    loop {
        match events.next() {
            Ok(_) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
