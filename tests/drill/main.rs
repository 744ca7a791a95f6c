//! Drills: three hosts with real engines, etcd and servers under steady churn and steady questions; faults strike,
//! alone and together; every answer is held against what really served. `make test` runs a few of fixed seeds and a
//! short soak;
//! `make drill` as many as asked for:
//!
//! ```text
//! WHARF_DRILL=1 DRILLS=200 SEED=7 cargo test --test drill -- --nocapture
//! WHARF_DRILL=1 EACH=1 DRILLS=0 SOAK=1h cargo test --test drill -- --nocapture
//! WHARF_DRILL=1 WAIT_WHILE=/tmp/measuring ONLY=cut,kill-agent cargo test --test drill -- --nocapture
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

#[path = "../lab/mod.rs"]
mod lab;

mod bounds;
mod churn;
mod faults;
mod field;
mod judge;
mod judge_tests;
mod query;
mod quorum;
mod quorum_tests;
mod report;
mod soak;
mod trouble;
mod truth;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use faults::{Fault, NAMES, Plan, any_seed, carry_out, random_plan};
use field::{Field, StopAtEnd};
use judge::Record;
use lab::host::lock;
use lab::wait::{pause, poll_for};
use report::Row;

/// How long the agents may take to name everything once all is whole; far above every bound, which the judge holds.
const SETTLE: Duration = Duration::from_secs(60);

#[test]
fn answers_stay_true_through_every_drill() {
    let lab = lab::alone();
    let long = std::env::var_os("WHARF_DRILL").is_some();
    let field = Field::lay(&lab, long.then(faketime).flatten().as_deref());
    field
        .settle(SETTLE)
        .unwrap_or_else(|seen| panic!("the cluster does not come up: {seen}\n{}", report::logs(&field)));
    let rows = if long { long_form(&field) } else { short_form(&field) };
    let summary = report::summary(&rows);
    println!("{summary}");
    keep("drill/summary.txt", &summary);
    if long {
        keep("bench/drill.md", &report::benchmark(&rows));
    }
    assert!(rows.iter().all(Row::clean), "not every drill was clean; all that was seen is in {}", folder().display());
}

/// The faults that differ most in what they break, then a moment of nothing but churn.
fn short_form(field: &Field<'_>) -> Vec<Row> {
    let ms = Duration::from_millis;
    let drills: [Plan; 3] = [
        // The agent is killed when its file is old enough to have everything.
        vec![
            (Fault::Freeze(4), ms(9000), ms(0)),
            (Fault::FillDisk(1), ms(4000), ms(0)),
            (Fault::KillAgent(0), ms(200), ms(9500)),
        ],
        vec![(Fault::Cut(2), ms(8500), ms(0))],
        vec![(Fault::LoseQuorum(1), ms(7000), ms(0))],
    ];
    let mut rows: Vec<Row> = drills.iter().zip(1..).map(|(plan, seed)| drill(field, plan, seed)).collect();
    rows.push(soak(field, Duration::from_secs(12), 5));
    rows
}

fn long_form(field: &Field<'_>) -> Vec<Row> {
    let seed = number("SEED").unwrap_or_else(any_seed);
    println!("SEED={seed}: the same again with it\n{}", report::HEAD);
    let only = std::env::var("ONLY").ok();
    let names: Vec<&str> = only.as_ref().map_or(NAMES.to_vec(), |only| only.split(',').collect());
    assert!(names.iter().all(|name| NAMES.contains(name)), "ONLY={names:?}: not all of {NAMES:?}");
    let mut rows = vec![];
    if std::env::var_os("EACH").is_some() {
        for (name, n) in names.iter().zip(0..) {
            let mut dice = StdRng::seed_from_u64(seed + n);
            let fault = Fault::named(name, field, &mut dice).expect("a name of the list");
            rows.push(drill(field, &vec![(fault, fault.length(true, &mut dice), Duration::ZERO)], seed + n));
        }
    }
    for n in 0..number("DRILLS").unwrap_or(20) {
        let seed = seed + 1000 * (n + 1);
        let plan = random_plan(field, &names, &mut StdRng::seed_from_u64(seed), faketime().is_some());
        rows.push(drill(field, &plan, seed));
    }
    if let Ok(length) = std::env::var("SOAK") {
        let length = humantime::parse_duration(&length).expect("SOAK is a length of time, as 1h");
        rows.push(soak(field, length, seed));
    }
    rows
}

/// One drill, from one settled state to the next.
fn drill(field: &Field<'_>, plan: &Plan, seed: u64) -> Row {
    let names: Vec<String> = plan.iter().map(|(fault, length, _)| format!("{fault} for {length:.1?}")).collect();
    give_way(field);
    pause((field.settled() + faults::quiet_before(plan)).saturating_sub(field.now()));
    run(field, &format!("{} (seed {seed})", names.join(", ")), seed, || {
        pause(faults::LEAD_IN);
        let healed = carry_out(field, plan);
        pause(Duration::from_secs(3));
        healed
    })
}

/// How long somebody may want the machine for himself.
const GIVEN: Duration = Duration::from_secs(3600);

/// Begins nothing while somebody measures beside the drills and says so by a file; for how long it did not.
fn give_way(field: &Field<'_>) -> Duration {
    let from = field.now();
    if let Some(file) = std::env::var_os("WAIT_WHILE") {
        poll_for(GIVEN, || !Path::new(&file).exists());
    }
    field.now().saturating_sub(from)
}

/// Nothing but churn and questions, and the agents' size meanwhile.
fn soak(field: &Field<'_>, length: Duration, seed: u64) -> Row {
    let pids: Vec<u32> = field.agents.iter().filter_map(|agent| lock(agent).process().pid()).collect();
    let mut samples = vec![vec![]; pids.len()];
    let mut end = field.now() + length;
    let mut row: Option<Row> = None;
    // In pieces, so that what was seen need not be kept for an hour.
    while field.now() < end || row.is_none() {
        end += give_way(field);
        let piece = end.saturating_sub(field.now()).min(Duration::from_secs(60));
        let next = run(field, &format!("soak of {length:.0?} (seed {seed})"), seed + field.now().as_secs(), || {
            let until = field.now() + piece;
            poll_for(piece + Duration::from_secs(60), || {
                for (pid, samples) in pids.iter().zip(&mut samples) {
                    samples.extend(soak::sample(*pid, field.now()));
                }
                pause(Duration::from_millis(500));
                field.now() >= until
            });
            field.now()
        });
        row = Some(match row {
            Some(row) => row.and(next),
            None => next,
        });
    }
    let mut row = row.expect("at least one piece was run");
    for (samples, n) in samples.iter().zip(1..) {
        let told = soak::told(&format!("h{n}"), samples, length / 12);
        println!("{told}");
        keep(&format!("drill/soak-h{n}.txt"), &told);
        let grown = soak::growth(samples).unwrap_or_default();
        row.sizes.extend(grown.into_iter().map(|growth| (format!("h{n}"), growth)));
        row.unsettled = row.unsettled.or(soak::flat(samples).err().map(|why| format!("h{n}: {why}")));
    }
    row
}

/// A piece of drill under churn, judged.
fn run(field: &Field<'_>, name: &str, seed: u64, part: impl FnOnce() -> truth::Moment) -> Row {
    let from = field.now();
    let mut unsettled = None;
    let record = field.watched(|| {
        let stop = &AtomicBool::new(false);
        let healed = std::thread::scope(|scope| {
            let _stop = StopAtEnd(stop);
            for host in 0..field.agents.len() {
                scope.spawn(move || churn::live(field, host, seed, stop));
            }
            part()
        });
        unsettled = field.settle(SETTLE).err();
        pause(Duration::from_secs(1));
        healed
    });
    let (took, verdict) = (field.now().saturating_sub(from), judge::judge(&record));
    let row = Row { name: name.into(), took, verdict, unsettled, sizes: vec![] };
    println!("{}{}", row.line(), report::store(&record, from));
    if !row.clean() {
        tell(field, &row, &record, seed);
    }
    row
}

/// Prints and keeps all that was seen around each violation.
fn tell(field: &Field<'_>, row: &Row, record: &Record, seed: u64) {
    let mut told = format!("{}\n{}\n", report::HEAD, row.line());
    if let Some(why) = &row.unsettled {
        told += &format!("not everything was found in the end: {why}\n");
    }
    for violation in &row.verdict.violations {
        told += &report::around(record, violation);
    }
    println!("{told}");
    keep(&format!("drill/drill-{seed}.txt"), &(told + &report::logs(field)));
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: no number")))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("drill")
}

fn keep(file: &str, text: &str) {
    let file = folder().with_file_name(file);
    fs::create_dir_all(file.parent().expect("each has a folder")).expect("the target folder can be written");
    fs::write(file, text).expect("the target folder can be written");
}

/// The library that gives one agent alone another clock, if it is there.
fn faketime() -> Option<String> {
    let found = lab::process::try_run(&["sh", "-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]).ok()?;
    found.lines().next().map(str::to_owned)
}
