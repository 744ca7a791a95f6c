//! The registrar against the embedded store: what serves is published, and only that.
#![allow(clippy::unwrap_used, missing_docs)]

mod harness;

use std::sync::Arc;

use harness::{Host, Setup, eventually, instance, named, standing};
use wharf::model::record::Record;
use wharf::model::standing::State;
use wharf::store::embedded::Embedded;
use wharf::store::{Condition, Store, Write};

fn setup() -> (Arc<dyn Store>, tempfile::TempDir) {
    (Arc::new(Embedded::new()), tempfile::tempdir().unwrap())
}

async fn put(store: &dyn Store, key: &str, value: &str) {
    let write = Write::Put { key: key.into(), value: value.to_owned().into(), lease: 0 };
    store.commit(&[], &[write]).await.unwrap();
}

const FIRST: &str = "/services/redis/core-01-redis-1-6379";
const SECOND: &str = "/services/redis/core-01-redis-2-6379";

#[tokio::test]
async fn what_serves_is_published_and_what_does_not_is_withdrawn() {
    let (store, directory) = setup();
    let host = Host::start(store, directory.path(), Setup::default());
    let (one, two) = (instance("redis", 1), instance("redis", 2));
    host.ready([one.clone(), two.clone()]);
    host.publishes(&[FIRST, SECOND]).await;
    host.stands(&one, standing(State::Down));
    host.publishes(&[SECOND]).await;
    host.stands(&one, standing(State::Saturated));
    host.publishes(&[FIRST, SECOND]).await;
    host.offer([two]);
    host.publishes(&[SECOND]).await;
}

#[tokio::test]
async fn a_key_deleted_or_spoiled_by_hand_comes_back() {
    let (store, directory) = setup();
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    store.commit(&[], &[Write::Delete(FIRST.into())]).await.unwrap();
    host.publishes(&[FIRST]).await;
    for spoiled in ["garbage", "10.9.9.9:1", r#"{"host":"10.9.9.9"}"#] {
        put(&*store, FIRST, spoiled).await;
        host.publishes(&[FIRST]).await;
    }
}

#[tokio::test]
async fn another_owners_key_is_left_alone_and_taken_over_when_free() {
    let (store, directory) = setup();
    let other = Record { host: "10.0.0.9".into(), owner: Some("other".into()), ..Record::default() };
    store
        .commit(
            &[Condition::Absent(FIRST.into())],
            &[Write::Put { key: FIRST.into(), value: other.encode().into(), lease: 0 }],
        )
        .await
        .unwrap();
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    eventually("a hashed key is published", || async { host.own_keys().await.len() == 1 }).await;
    assert!(host.own_keys().await[0].starts_with(&format!("{FIRST}-")));
    assert_eq!(host.records().await[FIRST], other);
    store.commit(&[], &[Write::Delete(FIRST.into())]).await.unwrap();
    host.publishes(&[FIRST]).await;
}

#[tokio::test]
async fn three_containers_with_one_id_are_all_published() {
    let (store, directory) = setup();
    let host = Host::start(store, directory.path(), Setup::default());
    host.ready((1..=3).map(|number| named("redis", number, "cache")));
    eventually("three keys stand", || async { host.own_keys().await.len() == 3 }).await;
    assert_eq!(host.own_keys().await[0], "/services/redis/cache");
    let ports: std::collections::BTreeSet<u16> = host.records().await.values().map(|record| record.port).collect();
    assert_eq!(ports.len(), 3);
    host.ready([named("redis", 3, "cache")]);
    host.publishes(&["/services/redis/cache"]).await;
}
