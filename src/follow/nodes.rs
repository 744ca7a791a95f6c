//! The node records of the cluster, kept as they change: what `wharf nodes` and the status page show.
//!
//! They are few (one per host) and seldom change, so each change makes a new whole list. While the store is away the
//! last list stays, marked stale.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::few::{self, Kept, Known};
use crate::catalog::facade::api;
use crate::model::words::key::Prefix;
use crate::model::words::node::NodeRecord;
use crate::store::{Item, Store};

/// Keeps the list of nodes.
#[derive(Debug)]
pub struct Nodes {
    store: Arc<dyn Store>,
    prefix: String,
    shown: watch::Sender<Arc<api::Nodes>>,
}

impl Nodes {
    /// A keeper of the node records beside `prefix`, and where its list is read.
    pub fn new(store: Arc<dyn Store>, prefix: &Prefix) -> (Self, watch::Receiver<Arc<api::Nodes>>) {
        let nothing_yet = api::Nodes { stale: true, nodes: Vec::new() };
        let (shown, seen) = watch::channel(Arc::new(nothing_yet));
        (Self { store, prefix: prefix.nodes(), shown }, seen)
    }

    /// Follows the store until `stop`; whatever the store does, it tries again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let shown = self.shown;
        let show = |known: &Known<NodeRecord>, in_step: bool| {
            let nodes = known.all().map(|(_, record)| record.clone()).collect();
            few::send_changed(&shown, api::Nodes { stale: !in_step, nodes });
        };
        stop.run_until_cancelled(few::follow(self.store, self.prefix, show)).await;
        Ok(())
    }
}

impl Kept for NodeRecord {
    const NAME: &str = "node records";

    fn read(item: &Item) -> Result<Self, String> {
        Self::decode(&item.value).map_err(|reason| reason.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::timeout;

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
