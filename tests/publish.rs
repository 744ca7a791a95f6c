//! The registrar against the embedded store: what serves is published, and only that.
#![allow(clippy::unwrap_used, missing_docs)]

mod faulty;
mod harness;

use std::sync::Arc;
use std::time::Duration;

use faulty::Faulty;
use harness::{Host, Setup, eventually, instance, items, named, records, role, standing, table};
use wharf::model::health::standing::{Standing, State};
use wharf::model::publish::local::Awaited;
use wharf::model::words::node::NodeRecord;
use wharf::model::words::record::{Record, Role};
use wharf::offer::registrar::OnStop;
use wharf::store::embedded::Embedded;
use wharf::store::{Condition, Event, Store, Write};

fn setup() -> (Arc<dyn Store>, tempfile::TempDir) {
    (Arc::new(Embedded::new()), tempfile::tempdir().unwrap())
}

async fn put(store: &dyn Store, key: &str, value: &str) {
    let write = Write::Put { key: key.into(), value: value.to_owned().into(), lease: 0 };
    store.commit(&[], &[write]).await.unwrap();
}

const FIRST: &str = "/services/redis/core-01-redis-1-6379";
const SECOND: &str = "/services/redis/core-01-redis-2-6379";

#[tokio::test(start_paused = true)]
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

#[tokio::test(start_paused = true)]
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

#[tokio::test(start_paused = true)]
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

#[tokio::test(start_paused = true)]
async fn a_key_whose_label_is_cut_for_its_hash_is_left_alone_and_taken_over_too() {
    let (store, directory) = setup();
    let long = "abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-abcdefghi";
    let other = String::from_utf8(Record { owner: Some("other".into()), ..Record::default() }.encode()).unwrap();
    let plain = format!("/services/redis/{long}");
    put(&*store, &plain, &other).await;
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([named("redis", 1, long)]);
    eventually("a hashed key is published", || async { host.own_keys().await.len() == 1 }).await;
    let first = host.own_keys().await.remove(0);
    assert!(first.starts_with("/services/redis/abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-"), "{first}");

    // Another owner has that one as well, put over ours or there before we look.
    put(&*store, &first, &other).await;
    eventually("another hashed key is published", || async { host.own_keys().await.len() == 1 }).await;
    let second = host.own_keys().await.remove(0);
    host.kill().await;
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([named("redis", 1, long)]);
    eventually("it is taken over", || async { host.outputs.local.borrow().instances.iter().any(|it| it.published) })
        .await;
    host.publishes(&[&second]).await;
    store.commit(&[], &[Write::Delete(second.clone())]).await.unwrap();
    host.publishes(&[&second]).await;

    store.commit(&[], &[Write::Delete(plain.clone())]).await.unwrap();
    host.publishes(&[&plain]).await;
}

#[tokio::test(start_paused = true)]
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

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_before_docker_has_been_listed() {
    let (store, directory) = setup();
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([instance("redis", 1), instance("redis", 2)]);
    host.publishes(&[FIRST, SECOND]).await;
    host.kill().await;
    let host = Host::start(store, directory.path(), Setup::default());
    eventually("the session is taken over", || async { host.outputs.adopted.borrow().len() == 2 }).await;
    host.publishes(&[FIRST, SECOND]).await;
    host.offer([instance("redis", 2)]);
    host.publishes(&[SECOND]).await;
}

#[tokio::test(start_paused = true)]
async fn tables_of_the_file_are_shown_without_docker_while_the_store_is_away() {
    let (store, directory) = (Arc::new(Faulty::new(1)), tempfile::tempdir().unwrap());
    store.set_away(true);
    let host = Host::start(store.clone(), directory.path(), Setup::default());
    let (one, two) = (table("redis", 1), table("redis", 2));
    host.stands(&one, standing(State::Ready));
    host.sees([one.clone(), two.clone()]);
    let shown = async |count: usize, partial: bool| {
        eventually(&format!("{count} are shown"), || async {
            let overlay = host.outputs.overlay.borrow().clone();
            overlay.active && overlay.partial == partial && overlay.records.len() == count
        })
        .await;
    };
    shown(1, true).await;
    host.stands(&two, standing(State::Ready));
    shown(2, true).await;
    host.offer([two]);
    shown(1, false).await;
}

#[tokio::test(start_paused = true)]
async fn an_adopted_record_keeps_its_since_and_role_until_a_probe_speaks() {
    let (store, directory) = setup();
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    let one = instance("redis", 1);
    host.ready([one.clone()]);
    host.stands(&one, role(Role::Primary));
    host.publishes(&[FIRST]).await;
    eventually("it is primary", || async { host.records().await[FIRST].role == Some(Role::Primary) }).await;
    let before = host.records().await;
    host.kill().await;
    let host = Host::start(store, directory.path(), Setup::default());
    host.offer([one.clone()]);
    host.stands(&one, standing(State::Starting));
    eventually("it is adopted", || async { host.outputs.local.borrow().instances.iter().any(|it| it.published) }).await;
    assert_eq!(host.records().await, before);
    assert_eq!(host.outputs.adopted.borrow().get(&one).unwrap().role, Some(Role::Primary));
    host.stands(&one, standing(State::Down));
    host.publishes(&[]).await;
    assert!(host.outputs.adopted.borrow().is_empty());
    // Adoption is over: what starts now is not ready.
    host.stands(&one, standing(State::Starting));
    eventually("it starts", || async { host.outputs.local.borrow().instances[0].state == State::Starting }).await;
    host.publishes(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn since_outlives_a_change_of_role_or_load_and_no_break() {
    let (store, directory) = setup();
    let host = Host::start(store, directory.path(), Setup::default());
    let one = instance("redis", 1);
    let at = |second: u64| std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    let since = async || host.records().await[FIRST].since.clone().unwrap();
    host.ready([one.clone()]);
    host.publishes(&[FIRST]).await;
    let first = since().await;
    host.stands(&one, role(Role::Replica));
    eventually("it is a replica", || async { host.records().await[FIRST].role == Some(Role::Replica) }).await;
    host.stands(&one, Standing { role: Some(Role::Replica), ..standing(State::Saturated) });
    eventually("it is saturated", || async { host.outputs.local.borrow().instances[0].state == State::Saturated })
        .await;
    assert_eq!(since().await, first);
    host.stands(&one, standing(State::Down));
    host.publishes(&[]).await;
    host.stands(&one, Standing { since: at(1_800_000_000), ..standing(State::Ready) });
    host.publishes(&[FIRST]).await;
    assert_eq!(&*since().await, "2027-01-15T08:00:00Z");
    // A break that was over before anybody looked is told by the standing alone.
    host.stands(&one, Standing { since: at(1_900_000_000), ..standing(State::Ready) });
    eventually("it is a new time", || async { &*since().await == "2030-03-17T17:46:40Z" }).await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_stays_drained_through_restarts_and_comes_back_when_told() {
    let (store, directory) = setup();
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_007);
    host.drain.drain(now).unwrap();
    host.publishes(&[]).await;
    let setup = || Setup { boot: "another", ..Setup::default() };
    host.stop().await;
    let host = Host::start(store, directory.path(), setup());
    host.ready([instance("redis", 1)]);
    eventually("it is shown drained, with its age", || async {
        let local = host.outputs.local.borrow().clone();
        local.drained == Some(now) && local.instances.iter().all(|it| it.state == State::Drained)
    })
    .await;
    host.publishes(&[]).await;
    eventually("the node record says so", || async { node_record(&host).await.drained.is_some() }).await;
    host.drain.undrain().unwrap();
    host.publishes(&[FIRST]).await;
}

#[tokio::test(start_paused = true)]
async fn a_hosts_shutdown_withdraws_and_is_not_remembered() {
    let (store, directory) = setup();
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    host.drain.shut_down(std::time::SystemTime::UNIX_EPOCH);
    let awaits = |host: &Host| host.outputs.local.borrow().awaits();
    eventually("nothing is waited for", || async { awaits(&host).is_none() }).await;
    assert!(host.own_keys().await.is_empty(), "then the store has nothing either");
    host.stop().await;
    let host = Host::start(store, directory.path(), Setup { boot: "b2", ..Setup::default() });
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    assert_eq!(host.outputs.local.borrow().drained, None);
    host.drain.shut_down(std::time::SystemTime::UNIX_EPOCH);
    host.publishes(&[]).await;
    host.drain.stay_up();
    host.publishes(&[FIRST]).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_withdraws_deletes_its_records_before_its_lease_ends() {
    let (store, directory) = setup();
    let setup = Setup { on_stop: OnStop::Withdraw, ..Setup::default() };
    let host = Host::start(Arc::clone(&store), directory.path(), setup);
    host.ready([instance("redis", 1), instance("redis", 2)]);
    host.publishes(&[FIRST, SECOND]).await;
    eventually("its node record stands", || async { !items(&*store, "/wharf").await.is_empty() }).await;
    host.stop().await;
    let mut watch = store.watch("/", 1).await.unwrap();
    let mut deleted = std::collections::BTreeMap::new();
    while deleted.len() < 3 {
        for event in watch.next().await.unwrap().events {
            if let Event::Delete { key, revision } = event {
                deleted.insert(key, revision);
            }
        }
    }
    let with_the_lease = deleted.iter().find(|(key, _)| key.starts_with("/wharf")).unwrap().1;
    assert!(deleted[FIRST] < *with_the_lease && deleted[SECOND] < *with_the_lease, "{deleted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_never_read_is_no_withdrawal() {
    let (store, directory) = (Arc::new(Faulty::new(1)), tempfile::tempdir().unwrap());
    store.set_away(true);
    let host = Host::start(store.clone(), directory.path(), Setup::default());
    host.ready([]);
    host.drain.shut_down(std::time::SystemTime::UNIX_EPOCH);
    eventually("it is shown", || async { host.outputs.local.borrow().drained.is_some() }).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(host.outputs.local.borrow().awaits(), Some(Awaited::Store));
}

#[tokio::test(start_paused = true)]
async fn two_agents_with_one_node_name_publish_everything() {
    let (store, directory) = setup();
    let other = tempfile::tempdir().unwrap();
    let one = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    one.ready([named("redis", 1, "cache")]);
    one.publishes(&["/services/redis/cache"]).await;
    let two = Host::start(store, other.path(), Setup::default());
    two.ready([named("redis", 2, "cache")]);
    eventually("the second has a key of its own", || async { two.own_keys().await.len() == 1 }).await;
    one.publishes(&["/services/redis/cache"]).await;
    assert_eq!(one.records().await.len(), 2);
    one.offer([]);
    two.publishes(&["/services/redis/cache"]).await;
    one.ready([named("redis", 1, "cache")]);
    eventually("the first stands aside now", || async { one.own_keys().await.len() == 1 }).await;
    two.publishes(&["/services/redis/cache"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cloned_image_does_not_speak_as_its_original() {
    let (store, directory) = setup();
    let original = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    original.ready([instance("redis", 1)]);
    original.publishes(&[FIRST]).await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(directory.path().join("state.json"), copy.path().join("state.json")).unwrap();
    let clone = Host::start(Arc::clone(&store), copy.path(), Setup { machine: "m2", ..Setup::default() });
    assert_ne!(clone.owner, original.owner);
    clone.ready([instance("redis", 1)]);
    eventually("the clone has a key of its own", || async { clone.own_keys().await.len() == 1 }).await;
    original.publishes(&[FIRST]).await;
}

#[tokio::test(start_paused = true)]
async fn a_reinstalled_host_meets_its_own_old_keys_and_takes_over() {
    let (store, directory) = setup();
    let old = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    old.ready([instance("redis", 1)]);
    old.publishes(&[FIRST]).await;
    old.kill().await;
    let fresh = tempfile::tempdir().unwrap();
    let host = Host::start(store, fresh.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    eventually("published beside the old key", || async { host.own_keys().await.len() == 1 }).await;
    // The old lease ends, and the plain key is free.
    host.publishes(&[FIRST]).await;
    assert_eq!(host.records().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_prefix_takes_the_records_along_and_ends_the_old_lease() {
    let (store, directory) = setup();
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    let owner = host.owner.clone();
    host.stop().await;
    let host = Host::start(Arc::clone(&store), directory.path(), Setup { prefix: "/other", ..Setup::default() });
    assert_eq!(host.owner, owner);
    host.offer([instance("redis", 1)]);
    host.publishes(&["/other/redis/core-01-redis-1-6379"]).await;
    eventually("the old records are gone", || async { records(&*store, "/services").await.is_empty() }).await;
}

#[tokio::test(start_paused = true)]
async fn leftovers_under_the_prefix_are_found_and_others_are_not_touched() {
    let (store, directory) = setup();
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    let owner = host.owner.clone();
    host.stop().await;
    // On no lease at all, and known to no state file.
    let leftover = Record { host: "10.0.0.1".into(), owner: Some((*owner).into()), ..Record::default() };
    put(&*store, "/services/old/left-over", std::str::from_utf8(&leftover.encode()).unwrap()).await;
    for (key, value) in [("/services/old/other", r#"{"host":"h","owner":"x"}"#), ("/services/old/plain", "h:1")] {
        put(&*store, key, value).await;
    }
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    eventually("the leftover is gone", || async {
        let keys: Vec<String> = items(&*store, "/services/old").await.into_iter().map(|item| item.key).collect();
        keys == ["/services/old/other", "/services/old/plain"]
    })
    .await;
    host.publishes(&[FIRST]).await;
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_no_reason_to_rewrite() {
    let (store, directory) = setup();
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    let item = items(&*store, "/services").await.remove(0);
    let mut value: serde_json::Value = serde_json::from_slice(&item.value).unwrap();
    value["newer"] = serde_json::json!({"build": 2});
    let newer = Write::Put { key: FIRST.into(), value: value.to_string().into(), lease: item.lease };
    store.commit(&[], &[newer]).await.unwrap();
    let revision = items(&*store, "/services").await[0].revision;
    host.ready([instance("redis", 1), instance("redis", 2)]);
    host.publishes(&[FIRST, SECOND]).await;
    assert_eq!(items(&*store, "/services").await[0].revision, revision);
}

#[tokio::test(start_paused = true)]
async fn a_record_too_large_is_not_published_and_says_why() {
    let (store, directory) = setup();
    let host = Host::start(store, directory.path(), Setup::default());
    let mut large = instance("redis", 1);
    large.attrs = [("text".into(), "x".repeat(9_000).as_str().into())].into();
    host.ready([large, instance("redis", 2)]);
    host.publishes(&[SECOND]).await;
    let local = host.outputs.local.borrow().clone();
    assert!(local.instances[0].error.as_deref().unwrap().contains("8192"), "{local:?}");
    assert!(!local.instances[0].published && local.instances[1].published);
}

#[tokio::test(start_paused = true)]
async fn without_a_writable_state_directory_records_are_withdrawn_at_stop() {
    let (store, directory) = setup();
    let file = directory.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let host = Host::start(Arc::clone(&store), &file.join("below"), Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    host.stop().await;
    assert!(items(&*store, "/services").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_node_record_counts_and_names_what_is_not_ready() {
    let (store, directory) = setup();
    let host = Host::start(store, directory.path(), Setup::default());
    let (one, two) = (instance("redis", 1), instance("redis", 2));
    host.ready([one, two.clone()]);
    host.stands(&two, Standing { error: Some("connection refused".into()), ..standing(State::Down) });
    host.publishes(&[FIRST]).await;
    eventually("it tells", || async {
        let node = node_record(&host).await;
        let counts = (node.states.get("ready").copied(), node.states.get("down").copied());
        counts == (Some(1), Some(1)) && node.waiting.len() == 1
    })
    .await;
    let node = node_record(&host).await;
    assert_eq!((&*node.node, &*node.owner), ("core-01", &*host.owner));
    assert_eq!(node.waiting[0].reason.as_deref(), Some("connection refused"));
}

#[tokio::test(start_paused = true)]
async fn the_node_record_follows_the_advertised_address() {
    let (store, directory) = setup();
    let host = Host::start(store, directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    let at = |address: &str| vec![address.parse::<std::net::IpAddr>().unwrap()];
    eventually("it names the address", || async { node_record(&host).await.addresses == at("10.0.0.1") }).await;
    host.moves("10.0.0.2");
    eventually("it names the new one", || async { node_record(&host).await.addresses == at("10.0.0.2") }).await;
}

async fn node_record(host: &Host) -> NodeRecord {
    let items = items(&*host.store, "/wharf/services/nodes/core-01").await;
    items.first().and_then(|item| NodeRecord::decode(&item.value).ok()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_node_record_deleted_or_spoiled_by_hand_is_back_within_a_second() {
    let (store, directory) = setup();
    let host = Host::start(Arc::clone(&store), directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    let tells = async || node_record(&host).await.states.get("ready").copied() == Some(1);
    eventually("the node record stands", tells).await;
    let key = items(&*store, "/wharf/services/nodes/core-01").await.remove(0).key;
    let bad = || NodeRecord { node: "core-01".into(), ..NodeRecord::default() }.encode().into();
    let spoils = [
        Write::Delete(key.clone()),
        Write::Put { key: key.clone(), value: "garbage".into(), lease: 0 },
        Write::Put { key: key.clone(), value: bad(), lease: 0 },
    ];
    for spoil in spoils {
        // Also right after it was written, when a change of ours would have to wait.
        for pause in [Duration::ZERO, Duration::from_secs(60)] {
            tokio::time::sleep(pause).await;
            store.commit(&[], std::slice::from_ref(&spoil)).await.unwrap();
            assert!(!tells().await);
            let spoiled = tokio::time::Instant::now();
            eventually("it is whole again", tells).await;
            assert!(spoiled.elapsed() < Duration::from_secs(1), "{:?} after {spoil:?}", spoiled.elapsed());
        }
    }
    let revision = store.get(&[]).await.unwrap().revision;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(store.get(&[]).await.unwrap().revision, revision, "and then nothing is written");
}

#[tokio::test(start_paused = true)]
async fn a_leftover_that_no_watch_tells_is_gone_within_the_hour_and_others_are_not_touched() {
    let (store, directory) = (Arc::new(Faulty::new(1)), tempfile::tempdir().unwrap());
    let host = Host::start(store.clone(), directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Watches opened from now on leave these out: a stand-in for whatever a watch may miss.
    store.hide("/services/old/");
    store.set_away(true);
    eventually("the store is seen to be away", || async { host.outputs.overlay.borrow().active }).await;
    store.set_away(false);
    eventually("the store is seen to be back", || async { !host.outputs.overlay.borrow().active }).await;
    let ours = Record { host: "10.0.0.1".into(), owner: Some((*host.owner).into()), ..Record::default() };
    let text = |record: &Record| String::from_utf8(record.encode()).unwrap();
    put(&store.inner(), "/services/old/ours", &text(&ours)).await;
    put(&store.inner(), "/services/old/theirs", &text(&Record { owner: Some("other".into()), ..ours.clone() })).await;
    put(&store.inner(), "/services/old/plain", "10.0.0.1:80").await;
    let old = async || -> Vec<String> {
        items(&store.inner(), "/services/old").await.into_iter().map(|item| item.key).collect()
    };
    tokio::time::sleep(Duration::from_secs(50 * 60)).await;
    assert_eq!(old().await.len(), 3);
    tokio::time::sleep(Duration::from_secs(11 * 60)).await;
    assert_eq!(old().await, ["/services/old/plain", "/services/old/theirs"]);
    host.publishes(&[FIRST]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_laid_over_is_let_go_with_the_revision_that_the_catalog_has_to_reach() {
    let (store, directory) = (Arc::new(Faulty::new(1)), tempfile::tempdir().unwrap());
    let host = Host::start(store.clone(), directory.path(), Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    let mut overlay = host.outputs.overlay.clone();
    // The echo of each write comes before its outcome.
    store.slow_down(Duration::from_millis(700));
    for ready in [[1, 2].as_slice(), &[1]] {
        let before = store.inner().get(&[]).await.unwrap().revision;
        host.ready(ready.iter().map(|number| instance("redis", *number)));
        overlay.wait_for(|overlay| overlay.active).await.unwrap();
        eventually("it is written", async || store.inner().get(&[]).await.unwrap().revision > before).await;
        // Anything else that happens in between makes the registrar look at what it knows.
        host.ready(ready.iter().map(|number| instance("redis", *number)));
        let written = overlay.wait_for(|overlay| !overlay.active).await.unwrap().written;
        assert_eq!(written, store.inner().get(&[]).await.unwrap().revision, "{ready:?}");
    }
}

/// A host that was stopped while its instance served, started again with etcd away and what the kept catalog has of it.
async fn started_away(store: &Arc<Faulty>, directory: &std::path::Path) -> Host {
    let host = Host::start(store.clone(), directory, Setup::default());
    host.ready([instance("redis", 1)]);
    host.publishes(&[FIRST]).await;
    let kept = host.records().await.into_values().collect();
    host.stop().await;
    store.set_away(true);
    let host = Host::start(store.clone(), directory, Setup { kept, ..Setup::default() });
    let one = instance("redis", 1);
    host.stands(&one, standing(State::Starting));
    host.offer([one]);
    host
}

#[tokio::test(start_paused = true)]
async fn what_the_kept_catalog_has_of_us_counts_as_ready_while_etcd_is_away_at_start() {
    let (store, directory) = (Arc::new(Faulty::new(1)), tempfile::tempdir().unwrap());
    let host = started_away(&store, directory.path()).await;
    let shown = async || host.outputs.overlay.borrow().records.contains_key(FIRST);
    eventually("it is answered before its probe has spoken", shown).await;
    store.set_away(false);
    host.publishes(&[FIRST]).await;
    host.stands(&instance("redis", 1), standing(State::Down));
    host.publishes(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_kept_catalog_has_of_us_is_over_once_the_store_says_that_its_lease_is_gone() {
    let (store, directory) = (Arc::new(Faulty::new(1)), tempfile::tempdir().unwrap());
    let host = started_away(&store, directory.path()).await;
    eventually("it is answered", || async { host.outputs.overlay.borrow().records.contains_key(FIRST) }).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    store.set_away(false);
    eventually("the store has been read", || async { host.outputs.local.borrow().lease != 0 }).await;
    eventually("nothing is adopted", || async { host.outputs.adopted.borrow().is_empty() }).await;
    assert_eq!(host.own_keys().await, Vec::<String>::new());
    host.stands(&instance("redis", 1), standing(State::Ready));
    host.publishes(&[FIRST]).await;
}
