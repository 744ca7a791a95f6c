//! A store that is restored or replaced between a reader's list and its watch: whoever reads it reads afresh. A watch
//! of the new history from the old one's revision would be silent until the new one has grown as old.
#![allow(clippy::unwrap_used, missing_docs)]

mod faulty;
mod harness;

use std::sync::Arc;

use faulty::Faulty;
use harness::{Host, Setup, eventually, instance};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use wharf::follow::mirror::{self, Mirror};
use wharf::follow::nodes::Nodes;
use wharf::model::words::key::Prefix;
use wharf::model::words::node::NodeRecord;
use wharf::store::{Store, Write};

/// A store whose history is a hundred writes old, and which is replaced before anybody watches it.
async fn trapped() -> Arc<Faulty> {
    let store = Arc::new(Faulty::new(1));
    for number in 0..100 {
        put(&store, &format!("/elsewhere/{number}"), "old").await;
    }
    store.wipe_before_the_next_watch();
    store
}

async fn put(store: &Faulty, key: &str, value: &str) {
    let write = Write::Put { key: key.to_owned(), value: value.to_owned().into(), lease: 0 };
    store.inner().commit(&[], &[write]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_mirror_sees_what_the_new_store_says() {
    let store = trapped().await;
    let settings = mirror::Settings {
        prefixes: vec![Prefix::parse("/services").unwrap()],
        node: "core-01".into(),
        owner: "own".into(),
        lease_ttl: std::time::Duration::from_secs(30),
    };
    let (_overlay, overlaid) = tokio::sync::watch::channel(Arc::default());
    let (mirror, view) = Mirror::new(settings, store.clone(), overlaid, None, &mut Registry::default());
    let stop = CancellationToken::new();
    let running = tokio::spawn(mirror.run(stop.clone()));
    eventually("the store is replaced", || async { store.has_wiped() }).await;
    put(&store, "/services/redis/new", "10.0.0.1:6379").await;
    eventually("the new record is found", || async { view.load().get("/services/redis/new").is_some() }).await;

    // And one that is replaced while it is away, when no watch is there to be told.
    for number in 0..100 {
        put(&store, &format!("/services/old/{number}"), "10.0.0.1:80").await;
    }
    eventually("all of it is found", || async { view.load().counts().records == 101 }).await;
    store.set_away(true);
    eventually("the watch has ended", || async { view.load().is_stale() }).await;
    store.wipe();
    store.set_away(false);
    put(&store, "/services/redis/newer", "10.0.0.1:6379").await;
    eventually("the newer record is found", || async { view.load().get("/services/redis/newer").is_some() }).await;
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_list_of_nodes_sees_what_the_new_store_says() {
    let store = trapped().await;
    let (nodes, seen) = Nodes::new(store.clone(), &Prefix::parse("/services").unwrap());
    let stop = CancellationToken::new();
    let running = tokio::spawn(nodes.run(stop.clone()));
    eventually("the store is replaced", || async { store.has_wiped() }).await;
    let node = NodeRecord { node: "core-02".into(), ..NodeRecord::default() };
    put(&store, "/wharf/services/nodes/core-02/x", std::str::from_utf8(&node.encode()).unwrap()).await;
    eventually("the new node is seen", || async { seen.nodes.borrow().nodes.len() == 1 }).await;
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_registrar_sees_what_is_done_to_its_records_in_the_new_store() {
    let (store, directory) = (trapped().await, tempfile::tempdir().unwrap());
    let host = Host::start(store.clone(), directory.path(), Setup::default());
    let key = "/services/redis/core-01-redis-1-6379";
    host.ready([instance("redis", 1)]);
    host.publishes(&[key]).await;
    assert!(store.has_wiped());
    put(&store, key, "spoiled").await;
    host.publishes(&[key]).await;
    host.stop().await;
}
