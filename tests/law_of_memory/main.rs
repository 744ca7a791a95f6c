//! What a record costs the catalog, whoever wrote it: at most 1 kB, plus 256 bytes for each label of its key, each tag and
//! each attr, plus 4 for each byte of its key and its value.
//!
//! A search looks for the shape of keys and values that costs most: it mutates shapes, puts so many records of each, and
//! counts every byte that is allocated. `WHARF_SEARCH=7200` has it search for two hours; what it found worst stays here.

#![allow(clippy::print_stdout, missing_docs, unreachable_pub)]

mod heap;
mod law;
mod relist;
mod search;
mod shape;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt;

use crate::law::{Cost, TEN_THOUSAND};

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

/// How long `make test` searches.
const SHORT: Duration = Duration::from_secs(20);

/// One at a time, as every byte counts.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn no_shape_breaks_the_law() {
    let _alone = alone();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("WHARF_SEED").unwrap_or_else(|| rand::rng().random());
    search::run(seed, number("WHARF_SEARCH").map_or(SHORT, Duration::from_secs));
}

#[test]
fn the_worst_shapes_known_keep_the_law() {
    let _alone = alone();
    for (text, shape) in shape::known() {
        let cost = law::cost(&shape, TEN_THOUSAND);
        println!("  {cost}: {text}");
        cost.keeps_the_law(&shape);
    }
}

/// Values that are none, and keys that cannot be names.
#[test]
fn what_is_no_record_costs_no_more() {
    let _alone = alone();
    for (text, shape) in shape::bad() {
        let cost = law::cost(&shape, 500);
        println!("  {cost}: {text}");
        cost.keeps_the_law(&shape);
        assert_eq!(cost.records, 0, "{text}");
    }
}

/// Twenty times as many records as there are at any time come and go.
#[test]
fn churn_leaves_nothing_behind() {
    let _alone = alone();
    for (text, shape) in shape::known() {
        let Cost { first, last, .. } = law::churn(&shape, 300, 20);
        println!("  {first} bytes after three turns, {last} after twenty: {text}");
        assert!(last <= first + first / 4 + 16 * 1024, "{first} bytes became {last}: {text}");
    }
}
