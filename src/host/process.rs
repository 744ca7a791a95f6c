//! A container's first process, watched without the engine.
//!
//! A pid alone may be another process by now, or one of another process namespace. It is trusted only if its control
//! group names the container, asked after the pidfd was opened: from then on the pidfd is that process and no other.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that can be waited for though it is nobody's child.
#[derive(Debug)]
pub struct Process {
    pidfd: AsyncFd<OwnedFd>,
}

/// Watches the process `pid` if it is surely the container's.
pub fn watch_process(pid: i32, container: &str) -> Option<Process> {
    if container.len() < 12 {
        return None;
    }
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    if !cgroup.contains(container) {
        return None;
    }
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
