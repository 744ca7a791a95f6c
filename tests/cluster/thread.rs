//! The thin thread, on real engines and a real etcd: a published port becomes a record, the record an answer on every
//! host, and both go when what they speak of goes.

use std::time::Duration;

use serde_json::Value;

use crate::lab::{self, Lab, eventually, memcached, postgres, redis, throughout, within};

const MEMCACHED: &str = "memcached.services.internal";

/// Every host's DNS answers `name` with just these targets, before long.
#[track_caller]
pub(crate) fn everyone_finds(lab: &Lab, name: &str, targets: &[String]) {
    for host in lab.hosts() {
        eventually(&format!("{} answers {name} with {targets:?}", host.name()), || host.dig(name, "SRV").is(targets));
    }
}

/// No host's DNS has anything under `name`, before long.
#[track_caller]
pub(crate) fn nobody_finds(lab: &Lab, name: &str) {
    for host in lab.hosts() {
        eventually(&format!("{} answers nothing for {name}", host.name()), || host.dig(name, "SRV").is_nothing());
    }
}

#[test]
fn a_published_port_is_a_record_in_etcd_and_an_answer_on_every_host() {
    let lab = lab::share();
    let cache = lab.host(1).run(memcached().name("thread-01").env("SERVICE_NAME", "thread").publish_anywhere(11211));
    let port = cache.published(11211);
    let name = "thread.services.internal";
    everyone_finds(&lab, name, &[lab.host(1).at(port)]);

    let records = lab.etcd().read("/services/thread/");
    let [(key, value)] = &records[..] else { panic!("one record: {records:?}") };
    assert_eq!(key, "/services/thread/h1-thread-01-11211");
    let record: Value = serde_json::from_str(value).unwrap();
    assert_eq!(record["host"], lab.host(1).address().to_string());
    assert_eq!(record["port"], port);
    assert_eq!(record["service"], "thread");
    assert_eq!(record["node"], "h1");
    assert_eq!(record["id"], "h1:thread-01:11211");
    assert_eq!(record["container"], cache.id()[..12]);

    for host in lab.hosts() {
        let answer = host.dig(&format!("h1-thread-01-11211.{name}"), "A");
        assert_eq!(answer.data(), [lab.host(1).address().to_string()], "{answer:?}");
        let ttl = answer.answers[0].ttl;
        assert!(ttl <= 2, "a third of a lease of 5 s bounds what a cache may keep: {ttl}");
    }
}

#[test]
fn a_container_that_dies_is_gone_everywhere() {
    let lab = lab::share();
    let spec = |name| memcached().name(name).env("SERVICE_NAME", "dies").publish_anywhere(11211);
    let (one, two) = (lab.host(1).run(spec("dies-01")), lab.host(2).run(spec("dies-02")));
    let name = "dies.services.internal";
    let (at_one, at_two) = (lab.host(1).at(one.published(11211)), lab.host(2).at(two.published(11211)));
    everyone_finds(&lab, name, &[at_one, at_two.clone()]);
    one.kill();
    everyone_finds(&lab, name, &[at_two]);
    two.stop();
    nobody_finds(&lab, name);
    assert_eq!(lab.etcd().keys("/services/dies/"), Vec::<String>::new());
}

#[test]
fn a_paused_container_is_withdrawn_and_comes_back() {
    let lab = lab::share();
    let cache = lab.host(3).run(memcached().name("pauses").env("SERVICE_NAME", "pauses").publish_anywhere(11211));
    let at = lab.host(3).at(cache.published(11211));
    everyone_finds(&lab, "pauses.services.internal", std::slice::from_ref(&at));
    cache.pause();
    nobody_finds(&lab, "pauses.services.internal");
    cache.unpause();
    everyone_finds(&lab, "pauses.services.internal", &[at]);
}

#[test]
fn redis_is_found_by_role() {
    let lab = lab::share();
    let spec = |name| redis().name(name).env("SERVICE_NAME", "roles");
    let primary = lab.host(1).run(spec("roles-1").publish_anywhere(6379));
    let (address, port) = (lab.host(1).address().to_string(), primary.published(6379));
    let replica = lab.host(2).run(spec("roles-2").publish_anywhere(6379).arguments(&[
        "--replicaof",
        &address,
        &port.to_string(),
    ]));
    let (first, second) = (lab.host(1).at(port), lab.host(2).at(replica.published(6379)));
    everyone_finds(&lab, "roles.services.internal", &[first.clone(), second.clone()]);
    everyone_finds(&lab, "primary.roles.services.internal", std::slice::from_ref(&first));
    everyone_finds(&lab, "replicas.roles.services.internal", std::slice::from_ref(&second));
    replica.exec(&["/usr/bin/redis-cli", "replicaof", "no", "one"]);
    primary.exec(&[
        "/usr/bin/redis-cli",
        "replicaof",
        &lab.host(2).address().to_string(),
        &replica.published(6379).to_string(),
    ]);
    everyone_finds(&lab, "primary.roles.services.internal", &[second]);
    everyone_finds(&lab, "replicas.roles.services.internal", &[first]);
}

#[test]
fn postgres_is_found_once_it_serves() {
    let lab = lab::share();
    let database = lab.host(2).run(
        postgres()
            .name("orders")
            .env("SERVICE_NAME", "orders")
            .env("POSTGRES_PASSWORD", "secret")
            .publish_anywhere(5432),
    );
    let at = lab.host(2).at(database.published(5432));
    everyone_finds(&lab, "orders.services.internal", &[at]);
    let records = lab.etcd().read("/services/orders/");
    assert!(!records.iter().any(|(_, value)| value.contains("secret")), "no credential leaves the host: {records:?}");
}

#[test]
fn commands_and_http_tell_the_same_on_every_host() {
    let lab = lab::alone();
    let agents = lab.wharves();
    let _cache = lab.host(1).run(memcached().name("told").publish(11211));
    everyone_finds(&lab, MEMCACHED, &[lab.host(1).at(11211)]);
    for agent in &agents {
        let service = agent.json("/v1/services/memcached").unwrap();
        assert_eq!(service["endpoints"][0]["node"], "h1", "{service}");
        let table = agent.command(&["services"]).unwrap();
        assert!(table.contains("memcached") && table.contains(&lab.host(1).at(11211)), "{table}");
        assert!(agent.command(&["services", "unknown"]).is_err(), "an unknown name does not exit 0");
    }
    let local = agents[0].json("/v1/local").unwrap();
    assert_eq!(local["instances"][0]["state"], "ready", "{local}");
    assert_eq!(local["instances"][0]["check"], "memcached", "{local}");
}

#[test]
fn one_host_needs_no_etcd() {
    let lab = lab::alone();
    let wharf = lab.host(1).wharf().embedded().start();
    let cache = lab.host(1).run(memcached().name("alone").publish(11211));
    eventually("it is found", || wharf.dig(MEMCACHED, "SRV").is(&[lab.host(1).at(11211)]));
    // Another machine of the network may ask, too.
    eventually("from next door", || wharf.targets_seen_from(lab.host(2), MEMCACHED).is(&[lab.host(1).at(11211)]));
    cache.kill();
    within(Duration::from_secs(5), "it is gone", || wharf.dig(MEMCACHED, "SRV").is_nothing());
    assert_eq!(lab.etcd().keys("/"), Vec::<String>::new(), "nothing was written to etcd");
}

#[test]
fn a_steady_cluster_writes_nothing() {
    let lab = lab::alone();
    let _agents = lab.wharves();
    let _cache = lab.host(1).run(memcached().publish(11211));
    let _other = lab.host(2).run(memcached().publish(11211));
    everyone_finds(&lab, MEMCACHED, &[lab.host(1).at(11211), lab.host(2).at(11211)]);
    // Node records follow within 5 s of a change; from then on there is nothing to say.
    let mut settled = lab.etcd().revision();
    within(Duration::from_secs(20), "node records settle", || {
        throughout_or_changed(&lab, &mut settled, Duration::from_secs(6))
    });
    throughout(Duration::from_secs(5), "no revision is made", || lab.etcd().revision() == settled);
}

/// Whether the revision stood still for `length`; else takes the new one.
fn throughout_or_changed(lab: &Lab, settled: &mut i64, length: Duration) -> bool {
    let stood = !lab::wait::poll_for(length, || lab.etcd().revision() != *settled);
    *settled = lab.etcd().revision();
    stood
}
