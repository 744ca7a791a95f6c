//! What only a lock asks of etcd: a lease that its holder renews itself, as it must know when it did, and the keys of a
//! queue in the order in which they were created.

use std::time::Duration;

use etcd_client::{GetOptions, SortOrder, SortTarget};
use futures_util::FutureExt;

use super::{Etcd, LeaseId, Revision, StoreError, lease};
use crate::model::steer::lock::queue::Place;

/// The most that may wait in one queue.
const MOST: i64 = 2_000;

impl Etcd {
    /// A new lease, and the time granted, which may be more than was asked for. It ends unless it is renewed.
    pub async fn grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), StoreError> {
        self.core.settled().await?;
        lease::grant(&self.core, ttl).await
    }

    /// Keeps a lease alive once; `NoLease` when it is gone.
    pub async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        lease::renew(&self.core, lease).await
    }

    /// The keys below `prefix`, the oldest first, and the revision at which that was so (linearizable).
    pub async fn queue(&self, prefix: &str) -> Result<(Vec<Place>, Revision), StoreError> {
        let options = GetOptions::new().with_prefix().with_limit(MOST).with_sort(SortTarget::Create, SortOrder::Ascend);
        let before = self.core.chronicle.newest();
        let asked = prefix.to_owned();
        let answer = self.core.call("a look into the queue", move |mut client| {
            let (prefix, options) = (asked.clone(), options.clone());
            async move { client.get(prefix, Some(options)).await }.boxed()
        });
        let mut answer = answer.await?;
        self.core.told(answer.header(), before)?;
        if answer.more() {
            let tried = format!("a look at {prefix}");
            return Err(StoreError::Refused { tried, why: format!("more than {MOST} keys are there") });
        }
        let revision = answer.header().map_or(before, etcd_client::ResponseHeader::revision);
        let places = answer.take_kvs().into_iter().map(|kv| {
            let (created, lease) = (kv.create_revision(), kv.lease());
            let (key, value) = kv.into_key_value();
            Place::new(key, created, lease, value)
        });
        Ok((places.collect(), revision))
    }
}
