//! The node records of the cluster, kept as they change: what `wharf nodes` and the status page show.
//!
//! They are few (one per host) and seldom change, so each change makes a new whole list. While the store is away the
//! last list stays, marked stale.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::catalog::facade::api;
use crate::model::words::key::{self, Prefix};
use crate::model::words::node::NodeRecord;
use crate::store::{Event, Item, Revision, Store, StoreError, watch_since};

/// Pause before the store is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// A watch that is silent for longer is not in step any more.
const SILENCE: Duration = Duration::from_secs(10);
/// Node records kept; a cluster has fewer, and what else is written there is not ours.
const MAX_NODES: usize = 10_000;
/// So many bytes of their values; those of a large cluster are a tenth of it.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Keeps the list of nodes.
#[derive(Debug)]
pub struct Nodes {
    store: Arc<dyn Store>,
    prefix: String,
    known: Known,
    shown: watch::Sender<Arc<api::Nodes>>,
}

impl Nodes {
    /// A keeper of the node records beside `prefix`, and where its list is read.
    pub fn new(store: Arc<dyn Store>, prefix: &Prefix) -> (Self, watch::Receiver<Arc<api::Nodes>>) {
        let nothing_yet = api::Nodes { stale: true, nodes: Vec::new() };
        let (shown, seen) = watch::channel(Arc::new(nothing_yet));
        (Self { store, prefix: prefix.nodes(), known: Known::default(), shown }, seen)
    }

    /// Follows the store until `stop`; whatever the store does, it tries again.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        stop.clone().run_until_cancelled(self.follow()).await;
        Ok(())
    }

    async fn follow(&mut self) {
        loop {
            if let Err(error) = self.once().await {
                debug!(%error, "node records are not in step with the store");
                self.show(true);
            }
            sleep(AGAIN).await;
        }
    }

    /// Reads all, then takes in changes until the watch breaks.
    async fn once(&mut self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let generation = store.history().borrow().generation;
        let revision = self.read().await?;
        self.show(false);
        let prefix = self.prefix.clone();
        let mut watch = watch_since(&*store, generation, &prefix, revision + 1).await?;
        loop {
            let batch = timeout(SILENCE, watch.next()).await;
            let silent = |_| StoreError::Away { tried: "watching node records".into(), source: None };
            let batch = batch.map_err(silent)??;
            if batch.events.is_empty() {
                continue;
            }
            for event in batch.events {
                self.take(event);
            }
            self.show(false);
        }
    }

    async fn read(&mut self) -> Result<Revision, StoreError> {
        let mut known = Known::default();
        let (mut after, mut at) = (None::<String>, None);
        loop {
            let page = self.store.read(&self.prefix, after.as_deref(), at).await?;
            at = Some(page.revision);
            for item in page.items {
                after = Some(item.key.clone());
                known.put(item);
            }
            if !page.more || known.is_full() {
                self.known = known;
                return Ok(page.revision);
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Put(item) => self.known.put(item),
            Event::Delete { key, .. } => self.known.remove(&key),
        }
    }

    fn show(&self, stale: bool) {
        let list = api::Nodes { stale, nodes: self.known.records().cloned().collect() };
        self.shown.send_if_modified(|shown| {
            let differs = **shown != list;
            if differs {
                *shown = Arc::new(list);
            }
            differs
        });
    }
}

/// Node records by key, each with the size of its value; no more than so many.
#[derive(Debug, Default)]
struct Known {
    records: BTreeMap<String, (usize, NodeRecord)>,
    bytes: usize,
}

impl Known {
    fn put(&mut self, item: Item) {
        self.remove(&item.key);
        let size = item.key.len() + item.value.len();
        match NodeRecord::decode(&item.value) {
            Ok(record) if self.records.len() < MAX_NODES && self.bytes + size <= MAX_BYTES => {
                self.bytes += size;
                self.records.insert(item.key, (size, record));
            }
            Ok(_) => debug!(key = ?key::shown(&item.key), "more node records than are kept: left out"),
            Err(reason) => warn!(key = ?key::shown(&item.key), %reason, "a node record cannot be read and is left out"),
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some((size, _)) = self.records.remove(key) {
            self.bytes -= size;
        }
    }

    fn is_full(&self) -> bool {
        self.records.len() >= MAX_NODES
    }

    fn records(&self) -> impl Iterator<Item = &NodeRecord> {
        self.records.values().map(|(_, record)| record)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::Write;
    use crate::store::embedded::Embedded;

    fn record(node: &str) -> Bytes {
        NodeRecord { node: node.into(), ..NodeRecord::default() }.encode().into()
    }

    async fn write(store: &Embedded, writes: &[Write]) {
        store.commit(&[], writes).await.expect("it takes writes");
    }

    fn put(key: &str, value: Bytes) -> Write {
        Write::Put { key: key.into(), value, lease: 0 }
    }

    async fn until(seen: &mut watch::Receiver<Arc<api::Nodes>>, names: &[&str]) {
        let shown = |list: &Arc<api::Nodes>| {
            !list.stale && list.nodes.iter().map(|node| &*node.node).collect::<Vec<_>>() == names
        };
        timeout(Duration::from_secs(10), seen.wait_for(shown)).await.expect("shown in time").expect("it runs");
    }

    #[test]
    fn no_more_node_records_are_kept_than_so_many() {
        let item = |number: usize, size: usize| {
            let record = NodeRecord { node: "n".repeat(size).into(), ..NodeRecord::default() };
            Item {
                key: format!("/wharf/services/nodes/{number}/1"),
                value: record.encode().into(),
                lease: 0,
                revision: 1,
            }
        };
        let mut known = Known::default();
        (0..MAX_NODES + 10).for_each(|number| known.put(item(number, 10)));
        assert_eq!(known.records().count(), MAX_NODES);
        (0..MAX_NODES).for_each(|number| known.remove(&item(number, 0).key));
        assert_eq!((known.records().count(), known.bytes), (0, 0));
        (0..500).for_each(|number| known.put(item(number, 60_000)));
        assert!(known.bytes <= MAX_BYTES && known.records().count() < 300);
        known.put(item(1, 10));
        assert!(known.records().any(|record| record.node.len() == 10), "a change of one of them is taken");
    }

    #[tokio::test]
    async fn nodes_come_change_and_go_and_a_bad_one_costs_itself() {
        let store = Embedded::new();
        let prefix = Prefix::parse("/services").expect("a prefix");
        write(&store, &[put("/wharf/services/nodes/a/1", record("a")), put("/wharf/services/nodes/x/1", "{".into())])
            .await;
        let (nodes, mut seen) = Nodes::new(Arc::new(store.clone()), &prefix);
        assert!(seen.borrow().stale);
        let stop = CancellationToken::new();
        let running = tokio::spawn(nodes.run(stop.clone()));
        until(&mut seen, &["a"]).await;
        write(&store, &[put("/wharf/services/nodes/b/2", record("b")), put("/services/redis/b", "b:1".into())]).await;
        until(&mut seen, &["a", "b"]).await;
        write(&store, &[Write::Delete("/wharf/services/nodes/a/1".into())]).await;
        until(&mut seen, &["b"]).await;
        stop.cancel();
        running.await.expect("no panic").expect("no error");
    }
}
