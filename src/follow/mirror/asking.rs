//! What the mirror asks the store about leases, and what it makes of the answers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Mirror, leases};
use crate::catalog::index::LeaseId;
use crate::store::{LeaseInfo, Reach, Store, StoreError, lease_as_told};

/// A lease, what the store said of it, and whether that is with its keys.
pub(super) type Asked = (LeaseId, Result<(LeaseInfo, bool), StoreError>);

impl Mirror {
    /// The lease to ask about now, if any may be.
    pub(super) fn next_lease(&mut self, now: Duration) -> Option<LeaseId> {
        if self.reach == Reach::Away { None } else { self.desk.next(now) }
    }

    /// Takes an answer in.
    pub(super) fn lease_answered(&mut self, (lease, answer): Asked) {
        let now = self.outlet.clock().now();
        match answer {
            Ok((info, with_keys)) => {
                self.desk.answered(lease, Some(info.left), now);
                let keys = with_keys.then_some(&*info.keys);
                self.fold.lease_lives(lease, leases::times(info.granted, info.left, now), keys);
            }
            Err(StoreError::NoLease(_)) => {
                self.desk.answered(lease, None, now);
                self.fold.lease_is_dead(lease);
            }
            Err(error) => {
                tracing::debug!(%error, lease, "lease not told");
                let doubtful = self.fold.holds().doubtful().contains(&lease);
                self.desk.unanswered(lease, doubtful, now);
                return;
            }
        }
        self.publish();
    }
}

/// Asks about a lease: for its keys too if records held depend on them.
pub(super) fn ask(store: Arc<dyn Store>, lease: LeaseId, doubtful: bool) -> BoxFuture<'static, Asked> {
    Box::pin(async move {
        let told = if doubtful {
            lease_as_told(&*store, lease).await
        } else {
            store.lease_times(lease).await.map(|info| (info, false))
        };
        (lease, told)
    })
}
