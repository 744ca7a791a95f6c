//! When each container is to be looked at again: the next one is found without looking at the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::model::words::record::Text;

/// At most one time for each id.
#[derive(Debug, Default)]
pub(super) struct Timers {
    times: BTreeMap<Text, Instant>,
    order: BTreeSet<(Instant, Text)>,
}

impl Timers {
    /// The time of `id` is this one from now on, or none.
    pub(super) fn set(&mut self, id: &Text, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.times.insert(id.clone(), at),
            None => self.times.remove(id),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, id.clone()));
        }
        self.order.extend(at.map(|at| (at, id.clone())));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Those whose time has come, the earliest first.
    pub(super) fn over(&self, now: Instant) -> Vec<Text> {
        self.order.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone()).collect()
    }
}
