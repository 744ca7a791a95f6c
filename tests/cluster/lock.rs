//! The lock on three hosts: partitions, hosts that die, all of etcd down. No two lives overlap, by the
//! programs' own stamps of the time since boot, which these hosts share.
//!
//! `WHARF_DRILL=1` lives through each row a hundred times.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::process::Process;
use crate::lab::{self, Alone, Lab, eventually};

/// Stamps who lives and the time since boot each hundredth of a second.
const STAMPS: &str = r#"
life=$HOST.${WHARF_LOCK_TOKEN:-0}.$RANDOM$RANDOM
exec 9<> <(:)
while :; do read -r up _ < /proc/uptime; echo "$life $up" >> "$STAMPS"; read -t 0.01 -u 9; done"#;

fn rounds() -> usize {
    if std::env::var_os("WHARF_DRILL").is_some() { 100 } else { 1 }
}

/// One life, in hundredths of a second since boot.
#[derive(Clone, Debug)]
struct Life {
    name: String,
    first: u64,
    last: u64,
}

impl Life {
    /// The host that it was on, from 1 on.
    fn host(&self) -> usize {
        self.name[1..2].parse().unwrap()
    }
}

/// A program under one lock on every host.
struct Field<'l> {
    lab: &'l Lab,
    stamps: PathBuf,
    command: fn(&Lab, usize) -> Vec<String>,
    lockers: Vec<Option<Process>>,
    worst: f64,
}

fn wharf_lock(lab: &Lab, n: usize) -> Vec<String> {
    let endpoints = lab.host(n).etcd_endpoints().join(",");
    let wharf = env!("CARGO_BIN_EXE_wharf");
    let words = [wharf, "lock", "db", "--ttl", "2s", "--node", lab.host(n).name(), "--etcd-endpoints", &endpoints];
    words.into_iter().chain(["--", "bash", "-c", STAMPS]).map(str::to_owned).collect()
}

impl<'l> Field<'l> {
    fn new(lab: &'l Alone, command: fn(&Lab, usize) -> Vec<String>) -> Self {
        let stamps = lab.ground().dir().join("stamps");
        let _ = fs::remove_file(&stamps);
        let lockers = lab.hosts().iter().map(|_| None).collect();
        let mut field = Self { lab, stamps, command, lockers, worst: 0.0 };
        field.stand(&[]);
        field
    }

    /// Sees to it that one waits or runs on every host.
    fn stand(&mut self, env: &[(&str, &str)]) {
        for n in 1..=self.lockers.len() {
            if self.lockers[n - 1].as_mut().is_some_and(Process::runs) {
                continue;
            }
            let host = self.lab.host(n);
            let argv = (self.command)(self.lab, n);
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            let stamps = self.stamps.display().to_string();
            let own = [("HOST", host.name()), ("STAMPS", &*stamps), ("ETCDCTL_API", "3")];
            let env: Vec<(&str, &str)> = own.iter().chain(env).copied().collect();
            self.lockers[n - 1] = Some(host.spawn("lock", &argv, &env));
        }
    }

    fn lives(&self) -> Vec<Life> {
        let mut lives = BTreeMap::<String, (u64, u64)>::new();
        for line in fs::read_to_string(&self.stamps).unwrap_or_default().lines() {
            let Some((name, up)) = line.split_once(' ') else { continue };
            let Ok(up) = up.replace('.', "").parse::<u64>() else { continue };
            let life = lives.entry(name.to_owned()).or_insert((up, up));
            *life = (life.0.min(up), life.1.max(up));
        }
        let life = |(name, (first, last))| Life { name, first, last };
        let mut lives: Vec<Life> = lives.into_iter().map(life).collect();
        lives.sort_by_key(|life| life.first);
        lives
    }

    fn overlaps(&self) -> usize {
        self.lives().windows(2).filter(|pair| pair[0].last > pair[1].first).count()
    }

    /// The host whose program runs: the newest life, which still stamps.
    fn holder(&self) -> usize {
        eventually("a program runs", || {
            let life = self.lives().pop()?;
            let up = fs::read_to_string("/proc/uptime").ok()?;
            let up: u64 = up.split(' ').next()?.replace('.', "").parse().ok()?;
            (up < life.last + 50).then(|| life.host())
        })
    }

    /// Breaks something about the holder, waits for the next life, mends it, and holds the promise.
    fn round(&mut self, what: &str, breaks: impl Fn(&Self, usize), mends: impl Fn(&Self, usize)) {
        let holder = self.holder();
        let (before, broken) = (self.lives().len(), Instant::now());
        breaks(self, holder);
        eventually(&format!("after {what} the next one runs"), || self.lives().len() > before);
        self.worst = self.worst.max(broken.elapsed().as_secs_f64());
        mends(self, holder);
        self.stand(&[]);
        assert_eq!(self.overlaps(), 0, "{what}: {:?}", self.lives());
    }

    fn end(self, what: &str) {
        println!(
            "{what}: {} lives, {} overlaps, the next ran {:.2} s after at most",
            self.lives().len(),
            self.overlaps(),
            self.worst
        );
        assert_eq!(self.overlaps(), 0, "{what}: {:?}", self.lives());
    }

    /// Everything of a host's lock at once, as a host dies: and its member of etcd.
    fn kill_host(&self, n: usize) {
        let root = self.lockers[n - 1].as_ref().and_then(Process::pid).expect("it runs");
        let all = tree(i32::try_from(root).unwrap());
        self.lab.host(n).etcd().kill();
        for pid in all.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Drop for Field<'_> {
    fn drop(&mut self) {
        for locker in self.lockers.iter_mut().flatten() {
            let all = locker.pid().map(|pid| tree(i32::try_from(pid).unwrap())).unwrap_or_default();
            for pid in all.into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// A process, and all that it has started.
fn tree(root: i32) -> Vec<i32> {
    let mut all = vec![root];
    let mut at = 0;
    while at < all.len() {
        let parent = all[at].to_string();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        all.extend(entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(&parent)
        }));
        at += 1;
    }
    all
}

#[test]
fn a_lock_s_host_is_cut_off() {
    let lab = lab::alone();
    let mut field = Field::new(&lab, wharf_lock);
    for _ in 0..rounds() {
        field.round("a cut", |field, n| field.lab.host(n).cut(), |field, n| field.lab.host(n).heal());
    }
    field.end("partitions");
}

#[test]
fn a_lock_s_host_dies() {
    let lab = lab::alone();
    let mut field = Field::new(&lab, wharf_lock);
    for _ in 0..rounds() {
        field.round("a host's death", Field::kill_host, |field, n| field.lab.host(n).etcd().start_again());
        lab.etcd().wait_healthy();
    }
    field.end("kills of the host");
}

#[test]
fn all_members_of_etcd_go_and_come_back() {
    let lab = lab::alone();
    let mut field = Field::new(&lab, wharf_lock);
    for with_data in [true, false].repeat(rounds().min(10)) {
        let all_go = |field: &Field<'_>, _| {
            if !with_data {
                return field.lab.new_etcd();
            }
            field.lab.hosts().iter().for_each(|host| host.etcd().kill());
            // Long enough for the hold to end.
            eventually("nobody runs any more", || {
                let up = fs::read_to_string("/proc/uptime").ok()?;
                let up: u64 = up.split(' ').next()?.replace('.', "").parse().ok()?;
                field.lives().iter().all(|life| life.last + 50 < up).then_some(())
            });
            field.lab.hosts().iter().for_each(|host| host.etcd().start_again());
        };
        field.round(if with_data { "all of etcd down" } else { "all of etcd emptied" }, all_go, |_, _| {});
    }
    field.end("all members down and up");
}
