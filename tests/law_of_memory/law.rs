//! The law, and what a shape costs by it.

use std::fmt;

use wharf::model::catalog::Catalog;

use crate::heap;
use crate::shape::Shape;

pub const TEN_THOUSAND: usize = 10_000;

/// What records of one shape cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Records taken.
    pub records: usize,
    /// Bytes for each key put.
    pub each: f64,
    /// Bytes allowed for each.
    pub allowed: f64,
    /// Bytes for each that are left when all is deleted.
    pub left: f64,
    /// Bytes in all after so many turns, and after the last.
    pub first: usize,
    pub last: usize,
}

impl Cost {
    pub fn ratio(&self) -> f64 {
        self.each / self.allowed
    }

    pub fn keeps_the_law(&self, shape: &Shape) {
        assert!(self.ratio() <= 1.0, "{self}, more than the law allows: {shape}");
        assert!(
            self.left <= 0.05 * self.allowed,
            "{:.0} bytes of each are left when all is deleted: {shape}",
            self.left
        );
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { each, allowed, left, .. } = self;
        write!(f, "{:.3} of the law ({each:.0} of {allowed:.0} bytes, {left:.0} left when deleted)", self.ratio())
    }
}

/// What a record of this key and value may cost.
fn allowed(key: &str, value: &str) -> usize {
    let labels = key.split(['/', '.']).filter(|label| !label.is_empty()).count();
    let parts = |name: &str| {
        let value: Option<serde_json::Value> = serde_json::from_str(value).ok();
        match value.as_ref().and_then(|value| value.get(name)) {
            Some(serde_json::Value::Array(list)) => list.len(),
            Some(serde_json::Value::Object(map)) => map.len(),
            _ => 0,
        }
    };
    1_024 + 256 * (labels + parts("tags") + parts("attrs")) + 4 * (key.len() + value.len())
}

/// What so many records of a shape cost, and what of that is left when they are deleted.
pub fn cost(shape: &Shape, count: usize) -> Cost {
    let before = heap::live();
    let mut catalog = Catalog::default();
    let mut sum = 0;
    for (revision, number) in (1..).zip(shape.order(count)) {
        let (key, value) = (shape.key(number), shape.value(number));
        sum += allowed(&key, &value);
        let _bad_ones_too = catalog.put(&key, value.as_bytes(), shape.lease(number), revision);
    }
    let (full, records) = (heap::live().saturating_sub(before), catalog.counts().records);
    for number in shape.order(count) {
        catalog.delete(&shape.key(number));
    }
    while catalog.tidy() {}
    // The pool's own table is there for any number of records.
    let left = (heap::live() - before).saturating_sub(64 * 1024);
    let each = |bytes: usize| bytes as f64 / count as f64;
    Cost { records, each: each(full), allowed: each(sum), left: each(left), ..Cost::default() }
}

/// Fills a catalog of `count` records anew again and again.
pub fn churn(shape: &Shape, count: usize, first: usize, turns: usize) -> Cost {
    let before = heap::live();
    let (mut catalog, mut revision, mut cost) = (Catalog::default(), 0, Cost::default());
    for turn in 0..turns {
        for number in 0..count {
            revision += 1;
            let new = turn * count + number;
            let _ = catalog.put(&shape.key(new), shape.value(new).as_bytes(), shape.lease(new), revision);
            if turn > 0 {
                catalog.delete(&shape.key(new - count));
            }
        }
        cost.last = heap::live().saturating_sub(before);
        if turn + 1 == first {
            cost.first = cost.last;
        }
    }
    cost
}
