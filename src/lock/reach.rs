//! All that a program has started, and how it is ended.
//!
//! Where the unified hierarchy is ours the program has a control group of its own, which the kernel kills at once
//! (`cgroup.kill`). Otherwise, and besides, its process group and every descendant are killed: whoever's parent died is
//! adopted by us (`PR_SET_CHILD_SUBREAPER`), so a session of its own is no way out.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::model::offer::cgroup;

/// A control group made for one program.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) path: PathBuf,
    /// Opened ahead, so that killing is one write.
    kill: File,
}

impl Group {
    /// Makes one beside ourselves, where that is ours to do.
    pub(super) fn make(name: &str) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let parent = Path::new(&cgroup::mount(&mounts)?).join(own.trim_start_matches('/'));
        let path = parent.join(name);
        (own == "/" || is_delegated(&parent)).then_some(())?;
        fs::create_dir(&path).ok()?;
        Self::open(path.clone()).or_else(|| {
            let _ = fs::remove_dir(path);
            None
        })
    }

    /// One that is there.
    pub(super) fn open(path: PathBuf) -> Option<Self> {
        let kill = File::options().write(true).open(path.join("cgroup.kill")).ok()?;
        Some(Self { path, kill })
    }

    pub(super) fn add(&self, process: Pid) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), process.as_raw_nonzero().to_string())
    }

    fn kill(&self) {
        // Whatever keeps the kernel from it, the descendants are killed one by one.
        let _ = (&self.kill).write_all(b"1");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// systemd marks what it has given away (`Delegate=`).
fn is_delegated(path: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::getxattr(path, *name, &mut value[..]).is_ok_and(|length| value[..length] == *b"1")
    })
}

/// A program and all that it has started.
#[derive(Debug)]
pub(super) struct Reach {
    /// Whose descendants count.
    pub(super) root: Pid,
    /// Which of them do not.
    pub(super) spared: Vec<Pid>,
    /// The program's process group.
    pub(super) leader: Option<Pid>,
    pub(super) group: Option<Group>,
}

impl Reach {
    /// Ends it all; what is started meanwhile is found the next time.
    pub(super) fn kill(&self) {
        if let Some(group) = &self.group {
            group.kill();
        }
        if let Some(leader) = self.leader {
            let _ = kill_process_group(leader, Signal::KILL);
        }
        for process in self.living() {
            process.kill();
        }
    }

    /// Whether nothing of it lives.
    pub(super) fn is_empty(&self) -> bool {
        self.living().is_empty()
    }

    fn living(&self) -> Vec<Process> {
        let spared: HashSet<i32> = self.spared.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        let mut left = all();
        let mut parents = vec![self.root.as_raw_nonzero().get()];
        let mut found = vec![];
        while let Some(parent) = parents.pop() {
            let (children, others) = left.into_iter().partition(|process: &Process| process.parent == parent);
            left = others;
            for child in children.into_iter().filter(|child| !spared.contains(&child.pid)) {
                parents.push(child.pid);
                found.push(child);
            }
        }
        found.retain(|process| !process.is_dead);
        found
    }
}

/// One line of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    is_dead: bool,
    /// With the number it tells a process from another that came after it.
    started: u64,
}

impl Process {
    fn parse(stat: &str) -> Option<Self> {
        let (pid, rest) = stat.split_once(" (")?;
        // A name may hold anything, brackets too.
        let mut fields = rest.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { pid: pid.parse().ok()?, parent, is_dead: matches!(state, "Z" | "X" | "x"), started })
    }

    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn kill(&self) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // From here on the descriptor is this process, and no other of its number.
        if Self::read(self.pid).is_some_and(|now| now.started == self.started) {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
}

fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 100 200 1";
        let expected = Process { pid: 42, parent: 7, is_dead: false, started: 9876 };
        assert_eq!(Process::parse(stat), Some(expected));
        assert_eq!(Process::parse("nonsense"), None);
        let own = Process::read(i32::try_from(std::process::id()).expect("small")).expect("it is there");
        assert!(!own.is_dead && own.started > 0);
    }
}
