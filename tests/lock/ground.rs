//! An etcd, programs under `wharf lock`, and the stamps that they leave.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::etcd::Cluster;
use crate::program::wharf;

const PATIENCE: Duration = Duration::from_secs(60);
/// The lease's time in all that is lost.
pub const TTL: Duration = Duration::from_secs(2);

/// What a life is called: a store that went back gives out tokens once more.
const LIFE: &str = "export LIFE=$WHARF_LOCK_TOKEN.$RANDOM$RANDOM";

/// Stamps its life's name and the time since boot, each hundredth of a second, until `$STOP` is there; then it exits
/// with 7. A shell of its own for each would take longer than that.
pub const STAMPS: &str = r#"
exec 9<> <(:)
while [ ! -e "$STOP" ]; do read -r up _ < /proc/uptime; echo "$LIFE $up" >> "$STAMPS"; read -t 0.01 -u 9; done
exit 7"#;

/// The same, deaf to TERM.
pub const DEAF: &str = "trap '' TERM";

pub struct Ground {
    pub cluster: Cluster,
    pub dir: tempfile::TempDir,
}

/// What stamps, after what is run first.
pub fn script(before: &str) -> String {
    format!("{LIFE}\n{before}\n{STAMPS}")
}

impl Ground {
    pub fn new() -> Self {
        // Files of programs that are killed are not to wait for a disk.
        Self { cluster: Cluster::start(1), dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `wharf lock db` on a host of this name, with a program that stamps; `before` is run first.
    pub fn stamping(&self, node: &str, before: &str) -> Locker {
        let script = script(before);
        self.lock(node, &["db", "--ttl", "2s"], &["bash", "-c", &script])
    }

    pub fn lock(&self, node: &str, flags: &[&str], command: &[&str]) -> Locker {
        let log = self.path(&format!("{node}.log"));
        let mut lock = wharf();
        lock.arg("lock").args(flags).args(["--node", node, "--etcd-endpoints", &self.cluster.endpoints().join(",")]);
        if !command.is_empty() {
            lock.arg("--").args(command);
        }
        lock.env("STAMPS", self.path("stamps")).env("STOP", self.path(&format!("{node}.stop")));
        let out = File::create(self.path(&format!("{node}.out"))).unwrap();
        lock.stdin(Stdio::null()).stdout(out).stderr(File::create(&log).unwrap());
        Locker { child: lock.spawn().unwrap(), log, stop: self.path(&format!("{node}.stop")) }
    }

    pub fn wharf(&self, line: &str) -> Output {
        let endpoints = self.cluster.endpoints().join(",");
        wharf().args(line.split_whitespace()).args(["--etcd-endpoints", &endpoints]).output().unwrap()
    }

    pub fn status(&self, name: &str) -> serde_json::Value {
        let output = self.wharf(&format!("lock --status {name} -o json"));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Each life by its token: its first and its last stamp, in order of the first.
    pub fn lives(&self) -> Vec<Life> {
        let text = std::fs::read_to_string(self.path("stamps")).unwrap_or_default();
        let mut lives = BTreeMap::<String, (u64, u64)>::new();
        for line in text.lines() {
            let Some((name, up)) = line.split_once(' ') else { continue };
            let Ok(up) = up.replace('.', "").parse::<u64>() else { continue };
            let life = lives.entry(name.to_owned()).or_insert((up, up));
            *life = (life.0.min(up), life.1.max(up));
        }
        let life = |(name, (first, last)): (String, (u64, u64))| {
            let token = name.split('.').next().unwrap().parse().unwrap();
            Life { token, first: first * 10, last: last * 10 }
        };
        let mut lives: Vec<Life> = lives.into_iter().map(life).collect();
        lives.sort_by_key(|life| life.first);
        lives
    }

    /// Waits for so many lives.
    #[track_caller]
    pub fn until_lives(&self, count: usize) {
        self.until(&format!("{count} lives"), || self.lives().len() >= count);
    }

    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "never: {what}\n{:?}\n{}", self.lives(), self.logs());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn logs(&self) -> String {
        let entries = std::fs::read_dir(self.dir.path()).unwrap().flatten();
        let logs = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".log"));
        logs.map(|entry| {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            format!("{}:\n{text}", entry.file_name().to_string_lossy())
        })
        .collect()
    }

    /// The promise.
    #[track_caller]
    pub fn no_two_overlap(&self) {
        for pair in self.lives().windows(2) {
            assert!(pair[0].last <= pair[1].first, "{pair:?}\n{}", self.logs());
        }
    }
}

/// In milliseconds since boot, by a clock of hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub token: u64,
    pub first: u64,
    pub last: u64,
}

/// A `wharf lock` that runs.
pub struct Locker {
    child: Child,
    log: PathBuf,
    stop: PathBuf,
}

impl Locker {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Has its program end by itself.
    pub fn stop(&self) {
        File::create(&self.stop).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The guardian, once it is there.
    pub fn guardian(&self) -> Pid {
        let guardian = children(self.pid()).into_iter().find(|pid| cmdline(*pid).contains("lock-guardian"));
        Pid::from_raw(guardian.unwrap()).unwrap()
    }

    pub fn code(&mut self) -> i32 {
        let status: ExitStatus = self.child.wait().unwrap();
        std::os::unix::process::ExitStatusExt::signal(&status).map_or_else(|| status.code().unwrap(), |it| 128 + it)
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        // What is killed here is ours: whatever this process has started, and what that has.
        let mut all = vec![self.pid()];
        let mut at = 0;
        while at < all.len() {
            all.extend(children(all[at]));
            at += 1;
        }
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            for pid in all.into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

fn cmdline(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

pub fn children(parent: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').nth(1).unwrap_or_default().to_owned());
        fields.is_some_and(|field| field == parent.to_string())
    })
    .collect()
}
