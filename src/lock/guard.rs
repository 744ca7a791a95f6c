//! The guardian, as `wharf lock` has it: told things, heard, and ended when it does not end what it should.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Line;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, getpid, getppid, set_child_subreaper};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::line::{self, Order, Report};
use super::reach::{Group, Reach};
use super::{Job, PROGRAM};

/// How long the guardian has for what it is told.
const PATIENCE: Duration = Duration::from_millis(100);
const AGAIN: Duration = Duration::from_millis(10);

/// The line to a guardian, and the process at its other end.
pub(super) struct Guard {
    line: UnixStream,
    read: Vec<u8>,
    reach: Reach,
    /// The guardian's process, where it is our child.
    process: Option<std::process::Child>,
}

impl Guard {
    /// Starts the guardian and, by it, the process that is to be the program; or takes the one that started us.
    pub(super) fn begin(job: &Job) -> io::Result<Self> {
        let (line, process) = if job.guarded { (line::inherited()?, None) } else { start(&job.command)? };
        set_child_subreaper(Some(getpid()))?;
        line.set_nonblocking(true)?;
        let (root, spared) = match getppid().filter(|_| job.guarded) {
            Some(guardian) => (guardian, vec![getpid()]),
            None => (getpid(), vec![]),
        };
        let reach = Reach { root, spared, leader: None, group: None };
        Ok(Self { line: UnixStream::from_std(line)?, read: vec![], reach, process })
    }

    /// Tells it; what it does not hear shows when it is listened to.
    pub(super) async fn order(&mut self, order: &Order) {
        // One that stands still reads nothing, and its buffer may be full.
        let _ = timeout(PATIENCE, self.line.write_all(&line::encode(order))).await;
    }

    /// What it tells next; `None` when it is gone. Cancel-safe.
    pub(super) async fn report(&mut self) -> Option<Report> {
        loop {
            match line::decode(&mut self.read) {
                Ok(Some(Report::Held { child, group })) => {
                    self.reach.leader = Pid::from_raw(child);
                    self.reach.group = group.and_then(Group::open);
                }
                Ok(Some(report)) => return Some(report),
                Ok(None) => {
                    let mut buffer = [0; 4096];
                    let length = self.line.read(&mut buffer).await.unwrap_or(0);
                    if length == 0 {
                        return None;
                    }
                    self.read.extend_from_slice(&buffer[..length]);
                }
                Err(_) => return None,
            }
        }
    }

    /// Ends it all without the guardian, and the guardian with it; returns when nothing lives any more.
    pub(super) async fn kill(&mut self) {
        loop {
            self.reach.kill();
            if self.reach.is_empty() {
                break;
            }
            sleep(AGAIN).await;
        }
        self.reap();
    }

    /// Has it end what it holds, and ends it if it does not.
    pub(super) async fn leave(&mut self) {
        self.order(&Order::Kill).await;
        if timeout(PATIENCE * 5, self.report()).await.is_err() {
            self.kill().await;
        }
        self.reap();
    }

    fn reap(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.try_wait();
        }
    }
}

fn start(command: &[String]) -> io::Result<(Line, Option<std::process::Child>)> {
    let (line, theirs) = Line::pair()?;
    let mut guardian = Command::new(PROGRAM);
    guardian.arg0("wharf").args(["lock-guardian", "--"]).args(command);
    // A group of its own: what a terminal sends to ours is for us to hand on.
    let process = guardian.stdin(Stdio::from(OwnedFd::from(theirs))).process_group(0).spawn()?;
    line::send_descriptor(&line, io::stdin())?;
    Ok((line, Some(process)))
}
