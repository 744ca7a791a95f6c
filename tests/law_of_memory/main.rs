//! What a record costs the catalog, whoever wrote it: at most 1 kB, plus 256 bytes for each label of its key, each tag
//! and each attr, plus 4 for each byte of its key and its value.
//!
//! A search looks for the shape of keys and values that costs most: it mutates shapes, puts so many records of each,
//! deletes most of them, and counts every byte that is allocated. The law holds at each number of records from 1,000 to
//! 20,000, and for those that stay when others go.
//! `WHARF_SEARCH=7200` has it search for two hours; what it found worst stays here.

#![allow(clippy::print_stdout, missing_docs, unreachable_pub)]

mod heap;
mod law;
mod relist;
mod search;
mod shape;

use std::time::Duration;

use rand::RngExt;

use crate::law::{Cost, FEWEST, MOST};

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn no_shape_breaks_the_law() {
    let seed = number("WHARF_SEED").unwrap_or_else(|| rand::rng().random());
    search::run(seed, number("WHARF_SEARCH").map(Duration::from_secs));
}

#[test]
fn the_worst_shapes_known_keep_the_law() {
    let all = number("WHARF_SEARCH").is_some();
    for (text, shape) in shape::known() {
        // Fewer cost as much each, within a little, and a long search takes them all.
        let most = if all { MOST } else { search::AGAIN * search::look(&shape) };
        let cost = law::cost(&shape, FEWEST.min(most / 2)..=most);
        println!("  {cost}: {text}");
        cost.keeps_the_law(&shape);
    }
}

/// Values that are none, and keys that cannot be names.
#[test]
fn what_is_no_record_costs_no_more() {
    for (text, shape) in shape::bad() {
        let cost = law::cost(&shape, 150..=150);
        println!("  {cost}: {text}");
        cost.keeps_the_law(&shape);
        assert_eq!(cost.records, 0, "{text}");
    }
}

/// Thirty times as many records as there are at any time come and go. Nodes of its trees that were full once and are
/// not any more let a catalog grow a little at first.
#[test]
fn churn_leaves_nothing_behind() {
    for (text, shape) in shape::known() {
        let Cost { first, last, .. } = law::churn(&shape, (2_000 / shape.parts()).clamp(40, 150), 15, 30);
        println!("  {first} bytes after fifteen turns, {last} after thirty: {text}");
        assert!(last <= first + first / 8 + 16 * 1024, "{first} bytes became {last}: {text}");
    }
}
