//! The mirror beside a real etcd that hangs, forgets, and returns; and an agent that starts without it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod desk;
mod etcd;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use desk::{Desk, Setup, eventually, put, put_on};
use etcd::Cluster;
use hickory_server::proto::op::{Message, ResponseCode};
use hickory_server::proto::rr::RecordType;
use wharf::model::publish::local::Overlay;
use wharf::store::embedded::Embedded;
use wharf::store::{Session, Store};
use wharf::view::Progress;

const WEB: &str = "web.services.internal.";
const LEASE: Duration = Duration::from_secs(30);

fn record(host: &str, owner: &str) -> String {
    format!(r#"{{"host":"{host}","port":80,"owner":"{owner}","node":"{owner}"}}"#)
}

struct World {
    cluster: Cluster,
    store: Arc<dyn Store>,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::start(1);
        let store = Arc::new(cluster.store(LEASE));
        Self { cluster, store }
    }

    /// Another agent with one record.
    async fn agent(&self, owner: &str, host: &str) -> Session {
        self.agent_for(LEASE, owner, host).await
    }

    async fn agent_for(&self, ttl: Duration, owner: &str, host: &str) -> Session {
        let session = self.store.session(ttl, None).await.unwrap();
        put_on(&*self.store, session.lease(), &[(&format!("/services/web/{owner}"), &record(host, owner))]).await;
        session
    }

    fn desk(&self, setup: Setup) -> Desk {
        Desk::start(Arc::new(self.cluster.store(LEASE)), setup)
    }
}

async fn answered(desk: &Desk, addresses: &[&str]) {
    eventually(&format!("{addresses:?} are answered"), || async {
        desk.answers(WEB, RecordType::A).await == addresses
    })
    .await;
}

/// The extended error of a reply (RFC 8914).
fn extended(reply: &Message) -> Option<u16> {
    use hickory_server::proto::rr::rdata::opt::EdnsOption;
    let options = &reply.edns.as_ref()?.options().options;
    options.iter().find_map(|(_, option)| match option {
        EdnsOption::Unknown(15, data) => Some(u16::from_be_bytes([data[0], data[1]])),
        _ => None,
    })
}

async fn asked(desk: &Desk, name: &str) -> Message {
    desk::udp(desk.address, &desk::with_edns(desk::query(name, RecordType::A), 1232)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_store_leaves_answers_that_say_so() {
    let world = World::new();
    let _agent = world.agent("one", "10.0.0.1").await;
    let desk = world.desk(Setup { ttl: Duration::from_secs(60), ..Setup::default() });
    answered(&desk, &["10.0.0.1"]).await;
    assert_eq!(extended(&asked(&desk, WEB).await), None);
    world.cluster.members[0].freeze();
    eventually("stale", || async { desk.view.load().is_stale() }).await;
    let reply = asked(&desk, WEB).await;
    assert_eq!((reply.answers.len(), extended(&reply)), (1, Some(3)));
    assert!(reply.answers[0].ttl <= 5, "TTL {}", reply.answers[0].ttl);
    assert!(desk.metrics().contains("wharf_catalog_stale 1"));
    world.cluster.members[0].thaw();
    eventually("in step", || async { !desk.view.load().is_stale() }).await;
    put(&*world.store, &[("/services/web/two", &record("10.0.0.2", "two"))]).await;
    answered(&desk, &["10.0.0.1", "10.0.0.2"]).await;
    desk.stop().await;
}

/// The watch outlives a store that hangs for a moment; who found it away may not come back to say that it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_found_away_in_passing_is_found_there_again() {
    let world = World::new();
    put(&*world.store, &[("/services/web/one", "10.0.0.1:80")]).await;
    let desk = world.desk(Setup::default());
    answered(&desk, &["10.0.0.1"]).await;
    // Once by a question that is given up, once by one whose answer is that there is no such lease.
    for given_up in [true, false] {
        world.cluster.members[0].freeze();
        let store = desk.store.clone();
        let asked = tokio::spawn(async move { drop(store.lease(4_711).await) });
        eventually("stale", || async { desk.view.load().is_stale() }).await;
        if given_up {
            asked.abort();
        }
        world.cluster.members[0].thaw();
        eventually("in step", || async { !desk.view.load().is_stale() }).await;
    }
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_watch_is_read_afresh() {
    let mut world = World::new();
    put(&*world.store, &[("/services/web/a", "10.0.0.1:80"), ("/services/web/b", "10.0.0.2:80")]).await;
    let desk = world.desk(Setup::default());
    answered(&desk, &["10.0.0.1", "10.0.0.2"]).await;
    // etcd is changed and compacted where the agent cannot see it.
    let port = world.cluster.members[0].client;
    world.cluster.members[0].kill();
    world.cluster.members[0].client = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.cluster.run(0);
    world.cluster.wait_healthy();
    world.cluster.ctl(&["del", "/services/web/a"]);
    world.cluster.ctl(&["put", "/services/web/c", "10.0.0.3:80"]);
    world.cluster.ctl(&["put", "/services/web/c", "10.0.0.4:80"]);
    world.cluster.ctl(&["compact", &world.cluster.revision().to_string()]);
    world.cluster.members[0].kill();
    world.cluster.members[0].client = port;
    world.cluster.run(0);
    world.cluster.wait_healthy();
    answered(&desk, &["10.0.0.2", "10.0.0.4"]).await;
    eventually("in step", || async { !desk.view.load().is_stale() }).await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_name_vanishes_because_the_store_returns_empty() {
    let mut world = World::new();
    let agent = world.agent("one", "10.0.0.1").await;
    let desk = world.desk(Setup::default());
    answered(&desk, &["10.0.0.1"]).await;
    drop(agent);
    world.cluster.wipe();
    eventually("held", || async { desk.view.load().counts().held == 1 }).await;
    let reply = asked(&desk, WEB).await;
    assert_eq!(reply.answers.len(), 1);
    assert!(reply.answers[0].ttl <= 5);
    // The owner is back, with another address.
    let fresh = World { store: Arc::new(world.cluster.store(LEASE)), cluster: world.cluster };
    let _agent = fresh.agent("one", "10.0.0.9").await;
    answered(&desk, &["10.0.0.9"]).await;
    assert_eq!(desk.view.load().counts().held, 0);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_record_goes_when_its_owner_does_not_return() {
    let mut world = World::new();
    let agent = world.agent_for(Duration::from_secs(3), "one", "10.0.0.1").await;
    put(&*world.store, &[("/services/web/static", "10.0.0.7:80")]).await;
    let desk = world.desk(Setup { lease_ttl: Duration::from_secs(2), ..Setup::default() });
    answered(&desk, &["10.0.0.1", "10.0.0.7"]).await;
    drop(agent);
    world.cluster.wipe();
    eventually("held", || async { desk.view.load().counts().held == 2 }).await;
    eventually("gone", || async {
        desk.udp(WEB, RecordType::A).await.metadata.response_code == ResponseCode::NXDomain
    })
    .await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kept_catalog_answers_until_the_store_is_there() {
    let mut world = World::new();
    let _agent = world.agent("one", "10.0.0.1").await;
    let dir = tempfile::tempdir().unwrap();
    let setup = || Setup { keep: Some(dir.path().join("catalog")), ..Setup::default() };
    let desk = world.desk(setup());
    answered(&desk, &["10.0.0.1"]).await;
    desk.stop().await;
    assert!(dir.path().join("catalog").exists());
    world.cluster.members[0].kill();
    let desk = world.desk(setup());
    let reply = asked(&desk, WEB).await;
    assert_eq!((reply.answers.len(), extended(&reply)), (1, Some(3)));
    assert_eq!(desk.view.progress(), Progress::Kept);
    let reply = asked(&desk, "nothing.services.internal.").await;
    assert_eq!((reply.metadata.response_code, extended(&reply)), (ResponseCode::NXDomain, Some(19)));
    world.cluster.run(0);
    eventually("read", || async { desk.view.progress() == Progress::Read && !desk.view.load().is_stale() }).await;
    answered(&desk, &["10.0.0.1"]).await;
    desk.stop().await;
}

/// An agent that is killed seconds after it has published leaves a catalog without that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_there_has_the_first_word_not_the_kept_catalog() {
    let store: Arc<dyn Store> = Arc::new(Embedded::new());
    let dir = tempfile::tempdir().unwrap();
    let setup = || Setup { keep: Some(dir.path().join("catalog")), ..Setup::default() };
    put(&*store, &[("/services/web/one", &record("10.0.0.1", "one"))]).await;
    let desk = Desk::start(store.clone(), setup());
    answered(&desk, &["10.0.0.1"]).await;
    desk.stop().await;
    let kept = std::fs::read(dir.path().join("catalog")).unwrap();
    put(&*store, &[("/services/web/two", &record("10.0.0.2", "two"))]).await;
    // Where the machine gives this test no time at all, the kept catalog may speak first after all: not thrice.
    for attempt in 1.. {
        std::fs::write(dir.path().join("catalog"), &kept).unwrap();
        let desk = Desk::start(store.clone(), setup());
        let first = desk.view.changed().wait_for(|change| change.progress > Progress::Nothing).await.unwrap().progress;
        let reply = asked(&desk, WEB).await;
        desk.stop().await;
        if first == Progress::Read {
            assert_eq!(reply.answers.len(), 2);
            break;
        }
        assert!(attempt < 3, "{first:?} comes first");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_the_store_is_away_keeps_what_was_known_last() {
    let mut world = World::new();
    let _agent = world.agent("one", "10.0.0.1").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog");
    let setup = || Setup { keep: Some(file.clone()), ..Setup::default() };
    let desk = world.desk(setup());
    eventually("the first is kept", || async { file.exists() }).await;
    // Less than ten seconds later, so that only the stop can keep it.
    put(&*world.store, &[("/services/web/two", &record("10.0.0.2", "two"))]).await;
    answered(&desk, &["10.0.0.1", "10.0.0.2"]).await;
    world.cluster.members[0].kill();
    eventually("stale", || async { desk.view.load().is_stale() }).await;
    desk.stop().await;
    let desk = world.desk(setup());
    answered(&desk, &["10.0.0.1", "10.0.0.2"]).await;
    assert_eq!(desk.view.progress(), Progress::Kept);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_store_and_a_kept_catalog_only_our_own_is_known() {
    let mut world = World::new();
    world.cluster.members[0].kill();
    let own: wharf::model::words::record::Record = serde_json::from_str(&record("10.0.0.5", "own")).unwrap();
    let overlay = Overlay {
        active: true,
        owner: "own".into(),
        records: BTreeMap::from([("/services/web/own".to_owned(), Arc::new(own))]),
        ..Overlay::default()
    };
    let desk = Desk::start_with(Arc::new(world.cluster.store(LEASE)), Setup::default(), overlay);
    let reply = asked(&desk, WEB).await;
    assert_eq!((reply.answers.len(), reply.metadata.response_code), (1, ResponseCode::NoError));
    let reply = asked(&desk, "redis.services.internal.").await;
    assert_eq!((reply.metadata.response_code, extended(&reply)), (ResponseCode::ServFail, Some(14)));
    world.cluster.run(0);
    eventually("read", || async {
        asked(&desk, "redis.services.internal.").await.metadata.response_code == ResponseCode::NXDomain
    })
    .await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_unconfirmed_records_are_laid_over() {
    let world = World::new();
    put(
        &*world.store,
        &[
            ("/services/web/own", r#"{"host":"10.0.0.1","port":80,"owner":"own","node":"core-01"}"#),
            ("/services/web/two", &record("10.0.0.2", "two")),
        ],
    )
    .await;
    let desk = world.desk(Setup::default());
    answered(&desk, &["10.0.0.1", "10.0.0.2"]).await;
    let own: wharf::model::words::record::Record = serde_json::from_str(&record("10.0.0.5", "own")).unwrap();
    let records = BTreeMap::from([("/services/web/other".to_owned(), Arc::new(own))]);
    desk.overlay.send_replace(Arc::new(Overlay { active: true, owner: "own".into(), records, ..Overlay::default() }));
    answered(&desk, &["10.0.0.2", "10.0.0.5"]).await;
    // It stays until the catalog has what has been written, and follows what this host offers until then.
    let own: wharf::model::words::record::Record = serde_json::from_str(&record("10.0.0.7", "own")).unwrap();
    let records = BTreeMap::from([("/services/web/other".to_owned(), Arc::new(own))]);
    let written = world.store.get(&[]).await.unwrap().revision + 1;
    desk.overlay.send_replace(Arc::new(Overlay { owner: "own".into(), records, written, ..Overlay::default() }));
    answered(&desk, &["10.0.0.2", "10.0.0.7"]).await;
    put(&*world.store, &[("/services/web/two", &record("10.0.0.2", "two"))]).await;
    answered(&desk, &["10.0.0.1", "10.0.0.2"]).await;

    // A key that another owner holds is not taken from it, here as little as in the store.
    let own: wharf::model::words::record::Record = serde_json::from_str(&record("10.0.0.6", "own")).unwrap();
    let records = BTreeMap::from([("/services/web/two".to_owned(), Arc::new(own))]);
    let overlay = Overlay { active: true, owner: "own".into(), records, ..Overlay::default() };
    desk.overlay.send_replace(Arc::new(overlay.clone()));
    answered(&desk, &["10.0.0.2", "10.0.0.6"]).await;
    // What is known to be ours, though it names no owner any more, is.
    put(&*world.store, &[("/services/web/two", r#"{"host":"10.0.0.2","port":80}"#)]).await;
    let out = ["/services/web/two".to_owned()].into();
    desk.overlay.send_replace(Arc::new(Overlay { out, ..overlay }));
    answered(&desk, &["10.0.0.6"]).await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_docker_is_listed_our_containers_stay_as_the_catalog_has_them() {
    let world = World::new();
    let of = |host: &str, more: &str| format!(r#"{{"host":"{host}","port":80,"owner":"own","node":"core-01"{more}}}"#);
    put(
        &*world.store,
        &[
            ("/services/web/container", &of("10.0.0.1", r#","container":"0123456789ab""#)),
            ("/services/web/table", &of("10.0.0.2", "")),
        ],
    )
    .await;
    let desk = world.desk(Setup::default());
    answered(&desk, &["10.0.0.1", "10.0.0.2"]).await;
    let own: wharf::model::words::record::Record = serde_json::from_str(&of("10.0.0.3", "")).unwrap();
    let records = BTreeMap::from([("/services/web/other-table".to_owned(), Arc::new(own))]);
    let overlay = Overlay { active: true, partial: true, owner: "own".into(), records, ..Overlay::default() };
    desk.overlay.send_replace(Arc::new(overlay));
    answered(&desk, &["10.0.0.1", "10.0.0.3"]).await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_leased_keys_ttl_is_at_most_its_remainder() {
    let world = World::new();
    let session = world.store.session(Duration::from_secs(8), None).await.unwrap();
    put_on(&*world.store, session.lease(), &[("/services/web/x", r#"{"host":"10.0.0.1","ttl":3600}"#)]).await;
    drop(session);
    let desk = world.desk(Setup { ttl: Duration::from_secs(60), ..Setup::default() });
    answered(&desk, &["10.0.0.1"]).await;
    let ttl = async || desk.udp(WEB, RecordType::A).await.answers.first().map(|record| record.ttl);
    eventually("the remainder is known", || async { ttl().await.is_some_and(|ttl| ttl > 1 && ttl <= 8) }).await;
    eventually("it goes down", || async { ttl().await.is_some_and(|ttl| ttl <= 4) }).await;
    eventually("it ends", || async { ttl().await.is_none() }).await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_wait_in_the_socket_for_the_first_list() {
    let world = World::new();
    let _agent = world.agent("one", "10.0.0.1").await;
    let desk = world.desk(Setup::default());
    // Asked at once: the first question that is answered at all finds the catalog read.
    let reply = asked(&desk, WEB).await;
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 1));
    desk.stop().await;
}
