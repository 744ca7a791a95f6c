//! The law, and what a shape costs by it.

use std::fmt;
use std::ops::RangeInclusive;

use wharf::catalog::index::Catalog;

use crate::heap;
use crate::shape::Shape;

/// The law holds at every number of records from one to the other: its structures grow in steps.
pub const FEWEST: usize = 1_000;
pub const MOST: usize = 20_000;
/// What an empty catalog may go on to keep: the table of the pool of texts.
const POOL: usize = 64 * 1024;

/// What records of one shape cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Keys put when each cost most, and records taken in the end.
    pub count: usize,
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

    /// Takes what so many keys cost, when it is worse.
    fn or(&mut self, bytes: usize, allowed: usize, count: usize) {
        let now = Self { count, each: per(bytes, count), allowed: per(allowed, count), ..*self };
        if self.count == 0 || now.ratio() > self.ratio() {
            *self = now;
        }
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
        let Self { count, each, allowed, left, .. } = self;
        let ratio = self.ratio();
        write!(f, "{ratio:.3} of the law ({each:.0} of {allowed:.0} bytes at {count}, {left:.0} left when deleted)")
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

/// What records of a shape cost at the worst number of them within `counts`, or when most are deleted and the others
/// stay; and what is left when all are.
pub fn cost(shape: &Shape, counts: RangeInclusive<usize>) -> Cost {
    let before = heap::live();
    let order = shape.order(*counts.end());
    let (stay, go): (Vec<usize>, Vec<usize>) = order.iter().partition(|number| shape.stays(**number));
    let own = heap::live();
    let (mut catalog, mut worst) = (Catalog::default(), Cost::default());
    let (mut sum, mut staying) = (0, 0);
    for (count, number) in (1..).zip(&order) {
        let (key, value) = (shape.key(*number), shape.value(*number));
        let may = allowed(&key, &value);
        (sum, staying) = (sum + may, staying + if shape.stays(*number) { may } else { 0 });
        let _bad_ones_too = catalog.put(&key, value.as_bytes(), shape.lease(*number), count as i64);
        drop((key, value));
        if counts.contains(&count) {
            worst.or(heap::live() - own, sum, count);
        }
    }
    worst.records = catalog.counts().records;
    delete(&mut catalog, shape, &go);
    // The pool's own table is there for any number of records.
    worst.or(heap::live().saturating_sub(own + POOL), staying, stay.len());
    delete(&mut catalog, shape, &stay);
    drop((order, stay, go));
    worst.left = per(heap::live().saturating_sub(before + POOL), *counts.end());
    worst
}

fn delete(catalog: &mut Catalog, shape: &Shape, numbers: &[usize]) {
    numbers.iter().for_each(|number| catalog.delete(&shape.key(*number)));
    while catalog.tidy() {}
}

fn per(bytes: usize, count: usize) -> f64 {
    bytes as f64 / count as f64
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
