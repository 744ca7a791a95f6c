//! Histories of three hosts and one store, with the real registrars and mirrors.
//!
//! A history is a seed: containers come and go, agents are killed, links are cut and lossy, the store hangs, is wiped and
//! restored, hands meddle. Time is the test's own. A witness holds the invariants of ARCHITECTURE.md against every
//! snapshot and every commit; a history that breaks one is made as short as it can be and told with its seed.
//! `WHARF_SEED=n cargo test --test simulation` runs one again, `WHARF_HISTORIES=n` so many, `WHARF_TRACE=1` tells all that
//! happens. The same seed is the same history, to the last word.
#![allow(clippy::print_stderr, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod broken;
mod cluster;
#[path = "../harness/mod.rs"]
mod harness;
mod link;
mod steps;
mod witness;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use broken::Mischief;
use steps::Step;
use witness::{Broken, Invariant};

/// As many as fit the whole of the tests; `WHARF_HISTORIES` asks for more.
const HISTORIES: u64 = 1_000;

fn live(seed: u64, steps: &[Step], mischief: Option<Mischief>) -> (Option<Broken>, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(world::live(seed, steps, mischief))
}

/// A history that breaks an invariant, as it was found and made short.
struct Finding {
    seed: u64,
    steps: Vec<Step>,
    broken: Broken,
}

fn found(seed: u64, mischief: Option<Mischief>) -> Option<Finding> {
    let steps = steps::history(seed);
    let invariant = live(seed, &steps, mischief).0?.invariant;
    let fails = |steps: &[Step]| live(seed, steps, mischief).0.is_some_and(|broken| broken.invariant == invariant);
    let steps = steps::shrink(&steps, fails);
    let broken = live(seed, &steps, mischief).0?;
    Some(Finding { seed, steps, broken })
}

impl Finding {
    fn tell(&self) -> String {
        let mut text = format!(
            "WHARF_SEED={}: {:?} at {:?}: {}\n",
            self.seed, self.broken.invariant, self.broken.at, self.broken.how
        );
        for (number, step) in self.steps.iter().enumerate() {
            text += &format!("  {}. {step:?}\n", number + 1);
        }
        text
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The first few findings among the seeds, looked for on all cores.
fn search(seeds: std::ops::Range<u64>, mischief: Option<Mischief>, enough: usize) -> Vec<Finding> {
    let next = AtomicU64::new(seeds.start);
    let findings = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || findings.lock().unwrap().len() >= enough {
                        return;
                    }
                    if let Some(finding) = found(seed, mischief) {
                        findings.lock().unwrap().push(finding);
                    }
                }
            });
        }
    });
    findings.into_inner().unwrap()
}

#[test]
fn no_history_breaks_an_invariant() {
    let seeds = match number("WHARF_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WHARF_HISTORIES").unwrap_or(HISTORIES),
    };
    let told: Vec<String> = search(seeds, None, 5).iter().map(Finding::tell).collect();
    assert!(told.is_empty(), "\n{}", told.join("\n"));
}

fn check_found(mischief: Mischief, invariant: Invariant, most: usize) {
    let findings = search(0..400, Some(mischief), 1);
    let finding = findings.first().unwrap_or_else(|| panic!("{mischief:?} is not found"));
    assert!(finding.broken.invariant == invariant && finding.steps.len() <= most, "{mischief:?}: {}", finding.tell());
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 0..20 {
        let steps = steps::history(seed);
        let traces = [(); 3].map(|()| live(seed, &steps, None).1);
        assert!(traces.iter().all(|trace| *trace == traces[0]), "seed {seed} is not lived through the same way twice");
    }
}

#[test]
fn a_broken_worker_is_found_and_its_history_made_short() {
    check_found(Mischief::Overwrites, Invariant::NoOverwriting, 8);
    check_found(Mischief::HoldsNothing, Invariant::NoNameVanishes, 8);
}
