//! What of the host's probes each container has: those under way, and those of the last second. Who has most makes
//! room.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::schedule::Class;

/// First-readiness probes a second that a container may have before those of others go first: more than one port ever
/// makes, which is asked 40 times a second at most.
const MODEST: f64 = 50.0;

/// How much a container has had of what all share, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Had {
    Little,
    /// No more than an equal share.
    Share,
    Most,
}

/// Containers that are remembered beyond those with a probe to come.
const REMEMBERED: usize = 1_000;

/// Of all containers.
#[derive(Debug, Default)]
pub(super) struct Shares(HashMap<u64, Share>);

#[derive(Debug, Default)]
struct Share {
    first_in_flight: usize,
    steady_in_flight: usize,
    /// First-readiness probes, each counting less the longer it is over.
    used: f64,
    at: Option<Instant>,
}

impl Share {
    fn used(&self, now: Instant) -> f64 {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.used * (-passed.as_secs_f64()).exp()
    }

    fn in_flight(&mut self, class: Class) -> &mut usize {
        match class {
            Class::First { .. } => &mut self.first_in_flight,
            Class::Steady => &mut self.steady_in_flight,
        }
    }
}

impl Shares {
    /// Whether another probe of `class` may set out while so many more of its class may: none takes more than it
    /// leaves.
    pub(super) fn has_room(&self, of: u64, class: Class, free: usize) -> bool {
        let Some(share) = self.0.get(&of) else { return free > 0 };
        let own = if class == Class::Steady { share.steady_in_flight } else { share.first_in_flight };
        own < free
    }

    /// How much a container has had lately, where `rate` first-readiness probes a second are for so many containers.
    pub(super) fn had(&self, of: u64, now: Instant, rate: f64, containers: usize) -> Had {
        let share = rate / f64::from(u32::try_from(containers.max(1)).unwrap_or(u32::MAX));
        match self.0.get(&of).map_or(0.0, |own| own.used(now)) {
            used if used < MODEST => Had::Little,
            used if used < share => Had::Share,
            _ => Had::Most,
        }
    }

    pub(super) fn set_out(&mut self, of: u64, class: Class, now: Instant) {
        let share = self.0.entry(of).or_default();
        *share.in_flight(class) += 1;
        if let Class::First { .. } = class {
            (share.used, share.at) = (share.used(now) + 1.0, Some(now));
        }
    }

    pub(super) fn landed(&mut self, of: u64, class: Class) {
        if let Some(share) = self.0.get_mut(&of) {
            let in_flight = share.in_flight(class);
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    /// Forgets containers that have had nothing for a while, once there are many more than `known`.
    pub(super) fn forget(&mut self, now: Instant, known: usize) {
        if self.0.len() > 2 * known + REMEMBERED {
            self.0.retain(|_, share| share.first_in_flight + share.steady_in_flight > 0 || share.used(now) > 0.01);
        }
    }
}
