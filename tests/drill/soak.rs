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

/// Compares the medians of the first and of the last third: a leak grows, a moment's need does not.
pub fn flat(samples: &[Sample]) -> Result<(), String> {
    let third = samples.len() / 3;
    if third == 0 {
        return Err(format!("{} samples tell nothing", samples.len()));
    }
    let (first, last) = (&samples[..third], &samples[samples.len() - third..]);
    let check = |name: &str, of: fn(&Sample) -> u64, room: u64| {
        let (before, after) = (median(first, of), median(last, of));
        if after <= before + room { Ok(()) } else { Err(format!("{name} grew from {before} to {after}")) }
    };
    check("memory (KiB)", |sample| sample.kib, MEMORY_ROOM + median(first, |sample| sample.kib) / 10)?;
    check("files", |sample| sample.files, FILES_ROOM)?;
    check("threads", |sample| sample.threads, THREADS_ROOM)
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
