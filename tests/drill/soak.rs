//! An agent's size over time: memory, files and threads, read from the system, and whether they stay flat.

use std::fs;
use std::time::Duration;

use crate::truth::Moment;

/// What one agent takes at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub at: Moment,
    pub kib: u64,
    pub files: u64,
    pub threads: u64,
}

/// Reads it of a process.
pub fn sample(pid: u32, at: Moment) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Sample { at, kib: field("VmRSS:")?, files, threads: field("Threads:")? })
}

/// Memory that comes and goes with allocations, besides a tenth of it.
const MEMORY_ROOM: u64 = 4096;
/// A probe or a query under way has a file of its own; a blocking call a thread.
const FILES_ROOM: u64 = 16;
const THREADS_ROOM: u64 = 8;

/// What one agent took of something, early and late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    pub what: &'static str,
    /// The median of the first third of the samples…
    pub before: u64,
    /// …and of the last.
    pub after: u64,
    /// By how much it comes and goes.
    pub room: u64,
}

impl Growth {
    fn of(what: &'static str, samples: &[Sample], of: fn(&Sample) -> u64, room: impl Fn(u64) -> u64) -> Self {
        let third = (samples.len() / 3).max(1);
        let before = median(&samples[..third], of);
        Self { what, before, after: median(&samples[samples.len() - third..], of), room: room(before) }
    }
}

/// Compares the first and the last third: a leak grows, a moment's need does not.
pub fn growth(samples: &[Sample]) -> Result<Vec<Growth>, String> {
    if samples.len() < 3 {
        return Err(format!("{} samples tell nothing", samples.len()));
    }
    Ok(vec![
        Growth::of("memory (KiB)", samples, |sample| sample.kib, |before| MEMORY_ROOM + before / 10),
        Growth::of("files", samples, |sample| sample.files, |_| FILES_ROOM),
        Growth::of("threads", samples, |sample| sample.threads, |_| THREADS_ROOM),
    ])
}

/// Whether nothing grew.
pub fn flat(samples: &[Sample]) -> Result<(), String> {
    let grown = growth(samples)?.into_iter().find(|growth| growth.after > growth.before + growth.room);
    grown.map_or(Ok(()), |Growth { what, before, after, .. }| Err(format!("{what} grew from {before} to {after}")))
}

fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// Some of the samples, for people.
pub fn told(name: &str, samples: &[Sample], every: Duration) -> String {
    let mut next = Duration::ZERO;
    let mut lines = vec![];
    for sample in samples {
        if sample.at >= next {
            let mib = sample.kib / 1024;
            lines.push(format!(
                "{name} {:>5} s: {mib} MiB, {} files, {} threads",
                sample.at.as_secs(),
                sample.files,
                sample.threads
            ));
            next = sample.at + every;
        }
    }
    lines.join("\n")
}
