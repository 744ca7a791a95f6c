//! What agents and locks own is read by all and written by nobody; what is written in a layout that is read is answered
//! by DNS, and gone with its time.

use std::process::Stdio;
use std::time::Instant;

use super::ask::{PATIENCE, Told, delete, get, post, put};
use super::program::{Server, told, wharf};
use super::{Ground, agent, cluster, flags, start, until};

fn refused(told: &Told, whose: &str) {
    assert_eq!((told.status, told.code()), (403, 110), "{told:?}");
    assert!(told.body["cause"].as_str().is_some_and(|cause| cause.contains(whose)), "{told:?}");
}

#[test]
fn a_record_of_an_agent_is_written_by_nobody_else() {
    let (_cache, port) = Server::memcached();
    let settings = format!("[[service]]\nname = 'memcached'\nport = {port}\nid = 'one'\n");
    let owner = start("core-01", &flags("/services"), &settings);
    let at = owner.address("etcd_v2");
    until("the record is there", || get(&at, "/services/memcached/one").status == 200);
    let before = get(&at, "/services/memcached/one").value().to_owned();
    refused(&put(&at, "/services/memcached/one", &[("value", "x")]), "core-01");
    refused(&put(&at, "/services/memcached/one", &[("value", "x"), ("prevExist", "true")]), "core-01");
    refused(&put(&at, "/services/memcached/one", &[("value", "x"), ("prevValue", &before)]), "core-01");
    refused(
        &put(&at, "/services/memcached/one", &[("refresh", "true"), ("ttl", "5"), ("prevExist", "true")]),
        "core-01",
    );
    refused(&delete(&at, "/services/memcached/one"), "core-01");
    assert_eq!(put(&at, "/services/memcached/two", &[("value", "127.0.0.1:1")]).status, 201);
    refused(&delete(&at, "/services/memcached?recursive=true"), "core-01");
    refused(&delete(&at, "/services?recursive=true"), "core-01");
    refused(&put(&at, "/services/memcached", &[("ttl", "5"), ("prevExist", "true")]), "core-01");
    refused(&put(&at, "/services/x", &[("value", r#"{"host":"127.0.0.1","port":1,"owner":"me"}"#)]), "owner");
    refused(&post(&at, "/services/x", &[("value", r#" {"owner":7}"#)]), "owner");
    assert_eq!(get(&at, "/services/memcached/one").value(), before);
    assert_eq!(delete(&at, "/services/memcached/two").status, 200, "what is nobody's is free");
}

#[test]
fn what_a_lock_is_held_by_is_written_by_nobody_else() {
    let cluster = cluster();
    let agent = agent(&cluster, "core-01", "/");
    let at = agent.address("etcd_v2");
    let endpoints = cluster.endpoints().join(",");
    let held = ["lock", "--key", "/services/postgres/master", "--value", "core-01", "--ttl", "5s"];
    let mut lock = wharf();
    lock.args(held).args(["--etcd-endpoints", &endpoints, "--node", "core-01", "--", "sleep", "600"]);
    let _lock = Server(lock.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until("the lock is held", || get(&at, "/services/postgres/master").value() == "core-01");
    refused(&put(&at, "/services/postgres/master", &[("value", "mine")]), "lock");
    refused(&delete(&at, "/services/postgres/master"), "lock");
    refused(&delete(&at, "/services/postgres?recursive=true"), "lock");
    refused(&put(&at, "/services/postgres", &[("ttl", "9"), ("prevExist", "true")]), "lock");
    let queue = get(&at, "/wharf/services/locks?recursive=true");
    assert!(queue.text.contains("/queue/") && queue.text.contains("/child"), "it is read: {queue:?}");
    refused(&delete(&at, "/wharf/services/locks?recursive=true"), "reading only");
    refused(&put(&at, "/wharf/services/locks/services/postgres/master/child", &[("value", "")]), "reading only");
    assert!(!get(&at, "/?recursive=true").text.contains("/wharf"), "who lists all is not shown it");
    // A program of the old kind holds its own key, and may go on to.
    assert_eq!(
        put(&at, "/services/other/master", &[("value", "a"), ("ttl", "30"), ("prevExist", "false")]).status,
        201
    );
    assert_eq!(put(&at, "/services/other/master", &[("value", "a"), ("ttl", "30"), ("prevValue", "a")]).status, 200);
    assert_eq!(delete(&at, "/services/other/master?prevValue=a").status, 200);
}

#[test]
fn what_is_written_is_answered_at_once_and_gone_with_its_time() {
    let ground = Ground::start("/services,/skydns");
    for agent in [&ground.agents[0], &ground.embedded] {
        let at = agent.address("etcd_v2");
        let written = Instant::now();
        let value = r#"{ "host": "127.0.0.1", "port": 11211 }"#;
        let told = put(&at, "/services/memcached/memcached-1", &[("value", value), ("ttl", "3")]);
        assert_eq!((told.status, told.body["node"]["ttl"].as_u64()), (201, Some(3)));
        let finder = if std::ptr::eq(agent, &ground.embedded) { agent } else { &ground.agents[1] };
        finder.prints("services memcached -o hostport", "the instance", |shown| shown.trim() == "127.0.0.1:11211");
        let found = written.elapsed();
        finder.until("it is gone", told_nothing);
        assert!(written.elapsed().as_secs() >= 2 && found < PATIENCE);
        until("the key is gone", || get(&at, "/services/memcached/memcached-1").status == 404);
        let plain = put(&at, "/services/redis/node:redis:6379", &[("value", "127.0.0.1:6379")]);
        assert_eq!(plain.status, 201);
        finder.prints("services redis -o hostport", "registrator's layout", |shown| shown.trim() == "127.0.0.1:6379");
    }
}

fn told_nothing(agent: &super::program::Agent) -> bool {
    told(&agent.wharf("services memcached")).0 == Some(1)
}
