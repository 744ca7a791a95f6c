//! What hands and other programs do to the store, and whether a history may go back so that every agent can tell.

use wharf::model::words::record::Record;
use wharf::store::{Commit, Condition, Item, Store, Write};

use super::{LONG, WELL, World};
use crate::steps::HOSTS;
use crate::witness::{Place, place};

/// While the store hangs, nothing is done to it by hand.
impl World {
    /// Whether the history is so much longer than one that ends at `revision` that every agent will notice.
    pub(super) fn is_long(&self, revision: i64) -> bool {
        let reached = self.cluster.now().links.iter().all(|link| *link == WELL);
        let newest = self.agents().map(|(_, agent)| agent.view.load().revision()).min();
        reached && newest.is_none_or(|newest| newest >= revision + LONG)
    }

    /// Whether no agent is of a longer history than the store's. One that is could not tell the store's from its own,
    /// once that is as long: by section 6 it goes by "another cluster id, or a revision below ours".
    pub(super) async fn all_have_noticed(&self) -> bool {
        let revision = crate::cluster::revision(&self.cluster.store()).await;
        self.agents().all(|(_, agent)| agent.view.load().revision() <= revision)
    }

    pub(super) async fn items(&self) -> Vec<Item> {
        self.cluster.store().read("/services/", None, None).await.unwrap().items
    }

    pub(super) async fn published(&self) -> Vec<(Item, Place, Record)> {
        let decoded = |item: Item| {
            let record = Record::decode(&item.value).ok()?;
            Some((item, place(&record)?, record))
        };
        self.items().await.into_iter().filter_map(decoded).collect()
    }

    async fn by_hand(&self, conditions: &[Condition], writes: &[Write]) -> bool {
        matches!(self.cluster.store().commit(conditions, writes).await, Ok(Commit::Done(_)))
    }

    /// Ends a host's lease; whether it had one.
    pub(super) async fn revoke(&self, host: usize) -> bool {
        let Some(agent) = self.machines[host].agent.as_ref().filter(|_| !self.cluster.now().hung) else { return false };
        let lease = agent.host.outputs.local.borrow().lease;
        let ended = self.cluster.store().revoke(lease).await.is_ok();
        if ended {
            self.witness.ended(lease);
            self.witness.revoked(host);
        }
        ended
    }

    pub(super) async fn end_leases(&self, but: usize) {
        let published = self.published().await;
        let mut ended = Vec::new();
        for host in (0..HOSTS).filter(|host| *host != but) {
            let had = published.iter().any(|(_, place, _)| place.0 == host);
            if self.revoke(host).await && had {
                ended.push(host);
            }
        }
        self.witness.usurped(&ended);
    }

    pub(super) async fn tamper(&self, pick: usize, spoil: bool) {
        let published = self.published().await;
        let Some((item, place, _)) = published.get(pick % published.len().max(1)) else { return };
        if self.cluster.now().hung {
            return;
        }
        self.witness.tampered(*place);
        let key = item.key.clone();
        let write = if spoil { Write::Put { key, value: "spoiled".into(), lease: 0 } } else { Write::Delete(key) };
        self.by_hand(&[], &[write]).await;
    }

    pub(super) async fn purge(&self) {
        let published = self.published().await;
        if published.is_empty() || self.cluster.now().hung {
            return;
        }
        let first = published[0].2.owner.clone();
        let several = published.iter().any(|(_, _, record)| record.owner != first);
        for (_, place, _) in published.iter().filter(|_| !several) {
            self.witness.tampered(*place);
        }
        self.witness.purged();
        let writes: Vec<Write> = published.iter().map(|(item, ..)| Write::Delete(item.key.clone())).collect();
        self.by_hand(&[], &writes).await;
    }

    pub(super) async fn meddle(&self, pick: usize) {
        if self.cluster.now().hung {
            return;
        }
        let keys = ["cache", "core-01-redis-1-6379", "core-02-redis-1-6379"];
        let key = format!("/services/redis/{}", keys[pick % keys.len()]);
        let record = Record { host: "10.7.7.7".into(), owner: Some("someone-else".into()), ..Record::default() };
        let value = bytes::Bytes::from(record.encode());
        let taken = Write::Put { key: key.clone(), value: value.clone(), lease: 0 };
        if !self.by_hand(&[Condition::Absent(key.clone())], &[taken]).await {
            self.by_hand(&[Condition::Holds(key.clone(), value)], &[Write::Delete(key)]).await;
        }
    }
}
