//! What the benches share: the table of figures beside their budgets, and what the operating system says of a process.
//!
//! A table is printed as it grows, and kept as `target/bench/NAME.md`, from which `docs/benchmarks.md` is put together.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]
// Nothing here runs on a runtime's threads.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Figures beside their budgets.
#[derive(Debug)]
pub struct Table {
    name: &'static str,
    rows: String,
    missed: bool,
    /// The machine's load when it began.
    load: String,
}

impl Table {
    /// The table of the bench `name`, which from here on has so long at most.
    pub fn new(name: &'static str) -> Self {
        end_in_time(name);
        // What an earlier run has left is not this one's.
        std::fs::remove_file(folder().join(format!("{name}.md"))).ok();
        Self { name, rows: String::new(), missed: false, load: load() }
    }

    /// A figure that may be `budget` at most, and what it was compared with, if with anything.
    pub fn row(&mut self, what: &str, figure: f64, budget: f64, unit: &str, compared: &str) {
        let kept = figure <= budget;
        self.missed |= !kept;
        let verdict = if kept { "kept" } else { "**missed**" };
        let (figure, budget) = (shown(figure, unit), shown(budget, unit));
        println!("{what:<72} {figure:>12}  budget {budget:>12}  {verdict}  {compared}");
        writeln!(self.rows, "| {what} | {figure} | {budget} | {verdict} | {compared} |").unwrap();
    }

    /// A figure without a budget: a reference, or where the time goes.
    pub fn note(&mut self, what: &str, figure: f64, unit: &str, compared: &str) {
        let figure = shown(figure, unit);
        println!("{what:<72} {figure:>12}  {:>19}        {compared}", "");
        writeln!(self.rows, "| {what} | {figure} | | | {compared} |").unwrap();
    }

    /// Writes the rows down; whether every budget was kept.
    pub fn finish(self) -> ExitCode {
        let folder = folder();
        std::fs::create_dir_all(&folder).unwrap();
        let load = format!("{} when it began, {} when it ended", self.load, load());
        println!("{}: load average {load}", self.name);
        std::fs::write(folder.join(format!("{}.load", self.name)), load).unwrap();
        std::fs::write(folder.join(format!("{}.md", self.name)), &self.rows).unwrap();
        if self.missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// The longest that a bench may take. Every wait has a deadline of its own, with words for what was waited for; this
/// one is for what has none, such as a tool that does not come back.
const LONGEST: Duration = Duration::from_secs(20 * 60);

/// Ends this program when it has not ended by itself, so that those after it have their turn.
fn end_in_time(name: &'static str) {
    std::thread::spawn(move || {
        std::thread::sleep(LONGEST);
        println!("{name}: not done within {LONGEST:?}");
        std::process::exit(1);
    });
}

/// How many programs have wanted to run at a time over the last minute: a busy machine makes figures worthless.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Where figures are kept.
fn folder() -> PathBuf {
    // Cargo's own folder for such things lies in the target folder.
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}

fn shown(figure: f64, unit: &str) -> String {
    let digits = match figure.abs() {
        _ if figure.fract() == 0.0 => 0,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    format!("{figure:.digits$} {unit}").trim_end().to_owned()
}

/// CPU time that a process has used so far, in user and kernel.
pub fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // Linux tells programs its ticks as hundredths of a second, whatever its own are.
    Duration::from_millis(ticks * 10)
}

/// A line of `/proc/PID/status` (`VmRSS`, `VmHWM`), in MB.
pub fn memory_of(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1_000.0
}

/// That share of the figures is not above what this yields.
pub fn percentile(figures: &mut [f64], percent: usize) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() * percent).div_ceil(100).saturating_sub(1)]
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
