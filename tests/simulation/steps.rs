//! What may happen, as data: a history is a seed and a list of steps, so that a failing one can be made shorter.

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub const HOSTS: usize = 3;
/// Containers that a host may run; the even ones all want the id `cache`.
pub const CONTAINERS: u16 = 4;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Nothing.
    Nothing,
    /// A container serves.
    Up {
        host: usize,
        number: u16,
    },
    /// It runs on and does not serve.
    Down {
        host: usize,
        number: u16,
    },
    /// It is removed.
    Gone {
        host: usize,
        number: u16,
    },
    /// Another one takes its place, under its name, and does not serve yet.
    Replaced {
        host: usize,
        number: u16,
    },
    /// SIGKILL of an agent.
    Kill {
        host: usize,
    },
    /// SIGTERM of an agent.
    Stop {
        host: usize,
    },
    /// It starts again; so many milliseconds later Docker has been listed.
    Start {
        host: usize,
        told: u64,
    },
    Drain {
        host: usize,
    },
    Undrain {
        host: usize,
    },
    /// The store stops answering.
    Hang,
    Thaw,
    /// A host cannot reach the store.
    Cut {
        host: usize,
    },
    /// A host's way to the store is slow and lossy.
    Slow {
        host: usize,
        loss: u32,
        slowest: u64,
    },
    /// It is well again.
    Heal {
        host: usize,
    },
    /// The store comes back empty.
    Wipe {
        same: bool,
    },
    BackUp,
    /// The store goes back to the last backup.
    Restore {
        same: bool,
    },
    /// A host's lease is ended by hand.
    Revoke {
        host: usize,
    },
    /// A leader that had hung for long comes back and ends every lease that it knew, one by one.
    EndLeases {
        /// The host whose lease it did not know, if that is one.
        but: usize,
    },
    /// One record is deleted or spoiled by hand.
    Tamper {
        pick: usize,
        spoil: bool,
    },
    /// Every record is deleted by hand, at once.
    Purge,
    /// Another program takes a key that is free, or lets go one of its own.
    Meddle {
        pick: usize,
    },
}

/// What happens, and how many milliseconds pass then.
#[derive(Clone, PartialEq)]
pub struct Step {
    pub what: What,
    pub wait: u64,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, then {} ms", self.what, self.wait)
    }
}

/// The history of a seed.
pub fn history(seed: u64) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut steps = Vec::new();
    while steps.len() < 18 {
        phrase(&mut random, 0, &mut steps);
    }
    steps
}

fn moment(random: &mut StdRng) -> u64 {
    match random.random_range(0..10) {
        0..4 => random.random_range(0..60),
        4..7 => random.random_range(60..600),
        7..9 => random.random_range(600..4_000),
        _ => random.random_range(4_000..12_000),
    }
}

/// Long enough, more often than not, for a lease to end.
fn while_away(random: &mut StdRng) -> u64 {
    match random.random_range(0..10) {
        0..3 => random.random_range(0..5_000),
        _ => random.random_range(5_000..15_000),
    }
}

fn phrase(random: &mut StdRng, depth: u32, steps: &mut Vec<Step>) {
    let host = random.random_range(0..HOSTS);
    let wait = moment(random);
    let mut tell = |what, wait| steps.push(Step { what, wait });
    match random.random_range(0..100) {
        0..34 => tell(change(random, host), wait),
        34..46 if depth < 2 => {
            let away = while_away(random);
            tell(What::Hang, away / 2);
            within(random, depth, steps);
            steps.push(Step { what: What::Thaw, wait: away / 2 });
            steps.push(Step { what: What::Thaw, wait });
        }
        46..54 if depth < 2 => {
            tell(What::Cut { host }, while_away(random));
            within(random, depth, steps);
            steps.push(Step { what: What::Heal { host }, wait });
        }
        54..68 if depth < 2 => {
            let away = if random.random_bool(0.7) { wait } else { while_away(random) };
            let end = if random.random_bool(0.5) { What::Kill { host } } else { What::Stop { host } };
            tell(end, away);
            within(random, depth, steps);
            steps.push(Step { what: What::Start { host, told: random.random_range(0..2_000) }, wait: moment(random) });
        }
        68..72 => tell(What::Wipe { same: random.random_bool(0.5) }, wait),
        72..77 => tell(What::BackUp, wait),
        77..82 => tell(What::Restore { same: random.random_bool(0.7) }, wait),
        82..84 => {
            let leases = What::EndLeases { but: random.random_range(0..=HOSTS) };
            tell(if random.random_bool(0.5) { What::Revoke { host } } else { leases }, wait);
        }
        84..88 => tell(What::Tamper { pick: random.random_range(0..16), spoil: random.random_bool(0.5) }, wait),
        88..90 => tell(What::Purge, wait),
        90..94 => tell(What::Meddle { pick: random.random_range(0..3) }, wait),
        94..96 => tell(What::Drain { host }, wait),
        96..98 => tell(What::Undrain { host }, wait),
        98.. => {
            tell(What::Slow { host, loss: random.random_range(0..12), slowest: random.random_range(20..400) }, wait);
        }
        _ => tell(What::Nothing, wait),
    }
}

fn within(random: &mut StdRng, depth: u32, steps: &mut Vec<Step>) {
    for _ in 0..random.random_range(0..3) {
        phrase(random, depth + 1, steps);
    }
}

fn change(random: &mut StdRng, host: usize) -> What {
    let number = random.random_range(1..=CONTAINERS);
    match random.random_range(0..10) {
        0..5 => What::Up { host, number },
        5..7 => What::Down { host, number },
        7..9 => What::Gone { host, number },
        _ => What::Replaced { host, number },
    }
}

/// The shortest history found that still fails: steps are taken out, many at a time and then one by one, and waits cut,
/// for as long as something fails.
pub fn shrink(steps: &[Step], fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut steps = steps.to_vec();
    let mut before = usize::MAX;
    while steps.len() < before {
        before = steps.len();
        let mut size = steps.len().div_ceil(2).max(1);
        loop {
            steps = without(steps, size, &fails);
            if size == 1 {
                break;
            }
            size = size.div_ceil(2);
        }
        steps = hurried(steps, &fails);
    }
    steps
}

fn without(mut steps: Vec<Step>, size: usize, fails: &impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut at = 0;
    while at < steps.len() {
        let end = (at + size).min(steps.len());
        let fewer = [&steps[..at], &steps[end..]].concat();
        if fails(&fewer) {
            steps = fewer;
        } else {
            at = end;
        }
    }
    steps
}

/// Waits that do not matter go; with a step taken out, its wait may be what mattered, so they are also put together.
fn hurried(mut steps: Vec<Step>, fails: &impl Fn(&[Step]) -> bool) -> Vec<Step> {
    for at in 0..steps.len() {
        let wait = steps[at].wait;
        for less in [0, wait / 4, wait / 2, wait / 1_000 * 1_000] {
            let mut hurried = steps.clone();
            hurried[at].wait = less;
            if less < steps[at].wait && fails(&hurried) {
                steps = hurried;
                break;
            }
        }
        if let Some(merged) = merged(&steps, at)
            && fails(&merged)
        {
            return merged;
        }
    }
    steps
}

/// Without the step after `at`, whose wait `at` takes over.
fn merged(steps: &[Step], at: usize) -> Option<Vec<Step>> {
    let next = steps.get(at + 1)?.wait;
    let mut merged = steps.to_vec();
    merged.remove(at + 1);
    merged[at].wait += next;
    Some(merged)
}
