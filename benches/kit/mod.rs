//! What the benches share: the table of figures beside their budgets, and what the operating system says of a process.
//!
//! A table is printed as it grows, and kept as `target/bench/NAME.md`, from which `docs/benchmarks.md` is put together.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

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
}

impl Table {
    /// The table of the bench `name`.
    pub fn new(name: &'static str) -> Self {
        Self { name, rows: String::new(), missed: false }
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
        std::fs::write(folder.join(format!("{}.md", self.name)), &self.rows).unwrap();
        if self.missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
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
