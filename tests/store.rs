//! One suite for every store: what it says of keys, revisions, watches and leases holds for each of them.
#![allow(clippy::unwrap_used, missing_docs)]

mod etcd;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use wharf::store::embedded::Embedded;
use wharf::store::{
    Batch, Commit, Condition, Event, Item, MAX_WRITES, Reach, Store, StoreError, Watch, Write, lease_as_told,
};

const TTL: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(15);

fn put(key: &str, value: &str) -> Write {
    put_on(key, value, 0)
}

fn put_on(key: &str, value: &str, lease: i64) -> Write {
    Write::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), lease }
}

async fn done(store: &dyn Store, writes: &[Write]) -> i64 {
    match store.commit(&[], writes).await.unwrap() {
        Commit::Done(revision) => revision,
        Commit::Refused(_) => panic!("refused without a condition"),
    }
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.read(prefix, None, None).await.unwrap().items.into_iter().map(|item| item.key).collect()
}

/// The next batch with events.
async fn events(watch: &mut Box<dyn Watch>) -> Batch {
    loop {
        let batch = timeout(PATIENCE, watch.next()).await.expect("a batch in time").unwrap();
        if !batch.events.is_empty() {
            return batch;
        }
    }
}

async fn gone(store: &dyn Store, key: &str) {
    let deadline = Instant::now() + PATIENCE;
    while keys(store, key).await == [key] {
        assert!(Instant::now() < deadline, "{key} never went");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_read_is_in_order_and_of_its_prefix_only(store: Arc<dyn Store>) {
    done(&*store, &[put("/a/2", "x"), put("/a/1", "y"), put("/ab", "z"), put("/b", "z")]).await;
    let page = store.read("/a/", None, None).await.unwrap();
    let read: Vec<(&str, &[u8])> = page.items.iter().map(|item| (item.key.as_str(), &item.value[..])).collect();
    assert_eq!(read, [("/a/1", &b"y"[..]), ("/a/2", b"x")]);
    assert!(!page.more && page.items.iter().all(|item| item.revision == page.revision && item.lease == 0));
}

async fn pages_are_read_at_one_revision(store: Arc<dyn Store>) {
    for chunk in 0..12 {
        let writes: Vec<Write> = (0..MAX_WRITES).map(|n| put(&format!("/p/{chunk:02}{n:03}"), "v")).collect();
        done(&*store, &writes).await;
    }
    let first = store.read("/p/", None, None).await.unwrap();
    assert!(first.more);
    done(&*store, &[put("/p/zz", "late"), Write::Delete("/p/11099".into())]).await;
    let (mut all, mut more) = (first.items, first.more);
    while more {
        let after = all.last().unwrap().key.clone();
        let page = store.read("/p/", Some(&after), Some(first.revision)).await.unwrap();
        assert_eq!(page.revision, first.revision);
        more = page.more;
        all.extend(page.items);
    }
    assert_eq!(all.len(), 12 * MAX_WRITES);
    assert!(all.iter().any(|item| item.key == "/p/11099") && all.iter().all(|item| item.key != "/p/zz"));
}

/// Whatever characters keys have, each is read once and the list ends.
async fn a_list_of_odd_keys_ends(store: Arc<dyn Store>) {
    let odd = ["\u{1}", "\u{7f}", "\u{fffd}", "\u{10ffff}", "ä", " ", "/", "//", "%", "\n"];
    for chunk in 0..12 {
        let key = |n: usize| format!("/o/{}{chunk:02}{n:03}{}", odd[n % odd.len()], odd[(n / 10) % odd.len()]);
        let writes: Vec<Write> = (0..MAX_WRITES).map(|n| put(&key(n), "v")).collect();
        done(&*store, &writes).await;
    }
    assert_eq!(all_below(&*store, "/o/").await.len(), 12 * MAX_WRITES);
}

/// Every key below a prefix, page by page; each page must go on from the one before.
async fn all_below(store: &dyn Store, prefix: &str) -> Vec<String> {
    let (mut keys, mut after) = (Vec::new(), None::<String>);
    for _ in 0..100 {
        let page = store.read(prefix, after.as_deref(), None).await.unwrap();
        keys.extend(page.items.into_iter().map(|item| item.key));
        if !page.more {
            let mut different = keys.clone();
            different.sort();
            different.dedup();
            assert_eq!(different.len(), keys.len(), "a key was read twice");
            return keys;
        }
        after = keys.last().cloned();
    }
    panic!("the list does not end: {} keys", keys.len());
}

/// Only etcd takes such keys: what is no text, and what holds NUL.
#[tokio::test]
async fn keys_that_are_no_text_are_paged_by_their_bytes() {
    let cluster = etcd::Cluster::start(1);
    let mut client = etcd_client::Client::connect(cluster.endpoints(), None).await.unwrap();
    let ends: [&[u8]; 6] = [b"\xff", b"\x80", b"\xef\xbf\xbd", b"\0", b"\xc3", b"\0ff"];
    for number in 0..1_002_usize {
        let key = [b"/x/", ends[number % 6], format!("{:04}", number / 6).as_bytes(), ends[number % 5]].concat();
        client.put(key, "10.0.0.1:80", None).await.unwrap();
    }
    let store = cluster.store(TTL);
    let keys = timeout(PATIENCE, all_below(&store, "/x/")).await.unwrap();
    assert_eq!(keys.len(), 1_002);
    let mut watch = store.watch("/x/", 1).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 1_002 {
        let batch = timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
        seen.extend(batch.events.iter().map(|event| event.key().to_owned()));
    }
    assert_eq!(seen, keys.into_iter().collect());
}

/// More names of keys than an answer of etcd's lease service may hold.
#[tokio::test]
async fn a_lease_with_very_many_keys_tells_its_time() {
    let cluster = etcd::Cluster::start(1);
    let store = cluster.store(TTL);
    let session = store.session(Duration::from_secs(60), None).await.unwrap();
    for chunk in 0..10 {
        let long = "k".repeat(8_000);
        let writes: Vec<Write> =
            (0..MAX_WRITES).map(|n| put_on(&format!("/l/{chunk}{n:03}{long}"), "v", session.lease())).collect();
        done(&store, &writes).await;
    }
    assert!(matches!(store.lease(session.lease()).await, Err(StoreError::Refused { .. })));
    let (info, told) = lease_as_told(&store, session.lease()).await.unwrap();
    assert!(!told && info.keys.is_empty());
    assert_eq!(info.granted, Duration::from_secs(60));
    assert!(matches!(store.lease_times(4_711).await, Err(StoreError::NoLease(4_711))));
}

async fn get_finds_what_is_there(store: Arc<dyn Store>) {
    let writes: Vec<Write> = (0..90).map(|n| put(&format!("/g/{n:03}"), "v")).collect();
    let revision = done(&*store, &writes).await;
    let asked: Vec<String> = (0..250).rev().map(|n| format!("/g/{n:03}")).collect();
    let page = store.get(&asked).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].key.as_str(), page.revision), (90, "/g/000", revision));
    assert_eq!(store.get(&[]).await.unwrap().revision, revision);
}

async fn a_commit_is_made_whole_or_not_at_all(store: Arc<dyn Store>) {
    let first = done(&*store, &[put("/c/1", "a")]).await;
    let holds = |value: &str| Condition::Holds("/c/1".into(), Bytes::copy_from_slice(value.as_bytes()));
    let check = async |conditions: &[Condition], made: bool| {
        let result = store.commit(conditions, &[put("/c/1", "b"), put("/c/2", "b")]).await.unwrap();
        assert_eq!(matches!(result, Commit::Done(_)), made, "{conditions:?}");
    };
    check(&[Condition::Absent("/c/1".into())], false).await;
    check(&[Condition::Absent("/c/2".into()), Condition::Unchanged("/c/1".into(), first + 7)], false).await;
    check(&[holds("z")], false).await;
    check(&[Condition::Unchanged("/c/2".into(), first)], false).await;
    assert_eq!(keys(&*store, "/c/").await, ["/c/1"]);
    check(&[Condition::Absent("/c/2".into()), Condition::Unchanged("/c/1".into(), first), holds("a")], true).await;
    assert_eq!(keys(&*store, "/c/").await, ["/c/1", "/c/2"]);
}

async fn a_commit_may_rest_on_all_that_begins_alike(store: Arc<dyn Store>) {
    let first = done(&*store, &[put("/r/1", "a"), put("/rest", "a")]).await;
    let second = done(&*store, &[put("/r/2", "b")]).await;
    let third = done(&*store, &[put("/r/1", "c")]).await;
    let made = |since| Condition::NoneCreatedSince("/r/".into(), since);
    let written = |since| Condition::NonePutSince("/r/".into(), since);
    let none = Condition::NoneCreatedSince("/none/".into(), 0);
    for (condition, holds) in [
        (made(0), false),
        (made(first), false),
        (made(second), true),
        (written(second), false),
        (written(third), true),
        (none, true),
    ] {
        let result = store.commit(std::slice::from_ref(&condition), &[put("/other", "x")]).await.unwrap();
        assert_eq!(matches!(result, Commit::Done(_)), holds, "{condition:?}");
    }
    let item = store.first("/r/", None).await.unwrap().expect("it is there");
    assert_eq!((item.key.as_str(), &item.value[..], item.created, item.revision), ("/r/1", &b"c"[..], first, third));
    let before = store.first("/r/1", Some(second)).await.unwrap().expect("it was there");
    assert_eq!((&before.value[..], before.revision), (&b"a"[..], first));
    let last = done(&*store, &[Write::DeleteAll("/r/".into()), put("/other", "y")]).await;
    assert_eq!(keys(&*store, "/r").await, ["/rest"]);
    assert_eq!(store.first("/r/", None).await.unwrap(), None);
    let mut watch = store.watch("/r/", last).await.unwrap();
    assert_eq!(events(&mut watch).await.events.len(), 2);
}

async fn too_much_at_once_is_refused(store: Arc<dyn Store>) {
    let writes: Vec<Write> = (0..=MAX_WRITES).map(|n| put(&format!("/m/{n}"), "v")).collect();
    assert!(matches!(store.commit(&[], &writes).await, Err(StoreError::Refused { .. })));
    let conditions: Vec<Condition> = (0..MAX_WRITES).map(|n| Condition::Absent(format!("/m/{n}"))).collect();
    assert!(matches!(store.commit(&conditions, &writes[..MAX_WRITES]).await, Ok(Commit::Done(_))));
}

async fn a_watch_brings_everything_from_its_revision_on(store: Arc<dyn Store>) {
    let first = done(&*store, &[put("/w/1", "a")]).await;
    done(&*store, &[put("/other", "a")]).await;
    done(&*store, &[Write::Delete("/w/1".into()), put("/w/2", "b")]).await;
    let mut watch = store.watch("/w/", first).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(events(&mut watch).await.events);
    }
    let put_key = |event: &Event| matches!(event, Event::Put(_)).then(|| event.key().to_owned());
    assert_eq!(seen.iter().map(put_key).collect::<Vec<_>>(), [Some("/w/1".into()), None, Some("/w/2".into())]);
    assert_eq!(seen[1], Event::Delete { key: "/w/1".into(), revision: seen[2].revision() });
    let last = done(&*store, &[put("/w/3", "c")]).await;
    let batch = events(&mut watch).await;
    assert_eq!((batch.events.len(), batch.revision), (1, last));
    let mut later = store.watch("/w/", batch.revision + 1).await.unwrap();
    done(&*store, &[put("/w/4", "d")]).await;
    assert_eq!(events(&mut later).await.events[0].key(), "/w/4");
}

async fn an_idle_watch_says_that_it_is_in_step(store: Arc<dyn Store>) {
    let revision = done(&*store, &[put("/i/1", "a")]).await;
    let mut watch = store.watch("/i/", revision + 1).await.unwrap();
    for _ in 0..2 {
        let batch = timeout(Duration::from_secs(5), watch.next()).await.expect("a word within 5 s").unwrap();
        assert!(batch.events.is_empty() && batch.revision <= revision + 1, "{batch:?}");
    }
}

async fn a_lease_lives_as_long_as_its_session_and_then_its_time(store: Arc<dyn Store>) {
    let session = store.session(TTL, None).await.unwrap();
    assert!(!session.adopted() && session.granted() >= TTL);
    done(&*store, &[put_on("/l/1", "a", session.lease()), put("/l/2", "b")]).await;
    let info = store.lease(session.lease()).await.unwrap();
    assert_eq!(info.keys, ["/l/1"]);
    tokio::time::sleep(session.granted() + Duration::from_secs(2)).await;
    assert!(!*session.lost().borrow());
    assert_eq!(keys(&*store, "/l/").await, ["/l/1", "/l/2"]);
    let mut watch = store.watch("/l/", store.get(&[]).await.unwrap().revision + 1).await.unwrap();
    let lease = session.lease();
    drop(session);
    let batch = events(&mut watch).await;
    assert_eq!(batch.events, [Event::Delete { key: "/l/1".into(), revision: batch.revision }]);
    gone(&*store, "/l/1").await;
    assert!(matches!(store.lease(lease).await, Err(StoreError::NoLease(_))));
}

async fn a_living_lease_can_be_taken_over(store: Arc<dyn Store>) {
    let first = store.session(TTL, None).await.unwrap();
    let lease = first.lease();
    done(&*store, &[put_on("/t/1", "a", lease)]).await;
    drop(first);
    let second = store.session(TTL, Some(lease)).await.unwrap();
    assert_eq!((second.adopted(), second.lease()), (true, lease));
    tokio::time::sleep(second.granted() + Duration::from_secs(2)).await;
    assert_eq!(keys(&*store, "/t/").await, ["/t/1"]);
    let third = store.session(TTL, Some(lease + 12_345)).await.unwrap();
    assert!(!third.adopted() && third.lease() != lease);
}

async fn a_revoked_lease_takes_its_keys_and_tells_its_session(store: Arc<dyn Store>) {
    let session = store.session(TTL, None).await.unwrap();
    done(&*store, &[put_on("/r/1", "a", session.lease())]).await;
    store.revoke(session.lease()).await.unwrap();
    assert!(keys(&*store, "/r/").await.is_empty());
    let mut lost = session.lost();
    timeout(PATIENCE, lost.wait_for(|lost| *lost)).await.expect("told in time").unwrap();
    assert!(matches!(store.revoke(session.lease()).await, Err(StoreError::NoLease(_))));
    let late = store.commit(&[], &[put_on("/r/2", "a", session.lease())]).await;
    assert!(matches!(late, Err(StoreError::NoLease(lease)) if lease == session.lease()), "{late:?}");
    assert!(keys(&*store, "/r/").await.is_empty());
}

async fn a_key_put_again_leaves_its_old_lease(store: Arc<dyn Store>) {
    let (old, new) = (store.session(TTL, None).await.unwrap(), store.session(TTL, None).await.unwrap());
    assert_ne!(old.lease(), new.lease());
    done(&*store, &[put_on("/k/1", "a", old.lease())]).await;
    done(&*store, &[put_on("/k/1", "b", new.lease())]).await;
    store.revoke(old.lease()).await.unwrap();
    assert_eq!(store.get(&["/k/1".into()]).await.unwrap().items[0].lease, new.lease());
}

#[tokio::test(start_paused = true)]
async fn a_restored_store_goes_on_from_where_it_was() {
    let item = |key: &str, revision| Item { key: key.into(), value: "v".into(), lease: 7, revision, created: 2 };
    let restored = || Embedded::restored(40, 7, TTL, [item("/a/1", 12), item("/a/2", 38)]);
    let store = restored();
    let page = store.read("/a/", None, None).await.unwrap();
    assert_eq!((page.revision, page.items), (40, vec![item("/a/1", 12), item("/a/2", 38)]));
    let session = store.session(TTL, Some(7)).await.unwrap();
    assert!(session.adopted() && session.lease() == 7);
    let mut watch = store.watch("/a/", 41).await.unwrap();
    assert_eq!(done(&store, &[put("/a/3", "x")]).await, 41);
    assert_eq!(events(&mut watch).await.revision, 41);
    tokio::time::sleep(2 * TTL).await;
    assert_eq!(keys(&store, "/a/").await, ["/a/1", "/a/2", "/a/3"]);
    assert_ne!(store.session(TTL, None).await.unwrap().lease(), 7);

    let forgotten = restored();
    tokio::time::sleep(2 * TTL).await;
    assert!(keys(&forgotten, "/a/").await.is_empty(), "nobody took the lease over");
}

async fn it_is_there(store: Arc<dyn Store>) {
    store.get(&[]).await.unwrap();
    assert_eq!(*store.reach().borrow(), Reach::There);
    assert_eq!(store.history().borrow().generation, 0);
}

macro_rules! suite {
    ($($case:ident)*) => {
        mod embedded_store {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                super::$case(Arc::new(Embedded::new())).await;
            })*
        }

        mod etcd_store {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                let cluster = etcd::Cluster::start(1);
                super::$case(Arc::new(cluster.store(TTL))).await;
            })*
        }
    };
}

suite! {
    a_read_is_in_order_and_of_its_prefix_only
    a_commit_may_rest_on_all_that_begins_alike
    pages_are_read_at_one_revision
    a_list_of_odd_keys_ends
    get_finds_what_is_there
    a_commit_is_made_whole_or_not_at_all
    too_much_at_once_is_refused
    a_watch_brings_everything_from_its_revision_on
    an_idle_watch_says_that_it_is_in_step
    a_lease_lives_as_long_as_its_session_and_then_its_time
    a_living_lease_can_be_taken_over
    a_revoked_lease_takes_its_keys_and_tells_its_session
    a_key_put_again_leaves_its_old_lease
    it_is_there
}
