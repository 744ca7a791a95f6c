//! What registrator 5 writes, by the requests of the client library that it was built with: every key and value of both
//! its etcd adapters, its TTL and its refreshes, beside an agent's own records.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::ask::{PATIENCE, Told, delete, get, put, request};
use super::program::{Agent, told};
use super::{Ground, flags, start};

const CASES: &str = include_str!("../data/registrator_cases.json");

/// Every key that its two adapters write, with its value.
fn written() -> Vec<(String, String)> {
    let cases: Value = serde_json::from_str(CASES).unwrap();
    let of_case = |case: &Value| {
        let adapters = ["etcd_v2_kv_registrator", "skydns2_kv_registrator"].map(|adapter| case[adapter].clone());
        adapters.into_iter().filter_map(|keys| keys.as_object().cloned()).flatten().collect::<Vec<_>>()
    };
    let all = cases["cases"].as_array().unwrap().iter().flat_map(of_case);
    let all = all.map(|(key, value)| (key, value.as_str().unwrap().to_owned()));
    // It also writes addresses that are none, which nobody is to find.
    let is_some_address = |(_, value): &(String, String)| address(value).parse::<SocketAddr>().is_ok();
    let mut all: Vec<_> = all.filter(is_some_address).collect();
    all.sort();
    all.dedup_by(|one, other| one.0 == other.0);
    all
}

/// One registration: the members are asked for before each, then the key is set.
fn register(at: &str, key: &str, value: &str, ttl: Option<&str>) -> Told {
    assert_eq!(request(at, "GET", "/version", "", "", PATIENCE).unwrap().status, 200);
    assert_eq!(request(at, "GET", "/v2/members", "", "", PATIENCE).unwrap().status, 200);
    let ttl = ttl.map(|ttl| ("ttl", ttl));
    put(at, key, &[("value", value)].into_iter().chain(ttl).collect::<Vec<_>>())
}

/// Keys and addresses of everything that this agent finds.
fn found(agent: &Agent) -> Vec<(String, String)> {
    let listed = request(&agent.address("http"), "GET", "/v1/services", "", "", PATIENCE).unwrap().body;
    let endpoint = |endpoint: &Value| {
        let host = endpoint["host"].as_str().unwrap();
        (endpoint["key"].as_str().unwrap().to_owned(), format!("{host}:{}", endpoint["port"]))
    };
    let services = listed["services"].as_array().unwrap().iter();
    services.flat_map(|service| service["endpoints"].as_array().unwrap().iter().map(endpoint)).collect()
}

/// The address that a value of either adapter says.
fn address(value: &str) -> String {
    serde_json::from_str::<Value>(value).map_or_else(
        |_| value.to_owned(),
        |record| format!("{}:{}", record["host"].as_str().unwrap_or_default(), record["port"]),
    )
}

#[test]
fn every_key_that_it_writes_is_taken_as_etcd_takes_it_and_found() {
    let ground = Ground::start("/services,/skydns");
    let mut flags = flags("/services,/skydns");
    flags.extend(["--zone".to_owned(), "cluster.local=/skydns/local/cluster".to_owned()]);
    let one = start("core-04", &flags, "[[service]]\nname = 'redis'\nport = 1\ncheck = 'none'\n");
    let (at, real) = (one.address("etcd_v2"), ground.real());
    let keys = written();
    assert!(keys.len() > 50, "{}", keys.len());
    for (key, value) in &keys {
        for ttl in [None, Some("60"), Some("60")] {
            let (ours, theirs) = (register(&at, key, value, ttl), register(&real, key, value, ttl));
            let same = |told: &Told| (told.status, told.action().to_owned(), told.body["node"]["ttl"].clone());
            assert_eq!(same(&ours), same(&theirs), "{key}: etcd's own is the right one");
        }
        assert_eq!(get(&at, key).value(), value);
    }
    one.until("all of it is found", |one| {
        let found = found(one);
        keys.iter().all(|(key, value)| found.contains(&(key.clone(), address(value))))
    });
    // It takes back what it wrote, and what the agent offers stays.
    for (key, _) in &keys {
        assert_eq!(delete(&at, &format!("{key}?recursive=false&dir=false")).action(), "delete", "{key}");
    }
    one.until("the agent's own is left", |one| found(one).iter().map(|(_, at)| at.as_str()).eq(["127.0.0.1:1"]));
}

/// `-ttl 3 -ttl-refresh 1`: registered again and again, and gone when nobody does it any more.
#[test]
fn what_it_refreshes_is_answered_without_a_gap_and_gone_with_its_ttl() {
    let agent = Arc::new(start("core-01", &flags("/services"), ""));
    let at = agent.address("etcd_v2");
    let key = "/services/redis/core-02:redis:6379";
    assert_eq!(register(&at, key, "127.0.0.2:6379", Some("3")).status, 201);
    let is_found = |agent: &Agent| told(&agent.wharf("services redis -o hostport")).1.trim() == "127.0.0.2:6379";
    agent.until("it is found", is_found);
    let refreshed = Arc::new(AtomicUsize::new(0));
    let (writes, count) = (at.clone(), refreshed.clone());
    let registrator = std::thread::spawn(move || {
        for _ in 0..6 {
            std::thread::sleep(std::time::Duration::from_secs(1)); // as `-ttl-refresh 1` does
            let told = register(&writes, key, "127.0.0.2:6379", Some("3"));
            assert_eq!((told.status, told.body["node"]["ttl"].as_u64()), (200, Some(3)), "{told:?}");
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    while refreshed.load(Ordering::SeqCst) < 6 && !registrator.is_finished() {
        assert!(is_found(&agent), "it blinked after {refreshed:?} refreshes");
    }
    registrator.join().unwrap();
    agent.until("it is gone with its TTL", |agent| told(&agent.wharf("services redis")).0 == Some(1));
    assert_eq!(get(&at, key).code(), 100);
}
