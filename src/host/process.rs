//! A container's first process, watched without the engine.
//!
//! A pid alone may be another process by now, or one of another process namespace. It is trusted only if its control
//! group names the container, asked after the pidfd was opened: from then on the pidfd is that process and no other.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::model::offer::cgroup;

/// Groups of one container that are looked at: it makes them itself, as many as it likes.
const MOST_GROUPS: usize = 256;

/// A process that can be waited for though it is nobody's child.
#[derive(Debug)]
pub struct Process {
    pidfd: AsyncFd<OwnedFd>,
}

/// A process that was its container's when this was made.
#[derive(Debug)]
pub struct Witness {
    pidfd: OwnedFd,
    container: String,
    groups: String,
}

/// Watches the process `pid` if it is surely the container's.
pub fn watch_process(pid: i32, container: &str) -> Option<Process> {
    let Witness { pidfd, .. } = Witness::open(pid, container)?;
    Some(Process { pidfd: registered(pidfd)? })
}

/// The newer constructor is unsafe for types that may change their descriptor; an `OwnedFd` cannot.
#[allow(deprecated)]
fn registered(pidfd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE).ok()
}

impl Process {
    /// Ends when the process has ended.
    pub async fn ended(&self) {
        // An error here means that the runtime is going away; then nobody asks.
        let _ = self.pidfd.readable().await;
    }
}

impl Witness {
    /// The process `pid`, if it is surely the container's.
    pub fn open(pid: i32, container: &str) -> Option<Self> {
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        cgroup::is_of(&groups, container).then(|| Self { pidfd, container: container.to_owned(), groups })
    }

    /// Whether the process still runs, now.
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A pidfd becomes readable when its process ends.
        poll(&mut fds, Some(&now)) == Ok(0)
    }

    /// Whether the control group with this number is the container's, or a part of it. `None` where the host has no
    /// unified hierarchy, or keeps the container elsewhere.
    pub fn has_group(&self, number: u64) -> Option<bool> {
        let path = cgroup::unified(&self.groups, &self.container)?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let root = Path::new(&cgroup::mount(&mounts)?).join(path.trim_start_matches('/'));
        Some(holds(root, number))
    }
}

/// Whether the folder or one within it has this number: the kernel numbers a group by its folder.
fn holds(root: PathBuf, number: u64) -> bool {
    let mut folders = vec![root];
    for _ in 0..MOST_GROUPS {
        let Some(folder) = folders.pop() else { return false };
        if fs::metadata(&folder).is_ok_and(|facts| facts.ino() == number) {
            return true;
        }
        let within = fs::read_dir(&folder).into_iter().flatten().flatten();
        let within = within.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(within.take(MOST_GROUPS).map(|entry| entry.path()));
    }
    false
}
