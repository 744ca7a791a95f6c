//! What has gone in the last moment, for the case that it turns out to have been taken wrongly.
//!
//! A leader of etcd that hung for longer than leases live may, when it comes back, have every lease ended that is over
//! by its own reckoning, though the others have renewed them all since. Each goes with a revision of its own, and looks
//! like the end of a lost node. What tells them apart is that this host's own lease turns out to be among them, or that
//! leases of several owners end together; then their owners live, most likely, and publish again in a moment.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::catalog::fold::hold::Claim;
use crate::catalog::index::Endpoint;

/// How long: one round of such leases, and the time in which this host learns that it has lost its own.
pub(super) const LATELY: Duration = Duration::from_secs(1);
/// So close to each other the leases of several owners end together.
const TOGETHER: Duration = Duration::from_millis(250);
/// In this time an owner that lives has published again what it lost.
pub(super) const PUBLISHED: Duration = Duration::from_millis(2_500);

/// Other owners' records that were deleted lately, each with when.
#[derive(Debug, Default)]
pub(super) struct Lately {
    gone: HashMap<Claim, (Duration, Endpoint)>,
    order: VecDeque<(Duration, Claim)>,
    /// When several went together last.
    together: Option<Duration>,
}

impl Lately {
    pub(super) fn gone(&mut self, claim: Claim, endpoint: Endpoint, now: Duration) {
        self.forget(now);
        self.order.push_back((now, claim.clone()));
        self.gone.insert(claim, (now, endpoint));
    }

    /// It has been put again since.
    pub(super) fn put(&mut self, claim: &Claim) {
        self.gone.remove(claim);
    }

    /// What has gone together with records of other owners, which is forgotten with that.
    pub(super) fn take_together(&mut self, now: Duration) -> Vec<Endpoint> {
        let close = |at: Duration| at + TOGETHER > now;
        let mut owners = self.order.iter().rev().take_while(|(at, _)| close(*at)).map(|(_, claim)| &claim.owner);
        let several = owners.next().is_some_and(|first| owners.any(|other| other != first));
        if !several && !self.together.is_some_and(close) {
            return Vec::new();
        }
        self.together = Some(now);
        let first = self.order.partition_point(|(at, _)| !close(*at));
        let claims: Vec<Claim> = self.order.drain(first..).map(|(_, claim)| claim).collect();
        claims.iter().filter_map(|claim| self.gone.remove(claim)).map(|(_, endpoint)| endpoint).collect()
    }

    /// Everything that has gone lately, which is forgotten with that.
    pub(super) fn take(&mut self, now: Duration) -> Vec<Endpoint> {
        self.forget(now);
        self.order.clear();
        self.gone.drain().map(|(_, (_, endpoint))| endpoint).collect()
    }

    /// Forgets what is no longer of interest.
    pub(super) fn forget(&mut self, now: Duration) {
        while let Some((at, claim)) = self.order.pop_front_if(|(at, _)| *at + LATELY <= now) {
            // It may have come and gone again since.
            if self.gone.get(&claim).is_some_and(|(then, _)| *then == at) {
                self.gone.remove(&claim);
            }
        }
    }

    /// When there is something to forget.
    pub(super) fn next(&self) -> Option<Duration> {
        self.order.front().map(|(at, _)| *at + LATELY)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gone.is_empty()
    }
}
