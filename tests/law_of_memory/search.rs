//! The search: shapes are changed a little or joined, and those that come nearest to the law go on.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::law::{self, Cost, FEWEST, MOST};
use crate::shape::{self, Shape};

/// How many shapes go on.
const KEPT: usize = 16;
/// How much work a look is, counted in labels, tags and attrs: the fewer a record has, the more of them are put.
const LOOK: usize = 4_000;
/// Looks of a search that is told no time, so that it does as much on a slow machine as on a fast one.
const SHORT: usize = 20;
/// The worst are looked at with every number of records that the law speaks of, by a search of more than this time; by
/// a short one with so many times the work of a look.
const LONG: Duration = Duration::from_secs(300);
pub const AGAIN: usize = 4;
/// How often a long search says how far it is.
const SAY: Duration = Duration::from_secs(60);

/// Searches for so long, or takes [`SHORT`] looks.
pub fn run(seed: u64, time: Option<Duration>) {
    println!("  WHARF_SEED={seed}, {time:?}");
    let long = time.is_some_and(|time| time > LONG);
    let (begun, mut random) = (Instant::now(), StdRng::seed_from_u64(seed));
    let mut kept: Vec<(Cost, Shape)> = Vec::new();
    for (_, shape) in shape::known() {
        take(&mut kept, shape);
    }
    let (mut looked, mut said) = (0, begun);
    let mut worst: Option<(Cost, Shape)> = None;
    while time.map_or(looked < SHORT, |time| begun.elapsed() < time) {
        let parent = &kept[random.random_range(0..kept.len())].1;
        let mut shape = parent.cross(&kept[random.random_range(0..kept.len())].1, &mut random);
        for _ in 0..random.random_range(1..5) {
            shape.mutate(&mut random);
        }
        shape.fit();
        looked += 1;
        let found = take(&mut kept, shape);
        if long && (found || said.elapsed() > SAY) {
            weigh(&kept[0].1, MOST, &mut worst);
        }
        if said.elapsed() > SAY {
            said = Instant::now();
            say(begun, looked, worst.as_ref());
        }
    }
    for (_, shape) in kept.iter().take(if long { KEPT } else { 2 }) {
        let count = if long { MOST } else { AGAIN * look(shape) };
        weigh(shape, count, &mut worst);
    }
    say(begun, looked, worst.as_ref());
}

/// Keeps a shape that is among the worst; whether it is the worst of all.
fn take(kept: &mut Vec<(Cost, Shape)>, shape: Shape) -> bool {
    if kept.iter().any(|(_, known)| *known == shape) {
        return false;
    }
    let count = look(&shape);
    let cost = law::cost(&shape, count / 2..=count);
    let place = kept.partition_point(|(other, _)| other.ratio() >= cost.ratio());
    kept.insert(place, (cost, shape));
    kept.truncate(KEPT);
    place == 0
}

pub fn look(shape: &Shape) -> usize {
    (LOOK / shape.parts()).clamp(100, 1_000)
}

/// Looks at a shape with more records.
fn weigh(shape: &Shape, count: usize, worst: &mut Option<(Cost, Shape)>) {
    if worst.as_ref().is_some_and(|(_, known)| known == shape) {
        return;
    }
    let cost = law::cost(shape, FEWEST.min(count / 2)..=count);
    cost.keeps_the_law(shape);
    if worst.as_ref().is_none_or(|(known, _)| known.ratio() < cost.ratio()) {
        *worst = Some((cost, shape.clone()));
    }
}

fn say(begun: Instant, looked: usize, worst: Option<&(Cost, Shape)>) {
    if let Some((cost, shape)) = worst {
        println!("  after {} s and {looked} shapes the worst is {cost}: {shape}", begun.elapsed().as_secs());
    }
}
