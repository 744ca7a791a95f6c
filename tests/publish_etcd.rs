//! The registrar against real etcd, and what happens to etcd: hung, dead, wiped, restored, without a quorum.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod etcd;
mod harness;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etcd::Cluster;
use harness::{Host, Setup, eventually, instance, items};
use tokio::time::Instant;
use wharf::model::offer::instance::Instance;
use wharf::model::words::node::NodeRecord;
use wharf::model::words::record::Record;
use wharf::offer::registrar::OnStop;
use wharf::store::{Event, Item, Store, StoreError, Write};

const TTL: Duration = Duration::from_secs(3);
/// For tests in which no lease may end: a busy machine takes its time over a restart.
const LONGER: Duration = Duration::from_secs(6);
/// Within so long of etcd's return everything is published.
const RETURN: Duration = Duration::from_secs(2);
const FIRST: &str = "/services/redis/core-01-redis-1-6379";

fn offered(count: u16) -> Vec<Instance> {
    (1..=count).map(|number| instance("redis", number)).collect()
}

fn start(cluster: &Cluster, directory: &Path) -> Host {
    Host::start(Arc::new(cluster.store(TTL)), directory, Setup::default())
}

fn longer() -> Setup {
    Setup { ttl: LONGER, ..Setup::default() }
}

async fn publishes(host: &Host, count: usize) {
    eventually(&format!("{count} records stand"), || async { host.own_keys().await.len() == count }).await;
}

/// Waits until a store of the test's own sees `count` records of `host`, none on the lease `old`, and says how long
/// that took.
async fn back(cluster: &Cluster, host: &Host, count: usize, old: i64) -> Duration {
    let begin = Instant::now();
    let store = cluster.store(TTL);
    let ours = |item: &Item| {
        let record = Record::decode(&item.value).ok();
        item.lease != old && record.is_some_and(|record| record.owner.as_deref() == Some(&*host.owner))
    };
    eventually(&format!("{count} records are back\n{}", cluster.logs()), || async {
        items(&store, "/services").await.iter().filter(|item| ours(item)).count() == count
    })
    .await;
    begin.elapsed()
}

/// Has etcd return from `fault` and wants everything published in time, under a new lease where `new_lease` says so. A
/// machine shared with other tests may be late: then once or twice more.
async fn returns_in_time(
    cluster: &mut Cluster,
    host: &Host,
    count: usize,
    new_lease: bool,
    mut fault: impl AsyncFnMut(&mut Cluster),
) {
    let mut took = Vec::new();
    for _ in 0..3 {
        let old = if new_lease { host.outputs.local.borrow().lease } else { -1 };
        fault(cluster).await;
        took.push(back(cluster, host, count, old).await);
        if took.last().is_some_and(|took| *took < RETURN) {
            println!("published again after {took:?}");
            return;
        }
    }
    panic!("never within {RETURN:?}: {took:?}");
}

/// The host goes on as before: what changes is published.
async fn still_works(host: &Host, count: u16) {
    host.ready(offered(count + 1));
    publishes(host, usize::from(count) + 1).await;
    host.ready(offered(1));
    host.publishes(&[FIRST]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_that_restarts_writes_nothing_and_no_key_blinks() {
    let (cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = Host::start(Arc::new(cluster.store(LONGER)), directory.path(), longer());
    host.ready(offered(5));
    publishes(&host, 5).await;
    eventually("the node record stands", || async {
        items(&*host.store, "/wharf").await.len() == 1 && host.outputs.local.borrow().unconfirmed == 0
    })
    .await;
    let before = items(&*host.store, "/services").await;
    let revision = cluster.revision();
    let mut watch = cluster.store(TTL).watch("/services/", revision + 1).await.unwrap();
    host.kill().await;

    let host = Host::start(Arc::new(cluster.store(LONGER)), directory.path(), longer());
    // Docker has not been listed, no probe has answered: for longer than the lease nothing goes.
    let deadline = Instant::now() + LONGER + Duration::from_secs(2);
    while let Ok(batch) = tokio::time::timeout_at(deadline, watch.next()).await {
        assert_eq!(batch.unwrap().events, Vec::<Event>::new());
    }
    assert_eq!(host.outputs.adopted.borrow().len(), 5);
    // Then Docker's list comes, and a probe's first answer later still: adopted instances are ready meanwhile.
    host.offer(offered(4));
    publishes(&host, 4).await;
    assert!(host.outputs.local.borrow().instances.iter().all(|instance| instance.state.serves()));
    host.ready(offered(4));
    eventually("adoption is over", || async { host.outputs.adopted.borrow().is_empty() }).await;
    let kept: Vec<_> = before.into_iter().filter(|item| !item.key.contains("redis-5")).collect();
    assert_eq!(items(&*host.store, "/services").await, kept, "nothing was written again");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_agent_keeps_its_records_for_the_rest_of_the_lease_or_withdraws_at_once() {
    let (cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = start(&cluster, directory.path());
    host.ready(offered(2));
    publishes(&host, 2).await;
    let store = Arc::clone(&host.store);
    host.stop().await;
    assert_eq!(items(&*store, "/services").await.len(), 2);
    eventually("the lease is over", || async { items(&*store, "/services").await.is_empty() }).await;

    let setup = Setup { on_stop: OnStop::Withdraw, ..Setup::default() };
    let host = Host::start(Arc::clone(&store), directory.path(), setup);
    host.ready(offered(2));
    publishes(&host, 2).await;
    host.stop().await;
    assert_eq!(items(&*store, "/services").await, Vec::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_lease_is_replaced() {
    let (mut cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = start(&cluster, directory.path());
    host.ready(offered(20));
    publishes(&host, 20).await;
    returns_in_time(&mut cluster, &host, 20, true, async |cluster| {
        let lease = host.outputs.local.borrow().lease;
        cluster.ctl(&["lease", "revoke", &format!("{lease:x}")]);
    })
    .await;
    still_works(&host, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_etcd_that_thaws_finds_everything_published_again() {
    let (mut cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = start(&cluster, directory.path());
    host.ready(offered(20));
    publishes(&host, 20).await;
    let mut shown = 20;
    returns_in_time(&mut cluster, &host, 19, true, async |cluster| {
        cluster.members[0].freeze();
        eventually("the overlay says what serves", || async { host.outputs.overlay.borrow().active }).await;
        // While it hangs, what this host shows goes on following what it offers.
        shown = if shown == 19 { 20 } else { 19 };
        host.ready(offered(shown));
        let follows = async || host.outputs.overlay.borrow().records.len() == usize::from(shown);
        eventually("the overlay follows", follows).await;
        host.ready(offered(19));
        tokio::time::sleep(TTL * 2).await;
        cluster.members[0].thaw();
    })
    .await;
    // Whatever was in the pipes of the frozen server, nothing blinks from now on.
    eventually("all is confirmed", || async { host.outputs.local.borrow().unconfirmed == 0 }).await;
    eventually("the overlay is lifted", || async { !host.outputs.overlay.borrow().active }).await;
    still_works(&host, 19).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_etcd_gets_everything_again() {
    let (mut cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = start(&cluster, directory.path());
    host.ready(offered(20));
    publishes(&host, 20).await;
    returns_in_time(&mut cluster, &host, 20, true, async |cluster| cluster.wipe()).await;
    still_works(&host, 20).await;
}

async fn restored(same_cluster: bool) {
    let (mut cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = start(&cluster, directory.path());
    host.ready(offered(3));
    publishes(&host, 3).await;
    let backup = cluster.snapshot();
    host.ready(offered(20).split_off(1));
    publishes(&host, 19).await;
    returns_in_time(&mut cluster, &host, 19, true, async |cluster| cluster.restore(&backup, same_cluster)).await;
    eventually("what the backup brought back is gone", || async {
        !host.own_keys().await.iter().any(|key| key == FIRST)
    })
    .await;
    still_works(&host, 19).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_restored_from_a_backup_gets_what_is_true_now() {
    restored(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_restored_as_another_cluster_gets_what_is_true_now() {
    restored(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_or_hung_member_costs_one_deadline_and_no_lease() {
    let (mut cluster, directory) = (Cluster::start(3), tempfile::tempdir().unwrap());
    let host = Host::start(Arc::new(cluster.store(LONGER)), directory.path(), longer());
    host.ready(offered(5));
    publishes(&host, 5).await;
    let lease = || host.outputs.local.borrow().lease;
    let published = async |number: u16| {
        host.ready(offered(number));
        eventually(&format!("{number} published though a member is out"), || async {
            host.outputs.local.borrow().instances.iter().filter(|it| it.published).count() == usize::from(number)
        })
        .await;
    };
    let mut number = 5;
    let leader = cluster.leader();
    for place in (0..3).filter(|place| *place != leader) {
        let before = lease();
        cluster.members[place].freeze();
        number += 1;
        published(number).await;
        tokio::time::sleep(LONGER).await;
        cluster.members[place].thaw();
        cluster.wait_healthy();
        assert_eq!(lease(), before, "a hung member costs no lease");
    }
    for place in 0..3 {
        let before = lease();
        cluster.members[place].kill();
        number += 1;
        published(number).await;
        cluster.run(place);
        cluster.wait_healthy();
        assert_eq!(lease(), before, "a dead member costs no lease");
    }
    // A leader that thaws may revoke what it believes to be over, though another leads by now (etcd before 3.4.31):
    // then all is published again.
    let (before, leader) = (lease(), cluster.leader());
    cluster.members[leader].freeze();
    number += 1;
    published(number).await;
    tokio::time::sleep(LONGER).await;
    assert_eq!(lease(), before, "a hung leader costs no lease while it hangs");
    cluster.members[leader].thaw();
    cluster.wait_healthy();
    publishes(&host, usize::from(number)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_that_comes_back_finds_everything_published() {
    let (mut cluster, directory) = (Cluster::start(3), tempfile::tempdir().unwrap());
    let host = start(&cluster, directory.path());
    host.ready(offered(5));
    publishes(&host, 5).await;
    returns_in_time(&mut cluster, &host, 6, false, async |cluster| {
        host.ready(offered(5));
        publishes(&host, 5).await;
        cluster.members[0].kill();
        cluster.members[1].kill();
        host.ready(offered(6));
        eventually("the overlay says what serves", || async { host.outputs.overlay.borrow().records.len() == 6 }).await;
        tokio::time::sleep(TTL * 2).await;
        assert!(host.outputs.overlay.borrow().active);
        cluster.run(0);
        cluster.run(1);
        cluster.wait_healthy();
    })
    .await;
    still_works(&host, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_history_is_read_afresh() {
    let (mut cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = start(&cluster, directory.path());
    host.ready(offered(2));
    publishes(&host, 2).await;
    // A watch of the store itself is told.
    let store = cluster.store(TTL);
    let revision = store.get(&[]).await.unwrap().revision;
    for _ in 0..3 {
        cluster.ctl(&["put", "/elsewhere", "x"]);
    }
    cluster.ctl(&["compact", &cluster.revision().to_string()]);
    let told = async {
        let mut watch = store.watch("/services/", revision).await?;
        watch.next().await
    };
    let told = told.await;
    assert!(matches!(told, Err(StoreError::Compacted(_))), "{told:?}");
    let read = store.read("/services/", None, Some(revision)).await;
    assert!(matches!(read, Err(StoreError::Compacted(_))), "{read:?}");
    // And the host goes on, also when it was away while that happened.
    cluster.members[0].kill();
    cluster.run(0);
    cluster.wait_healthy();
    cluster.ctl(&["del", FIRST]);
    cluster.ctl(&["compact", &cluster.revision().to_string()]);
    back(&cluster, &host, 2, -1).await;
    still_works(&host, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoiled_key_or_node_record_is_back_within_a_second() {
    let (cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let host = start(&cluster, directory.path());
    host.ready(offered(2));
    publishes(&host, 2).await;
    let node_key = format!("/wharf/services/nodes/core-01/{}", host.owner);
    // It follows by some seconds.
    eventually("the node record has come to rest", || async {
        let page = host.store.get(std::slice::from_ref(&node_key)).await.unwrap();
        let node = page.items.first().and_then(|item| NodeRecord::decode(&item.value).ok());
        node.is_some_and(|node| node.states.get("ready").copied() == Some(2) && node.waiting.is_empty())
    })
    .await;
    for key in [FIRST, &node_key] {
        let spoilt = Write::Put { key: key.into(), value: "garbage".into(), lease: 0 };
        for spoil in [Write::Delete(key.into()), spoilt] {
            let mut took = Vec::new();
            // A machine shared with other tests may be late once.
            while took.last().is_none_or(|took| *took >= Duration::from_secs(1)) {
                assert!(took.len() < 3, "{key}: never within a second: {took:?}");
                let good = host.store.get(&[key.to_owned()]).await.unwrap().items.remove(0).value;
                host.store.commit(&[], std::slice::from_ref(&spoil)).await.unwrap();
                let begin = Instant::now();
                eventually("it is as it was", || async {
                    host.store.get(&[key.to_owned()]).await.unwrap().items.iter().any(|item| item.value == good)
                })
                .await;
                took.push(begin.elapsed());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_endpoint_costs_no_more_than_one_deadline() {
    const DEADLINE: Duration = Duration::from_secs(1);
    let cluster = Cluster::start(1);
    // It accepts (the kernel does) and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = (silent.local_addr().unwrap(), silent);
    let mut took = Vec::new();
    // A store begins with either endpoint: here it takes some until one begins with the silent one.
    for _ in 0..60 {
        let mut settings = cluster.settings(Duration::from_secs(30));
        settings.endpoints.insert(0, format!("http://{}", silent.0));
        let store = wharf::store::etcd::Etcd::new(settings);
        let begin = Instant::now();
        store.get(&[]).await.unwrap();
        let first = begin.elapsed();
        store.get(&[]).await.unwrap();
        took.push((first, begin.elapsed().checked_sub(first).unwrap()));
        let waited = took.iter().filter(|(first, _)| *first >= DEADLINE);
        if waited.clone().any(|(first, next)| *first < DEADLINE * 2 && *next < DEADLINE) {
            return;
        }
        assert!(waited.count() < 3, "{took:?}");
    }
    panic!("no store began with the silent endpoint: {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloned_images_with_one_state_directory_publish_all_that_they_have() {
    let (cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let original = start(&cluster, directory.path());
    original.ready(offered(2));
    publishes(&original, 2).await;
    let keys = original.own_keys().await;
    let setups =
        [Setup { machine: "m2", ..Setup::default() }, Setup { node: "core-02", machine: "m1", ..Setup::default() }];
    let mut clones = Vec::new();
    for setup in setups {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(directory.path().join("state.json"), copy.path().join("state.json")).unwrap();
        let clone = Host::start(Arc::new(cluster.store(TTL)), copy.path(), setup);
        assert_ne!(clone.owner, original.owner);
        clone.ready(offered(2));
        publishes(&clone, 2).await;
        clones.push((clone, copy));
    }
    assert_eq!(original.own_keys().await, keys, "the original keeps its keys");
    assert_eq!(items(&*original.store, "/services").await.len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_away_at_start_is_waited_for() {
    let (mut cluster, directory) = (Cluster::start(1), tempfile::tempdir().unwrap());
    cluster.members[0].kill();
    let host = start(&cluster, directory.path());
    host.ready(offered(3));
    returns_in_time(&mut cluster, &host, 3, false, async |cluster| {
        cluster.members[0].kill();
        eventually("own instances answer", || async { host.outputs.overlay.borrow().records.len() == 3 }).await;
        cluster.run(0);
        cluster.wait_healthy();
    })
    .await;
}
