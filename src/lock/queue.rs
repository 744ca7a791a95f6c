//! A lock in the store: its queue, its certificate, the key that it is called by.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::model::steer::lock::certificate::Certificate;
use crate::model::steer::lock::queue::{Keys, Place, in_order};
use crate::store::etcd::Etcd;
use crate::store::{Event, Item, Revision, Store, StoreError};

/// Pause before what could not be watched is looked at again.
const AGAIN: Duration = Duration::from_millis(200);

/// A lock as it was at one look.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) line: Vec<Place>,
    pub(super) certificate: Option<(Certificate, Bytes, Revision)>,
    /// The key that it is called by, as somebody holds it.
    pub(super) held: Option<Item>,
    /// From here on a watch misses nothing.
    pub(super) revision: Revision,
}

/// The queue is looked at first: of one who is gone from it by then, the certificate is as it was left.
pub(super) async fn look(store: &Etcd, keys: &Keys) -> Result<Seen, StoreError> {
    let (places, revision) = store.queue(&keys.queue).await?;
    let mut asked = vec![keys.child.clone()];
    asked.extend(keys.held.clone());
    let (mut certificate, mut held) = (None, None);
    for item in store.get(&asked).await?.items {
        if item.key == keys.child {
            certificate = Some((Certificate::decode(&item.value), item.value, item.revision));
        } else {
            held = Some(item);
        }
    }
    Ok(Seen { line: in_order(keys, places), certificate, held, revision })
}

/// Returns when this key is gone since `from`, when that cannot be told, or after `most`: then it is time to look.
pub(super) async fn until_gone(store: &Etcd, key: &str, from: Revision, most: Duration) {
    let watching = async {
        let Ok(mut watch) = store.watch(key, from + 1).await else { return sleep(AGAIN).await };
        loop {
            let Ok(batch) = watch.next().await else { return sleep(AGAIN).await };
            let gone = |event: &Event| matches!(event, Event::Delete { key: gone, .. } if gone == key);
            if batch.events.iter().any(gone) {
                return;
            }
        }
    };
    // Nobody is told: whoever waits looks again.
    let _ = timeout(most, watching).await;
}
